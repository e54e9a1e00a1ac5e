package signing_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/tpm"
	"github.com/sigild/sigild/vault"
)

// What a copy of the state folder, put back within one epoch of the anchor, can
// spend. Every test has a device and a store of its own.

// anchoredBy runs a test with a site whose store is anchored in the way named.
func anchoredBy(t *testing.T, kind vault.AnchorKind, test func(t *testing.T)) {
	t.Run(string(kind), func(t *testing.T) {
		shared := site
		t.Cleanup(func() { site = shared })
		ctx, dir := context.Background(), t.TempDir()
		if kind == vault.AnchorNV {
			p, err := tpm.Open(ctx, tpm.Config{Path: testtpm.New(t).Path})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			keys, err := p.Provision(ctx)
			if err != nil {
				t.Fatal(err)
			}
			counter, err := p.MakeCounter(ctx)
			if err != nil {
				t.Fatal(err)
			}
			site.device = p
			if err := settle(ctx, dir, keys.KEK, keys.Checkpoint, vault.Anchor{Provider: p.ID(), Counter: counter}); err != nil {
				t.Fatal(err)
			}
		} else {
			p, keys, err := newToken(ctx, dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			site.device = p
			anchor := vault.Anchor{}
			if kind == vault.AnchorKEKRoll {
				anchor.Provider = p.ID()
			}
			if err := settle(ctx, dir, keys.KEK, keys.Checkpoint, anchor); err != nil {
				t.Fatal(err)
			}
		}
		test(t)
	})
}

// The limit is 400. A copy is taken after 40 were spent; the original spends on within
// its lease and is killed, and the copy is put back.
func TestACopyOfTheSameEpochCannotSpendTwice(t *testing.T) {
	for _, kind := range []vault.AnchorKind{vault.AnchorNV, vault.AnchorKEKRoll} {
		anchoredBy(t, kind, func(t *testing.T) {
			h, gs := newHouse(t, terms{limits: limit(400, day)})
			g := gs[0]
			h.mustSign(g, "first", g.pay(10, 1))
			epoch := h.vault.Info().Epoch
			snapshot := h.freeze()
			for i := byte(2); i <= 5; i++ { // 40 more: the lease is 50
				h.mustSign(g, fmt.Sprint("forgotten", i), g.pay(10, i))
			}
			if now := h.vault.Info().Epoch; now != epoch {
				t.Fatalf("the epoch moved from %d to %d within a lease", epoch, now)
			}
			copied := h.thaw(snapshot)
			if s := copied.spent(g, sol); s != 50 {
				t.Errorf("the copy counts %d, want the first 10 and the 40 that the lease had left", s)
			}
			e := copied.entries(journal.KindLease)
			if last := e[len(e)-1]; last.Outcome != "charged" || len(last.Leases) != 2 || last.Leases[1].Amount != "40" || last.Leases[0].Count != "1023" {
				t.Errorf("the copy says %+v", last)
			}
			// 350 are left of the limit, whoever asks.
			copied.mustSign(g, "more", g.pay(350, 6))
			_, err := copied.sign(g, "too much", g.pay(1, 7))
			wantRefusal(t, err, refusal.LimitExceeded)
			// And what was copied is of an older epoch from now on.
			wantRollback(t, snapshot)
		})
	}
}

// A limit that counts leases approvals; one for each destination leases each.
func TestACopyOfTheSameEpochCannotCountTwice(t *testing.T) {
	anchoredBy(t, vault.AnchorKEKRoll, func(t *testing.T) {
		count := policy.Limit{Name: "often", Asset: sol, AnyAmount: true, MaxCount: 32, Window: day}
		each := policy.Limit{Name: "each", Asset: sol, Max: *uint256.NewInt(80), Per: policy.PerDestination, Window: day}
		h, gs := newHouse(t, terms{limits: []policy.Limit{count, each}})
		g := gs[0]
		h.mustSign(g, "first", g.pay(1, 0))
		snapshot := h.freeze()
		for i := byte(1); i <= 3; i++ {
			h.mustSign(g, fmt.Sprint("forgotten", i), g.pay(3, i))
		}
		copied := h.thaw(snapshot)
		for i := range byte(28) {
			copied.mustSign(g, fmt.Sprint("id", i), g.pay(2, 10+i))
		}
		_, err := copied.sign(g, "too often", g.pay(1, 99))
		wantRefusal(t, err, refusal.LimitExceeded)
		to := journal.ByDelegation(g.id).To(solana.Address(solPayee))
		if s := copied.journal.Spent(to, sol, journal.ButFees, time.Time{}); s.Sum.Uint64() != 10+28*2 {
			t.Errorf("%d count for the destination, want a lease of 10 and 56", s.Sum.Uint64())
		}
	})
}

// Without an anchor nobody notices, and status says so; nothing is leased.
func TestWithoutAnAnchorACopyForgets(t *testing.T) {
	h, gs := newHouse(t, terms{limits: limit(400, day)})
	snapshot := h.freeze()
	h.mustSign(gs[0], "forgotten", gs[0].pay(400, 1))
	copied := h.thaw(snapshot)
	copied.mustSign(gs[0], "again", gs[0].pay(400, 2))
	if n := len(copied.entries(journal.KindLease)); n != 0 || copied.vault.Info().Anchor != vault.AnchorNone {
		t.Errorf("%d leases under anchor %s", n, copied.vault.Info().Anchor)
	}
}

// A clean end gives back what was not spent, and moves nothing.
func TestAnOrderlyEndReturnsTheLease(t *testing.T) {
	anchoredBy(t, vault.AnchorNV, func(t *testing.T) {
		h, gs := newHouse(t, terms{limits: limit(400, day)})
		h.mustSign(gs[0], "id", gs[0].pay(10, 1))
		epoch := h.vault.Info().Epoch
		h.signing.Close()
		if err := h.journal.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		returned := h.freeze()
		next := h.thaw(returned)
		if s := next.spent(gs[0], sol); s != 10 {
			t.Errorf("%d count after an orderly end, want 10", s)
		}
		if now := next.vault.Info().Epoch; now != epoch {
			t.Errorf("epoch %d after an orderly end and a start, want %d", now, epoch)
		}
		next.mustSign(gs[0], "next", gs[0].pay(1, 2))
		if now := next.vault.Info().Epoch; now != epoch+1 {
			t.Errorf("epoch %d after the first signature, want %d", now, epoch+1)
		}
		wantRollback(t, returned)
	})
}

// The anchor moves once in so many approvals, whatever they cost, and once a lease.
func TestTheAnchorMovesOnceALease(t *testing.T) {
	anchoredBy(t, vault.AnchorKEKRoll, func(t *testing.T) {
		small := policy.Limit{Name: "small", Asset: sol, Max: *uint256.NewInt(80), Window: day}
		large := policy.Limit{Name: "large", Asset: sol, Max: *uint256.NewInt(8000), Window: 30 * day}
		h, gs := newHouse(t, terms{limits: []policy.Limit{small, large}}, terms{})
		began := h.vault.Info().Epoch
		for i := range byte(80) {
			h.mustSign(gs[0], fmt.Sprint("id", i), gs[0].pay(1, i))
		}
		// The tighter limit decides: leases of 10.
		if n := h.vault.Info().Epoch - began; n < 8 || n > 16 {
			t.Errorf("80 signatures moved the anchor %d times, want 8 to 16", n)
		}
		began = h.vault.Info().Epoch
		for i := range byte(20) { // no limit covers them
			h.mustSign(gs[1], fmt.Sprint("free", i), gs[1].pay(1, i))
		}
		if n := h.vault.Info().Epoch - began; n != 0 {
			t.Errorf("20 signatures under no limit moved the anchor %d times", n)
		}
	})
}

// Whatever of a lease a refund gave back is charged at most once.
func TestRefundedChargesStayWithinTheLease(t *testing.T) {
	anchoredBy(t, vault.AnchorKEKRoll, func(t *testing.T) {
		h, gs := newHouse(t, terms{limits: limit(400, day)})
		g := gs[0]
		h.mustSign(g, "first", g.pay(10, 1))
		id := delegation.ShareID(g.set.ID, "server")
		h.update(func(tx *vault.Tx) error { return tx.Delete(vault.TypeShare, id) })
		_, err := h.sign(g, "failing", g.pay(30, 2))
		wantRefusal(t, err, refusal.CeremonyFailed)
		h.update(func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, id, g.set.Shares(t, "server")[0]) })
		h.mustSign(g, "second", g.pay(40, 3))
		if after := h.thaw(h.freeze()); after.spent(g, sol) != 50 {
			t.Errorf("%d count after a crash, want 50", after.spent(g, sol))
		}
	})
}

// freeze copies the state folder as it is at this moment.
func (h *house) freeze() (dir string) {
	h.t.Helper()
	dir = filepath.Join(h.t.TempDir(), "snapshot")
	copyStore(h.t, h.dir, dir)
	return dir
}

// thaw kills h and opens what was frozen in its place.
func (h *house) thaw(snapshot string) *house {
	h.t.Helper()
	if err := h.vault.Close(); err != nil {
		h.t.Fatal(err)
	}
	c := &house{t: h.t, dir: filepath.Join(h.t.TempDir(), "copy"), clock: &clock{t: h.clock.now()}, log: &logBuffer{}, grants: h.grants}
	copyStore(h.t, snapshot, c.dir)
	c.openVault()
	c.openRooms(signing.Config{})
	return c
}

// wantRollback insists that what was frozen is refused as an older copy.
func wantRollback(t *testing.T, snapshot string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "old")
	copyStore(t, snapshot, dir)
	ctx := context.Background()
	v, err := vault.Open(ctx, vault.Config{Dir: dir}, site.pin)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Unseal(ctx, map[string]seal.Sealer{site.device.ID(): site.device}); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("an older copy: %v, want ErrRollback", err)
	}
}
