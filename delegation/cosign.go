package delegation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Two appliances: a delegation whose delegate's share lies on another one, the
// co-signer. There the organization's root quorum takes the wallet on, under a name
// and an address that it knows, and gets an invitation; here the wallet's owner names
// the peer and the invitation when delegating. From then on each signature runs
// through both, and each judges it by its own policies and limits.
//
// The co-signer puts its share on disk before its receipt, this side commits after it:
// a crash in between leaves the ceremony waiting on both, and it is tried again.

// NewCosigned asks to take on a share of another appliance's key.
type NewCosigned struct {
	NewWallet
	// Peer is the configured name of the other appliance.
	Peer string
	// Address is the wallet's, in its chain's own spelling: no other key is taken on.
	Address string
}

// AcceptCosigning records a pending wallet of a peer's key, under the root quorum, and
// waits for the peer. The ceremony's id is the invitation. Durable on return.
func (s *Service) AcceptCosigning(ctx context.Context, a Actor, n NewCosigned) (WalletStarted, error) {
	if err := checkName("name", n.Name); err != nil {
		return WalletStarted{}, err
	}
	scheme, err := schemeOf(n.Chain)
	if err != nil {
		return WalletStarted{}, err
	}
	if n.Address == "" || len(n.Address) > 64 {
		return WalletStarted{}, refusal.New(refusal.RequestInvalid, "address is needed: no other key is taken on").With("field", "address")
	}
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (WalletStarted, error) {
		u, err := s.book.user(n.Organization, n.Owner)
		if err != nil {
			return WalletStarted{}, err
		}
		if u.Kind != EndUser {
			return WalletStarted{}, refusal.New(refusal.RequestInvalid, "a wallet's owner must be an end user").With("field", "owner_user_id")
		}
		if err := s.knownPeer(n.Peer, scheme); err != nil {
			return WalletStarted{}, err
		}
		k, w, c := s.draftWallet(n.NewWallet, u.ID, pendingKey{scheme: scheme, origin: originElsewhere, kind: kindCosign}, statusWaiting)
		k.Peer, w.Address = n.Peer, n.Address
		e.Wallet, e.User = w.ID, u.ID
		e.Facts = map[string]string{"key": k.ID, "chain": n.Chain, "ceremony": c.ID, "origin": k.Origin, "peer": n.Peer, "address": n.Address}
		return s.putDraft(tx, k, w, c)
	})
}

// KnownPeer refuses a peer that the configuration has not; field is where it was named.
func (s *Service) KnownPeer(name, field string) error {
	if s.cfg.Peers[name] == "" {
		return refusal.New(refusal.RequestInvalid, "no peer %.64q is in the appliance's configuration", name).With("field", field)
	}
	return nil
}

// knownPeer is [Service.KnownPeer], and refuses ECDSA with a peer where it was not allowed.
func (s *Service) knownPeer(name string, scheme chains.Scheme) error {
	if err := s.KnownPeer(name, "peer"); err != nil {
		return err
	}
	if scheme == chains.ECDSASecp256k1 && !s.cfg.SemiTrusted {
		return errNotTrusted()
	}
	return nil
}

// Cosign takes part in an issue that a peer proposes on an invitation. The share is on
// disk when it returns without an error.
func (s *Service) Cosign(ctx context.Context, party string, o *mpc.Offer) error {
	c := find(s.book, s.book.ceremonies, o.Invitation)
	if c == nil || c.Kind != kindCosign || s.book.keyOf(c) == nil || s.book.keyOf(c).party() != party {
		return refusal.New(refusal.NotFound, "no such invitation")
	}
	if c.Status != statusWaiting || !s.now().Before(c.StartedAt.Add(waitFor)) {
		return refusal.New(refusal.NotActive, "the invitation does not hold any more")
	}
	return s.runJoined(ctx, c, nil, func(ctx context.Context, c *ceremonyRecord, _ mpc.Conn, keep func([]*mpc.Share)) (*mpc.Joint, mpc.ShareSet, func(*vault.Tx, *journal.Entry) error, error) {
		j, set, err := s.takeOn(ctx, c, o, keep)
		return j, set, func(_ *vault.Tx, e *journal.Entry) error {
			e.Wallet, e.ShareSet = c.Target, set.ID
			return nil
		}, err
	})
}

