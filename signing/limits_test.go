package signing_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Limits by count and by group, and policies that allow one transaction.

func TestLimitsOfGroups(t *testing.T) {
	for _, row := range []struct {
		limit string
		// alone: the second delegation, of the same user on the same wallet, to the same
		// payee, has room of its own.
		alone bool
	}{
		{`"max":"400"`, false},
		{`"max":"400","per":"delegation"`, true},
		{`"max":"400","per":"wallet"`, false},
		{`"max":"400","per":"user"`, false},
		{`"max":"400","per":"destination"`, false},
		{`"max_count":1,"per":"wallet"`, false},
		{`"max_count":1,"per":"user"`, false},
	} {
		h, g := newHouse(t, terms{}, terms{})
		h.setRules("set", fmt.Sprintf(`{"limits":[{"id":"all","asset":%q,"window_seconds":86400,%s}]}`, sol, row.limit))
		h.mustSign(g[0], "one", g[0].pay(300, 1))
		_, err := h.sign(g[0], "two", g[0].pay(101, 2))
		no := wantRefusal(t, err, refusal.LimitExceeded)
		if no.Details["rule"] != "organization/all" || no.After != day {
			t.Errorf("%s: refused with %v after %v", row.limit, no.Details, no.After)
		}
		switch _, err := h.sign(g[1], "three", g[1].pay(101, 3)); {
		case row.alone && err != nil:
			t.Errorf("%s: the second delegation: %v", row.limit, err)
		case !row.alone:
			wantRefusal(t, err, refusal.LimitExceeded)
		}
	}
}

// A limit that is made later, or removed and made anew, sees what was spent before it.
func TestLimitsSeeThePast(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.mustSign(g[0], "one", g[0].pay(300, 1))
	h = h.again()
	rule := fmt.Sprintf(`{"limits":[{"id":"all","asset":%q,"max":"400"},{"id":"often","max_count":2}]}`, sol)
	h.setRules("make", rule)
	_, err := h.sign(g[0], "two", g[0].pay(101, 2))
	wantRefusal(t, err, refusal.LimitExceeded)
	h.setRules("empty", `{}`)
	h.mustSign(g[0], "two", g[0].pay(101, 2))
	h.setRules("anew", rule)
	_, err = h.sign(g[0], "three", g[0].pay(1, 3))
	wantRefusal(t, err, refusal.LimitExceeded)
}

func TestOneTimePolicyAllowsOneTransaction(t *testing.T) {
	once := solAllow
	once.OneTime = true
	h, g := newHouse(t, terms{policies: []policy.Policy{once}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed, first := 0, 0
	for i := range 8 {
		wg.Go(func() {
			_, err := h.sign(g[0], fmt.Sprint("r", i), g[0].pay(300, byte(i)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				passed, first = passed+1, i
			case !refusal.Is(err, refusal.PolicyDenied):
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if passed != 1 {
		t.Fatalf("%d of 8 passed, want 1", passed)
	}
	h = h.again()
	_, err := h.sign(g[0], "other", g[0].pay(300, 99))
	if no := wantRefusal(t, err, refusal.PolicyDenied); no.Details["rule"] != "pol_0" {
		t.Errorf("refused with %v", no)
	}
	h.mustSign(g[0], "the same again", g[0].pay(300, byte(first)))
}

// What was not understood may have spent anything: a limit that is made later knows
// no bound of what was spent, until that leaves its window.
func TestLimitsSeeWhatWasNotUnderstood(t *testing.T) {
	p := solAllow
	p.Condition = "solana.tx.program_keys.count() == 1"
	h, g := newHouse(t, terms{policies: []policy.Policy{p}})
	payload := g[0].pay(300, 1)
	copy(payload[5+32+32:], bytes.Repeat([]byte{3}, 32)) // the System program's place
	h.mustSign(g[0], "opaque", payload)
	token := cluster + "/token:EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
	for _, asset := range []string{sol, token} {
		if u := signing.Used(h.journal, site.organization, policy.SpentQuery{Asset: asset}); !u.Unbounded || u.Count != 1 {
			t.Errorf("%s: used %+v, want something without a bound", asset, u)
		}
	}
	h.setRules("make", fmt.Sprintf(`{"limits":[{"id":"all","asset":%q,"max":"400","window_seconds":86400}]}`, sol))
	_, err := h.sign(g[0], "plain", g[0].pay(1, 2))
	if no := wantRefusal(t, err, refusal.LimitExceeded); no.After != day {
		t.Errorf("refused for %v, want a day", no.After)
	}
	h.clock.add(day)
	h.mustSign(g[0], "plain", g[0].pay(1, 2))
}
