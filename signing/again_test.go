package signing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// The same request again, one by one and all at once.

func TestSameRequestGetsTheSameSignature(t *testing.T) {
	h, g := newHouse(t, terms{set: mpctest.ECDSADelegateSet(t), limits: nil}, terms{limits: limit(400, day)})
	for _, c := range []struct {
		grant   *grant
		payload []byte
		asset   string
	}{{g[0], transfer(t, 7, 400), wei}, {g[1], g[1].pay(400, 1), sol}} {
		id := c.grant.id
		first := h.mustSign(c.grant, id, c.payload)
		entries := len(h.entries(""))
		for range 3 {
			again := h.mustSign(c.grant, id, c.payload)
			if !bytes.Equal(first.Signature, again.Signature) || !bytes.Equal(first.Signed, again.Signed) ||
				first.TransactionID != again.TransactionID || first.Sequence != again.Sequence || first.Rule != again.Rule || first.Summary != again.Summary {
				t.Errorf("asked again: %+v, first %+v", again, first)
			}
		}
		if n := len(h.entries("")); n != entries {
			t.Errorf("asking again wrote %d entries", n-entries)
		}
		if s := h.spent(c.grant, c.asset); s != 400 {
			t.Errorf("%d charged, want 400 once", s)
		}
		if after := h.again().mustSign(c.grant, id, c.payload); !bytes.Equal(first.Signature, after.Signature) {
			t.Error("after a restart it got another signature")
		}
	}
	h.wantKinds(2, 2, 0, 0)
}

func TestSixteenCallsWithOneIDAreOneSignature(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	payload := g[0].pay(400, 1)
	var answers [16]<-chan answer
	for i := range answers {
		answers[i] = h.signLater(g[0], "one", payload)
	}
	var first []byte
	for _, c := range answers {
		a := <-c
		if a.err != nil {
			t.Fatal(a.err)
		}
		if first == nil {
			first = a.result.Signed
		}
		if !bytes.Equal(first, a.result.Signed) {
			t.Error("two of the calls got different signatures")
		}
	}
	h.wantKinds(1, 1, 0, 0)
	if s := h.spent(g[0], sol); s != 400 {
		t.Errorf("%d charged, want 400 once", s)
	}
}

// Sixty-four at once, where the limit has room for five.
func TestLimitHoldsUnderConcurrency(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(5*300+299, day)})
	h.serve(signing.Config{MaxConcurrent: 64})
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for i := range 64 {
		wg.Go(func() {
			_, err := h.sign(g[0], fmt.Sprint("r", i), g[0].pay(300, byte(i)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				passed++
			case !refusal.Is(err, refusal.LimitExceeded):
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if passed != 5 {
		t.Errorf("%d of 64 passed, want 5", passed)
	}
	h.wantKinds(5, 5, 0, 0)
	if s := h.spent(g[0], sol); s != 1500 {
		t.Errorf("spent %d, want 1500", s)
	}
}

// What is in flight counts: no second request passes while the first still signs.
func TestLimitCountsWhatIsInFlight(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(500, time.Minute)})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "running", g[0].pay(400, 1))
	<-gate.reached
	h.clock.add(time.Hour) // its window has not begun
	_, err := h.sign(g[0], "second", g[0].pay(400, 2))
	wantRefusal(t, err, refusal.LimitExceeded)
	gate.open()
	if a := <-running; a.err != nil {
		t.Fatal(a.err)
	}
	h.clock.add(time.Minute)
	h.mustSign(g[0], "second", g[0].pay(400, 2))
}

// The clock passes the delegation's end while a call waits for its turn: it gets
// no stored answer any more.
func TestStoredAnswerNeedsStepFour(t *testing.T) {
	h, g := newHouse(t, terms{end: began.Add(time.Hour)})
	h.mustSign(g[0], "id", g[0].pay(1, 1))
	h.clock.after(1, time.Hour) // step 4 looks, then the hour passes
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	h.wantRefused(wantRefusal(t, err, refusal.DelegationExpired), "id")
}

// A delegation is revoked while a second call waits for the answer of the first:
// the first is answered, revocation is acknowledged, the second is refused.
func TestStoredAnswerIsNotGivenAfterRevocation(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.mustSign(g[0], "id", g[0].pay(1, 1))
	h.serve(signing.Config{Authority: &changing{Authority: h.delegation, authenticated: func() { h.revoke(g[0]) }}})
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	h.wantRefused(wantRefusal(t, err, refusal.DelegationRevoked), "id")
}

func TestCallerWhoWaitsMayGo(t *testing.T) {
	h, g := newHouse(t, terms{})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "id", g[0].pay(1, 1))
	<-gate.reached
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.signing.Sign(ctx, g[0].request("id", g[0].pay(1, 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	gate.open()
	if a := <-running; a.err != nil {
		t.Error(a.err)
	}
}

// The caller goes away after step 7: the signature is made, journaled and kept.
func TestOutcomeIsJournaledWhenTheCallerIsGone(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.signing.BeforeRelease(cancel)
	if _, err := h.signing.Sign(ctx, g[0].request("id", g[0].pay(400, 1))); err != nil {
		t.Errorf("error %v, though nobody listens", err)
	}
	h.wantKinds(1, 1, 0, 0)
	entries := len(h.entries(journal.KindSigned))
	h.mustSign(g[0], "id", g[0].pay(400, 1))
	if n := len(h.entries(journal.KindSigned)); n != entries {
		t.Error("asking again signed again")
	}
}
