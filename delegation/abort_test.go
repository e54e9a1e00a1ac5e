package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
)

func (h *house) abort(id, ceremony string, by ...holder) error {
	n := NewAbort{RequestID: id, Organization: site.acme, Ceremony: ceremony, Reason: "wrong wallet"}
	return h.AbortCeremony(context.Background(), stamped(site.acme, n, by...), n)
}

// wantAborted insists on what people and the journal are told of an abort.
func (h *house) wantAborted(ceremony string) {
	h.t.Helper()
	if c := h.wantCeremony(ceremony, statusFailed); c.Error != "aborted: wrong wallet" {
		h.t.Errorf("the ceremony failed with %q", c.Error)
	}
	of := func(method, reason string) bool {
		return slices.ContainsFunc(h.entries(), func(e journal.Entry) bool {
			return strings.HasPrefix(e.Method, method) && e.Facts["ceremony"] == ceremony && e.Reason == reason
		})
	}
	if !of("/sigil.v1/NewAbort", "wrong wallet") || !of("ceremony/", "aborted: wrong wallet") {
		h.t.Error("the journal lacks the act with its reason, or the ceremony's end")
	}
}

// What waits for a device is aborted: nothing of it is left, and another can begin.
func TestAbortOfWhatWaitsForADevice(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	made := h.deviceWallet(t, p, "first", cluster, false)
	listed, err := h.ListCeremonies(look(site.acme, site.dana.holder), site.acme, "", "", false)
	if err != nil || len(listed) != 1 || listed[0].ID != made.CeremonyID || listed[0].WaitsFor != "device" || listed[0].Wallet != made.WalletID || listed[0].Ends.IsZero() {
		t.Fatalf("listed %+v, error %v, want the keygen that waits for a device", listed, err)
	}
	if err := h.abort("abort-keygen", made.CeremonyID, site.dana.holder); err != nil {
		t.Fatal(err)
	}
	h.wantAborted(made.CeremonyID)
	k := h.keyOfWallet(made.WalletID)
	if w := find(h.book, h.book.wallets, made.WalletID); w.Status != statusFailed || k.Status != statusFailed {
		t.Errorf("the wallet is %s, its key %s, want both failed", w.Status, k.Status)
	}
	h.wantShares("an aborted keygen")
	if waiting, _, err := h.Pending(p.id); err != nil || len(waiting) != 0 {
		t.Errorf("waiting %+v, error %v, want nothing", waiting, err)
	}
	wantRefusal(t, "joining what was aborted", h.Join(t.Context(), p.id, made.CeremonyID, nil), refusal.NotActive)
	h.unchanged("the same request again", func() {
		if err := h.abort("abort-keygen", made.CeremonyID, site.dana.holder); err != nil {
			t.Error(err)
		}
	})
	h.unchanged("another abort", func() {
		wantRefusal(t, "aborting what has ended", h.abort("again", made.CeremonyID, site.dana.holder), refusal.NotActive)
	})

	wallet := h.deviceWallet(t, p, "second", cluster, false)
	if err := errors.Join(h.join(p, wallet.CeremonyID, nil)); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"rotate", "issue"} {
		b := h.begin(verb, wallet.WalletID, verb)
		if err := h.abort("abort-"+verb, b.ceremony, site.root...); err != nil {
			t.Fatal(err)
		}
		h.wantAborted(b.ceremony)
		h.wantOneWithPhone(p, wallet.WalletID, "an aborted "+verb)
		if d := find(h.book, h.book.delegations, b.delegation); d != nil && d.Status != statusFailed {
			t.Errorf("the delegation is %s, want failed", d.Status)
		}
		again := h.begin(verb, wallet.WalletID, verb+"-again")
		if err := errors.Join(h.join(p, again.ceremony, nil)); err != nil {
			t.Fatal(err)
		}
		if !h.wantEither(p, wallet.WalletID, again, verb+" after one that was aborted") {
			t.Error("it is not done")
		}
	}
	h.restart()
	h.wantOneWithPhone(p, wallet.WalletID, "after a restart")
}

// aborter aborts a ceremony at one of its frames, as somebody at another terminal.
type aborter struct {
	mpc.Conn
	left  atomic.Int64
	abort func()
}

func (c *aborter) Send(ctx context.Context, frame []byte) error {
	if c.left.Add(-1) == 0 {
		c.abort()
	}
	return c.Conn.Send(ctx, frame)
}

func (c *aborter) Recv(ctx context.Context) ([]byte, error) {
	b, err := c.Conn.Recv(ctx)
	if err != nil {
		return nil, err
	}
	if c.left.Add(-1) == 0 {
		c.abort()
	}
	return b, nil
}

