package delegation

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A credential's life: it is registered with proof of possession, replaced by
// rotation, and ends by expiry or revocation.
//
//   - Rotation takes the stamp of the credential that is replaced, or for a
//     delegated user the root quorum's. The new one stands where the old one stood,
//     in the same user or root, ends no later than the old one would have, and counts
//     once with it. The old one ends after the overlap.
//   - Revocation takes what came of the credential by rotation with it, unless that
//     is asked to stay: who holds a stolen key may have rotated it.
//   - An end user's credentials are the end user's alone: no root quorum adds any, so
//     that no organization can take a wallet over. The last one that doesn't expire
//     stays.

// Bounds of credentials.
const (
	maxUnusedAlarm = 366 * 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour
)

// credentialKey is a credential of an organization's user.
type credentialKey struct{ organization, credential string }

// is reports whether r is that key.
func (r *registered) is(k credential.PublicKey) bool {
	return r.Algorithm == string(k.Algorithm) && bytes.Equal(r.PublicKey, k.Bytes)
}

func (r *registered) key() credential.PublicKey {
	return credential.PublicKey{Algorithm: credential.Algorithm(r.Algorithm), Bytes: r.PublicKey}
}

// ended reports whether now is at or after its end.
func (r *registered) ended(now time.Time) bool {
	return r.ExpiresAt != nil && !now.Before(*r.ExpiresAt)
}

// line names those that came of one by rotation.
func (r *registered) line() string {
	if r.Line != "" {
		return r.Line
	}
	return r.ID
}

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// earlier is the first of two ends, of which nil is never.
func earlier(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

// setUserLocked puts a user's record and keeps the index of credentials. It needs mu.
func (b *book) setUserLocked(u *user) {
	if old := b.users[u.ID]; old != nil {
		for _, c := range old.Credentials {
			delete(b.holders, credentialKey{u.Organization, c.ID})
		}
	}
	b.users[u.ID] = u
	b.indexLocked(u)
}

func (b *book) indexLocked(u *user) {
	for _, c := range u.Credentials {
		b.holders[credentialKey{u.Organization, c.ID}] = u
	}
}

// holder is the user of an organization that has the credential; nil for none.
func (b *book) holder(org, credential string) *user {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.holders[credentialKey{org, credential}]
}

// stampers are the users of an organization that have a credential of the actor's, each once.
func (b *book) stampers(org string, a Actor) (list []*user) {
	for _, c := range a.Credentials {
		if u := b.holder(org, c.ID()); u != nil && !slices.Contains(list, u) {
			list = append(list, u)
		}
	}
	return list
}

// KnownCredential tells the server whether a stamp's public key is registered and
// alive: with the operators for organization "", else with that organization, its
// delegated users included. party is what its assertions are verified with; nil for a
// credential that makes none. What the credential may do is decided by each act.
func (s *Service) KnownCredential(org string, pk credential.PublicKey) (party *credential.RelyingParty, known bool) {
	if org == "" {
		probe := Actor{Credentials: []credential.PublicKey{pk}}
		return nil, matching(s.book.appliance().Operators, probe, s.clock()) > 0
	}
	r, _ := s.credentialOf(org, pk)
	if r == nil || r.ended(s.clock()) {
		return nil, false
	}
	return r.Party, true
}

// credentialOf finds a credential of an organization, and its user, nil for the root's.
func (s *Service) credentialOf(org string, pk credential.PublicKey) (*registered, *user) {
	o := find(s.book, s.book.organizations, org)
	if o == nil {
		return nil, nil
	}
	u := s.book.holder(org, pk.ID())
	lists := [][]registered{o.Root}
	if u != nil {
		lists = [][]registered{u.Credentials, o.Root}
	}
	for i, list := range lists {
		for j := range list {
			if list[j].is(pk) {
				if u != nil && i == 0 {
					return &list[j], u
				}
				return &list[j], nil
			}
		}
	}
	return nil, nil
}

// useEvery is how far apart uses are written down.
const useEvery = time.Hour

// NoteUse remembers that a credential's stamp was verified. An authenticator's
// counter must grow, unless it counts nothing: what doesn't is a copy's, and refused.
// A grown counter is durable on return; the time of use is kept to the hour.
func (s *Service) NoteUse(ctx context.Context, org string, pk credential.PublicKey, counter uint32) error {
	if org == "" {
		return nil
	}
	now := s.clock()
	due := func() (*registered, *user) {
		r, u := s.credentialOf(org, pk)
		if r == nil || counter == 0 && r.Counter == 0 && r.LastUsed != nil && now.Sub(*r.LastUsed) < useEvery {
			return nil, nil
		}
		return r, u
	}
	if r, _ := due(); r == nil {
		return nil
	}
	// Alone: another of the same commit would compare with a counter that is not the last.
	return s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		r, u := due()
		if r == nil {
			return nil
		}
		if (counter != 0 || r.Counter != 0) && counter <= r.Counter {
			s.log.WarnContext(ctx, "an authenticator's counter did not grow; a copy of it may be about", "organization", org, "credential", r.ID, "counter", counter, "last", r.Counter)
			return refusal.New(refusal.StampInvalid, "the authenticator's counter did not grow: stamp anew, and if that is refused, too, a copy of it may be about")
		}
		hour := now.Truncate(useEvery)
		return s.rewrite(tx, org, u, r.ID, func(r *registered) { r.LastUsed, r.Counter, r.UnusedTold = &hour, counter, false })
	})
}