// takeOn runs the co-signer's part of an issue up to the word that it is committed there.
func (s *Service) takeOn(ctx context.Context, c *ceremonyRecord, o *mpc.Offer, keep func([]*mpc.Share)) (j *mpc.Joint, set mpc.ShareSet, err error) {
	w, k := find(s.book, s.book.wallets, c.Target), s.book.keyOf(c)
	to := o.To
	if o.Op != mpc.OpIssue || to == nil || to.Scheme != k.Scheme || !slices.Equal(o.ToAcceptor, []mpc.Party{mpc.Delegate}) || !slices.Equal(o.ToProposer, []mpc.Party{mpc.Server}) {
		return nil, set, refusal.New(refusal.RequestInvalid, "the proposal is not for a set of server and delegate")
	}
	if address, err := addressOf(w.Chain, to.PublicKey); err != nil || address != w.Address {
		return nil, set, refusal.New(refusal.PolicyDenied, "the proposal is for another wallet than the one that was taken on")
	}
	if err := s.book.stopped(w.Organization, w.ID); err != nil {
		return nil, set, err
	}
	if s.book.has(to.ID, k.ID) { // its shares would be overwritten
		return nil, set, refusal.New(refusal.RequestInvalid, "the proposal calls its set by the name of another one here")
	}
	if j, err = o.Accept(ctx); err != nil {
		return nil, set, err
	}
	defer func() {
		if err != nil {
			j.Close(err)
		}
	}()
	set, shares, err := mpc.Issue(ctx, mpc.IssueRequest{From: *o.From, SetID: to.ID, Parties: to.Parties, Threshold: to.Threshold, With: j,
		PreParams: s.cfg.PreParameters, Progress: func(stage string, done, total int) { s.progress.set(c.ID, stage, done, total) }})
	keep(shares)
	if err != nil {
		return j, set, err
	}
	err = s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		if s.book.ended(c.ID) {
			return errEnded()
		}
		k := s.book.keyOf(c)
		active, made := *w, *k
		active.Status, made.Status, made.Root, made.Here = statusActive, statusActive, set, []mpc.Party{mpc.Delegate}
		if k.Root.ID != "" { // of a try that the other side never committed
			if err := tx.Delete(vault.TypeShare, ShareID(k.Root.ID, mpc.Delegate)); err != nil && !errors.Is(err, vault.ErrNotFound) {
				return err
			}
		}
		for _, sh := range shares {
			if err := putShare(tx, set.ID, sh); err != nil {
				return err
			}
		}
		s.book.change(tx, func() { s.book.fileKey(&made); s.book.fileWallet(&active) })
		return errors.Join(store(tx, vault.TypeKey, made.ID, &made), store(tx, vault.TypeWallet, active.ID, &active))
	})
	if err == nil {
		err = j.Confirm(ctx, confirmReceipt, []byte(set.ID))
	}
	if err == nil {
		err = j.Confirm(ctx, confirmCommitted, []byte(set.ID))
	}
	return j, set, err
}

// CosignedWallet finds the wallet that a peer's proposed signature is for, and the id
// under which it is a request here. Each proposal is a request of its own: one that the
// peer makes again counts again against the limits here.
func (s *Service) CosignedWallet(party string, o *mpc.Offer) (wallet, requestID string, err error) {
	if o.From != nil {
		s.book.mu.RLock()
		defer s.book.mu.RUnlock()
		for _, w := range s.book.walletsOfLocked(s.book.shared[partySet{party, o.From.ID}]) {
			if slices.Equal(w.Path, o.Path) {
				return w.ID, cosignedID(party, o), nil
			}
		}
		id, _, _ := strings.Cut(o.From.ID, "/") // a delegation's set begins with its id
		if d := s.book.delegations[id]; d != nil && d.Endpoint != "" && d.Set.ID == o.From.ID && s.deliveredTo(d) == party {
			return d.Wallet, cosignedID(party, o), nil
		}
	}
	return "", "", refusal.New(refusal.NotFound, "no such wallet")
}

func cosignedID(party string, o *mpc.Offer) string {
	sum := sha256.Sum256([]byte(party + "\n" + o.Decision + "\n" + string(o.Nonce)))
	return fmt.Sprintf("co_%x", sum[:16])
}

// has says whether a share set of this id is a delegation's, or another key's than this.
func (b *book) has(set, key string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.keys {
		if k.Root.ID == set && k.ID != key {
			return true
		}
	}
	for _, d := range b.delegations {
		if d.Set.ID == set {
			return true
		}
	}
	return false
}

