package delegation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
)

// phone plays dana's device: it accepts what is proposed and keeps what it gets, as a
// disk would. Package device is the real one.
type phone struct {
	id     string
	shares map[string][]byte // by set
	pre    func(context.Context) (*mpc.PreParams, error)
	// kept, if not nil, is told of each share before the receipt for it.
	kept func(set string, encoded []byte) error
}

const phonePin = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

// withPhone registers dana's device.
func (h *house) withPhone(t *testing.T) *phone {
	t.Helper()
	n := NewDevice{RequestID: "phone", Organization: site.acme, User: site.dana.id, Name: "phone", Pin: phonePin}
	made, err := h.RegisterDevice(t.Context(), stamped(site.acme, n, site.dana.holder), n)
	if err != nil {
		t.Fatal(err)
	}
	return &phone{id: made.DeviceID, shares: map[string][]byte{}, pre: mpctest.PreParams(t)}
}

// accept plays one ceremony. What it was given is kept before the receipt.
func (p *phone) accept(ctx context.Context, conn mpc.Conn) (err error) {
	o, err := mpc.ReadOffer(ctx, conn)
	if err != nil {
		return err
	}
	j, err := o.Accept(ctx)
	if err != nil {
		return err
	}
	defer func() { j.Close(err) }()
	var set mpc.ShareSet
	var shares []*mpc.Share
	switch o.Op {
	case mpc.OpKeygen:
		set, shares, err = mpc.Keygen(ctx, mpc.KeygenRequest{SetID: o.To.ID, Scheme: o.To.Scheme, Parties: o.To.Parties, Threshold: o.To.Threshold, PreParams: p.pre, With: j})
	default:
		r := mpc.IssueRequest{From: *o.From, Quorum: [][]byte{p.shares[o.From.ID]}, SetID: o.To.ID, Parties: o.To.Parties, Threshold: o.To.Threshold, PreParams: p.pre, With: j}
		make := mpc.Issue
		if o.Op == mpc.OpRotate {
			make = mpc.Rotate
		}
		set, shares, err = make(ctx, r)
	}
	if err != nil {
		return err
	}
	for _, sh := range shares {
		err := sh.Lend(func(b []byte) error {
			p.shares[set.ID] = bytes.Clone(b)
			if p.kept != nil {
				return p.kept(set.ID, b)
			}
			return nil
		})
		sh.Destroy()
		if err != nil {
			return err
		}
		if err := j.Confirm(ctx, confirmReceipt, []byte(set.ID)); err != nil {
			return err
		}
	}
	return j.Confirm(ctx, confirmCommitted, []byte(set.ID))
}

// join has the phone join a ceremony over a connection that cut may end.
func (h *house) join(p *phone, ceremony string, wrap func(mpc.Conn) mpc.Conn) (here, there error) {
	a, b := mpc.Pipe()
	conn := mpc.Conn(a)
	if wrap != nil {
		conn = wrap(a)
	}
	var device sync.WaitGroup
	device.Go(func() { there = p.accept(context.Background(), b) })
	here = h.Join(context.Background(), p.id, ceremony, conn)
	if here != nil { // as the server does when its handler ends
		a.Close()
	}
	device.Wait()
	a.Close()
	return here, there
}

// cutter ends a connection after so many frames in both directions.
type cutter struct {
	mpc.Conn
	mu    sync.Mutex
	left  int
	total int
	cut   func()
}

func (c *cutter) count() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	if c.left--; c.left == 0 {
		c.cut()
	}
	return c.left >= 0
}

func (c *cutter) Send(ctx context.Context, frame []byte) error {
	if !c.count() {
		return errors.New("cut")
	}
	return c.Conn.Send(ctx, frame)
}

func (c *cutter) Recv(ctx context.Context) ([]byte, error) {
	b, err := c.Conn.Recv(ctx)
	if err == nil && !c.count() {
		return nil, errors.New("cut")
	}
	return b, err
}

