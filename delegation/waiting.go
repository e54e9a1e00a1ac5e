package delegation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A ceremony with a device waits until the device joins: the device calls, never the
// appliance. It survives restarts while it waits. Whatever ends a try, a lost
// connection, a crash of either side, a person who says no, leaves nothing and the
// ceremony waiting; a party that broke the protocol ends it.
//
// The order of the end: the device writes its share to its disk and sends a receipt;
// only then the appliance commits its own shares with the ceremony's end, and says so.
// A device that did not hear it finds the set among those that count (Pending), or
// does not, and then its share is of a set that never was.

// waitFor is how long a ceremony waits for a device.
const waitFor = 24 * time.Hour

// NewDeviceWallet asks for a wallet whose user's share is made on a device.
type NewDeviceWallet struct {
	NewWallet
	// Device is the owner's.
	Device string
	// Recovery adds a share that lies here: 2-of-3, so that a lost device is not a lost
	// key. This host holds a quorum then, and custody is "host".
	Recovery bool
}

// CreateDeviceWallet records a pending key and wallet under the root quorum; its keygen
// waits for the device. Durable on return.
func (s *Service) CreateDeviceWallet(ctx context.Context, a Actor, n NewDeviceWallet) (WalletStarted, error) {
	if err := checkName("name", n.Name); err != nil {
		return WalletStarted{}, err
	}
	scheme, err := schemeOf(n.Chain)
	if err != nil {
		return WalletStarted{}, err
	}
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (WalletStarted, error) {
		d, err := s.book.device(n.Organization, n.Device)
		if err != nil {
			return WalletStarted{}, err
		}
		if d.Removed || d.User != n.Owner {
			return WalletStarted{}, refusal.New(refusal.RequestInvalid, "the device is not one of the owner's, or was removed").With("field", "device_id")
		}
		if scheme == chains.ECDSASecp256k1 && !s.cfg.SemiTrusted {
			return WalletStarted{}, errNotTrusted()
		}
		k, w, c := s.draftWallet(n.NewWallet, d.User, pendingKey{scheme: scheme, origin: originDevice, kind: kindKeygen}, statusWaiting)
		k.Device, c.Recovery = d.ID, n.Recovery
		e.Wallet, e.User = w.ID, d.User
		e.Facts = map[string]string{"key": k.ID, "chain": n.Chain, "ceremony": c.ID, "origin": k.Origin, "device": d.ID}
		return s.putDraft(tx, k, w, c)
	})
}

// Waiting is a ceremony that waits for a device.
type Waiting struct {
	ID, Kind, Wallet, Name, Chain string
	// Description is for people.
	Description     string
	StartedAt, Ends time.Time
}

// Pending lists what waits for a device, oldest first, and the share sets of which it
// holds a share that counts.
func (s *Service) Pending(device string) (waiting []Waiting, live []string, err error) {
	if _, err := s.book.liveDevice(device); err != nil {
		return nil, nil, err
	}
	b := s.book
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.keys {
		if k.Device == device && k.Status == statusActive {
			live = append(live, k.Root.ID)
		}
	}
	slices.Sort(live)
	for _, c := range b.ceremonies {
		if c.Status != statusWaiting || !s.now().Before(c.StartedAt.Add(waitFor)) {
			continue
		}
		d := b.delegations[c.Target]
		target := c.Target
		if d != nil {
			target = d.Wallet
		}
		if d != nil && d.Peer != "" {
			continue
		}
		w := b.wallets[target]
		if w == nil || b.keys[w.Key] == nil || b.keys[w.Key].Device != device {
			continue
		}
		what := "a new key for this wallet"
		switch {
		case c.Kind == kindRotate:
			what = "new shares of this wallet's key; the old ones end"
		case d != nil:
			what = fmt.Sprintf("delegation %s to user %s with %d policies and %d limits, which your credential approved", d.ID, d.DelegatedUser, len(d.Policies), len(d.Limits))
		}
		waiting = append(waiting, Waiting{ID: c.ID, Kind: c.Kind, Wallet: w.ID, Name: w.Name, Chain: w.Chain, Description: what, StartedAt: c.StartedAt, Ends: c.StartedAt.Add(waitFor)})
	}
	slices.SortFunc(waiting, func(x, y Waiting) int { return x.StartedAt.Compare(y.StartedAt) })
	return waiting, live, nil
}

