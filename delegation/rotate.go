package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A rotation puts a new root set in the place of the old one: same key, same
// address, other shares. The new set signs a test with every quorum first. Then one
// transaction stores its shares, destroys those of the old set that lie here and
// puts the owner's new share into the outbox, so that a crash at any moment leaves
// exactly one root set. The owner's old share is worth nothing from then on, and
// the outbox keeps the new one until they confirm it.
//
// Delegations have sets of their own, which a rotation leaves alone: none of the
// shares it destroys could have signed with theirs. Revoke and delegate anew to
// replace such a set.

// NewRotation asks for a new root set of a wallet's key.
type NewRotation struct {
	RequestID    string
	Organization string
	// Wallet is any of the key's wallets.
	Wallet string
}

// CeremonyStarted answers acts that start one ceremony.
type CeremonyStarted struct {
	CeremonyID string `json:"ceremony_id"`
}

// RotateKey starts a rotation under the owner's stamp or the root quorum. It works
// while the wallet is paused or the key frozen. Durable on return; the ceremony ends
// later.
func (s *Service) RotateKey(ctx context.Context, a Actor, n NewRotation) (CeremonyStarted, error) {
	authorize := func() error { return s.ownerOrRoot(a, n.Organization, n.Wallet) }
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CeremonyStarted, error) {
		_, k, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return CeremonyStarted{}, err
		}
		id, err := s.startRotation(tx, e, k, rotation{kind: kindRotate})
		return CeremonyStarted{CeremonyID: id}, err
	})
}

// ownerOrRoot demands the stamp of the wallet's owner, or the root quorum.
func (s *Service) ownerOrRoot(a Actor, org, walletID string) error {
	if _, err := s.inside(a, org); err != nil {
		return err
	}
	w, _, err := s.book.wallet(org, walletID)
	if err != nil {
		return err
	}
	if s.owner(a, org, w.Owner) == nil {
		return nil
	}
	return s.root(a, org)
}

// rotation says how a new root set comes to be.
type rotation struct {
	// kind of the ceremony: kindRotate or kindRecover.
	kind string
	// without is a party whose share is not to be used; "" for none.
	without mpc.Party
	// recipient gets the owner's new share; "" for the one the owner registered.
	recipient string
	// brought lends a share that somebody brought along for the call; nil for none.
	brought func(use func(encoded []byte) error) error
	// origin is the key's from then on; "" leaves it.
	origin string
	// owner is the key's when the rotation was asked for; startRotation sets it.
	owner string
	// ended runs when nothing of the ceremony is left, also when it failed.
	ended []func()
}

// startRotation records the ceremony of a rotation and starts it when the
// transaction is on disk. What can't work is refused here.
func (s *Service) startRotation(tx *vault.Tx, e *journal.Entry, k *key, r rotation) (ceremonyID string, err error) {
	w := s.book.mainWallet(k.ID)
	if w == nil {
		return "", fmt.Errorf("rotating key %s: it has no wallet", k.ID)
	}
	if err := s.mayRotate(w, k, r); err != nil {
		return "", err
	}
	r.owner = k.Owner
	if r.recipient == "" && k.Owner != "" {
		u, err := s.book.user(k.Organization, k.Owner)
		if err != nil {
			return "", err
		}
		r.recipient = u.ShareRecipient
	}
	c := &ceremonyRecord{V: recordVersion, ID: newID("cer"), Organization: k.Organization, Kind: r.kind, Target: w.ID, Status: statusRunning, StartedAt: s.now().UTC()}
	if k.byDevice(r) {
		c.Status = statusWaiting
	}
	if err := store(tx, vault.TypeCeremony, c.ID, c); err != nil {
		return "", err
	}
	s.book.change(tx, func() { s.book.ceremonies[c.ID] = c })
	if c.Status == statusRunning {
		tx.OnCommit(func() { s.runRotation(c, w, k.ID, r) })
	}
	e.Wallet, e.User = w.ID, k.Owner
	e.Note("key", k.ID)
	e.Note("ceremony", c.ID)
	e.Note("from", k.Root.ID)
	return c.ID, nil
}