// rewrite changes one credential in its user's record, or in the organization's when
// u is nil. Records are read again here: others of the same commit may have changed them.
func (s *Service) rewrite(tx *vault.Tx, org string, u *user, id string, change func(*registered)) error {
	edit := func(list []registered) []registered {
		list = slices.Clone(list)
		for i := range list {
			if list[i].ID == id {
				change(&list[i])
			}
		}
		return list
	}
	return s.rewriteAll(tx, org, u, edit)
}

func (s *Service) rewriteAll(tx *vault.Tx, org string, u *user, edit func([]registered) []registered) error {
	if u != nil {
		changed := new(user)
		if err := tx.With(vault.TypeUser, u.ID, func(b []byte) error { return decodeRecord(b, changed) }); err != nil {
			return err
		}
		changed.Credentials = edit(changed.Credentials)
		s.book.change(tx, func() { s.book.setUserLocked(changed) })
		return store(tx, vault.TypeUser, u.ID, changed)
	}
	changed := new(organization)
	if err := tx.With(vault.TypeOrganization, org, func(b []byte) error { return decodeRecord(b, changed) }); err != nil {
		return err
	}
	changed.Root = edit(changed.Root)
	s.book.change(tx, func() { s.book.organizations[org] = changed })
	return store(tx, vault.TypeOrganization, org, changed)
}

// purposeOf is what a proof for a credential of u must be made for; nil is the root.
func purposeOf(u *user) credential.Purpose {
	switch {
	case u == nil:
		return credential.ForOrganizationRoot
	case u.Kind == DelegatedUser:
		return credential.ForDelegatedUser
	}
	return credential.ForUser
}

// CredentialAdded answers AddCredential and RotateCredential.
type CredentialAdded struct {
	CredentialID string     `json:"credential_id"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`
	// OldEndsAt is the end of the credential that was replaced.
	OldEndsAt *time.Time `json:"old_ends_at,omitempty"`
}

// AddedCredential asks for a further credential of a user.
type AddedCredential struct {
	RequestID, Organization, User string
	Credential                    NewCredential
}

// AddCredential registers a further credential: of an end user on their own stamp, of
// a delegated user under the root quorum. Durable on return.
func (s *Service) AddCredential(ctx context.Context, a Actor, n AddedCredential) (CredentialAdded, error) {
	authorize := func() error { _, err := s.mayChange(a, n.Organization, n.User); return err }
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CredentialAdded, error) {
		u, err := s.mayChange(a, n.Organization, n.User)
		if err != nil {
			return CredentialAdded{}, err
		}
		return s.addCredential(tx, e, u, n.Credential, nil, 0)
	})
}