func (h *house) deviceWallet(t *testing.T, p *phone, id, chain string, recovery bool) WalletStarted {
	t.Helper()
	n := NewDeviceWallet{NewWallet: NewWallet{RequestID: id, Organization: site.acme, Owner: site.dana.id, Chain: chain, Name: id}, Device: p.id, Recovery: recovery}
	made, err := h.CreateDeviceWallet(t.Context(), stamped(site.acme, n, site.root...), n)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestKeyMadeWithADeviceWasNeverWholeHere(t *testing.T) {
	for _, recovery := range []bool{false, true} {
		t.Run(fmt.Sprint("recovery ", recovery), func(t *testing.T) {
			h := newHouse(t)
			p := h.withPhone(t)
			made := h.deviceWallet(t, p, "main", cluster, recovery)
			waiting, live, err := h.Pending(p.id)
			if err != nil || len(waiting) != 1 || waiting[0].ID != made.CeremonyID || len(live) != 0 {
				t.Fatalf("waiting %+v, live %v, error %v, want the keygen", waiting, live, err)
			}
			h.restart() // it waits on
			if err := errors.Join(h.join(p, made.CeremonyID, nil)); err != nil {
				t.Fatal(err, h.log)
			}
			w, err := h.Wallet(look(site.acme, site.dana.holder), site.acme, made.WalletID)
			if err != nil {
				t.Fatal(err)
			}
			custody, here := "user", []mpc.Party{mpc.Server}
			if recovery {
				custody, here = "host", []mpc.Party{mpc.Recovery, mpc.Server}
			}
			k := h.keyOfWallet(made.WalletID)
			if w.Status != statusActive || w.Custody != custody || w.Origin != "device" || w.Address == "" || !slices.Equal(h.sharesHere(k.Root.ID), here) {
				t.Errorf("wallet %+v with shares %v here, want an active one of origin device, custody %s, shares %v", w, h.sharesHere(k.Root.ID), custody, here)
			}
			if _, live, err := h.Pending(p.id); err != nil || !slices.Equal(live, []string{k.Root.ID}) || p.shares[k.Root.ID] == nil {
				t.Errorf("live sets %v, error %v, want %s, which the device holds a share of", live, err, k.Root.ID)
			}
			h.unchanged("a second join", func() {
				wantRefusal(t, "joining what has ended", h.Join(t.Context(), p.id, made.CeremonyID, nil), refusal.NotActive)
			})
			h.restart()
			st, err := h.AuthenticateParty(made.WalletID, p.id, nil)
			if err != nil || !slices.Equal(st.Here, []mpc.Party{mpc.Server}) || !slices.Equal(st.Elsewhere, []mpc.Party{mpc.User}) {
				t.Errorf("standing %+v, error %v, want the server here and the user elsewhere", st, err)
			}
		})
	}
}

// A device takes part in a delegation and in a rotation of a key whose quorum it is in.
func TestDeviceTakesPartInIssueAndRotate(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	made := h.deviceWallet(t, p, "main", cluster, false)
	if err := errors.Join(h.join(p, made.CeremonyID, nil)); err != nil {
		t.Fatal(err)
	}
	n := newDelegation("delegate", made.WalletID)
	d, err := h.CreateDelegation(t.Context(), stamped(site.acme, n, site.dana.holder), n)
	if err != nil {
		t.Fatal(err)
	}
	if waiting, _, err := h.Pending(p.id); err != nil || len(waiting) != 1 || waiting[0].Kind != kindIssue {
		t.Fatalf("waiting %+v, error %v, want the issue", waiting, err)
	}
	if err := errors.Join(h.join(p, d.CeremonyID, nil)); err != nil {
		t.Fatal(err, h.log)
	}
	h.apiKey(d.DelegationID)
	old := h.keyOfWallet(made.WalletID).Root
	r, err := h.rotate("rotate", made.WalletID, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.join(p, r.CeremonyID, nil)); err != nil {
		t.Fatal(err, h.log)
	}
	k := h.keyOfWallet(made.WalletID)
	if k.Root.ID == old.ID || len(h.sharesHere(old.ID)) != 0 || !slices.Equal(h.sharesHere(k.Root.ID), []mpc.Party{mpc.Server}) || !bytes.Equal(k.Root.PublicKey, old.PublicKey) {
		t.Errorf("after the rotation the root set is %+v, before it was %+v", k.Root, old)
	}
	if p.shares[k.Root.ID] == nil {
		t.Error("the device has no share of the new root set")
	}
}

// Whatever frame is the last, a key is there with both shares, or not at all and the
// ceremony waits on; then it is joined again.
func TestCampaignConnectionsCutAtEachFrame(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	const step = 1
	for cut := 1; ; cut += step {
		made := h.deviceWallet(t, p, fmt.Sprint("wallet-", cut), cluster, false)
		var c *cutter
		here, there := h.join(p, made.CeremonyID, func(conn mpc.Conn) mpc.Conn {
			c = &cutter{Conn: conn, left: cut, cut: conn.(*mpc.PipeEnd).Close}
			return c
		})
		k := h.keyOfWallet(made.WalletID)
		switch {
		case here == nil:
			if k.Status != statusActive || p.shares[k.Root.ID] == nil || !slices.Equal(h.sharesHere(k.Root.ID), []mpc.Party{mpc.Server}) {
				t.Fatalf("cut %d: the key is %s, the device has %v of it", cut, k.Status, p.shares[k.Root.ID] != nil)
			}
		default:
			if k.Status != statusPending || k.Root.ID != "" || len(k.Here) != 0 {
				t.Fatalf("cut %d: here %v, there %v, and the key is %+v", cut, here, there, k)
			}
			if err := errors.Join(h.join(p, made.CeremonyID, nil)); err != nil {
				t.Fatalf("cut %d: joining again: %v", cut, err)
			}
		}
		if c.left > 0 { // it ended before the cut
			t.Logf("cut at every %d. of %d frames", step, c.total)
			return
		}
	}
}

func TestDevicesThatAreNotLetIn(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	made := h.deviceWallet(t, p, "main", cluster, false)
	again := NewDevice{RequestID: "again", Organization: site.acme, User: site.dana.id, Name: "phone", Pin: phonePin}
	_, err := h.RegisterDevice(t.Context(), stamped(site.acme, again, site.dana.holder), again)
	wantRefusal(t, "the same key again", err, refusal.RequestInvalid)
	others := NewDevice{RequestID: "others", Organization: site.acme, User: site.dana.id, Name: "x", Pin: "sha256:02"}
	_, err = h.RegisterDevice(t.Context(), stamped(site.acme, others, site.erin.holder), others)
	wantRefusal(t, "a device for another user", err, refusal.QuorumMissing)
	others.User, others.RequestID = site.erin.id, "erins"
	erins, err := h.RegisterDevice(t.Context(), stamped(site.acme, others, site.erin.holder), others)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "another's ceremony", h.Join(t.Context(), erins.DeviceID, made.CeremonyID, nil), refusal.NotFound)
	bad := NewDeviceWallet{NewWallet: NewWallet{RequestID: "bad", Organization: site.acme, Owner: site.dana.id, Chain: cluster, Name: "bad"}, Device: erins.DeviceID}
	_, err = h.CreateDeviceWallet(t.Context(), stamped(site.acme, bad, site.root...), bad)
	wantRefusal(t, "a wallet on another's device", err, refusal.RequestInvalid)
	bad.Device, bad.Chain, bad.RequestID = p.id, "eip155", "ether"
	_, err = h.CreateDeviceWallet(t.Context(), stamped(site.acme, bad, site.root...), bad)
	wantRefusal(t, "ECDSA with a device, not semi-trusted", err, refusal.NotActive)

	if got := h.PartyOf(phonePin); got != p.id {
		t.Errorf("the pin is of %q, want %s", got, p.id)
	}
	gone := revocation{"remove", p.id}
	wantRefusal(t, "removing another's device", h.RemoveDevice(t.Context(), stamped(site.acme, gone, site.erin.holder), gone.RequestID, site.acme, p.id), refusal.QuorumMissing)
	if err := h.RemoveDevice(t.Context(), stamped(site.acme, gone, site.dana.holder), gone.RequestID, site.acme, p.id); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if got := h.PartyOf(phonePin); got != "" {
		t.Errorf("the removed device is let in as %q", got)
	}
	wantRefusal(t, "a removed device", h.Join(t.Context(), p.id, made.CeremonyID, nil), refusal.NotFound)
	_, _, err = h.Pending(p.id)
	wantRefusal(t, "a removed device that looks", err, refusal.NotFound)
}