// Join runs a ceremony that waits for this device, over a connection to it. It returns
// when the ceremony has ended; the result is durable then.
func (s *Service) Join(ctx context.Context, device, ceremonyID string, conn mpc.Conn) error {
	if _, err := s.book.liveDevice(device); err != nil {
		return err
	}
	c := find(s.book, s.book.ceremonies, ceremonyID)
	if c == nil || s.book.keyOf(c) == nil || s.book.keyOf(c).Device != device {
		return refusal.New(refusal.NotFound, "no such ceremony")
	}
	if c.Status != statusWaiting || !s.now().Before(c.StartedAt.Add(waitFor)) {
		return refusal.New(refusal.NotActive, "the ceremony does not wait any more")
	}
	if d := find(s.book, s.book.delegations, c.Target); d != nil && d.Peer != "" {
		return refusal.New(refusal.NotActive, "the ceremony waits for a co-signer")
	}
	work := map[string]joinedWork{kindKeygen: s.keygenWithDevice, kindIssue: s.issueWithDevice, kindRotate: s.rotateWithDevice}[c.Kind]
	if work == nil {
		return refusal.New(refusal.NotActive, "a device has no part in a ceremony of kind %s", c.Kind)
	}
	return s.runJoined(ctx, c, conn, work)
}

// joinedWork runs a ceremony with the other side and returns the session, on which
// nothing is committed yet, and what puts the result on disk.
type joinedWork func(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, keep func([]*mpc.Share)) (*mpc.Joint, mpc.ShareSet, func(*vault.Tx, *journal.Entry) error, error)

// runJoined is startCeremony for one that another process takes part in: it waits, and
// a failure that nobody is to blame for leaves the ceremony waiting.
func (s *Service) runJoined(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, work joinedWork) (err error) {
	if !s.begin() {
		return fmt.Errorf("joining a ceremony: %w", vault.ErrSealed)
	}
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CeremonyTimeout)
	defer cancel()
	defer context.AfterFunc(s.stop, cancel)()
	select {
	case s.ceremonySlot <- struct{}{}:
		defer func() { <-s.ceremonySlot }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer s.underWay.enter(c.ID, cancel)()
	if now := find(s.book, s.book.ceremonies, c.ID); now == nil || now.Status != statusWaiting {
		return refusal.New(refusal.NotActive, "the ceremony does not wait any more")
	}
	defer s.progress.drop(c.ID)
	var kept []*mpc.Share
	defer func() {
		for _, sh := range kept {
			sh.Destroy()
		}
	}()
	start := s.now()
	j, set, commit, err := work(ctx, c, conn, func(shares []*mpc.Share) { kept = append(kept, shares...) })
	if err == nil {
		defer func() { j.Close(err) }()
		if err = s.endCeremony(ctx, c, statusDone, "", s.ifLetIn(c, commit)); err == nil {
			s.log.Info("ceremony done", "ceremony", c.ID, "kind", c.Kind, "target", c.Target, "took", s.now().Sub(start))
			// That the other side does not hear it changes nothing any more.
			if c.Kind == kindCosign { // who was told, above
				return nil
			}
			if lost := j.Confirm(ctx, confirmCommitted, []byte(set.ID)); lost != nil {
				s.log.Warn("telling the other side that the ceremony is done", "ceremony", c.ID, "error", lost)
			}
			return nil
		}
	}
	if s.book.ended(c.ID) {
		s.log.Info("ceremony aborted", "ceremony", c.ID, "kind", c.Kind, "target", c.Target)
		return refusal.New(refusal.NotActive, "the ceremony was aborted").Because(err)
	}
	var m *mpc.Error
	if !errors.As(err, &m) || !m.Broken() {
		s.log.Warn("a ceremony with another party failed and waits on", "ceremony", c.ID, "kind", c.Kind, "target", c.Target, "error", err)
		return waitsOn(err)
	}
	s.log.Error("ceremony failed", "ceremony", c.ID, "kind", c.Kind, "target", c.Target, "error", err)
	failed := func(tx *vault.Tx, _ *journal.Entry) error {
		undo := s.failTarget(tx, c)
		if k := s.book.keyOf(c); k != nil && c.Kind != kindKeygen {
			return errors.Join(undo, s.CountFailure(tx, k.ID, err))
		}
		return undo
	}
	if e := s.endCeremony(s.stop, c, statusFailed, reasonForPeople(ctx, err), failed, culprits(err)...); e != nil {
		s.log.Error("recording a failed ceremony", "ceremony", c.ID, "error", e)
	}
	return refusal.New(refusal.CeremonyFailed, "the ceremony failed: a party broke the protocol").Because(err)
}

