package delegation

import (
	"context"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// NewDelegation asks for a delegation. Policies and Limits come without ids.
type NewDelegation struct {
	RequestID     string
	Organization  string
	Wallet        string
	DelegatedUser string
	// Recipient is the age X25519 recipient of the wallet API key.
	Recipient string
	// Endpoint, in place of Recipient, is where the delegate's share and the wallet API
	// key are delivered to (package outbox); they are not kept here.
	Endpoint string
	// ExpiresAt ends the delegation; nil means until revoked.
	ExpiresAt *time.Time
	Policies  []policy.Policy
	Limits    []policy.Limit
	// OrganizationAllows lets the organization's ALLOW policies count; without it
	// only Policies can allow.
	OrganizationAllows bool
	// Templates are what the delegated user may make orders of.
	Templates []Template
	// Peer is the co-signer that holds the delegate's share, by its configured name, and
	// Invitation what its root quorum got for it; "" for none.
	Peer, Invitation string
}

// DelegationStarted answers CreateDelegation.
type DelegationStarted struct {
	DelegationID string `json:"delegation_id"`
	CeremonyID   string `json:"ceremony_id"`
}

// Delegation is what a member may see of one.
type Delegation struct {
	ID, Wallet, DelegatedUser, Status string
	ExpiresAt                         *time.Time
	Policies                          []policy.Policy
	Limits                            []policy.Limit
	OrganizationAllows                bool
	Templates                         []Template
	PolicySet                         [32]byte
	Parties                           []string
	EncryptedAPIKey                   []byte
}

const maxRules = 64

// CreateDelegation takes the wallet owner's stamp as the approval, and makes the
// delegation with its own 2-of-2 share set {server, delegate}, its wallet API key,
// its policies and its limits as one act: until the ceremony's last transaction
// there is nothing that could sign. Durable on return, pending until then.
func (s *Service) CreateDelegation(ctx context.Context, a Actor, n NewDelegation) (DelegationStarted, error) {
	id := newID("dlg")
	if err := n.checkReceiver(); err != nil {
		return DelegationStarted{}, err
	}
	policies, limits, err := checkRules(id, n)
	if err != nil {
		return DelegationStarted{}, err
	}
	authorize := func() error {
		if _, err := s.ownWallet(a, n.Organization, n.Wallet); err != nil || len(policies)+len(limits)+len(n.Templates) == 0 {
			return err
		}
		return s.byAPI(n.Organization)
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DelegationStarted, error) {
		w, k, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return DelegationStarted{}, err
		}
		if w.Vendor != "" {
			return DelegationStarted{}, errVendors()
		}
		now := s.now().UTC()
		d, err := s.draft(n, w, id, policies, limits, now)
		if err != nil {
			return DelegationStarted{}, err
		}
		if err := s.book.stopped(n.Organization, w.ID); err != nil {
			return DelegationStarted{}, err
		}
		c, err := s.beginIssue(tx, d, k, now)
		if err != nil {
			return DelegationStarted{}, err
		}
		e.Wallet, e.Delegation, e.User = d.Wallet, d.ID, d.DelegatedUser
		e.Facts = map[string]string{"ceremony": c.ID, "policies": fmt.Sprint(len(policies)), "limits": fmt.Sprint(len(limits))}
		return DelegationStarted{DelegationID: d.ID, CeremonyID: c.ID}, nil
	})
}

// draft is a pending delegation of a wallet by the terms of n. It refuses what can't
// be delegated.
func (s *Service) draft(n NewDelegation, w *wallet, id string, policies []policy.Policy, limits []policy.Limit, now time.Time) (*delegationRecord, error) {
	if err := s.offered(n.Organization); err != nil {
		return nil, err
	}
	if w.Status != statusActive {
		return nil, refusal.New(refusal.NotActive, "the wallet is %s: its owner has to confirm the share first", w.Status)
	}
	if n.Endpoint != "" {
		if err := s.endpointReady(n.Organization, n.Endpoint); err != nil {
			return nil, err
		}
	}
	u, err := s.delegatedUser(n.Organization, n.DelegatedUser)
	if err != nil {
		return nil, err
	}
	if n.Peer != "" {
		scheme, err := schemeOf(w.Chain)
		if err != nil {
			return nil, err
		}
		if err := s.knownPeer(n.Peer, scheme); err != nil {
			return nil, err
		}
	}
	var end *time.Time
	if n.ExpiresAt != nil {
		if !n.ExpiresAt.After(now) {
			return nil, refusal.New(refusal.RequestInvalid, "expires_at lies in the past").With("field", "expires_at")
		}
		t := n.ExpiresAt.UTC()
		end = &t
	}
	return &delegationRecord{
		V: recordVersion, ID: id, Organization: n.Organization, Wallet: w.ID, Owner: w.Owner, DelegatedUser: u.ID,
		Status: statusPending, CreatedAt: now, ExpiresAt: end, Recipient: n.Recipient, Endpoint: n.Endpoint,
		Policies: policies, Limits: limits, OrganizationAllows: n.OrganizationAllows, Templates: n.Templates, Version: 1,
		Peer: n.Peer, Invitation: n.Invitation,
	}, nil
}

