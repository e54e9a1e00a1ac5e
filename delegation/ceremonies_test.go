package delegation

import (
	"context"
	"slices"
	"testing"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/vault"
)

// A ceremony that a party broke ends as failed in the stage it was in, names the party,
// and counts against it, each of them also after a restart.
func TestBrokenCeremoniesNameTheirCulprits(t *testing.T) {
	h := newHouse(t, withWallet)
	c := &ceremonyRecord{V: recordVersion, ID: newID("cer"), Organization: site.acme, Kind: kindRotate, Target: solWallet, Status: statusRunning, StartedAt: h.clock.now()}
	h.put(func(tx *vault.Tx) error {
		h.book.change(tx, func() { h.book.ceremonies[c.ID] = c })
		return store(tx, vault.TypeCeremony, c.ID, c)
	})
	ended := false
	work := func(context.Context, func([]*mpc.Share)) (func(*vault.Tx, *journal.Entry) error, error) {
		h.step(c, "rounds", 2, 4)
		if now, err := h.Ceremony(look(site.acme, site.dana.holder), site.acme, c.ID); err != nil || now.Stage != "rounds" || now.Done != 2 || now.Total != 4 {
			t.Errorf("while it runs: %+v, %v", now, err)
		}
		return nil, broken(mpc.ErrProtocol, mpc.User)
	}
	h.startCeremony(c, work, func(*vault.Tx) error { return nil }, func() { ended = true })
	h.running.Wait()
	if !ended {
		t.Error("what was to run at the end did not")
	}
	for _, when := range []string{"at once", "after a restart"} {
		got := h.wantCeremony(c.ID, statusFailed)
		if !slices.Equal(got.Culprits, []string{"user"}) || got.Stage != "rounds" {
			t.Errorf("%s: ceremony %+v, want its stage and the user to blame", when, got)
		}
		k, err := h.Key(context.Background(), look(site.acme, site.dana.holder), site.acme, solWallet)
		if err != nil || k.Failures["user"] != 1 || k.Frozen {
			t.Errorf("%s: key %+v, %v, want one failure of the user", when, k, err)
		}
		h.restart()
	}
	if e := h.last(); e.Method != "ceremony/rotate" || e.Facts["culprits"] != "[user]" {
		t.Errorf("last entry %+v, want the culprit named", e)
	}
}