// ifLetIn is a commit that looks once more whether the key's device, if it has one, was
// removed: what it did until then counts for nothing.
func (s *Service) ifLetIn(c *ceremonyRecord, commit func(*vault.Tx, *journal.Entry) error) func(*vault.Tx, *journal.Entry) error {
	return func(tx *vault.Tx, e *journal.Entry) error {
		if k := s.book.keyOf(c); k != nil && k.Device != "" && s.byDevice(c) {
			if _, err := s.book.liveDevice(k.Device); err != nil {
				return err
			}
		}
		return commit(tx, e)
	}
}

// byDevice says whether a ceremony waits for its key's device, not for a co-signer.
func (s *Service) byDevice(c *ceremonyRecord) bool {
	d := find(s.book, s.book.delegations, c.Target)
	return c.Kind != kindCosign && (d == nil || d.Peer == "")
}

// waitsOn is what the other side hears of a try that failed.
func waitsOn(err error) error {
	var no *refusal.Error
	var elsewhere *mpc.RefusedError
	if errors.As(err, &no) || errors.As(err, &elsewhere) || errors.Is(err, vault.ErrSealed) {
		return err
	}
	return refusal.New(refusal.CeremonyFailed, "the ceremony did not end; it waits to be joined again").Because(err)
}

// What both sides confirm at the end of a ceremony that makes shares.
const (
	confirmReceipt   = "receipt"
	confirmCommitted = "committed"
)

// keygenWithDevice makes a root set: the user's party on the device, the others here.
func (s *Service) keygenWithDevice(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, keep func([]*mpc.Share)) (*mpc.Joint, mpc.ShareSet, func(*vault.Tx, *journal.Entry) error, error) {
	w := find(s.book, s.book.wallets, c.Target)
	k := s.book.keyOf(c)
	here := []mpc.Party{mpc.Server}
	if c.Recovery {
		here = []mpc.Party{mpc.Recovery, mpc.Server}
	}
	engine := mpc.EngineFor(k.Scheme)
	to := mpc.ShareSet{ID: s.freshSet(k.ID + "/root/" + c.ID), Scheme: k.Scheme, Parties: append(slices.Clone(here), mpc.User), Threshold: 2, Epoch: 1, Engine: engine}
	j, err := mpc.Propose(ctx, conn, mpc.Proposal{Op: mpc.OpKeygen, Engine: engine, Key: k.ID, Wallet: w.ID, Name: w.Name, Chain: w.Chain, To: &to,
		ToProposer: here, ToAcceptor: []mpc.Party{mpc.User}, Decision: c.ID})
	if err != nil {
		return nil, to, nil, err
	}
	set, shares, err := mpc.Keygen(ctx, mpc.KeygenRequest{SetID: to.ID, Scheme: to.Scheme, Parties: to.Parties, Threshold: to.Threshold, With: j,
		PreParams: s.cfg.PreParameters, Progress: func(stage string, done, total int) { s.progress.set(c.ID, stage, done, total) }})
	keep(shares)
	var address string
	if err == nil {
		address, err = addressOf(w.Chain, set.PublicKey)
	}
	if err == nil {
		err = j.Confirm(ctx, confirmReceipt, []byte(set.ID))
	}
	if err != nil {
		j.Close(err)
		return nil, set, nil, err
	}
	return j, set, func(tx *vault.Tx, e *journal.Entry) error {
		pendingWallet, pendingKey, err := s.book.wallet(w.Organization, w.ID)
		if err != nil {
			return err
		}
		made, active := *pendingKey, *pendingWallet
		made.Status, made.Root, made.Here = statusActive, set, here
		active.Status, active.Address = statusActive, address // the device's receipt is the owner's
		for _, sh := range shares {
			if err := putShare(tx, set.ID, sh); err != nil {
				return err
			}
		}
		s.book.change(tx, func() { s.book.fileKey(&made); s.book.fileWallet(&active) })
		e.Wallet, e.ShareSet = w.ID, set.ID
		e.Facts["address"] = address
		return errors.Join(store(tx, vault.TypeKey, made.ID, &made), store(tx, vault.TypeWallet, active.ID, &active))
	}, nil
}

// freshSet makes a set's id of a ceremony that may be tried more than once: no two
// tries have the same.
func (s *Service) freshSet(prefix string) string {
	sum := sha256.Sum256([]byte(newID("try")))
	return fmt.Sprintf("%s/%x", prefix, sum[:4])
}

