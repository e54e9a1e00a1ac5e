package vault

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"strings"
)

// Pin is what is kept outside the store to know it again: in a file of root's,
// or in a TPM. It is public. Whoever replaces the whole store can't sign a
// root-key generation that the pin accepts.
type Pin struct {
	StoreID  [16]byte
	StoreKey [ed25519.PublicKeySize]byte // Ed25519, signs each root-key generation
}

const (
	pinFirst = "sigild-store-pin: 1\n"
	pinID    = "store-id: "
	pinKey   = "store-key: ed25519:"
)

// MarshalText is the pin file, three lines of ASCII, each ended by a newline.
func (p Pin) MarshalText() ([]byte, error) {
	return []byte(pinFirst + pinID + hex.EncodeToString(p.StoreID[:]) + "\n" +
		pinKey + hex.EncodeToString(p.StoreKey[:]) + "\n"), nil
}

// ParsePin reads exactly what [Pin.MarshalText] writes, and nothing else.
func ParsePin(text []byte) (Pin, error) {
	var p Pin
	s, ok := strings.CutPrefix(string(text), pinFirst)
	if !ok {
		return p, fmt.Errorf("parsing the store pin: first line is not %q", strings.TrimSpace(pinFirst))
	}
	s, err := hexLine(s, pinID, p.StoreID[:])
	if err != nil {
		return Pin{}, err
	}
	if s, err = hexLine(s, pinKey, p.StoreKey[:]); err != nil {
		return Pin{}, err
	}
	if s != "" {
		return Pin{}, fmt.Errorf("parsing the store pin: more than three lines")
	}
	return p, nil
}

// hexLine reads one line "<name><lower-case hex>" into out and returns the rest.
func hexLine(s, name string, out []byte) (rest string, err error) {
	line, rest, ended := strings.Cut(s, "\n")
	digits, named := strings.CutPrefix(line, name)
	if !ended || !named || len(digits) != 2*len(out) || strings.ToLower(digits) != digits {
		return "", fmt.Errorf("parsing the store pin: want a line %q with %d lower-case hex digits", strings.TrimSpace(name), 2*len(out))
	}
	if _, err := hex.Decode(out, []byte(digits)); err != nil {
		return "", fmt.Errorf("parsing the store pin: line %q is not hex", strings.TrimSpace(name))
	}
	return rest, nil
}
