package delegation

import (
	"slices"
	"time"

	"github.com/sigild/sigild/refusal"
)

// This file says whose stamps an act needs. Stamps count by credential, once each.

// matching counts the actor's credentials that are in list and alive at now. Those
// of one line, of which one replaces another, count once.
func matching(list []registered, a Actor, now time.Time) int {
	n := 0
	var lines []string
	for _, r := range list {
		if !slices.ContainsFunc(a.Credentials, r.is) || r.ended(now) || slices.Contains(lines, r.line()) {
			continue
		}
		lines = append(lines, r.line())
		n++
	}
	return n
}

// rootMembers counts the root members that stamped: keys of the root, and end users in it.
func (s *Service) rootMembers(o *organization, a Actor) int {
	now := s.clock()
	n := matching(o.Root, a, now)
	for _, id := range o.RootUsers {
		if u := find(s.book, s.book.users, id); u != nil && u.Kind == EndUser && matching(u.Credentials, a, now) > 0 {
			n++
		}
	}
	return n
}

// clock is the later of the wall clock and the journal's: what has ended stays so
// when the clock is turned back.
func (s *Service) clock() time.Time { return s.journal.At(nil).Now() }

func quorumMissing(what string, have, need int) error {
	return refusal.New(refusal.QuorumMissing, "this act needs the stamps of %d %s, and carries %d", need, what, have)
}

// operators demands the operators' quorum; their stamps name no organization.
func (s *Service) operators(a Actor) error {
	self := s.book.appliance()
	if n := matching(self.Operators, a, s.clock()); a.Organization != "" || n < self.Quorum {
		return quorumMissing("operators", n, self.Quorum)
	}
	return nil
}

// inside refuses an actor whose stamps name another organization, as if the one
// that is asked for did not exist.
func (s *Service) inside(a Actor, org string) (*organization, error) {
	if a.Organization != org {
		org = "" // no organization has this id
	}
	return s.book.organization(org)
}

// root demands the organization's root quorum.
func (s *Service) root(a Actor, org string) error {
	o, err := s.inside(a, org)
	if err != nil {
		return err
	}
	if n := s.rootMembers(o, a); n < o.Quorum {
		return quorumMissing("root members", n, o.Quorum)
	}
	return nil
}

// owner demands one credential of the end user who owns the subject; what is the
// organization's own, and no user's, is its root quorum's.
func (s *Service) owner(a Actor, org, userID string) error {
	if _, err := s.inside(a, org); err != nil {
		return err
	}
	if userID == "" {
		return s.root(a, org)
	}
	u, err := s.book.user(org, userID)
	if err != nil {
		return err
	}
	if u.Kind != EndUser || matching(u.Credentials, a, s.clock()) == 0 {
		return quorumMissing("owner", 0, 1)
	}
	return nil
}

// ownWallet finds a wallet for its owner.
func (s *Service) ownWallet(a Actor, org, id string) (*wallet, error) {
	if _, err := s.inside(a, org); err != nil {
		return nil, err
	}
	w, _, err := s.book.wallet(org, id)
	if err != nil {
		return nil, err
	}
	return w, s.owner(a, org, w.Owner)
}

// member demands any root member's or end user's stamp: enough to ask. What they
// may see is concerns' matter.
func (s *Service) member(a Actor, org string) error {
	o, err := s.inside(a, org)
	if err != nil {
		return err
	}
	if s.rootMembers(o, a) > 0 {
		return nil
	}
	for _, u := range s.book.stampers(org, a) {
		if u.Kind == EndUser && matching(u.Credentials, a, s.clock()) > 0 {
			return nil
		}
	}
	return quorumMissing("member", 0, 1)
}

// concerns reports whether a member may look at what belongs to owner: a root
// member at everything, an end user at their own. To others it does not exist.
func (s *Service) concerns(a Actor, org, owner string) bool {
	o, err := s.inside(a, org)
	if err != nil {
		return false
	}
	return s.rootMembers(o, a) > 0 || owner != "" && s.owner(a, org, owner) == nil
}