// reshareWithDevice runs an issue or a rotation from the root set, of which the device
// plays the user.
func (s *Service) reshareWithDevice(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, op string, to mpc.ShareSet, toHere, toThere []mpc.Party) (*mpc.Joint, mpc.ShareSet, []*mpc.Share, error) {
	k := s.book.keyOf(c)
	w := s.book.mainWallet(k.ID)
	if w == nil || k.Status != statusActive {
		return nil, to, nil, refusal.New(refusal.NotActive, "the key is %s", k.Status)
	}
	from := k.Root
	here, elsewhere := k.sides()
	to.Scheme, to.Threshold, to.Epoch, to.Engine, to.PublicKey = from.Scheme, 2, from.Epoch+1, mpc.EngineOf(from), from.PublicKey
	j, err := mpc.Propose(ctx, conn, mpc.Proposal{Op: op, Engine: mpc.EngineOf(from), Key: k.ID, Wallet: w.ID, Name: w.Name, Chain: w.Chain, From: &from, To: &to,
		FromProposer: here, FromAcceptor: elsewhere, ToProposer: toHere, ToAcceptor: toThere, Decision: c.ID})
	if err != nil {
		return nil, to, nil, err
	}
	var set mpc.ShareSet
	var shares []*mpc.Share
	err = s.vault.WithAll(ctx, vault.TypeShare, shareIDs(from.ID, here), func(encoded [][]byte) (err error) {
		r := mpc.IssueRequest{From: from, Quorum: encoded, SetID: to.ID, Parties: to.Parties, Threshold: to.Threshold, With: j,
			PreParams: s.cfg.PreParameters, Progress: func(stage string, done, total int) { s.progress.set(c.ID, stage, done, total) }}
		if op == mpc.OpRotate {
			set, shares, err = mpc.Rotate(ctx, r)
		} else {
			set, shares, err = mpc.Issue(ctx, r)
		}
		return err
	})
	if err != nil {
		j.Close(err)
		return nil, to, nil, err
	}
	return j, set, shares, nil
}

// issueWithDevice makes a delegation's set, with the device in the quorum it comes from.
func (s *Service) issueWithDevice(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, keep func([]*mpc.Share)) (*mpc.Joint, mpc.ShareSet, func(*vault.Tx, *journal.Entry) error, error) {
	parties := []mpc.Party{mpc.Delegate, mpc.Server}
	j, set, shares, err := s.reshareWithDevice(ctx, c, conn, mpc.OpIssue, mpc.ShareSet{ID: s.freshSet(c.Target + "/1"), Parties: parties}, parties, nil)
	keep(shares)
	return j, set, func(tx *vault.Tx, e *journal.Entry) error { return s.activate(tx, e, c.Target, set, shares) }, err
}

// rotateWithDevice makes a new root set; the old shares here are destroyed with its commit.
func (s *Service) rotateWithDevice(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, keep func([]*mpc.Share)) (*mpc.Joint, mpc.ShareSet, func(*vault.Tx, *journal.Entry) error, error) {
	k := s.book.keyOf(c)
	_, elsewhere := k.sides()
	j, set, shares, err := s.reshareWithDevice(ctx, c, conn, mpc.OpRotate, mpc.ShareSet{ID: s.freshSet(k.ID + "/root/" + c.ID), Parties: k.Root.Parties}, k.Here, elsewhere)
	keep(shares)
	if err == nil {
		if err = j.Confirm(ctx, confirmReceipt, []byte(set.ID)); err != nil {
			j.Close(err)
		}
	}
	return j, set, func(tx *vault.Tx, e *journal.Entry) error {
		return s.replaceRoot(tx, e, k, rotation{owner: k.Owner}, set, shares, &waitingShare{Wallet: c.Target})
	}, err
}

// EndOverdue fails the ceremonies that nobody joined in time. Durable on return.
func (s *Service) EndOverdue(ctx context.Context) error {
	var overdue []*ceremonyRecord
	s.book.mu.RLock()
	for _, c := range s.book.ceremonies {
		if c.Status == statusWaiting && !s.now().Before(c.StartedAt.Add(waitFor)) {
			overdue = append(overdue, c)
		}
	}
	s.book.mu.RUnlock()
	var all error
	for _, c := range overdue {
		undo := func(tx *vault.Tx, _ *journal.Entry) error { return s.failTarget(tx, c) }
		all = errors.Join(all, s.endCeremony(ctx, c, statusFailed, "nobody joined it in time; ask again", undo))
	}
	return all
}
