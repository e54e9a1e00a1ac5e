package sealtest

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sigild/sigild/seal"
)

// This file tests the optional capability seal.Counter.

func mustRead(ctx context.Context, t testing.TB, f Fixture, ref seal.KeyRef) uint64 {
	t.Helper()
	n, err := f.Counter.ReadCounter(ctx, ref)
	if err != nil {
		t.Fatalf("reading the counter: %v", err)
	}
	return n
}

// mustIncrement counts one on from wherever the counter is.
func mustIncrement(ctx context.Context, t testing.TB, f Fixture, ref seal.KeyRef) uint64 {
	t.Helper()
	from := mustRead(ctx, t, f, ref)
	n, err := f.Counter.Increment(ctx, ref, from)
	if err != nil {
		t.Fatalf("incrementing from %d: %v", from, err)
	}
	if n != from+1 {
		t.Fatalf("incrementing from %d gave %d", from, n)
	}
	return n
}

func counter(ctx context.Context, t *testing.T, f Fixture) {
	other := mustRead(ctx, t, f, f.OtherAnchor)
	for range 5 {
		n := mustIncrement(ctx, t, f, f.Anchor)
		for range 2 { // looking changes nothing
			if got := mustRead(ctx, t, f, f.Anchor); got != n {
				t.Errorf("the counter is %d, want %d", got, n)
			}
		}
	}
	if got := mustRead(ctx, t, f, f.OtherAnchor); got != other {
		t.Errorf("another counter is %d, was %d", got, other)
	}
}

func counterRefuses(ctx context.Context, t *testing.T, f Fixture) {
	n := mustIncrement(ctx, t, f, f.Anchor)
	for _, from := range []uint64{0, n - 1, n + 1, math.MaxUint64} {
		if _, err := f.Counter.Increment(ctx, f.Anchor, from); !errors.Is(err, seal.ErrCounterMoved) || errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("incrementing from %d a counter that is %d: %v, want ErrCounterMoved", from, n, err)
		}
	}
	for _, ref := range []seal.KeyRef{f.Missing, "", "not hex", seal.KeyRef(strings.Repeat("ab", 4096)), f.KEK, f.Checkpoint} {
		if _, err := f.Counter.ReadCounter(ctx, ref); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("reading %.20q: %v, want ErrNotFound", ref, err)
		}
		if _, err := f.Counter.Increment(ctx, ref, n); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("incrementing %.20q: %v, want ErrNotFound", ref, err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Counter.Increment(gone, f.Anchor, n); !errors.Is(err, context.Canceled) {
		t.Errorf("incrementing with a cancelled context: %v, want context.Canceled", err)
	}
	if got := mustRead(ctx, t, f, f.Anchor); got != n {
		t.Errorf("after refusals the counter is %d, was %d", got, n)
	}
	// A counter does its own work and no other.
	if _, err := f.Sealer.Seal(ctx, f.Anchor, pattern(32), nil); err == nil {
		t.Error("the counter sealed")
	}
	if f.Signer != nil {
		if _, err := f.Signer.SignP256(ctx, f.Anchor, [32]byte{1}); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("signing with a counter: %v, want ErrNotFound", err)
		}
	}
}

// counterRace lets many count on from the same value: one wins, and no value is
// given out twice.
func counterRace(ctx context.Context, t *testing.T, f Fixture) {
	for range 3 {
		from := mustRead(ctx, t, f, f.Anchor)
		var won atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				n, err := f.Counter.Increment(ctx, f.Anchor, from)
				switch {
				case err == nil && n == from+1:
					won.Add(1)
				case err == nil || !errors.Is(err, seal.ErrCounterMoved):
					t.Errorf("incrementing from %d: %d, %v, want %d or ErrCounterMoved", from, n, err, from+1)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d calls incremented from %d, want 1", won.Load(), from)
		}
		if got := mustRead(ctx, t, f, f.Anchor); got != from+1 {
			t.Errorf("the counter is %d, want %d", got, from+1)
		}
	}
}
