package vault

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sigild/sigild/seal"
)

// Pin is what is kept outside the store to know it again: in a file of root's.
// It is public. Whoever replaces the whole store can't sign a root-key generation
// that the pin accepts.
type Pin struct {
	StoreID  [16]byte
	StoreKey [ed25519.PublicKeySize]byte // Ed25519, signs each root-key generation
	// Anchor is the counter that the store's epoch must agree with; zero: none.
	Anchor Anchor
	// OldestRoot is the oldest root-key generation that is still believed; to be
	// raised after a rotation because of a root key that somebody may know. 0: any.
	OldestRoot uint32
}

const (
	pinFirst  = "sigild-store-pin: 1\n"
	pinFirst2 = "sigild-store-pin: 2\n"
	pinID     = "store-id: "
	pinKey    = "store-key: ed25519:"
	pinAnchor = "anchor: "
	pinOldest = "oldest-root-key: "
)

// MarshalText is the pin file, lines of ASCII, each ended by a newline: three in
// version 1, five in version 2, which is written when there is an anchor or an
// oldest root key to name.
func (p Pin) MarshalText() ([]byte, error) {
	body := pinID + hex.EncodeToString(p.StoreID[:]) + "\n" + pinKey + hex.EncodeToString(p.StoreKey[:]) + "\n"
	if p.Anchor == (Anchor{}) && p.OldestRoot == 0 {
		return []byte(pinFirst + body), nil
	}
	anchor := string(AnchorNone)
	if a := p.Anchor; a.Kind() != AnchorNone {
		anchor = string(a.Kind()) + " "
		if a.Kind() == AnchorNV {
			anchor += string(a.Counter) + " "
		}
		anchor += a.Provider
		if !a.printable() {
			return nil, errors.New("writing the store pin: the anchor's names can't be written")
		}
	}
	return []byte(pinFirst2 + body + pinAnchor + anchor + "\n" + pinOldest + strconv.FormatUint(uint64(p.OldestRoot), 10) + "\n"), nil
}

// printable: lower-case hex, and a provider's id of visible ASCII.
func (a Anchor) printable() bool {
	if a.Provider == "" {
		return false
	}
	for _, c := range []byte(a.Counter) {
		if !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	for _, c := range []byte(a.Provider) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// ParsePin reads exactly what [Pin.MarshalText] writes, and nothing else.
func ParsePin(text []byte) (Pin, error) {
	var p Pin
	s, first := strings.CutPrefix(string(text), pinFirst)
	if !first {
		var second bool
		if s, second = strings.CutPrefix(string(text), pinFirst2); !second {
			return p, fmt.Errorf("parsing the store pin: first line is not %q or %q", strings.TrimSpace(pinFirst), strings.TrimSpace(pinFirst2))
		}
	}
	s, err := hexLine(s, pinID, p.StoreID[:])
	if err != nil {
		return Pin{}, err
	}
	if s, err = hexLine(s, pinKey, p.StoreKey[:]); err != nil {
		return Pin{}, err
	}
	if !first {
		if s, err = p.parseSecond(s); err != nil {
			return Pin{}, err
		}
	}
	if s != "" {
		return Pin{}, fmt.Errorf("parsing the store pin: more lines than it has")
	}
	return p, nil
}

// parseSecond reads the two lines of version 2.
func (p *Pin) parseSecond(s string) (rest string, err error) {
	anchor, s, ok := strings.Cut(s, "\n")
	anchor, named := strings.CutPrefix(anchor, pinAnchor)
	if !ok || !named {
		return "", fmt.Errorf("parsing the store pin: want a line %q", strings.TrimSpace(pinAnchor))
	}
	if anchor != string(AnchorNone) {
		switch f := strings.Split(anchor, " "); {
		case len(f) == 3 && f[0] == string(AnchorNV) && f[1] != "":
			p.Anchor = Anchor{Counter: seal.KeyRef(f[1]), Provider: f[2]}
		case len(f) == 2 && f[0] == string(AnchorKEKRoll):
			p.Anchor = Anchor{Provider: f[1]}
		default:
			return "", errors.New("parsing the store pin: the anchor is \"none\", \"nv\" with counter and device, or \"kek-roll\" with a device")
		}
		if !p.Anchor.printable() {
			return "", errors.New("parsing the store pin: the anchor's counter is not lower-case hex")
		}
	}
	oldest, s, ok := strings.Cut(s, "\n")
	oldest, named = strings.CutPrefix(oldest, pinOldest)
	n, err := strconv.ParseUint(oldest, 10, 32)
	if !ok || !named || err != nil || strconv.FormatUint(n, 10) != oldest {
		return "", fmt.Errorf("parsing the store pin: want a line %q with a number", strings.TrimSpace(pinOldest))
	}
	p.OldestRoot = uint32(n)
	if p.OldestRoot == 0 && p.Anchor == (Anchor{}) {
		return "", errors.New("parsing the store pin: version 2 with nothing of version 2 in it")
	}
	return s, nil
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
