package delegation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Members are an organization's users and its root. What changes them is journaled
// with the credentials that asked for it, as every act.

// MemberCredential is what members may see of a credential.
type MemberCredential struct {
	ID, Name, Line                 string
	PublicKey                      credential.PublicKey
	Party                          *credential.RelyingParty
	CreatedAt, ExpiresAt, LastUsed *time.Time
	UnusedAlarm                    time.Duration
	// Unused: its alarm is due.
	Unused bool
}

// Member is what members may see of a user.
type Member struct {
	ID, Name      string
	Kind          UserKind
	Tags          []string
	Credentials   []MemberCredential
	Root, Removed bool
}

// Members are an organization's.
type Members struct {
	Name, Parent string
	Users        []Member
	Root         []MemberCredential
	Quorum       int
}

// Members shows an organization's users and root: everything to root members, to an
// end user the delegated users and themselves.
func (s *Service) Members(a Actor, org string) (Members, error) {
	if err := s.member(a, org); err != nil {
		return Members{}, err
	}
	o, err := s.book.organization(org)
	if err != nil {
		return Members{}, err
	}
	now := s.clock()
	out := Members{Name: o.Name, Parent: o.Parent, Root: s.showCredentials(o.Root, now), Quorum: o.Quorum}
	all := s.concerns(a, org, "")
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, u := range s.book.users {
		mine := slices.ContainsFunc(u.Credentials, func(r registered) bool { return slices.ContainsFunc(a.Credentials, r.is) })
		if u.Organization != org || !all && !mine && u.Kind == EndUser {
			continue
		}
		out.Users = append(out.Users, Member{
			ID: u.ID, Name: u.Name, Kind: u.Kind, Tags: u.Tags, Credentials: s.showCredentials(u.Credentials, now),
			Root: slices.Contains(o.RootUsers, u.ID), Removed: u.Removed,
		})
	}
	slices.SortFunc(out.Users, func(x, y Member) int { return strings.Compare(x.ID, y.ID) })
	return out, nil
}

func (s *Service) showCredentials(list []registered, now time.Time) []MemberCredential {
	var out []MemberCredential
	for _, r := range list {
		if r.ended(now) {
			continue
		}
		out = append(out, MemberCredential{
			ID: r.ID, Name: r.Name, Line: r.Line, PublicKey: r.key(),
			Party: r.Party, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, LastUsed: r.LastUsed,
			UnusedAlarm: time.Duration(r.UnusedAlarm) * time.Second, Unused: r.unused(now, s.cfg.UnusedAlarm),
		})
	}
	return out
}

// NewTags asks to replace a user's tags.
type NewTags struct {
	RequestID, Organization, User string
	Tags                          []string
}

// MemberChanged answers acts that have nothing to say.
type MemberChanged struct{}

// SetTags replaces a user's tags under the root quorum. Durable on return; what was
// judged by the old ones and is not approved is judged anew.
func (s *Service) SetTags(ctx context.Context, a Actor, n NewTags) error {
	if err := checkTags(n.Tags); err != nil {
		return err
	}
	_, err := act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (MemberChanged, error) {
		u, err := s.book.user(n.Organization, n.User)
		if err != nil {
			return MemberChanged{}, err
		}
		changed := *u
		changed.Tags = n.Tags
		e.User = u.ID
		e.Facts = map[string]string{"tags": strings.Join(n.Tags, " ")}
		// A delegation's standing has its user's tags, too.
		return MemberChanged{}, s.replaceUser(tx, &changed)
	})
	return err
}

// replaceUser writes a changed user, and its delegations' standings anew.
func (s *Service) replaceUser(tx *vault.Tx, changed *user) error {
	tx.Advance()
	s.book.change(tx, func() { s.book.setUserLocked(changed) })
	for _, d := range s.delegationsWhere(func(d *delegationRecord) bool { return d.DelegatedUser == changed.ID && d.Status == statusActive }) {
		next := *d
		next.Version++
		if err := store(tx, vault.TypeDelegation, d.ID, &next); err != nil {
			return err
		}
		s.book.change(tx, func() { s.book.delegations[next.ID] = &next })
	}
	return store(tx, vault.TypeUser, changed.ID, changed)
}

// delegationsWhere lists delegations, by id.
func (s *Service) delegationsWhere(is func(*delegationRecord) bool) (list []*delegationRecord) {
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, d := range s.book.delegations {
		if is(d) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(x, y *delegationRecord) int { return strings.Compare(x.ID, y.ID) })
	return list
}

// alive reports whether a delegation could sign, now or once its ceremony has ended.
func (d *delegationRecord) alive() bool { return d.Status == statusActive || d.Status == statusPending }

