package solana

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/sigild/sigild/chains"
)

// Errors of [Assemble].
var (
	// ErrSignature: the signature is not the wallet's over the message.
	ErrSignature = errors.New("signature is not the wallet's over this message")
	// ErrMismatch: what would be released is not what was decoded.
	ErrMismatch = errors.New("assembled transaction differs from the decoded message")
)

// Assemble builds the transaction of d with wallet's Ed25519 signature in
// wallet's own slot and returns its wire encoding and its id; known must be what
// d was decoded with. Slots of other required signers are zero. The id is the
// base58 of the first signature, the fee payer's; it is empty while that one is
// missing. Nothing is returned whose signature does not verify over the exact
// message or whose message does not decode to d.View.
func Assemble(d *chains.Decoded, wallet [32]byte, known Known, sig [64]byte) (signed []byte, txid string, err error) {
	// Step 1: d must still say what its bytes say.
	fresh, err := Decode(d.Raw, wallet, d.Chain, known)
	if err != nil {
		return nil, "", fmt.Errorf("decoding payload again: %w", err)
	}
	if !bytes.Equal(fresh.Sign.Message, d.Sign.Message) || !fresh.View.Equal(d.View) {
		return nil, "", fmt.Errorf("decoding payload again: %w", ErrMismatch)
	}
	// Step 2: the signature must be the wallet's.
	if !ed25519.Verify(wallet[:], d.Sign.Message, sig[:]) {
		return nil, "", fmt.Errorf("verifying signature: %w", ErrSignature)
	}
	// Step 3: one slot a required signer, behind the message in version 1, before
	// it with their number else. A message has at most 37 keys, so it is one byte.
	m, err := parse(fresh.Raw)
	if err != nil {
		return nil, "", fmt.Errorf("decoding payload again: %w", err)
	}
	slot := m.signerSlot(&wallet)
	slots := make([]byte, 64*m.signers)
	copy(slots[64*slot:], sig[:])
	if m.version == v1 {
		signed = append(bytes.Clone(fresh.Raw), slots...)
	} else {
		signed = append(append([]byte{byte(m.signers)}, slots...), fresh.Raw...)
	}
	// Step 4: what leaves must decode to what was judged.
	if err := compare(signed, d, wallet, known, slot, sig); err != nil {
		return nil, "", err
	}
	if slot == 0 {
		txid = base58(sig[:])
	}
	return signed, txid, nil
}

// split takes a wire transaction apart.
func split(signed []byte) (message, slots []byte, err error) {
	r := &reader{b: signed}
	if len(signed) > 0 && signed[0] == 0x81 {
		m, err := parseFrom(r)
		if err != nil {
			return nil, nil, err
		}
		message, slots = signed[:r.pos], signed[r.pos:]
		if len(slots) != 64*m.signers {
			return nil, nil, fail(chains.CodeEncoding, r.pos, "%d bytes of signatures for %d signers", len(slots), m.signers)
		}
		return message, slots, nil
	}
	n := r.compactU16("signature count")
	slots = r.take(64*n, "signatures")
	if r.err != nil {
		return nil, nil, r.err
	}
	return signed[r.pos:], slots, nil
}

// compare decodes the wire transaction and holds it against what was judged.
func compare(signed []byte, d *chains.Decoded, wallet [32]byte, known Known, slot int, sig [64]byte) error {
	message, slots, err := split(signed)
	if err != nil {
		return fmt.Errorf("decoding signed transaction: %w", err)
	}
	got, err := Decode(message, wallet, d.Chain, known)
	if err != nil {
		return fmt.Errorf("decoding signed transaction: %w", err)
	}
	if !got.View.Equal(d.View) || !bytes.Equal(got.Raw, d.Raw) || 64*slot+64 > len(slots) || !bytes.Equal(slots[64*slot:64*slot+64], sig[:]) {
		return fmt.Errorf("comparing signed transaction: %w", ErrMismatch)
	}
	return nil
}