// forCosigners are the ceremonies that wait for a co-signer.
func (b *book) forCosigners() (waiting []*ceremonyRecord) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, c := range b.ceremonies {
		if d := b.delegations[c.Target]; c.Status == statusWaiting && d != nil && d.Peer != "" {
			waiting = append(waiting, c)
		}
	}
	return waiting
}

// tryCosigner runs the issue of a delegation with a co-signer, again and again until it
// is done, the co-signer says no, or nobody waits for it any more.
func (s *Service) tryCosigner(c *ceremonyRecord) {
	if !s.begin() {
		return // the next start goes on
	}
	go func() {
		defer s.running.Done()
		for wait := time.Second; ; wait = min(2*wait, 5*time.Minute) {
			err := s.issueOnce(c)
			var no *mpc.RefusedError
			now := find(s.book, s.book.ceremonies, c.ID)
			switch {
			case now == nil || now.Status != statusWaiting:
				return
			case errors.As(err, &no):
				s.log.Warn("the co-signer refuses", "ceremony", c.ID, "says", no.Text)
				undo := func(tx *vault.Tx, _ *journal.Entry) error { return s.failTarget(tx, c) }
				if err := s.endCeremony(s.stop, c, statusFailed, "the co-signer refuses: "+no.Text, undo); err != nil {
					s.log.Error("recording a failed ceremony", "ceremony", c.ID, "error", err)
				}
				return
			}
			select {
			case <-s.stop.Done():
				return
			case <-time.After(wait):
			}
		}
	}()
}

// issueOnce is one try.
func (s *Service) issueOnce(c *ceremonyRecord) error {
	d := find(s.book, s.book.delegations, c.Target)
	if d == nil || s.cfg.Dial == nil {
		return errors.New("issuing to a co-signer: no delegation, or no peers")
	}
	conn, done, err := s.cfg.Dial(s.stop, d.Peer, nil)
	if err != nil {
		s.log.Warn("dialing a co-signer; trying again", "peer", d.Peer, "error", err)
		return err
	}
	defer done()
	return s.runJoined(s.stop, c, conn, s.issueWithPeer)
}

// issueWithPeer makes a delegation's set with the delegate's share on the peer.
func (s *Service) issueWithPeer(ctx context.Context, c *ceremonyRecord, conn mpc.Conn, keep func([]*mpc.Share)) (*mpc.Joint, mpc.ShareSet, func(*vault.Tx, *journal.Entry) error, error) {
	d, k := find(s.book, s.book.delegations, c.Target), s.book.keyOf(c)
	quorum, err := k.quorumHere()
	if err != nil {
		return nil, mpc.ShareSet{}, nil, err
	}
	from, engine := k.Root, mpc.EngineOf(k.Root)
	to := from
	to.ID, to.Parties, to.Threshold, to.Epoch, to.Engine = s.freshSet(d.ID+"/1"), []mpc.Party{mpc.Delegate, mpc.Server}, 2, from.Epoch+1, engine
	p := mpc.Proposal{Op: mpc.OpIssue, Engine: engine, Key: k.ID, Wallet: d.Wallet, From: &from, To: &to, FromProposer: quorum,
		ToProposer: []mpc.Party{mpc.Server}, ToAcceptor: []mpc.Party{mpc.Delegate}, Invitation: d.Invitation, Decision: c.ID}
	var j *mpc.Joint
	var set mpc.ShareSet
	var shares []*mpc.Share
	err = s.vault.WithAll(ctx, vault.TypeShare, shareIDs(from.ID, quorum), func(encoded [][]byte) (err error) {
		if p.ChainCode, err = mpc.ChainCodeOf(encoded[0]); err != nil {
			return err
		}
		if j, err = mpc.Propose(ctx, conn, p); err != nil {
			return err
		}
		set, shares, err = mpc.Issue(ctx, mpc.IssueRequest{From: from, Quorum: encoded, SetID: to.ID, Parties: to.Parties, Threshold: to.Threshold, With: j,
			PreParams: s.cfg.PreParameters, Progress: func(stage string, done, total int) { s.progress.set(c.ID, stage, done, total) }})
		keep(shares)
		if err != nil {
			return err
		}
		return j.Confirm(ctx, confirmReceipt, []byte(set.ID))
	})
	if err != nil {
		if j != nil {
			j.Close(err)
		}
		return nil, set, nil, err
	}
	return j, set, func(tx *vault.Tx, e *journal.Entry) error { return s.activate(tx, e, d.ID, set, shares) }, nil
}
