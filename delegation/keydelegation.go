package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A key belongs to an end user, or to its organization: then its owner is "", the root
// quorum stands in the owner's place, and all shares of the root set, the user's among
// them, lie on this host. A key that was made with delay_delegation can be handed to
// an end user, once and for ever, with all its wallets; no other can, so that a
// treasury is never given away by mistake.
//
// Handing it over is one transaction: key and wallets change owners, everything that
// others were given ends, the user's share of the organization's root set is destroyed,
// a rotation begins, and the anchor moves before the answer. What was spent stays
// counted. The rotation makes the new owner's share and destroys the two that are left of
// the old set; who kept a copy of the old store has shares of a set that no host serves.
// It can take minutes (ECDSA without pre-parameters at hand), so the answer does not wait
// for it. Until it is done the key owes it: a failure or a restart has it begin again
// ([Service.RotateDue]), and the owner has no share to fetch. Whatever the moment of a
// crash, the owner never gets a share of a set that was whole on this host at rest.

// CreateKey is CreateWallet for a key whose ownership is said: an owner, n.Delay, or
// neither for a key that is the organization's for ever. Durable on return.
func (s *Service) CreateKey(ctx context.Context, a Actor, n NewWallet) (WalletStarted, error) {
	if n.Owner != "" && n.Delay {
		return WalletStarted{}, refusal.New(refusal.RequestInvalid, "a key is delegated from the start or later, not both").With("field", "delay_delegation")
	}
	if n.Owner != "" {
		return s.CreateWallet(ctx, a, n)
	}
	if err := checkName("name", n.Name); err != nil {
		return WalletStarted{}, err
	}
	scheme, err := schemeOf(n.Chain)
	if err != nil {
		return WalletStarted{}, err
	}
	p := pendingKey{scheme: scheme, origin: originInProcess, kind: kindKeygen, delay: n.Delay}
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (WalletStarted, error) {
		made, err := s.addWallet(tx, nil, n, p, mpc.Keygen, nil)
		e.Wallet = made.WalletID
		e.Facts = map[string]string{"key": made.KeyID, "chain": n.Chain, "ceremony": made.CeremonyID, "origin": p.origin, "delay_delegation": fmt.Sprint(n.Delay)}
		return made, err
	})
}

// NewKeyDelegation asks to hand a key over.
type NewKeyDelegation struct {
	RequestID, Organization, Key string
	// To is an end user of the organization.
	To string
}

// KeyDelegated answers DelegateKey.
type KeyDelegated struct {
	KeyID   string `json:"key_id"`
	Status  string `json:"status"`
	Custody string `json:"custody"`
}

// statusDelegated is the word of the answer.
const statusDelegated = "Delegated"

