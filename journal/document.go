package journal

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/sigild/sigild/seal"
)

// Documents that the device signs with the checkpoint key, for whoever has the public
// half of it: one JSON object, exactly as [SignDocument] writes it, with a newline.
//
//	{"v":1,"kind":…,"body":{…},"signature":base64}
//
// The signature is r ‖ s, 64 bytes, over SHA-256("sigild/journal/document/v1" | length of
// kind u32, kind | body as it is in the file).

const (
	documentDomain = "sigild/journal/document/v1"
	maxDocument    = 64 << 10
)

// ErrDocument: it is no document of that kind, or the key did not sign it.
var ErrDocument = errors.New("document doesn't verify")

type signedDocument struct {
	V         int             `json:"v"`
	Kind      string          `json:"kind"`
	Body      json.RawMessage `json:"body"`
	Signature []byte          `json:"signature"`
}

func (d *signedDocument) digest() [32]byte {
	b := append([]byte(documentDomain), binary.BigEndian.AppendUint32(nil, uint32(len(d.Kind)))...)
	return sha256.Sum256(append(append(b, d.Kind...), d.Body...))
}

// SignDocument gives the file; body must encode as JSON and hold no secret. It checks
// the device's signature under pub.
func SignDocument(ctx context.Context, device seal.Signer, key seal.KeyRef, pub *ecdsa.PublicKey, kind string, body any) ([]byte, error) {
	d := signedDocument{V: 1, Kind: kind}
	var err error
	if d.Body, err = json.Marshal(body); err != nil {
		return nil, fmt.Errorf("writing a document: %w", err)
	}
	if d.Signature, err = device.SignP256(ctx, key, d.digest()); err != nil {
		return nil, fmt.Errorf("signing a document: %w", err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("writing a document: %w", err)
	}
	if b = append(b, '\n'); len(b) > maxDocument {
		return nil, fmt.Errorf("writing a document: %d bytes, at most %d", len(b), maxDocument)
	}
	if !d.signedBy(pub) {
		return nil, errors.New("signing a document: the device's signature doesn't verify under the checkpoint key")
	}
	return b, nil
}

func (d *signedDocument) signedBy(pub *ecdsa.PublicKey) bool {
	if pub == nil || len(d.Signature) != 64 {
		return false
	}
	h := d.digest()
	return ecdsa.Verify(pub, h[:], new(big.Int).SetBytes(d.Signature[:32]), new(big.Int).SetBytes(d.Signature[32:]))
}

// OpenDocument reads a document of a kind into body, once its signature is verified;
// body is strict: unknown members are refused. Errors: [ErrDocument].
func OpenDocument(b []byte, pub *ecdsa.PublicKey, kind string, body any) error {
	bad := func(why string) error { return fmt.Errorf("%w: %s", ErrDocument, why) }
	if len(b) > maxDocument {
		return bad("it is too long")
	}
	var d signedDocument
	if err := strictJSON(b, &d); err != nil {
		return bad("it has an unknown form")
	}
	again, err := json.Marshal(d)
	if err != nil || !bytes.Equal(append(again, '\n'), b) {
		return bad("it is not in the canonical form")
	}
	switch {
	case d.V != 1:
		return bad(fmt.Sprintf("version %d is not known to this build", d.V))
	case d.Kind != kind:
		return bad(fmt.Sprintf("it is a %q, wanted is a %q", d.Kind, kind))
	case !d.signedBy(pub):
		return bad("the key did not sign it")
	}
	if err := strictJSON(d.Body, body); err != nil {
		return bad("what it says has an unknown form")
	}
	return nil
}

func strictJSON(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}
