package delegation

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// This file is the answer to signing.Authority.

var _ signing.Authority = (*Service)(nil)

// standing compiles what signing needs to know of a delegation alone; nil for one
// that never became active.
func (b *book) standing(d *delegationRecord) (*standing, error) {
	if d.Status == statusPending || d.Status == statusFailed || d.Status == statusExpired && d.Set.ID == "" && d.Vendor == nil {
		return nil, nil
	}
	w, k, err := b.wallet(d.Organization, d.Wallet)
	if err != nil {
		return nil, err
	}
	u, err := b.user(d.Organization, d.DelegatedUser)
	if err != nil {
		return nil, err
	}
	return b.standingOf(d, w, k, u)
}

// standingFor is standing when the delegated user is about to be u.
func (b *book) standingFor(d *delegationRecord, u *user) (*standing, error) {
	w, k, err := b.wallet(d.Organization, d.Wallet)
	if err != nil {
		return nil, err
	}
	return b.standingOf(d, w, k, u)
}

func (b *book) standingOf(d *delegationRecord, w *wallet, k *key, u *user) (*standing, error) {
	rules, problems := policy.Compile(d.Policies, d.Limits, nil)
	if rules == nil {
		return nil, fmt.Errorf("compiling stored policies: %v", problems)
	}
	st := signing.Standing{
		Delegation: d.ID, Organization: d.Organization, Owner: d.Owner, DelegatedUser: u.ID, DelegatedUserName: u.Name,
		Approvers:   []policy.User{approver(u)},
		Credentials: []policy.Credential{{ID: d.APIKey, UserID: u.ID, Type: "CREDENTIAL_TYPE_WALLET_API_KEY"}},
		APIKey:      d.APIKey, Version: d.Version, Wallet: walletInfo(w, k),
		Set: d.Set, ShareIDs: shareIDs(d.Set.ID, d.Set.Parties), Here: d.Set.Parties, Vendor: d.Vendor,
	}
	switch server, delegate := []mpc.Party{mpc.Server}, []mpc.Party{mpc.Delegate}; {
	case d.Vendor != nil && d.Peer != "": // we are who the share was delivered to
		st.Here, st.Elsewhere, st.Peer, st.ShareIDs = delegate, server, d.Peer, nil
	case d.Peer != "" || d.Endpoint != "":
		st.Here, st.Elsewhere, st.Peer = server, delegate, d.Peer
		st.ShareIDs = shareIDs(d.Set.ID, server)
	}
	if d.ExpiresAt != nil {
		st.ExpiresAt = *d.ExpiresAt
	}
	switch d.Status {
	case statusRevoked:
		st.Ended = refusal.New(refusal.DelegationRevoked, "the delegation was revoked")
	case statusExpired:
		st.Ended = refusal.New(refusal.DelegationExpired, "the delegation ended at %s", d.ExpiresAt.Format(time.RFC3339))
	}
	return &standing{base: st, own: rules, organizationAllows: d.OrganizationAllows, made: d.CreatedAt}, nil
}

// walletInfo is a wallet as signing sees it.
func walletInfo(w *wallet, k *key) signing.WalletInfo {
	return signing.WalletInfo{
		ID: w.ID, Name: w.Name, Key: k.ID, Chain: w.Chain, Address: w.Address, Scheme: k.Scheme, PublicKey: w.publicKey(k), Path: w.Path,
	}
}

// now finds the standing of a delegation as it is judged at this moment; nil for
// none.
func (b *book) now(delegation string) (*signing.Standing, error) {
	st := find(b, b.standings, delegation)
	if st == nil {
		return nil, nil
	}
	return b.join(st)
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
	rec := find(s.book, s.book.apiKeys, id)
	want := dummyVerifier[:]
	if rec != nil {
		want = rec.Verifier
	}
	got, err := s.verifier(apiKey)
	if err != nil {
		return nil, err
	}
	same := hmac.Equal(got, want)
	var st *signing.Standing
	if rec != nil {
		if st, err = s.book.now(rec.Delegation); err != nil {
			return nil, err
		}
	}
	if !same || rec == nil || st == nil || st.Wallet.ID != walletID || st.APIKey != id {
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
