package chains

import (
	"strings"

	"github.com/holiman/uint256"
)

// FormatUnits writes n, in an asset's smallest unit, as a decimal number of
// whole units: 1500000000000000000 with 18 decimals is "1.5". Nothing is rounded.
func FormatUnits(n *uint256.Int, decimals int) string {
	s := n.Dec()
	if pad := decimals + 1 - len(s); pad > 0 {
		s = strings.Repeat("0", pad) + s
	}
	whole, frac := s[:len(s)-decimals], strings.TrimRight(s[len(s)-decimals:], "0")
	if frac == "" {
		return whole
	}
	return whole + "." + frac
}