// An abort at each frame of a rotation: the old set stays, and the device
// hears that it was aborted; or it came too late, and the new set counts.
func TestAbortAtEachFrameOfARotation(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	wallet := h.deviceWallet(t, p, "main", cluster, false)
	if err := errors.Join(h.join(p, wallet.CeremonyID, nil)); err != nil {
		t.Fatal(err)
	}
	aborted, late := 0, 0
	for frame := 1; ; frame++ {
		what := fmt.Sprint("aborted at frame ", frame)
		b := h.begin("rotate", wallet.WalletID, fmt.Sprint("r", frame))
		var c *aborter
		var refused error
		here, _ := h.join(p, b.ceremony, func(conn mpc.Conn) mpc.Conn {
			c = &aborter{Conn: conn, abort: func() { refused = h.abort(fmt.Sprint("a", frame), b.ceremony, site.dana.holder) }}
			c.left.Store(int64(frame))
			return c
		})
		h.wantOneWithPhone(p, wallet.WalletID, what)
		rotated := h.keyOfWallet(wallet.WalletID).Root.ID != b.root
		switch {
		case c.left.Load() > 0: // the frames came to their end before
			if here != nil || !rotated {
				t.Errorf("%s: error %v, rotated %v", what, here, rotated)
			}
			if aborted == 0 || late == 0 {
				t.Errorf("%d were aborted, %d aborts came too late", aborted, late)
			}
			t.Logf("%d aborted, %d too late", aborted, late)
			return
		case refused == nil:
			aborted++
			wantRefusal(t, what, here, refusal.NotActive)
			h.wantAborted(b.ceremony)
			if rotated {
				t.Errorf("%s: acknowledged, and the key has another root set", what)
			}
		default:
			late++
			wantRefusal(t, what, refused, refusal.NotActive)
			h.wantCeremony(b.ceremony, statusDone)
			if here != nil || !rotated {
				t.Errorf("%s: refused, and the rotation ended with %v, rotated %v", what, here, rotated)
			}
		}
	}
}

// A ceremony that computes here, and one that waits for it.
func TestAbortOfWhatRunsHere(t *testing.T) {
	h := newHouse(t, withWallet, withEther)
	entered := make(chan struct{}, 1)
	take := h.Service.cfg.PreParameters
	h.Service.cfg.PreParameters = func(ctx context.Context) (*mpc.PreParams, error) {
		entered <- struct{}{}
		<-ctx.Done() // for as long as primes are sought
		return nil, context.Cause(ctx)
	}
	running, err := h.rotate("ether", ethWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	waiting, err := h.rotate("sol", solWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]string{ethWallet: h.keyOfWallet(ethWallet).Root.ID, solWallet: h.keyOfWallet(solWallet).Root.ID}
	for _, id := range []string{waiting.CeremonyID, running.CeremonyID} {
		if err := h.abort("abort-"+id, id, site.dana.holder); err != nil {
			t.Fatal(err)
		}
		h.wantAborted(id)
	}
	h.running.Wait()
	for wallet, root := range before {
		if now := h.keyOfWallet(wallet).Root.ID; now != root {
			t.Errorf("%s has root set %s, had %s", wallet, now, root)
		}
	}
	h.wantShares("after two aborts")
	h.Service.cfg.PreParameters = take
	again, err := h.rotate("sol-again", solWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(again.CeremonyID, statusDone)
	h.wantShares("after a rotation that was not aborted")
}

func TestAbortsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	p := h.withPhone(t)
	made := h.deviceWallet(t, p, "main", cluster, false)
	h.unchanged("refused aborts", func() {
		wantRefusal(t, "by another user", h.abort("x", made.CeremonyID, site.erin.holder), refusal.NotFound)
		wantRefusal(t, "by one of two root members", h.abort("x", made.CeremonyID, site.root[0]), refusal.QuorumMissing)
		wantRefusal(t, "of none", h.abort("x", "cer_none", site.dana.holder), refusal.NotFound)
		for _, reason := range []string{"", "line\nbreak", strings.Repeat("x", 65)} {
			n := NewAbort{RequestID: "x", Organization: site.acme, Ceremony: made.CeremonyID, Reason: reason}
			wantRefusal(t, fmt.Sprintf("for %q", reason), h.AbortCeremony(t.Context(), stamped(site.acme, n, site.dana.holder), n), refusal.RequestInvalid)
		}
		if listed, err := h.ListCeremonies(look(site.acme, site.erin.holder), site.acme, "", "", true); err != nil || len(listed) != 0 {
			t.Errorf("another user sees %+v, error %v", listed, err)
		}
		_, err := h.ListCeremonies(look(site.acme, site.dana.holder), site.acme, "", "cer_none", true)
		wantRefusal(t, "a list after what is not there", err, refusal.NotFound)
		_, err = h.ShowCeremony(look(site.acme, site.erin.holder), site.acme, made.CeremonyID)
		wantRefusal(t, "another's ceremony", err, refusal.NotFound)
	})
}

// What a device took part in before its removal counts only if it was on disk by then.
func TestNothingIsCommittedWithARemovedDevice(t *testing.T) {
	for _, frame := range []int64{1, 9, 14, 15, 16, 17} {
		h := newHouse(t)
		p := h.withPhone(t)
		wallet := h.deviceWallet(t, p, "main", cluster, false)
		if err := errors.Join(h.join(p, wallet.CeremonyID, nil)); err != nil {
			t.Fatal(err)
		}
		b := h.begin("rotate", wallet.WalletID, "rotate")
		var then string
		here, _ := h.join(p, b.ceremony, func(conn mpc.Conn) mpc.Conn {
			c := &aborter{Conn: conn, abort: func() {
				n := revocation{"remove", p.id}
				if err := h.RemoveDevice(context.Background(), stamped(site.acme, n, site.dana.holder), n.RequestID, site.acme, p.id); err != nil {
					t.Error(err)
				}
				then = h.keyOfWallet(wallet.WalletID).Root.ID
			}}
			c.left.Store(frame)
			return c
		})
		what := fmt.Sprint("removed at frame ", frame)
		if now := h.keyOfWallet(wallet.WalletID).Root.ID; then == "" || now != then {
			t.Errorf("%s: the root set was %q when that was acknowledged, and is %q", what, then, now)
		}
		if then == b.root {
			wantRefusal(t, what, here, refusal.NotFound)
		}
		h.wantShares(what)
	}
}
