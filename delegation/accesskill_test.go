package delegation

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sigild/sigild/vault"
)

// Processes that are killed with SIGKILL at each step of the back end's flow and of a
// hand-over: at each look at the clock, which each record takes, and before each durable
// write.

// wantAccesses insists that each sub-organization of acme's is whole, and that nothing is
// of one that isn't there. It returns how many there are.
func (h *house) wantAccesses(what string) (count int) {
	h.t.Helper()
	for _, o := range h.book.organizations {
		if o.Parent != site.acme {
			continue
		}
		count++
		var owner, delegate *user
		for _, u := range h.book.users {
			switch {
			case u.Organization != o.ID:
			case u.Kind == EndUser:
				owner = u
			default:
				delegate = u
			}
		}
		if owner == nil || delegate == nil || len(o.Root) != 0 || len(o.RootUsers) != 1 || o.RootUsers[0] != owner.ID || o.Quorum != 1 {
			h.t.Errorf("%s: organization %+v has owner %v, delegated user %v", what, o, owner, delegate)
			continue
		}
		for _, i := range invariants {
			if !i.holds(h.Service, o, delegate, h.clock.now()) {
				h.t.Errorf("%s: %s does not hold", what, i.id)
			}
		}
		if r := h.book.rulebooks[o.ID]; r == nil || len(r.documents) != 2 || r.version != o.PolicyVersion {
			h.t.Errorf("%s: organization %s has not its policy and its limits: %+v", what, o.ID, r)
		}
		if !h.book.owns(owner.ID) {
			h.t.Errorf("%s: the end user of %s has no wallet", what, o.ID)
		}
	}
	for _, u := range h.book.users {
		if h.book.organizations[u.Organization] == nil {
			h.t.Errorf("%s: user %s is of no organization", what, u.ID)
		}
	}
	for org := range h.book.rulebooks {
		if h.book.organizations[org] == nil {
			h.t.Errorf("%s: documents of no organization", what)
		}
	}
	for _, w := range h.book.wallets {
		if h.book.organizations[w.Organization] == nil {
			h.t.Errorf("%s: wallet %s is of no organization", what, w.ID)
		}
	}
	return count
}

func TestKilledAtEachStepOfADelegatedAccess(t *testing.T) {
	h := newHouse(t)
	nothing, all := 0, 0
	for at := int64(1); ; at++ {
		request, what := fmt.Sprint("a", at), fmt.Sprint("killed at step ", at)
		done := h.killedIn(child{Verb: "access", Chain: cluster, Request: request, KillAt: at, Steps: true}, 0)
		h.wantWhole(what)
		count, acts := h.wantAccesses(what), len(h.acts(request))
		if count-all != acts || acts > 1 || done && acts != 1 || nothing > 0 && all > 0 && acts == 0 {
			t.Fatalf("%s: %d organizations more, the journal tells of %d; done %v", what, count-all, acts, done)
		}
		if all = count; acts == 0 {
			nothing++
		}
		if done {
			break
		}
	}
	t.Logf("killed at %d steps before the commit and at %d after it", nothing, all-1)
	if nothing < 5 || all < 5 {
		t.Errorf("killed at %d steps before the commit and at %d after it: the steps are not looked at", nothing, all-1)
	}
}

func TestKilledAtEachStepOfAHandOver(t *testing.T) {
	before, after := 0, 0
	for at, done := int64(1), false; !done; at++ {
		h := newHouse(t, withDelay)
		what := fmt.Sprint("killed at step ", at)
		old := h.book.keys["key_"+delayWallet].Root
		done = h.killedIn(child{Verb: "hand-over", Chain: cluster, Request: "h", KillAt: at, Steps: true}, 0)
		k := h.book.keys["key_"+delayWallet]
		mine, renewed := k.Owner == site.dana.id, k.Root.ID != old.ID
		h.ownership(k.ID, k.Owner)
		if mine != (len(h.acts("h")) == 1) || mine && (len(k.Here) != 2 || k.Renew == renewed) || !mine && (k.Owner != "" || len(k.Here) != 3 || k.Renew || renewed) || done && !renewed {
			t.Fatalf("%s: owner %q, shares here %v, root set %s, renewal owed %v", what, k.Owner, k.Here, k.Root.ID, k.Renew)
		}
		h.wantSigns(what, k)
		if !mine {
			before++
			continue
		}
		after++
		if err := h.RotateDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.running.Wait()
		if k := h.book.keys["key_"+delayWallet]; k.Renew || k.Root.ID == old.ID {
			t.Errorf("%s: the root set is the organization's still, owed %v", what, k.Renew)
		}
		for _, p := range old.Parties {
			if err := h.cfg.Vault.With(t.Context(), vault.TypeShare, ShareID(old.ID, p), func([]byte) error { return nil }); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("%s: the share of %s of the old set: %v, want ErrNotFound", what, p, err)
			}
		}
	}
	t.Logf("killed at %d steps before the commit and at %d after it", before, after-1)
	if before < 3 || after < 4 {
		t.Errorf("killed at %d steps before the commit and at %d after it: the steps are not looked at", before, after-1)
	}
}
