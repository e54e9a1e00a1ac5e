package delegation

import (
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/refusal"
)

// The invariants of delegated access, a closed list; docs/access.md says the same
// for people and a test compares them. VerifyDelegatedAccess tells of all, and every
// request that a delegated user stamps is refused when one does not hold: no act
// breaks any, so one that is broken says that the records were.

// invariant is one of them: holds looks at records that don't change meanwhile.
type invariant struct {
	id, text string
	// atUse: it is looked at for every request, too. What is not would need a look at
	// every wallet; there the wallet that is asked for is looked at.
	atUse bool
	holds func(s *Service, o *organization, u *user, now time.Time) bool
}

var invariants = []invariant{
	{"DA-1", "the user is a delegated user and in no root", true, func(s *Service, o *organization, u *user, _ time.Time) bool {
		return u.Kind == DelegatedUser && !slices.Contains(o.RootUsers, u.ID)
	}},
	{"DA-2", "none of its credentials is the root's or another user's", true, func(s *Service, o *organization, u *user, _ time.Time) bool {
		return !slices.ContainsFunc(u.Credentials, func(c registered) bool {
			h := s.book.holder(o.ID, c.ID)
			return h == nil || h.ID != u.ID || slices.ContainsFunc(o.Root, func(r registered) bool { return r.ID == c.ID })
		})
	}},
	{"DA-3", "no credential that came by rotation outlives the first of its line", true, func(s *Service, o *organization, u *user, _ time.Time) bool {
		return !slices.ContainsFunc(u.Credentials, func(c registered) bool {
			return c.LineEnds != nil && (c.ExpiresAt == nil || c.ExpiresAt.After(*c.LineEnds))
		})
	}},
	{"DA-4", "the root can act: its quorum is 1 or more, and no more than its members", true, func(s *Service, o *organization, u *user, now time.Time) bool {
		return o.Quorum >= 1 && o.Quorum <= o.rootSize(now)
	}},
	{"DA-5", "the root has end users and keys of its own only", true, func(s *Service, o *organization, u *user, _ time.Time) bool {
		return !slices.ContainsFunc(o.RootUsers, func(id string) bool {
			r := find(s.book, s.book.users, id)
			return r == nil || r.Kind != EndUser || r.Organization != o.ID
		})
	}},
	{"DA-6", "the user owns no key and no wallet", false, func(s *Service, o *organization, u *user, _ time.Time) bool { return !s.book.owns(u.ID) }},
	{"DA-7", "a removed user has no credential and no delegation", true, func(s *Service, o *organization, u *user, _ time.Time) bool {
		live := func(d *delegationRecord) bool { return d.DelegatedUser == u.ID && d.alive() }
		return !u.Removed || len(u.Credentials) == 0 && len(s.delegationsWhere(live)) == 0
	}},
}

// owns reports whether anything belongs to a user.
func (b *book) owns(id string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.keys {
		if k.Owner == id {
			return true
		}
	}
	for _, w := range b.wallets {
		if w.Owner == id {
			return true
		}
	}
	return false
}

// broken is the id of the first invariant that does not hold for a delegated user who
// asks for a wallet of owner's; "" for none.
func (s *Service) broken(o *organization, u *user, owner string, now time.Time) string {
	for _, i := range invariants {
		if i.atUse && !i.holds(s, o, u, now) || !i.atUse && owner == u.ID {
			return i.id
		}
	}
	return ""
}

// sound refuses what a delegated user asks for while an invariant is broken.
func (s *Service) sound(o *organization, u *user, owner string, now time.Time) error {
	if u.Kind != DelegatedUser {
		return nil
	}
	if id := s.broken(o, u, owner, now); id != "" {
		s.log.Error("an invariant of delegated access is broken; the user signs nothing", "organization", o.ID, "user", u.ID, "invariant", id)
		return refusal.New(refusal.NotActive, "invariant %s of delegated access does not hold; VerifyDelegatedAccess tells of all", id).With("invariant", id)
	}
	return nil
}

// Checked is one invariant and whether it holds.
type Checked struct {
	ID, Text string
	Holds    bool
}

// VerifyDelegatedAccess checks every invariant of a delegated user, for any member.
func (s *Service) VerifyDelegatedAccess(a Actor, org, id string) ([]Checked, error) {
	if err := s.member(a, org); err != nil {
		return nil, err
	}
	o, err := s.book.organization(org)
	if err != nil {
		return nil, err
	}
	u, err := s.book.user(org, id)
	if err != nil {
		return nil, err
	}
	if u.Kind != DelegatedUser {
		return nil, refusal.New(refusal.RequestInvalid, "%s is no delegated user", fmt.Sprintf("%.64q", u.Name)).With("field", "user_id")
	}
	now := s.clock()
	var out []Checked
	for _, i := range invariants {
		out = append(out, Checked{i.id, i.text, i.holds(s, o, u, now)})
	}
	return out, nil
}
