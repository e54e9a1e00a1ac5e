package delegation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Users sign by stamp, too, delegated users first of all: their organization's
// documents judge the request, with the users who stamped it as `approvers`.
//
// Such a request is signed with a quorum of the key's root set that this host
// holds: there is no share of the user's, so nothing but the records here says
// who may, and taking them back ends it. A delegation has a share set of its own.
//
// Nobody but a wallet's owner widens what may be signed with it. So the
// organization's ALLOW policies count for a stamped request only when
//
//   - the wallet has no owner but the organization (key.go), or
//   - the owner is the whole root of the organization, as in a sub-organization, or
//   - the owner is among those who stamped this very request.
//
// Otherwise the documents only deny, and the answer is that no policy allows it.

// AuthenticateStamps is step 3 for stamps that the server verified. A wallet of
// another organization does not exist.
func (s *Service) AuthenticateStamps(org, walletID string, by []credential.PublicKey) (*signing.Standing, error) {
	w, k, err := s.book.wallet(org, walletID)
	if err != nil {
		return nil, err
	}
	o, err := s.book.organization(org)
	if err != nil {
		return nil, err
	}
	st, err := s.stamper(o, w.Owner, by)
	if err != nil {
		return nil, err
	}
	st.Owner, st.Wallet = w.Owner, walletInfo(w, k)
	st.Set = k.Root
	quorum, err := k.quorumHere()
	switch {
	case w.Status != statusActive:
		st.Ended = refusal.New(refusal.NotActive, "the wallet is %s", w.Status)
	case err != nil:
		st.Ended = refusal.New(refusal.NotActive, "this host holds no quorum of the key's root set: only a delegation with a share set of its own signs").Because(err)
	default:
		st.ShareIDs = shareIDs(k.Root.ID, quorum)
	}
	if err := s.judgedBy(st, o.consents(w.Owner, st.Approvers)); err != nil {
		return nil, err
	}
	st.Version = versionOf(st, k.Root.ID, k.Owner, w.Status, strings.Join(o.RootUsers, " "))
	if err := s.book.stopped(org, w.ID); err != nil && st.Ended == nil {
		st.Ended = err
	}
	return st, nil
}

// stamper is the standing of those who stamped for a wallet of owner's, without wallet and rules.
func (s *Service) stamper(o *organization, owner string, by []credential.PublicKey) (*signing.Standing, error) {
	now := s.clock()
	st := &signing.Standing{Organization: o.ID, Stamps: by}
	for _, u := range s.book.stampers(o.ID, Actor{Credentials: by}) {
		if err := s.sound(o, u, owner, now); err != nil {
			return nil, err
		}
		used := 0
		for _, c := range u.Credentials {
			if u.Removed || c.ended(now) || !slices.ContainsFunc(by, c.is) {
				continue
			}
			used++
			st.Credentials = append(st.Credentials, stampedWith(u, c.key()))
			if c.ExpiresAt != nil && (st.ExpiresAt.IsZero() || c.ExpiresAt.Before(st.ExpiresAt)) {
				st.ExpiresAt = *c.ExpiresAt
			}
		}
		if used > 0 {
			st.Approvers = append(st.Approvers, approver(u))
		}
	}
	if len(st.Approvers) == 0 {
		// A root key that is no user's administers; it signs nothing.
		return nil, quorumMissing("users", 0, 1)
	}
	slices.SortFunc(st.Approvers, func(a, b policy.User) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(st.Credentials, func(a, b policy.Credential) int { return strings.Compare(a.ID, b.ID) })
	st.DelegatedUser, st.DelegatedUserName = st.Approvers[0].ID, st.Approvers[0].Alias
	return st, nil
}

// consents reports whether the organization's ALLOW policies count for a wallet of
// owner's when these users ask.
func (o *organization) consents(owner string, by []policy.User) bool {
	return owner == "" || o.ownRoot(owner) || slices.ContainsFunc(by, func(u policy.User) bool { return u.ID == owner })
}

// ownRoot reports whether a user is the whole root of the organization.
func (o *organization) ownRoot(userID string) bool {
	return len(o.Root) == 0 && len(o.RootUsers) == 1 && o.RootUsers[0] == userID
}

// judgedBy gives a stamped standing its rules: the appliance's files and the
// organization's documents, with their ALLOW policies or without.
func (s *Service) judgedBy(st *signing.Standing, allows bool) error {
	files, book, _ := s.book.layers(st.Organization, "")
	j, err := book.alone(files, allows)
	if err != nil {
		return err
	}
	st.Rules, st.Interfaces, st.PolicySet, st.Fixed = j.rules, j.interfaces, j.hash, j.hash
	return nil
}

// versionOf moves with all that a stamped standing was made of.
func versionOf(st *signing.Standing, more ...string) uint64 {
	h := sha256.New()
	for _, u := range st.Approvers {
		more = append(more, u.ID, strings.Join(u.Tags, " "))
	}
	for _, c := range st.Credentials {
		more = append(more, c.ID)
	}
	for _, text := range more {
		h.Write(framed(nil, text))
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// currentStamped is Current for a standing by stamps.
func (s *Service) currentStamped(then *signing.Standing) (*signing.Standing, error) {
	st, err := s.AuthenticateStamps(then.Organization, then.Wallet.ID, then.Stamps)
	if err != nil {
		return nil, err
	}
	return st, st.Ended
}

// flightOf names what a signature under way is counted by: its delegation, or for
// stamped ones the wallet and the users.
func flightOf(st *signing.Standing) string {
	if len(st.Stamps) == 0 {
		return st.Delegation
	}
	parts := []string{stampedFlight, st.Wallet.ID}
	for _, u := range st.Approvers {
		parts = append(parts, u.ID)
	}
	return strings.Join(parts, " ")
}

const stampedFlight = "stamped"

// awaitStamped returns when no signature is under way that names any of the ids, of
// users or wallets, and was asked for by stamps.
func (s *Service) awaitStamped(ctx context.Context, ids ...string) error {
	for _, flight := range s.flights.underWay() {
		parts := strings.Split(flight, " ")
		if parts[0] != stampedFlight || !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(parts[1:], id) }) {
			continue
		}
		if err := s.flights.wait(ctx, flight); err != nil {
			return err
		}
	}
	return nil
}
