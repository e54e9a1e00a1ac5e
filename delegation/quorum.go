package delegation

import (
	"bytes"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/refusal"
)

// This file says whose stamps an act needs. Stamps count by credential, once each.

// matching counts the actor's credentials that are in list.
func matching(list []registered, a Actor) int {
	n := 0
	for _, r := range list {
		for _, c := range a.Credentials {
			if r.Algorithm == string(c.Algorithm) && bytes.Equal(r.PublicKey, c.Bytes) {
				n++
				break
			}
		}
	}
	return n
}

func quorumMissing(what string, have, need int) error {
	return refusal.New(refusal.QuorumMissing, "this act needs the stamps of %d %s, and carries %d", need, what, have)
}

// operators demands the operators' quorum; their stamps name no organization.
func (s *Service) operators(a Actor) error {
	self := s.book.appliance()
	if n := matching(self.Operators, a); a.Organization != "" || n < self.Quorum {
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
	if n := matching(o.Root, a); n < o.Quorum {
		return quorumMissing("root members", n, o.Quorum)
	}
	return nil
}

// owner demands one credential of the end user who owns the subject.
func (s *Service) owner(a Actor, org, userID string) error {
	if _, err := s.inside(a, org); err != nil {
		return err
	}
	u, err := s.book.user(org, userID)
	if err != nil {
		return err
	}
	if u.Kind != EndUser || matching(u.Credentials, a) == 0 {
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
	if matching(o.Root, a) > 0 {
		return nil
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, u := range s.book.users {
		if u.Organization == org && u.Kind == EndUser && matching(u.Credentials, a) > 0 {
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
	return matching(o.Root, a) > 0 || owner != "" && s.owner(a, org, owner) == nil
}

// KnownCredential tells the server whether a stamp's public key is registered at
// all: with the operators for organization "", else with that organization. What
// the credential may do is decided by each act.
func (s *Service) KnownCredential(org string, pk credential.PublicKey) bool {
	probe := Actor{Organization: org, Credentials: []credential.PublicKey{pk}}
	if org == "" {
		return matching(s.book.appliance().Operators, probe) > 0
	}
	return s.member(probe, org) == nil
}
