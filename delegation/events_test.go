package delegation

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/sigild/sigild/refusal"
)

// Events come once each, in order, over a restart, to those whom they concern.
func TestEventsGoOnWhereTheyStopped(t *testing.T) {
	h := newHouse(t, withWallet)
	if err := h.setAccess("set", enabled(), site.root...); err != nil {
		t.Fatal(err)
	}
	next := func(who holder, after uint64, wait time.Duration) Events {
		t.Helper()
		got, err := h.NextEvents(context.Background(), look(site.acme, who), site.acme, after, wait)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	names := func(e Events) (out []string) {
		for _, one := range e.List {
			out = append(out, one.Name)
		}
		return out
	}
	// by is an actor of a method as the server names it.
	by := func(method string, message any, who holder) Actor {
		a := stamped(site.acme, message, who)
		a.Method = "/sigil.v1." + method
		return a
	}
	n := NewDelegation{RequestID: "ask", Organization: site.acme, Wallet: solWallet}
	asked, err := h.RequestDelegation(context.Background(), by("DelegatedAccessService/RequestDelegation", n, site.root[0]), n)
	if err != nil {
		t.Fatal(err)
	}
	id := asked.DelegationID
	first := next(site.dana.holder, 0, 0)
	if n := names(first); len(n) != 1 || n[0] != "delegation.requested" || first.List[0].Delegation != id {
		t.Fatalf("dana hears %+v", first)
	}
	sum := sha256.Sum256(h.describe(id).Terms)
	yes := NewApproval{RequestID: "yes", Organization: site.acme, Delegation: id, Terms: sum[:]}
	made, err := h.ApproveDelegation(context.Background(), by("DelegatedAccessService/ApproveDelegation", yes, site.dana.holder), yes)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	h.restart()
	second := next(site.dana.holder, first.Next, 0)
	if n := names(second); len(n) != 2 || n[0] != "delegation.approved" || n[1] != "delegation.active" {
		t.Errorf("then dana hears %v", n)
	}
	if more := next(site.dana.holder, second.Next, 0); len(more.List) != 0 || more.Next < second.Next {
		t.Errorf("and then %+v", more)
	}
	if e := next(site.erin.holder, 0, 0); len(e.List) != 0 {
		t.Errorf("erin hears %v", names(e))
	}
	if e := next(site.root[0], 0, 0); len(e.List) != 3 {
		t.Errorf("a root member hears %v", names(e))
	}
	heard := make(chan Events, 1)
	go func() {
		got, err := h.NextEvents(context.Background(), look(site.acme, site.dana.holder), site.acme, second.Next, longestWait)
		if err != nil {
			t.Error(err)
		}
		heard <- got
	}()
	if _, err := h.RevokeDelegation(context.Background(), by("DelegationService/RevokeDelegation", revocation{"end", id}, site.dana.holder), "end", site.acme, id); err != nil {
		t.Fatal(err)
	}
	if n := names(<-heard); len(n) != 1 || n[0] != "delegation.revoked" {
		t.Errorf("who waits hears %v", n)
	}
	_, err = h.NextEvents(context.Background(), look(site.acme, site.globexRoot[0]), site.acme, 0, 0)
	wantRefusal(t, "another organization's", err, refusal.QuorumMissing)
	_, err = h.NextEvents(context.Background(), look(site.acme, site.dana.holder), site.acme, 0, time.Minute)
	wantRefusal(t, "too long a wait", err, refusal.RequestInvalid)
}
