package airgap

import (
	"errors"
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
)

// Answer is a signature on its way back. It holds no secret.
type Answer struct {
	// Request is the digest of the request that it answers.
	Request [32]byte
	// Signature is r ‖ s ‖ recovery id (65 bytes) or Ed25519 R ‖ S (64 bytes).
	Signature []byte
	// Appliance and Sequence say whose journal approved it, and where.
	Appliance string
	Sequence  uint64
}

type wireAnswer struct {
	Form      string `cbor:"0,keyasint"`
	Request   []byte `cbor:"1,keyasint"`
	Signature []byte `cbor:"2,keyasint"`
	Appliance string `cbor:"3,keyasint"`
	Sequence  uint64 `cbor:"4,keyasint"`
}

// Encode returns the answer as canonical CBOR.
func (a *Answer) Encode() ([]byte, error) {
	return encode(wireAnswer{Form: answerForm, Request: a.Request[:], Signature: a.Signature, Appliance: a.Appliance, Sequence: a.Sequence})
}

// ParseAnswer reads an answer of ours. Errors wrap [ErrForm].
func ParseAnswer(b []byte) (*Answer, error) {
	var w wireAnswer
	if err := decodeCanonical(b, &w); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	switch {
	case w.Form != answerForm:
		return nil, fmt.Errorf("reading the answer: %w: it says it is %q, not %q", ErrForm, short(w.Form), answerForm)
	case len(w.Request) != 32 || len(w.Signature) != 64 && len(w.Signature) != 65:
		return nil, fmt.Errorf("reading the answer: %w: a digest of %d bytes and a signature of %d", ErrForm, len(w.Request), len(w.Signature))
	case !plainName(w.Appliance):
		return nil, fmt.Errorf("reading the answer: %w: no appliance's id", ErrForm)
	}
	return &Answer{Request: [32]byte(w.Request), Signature: w.Signature, Appliance: w.Appliance, Sequence: w.Sequence}, nil
}

// ErrOtherRequest: the answer is for another request than this one.
var ErrOtherRequest = errors.New("the answer is for another request")

// Attach checks that the answer's signature is the wallet's over what this request
// asks for, and returns what goes to the network. Nothing else in an answer is
// believed. The decoded payload comes with it, for the person who sends it.
func Attach(r *Request, a *Answer) (*signable.Assembled, *chains.Decoded, error) {
	if a.Request != r.Digest() {
		return nil, nil, ErrOtherRequest
	}
	d, err := r.Decode()
	if err != nil {
		return nil, nil, fmt.Errorf("decoding the request: %w", err)
	}
	out, err := signable.Assemble(d, r.Signer, signable.Interfaces{}, a.Signature)
	return out, d, err
}
