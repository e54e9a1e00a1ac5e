package stamping

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/stamping/body"
	"github.com/sigild/sigild/stamping/dfns"
	"github.com/sigild/sigild/stamping/turnkey"
	"github.com/sigild/sigild/vault"
)

// This file is the answer to signing.Stamper, and to delegation where it binds.

var _ signing.Stamper = (*Service)(nil)

// OfferCredential says what a wallet is to the vendor: vendor, account and signer. It
// refuses a credential that is not there or revoked, and a signer that the vendor would
// not call so. Call it within an update.
func (s *Service) OfferCredential(org, id, chain, signWith string) (string, error) {
	r, err := s.find(org, id)
	if err != nil {
		return "", err
	}
	if r.Status != Active {
		return "", refusal.New(refusal.NotActive, "the vendor credential is %s", r.Status)
	}
	good := goodTurnkeyID(signWith)
	if r.Vendor == Dfns {
		good = dfns.GoodID(signWith) && (strings.HasPrefix(signWith, "wa-") || strings.HasPrefix(signWith, "key-"))
	}
	if !good {
		return "", refusal.New(refusal.RequestInvalid, "sign_with is no name of a wallet or key at %s", r.Vendor).With("field", "sign_with")
	}
	account := r.Account
	if r.Vendor == Dfns {
		account = "" // a credential of Dfns' is of a user; wallets have ids of their own
	}
	return string(r.Vendor) + "/" + account + "/" + signWith, nil
}

// active finds the credential of a delegation that is about to stamp.
func (s *Service) active(c signing.VendorCredential) (*record, error) {
	r := s.book.credential(c.ID)
	if r == nil {
		return nil, fmt.Errorf("reading vendor credential %s: it is missing", c.ID)
	}
	if r.Status != Active {
		return nil, refusal.New(refusal.DelegationRevoked, "the vendor credential was revoked")
	}
	return r, nil
}

// ReadBody implements signing.Stamper.
func (s *Service) ReadBody(c signing.VendorCredential, w signing.WalletInfo, b signing.VendorBody) (signing.AskedOfVendor, error) {
	r, err := s.active(c)
	if err != nil {
		return signing.AskedOfVendor{}, err
	}
	if b.Vendor != string(r.Vendor) {
		return signing.AskedOfVendor{}, refusal.New(refusal.VendorActivityDenied, "the wallet's vendor is %s", r.Vendor).With("field", "vendor")
	}
	var asked *body.Asked
	if r.Vendor == Turnkey {
		spellings := []string{c.SignWith, w.Address}
		onEVM := signable.Signer{Chain: w.Chain}.OnEVM()
		if onEVM {
			a, err := evm.ParseAddress(w.Address)
			if err != nil {
				return signing.AskedOfVendor{}, fmt.Errorf("reading the wallet's address: %w", err)
			}
			spellings = append(spellings, strings.ToLower(evm.Checksum(a)))
		}
		asked, err = turnkey.Read(b.Body, turnkey.Binding{Organization: r.Account, SignWith: spellings, EVM: onEVM})
	} else {
		asked, err = s.readDfns(r, c, w, b)
	}
	if err != nil {
		return signing.AskedOfVendor{}, refused(err)
	}
	return signing.AskedOfVendor{Kind: asked.Kind, Payload: asked.Payload, At: asked.At}, nil
}

// readDfns reads a request to Dfns, and who says that its challenge is the request's.
func (s *Service) readDfns(r *record, c signing.VendorCredential, w signing.WalletInfo, b signing.VendorBody) (*body.Asked, error) {
	request := dfns.Request{Method: b.Method, Path: b.Path, Body: b.Body, Challenge: b.Challenge}
	asked, err := dfns.Read(request, dfns.Binding{SignWith: c.SignWith, Chain: w.Chain})
	if err != nil {
		return nil, err
	}
	if _, err := dfns.ClientData(b.Challenge); err != nil {
		return nil, err
	}
	if r.Witness == nil {
		if len(b.Witness) != 0 {
			return nil, refusal.New(refusal.RequestInvalid, "the credential has no witness").With("field", "witness")
		}
		return asked, nil
	}
	key, err := r.Witness.key()
	if err != nil {
		return nil, fmt.Errorf("reading the witness of vendor credential %s: %w", r.ID, err)
	}
	if err := key.Verify(dfns.Statement(r.ID, request), b.Witness); err != nil {
		if errors.Is(err, credential.ErrSignature) {
			return nil, refusal.New(refusal.VendorActivityDenied, "the witness has not signed that the challenge is this request's").With("field", "witness")
		}
		return nil, err
	}
	return asked, nil
}

// refused makes a refusal of what the readers of bodies say.
func refused(err error) error {
	var bad *body.Error
	if !errors.As(err, &bad) {
		return err
	}
	reason := map[body.Code]refusal.Reason{
		body.Malformed: refusal.PayloadMalformed, body.NotSigning: refusal.VendorActivityDenied, body.NotBound: refusal.VendorActivityDenied,
		body.NotUnderstood: refusal.PayloadNotUnderstood, body.RawDigest: refusal.RawDigestDenied,
	}[bad.Code]
	no := refusal.New(reason, "reading the vendor's body: %s", bad.Message).With("code", string(bad.Code))
	if bad.Field != "" {
		no.With("field", bad.Field)
	}
	return no
}

// signed is what a stamp of the vendor's is over.
func (r *record) signed(b signing.VendorBody) ([]byte, error) {
	if r.Vendor == Turnkey {
		return b.Body, nil
	}
	return dfns.ClientData(b.Challenge)
}

// SignBody implements signing.Stamper.
func (s *Service) SignBody(ctx context.Context, c signing.VendorCredential, b signing.VendorBody, before func() error) (signature []byte, err error) {
	r, err := s.active(c)
	if err != nil {
		return nil, err
	}
	message, err := r.signed(b)
	if err != nil {
		return nil, refused(err)
	}
	err = s.cfg.Vault.With(ctx, vault.TypeVendorKey, r.key(), func(raw []byte) error {
		if err := before(); err != nil {
			return err
		}
		signature, err = sign(raw, message)
		return err
	})
	if err != nil {
		return nil, err
	}
	return signature, r.verify(message, signature)
}

// verify holds a signature to the public key that the vendor was told.
func (r *record) verify(message, signature []byte) error {
	key, err := credential.ParsePublicKey(credential.P256, r.Public)
	if err != nil {
		return fmt.Errorf("reading vendor credential %s: %w", r.ID, err)
	}
	if err := key.Verify(message, signature); err != nil {
		return fmt.Errorf("verifying a stamp of vendor credential %s: %w", r.ID, err)
	}
	return nil
}

// ShowStamp implements signing.Stamper. It shows no signature that is not this body's.
func (s *Service) ShowStamp(c signing.VendorCredential, b signing.VendorBody, signature []byte) (signing.VendorStamp, error) {
	r, err := s.active(c)
	if err != nil {
		return signing.VendorStamp{}, err
	}
	message, err := r.signed(b)
	if err != nil {
		return signing.VendorStamp{}, refused(err)
	}
	if err := r.verify(message, signature); err != nil {
		return signing.VendorStamp{}, err
	}
	if r.Vendor == Turnkey {
		value, err := turnkey.Stamp(r.Public, signature)
		return signing.VendorStamp{Header: turnkey.Header, Value: value}, err
	}
	value, err := dfns.Assertion(r.Account, message, signature)
	return signing.VendorStamp{Value: string(value)}, err
}
