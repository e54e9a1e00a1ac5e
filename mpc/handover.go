package mpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Handover is what another appliance gets with one party's share, so that it can play
// that party. Its text is a JSON object in which the secret comes first:
//
//	{"secretShare":"<base64>","pubkey":…,"party":…,"shareSet":…,"path":…,"delegation":…,"appliance":…}
//
// pubkey and secretShare are where a vendor's own form has them. There is one encoding,
// and the secret is taken out of it and put into it by hand: encoding/json keeps copies
// of what it encodes.
type Handover struct {
	// PublicKey is the set's.
	PublicKey []byte   `json:"pubkey"`
	Party     Party    `json:"party"`
	Set       ShareSet `json:"shareSet"`
	// Path is the wallet's below the key; empty for the key itself.
	Path []uint32 `json:"path,omitempty"`
	// Delegation and Appliance are the sender's names.
	Delegation string `json:"delegation"`
	Appliance  string `json:"appliance"`
}

const (
	handoverHead = `{"secretShare":"`
	handoverMid  = `",`
)

// maxHandover is the longest text, in bytes: a share over secp256k1 has about 16 KiB.
const maxHandover = 64 << 10

// ErrHandover is inside every refusal of a text.
var ErrHandover = errors.New("handover refused")

// HandOver lends the text with a share to use and wipes it. The error of use is
// returned as it is.
func HandOver(sh *Share, path []uint32, delegation, appliance string, use func(text []byte) error) error {
	h := Handover{PublicKey: sh.set.PublicKey, Party: sh.party, Set: sh.set, Path: path, Delegation: delegation, Appliance: appliance}
	public, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encoding a handover: %w", err)
	}
	return sh.Lend(func(encoded []byte) error {
		n := base64.StdEncoding.EncodedLen(len(encoded))
		text := make([]byte, 0, len(handoverHead)+n+len(handoverMid)+len(public))
		defer func() { clear(text[:cap(text)]) }()
		text = append(text, handoverHead...)
		text = base64.StdEncoding.AppendEncode(text, encoded)
		text = append(text, handoverMid...)
		text = append(text, public[1:]...)
		return use(text)
	})
}

// OpenHandover reads a text and lends the share in it, whose header agrees with what
// the text says. Errors are [ErrHandover], or that of use as it is.
func OpenHandover(text []byte, use func(h Handover, share []byte) error) error {
	rest, ok := bytes.CutPrefix(text, []byte(handoverHead))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 || len(text) > maxHandover || !bytes.HasPrefix(rest[end:], []byte(handoverMid)) {
		return fmt.Errorf("%w: not of the form", ErrHandover)
	}
	public := append([]byte{'{'}, rest[end+len(handoverMid):]...)
	var h Handover
	if err := json.Unmarshal(public, &h); err != nil {
		return fmt.Errorf("%w: what follows the share is no object of the form", ErrHandover)
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(again, public) {
		return fmt.Errorf("%w: not in its one encoding", ErrHandover)
	}
	share := make([]byte, base64.StdEncoding.DecodedLen(end))
	defer func() { clear(share[:cap(share)]) }()
	n, err := base64.StdEncoding.Strict().Decode(share, rest[:end])
	if err != nil || bytes.ContainsAny(rest[:end], "\r\n") {
		return fmt.Errorf("%w: the share is not in base64", ErrHandover)
	}
	o, err := decodeShare(share[:n])
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrHandover, err)
	case !o.set.equal(h.Set) || o.party != h.Party || !bytes.Equal(h.PublicKey, h.Set.PublicKey):
		return fmt.Errorf("%w: it tells of another share than the one in it", ErrHandover)
	}
	return use(h, share[:n])
}

// Others are the parties of the set but the one whose share was handed over.
func (h Handover) Others() []Party {
	return slices.DeleteFunc(slices.Clone(h.Set.Parties), func(p Party) bool { return p == h.Party })
}
