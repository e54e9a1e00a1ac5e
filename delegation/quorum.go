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

// root demands the organization's root quorum.
func (s *Service) root(a Actor, org string) error {
	o, err := s.book.organization(org)
	if err != nil {
		return err
	}
	if n := matching(o.Root, a); a.Organization != org || n < o.Quorum {
		return quorumMissing("root members", n, o.Quorum)
	}
	return nil
}

// owner demands one credential of the end user who owns the subject.
func (s *Service) owner(a Actor, org, userID string) error {
	u, err := s.book.user(org, userID)
	if err != nil {
		return err
	}
	if a.Organization != org || u.Kind != EndUser || matching(u.Credentials, a) == 0 {
		return quorumMissing("owner", 0, 1)
	}
	return nil
}

// member demands any root member's or end user's stamp: enough to look.
func (s *Service) member(a Actor, org string) error {
	o, err := s.book.organization(org)
	if err != nil || a.Organization != org {
		return refusal.New(refusal.NotFound, "no such organization")
	}
	if matching(o.Root, a) > 0 {
		return nil
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, u := range s.book.users {
		if u.Organization == org && matching(u.Credentials, a) > 0 {
			return nil
		}
	}
	return quorumMissing("member", 0, 1)
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