// DelegateKey hands a key and all its wallets to an end user, under the root quorum.
// Asked again with the same user it gives the same answer, with another it is
// NOT_DELEGATABLE, as is every key that was not made for it. Durable on return, when
// nothing that was asked for before is under way.
func (s *Service) DelegateKey(ctx context.Context, a Actor, n NewKeyDelegation) (KeyDelegated, error) {
	var ended []*delegationRecord
	var wallets []string
	out, err := act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (KeyDelegated, error) {
		k := find(s.book, s.book.keys, n.Key)
		if k == nil || k.Organization != n.Organization {
			return KeyDelegated{}, refusal.New(refusal.NotFound, "no such key")
		}
		u, err := s.book.user(n.Organization, n.To)
		if err != nil {
			return KeyDelegated{}, err
		}
		e.User = u.ID
		e.Facts = map[string]string{"key": k.ID}
		switch {
		case u.Kind != EndUser:
			return KeyDelegated{}, refusal.New(refusal.RequestInvalid, "delegate_to must name an end user").With("field", "delegate_to")
		case !k.Delay:
			return KeyDelegated{}, refusal.New(refusal.NotDelegatable, "the key was not made with delay_delegation")
		case k.Owner == u.ID:
			return KeyDelegated{k.ID, statusDelegated, k.custody()}, nil
		case k.Owner != "":
			return KeyDelegated{}, refusal.New(refusal.NotDelegatable, "the key was delegated to another user, for ever")
		case k.Status != statusActive:
			return KeyDelegated{}, refusal.New(refusal.NotActive, "the key is %s: its ceremony has to end first", k.Status)
		}
		if ended, wallets, err = s.endUses(tx, e, k); err != nil {
			return KeyDelegated{}, err
		}
		next := *k
		next.Owner = u.ID
		if err := s.destroyUserShare(tx, &next); err != nil {
			return KeyDelegated{}, err
		}
		if err := s.renewRoot(tx, e, &next); err != nil {
			return KeyDelegated{}, err
		}
		for _, w := range s.book.walletsOf(k.ID) {
			moved := *w
			moved.Owner = u.ID
			if err := store(tx, vault.TypeWallet, w.ID, &moved); err != nil {
				return KeyDelegated{}, err
			}
			s.book.change(tx, func() { s.book.fileWallet(&moved) })
		}
		tx.Advance() // no older copy of the store may take it back
		return KeyDelegated{k.ID, statusDelegated, next.custody()}, s.putKey(tx, &next)
	})
	if err != nil {
		return KeyDelegated{}, err
	}
	if err := s.awaitStamped(ctx, wallets...); err != nil {
		return KeyDelegated{}, fmt.Errorf("waiting for signatures under way: %w", err)
	}
	return out, s.awaitDelegations(ctx, ended)
}

// destroyUserShare ends the user's share of the organization's root set. Two are left, a
// quorum to make the next set with.
func (s *Service) destroyUserShare(tx *vault.Tx, k *key) error {
	at := slices.Index(k.Here, mpc.User)
	if at < 0 {
		return fmt.Errorf("handing key %s over: the user's share is not here", k.ID)
	}
	k.Here = slices.Delete(slices.Clone(k.Here), at, at+1)
	return tx.Delete(vault.TypeShare, ShareID(k.Root.ID, mpc.User))
}

// renewRoot begins the rotation that a key owes when it is handed over. What stands in
// its way now, such as a rotation that goes on for the organization, does not hold the
// hand-over up: RotateDue begins it when it can.
func (s *Service) renewRoot(tx *vault.Tx, e *journal.Entry, k *key) error {
	k.Renew = true
	facts := *e // startRotation says what a rotation says
	_, err := s.startRotation(tx, &facts, k, rotation{kind: kindRotate})
	var no *refusal.Error
	if errors.As(err, &no) {
		s.log.Warn("a key was handed over and can't be rotated yet", "key", k.ID, "why", no.Message)
		return nil
	}
	return err
}

// endUses ends all that the key was used by: delegations, their orders and proposals,
// activities that wait, and policies that name one of its wallets as theirs. Who called
// it waits for what it returns after the commit.
func (s *Service) endUses(tx *vault.Tx, e *journal.Entry, k *key) (ended []*delegationRecord, wallets []string, err error) {
	for _, w := range s.book.walletsOf(k.ID) {
		wallets = append(wallets, w.ID)
	}
	ended = s.delegationsWhere(func(d *delegationRecord) bool { return slices.Contains(wallets, d.Wallet) && d.alive() })
	for _, d := range ended {
		if err := s.endDelegation(tx, d); err != nil {
			return nil, nil, err
		}
	}
	s.book.mu.RLock()
	var waiting []*activity
	for _, a := range s.book.activities {
		if slices.Contains(wallets, a.shown.Wallet) {
			waiting = append(waiting, a)
		}
	}
	s.book.mu.RUnlock()
	for _, a := range waiting {
		if err := tx.Delete(vault.TypeActivity, a.ID); err != nil {
			return nil, nil, fmt.Errorf("removing activity %s: %w", a.ID, err)
		}
		s.book.change(tx, func() {
			delete(s.book.activities, a.ID)
			delete(s.book.waiting, a.ref())
		})
	}
	removed, err := s.removePoliciesOf(tx, e, k.Organization, wallets)
	e.Facts["delegations_ended"], e.Facts["activities_ended"], e.Facts["policies_removed"] = fmt.Sprint(len(ended)), fmt.Sprint(len(waiting)), fmt.Sprint(removed)
	return ended, wallets, err
}

