package signing_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Pauses of each level stop signing, also for stored answers, and end only by
// the level that set them or the one above.

func (h *house) pause(scope delegation.Scope, id string, who *credential.PrivateKey) (delegation.Pause, error) {
	h.t.Helper()
	return h.delegation.Pause(context.Background(), actor(scope.Organization, "Pause", who), delegation.NewPause{RequestID: id, Scope: scope, Reason: "drill"})
}

func (h *house) resume(scope delegation.Scope, id string, who *credential.PrivateKey) error {
	h.t.Helper()
	return h.delegation.Resume(context.Background(), actor(scope.Organization, "Resume", who), id, scope)
}

func TestPausedAtAnyLevelNothingSigns(t *testing.T) {
	h, g := newHouse(t, terms{})
	first := h.mustSign(g[0], "before", g[0].pay(1, 1))
	for name, c := range map[string]struct {
		scope delegation.Scope
		who   *credential.PrivateKey
		level delegation.Level
	}{
		"wallet":         {delegation.Scope{Organization: site.organization, Wallet: g[0].wallet}, site.dana, delegation.LevelOwner},
		"wallet-by-root": {delegation.Scope{Organization: site.organization, Wallet: g[0].wallet}, site.root, delegation.LevelRoot},
		"organization":   {delegation.Scope{Organization: site.organization}, site.root, delegation.LevelRoot},
		"appliance":      {delegation.Scope{}, site.operator, delegation.LevelOperator},
	} {
		p, err := h.pause(c.scope, "pause-"+name, c.who)
		if err != nil || p.Level != c.level {
			t.Fatalf("%s: %+v, %v", name, p, err)
		}
		_, err = h.sign(g[0], "new-"+name, g[0].pay(1, 2))
		wantRefusal(t, err, refusal.Paused)
		_, err = h.sign(g[0], "before", g[0].pay(1, 1))
		wantRefusal(t, err, refusal.Paused)
		if c.level == delegation.LevelRoot && c.scope.Wallet != "" {
			if err := h.resume(c.scope, "no-"+name, site.dana); !refusal.Is(err, refusal.QuorumMissing) {
				t.Errorf("%s: the owner ended what the root paused: %v", name, err)
			}
		}
		if err := h.resume(c.scope, "resume-"+name, c.who); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again := h.mustSign(g[0], "before", g[0].pay(1, 1))
		if !bytes.Equal(again.Signature, first.Signature) {
			t.Errorf("%s: another signature after the pause", name)
		}
	}
}

func TestPauseStopsWhatIsUnderWay(t *testing.T) {
	h, g := newHouse(t, terms{})
	scope := delegation.Scope{Organization: site.organization, Wallet: g[0].wallet}
	paused := make(chan error, 1)
	h.signing.BeforeRelease(func() {
		// It can't be acknowledged before this signature has ended.
		go func() {
			_, err := h.pause(scope, "p", site.dana)
			paused <- err
		}()
		for h.delegation.Paused(scope) == nil {
			select {
			case err := <-paused:
				t.Errorf("acknowledged while a signature was under way: %v", err)
				return
			default:
			}
		}
	})
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	wantRefusal(t, err, refusal.Paused)
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	if got := h.spent(g[0], sol); got != 0 {
		t.Errorf("%d lamports stay charged", got)
	}
}

func TestPauseIsRefusedToStrangersAndSurvivesARestart(t *testing.T) {
	h, g := newHouse(t, terms{})
	wallet := delegation.Scope{Organization: site.organization, Wallet: g[0].wallet}
	organization := delegation.Scope{Organization: site.organization}
	if _, err := h.pause(organization, "a", site.dana); !refusal.Is(err, refusal.QuorumMissing) {
		t.Errorf("an end user paused the organization: %v", err)
	}
	if _, err := h.pause(delegation.Scope{}, "b", site.root); !refusal.Is(err, refusal.QuorumMissing) {
		t.Errorf("a root member paused the appliance: %v", err)
	}
	if _, err := h.pause(wallet, "c", site.operator); !refusal.Is(err, refusal.QuorumMissing) {
		t.Errorf("an operator paused a wallet by name: %v", err)
	}
	if _, err := h.pause(delegation.Scope{Organization: "org_none"}, "d", site.root); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("an unknown organization: %v", err)
	}
	if _, err := h.pause(wallet, "e", site.dana); err != nil {
		t.Fatal(err)
	}
	c := h.again()
	_, err := c.sign(g[0], "id", g[0].pay(1, 1))
	wantRefusal(t, err, refusal.Paused)
}
