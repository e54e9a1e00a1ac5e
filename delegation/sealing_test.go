package delegation

import (
	"context"
	"testing"

	"github.com/sigild/sigild/refusal"
)

// sealing is the message of Seal and of Unseal.
type sealing struct{ RequestID string }

// Any operator seals, only their quorum takes it back, and a restart in between
// forgets nothing.
func TestSealIsRememberedUntilTheQuorumSaysOtherwise(t *testing.T) {
	ctx, h := context.Background(), newHouse(t)
	unseal := func(id string, by ...holder) error { return h.Unseal(ctx, stamped("", sealing{id}, by...), id) }
	wantRefusal(t, "unsealing what is not sealed", unseal("early", site.operators...), refusal.NotActive)
	h.unchanged("seals that are refused", func() {
		wantRefusal(t, "by a root member", h.Seal(ctx, stamped("", sealing{"s"}, site.root...), "s", "drill"), refusal.QuorumMissing)
		wantRefusal(t, "by nobody", h.Seal(ctx, stamped("", sealing{"s"}), "s", "drill"), refusal.QuorumMissing)
		wantRefusal(t, "for an organization", h.Seal(ctx, stamped(site.acme, sealing{"s"}, site.operators...), "s", "drill"), refusal.QuorumMissing)
		wantRefusal(t, "without a reason", h.Seal(ctx, stamped("", sealing{"s"}, site.operators...), "s", ""), refusal.RequestInvalid)
	})
	if err := h.Seal(ctx, stamped("", sealing{"s"}, site.operators[2]), "s", "drill"); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if why := h.SealedFor(); why != "drill" {
		t.Errorf("after a restart it is sealed for %q, want drill", why)
	}
	wantRefusal(t, "one operator of two", unseal("u", site.operators[0]), refusal.QuorumMissing)
	wantRefusal(t, "root members", unseal("u", site.root...), refusal.QuorumMissing)
	if h.SealedFor() == "" {
		t.Error("a refused act took the seal away")
	}
	if err := unseal("u", site.operators[:2]...); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if why := h.SealedFor(); why != "" {
		t.Errorf("it is sealed for %q after the quorum said otherwise", why)
	}
}

// A sealed daemon still tells operators' stamps from others.
func TestGuardKnowsOperators(t *testing.T) {
	h := newHouse(t)
	g := h.Guard()
	if g.ApplianceID != site.appliance {
		t.Errorf("appliance %q, want %q", g.ApplianceID, site.appliance)
	}
	for _, c := range []struct {
		h     holder
		known bool
	}{{site.operators[0], true}, {site.operators[2], true}, {site.root[0], false}, {site.dana.holder, false}} {
		if got := g.Knows(c.h.key.Public()); got != c.known {
			t.Errorf("%s is known: %v, want %v", c.h.Name, got, c.known)
		}
	}
}