// mayChange finds a user whose credentials the actor may add to or end.
func (s *Service) mayChange(a Actor, org, id string) (*user, error) {
	if _, err := s.inside(a, org); err != nil {
		return nil, err
	}
	u, err := s.book.user(org, id)
	if err != nil {
		return nil, err
	}
	if u.Kind == EndUser {
		return u, s.owner(a, org, id)
	}
	if err := s.root(a, org); err != nil {
		return nil, err
	}
	if u.Removed {
		return nil, refusal.New(refusal.NotActive, "the user was removed")
	}
	return u, nil
}

// addCredential registers c with u in place of old, or beside what is there when old is nil.
func (s *Service) addCredential(tx *vault.Tx, e *journal.Entry, u *user, c NewCredential, old *registered, overlap time.Duration) (CredentialAdded, error) {
	list, err := registerAll(purposeOf(u), []NewCredential{c})
	if err != nil {
		return CredentialAdded{}, err
	}
	now, made := s.clock(), list[0]
	made.CreatedAt = &now
	if old != nil {
		made.Line, made.LineEnds = old.line(), old.LineEnds
		if old.Line == "" {
			made.LineEnds = old.ExpiresAt
		}
		made.ExpiresAt = earlier(earlier(made.ExpiresAt, old.ExpiresAt), made.LineEnds)
		if made.UnusedAlarm == 0 {
			made.UnusedAlarm = old.UnusedAlarm
		}
	}
	if made.ended(now) {
		return CredentialAdded{}, refusal.New(refusal.RequestInvalid, "the credential would have ended already").With("field", "expires_at")
	}
	kind := EndUser
	if u != nil {
		kind = u.Kind
	}
	if err := s.vacant(e.Organization, kind, made.ID); err != nil {
		return CredentialAdded{}, err
	}
	out := CredentialAdded{CredentialID: made.ID, ExpiresAt: made.ExpiresAt}
	have := 0
	edit := func(list []registered) []registered {
		list = slices.DeleteFunc(slices.Clone(list), func(r registered) bool { return r.ended(now) }) // the journal remembers them
		for i := range list {
			if old != nil && list[i].ID == old.ID {
				end := now.Add(overlap)
				list[i].ExpiresAt = earlier(list[i].ExpiresAt, &end)
				out.OldEndsAt = list[i].ExpiresAt
			}
		}
		have = len(list)
		return append(list, made)
	}
	if err := s.rewriteAll(tx, e.Organization, u, edit); err != nil {
		return CredentialAdded{}, err
	}
	if have >= maxCredentials {
		return CredentialAdded{}, refusal.New(refusal.RequestInvalid, "at most %d credentials are alive at a time", maxCredentials).With("field", "credential")
	}
	e.Facts = map[string]string{"credential": fmt.Sprintf("%s %x %s", made.Algorithm, made.PublicKey, made.Name)}
	if u != nil {
		e.User = u.ID
	}
	if old != nil {
		tx.Advance() // no older copy of the store may have the old one live on
		e.Facts["replaces"], e.Facts["until"] = old.ID, out.OldEndsAt.Format(time.RFC3339)
	}
	return out, nil
}

// Rotation asks to replace a credential.
type Rotation struct {
	RequestID, Organization string
	// User has it; "" for a root member that is no user.
	User string
	// Old is the credential's id.
	Old string
	New NewCredential
	// Overlap is how long the old one still stands, at most seven days.
	Overlap time.Duration
}

// RotateCredential replaces a credential by another. Durable on return.
func (s *Service) RotateCredential(ctx context.Context, a Actor, n Rotation) (CredentialAdded, error) {
	if n.Overlap < 0 || n.Overlap > maxOverlap {
		return CredentialAdded{}, refusal.New(refusal.RequestInvalid, "the overlap is at most %d seconds", maxOverlap/time.Second).With("field", "overlap_seconds")
	}
	if n.User == "" && (n.New.ExpiresAt != nil || n.New.Party != nil) {
		return CredentialAdded{}, refusal.New(refusal.RequestInvalid, "only credentials of users expire or are WebAuthn's").With("field", "credential")
	}
	var u *user
	var old registered
	authorize := func() (err error) { u, old, err = s.mayReplace(a, n); return err }
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CredentialAdded, error) {
		if old.ended(s.clock()) {
			return CredentialAdded{}, refusal.New(refusal.NotActive, "the credential has ended")
		}
		if n.New.ExpiresAt != nil && old.ExpiresAt == nil && u.Kind == EndUser && !lasting(u.Credentials, old.ID) {
			return CredentialAdded{}, refusal.New(refusal.RequestInvalid, "an end user needs a credential that does not expire").With("field", "expires_at")
		}
		return s.addCredential(tx, e, u, n.New, &old, n.Overlap)
	})
}

