package mpc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// Simulated sessions between two processes, over a connection that loses, delays,
// repeats, reorders and changes frames. A transport that keeps its word does none of
// this; one that is broken, or a peer that plays one, must not get us to sign wrongly,
// to hang, or to blame ourselves.

// wire plays the faults of one direction.
type wire struct {
	mpc.Conn
	fault fault

	mu   sync.Mutex // guards what follows
	rng  *rand.Rand
	sent int
	held []byte
}

func (w *wire) Send(ctx context.Context, frame []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	frame = slices.Clone(frame)
	w.sent++
	if w.sent == 1 || w.fault == none || w.rng.IntN(2) == 0 { // the handshake passes
		return w.pass(ctx, frame)
	}
	switch w.fault {
	case delayed:
		time.Sleep(time.Duration(w.rng.IntN(20)) * time.Second)
	case duplicated:
		if err := w.Conn.Send(ctx, frame); err != nil {
			return err
		}
	case reordered:
		if w.held == nil {
			w.held = frame
			time.AfterFunc(5*time.Second, func() { // nothing may come after it
				w.mu.Lock()
				defer w.mu.Unlock()
				_ = w.pass(context.Background(), nil)
			})
			return nil
		}
	case dropped:
		return nil
	case mutated, lying:
		frame[w.rng.IntN(len(frame))] ^= 1 << w.rng.IntN(8)
	}
	return w.pass(ctx, frame)
}

// pass sends a frame, if any, and what it overtook.
func (w *wire) pass(ctx context.Context, frame []byte) error {
	late := w.held
	w.held = nil
	for _, f := range [][]byte{frame, late} {
		if f == nil {
			continue
		}
		if err := w.Conn.Send(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// simulateTogether runs one signature and checks what must hold for every one.
func simulateTogether(t *testing.T, set mpctest.Set, seed uint64) fault {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	culprit := set.Parties[rng.IntN(2)]
	f := fault(rng.IntN(int(faults)))
	in := messageInput(fmt.Appendf(nil, "session %d", seed))
	if set.Scheme == chains.ECDSASecp256k1 {
		in = digestInput(fmt.Sprint("session ", seed))
	}
	sides := [2]made{{set.ShareSet, set.Shares(t, set.Parties[0])}, {set.ShareSet, set.Shares(t, set.Parties[1])}}
	p := signProposal(t, sides[0], sides[1], in)
	synctest.Test(t, func(t *testing.T) {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("seed %d, %s, %v, culprit %s: %s", seed, set.ID, f, culprit, fmt.Sprintf(format, args...))
		}
		start := time.Now()
		a, b := mpc.Pipe()
		defer a.Close()
		ends := [2]mpc.Conn{a, b}
		i := slices.Index(set.Parties, culprit)
		ends[i] = &wire{Conn: ends[i], fault: f, rng: rng}
		var sigs [2]mpc.Signature
		part := func(i int) side {
			return func(ctx context.Context, j *mpc.Joint) (err error) {
				sigs[i], err = mpc.Sign(ctx, mpc.SignRequest{Set: sides[i].set, Shares: sides[i].shares, Input: in, With: j})
				return err
			}
		}
		var errs [2]error
		errs[0], errs[1] = over(t, ends[0], ends[1], p, part(0), part(1))
		if took := time.Since(start); took > mpc.SignDeadline+20*time.Second {
			fail("took %v", took)
		}
		for i, err := range errs {
			if err == nil {
				if err := mpc.Verify(set.ShareSet, in, sigs[i].Bytes()); err != nil {
					fail("%s released %x: %v", set.Parties[i], sigs[i].Bytes(), err)
				}
				continue
			}
			if f < dropped {
				fail("%s: %v, though nothing was lost or changed", set.Parties[i], err)
			}
			// The culprit may blame the other: it knows nothing of its wire.
			var e *mpc.Error
			if errors.As(err, &e) && e.Broken() && slices.Contains(e.Culprits, set.Parties[i]) {
				fail("%s blames itself: %v", set.Parties[i], err)
			}
		}
		time.Sleep(time.Minute) // timers of the wire end with the bubble
	})
	return f
}

func TestSimulatedTogether(t *testing.T) {
	frostSet := mpctest.Ed25519DelegateSet(t).Issue(t, "sim-together", mpc.Server, mpc.Delegate)
	for _, tc := range []struct {
		set   mpctest.Set
		count int
	}{{frostSet, count(200, 5000)}, {mpctest.ECDSADelegateSet(t), count(2, 60)}} {
		first := firstSeed()
		if *oneSeed != 0 {
			first, tc.count = *oneSeed, 1
		}
		tally := map[fault]int{}
		for i := range uint64(tc.count) {
			tally[simulateTogether(t, tc.set, first+i)]++
		}
		t.Logf("%s: %d sessions from seed %d: %v", tc.set.ID, tc.count, first, tally)
	}
}

// BenchmarkSessionRound is what a round costs beside its mathematics, between two
// sides within this process.
func BenchmarkSessionRound(b *testing.B) {
	mpctest.BenchmarkRounds(b, func() (proposer, acceptor mpc.Conn, done func()) {
		one, other := mpc.Pipe()
		return one, other, one.Close
	})
}
