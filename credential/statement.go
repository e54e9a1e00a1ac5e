package credential

import (
	"encoding/binary"
	"fmt"
)

// lengthPrefixed joins parts, each after its length as four bytes, big-endian,
// so that no two lists of parts give the same bytes.
func lengthPrefixed(parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += 4 + len(p)
	}
	out := make([]byte, 0, n)
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

// CheckName accepts a name for people: 1 to 64 printable ASCII characters.
func CheckName(name string) error {
	if len(name) < 1 || len(name) > 64 {
		return fmt.Errorf("name has %d characters, want 1 to 64", len(name))
	}
	for i := range len(name) {
		if name[i] < 0x20 || name[i] > 0x7e {
			return fmt.Errorf("name has a character that isn't printable ASCII at position %d", i)
		}
	}
	return nil
}
