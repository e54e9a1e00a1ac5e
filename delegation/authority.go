package delegation

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// This file is the answer to signing.Authority.

var _ signing.Authority = (*Service)(nil)

// walletInfo is a wallet as signing sees it.
func walletInfo(w *wallet, k *key) signing.WalletInfo {
	return signing.WalletInfo{
		ID: w.ID, Name: w.Name, Key: k.ID, Chain: w.Chain, Address: w.Address, Scheme: k.Scheme, PublicKey: w.publicKey(k), Path: w.Path,
	}
}

// Authenticate is step 3: the key's id names the record, the HMAC is compared in
// constant time, against a dummy when there is none. Who does not hold the key
// learns nothing about the wallet.
func (s *Service) Authenticate(walletID string, apiKey []byte) (*signing.Standing, error) {
	st, err := s.opened(walletID, apiKey)
	if err != nil {
		return nil, err
	}
	if err := s.book.held(st.Organization, st.Wallet.ID, st.Delegation); err != nil {
		return endedBy(st, err), nil
	}
	if d := find(s.book, s.book.delegations, st.Delegation); d != nil && d.Endpoint != "" && st.Ended == nil {
		return endedBy(st, refusal.New(refusal.NotActive, "the delegate's share is at endpoint %s: signatures are asked for there", d.Endpoint)), nil
	}
	return st, nil
}

// endedBy is a standing that signs nothing.
func endedBy(st *signing.Standing, why error) *signing.Standing {
	ended := *st
	ended.Ended = why
	return &ended
}

// opened is the standing that a wallet API key opens.
func (s *Service) opened(walletID string, apiKey []byte) (*signing.Standing, error) {
	id := apiKeyID(apiKey)
	want, delegation := dummyVerifier[:], ""
	switch rec, err := s.apiKeyOrAny(id); {
	case err != nil:
		return nil, err
	case rec != nil:
		want, delegation = rec.Verifier, rec.Delegation
	}
	got, err := s.verifier(apiKey)
	if err != nil {
		return nil, err
	}
	same := hmac.Equal(got, want)
	st, err := s.book.now(delegation)
	switch {
	case !same:
		return nil, errNotOpened()
	case err != nil:
		return nil, err
	case st == nil || st.Wallet.ID != walletID || st.APIKey != id:
		return nil, errNotOpened()
	}
	return st, nil
}

func errNotOpened() error {
	return refusal.New(refusal.APIKeyInvalid, "the wallet API key does not open this wallet")
}

// Enter is step 7's second look, inside the transaction.
func (s *Service) Enter(then *signing.Standing) (*signing.Standing, func(), error) {
	leave := s.flights.enter(flightOf(then))
	st, err := s.Current(then)
	if err != nil {
		leave()
		return nil, nil, err
	}
	return st, leave, nil
}

// Current is step 9's last look. It sees a revocation from its first moment, before it is on disk.
func (s *Service) Current(then *signing.Standing) (*signing.Standing, error) {
	delegationID := then.Delegation
	if len(then.Stamps) > 0 {
		return s.currentStamped(then)
	}
	if s.flights.ending(delegationID) {
		return nil, refusal.New(refusal.DelegationRevoked, "the delegation is being revoked")
	}
	st, err := s.nowOrOwn(delegationID)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, refusal.New(refusal.NotActive, "the delegation is not active")
	}
	if st.Ended != nil {
		return nil, st.Ended
	}
	if err := s.book.held(st.Organization, st.Wallet.ID, st.Delegation); err != nil {
		return nil, err
	}
	return st, nil
}

// dummyVerifier stands in for the verifier of an unknown key.
var dummyVerifier = sha256.Sum256([]byte("sigild: no such wallet API key"))