// removePoliciesOf removes the documents of policies that were made for one of the wallets.
func (s *Service) removePoliciesOf(tx *vault.Tx, e *journal.Entry, org string, wallets []string) (int, error) {
	from := s.book.rulebook(org)
	gone := DocumentChanges{Organization: org}
	for _, d := range from.documents {
		wallet, _, ok := strings.Cut(d.Name, ".")
		if ok && d.Kind == KindRules && slices.Contains(wallets, wallet) {
			gone.Remove = append(gone.Remove, d.name())
		}
	}
	if len(gone.Remove) == 0 {
		return 0, nil
	}
	next, err := s.book.changed(from, gone, from.version+1)
	if err != nil {
		return 0, err
	}
	o, err := s.book.organization(org)
	if err != nil {
		return 0, err
	}
	facts := e.Facts
	if _, err := s.setDocuments(tx, e, o, next); err != nil {
		return 0, err
	}
	for name, said := range facts {
		e.Facts[name] = said
	}
	return len(gone.Remove), nil
}

// Signature is where a request to sign stands.
type Signature struct {
	RequestID, Wallet string
	// Kind is the payload's, "" when the journal's entry is in the archive.
	Kind string
	// State is the journal's; Waiting: people are asked, Rejected: one of them said no.
	State             journal.State
	Waiting, Rejected bool
	Answer            []byte
}

// Signature finds a request to sign for a member whom its wallet concerns, or for a
// user who asked for it by stamp. To others it does not exist.
func (s *Service) Signature(ctx context.Context, a Actor, org, requestID string) (Signature, error) {
	none := refusal.New(refusal.NotFound, "no such request")
	if _, err := s.inside(a, org); err != nil {
		return Signature{}, err
	}
	users := s.book.stampers(org, a)
	if s.member(a, org) != nil && len(s.delegates(org, a)) == 0 {
		return Signature{}, quorumMissing("member", 0, 1)
	}
	mine := func(walletID, asker string) bool {
		w, _, err := s.book.wallet(org, walletID)
		return err == nil && s.concerns(a, org, w.Owner) || slices.ContainsFunc(users, func(u *user) bool { return u.ID == asker })
	}
	if w := s.book.waitingFor(requestRef{org, requestID}); w != nil && mine(w.shown.Wallet, w.shown.Requester) {
		st, ok, err := s.journal.Request(org, requestID)
		if err != nil || !ok {
			return Signature{RequestID: requestID, Wallet: w.shown.Wallet, Kind: string(w.shown.Kind), Waiting: true, Rejected: w.Rejection != nil}, err
		}
		return Signature{RequestID: requestID, Wallet: st.Wallet, Kind: string(w.shown.Kind), State: st.State, Answer: st.Answer}, nil
	}
	st, ok, err := s.journal.Request(org, requestID)
	if err != nil {
		return Signature{}, err
	}
	if !ok || st.ApprovedSeq == 0 { // an act's id, or nobody's
		return Signature{}, none
	}
	out, asker := Signature{RequestID: requestID, Wallet: st.Wallet, State: st.State}, ""
	if entries, err := s.journal.Entries(ctx, st.ApprovedSeq, 1); err == nil && len(entries) == 1 && entries[0].Seq == st.ApprovedSeq {
		asker = entries[0].User
		if entries[0].Asked != nil {
			out.Kind = entries[0].Asked.Kind
		}
	}
	if !mine(st.Wallet, asker) {
		return Signature{}, none
	}
	if st.State == journal.StateSigned {
		out.Answer = st.Answer
	}
	return out, nil
}
