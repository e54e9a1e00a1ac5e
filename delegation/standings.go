package delegation

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// What signing needs to know of a delegation is made when somebody asks, of the
// records as they are at that moment, and kept while they are the same: there may be
// a hundred thousand delegations, of which few sign today. Policies that don't compile
// any more are the refusal of that delegation alone.

// standing is a delegation that ever was active, and what of its standing is its
// own; the rest is joined when somebody asks, and kept until a layer changes.
type standing struct {
	from source
	base signing.Standing // without Rules and PolicySet
	own  *policy.Set
	// organizationAllows and made as in the record.
	organizationAllows bool
	made               time.Time
	// joined is the last answer; swapped, never modified.
	joined atomic.Pointer[joined]
}

// source is the records that a standing is made of.
type source struct {
	delegation *delegationRecord
	wallet     *wallet
	key        *key
	user       *user // the delegated one
}

// sourceLocked finds the records; those of another organization are missing.
func (b *book) sourceLocked(d *delegationRecord) (source, error) {
	from := source{delegation: d, wallet: b.wallets[d.Wallet], user: b.users[d.DelegatedUser]}
	if from.wallet != nil {
		from.key = b.keys[from.wallet.Key]
	}
	if from.key == nil || from.user == nil || from.wallet.Organization != d.Organization || from.user.Organization != d.Organization {
		return source{}, fmt.Errorf("reading delegation %s: it names a record that is missing", d.ID)
	}
	return from, nil
}

// neverActive reports whether a delegation is none that signs, or did.
func (d *delegationRecord) neverActive() bool {
	return d.Status == statusPending || d.Status == statusFailed || d.Status == statusExpired && d.Set.ID == "" && d.Vendor == nil && d.Credential == nil
}

// standing compiles what signing needs to know of a delegation alone.
func (from source) standing() (*standing, error) {
	d, u := from.delegation, from.user
	rules, problems := policy.Compile(d.Policies, d.Limits, nil)
	if rules == nil {
		return nil, refusal.New(refusal.PolicyInvalid, "the delegation's policies do not compile in this build").Because(fmt.Errorf("compiling policies of %s: %v", d.ID, problems))
	}
	st := signing.Standing{
		Delegation: d.ID, Organization: d.Organization, Owner: d.Owner, DelegatedUser: u.ID, DelegatedUserName: u.Name,
		Approvers:   []policy.User{approver(u)},
		Credentials: []policy.Credential{{ID: d.APIKey, UserID: u.ID, Type: "CREDENTIAL_TYPE_WALLET_API_KEY"}},
		APIKey:      d.APIKey, Version: d.Version, Wallet: walletInfo(from.wallet, from.key),
		Set: d.Set, ShareIDs: shareIDs(d.Set.ID, d.Set.Parties), Here: d.Set.Parties, Vendor: d.Vendor, Credential: d.Credential,
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
	return &standing{from: from, base: st, own: rules, organizationAllows: d.OrganizationAllows, made: d.CreatedAt}, nil
}

// now finds the standing of a delegation as it is judged at this moment; nil for
// none.
func (b *book) now(delegation string) (*signing.Standing, error) {
	b.mu.RLock()
	d := b.delegations[delegation]
	if d == nil || d.neverActive() {
		b.mu.RUnlock()
		return nil, nil
	}
	from, err := b.sourceLocked(d)
	b.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	st := b.standings.get(delegation)
	if st == nil || st.from != from {
		if st, err = from.standing(); err != nil {
			return nil, err
		}
		b.standings.put(delegation, st)
	}
	return b.join(st)
}

// keptStandings is how many standings of the last ones asked for are kept, at least.
const keptStandings = 4096

// standings are those asked for last: at least keptStandings, at most twice as many.
type standings struct {
	mu         sync.Mutex // guards young and old
	young, old map[string]*standing
}

func (s *standings) get(id string) *standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.young[id]; st != nil {
		return st
	}
	st := s.old[id]
	if st != nil {
		s.putLocked(id, st)
	}
	return st
}

func (s *standings) put(id string, st *standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(id, st)
}

// putLocked forgets what was not asked for while keptStandings others were.
func (s *standings) putLocked(id string, st *standing) {
	if s.young == nil || len(s.young) >= keptStandings {
		s.young, s.old = make(map[string]*standing), s.young
	}
	s.young[id] = st
}

// joined is a whole standing and the layers it was joined of.
type joined struct {
	standing     *signing.Standing
	files        *PolicyFiles
	organization *rulebook
	orders       *orders
	counts       *time.Time
}

// countsFrom is since when it is known what an organization spent; nil: since ever.
func (b *book) countsFrom(org string) *time.Time {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if o := b.organizations[org]; o != nil {
		return o.CountsFrom
	}
	return nil
}

// join answers with the standing under the rules of this moment.
func (b *book) join(s *standing) (*signing.Standing, error) {
	files, book, open := b.layers(s.base.Organization, s.base.Delegation)
	counts := b.countsFrom(s.base.Organization)
	if j := s.joined.Load(); j != nil && j.files == files && j.organization == book && j.orders == open && j.counts == counts {
		return j.standing, nil
	}
	laws, err := book.laws()
	if err != nil {
		return nil, err
	}
	above := laws.narrowing
	if s.organizationAllows {
		above = laws.rules
	}
	fixed, err := policy.Join(files.rules, above, s.own)
	if err != nil {
		return nil, fmt.Errorf("joining the rules of delegation %s: %w", s.base.Delegation, err)
	}
	rules, err := policy.Join(append(open.sets(), fixed)...)
	if err != nil {
		return nil, fmt.Errorf("joining the orders of delegation %s: %w", s.base.Delegation, err)
	}
	whole := s.base
	whole.Orders = open.together()
	whole.Rules, whole.Interfaces, whole.PolicySet, whole.Fixed = rules, laws.interfaces, hashJudging(rules, book.hash), hashJudging(fixed, book.hash)
	if counts != nil {
		whole.CountsFrom, whole.Young = *counts, s.made.After(*counts)
	}
	s.joined.Store(&joined{&whole, files, book, open, counts})
	return &whole, nil
}