func TestCeremoniesThatNobodyJoinsEnd(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	made := h.deviceWallet(t, p, "main", cluster, false)
	h.clock.add(waitFor + time.Second)
	if waiting, _, err := h.Pending(p.id); err != nil || len(waiting) != 0 {
		t.Errorf("waiting %+v, error %v, want none", waiting, err)
	}
	wantRefusal(t, "joining too late", h.Join(t.Context(), p.id, made.CeremonyID, nil), refusal.NotActive)
	if err := h.EndOverdue(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusFailed)
}

// A party that breaks the protocol of an issue is counted, and the third time freezes the key.
func TestDeviceThatBreaksTheProtocolIsCounted(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	made := h.deviceWallet(t, p, "main", cluster, false)
	if err := errors.Join(h.join(p, made.CeremonyID, nil)); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= maxFailures; i++ {
		n := newDelegation(fmt.Sprint("delegate-", i), made.WalletID)
		d, err := h.CreateDelegation(t.Context(), stamped(site.acme, n, site.dana.holder), n)
		if err != nil {
			t.Fatal(err)
		}
		here, _ := h.join(p, d.CeremonyID, func(c mpc.Conn) mpc.Conn { return &hostile{Conn: c} })
		wantRefusal(t, "an issue that was broken", here, refusal.CeremonyFailed)
		h.wantCeremony(d.CeremonyID, statusFailed)
		if got := h.keyOfWallet(made.WalletID).Failures[mpc.User]; got != i {
			t.Errorf("%d failures counted after %d", got, i)
		}
	}
	if err := h.book.stopped(site.acme, made.WalletID); !refusal.Is(err, refusal.Paused) {
		t.Errorf("the wallet is %v, want paused", err)
	}
}

// hostile changes the payloads that come from the device.
type hostile struct{ mpc.Conn }

func (c *hostile) Recv(ctx context.Context) ([]byte, error) {
	b, err := c.Conn.Recv(ctx)
	if err == nil && len(b) > 150 && b[1] == 4 {
		b[len(b)-10] ^= 1
	}
	return b, err
}
