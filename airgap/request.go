// Package airgap carries requests to a signing host that has no wire, and answers
// back: as files, or as QR codes that two screens and two cameras exchange. It is
// for the person at the gap: a request says in plain words what it does, and ten
// words let two people compare over the telephone that both hold the same one.
//
// It holds no key and decides nothing: at the far side the daemon judges a request
// by the same ten steps as any other, and on the near side [Attach] takes an answer
// only when its signature is the wallet's over this very request. Every form is
// read strictly: one byte too many, an unknown member or another spelling of the
// same CBOR is refused.
package airgap

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
)

// MaxPayload is the largest payload of a request, in bytes; the daemon takes no larger one.
const MaxPayload = 256 << 10

// MaxMessage is the largest request or answer, in bytes of CBOR.
const MaxMessage = MaxPayload + 4096

// maxNote is the longest note, in bytes.
const maxNote = 200

// Request asks for one signature of one wallet. It holds no secret; who carries it
// can read it.
type Request struct {
	// ID is the request id of the call, 1 to 64 characters of [A-Za-z0-9_-]: signed
	// twice, the same signature comes back.
	ID string
	// Wallet is the wallet's id at the appliance; empty in what a wallet program
	// made, which knows the address alone.
	Wallet string
	// Signer is whose signature is asked for.
	Signer signable.Signer
	// Kind and Payload are what to sign.
	Kind    chains.Kind
	Payload []byte
	// NotAfter is when asking ends, in whole seconds; zero means never. It is the
	// requester's wish: `sigilctl request sign` keeps it, the daemon never sees it.
	NotAfter time.Time
	// Note is the requester's own words, printable ASCII of at most 200 bytes. Nobody checks them.
	Note string
	// made is the form it came in, which its answer takes.
	made form
	// raw is its encoding, as it came or as [Request.Encode] made it.
	raw []byte
}

// Decode reads what the payload does, with the decoders of the daemon but without
// an organization's ABIs, IDLs and pinned tables: the daemon may know more of it.
// Errors are *chains.DecodeError and [signable.ErrKind].
func (r *Request) Decode() (*chains.Decoded, error) {
	return signable.Decode(r.Kind, r.Payload, r.Signer, signable.Interfaces{})
}

// Encode returns the request as canonical CBOR (RFC 8949 §4.2.1), docs/formats.md
// has its members. What [ParseRequest] would refuse is refused here.
func (r *Request) Encode() ([]byte, error) {
	w := wireRequest{
		Form: requestForm, ID: r.ID, Wallet: r.Wallet, Chain: r.Signer.Chain, Address: r.Signer.Address,
		Kind: string(r.Kind), Payload: r.Payload, Note: r.Note,
	}
	if !r.NotAfter.IsZero() {
		w.NotAfter = uint64(r.NotAfter.Unix())
	}
	b, err := encode(w)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	if _, err := ParseRequest(b); err != nil {
		return nil, err
	}
	r.raw, r.made = b, formOurs
	return b, nil
}

// Digest names the request: SHA-256 of its encoding. Both hosts compute it from the bytes they hold.
func (r *Request) Digest() [32]byte { return sha256.Sum256(r.raw) }

// Expired reports whether asking has ended at now.
func (r *Request) Expired(now time.Time) bool {
	return !r.NotAfter.IsZero() && !now.Before(r.NotAfter)
}

// requestForm and answerForm are the first member of each message: what it is, and its version.
const (
	requestForm = "sigild/request/v1"
	answerForm  = "sigild/answer/v1"
)

type wireRequest struct {
	Form     string `cbor:"0,keyasint"`
	ID       string `cbor:"1,keyasint"`
	Wallet   string `cbor:"2,keyasint"`
	Chain    string `cbor:"3,keyasint"`
	Address  string `cbor:"4,keyasint"`
	Kind     string `cbor:"5,keyasint"`
	Payload  []byte `cbor:"6,keyasint"`
	NotAfter uint64 `cbor:"7,keyasint,omitempty"`
	Note     string `cbor:"8,keyasint,omitempty"`
}

// ErrForm: it is no request, or no answer, in a form we know.
var ErrForm = errors.New("not understood")

// ParseRequest reads a request of ours. Errors wrap [ErrForm]; what its payload does
// is for [Request.Decode] to say.
func ParseRequest(b []byte) (*Request, error) {
	var w wireRequest
	if err := decodeCanonical(b, &w); err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	switch {
	case w.Form != requestForm:
		return nil, fmt.Errorf("reading the request: %w: it says it is %q, not %q", ErrForm, short(w.Form), requestForm)
	case !plainName(w.ID):
		return nil, fmt.Errorf("reading the request: %w: an id is 1 to 64 characters of [A-Za-z0-9_-]", ErrForm)
	case !plainName(w.Wallet):
		return nil, fmt.Errorf("reading the request: %w: a wallet's id is 1 to 64 characters of [A-Za-z0-9_-]", ErrForm)
	case len(w.Payload) == 0 || len(w.Payload) > MaxPayload:
		return nil, fmt.Errorf("reading the request: %w: a payload of %d bytes, 1 to %d are taken", ErrForm, len(w.Payload), MaxPayload)
	case w.NotAfter > 1<<40:
		return nil, fmt.Errorf("reading the request: %w: an end in the year 36812 or later", ErrForm)
	case len(w.Note) > maxNote || !printable(w.Note):
		return nil, fmt.Errorf("reading the request: %w: a note is printable ASCII of at most %d bytes", ErrForm, maxNote)
	case !printable(w.Chain + w.Address + w.Kind):
		return nil, fmt.Errorf("reading the request: %w: chain, address and kind are printable ASCII", ErrForm)
	}
	r := &Request{
		ID: w.ID, Wallet: w.Wallet, Signer: signable.Signer{Chain: w.Chain, Address: w.Address},
		Kind: chains.Kind(w.Kind), Payload: w.Payload, Note: w.Note, made: formOurs, raw: b,
	}
	if w.NotAfter != 0 {
		r.NotAfter = time.Unix(int64(w.NotAfter), 0).UTC()
	}
	return r, nil
}

// plainName is the form of ids that the API takes.
func plainName(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// printable keeps control characters, and all that another alphabet can fake, off the screen.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// short cuts text of a stranger for an error.
func short(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}

// Ours reports whether the request came in our own form; its answer is CBOR in a file then.
func (r *Request) Ours() bool { return r.made == formOurs }