// beginIssue writes a delegation that its owner approved, with its ceremony, which
// starts when the transaction is on disk.
func (s *Service) beginIssue(tx *vault.Tx, d *delegationRecord, k *key, now time.Time) (*ceremonyRecord, error) {
	c := &ceremonyRecord{V: recordVersion, ID: newID("cer"), Organization: d.Organization, Kind: kindIssue, Target: d.ID, Status: statusRunning, StartedAt: now}
	byDevice := k.Device != "" && len(k.Here) < k.Root.Threshold
	switch {
	case byDevice && d.Peer != "":
		return nil, refusal.New(refusal.NotActive, "an issue with both the owner's device and a co-signer is not possible")
	case byDevice || d.Peer != "":
		c.Status = statusWaiting // for the other side
	}
	if err := store(tx, vault.TypeDelegation, d.ID, d); err != nil {
		return nil, err
	}
	if err := store(tx, vault.TypeCeremony, c.ID, c); err != nil {
		return nil, err
	}
	s.book.change(tx, func() { s.book.delegations[d.ID], s.book.ceremonies[c.ID] = d, c })
	switch {
	case c.Status == statusRunning:
		tx.OnCommit(func() { s.startIssue(c, d.ID, k.ID) })
	case d.Peer != "":
		tx.OnCommit(func() { s.tryCosigner(c) })
	}
	return c, nil
}

// checkRules gives policies and limits their ids and scope and compiles them once,
// so that what can't mean what it says is refused before anything is stored.
func checkRules(delegationID string, n NewDelegation) ([]policy.Policy, []policy.Limit, error) {
	ps, ls := n.Policies, n.Limits
	if len(ps) == 0 && !n.OrganizationAllows && len(n.Templates) == 0 || len(ps) > maxRules || len(ls) > maxRules {
		return nil, nil, refusal.New(refusal.RequestInvalid, "a delegation takes 1 to %d policies and at most %d limits; without a policy it needs templates or organization_allows", maxRules, maxRules).With("field", "policies")
	}
	names := map[string]bool{}
	name := func(field, n string) error {
		if err := checkName(field, n); err != nil {
			return err
		}
		if names[n] {
			return refusal.New(refusal.RequestInvalid, "two rules are named %q", n).With("field", field)
		}
		names[n] = true
		return nil
	}
	policies, limits := make([]policy.Policy, len(ps)), make([]policy.Limit, len(ls))
	for i, p := range ps {
		if err := name("policy name", p.Name); err != nil {
			return nil, nil, err
		}
		p.ID, p.Scope = newID("pol"), policy.Scope{Delegation: delegationID}
		policies[i] = p
	}
	for i, l := range ls {
		if err := name("limit name", l.Name); err != nil {
			return nil, nil, err
		}
		l.ID, l.Delegation = newID("lim"), delegationID
		limits[i] = l
	}
	if err := checkTemplates(n.Templates, name); err != nil {
		return nil, nil, err
	}
	set, problems := policy.Compile(policies, limits, nil)
	if set == nil {
		return nil, nil, invalid(problems, func(id string) (string, string) {
			for _, p := range policies {
				if p.ID == id {
					return "policy", p.Name
				}
			}
			return "", ""
		})
	}
	return policies, limits, nil
}

