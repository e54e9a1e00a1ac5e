package evm

import (
	"fmt"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// etherChains pay their fees in ether; elsewhere the coin's name is not known here.
var etherChains = map[uint64]bool{
	1: true, 10: true, 8453: true, 42161: true, 17000: true, 84532: true, 11155111: true, 560048: true,
}

// coins writes an amount of wei, e.g. "0.5 ETH (500000000000000000 wei)".
func (t *tx) coins(wei *uint256.Int) string {
	unit := "native coins"
	if t.chainID.IsUint64() && etherChains[t.chainID.Uint64()] {
		unit = "ETH"
	}
	return fmt.Sprintf("%s %s (%s wei)", chains.FormatUnits(wei, 18), unit, wei.Dec())
}

// summary says in one line of ASCII what the transaction does.
func (t *tx) summary(c calldata) string {
	var s strings.Builder
	switch {
	case len(t.to) == 0:
		fmt.Fprintf(&s, "create a contract from %d bytes of code (not understood) with %s", len(t.data), t.coins(&t.value))
	case c.token:
		fmt.Fprintf(&s, "transfer %s raw units of token %s to %s",
			c.amount.Dec(), Checksum([20]byte(t.to)), Checksum(c.recipient))
		if !t.value.IsZero() {
			fmt.Fprintf(&s, ", and send the token contract %s", t.coins(&t.value))
		}
	case c.opaque:
		fmt.Fprintf(&s, "call %s with %s and %d bytes of data (0x%x, not understood)",
			Checksum([20]byte(t.to)), t.coins(&t.value), len(t.data), t.data[:min(4, len(t.data))])
	default:
		fmt.Fprintf(&s, "send %s to %s", t.coins(&t.value), Checksum([20]byte(t.to)))
	}
	var fee uint256.Int
	t.fee(&fee)
	fmt.Fprintf(&s, " on chain %s; fee at most %s; nonce %d", t.chainID.Dec(), t.coins(&fee), t.nonce)
	return s.String()
}