// RemoveUser ends a delegated user under the root quorum: its credentials and its
// delegations. Durable on return, when nothing it asked for is under way.
func (s *Service) RemoveUser(ctx context.Context, a Actor, requestID, org, id string) error {
	var ended []*delegationRecord
	_, err := act(ctx, s, a, org, requestID, func() error { return s.root(a, org) }, func(tx *vault.Tx, e *journal.Entry) (MemberChanged, error) {
		u, err := s.book.user(org, id)
		if err != nil {
			return MemberChanged{}, err
		}
		if u.Kind != DelegatedUser {
			return MemberChanged{}, refusal.New(refusal.RequestInvalid, "an end user owns wallets and is not removed").With("field", "user_id")
		}
		e.User = u.ID
		if u.Removed {
			return MemberChanged{}, nil
		}
		ended = s.delegationsWhere(func(d *delegationRecord) bool { return d.DelegatedUser == id && d.alive() })
		for _, d := range ended {
			if err := s.endDelegation(tx, d); err != nil {
				return MemberChanged{}, err
			}
		}
		gone := *u
		gone.Credentials, gone.Removed = nil, true
		tx.Advance()
		s.book.change(tx, func() { s.book.setUserLocked(&gone) })
		e.Facts = map[string]string{"delegations_ended": fmt.Sprint(len(ended))}
		return MemberChanged{}, store(tx, vault.TypeUser, id, &gone)
	})
	if err != nil {
		return err
	}
	if err := s.awaitStamped(ctx, id); err != nil {
		return fmt.Errorf("waiting for signatures under way: %w", err)
	}
	return s.awaitDelegations(ctx, ended)
}

func (s *Service) awaitDelegations(ctx context.Context, list []*delegationRecord) error {
	for _, d := range list {
		if err := s.flights.wait(ctx, d.ID); err != nil {
			return fmt.Errorf("waiting for signatures under way: %w", err)
		}
	}
	return nil
}

// NewQuorum asks for another root.
type NewQuorum struct {
	RequestID, Organization string
	// Users are end users; Credentials are of the root's keys that are no user's.
	Users, Credentials []string
	Quorum             int
}

// SetRootQuorum replaces the root, under the root quorum that stands. New are only end
// users of the organization; a key that is no user's can stay or go. Durable on return.
func (s *Service) SetRootQuorum(ctx context.Context, a Actor, n NewQuorum) error {
	_, err := act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (MemberChanged, error) {
		o, err := s.book.organization(n.Organization)
		if err != nil {
			return MemberChanged{}, err
		}
		changed := *o
		changed.RootUsers, changed.Root, changed.Quorum = nil, nil, n.Quorum
		for _, id := range n.Users {
			u, err := s.book.user(o.ID, id)
			if err != nil {
				return MemberChanged{}, err
			}
			if u.Kind != EndUser || slices.Contains(changed.RootUsers, id) {
				return MemberChanged{}, refusal.New(refusal.RequestInvalid, "the root takes end users, each once; never a delegated user").With("field", "user_ids")
			}
			changed.RootUsers = append(changed.RootUsers, id)
		}
		now := s.clock()
		for _, id := range n.Credentials {
			at := slices.IndexFunc(o.Root, func(r registered) bool { return r.ID == id })
			if at < 0 || slices.ContainsFunc(changed.Root, func(r registered) bool { return r.ID == id }) || o.Root[at].ended(now) {
				return MemberChanged{}, refusal.New(refusal.NotFound, "the root has no such credential")
			}
			changed.Root = append(changed.Root, o.Root[at])
		}
		if most := changed.rootSize(now); n.Quorum < 1 || n.Quorum > most {
			return MemberChanged{}, refusal.New(refusal.RequestInvalid, "root_quorum must be 1 to %d", most).With("field", "root_quorum")
		}
		tx.Advance()
		s.book.change(tx, func() { s.book.organizations[o.ID] = &changed })
		e.Facts = map[string]string{"users": strings.Join(n.Users, " "), "credentials": strings.Join(n.Credentials, " "), "quorum": fmt.Sprint(n.Quorum)}
		return MemberChanged{}, store(tx, vault.TypeOrganization, o.ID, &changed)
	})
	return err
}

// rootSize is how many can stamp for the root: lines of keys, and users.
func (o *organization) rootSize(now time.Time) int {
	lines := map[string]bool{}
	for _, r := range o.Root {
		if !r.ended(now) {
			lines[r.line()] = true
		}
	}
	return len(lines) + len(o.RootUsers)
}