// mayRotate refuses what could not end well.
func (s *Service) mayRotate(w *wallet, k *key, r rotation) error {
	if k.Root.ID == "" && k.Status == statusActive {
		return refusal.New(refusal.NotActive, "the key was made elsewhere: there is no root set of it here")
	}
	if k.Status != statusActive {
		return refusal.New(refusal.NotActive, "the key is %s: there is no root set to rotate", k.Status)
	}
	if err := s.book.stopped(w.Organization, w.ID); refusal.Is(err, refusal.Quarantined) {
		return err // the original may be alive elsewhere, and its owner's share with it
	}
	if !k.madeHere() && k.Device == "" && r.origin == "" {
		return refusal.New(refusal.NotActive, "the owner's device holds a share that this host never saw: the device has to take part in the rotation")
	}
	have := len(k.usable(r.without))
	if k.byDevice(r) {
		have = k.Root.Threshold // it brings what is missing
	}
	if r.brought != nil {
		have++
	}
	if have < k.Root.Threshold {
		return refusal.New(refusal.NotActive, "of the root set's shares %d can be used and %d are needed", have, k.Root.Threshold)
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, c := range s.book.ceremonies {
		if c.Target == w.ID && (c.Status == statusRunning || c.Status == statusWaiting) {
			return refusal.New(refusal.NotActive, "ceremony %s of this key goes on", c.ID).With("ceremony", c.ID)
		}
	}
	return nil
}

// madeHere says whether one process made all shares of the key.
func (k *key) madeHere() bool { return k.Origin == originInProcess || k.Origin == originImported }

// byDevice says whether the owner's device has to take part in a rotation.
func (k *key) byDevice(r rotation) bool { return k.Device != "" && r.origin == "" }

// usable are the parties whose shares lie here, but for one.
func (k *key) usable(without mpc.Party) []mpc.Party {
	return slices.DeleteFunc(slices.Clone(k.Here), func(p mpc.Party) bool { return p == without })
}

// mainWallet is the wallet of the key itself, not of a path below it.
func (b *book) mainWallet(keyID string) *wallet {
	for _, w := range b.walletsOf(keyID) {
		if len(w.Path) == 0 {
			return w
		}
	}
	return nil
}

// runRotation makes the new set and has it replace the old one.
func (s *Service) runRotation(c *ceremonyRecord, w *wallet, keyID string, r rotation) {
	work := func(ctx context.Context, keep func([]*mpc.Share)) (func(*vault.Tx, *journal.Entry) error, error) {
		k := find(s.book, s.book.keys, keyID)
		var set mpc.ShareSet
		var shares []*mpc.Share
		err := s.lendRoot(ctx, k, r, func(quorum [][]byte) (err error) {
			set, shares, err = mpc.Rotate(ctx, mpc.IssueRequest{
				// The ceremony's id is in the set's: no two sets ever have the same, failed ones neither.
				From: k.Root, Quorum: quorum, SetID: fmt.Sprintf("%s/root/%s", k.ID, c.ID), PreParams: s.cfg.PreParameters,
				Progress: func(stage string, done, total int) { s.step(c, stage, done, total) },
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		keep(shares)
		var ciphertext []byte
		if r.recipient != "" { // else the key is the organization's, and all shares stay here
			if ciphertext, err = encryptShare(shares, mpc.User, r.recipient); err != nil {
				return nil, err
			}
		}
		return func(tx *vault.Tx, e *journal.Entry) error {
			out := &waitingShare{V: recordVersion, Wallet: w.ID, Recipient: r.recipient, Ciphertext: ciphertext, CreatedAt: s.now().UTC()}
			return s.replaceRoot(tx, e, k, r, set, shares, out)
		}, nil
	}
	s.startCeremony(c, work, func(tx *vault.Tx) error { return s.failTarget(tx, c) }, r.ended...)
}

// lendRoot lends a quorum of the root set: what lies here and what was brought.
func (s *Service) lendRoot(ctx context.Context, k *key, r rotation, use func(quorum [][]byte) error) error {
	from := k.usable(r.without)
	need := k.Root.Threshold
	if r.brought != nil {
		need--
	}
	if len(from) < need {
		return fmt.Errorf("rotating key %s: this host holds %d shares of the root set that can be used, %d are needed", k.ID, len(from), need)
	}
	return s.vault.WithAll(ctx, vault.TypeShare, shareIDs(k.Root.ID, from[:need]), func(here [][]byte) error {
		if r.brought == nil {
			return use(here)
		}
		return r.brought(func(encoded []byte) error { return use(append(here, encoded)) })
	})
}

// replaceRoot is the last transaction of a rotation; then is the key as it was when the
// ceremony began.
func (s *Service) replaceRoot(tx *vault.Tx, e *journal.Entry, then *key, r rotation, set mpc.ShareSet, shares []*mpc.Share, out *waitingShare) error {
	k := find(s.book, s.book.keys, then.ID) // as it is now: failures may have been counted
	if k.Root.ID != then.Root.ID || k.Owner != r.owner {
		return refusal.New(refusal.NotActive, "the key got another root set or another owner meanwhile")
	}
	next := *k
	next.Root, next.Here, next.RotatedAt, next.Renew = set, nil, s.now().UTC(), false
	if r.origin != "" {
		next.Origin, next.Device = r.origin, ""
	}
	for _, sh := range shares {
		if sh.Party() == mpc.User && out.Ciphertext != nil {
			continue // never sealed here: it leaves through the outbox
		}
		if err := putShare(tx, set.ID, sh); err != nil {
			return err
		}
		next.Here = append(next.Here, sh.Party())
	}
	slices.Sort(next.Here)
	// Destroying a share moves the anchor: no older copy of the store brings it back.
	for _, p := range k.Here {
		if err := tx.Delete(vault.TypeShare, ShareID(k.Root.ID, p)); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return fmt.Errorf("destroying the old share of %s: %w", p, err)
		}
	}
	if out.Ciphertext != nil { // else a device has its new share already, or it stays here
		if err := store(tx, vault.TypeOutbox, out.Wallet, out); err != nil {
			return err
		}
	}
	e.Wallet, e.ShareSet = out.Wallet, set.ID
	e.Facts["from"] = k.Root.ID
	return s.putKey(tx, &next)
}

// rotateEvery is how often the schedule is looked at.
const rotateEvery = time.Hour

// RunSchedule starts the rotations that are due, until ctx ends, and returns its cause.
func (s *Service) RunSchedule(ctx context.Context) error {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	for {
		if err := s.RotateDue(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("starting a rotation that is due", "error", err)
		}
		if err := s.TellUnused(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("telling of unused credentials", "error", err)
		}
		if err := s.EndOverdue(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("ending ceremonies that nobody joined", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// RotateDue starts a rotation of each key whose root set is older than its owner or
// the root quorum wanted, or is the organization's still after a hand-over. While an owner has not confirmed the last new share, the
// next rotation waits: it would outrun them. Durable on return.
func (s *Service) RotateDue(ctx context.Context) error {
	var all error
	for _, k := range s.book.keysDue(s.now()) {
		err := s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
			w := s.book.mainWallet(k.ID)
			if waits, err := tx.Has(vault.TypeOutbox, w.ID); err != nil || waits {
				return err
			}
			e := journal.Entry{Kind: journal.KindAct, Method: "schedule/rotate", Organization: k.Organization, Outcome: "started"}
			if _, err := s.startRotation(tx, &e, k, rotation{kind: kindRotate}); err != nil {
				return err
			}
			_, err := s.journal.Append(tx, e)
			return err
		})
		var no *refusal.Error
		if errors.As(err, &no) {
			s.log.Warn("a rotation is due and can't be", "key", k.ID, "why", no.Message)
			continue
		}
		all = errors.Join(all, err)
	}
	return all
}

func (b *book) keysDue(now time.Time) (due []*key) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.keys {
		if k.Status == statusActive && (k.Renew || k.RotateEvery > 0 && !now.Before(k.rootSince().Add(k.RotateEvery))) {
			due = append(due, k)
		}
	}
	return due
}
