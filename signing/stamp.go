package signing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
)

// Some vendors keep the keys of wallets and sign for whoever shows a credential of
// theirs. Such a credential is sealed here, and what is asked for is no signature but
// a stamp: the credential's signature over the request to the vendor, as it will be
// sent. The ten steps are the same. Step 5 reads the vendor's body first: what it
// asks to sign is the payload that is decoded, judged, charged and journaled; the
// stamp is over the body, and only over one that asks for that payload.
//
// A stamp is worth a signature: whoever has it can have the vendor make it, now or
// until the vendor's time for the body is over. So its charge stands once it may exist.

// VendorCredential names the sealed key that stamps for a wallet.
type VendorCredential struct {
	ID string `json:"id"`
	// SignWith is the vendor's name of what signs: an address, a key's or a wallet's id.
	SignWith string `json:"sign_with"`
}

// VendorBody is a request to a vendor's API, as it will be sent.
type VendorBody struct {
	// Vendor is the word for whose API it is.
	Vendor string
	Body   []byte
	// Method, Path and Challenge are of vendors that bind a stamp to more than the body;
	// Witness is a signature of whoever got the challenge from the vendor. Else empty.
	Method, Path, Challenge string
	Witness                 []byte
}

// hash binds all of it.
func (b *VendorBody) hash() [32]byte {
	h := sha256.New()
	for _, part := range [...]string{b.Vendor, b.Method, b.Path, b.Challenge} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	h.Write(b.Body)
	return [32]byte(h.Sum(nil))
}

// AskedOfVendor is what a body asks the vendor to sign.
type AskedOfVendor struct {
	Kind    chains.Kind
	Payload []byte
	// At is the time that the body says; zero where the vendor's bodies say none.
	At time.Time
}

// VendorStamp is what a caller sends to the vendor, or its part of it.
type VendorStamp struct {
	// Header is the header that Value belongs into; "" where it is a part of a message.
	Header, Value string
}

// Stamper reads vendors' bodies and stamps them; package stamping is the one that
// does. Its errors are refusals, or storage errors. It keeps none of the bytes.
type Stamper interface {
	// ReadBody says what a body asks to sign for the wallet. It refuses all that is no
	// signing activity of this very wallet at the vendor.
	ReadBody(c VendorCredential, w WalletInfo, b VendorBody) (AskedOfVendor, error)
	// SignBody has the sealed key sign, and verifies what it signed. before is asked when
	// the key is lent; once it said yes, a stamp may exist.
	SignBody(ctx context.Context, c VendorCredential, b VendorBody, before func() error) (signature []byte, err error)
	// ShowStamp puts a signature of SignBody's into the vendor's form.
	ShowStamp(c VendorCredential, b VendorBody, signature []byte) (VendorStamp, error)
}

// How long before and after its own time a body is stamped: as the stamps of callers.
const (
	bodyAge   = 120 * time.Second
	bodyAhead = 30 * time.Second
)

// openBody is step 5 before the payload is decoded: r with what its body asks to sign.
func (s *Service) openBody(r Request, st *Standing) (Request, error) {
	switch {
	case r.Vendor == nil && st.Credential == nil:
		return r, nil
	case r.Vendor == nil:
		return r, refusal.New(refusal.RequestInvalid, "a vendor signs for this wallet: ask for a stamp (StampRequest)").With("field", "wallet_id")
	case st.Credential == nil:
		return r, refusal.New(refusal.RequestInvalid, "no vendor credential stamps for this wallet").With("field", "wallet_id")
	case s.cfg.Stamper == nil:
		return r, errors.New("reading a vendor's body: no room holds vendor credentials")
	}
	asked, err := s.cfg.Stamper.ReadBody(*st.Credential, st.Wallet, *r.Vendor)
	if err != nil {
		return r, err
	}
	r.Kind, r.Payload, r.bodyAt = asked.Kind, asked.Payload, asked.At
	return r, nil
}

// freshBody refuses a body that the vendor would find too old, or that somebody could
// keep for later. It is asked only when a stamp is to be made, not when one is shown again.
func (s *Service) freshBody(r Request) error {
	if r.bodyAt.IsZero() {
		return nil
	}
	if err := s.cfg.TimeUnconfirmed(); err != nil {
		return refusal.New(refusal.ClockUnconfirmed, "the body says a time, and %v", err)
	}
	now := s.now()
	if now.Sub(r.bodyAt) > bodyAge || r.bodyAt.Sub(now) > bodyAhead {
		return refusal.New(refusal.BodyExpired, "the body's time is more than %d s ago, or more than %d s ahead", int(bodyAge.Seconds()), int(bodyAhead.Seconds())).
			With("server_time", now.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// signBody is steps 8 and 9 for a stamp.
func (s *Service) signBody(ctx context.Context, a *approved) ([]byte, error) {
	return s.cfg.Stamper.SignBody(ctx, *a.standing.Credential, *a.request.Vendor, func() error { return s.mayRelease(a) })
}

// finish is step 10's answer: the signed payload, or the stamp.
func (s *Service) finish(r Request, st *Standing, d *chains.Decoded, signature []byte, rule string, sequence uint64) (*Result, error) {
	if r.Vendor == nil {
		return assemble(d, st, signature, rule, sequence)
	}
	stamp, err := s.cfg.Stamper.ShowStamp(*st.Credential, *r.Vendor, signature)
	if err != nil {
		return nil, err
	}
	return &Result{Signature: signature, Stamp: &stamp, Summary: d.Summary, Rule: rule, Sequence: sequence}, nil
}

// Facts of the entries of a request for a stamp.
const (
	factCredential = "vendor_credential"
	factBody       = "vendor_request"
	// stamped is the outcome of a signed entry whose signature is a stamp: what the vendor
	// made of it is not known here.
	stamped = "stamped"
)

// noteBody names credential and body in an entry; nothing for a request of another kind.
func noteBody(e *journal.Entry, r Request, st *Standing) {
	if r.Vendor == nil || st.Credential == nil {
		return
	}
	sum := r.Vendor.hash()
	e.Note(factCredential, st.Credential.ID)
	e.Note(factBody, hex.EncodeToString(sum[:]))
	if e.Kind == journal.KindSigned {
		e.Outcome = stamped
	}
}
