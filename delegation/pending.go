package delegation

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A proposed delegation is a record that says pending and holds the terms. Nothing
// is made for it: no share, no key, nothing that could sign. Its owner sees the
// terms, as bytes, and approves by a stamp over their hash; only then the ceremony
// begins. What nobody approves in time expires, and what the owner doesn't want is
// revoked. Terms never change: another proposal is another delegation.

// terms are what the owner approves, in the form that is hashed.
type terms struct {
	V                  int             `json:"v"`
	Organization       string          `json:"organization"`
	Delegation         string          `json:"delegation"`
	Wallet             string          `json:"wallet"`
	Chain              string          `json:"chain"`
	Address            string          `json:"address"`
	DelegatedUser      string          `json:"delegated_user"`
	DelegatedUserName  string          `json:"delegated_user_name"`
	Recipient          string          `json:"api_key_recipient,omitempty"`
	Endpoint           string          `json:"endpoint,omitempty"`
	ExpiresAt          *time.Time      `json:"expires_at,omitempty"`
	Lifetime           uint32          `json:"lifetime_seconds,omitempty"`
	Policies           []policy.Policy `json:"policies"`
	Limits             []policy.Limit  `json:"limits,omitempty"`
	Templates          []Template      `json:"templates,omitempty"`
	OrganizationAllows bool            `json:"organization_allows,omitempty"`
}

// termsOf encodes the terms of a delegation: JSON of one form, since every part is
// a record's that is never modified.
func (s *Service) termsOf(d *delegationRecord) ([]byte, error) {
	w, _, err := s.book.wallet(d.Organization, d.Wallet)
	if err != nil {
		return nil, err
	}
	u, err := s.book.user(d.Organization, d.DelegatedUser)
	if err != nil {
		return nil, err
	}
	t := terms{
		V: recordVersion, Organization: d.Organization, Delegation: d.ID, Wallet: w.ID, Chain: w.Chain, Address: w.Address,
		DelegatedUser: u.ID, DelegatedUserName: u.Name, Recipient: d.Recipient, Endpoint: d.Endpoint, Lifetime: d.Lifetime,
		Policies: d.Policies, Limits: d.Limits, Templates: d.Templates, OrganizationAllows: d.OrganizationAllows,
	}
	if d.Lifetime == 0 { // with a lifetime the end follows from the approval
		t.ExpiresAt = d.ExpiresAt
	}
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding the terms of %s: %w", d.ID, err)
	}
	return b, nil
}

// maxProposals wait for the owner of one wallet at a time.
const maxProposals = 16

// DelegationRequested answers RequestDelegation.
type DelegationRequested struct {
	DelegationID string    `json:"delegation_id"`
	ApproveBy    time.Time `json:"approve_by"`
}

// RequestDelegation proposes a delegation to a wallet's owner, on the stamp of a
// root member or of the owner. What n lacks is the organization's default. Durable
// on return; pending until the owner approves.
func (s *Service) RequestDelegation(ctx context.Context, a Actor, n NewDelegation) (DelegationRequested, error) {
	authorize := func() error {
		w, err := s.proposalFor(a, n)
		if err != nil {
			return err
		}
		if !s.concerns(a, n.Organization, w.Owner) {
			return refusal.New(refusal.NotFound, "no such wallet")
		}
		return nil
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DelegationRequested, error) {
		o, err := s.book.organization(n.Organization)
		if err != nil {
			return DelegationRequested{}, err
		}
		if o.Delegated == nil || !o.Delegated.Enabled {
			return DelegationRequested{}, notOffered()
		}
		w, _, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return DelegationRequested{}, err
		}
		d, err := s.propose(tx, n, w, o.Delegated)
		if err != nil {
			return DelegationRequested{}, err
		}
		e.Wallet, e.Delegation, e.User = d.Wallet, d.ID, d.DelegatedUser
		e.Facts = map[string]string{"policies": fmt.Sprint(len(d.Policies)), "limits": fmt.Sprint(len(d.Limits)), "approve_by": d.ApproveBy.Format(time.RFC3339)}
		return DelegationRequested{DelegationID: d.ID, ApproveBy: *d.ApproveBy}, nil
	})
}

func notOffered() *refusal.Error {
	return refusal.New(refusal.NotActive, "delegated access is not enabled in this organization: its root quorum has to set it")
}

// proposalFor finds the wallet for somebody who may ask at all.
func (s *Service) proposalFor(a Actor, n NewDelegation) (*wallet, error) {
	if err := s.member(a, n.Organization); err != nil {
		return nil, err
	}
	w, _, err := s.book.wallet(n.Organization, n.Wallet)
	if err != nil || len(n.Policies)+len(n.Limits)+len(n.Templates) == 0 {
		return w, err
	}
	return w, s.byAPI(n.Organization)
}

