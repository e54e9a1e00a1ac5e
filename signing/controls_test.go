package signing_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Policies that read how much of a limit is left.

// withControl allows what solAllow does while a control of so many lamports a day has
// room for it.
func withControl(lamports uint64) terms {
	p := solAllow
	p.Condition += " && controls.daily.asked <= controls.daily.left"
	return terms{policies: []policy.Policy{p}, limits: []policy.Limit{{Name: "daily", Asset: sol, Max: *uint256.NewInt(lamports), Window: day, Control: true}}}
}

// All sixty-four read the same figure at step 6; at step 7 each reads it again, alone.
func TestControlsHoldUnderConcurrency(t *testing.T) {
	h, g := newHouse(t, withControl(5*300+299))
	h.serve(signing.Config{MaxConcurrent: 64})
	var judged sync.WaitGroup
	judged.Add(64)
	h.signing.BeforeApproval(func() { judged.Done(); judged.Wait() })
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
			case !refusal.Is(err, refusal.PolicyDenied):
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if passed != 5 {
		t.Errorf("%d of 64 passed, want 5", passed)
	}
	if s := h.spent(g[0], sol); s != 1500 {
		t.Errorf("spent %d, want 1500", s)
	}
	h.signing.BeforeApproval(nil)
	h.clock.add(day)
	h.mustSign(g[0], "tomorrow", g[0].pay(300, 99))
}

// What a retry was charged under its own reservation does not count against it.
func TestRetryReadsControlsWithoutItself(t *testing.T) {
	h, g := crashed(t, withControl(400))
	if s := h.spent(g, sol); s != 400 {
		t.Fatalf("%d charged after the crash, want 400", s)
	}
	_, err := h.sign(g, "other", g.pay(1, 2))
	wantRefusal(t, err, refusal.PolicyDenied)
	h.mustSign(g, "id", g.pay(400, 1))
	_, err = h.sign(g, "other", g.pay(1, 2))
	wantRefusal(t, err, refusal.PolicyDenied)
}