// startIssue reshares the key from the quorum of its root set that is held here to
// the delegation's own set. The root set stays live.
func (s *Service) startIssue(c *ceremonyRecord, delegationID, keyID string) {
	work := func(ctx context.Context, keep func([]*mpc.Share)) (func(*vault.Tx, *journal.Entry) error, error) {
		// As it is now: while we waited, a rotation may have replaced the root set.
		k := find(s.book, s.book.keys, keyID)
		quorum, err := k.quorumHere()
		if err != nil {
			return nil, err
		}
		var set mpc.ShareSet
		var shares []*mpc.Share
		err = s.vault.WithAll(ctx, vault.TypeShare, shareIDs(k.Root.ID, quorum), func(encoded [][]byte) (err error) {
			set, shares, err = mpc.Issue(ctx, mpc.IssueRequest{
				From: k.Root, Quorum: encoded, SetID: delegationID + "/1", Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2,
				PreParams: s.cfg.PreParameters,
				Progress:  func(stage string, done, total int) { s.step(c, stage, done, total) },
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		keep(shares)
		return func(tx *vault.Tx, e *journal.Entry) error {
			return s.activate(tx, e, delegationID, set, shares)
		}, nil
	}
	s.startCeremony(c, work, func(tx *vault.Tx) error { return s.failTarget(tx, c) })
}

// quorumHere picks as many of the root set's parties as it needs among those held here.
func (k *key) quorumHere() ([]mpc.Party, error) {
	if k.Status != statusActive || len(k.Here) == 0 || len(k.Here) < k.Root.Threshold { // a vendor's key has no set here
		return nil, fmt.Errorf("issuing from key %s: this host holds %d shares of the root set, %d are needed", k.ID, len(k.Here), k.Root.Threshold)
	}
	return k.Here[:k.Root.Threshold], nil
}

// activate is the last transaction of an issue: shares, API key and status at once.
func (s *Service) activate(tx *vault.Tx, e *journal.Entry, delegationID string, set mpc.ShareSet, shares []*mpc.Share) error {
	d := find(s.book, s.book.delegations, delegationID)
	if d == nil || d.Status != statusPending {
		return refusal.New(refusal.NotActive, "the delegation is not pending any more")
	}
	active := *d
	active.Status, active.Set, active.Version = statusActive, set, d.Version+1
	w, k, err := s.book.wallet(d.Organization, d.Wallet)
	if err != nil {
		return err
	}
	e.ShareSet = set.ID
	var delegate *mpc.Share
	for _, sh := range shares {
		if d.Endpoint != "" && sh.Party() == mpc.Delegate {
			delegate = sh // it goes to the endpoint and is not kept here
			continue
		}
		if err := putShare(tx, set.ID, sh); err != nil {
			return err
		}
	}
	if d.Endpoint == "" {
		return s.putActive(tx, e, &active, w, k, nil)
	}
	return s.putActive(tx, e, &active, w, k, func(apiKey []byte) error { return s.deliver(tx, e, &active, w, delegate, apiKey) })
}

// putActive writes an active delegation with a fresh wallet API key, and what signing
// needs to know of it. d, w and k may be of this very transaction. hand gets the key;
// nil encrypts it to the delegation's recipient.
func (s *Service) putActive(tx *vault.Tx, e *journal.Entry, d *delegationRecord, w *wallet, k *key, hand func(apiKey []byte) error) error {
	rec := &apiKeyRecord{V: recordVersion, Delegation: d.ID, CreatedAt: s.now().UTC()}
	err := newAPIKey(func(id string, key []byte) (err error) {
		rec.ID = id
		if rec.Verifier, err = s.verifier(key); err != nil {
			return err
		}
		if hand != nil {
			return hand(key)
		}
		rec.Encrypted, err = encryptTo(d.Recipient, key)
		return err
	})
	if err != nil {
		return err
	}
	d.APIKey = rec.ID
	if err := store(tx, vault.TypeAPIKey, rec.ID, rec); err != nil {
		return err
	}
	if err := store(tx, vault.TypeDelegation, d.ID, d); err != nil {
		return err
	}
	u, err := s.book.user(d.Organization, d.DelegatedUser)
	if err != nil {
		return err
	}
	st, err := source{d, w, k, u}.standing()
	if err != nil {
		return err
	}
	whole, err := s.book.join(st)
	if err != nil {
		return err
	}
	s.book.change(tx, func() { s.book.delegations[d.ID], s.book.apiKeys[rec.ID] = d, d.ID })
	e.Wallet, e.Delegation, e.PolicySet = d.Wallet, d.ID, fmt.Sprintf("%x", whole.PolicySet)
	e.Note("api_key", rec.ID)
	return nil
}

// Delegation shows a delegation to its owner and to root members.
func (s *Service) Delegation(a Actor, org, id string) (Delegation, error) {
	if err := s.member(a, org); err != nil {
		return Delegation{}, err
	}
	d, err := s.book.delegation(org, id)
	if err != nil {
		return Delegation{}, err
	}
	if !s.concerns(a, org, d.Owner) {
		return Delegation{}, refusal.New(refusal.NotFound, "no such delegation")
	}
	return s.showDelegation(d)
}

func (s *Service) showDelegation(d *delegationRecord) (Delegation, error) {
	out := Delegation{
		ID: d.ID, Wallet: d.Wallet, DelegatedUser: d.DelegatedUser, Status: s.book.statusOf(d, s.clock()), ExpiresAt: d.ExpiresAt,
		Policies: d.Policies, Limits: d.Limits, OrganizationAllows: d.OrganizationAllows, Templates: d.Templates,
	}
	for _, p := range d.Set.Parties {
		out.Parties = append(out.Parties, string(p))
	}
	if st, err := s.book.now(d.ID); err == nil && st != nil {
		out.PolicySet = st.PolicySet
	}
	k, err := s.apiKey(d.APIKey)
	if k != nil && d.Status == statusActive {
		out.EncryptedAPIKey = k.Encrypted
	}
	return out, err
}
