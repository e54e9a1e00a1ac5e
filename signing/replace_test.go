package signing_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Transactions in place of others of the same nonce.

// bumps is a delegation of an EVM wallet that may replace, within limits.
func bumps(t testing.TB, limits ...policy.Limit) terms {
	p := evmAllow
	p.Replace = true
	return terms{set: mpctest.ECDSADelegateSet(t), policies: []policy.Policy{p}, limits: limits}
}

func weiADay(most uint64) policy.Limit {
	return policy.Limit{Name: "wei", Asset: wei, Max: *uint256.NewInt(most), MaxCount: 1, Window: day}
}

func (h *house) wantReplayRefused(g *grant, id string, payload []byte, says string) {
	h.t.Helper()
	_, err := h.sign(g, id, payload)
	no := wantRefusal(h.t, err, refusal.PolicyDenied)
	if no.Details["rule"] != "replay-guard" || !strings.Contains(no.Message, says) {
		h.t.Errorf("%s: refused with %v %v, want the replay guard, which says %q", id, no, no.Details, says)
	}
}

func TestHigherFeesReplace(t *testing.T) {
	h, g := newHouse(t, bumps(t, weiADay(400)))
	first := g[0]
	h.mustSign(first, "one", transferFor(t, 7, 300, 10, 20))
	h.wantReplayRefused(first, "same fees", transferFor(t, 7, 299, 10, 20), "a tenth")
	h.wantReplayRefused(first, "tip alone", transferFor(t, 7, 300, 11, 20), "a tenth")
	h.wantReplayRefused(first, "less than a tenth", transferFor(t, 7, 300, 11, 21), "a tenth")
	h.mustSign(first, "bumped", transferFor(t, 7, 300, 11, 22))
	if s := h.spent(first, wei); s != 300 {
		t.Errorf("%d charged, want 300 once", s)
	}
	h = h.again()
	h.mustSign(first, "less", transferFor(t, 7, 1, 20, 30))
	if s := h.spent(first, wei); s != 300 {
		t.Errorf("%d charged, want 300: the dearest of the three", s)
	}
	_, err := h.sign(first, "too much", transferFor(t, 7, 401, 40, 50))
	wantRefusal(t, err, refusal.LimitExceeded)
	if s := h.spent(first, wei); s != 300 {
		t.Errorf("%d charged after the refusal, want 300", s)
	}
	h.mustSign(first, "more", transferFor(t, 7, 400, 40, 50))
	if s := h.spent(first, wei); s != 400 {
		t.Errorf("%d charged, want 400", s)
	}
	_, err = h.sign(first, "another nonce", transferFor(t, 8, 1, 1, 2))
	wantRefusal(t, err, refusal.LimitExceeded)
	// The charge of all four counts from the newest on.
	h.clock.add(day - 1)
	_, err = h.sign(first, "another nonce", transferFor(t, 8, 1, 1, 2))
	wantRefusal(t, err, refusal.LimitExceeded)
	h.clock.add(1 + day/128)
	h.mustSign(first, "another nonce", transferFor(t, 8, 400, 1, 2))
	h.mustSign(first, "one", transferFor(t, 7, 300, 10, 20)) // the stored answer
}

// An older charge that left its window comes back with what replaces it: else an old
// signature would be the way around a limit.
func TestReplacingBringsTheOldChargeBack(t *testing.T) {
	h, g := newHouse(t, bumps(t, policy.Limit{Name: "wei", Asset: wei, Max: *uint256.NewInt(400), Window: day}))
	h.mustSign(g[0], "one", transferFor(t, 7, 400, 10, 20))
	h.clock.add(day)
	h.mustSign(g[0], "two", transferFor(t, 8, 1, 1, 2))
	_, err := h.sign(g[0], "bumped", transferFor(t, 7, 1, 20, 40))
	wantRefusal(t, err, refusal.LimitExceeded)
}

func TestReplacingIsForThoseWhoMay(t *testing.T) {
	none := bumps(t)
	none.policies[0].Replace = false
	h, g := newHouse(t, bumps(t), bumps(t), none)
	h.mustSign(g[0], "one", transferFor(t, 7, 300, 10, 20))
	h.wantReplayRefused(g[1], "another delegation", transferFor(t, 7, 300, 20, 40), "another delegation")
	h.mustSign(g[2], "two", transferFor(t, 8, 300, 10, 20))
	h.wantReplayRefused(g[2], "not allowed to", transferFor(t, 8, 300, 20, 40), "something else was signed")

	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "in flight", transferFor(t, 9, 300, 10, 20))
	<-gate.reached
	h.wantReplayRefused(g[0], "while it signs", transferFor(t, 9, 300, 20, 40), "outcome is not known")
	gate.open()
	if a := <-running; a.err != nil {
		t.Fatal(a.err)
	}
	h.signing.BeforeRelease(nil)
	h.mustSign(g[0], "after it signed", transferFor(t, 9, 300, 20, 40))
	most := int64(40)
	for i := range journal.MaxReplaced - 1 {
		most *= 2
		h.mustSign(g[0], fmt.Sprint("bump", i), transferFor(t, 9, 300, most/2, most))
	}
	h.wantReplayRefused(g[0], "once too often", transferFor(t, 9, 300, most, 2*most), "8 times")
}

// What replaces fails before its last share: the older transaction stands again.
func TestReplacingThatFailsGivesTheNonceBack(t *testing.T) {
	h, g := newHouse(t, bumps(t))
	h.mustSign(g[0], "one", transferFor(t, 7, 300, 10, 20))
	h.signing.BeforeRelease(func() {
		h.setRules("moved", `{"policies":[{"id":"no","effect":"EFFECT_DENY","condition":"eth.tx.value == 499"}]}`)
	})
	_, err := h.sign(g[0], "bumped", transferFor(t, 7, 500, 20, 40))
	wantRefusal(t, err, refusal.NotActive)
	if s := h.spent(g[0], wei); s != 300 {
		t.Errorf("%d charged, want the 300 of the first", s)
	}
	h.signing.BeforeRelease(nil)
	h.wantReplayRefused(g[0], "no higher than the first", transferFor(t, 7, 500, 10, 20), "a tenth")
	h.mustSign(g[0], "bumped", transferFor(t, 7, 500, 20, 40))
}

// Sixteen callers replace one transaction at once: one does, for the same fees.
func TestReplacingUnderConcurrency(t *testing.T) {
	h, g := newHouse(t, bumps(t))
	h.mustSign(g[0], "one", transferFor(t, 7, 300, 10, 20))
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for i := range 16 {
		wg.Go(func() {
			_, err := h.sign(g[0], fmt.Sprint("r", i), transferFor(t, 7, int64(100+i), 20, 40))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				passed++
			case !refusal.Is(err, refusal.PolicyDenied):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := h.spent(g[0], wei); passed != 1 || s != 300 {
		t.Errorf("%d of 16 replaced it and %d are charged, want 1 and 300", passed, s)
	}
}

// What one organization signs takes nothing from another, whatever its payload names.
func TestReplayKeysBelongToTheirOrganization(t *testing.T) {
	d := &chains.Decoded{ReplayKeys: []string{"solana-nonce:cluster:account:value"}}
	a, b := signing.GuardKeys(&signing.Standing{Organization: "org_a"}, d), signing.GuardKeys(&signing.Standing{Organization: "org_b"}, d)
	if a[0] == b[0] || !strings.HasSuffix(a[0], d.ReplayKeys[0]) {
		t.Errorf("keys %v and %v", a, b)
	}
}