// lasting reports whether a credential but the one named doesn't expire.
func lasting(list []registered, but string) bool {
	return slices.ContainsFunc(list, func(r registered) bool { return r.ID != but && r.ExpiresAt == nil })
}

// mayReplace finds the credential and its user, nil for the root.
func (s *Service) mayReplace(a Actor, n Rotation) (*user, registered, error) {
	o, err := s.inside(a, n.Organization)
	if err != nil {
		return nil, registered{}, err
	}
	var u *user
	list := o.Root
	if n.User != "" {
		if u, err = s.book.user(n.Organization, n.User); err != nil {
			return nil, registered{}, err
		}
		list = u.Credentials
	}
	at := slices.IndexFunc(list, func(r registered) bool { return r.ID == n.Old })
	if at < 0 {
		return nil, registered{}, refusal.New(refusal.NotFound, "no such credential")
	}
	if matching(list[at:at+1], a, s.clock()) > 0 {
		return u, list[at], nil
	}
	if u != nil && u.Kind == DelegatedUser {
		return u, list[at], s.root(a, n.Organization)
	}
	return nil, registered{}, quorumMissing("holder of the credential", 0, 1)
}

// Revocation asks to end a credential.
type Revocation struct {
	RequestID, Organization, User, Credential string
	// KeepSuccessors leaves what came of it by rotation.
	KeepSuccessors bool
}

// CredentialRevoked answers RevokeCredential.
type CredentialRevoked struct {
	// Ended are the ids of all that ended.
	Ended []string `json:"ended"`
}

// RevokeCredential ends a credential at once. Durable on return, when no signature
// that it asked for is under way.
func (s *Service) RevokeCredential(ctx context.Context, a Actor, n Revocation) (CredentialRevoked, error) {
	authorize := func() error { _, err := s.mayChange(a, n.Organization, n.User); return err }
	out, err := act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CredentialRevoked, error) {
		u, err := s.mayChange(a, n.Organization, n.User)
		if err != nil {
			return CredentialRevoked{}, err
		}
		at := slices.IndexFunc(u.Credentials, func(r registered) bool { return r.ID == n.Credential })
		if at < 0 {
			return CredentialRevoked{}, refusal.New(refusal.NotFound, "no such credential")
		}
		first, born := u.Credentials[at], time.Time{}
		if first.CreatedAt != nil {
			born = *first.CreatedAt
		}
		out := CredentialRevoked{}
		gone := func(r registered) bool {
			later := r.line() == first.line() && r.CreatedAt != nil && r.CreatedAt.After(born)
			return r.ID == first.ID || later && !n.KeepSuccessors
		}
		left := slices.DeleteFunc(slices.Clone(u.Credentials), func(r registered) bool {
			if gone(r) {
				out.Ended = append(out.Ended, r.ID)
			}
			return gone(r)
		})
		if u.Kind == EndUser && !lasting(left, "") {
			return CredentialRevoked{}, refusal.New(refusal.RequestInvalid, "this is the end user's last credential that does not expire: add or rotate to another first").With("field", "credential_id")
		}
		if err := s.rewriteAll(tx, n.Organization, u, func([]registered) []registered { return left }); err != nil {
			return CredentialRevoked{}, err
		}
		tx.Advance()
		e.User = u.ID
		e.Facts = map[string]string{}
		for i, id := range out.Ended {
			e.Facts[fmt.Sprint("ended.", i+1)] = id
		}
		return out, nil
	})
	if err != nil {
		return CredentialRevoked{}, err
	}
	if err := s.awaitStamped(ctx, n.User); err != nil {
		return CredentialRevoked{}, fmt.Errorf("waiting for signatures under way: %w", err)
	}
	return out, nil
}