// propose writes a pending delegation whose terms are n's, with the defaults where
// n says nothing.
func (s *Service) propose(tx *vault.Tx, n NewDelegation, w *wallet, by *DelegatedAccess) (*delegationRecord, error) {
	if n.DelegatedUser == "" {
		n.DelegatedUser = by.DelegatedUser
	}
	if n.Recipient == "" && n.Endpoint == "" {
		n.Recipient = by.Recipient
	}
	if len(n.Policies)+len(n.Limits)+len(n.Templates) == 0 && !n.OrganizationAllows {
		n.Policies, n.Limits, n.OrganizationAllows = by.Policies, by.Limits, by.OrganizationAllows
	}
	if err := n.checkReceiver(); err != nil {
		return nil, err
	}
	if w.Vendor != "" {
		return nil, errVendors()
	}
	id := newID("dlg")
	policies, limits, err := checkRules(id, n)
	if err != nil {
		return nil, err
	}
	waiting := 0
	now := s.now().UTC()
	for _, d := range s.book.delegationsOf(n.Organization) {
		if d.Wallet == w.ID && d.awaiting(now) {
			waiting++
		}
	}
	if waiting >= maxProposals {
		e := refusal.New(refusal.RateLimited, "%d proposals wait for the owner of this wallet already", waiting)
		e.After = time.Hour
		return nil, e
	}
	d, err := s.draft(n, w, id, policies, limits, now)
	if err != nil {
		return nil, err
	}
	end := now.Add(by.approval())
	d.ApproveBy = &end
	if d.ExpiresAt == nil {
		d.Lifetime = by.Lifetime
	}
	if err := store(tx, vault.TypeDelegation, d.ID, d); err != nil {
		return nil, err
	}
	s.book.change(tx, func() { s.book.delegations[d.ID] = d })
	return d, nil
}

// proposeFor proposes by the defaults for a wallet that has just become active,
// where the organization wants that; active is the wallet as this transaction leaves it.
func (s *Service) proposeFor(tx *vault.Tx, e *journal.Entry, active *wallet) error {
	o, err := s.book.organization(active.Organization)
	if err != nil || o.Delegated == nil || !o.Delegated.Enabled || !o.Delegated.Automatic {
		return err
	}
	d, err := s.propose(tx, NewDelegation{Organization: active.Organization, Wallet: active.ID}, active, o.Delegated)
	if err != nil {
		return err
	}
	e.Facts["proposed"] = d.ID
	return nil
}

// NewApproval approves a pending delegation.
type NewApproval struct {
	RequestID    string
	Organization string
	Delegation   string
	// Terms is SHA-256 of the terms, 32 bytes.
	Terms []byte
}

// DelegationApproved answers ApproveDelegation.
type DelegationApproved struct {
	CeremonyID string `json:"ceremony_id"`
}

// ApproveDelegation takes the owner's stamp over the terms and starts the ceremony.
// Durable on return; active when the ceremony has ended.
func (s *Service) ApproveDelegation(ctx context.Context, a Actor, n NewApproval) (DelegationApproved, error) {
	if len(n.Terms) != sha256.Size {
		return DelegationApproved{}, refusal.New(refusal.RequestInvalid, "terms_sha256 must have 32 bytes").With("field", "terms_sha256")
	}
	authorize := func() error {
		if _, err := s.inside(a, n.Organization); err != nil {
			return err
		}
		d, err := s.book.delegation(n.Organization, n.Delegation)
		if err != nil {
			return err
		}
		return s.owner(a, n.Organization, d.Owner)
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DelegationApproved, error) {
		d, err := s.book.delegation(n.Organization, n.Delegation)
		if err != nil {
			return DelegationApproved{}, err
		}
		now := later(s.now(), s.journal.At(tx).Now()).UTC()
		if err := s.mayApprove(d, now, n.Terms); err != nil {
			return DelegationApproved{}, err
		}
		_, k, err := s.book.wallet(d.Organization, d.Wallet)
		if err != nil {
			return DelegationApproved{}, err
		}
		approved := *d
		approved.ApproveBy, approved.ApprovedAt, approved.Version = nil, &now, d.Version+1
		if d.Lifetime > 0 {
			end := now.Add(time.Duration(d.Lifetime) * time.Second)
			approved.ExpiresAt = &end
		}
		c, err := s.beginIssue(tx, &approved, k, now)
		if err != nil {
			return DelegationApproved{}, err
		}
		e.Wallet, e.Delegation, e.User = d.Wallet, d.ID, d.DelegatedUser
		e.Facts = map[string]string{"ceremony": c.ID, "terms": fmt.Sprintf("%x", n.Terms)}
		return DelegationApproved{CeremonyID: c.ID}, nil
	})
}

// mayApprove refuses what is not waiting, not to be had any more, or not what was shown.
func (s *Service) mayApprove(d *delegationRecord, now time.Time, hash []byte) error {
	if d.Status != statusPending || d.ApproveBy == nil {
		return refusal.New(refusal.NotActive, "the delegation is not waiting for an approval")
	}
	if !now.Before(*d.ApproveBy) || d.expired(now) {
		return refusal.New(refusal.DelegationExpired, "the proposal ended; ask for another one")
	}
	if err := s.offered(d.Organization); err != nil {
		return err
	}
	if err := s.book.stopped(d.Organization, d.Wallet); err != nil {
		return err
	}
	text, err := s.termsOf(d)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	if subtle.ConstantTimeCompare(sum[:], hash) != 1 {
		return refusal.New(refusal.RequestInvalid, "terms_sha256 is not that of this delegation's terms").With("field", "terms_sha256")
	}
	return nil
}

// offered refuses where the organization turned delegated access off.
func (s *Service) offered(org string) error {
	o, err := s.book.organization(org)
	if err == nil && o.Delegated != nil && !o.Delegated.Enabled {
		err = notOffered()
	}
	return err
}

// awaiting reports whether a delegation waits for its owner now.
func (d *delegationRecord) awaiting(now time.Time) bool {
	return d.Status == statusPending && d.ApproveBy != nil && now.Before(*d.ApproveBy) && !d.expired(now)
}

// lapsed reports whether nobody approved in time.
func (d *delegationRecord) lapsed(now time.Time) bool {
	return d.Status == statusPending && d.ApproveBy != nil && !d.awaiting(now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// delegationsOf lists an organization's delegations in no order.
func (b *book) delegationsOf(org string) (of []*delegationRecord) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, d := range b.delegations {
		if d.Organization == org {
			of = append(of, d)
		}
	}
	return of
}
