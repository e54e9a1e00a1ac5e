package signing_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Orders: one transaction each, within what the owner signed.

// payUpTo is a template: pay solPayee at most an amount, of at most 500.
func payUpTo() []delegation.Template {
	return []delegation.Template{{
		Name:       "pay",
		Condition:  "solana.tx.instructions.count() == 1 && solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.to == ${payee} && t.amount <= ${amount})",
		Parameters: []policy.Parameter{{Name: "payee", OneOf: []string{solana.Address(solPayee)}}, {Name: "amount", Min: "1", Max: "500"}},
		MaxOpen:    2, Longest: 3600,
	}}
}

func (h *house) holder(g *grant, request string) delegation.Holder {
	a := delegation.Actor{Method: "/sigil.v1.OrderService/OpenOrder", Caller: caller, RequestHash: sha256.Sum256([]byte(request))}
	return delegation.Holder{Actor: a, WalletID: g.wallet, APIKey: bytes.Clone(g.key)}
}

func (h *house) open(g *grant, id, amount string) (delegation.Order, error) {
	return h.delegation.OpenOrder(context.Background(), h.holder(g, id+amount), delegation.NewOrder{
		RequestID: id, Template: "pay", NotAfter: h.clock.now().Add(time.Hour),
		Values: map[string]string{"payee": solana.Address(solPayee), "amount": amount},
	})
}

func (h *house) mustOpen(g *grant, id, amount string) delegation.Order {
	h.t.Helper()
	o, err := h.open(g, id, amount)
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

func TestOrderAllowsOneTransaction(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo()})
	_, err := h.sign(g[0], "early", g[0].pay(100, 1))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "early")
	order := h.mustOpen(g[0], "order", "100")
	_, err = h.sign(g[0], "more", g[0].pay(101, 2))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "more")
	r := h.mustSign(g[0], "fill", g[0].pay(100, 3))
	if r.Rule != order.ID {
		t.Errorf("allowed by %s, want %s", r.Rule, order.ID)
	}
	e := h.entries(journal.KindApproved)[0]
	if e.Rule != order.ID || e.ReplayKeys[len(e.ReplayKeys)-1] != "order/"+order.ID {
		t.Errorf("approval %+v, want one that takes the order", e)
	}
	if list, err := h.delegation.Orders(h.holder(g[0], "")); err != nil || len(list) != 0 {
		t.Errorf("after it was filled: %v, %v", list, err)
	}
	_, err = h.sign(g[0], "again", g[0].pay(100, 4))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "again")
	if again := h.mustSign(g[0], "fill", g[0].pay(100, 3)); !bytes.Equal(again.Signature, r.Signature) {
		t.Error("the stored answer is another")
	}
	after := h.again()
	_, err = after.sign(g[0], "restarted", g[0].pay(100, 5))
	wantRefusal(t, err, refusal.PolicyDenied)
}

// Sixteen transactions at once under one order: one is signed.
func TestOrderIsFilledOnceUnderConcurrency(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo()})
	h.mustOpen(g[0], "order", "100")
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { _, errs[i] = h.sign(g[0], fmt.Sprint("fill-", i), g[0].pay(100, byte(i))) })
	}
	wg.Wait()
	signed := 0
	for i, err := range errs {
		if err == nil {
			signed++
		} else if !refusal.Is(err, refusal.PolicyDenied) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if signed != 1 {
		t.Errorf("%d transactions under one order", signed)
	}
	h.wantKinds(1, 1, 0, 0)
}

// Two orders, two transactions at once: none is refused for the other's sake.
func TestOrdersAreFilledSideBySide(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo()})
	h.mustOpen(g[0], "one", "100")
	h.mustOpen(g[0], "two", "100")
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	first := h.signLater(g[0], "first", g[0].pay(100, 1))
	<-gate.reached
	h.signing.BeforeRelease(nil)
	second := h.mustSign(g[0], "second", g[0].pay(100, 2))
	gate.open()
	a := <-first
	if a.err != nil || a.result.Rule == second.Rule {
		t.Errorf("first %+v, %v; second by %s", a.result, a.err, second.Rule)
	}
	h.wantKinds(2, 2, 0, 0)
}

// Orders that come and go don't disturb what is under way.
func TestOpeningAnOrderStopsNothing(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo(), policies: []policy.Policy{solAllow}})
	h.signing.BeforeApproval(func() { h.mustOpen(g[0], "one", "1") })
	h.signing.BeforeRelease(func() { h.mustOpen(g[0], "two", "2") })
	if r := h.mustSign(g[0], "id", g[0].pay(400, 1)); r.Rule != "pol_0" {
		t.Errorf("allowed by %s", r.Rule)
	}
}

// A policy of the delegation comes before an order: the order stays open.
func TestPoliciesSpareOrders(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo(), policies: []policy.Policy{solAllow}})
	h.mustOpen(g[0], "order", "100")
	if r := h.mustSign(g[0], "id", g[0].pay(100, 1)); r.Rule != "pol_0" {
		t.Errorf("allowed by %s", r.Rule)
	}
	if list, err := h.delegation.Orders(h.holder(g[0], "")); err != nil || len(list) != 1 {
		t.Errorf("orders %v, %v", list, err)
	}
}

// What failed before its last share left gives the order back.
func TestFailedSignatureGivesTheOrderBack(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo(), end: began.Add(10 * time.Hour)})
	order := h.mustOpen(g[0], "order", "100")
	h.signing.BeforeRelease(func() { h.setRules("set", `{}`) }) // moves what judges
	_, err := h.sign(g[0], "id", g[0].pay(100, 1))
	wantRefusal(t, err, refusal.NotActive)
	h.signing.BeforeRelease(nil)
	if r := h.mustSign(g[0], "other", g[0].pay(99, 2)); r.Rule != order.ID {
		t.Errorf("allowed by %s, want %s", r.Rule, order.ID)
	}
}

// After a crash between approval and signature the order is taken: only the same
// transaction may be asked for again.
func TestCrashLeavesTheOrderTaken(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo()})
	order := h.mustOpen(g[0], "order", "100")
	a, err := h.signing.Approve(context.Background(), g[0].request("id", g[0].pay(100, 1)))
	if err != nil {
		t.Fatal(err)
	}
	after := h.again()
	a.Forget()
	_, err = after.sign(g[0], "other", g[0].pay(100, 2))
	no := wantRefusal(t, err, refusal.PolicyDenied)
	if no.Details["rule"] != order.ID {
		t.Errorf("refusal %v %v, want the order's", no, no.Details)
	}
	if r := after.mustSign(g[0], "id", g[0].pay(100, 1)); r.Rule != order.ID {
		t.Errorf("allowed by %s", r.Rule)
	}
	if list, err := after.delegation.Orders(after.holder(g[0], "")); err != nil || len(list) != 0 {
		t.Errorf("orders %v, %v", list, err)
	}
}

func TestOrdersEnd(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo()})
	order := h.mustOpen(g[0], "order", "100")
	h.clock.add(time.Hour)
	_, err := h.sign(g[0], "late", g[0].pay(100, 1))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "late")
	if list, err := h.delegation.Orders(h.holder(g[0], "")); err != nil || len(list) != 0 {
		t.Errorf("orders %v, %v", list, err)
	}
	next := h.mustOpen(g[0], "next", "100")
	if err := h.vault.With(context.Background(), vault.TypeOrder, order.ID, func([]byte) error { return nil }); err == nil {
		t.Error("the record of an order that ended is still there")
	}
	closing := h.holder(g[0], "close")
	if err := h.delegation.CloseOrder(context.Background(), closing, "close", next.ID); err != nil {
		t.Fatal(err)
	}
	_, err = h.sign(g[0], "closed", g[0].pay(100, 2))
	wantRefusal(t, err, refusal.PolicyDenied)
	err = h.delegation.CloseOrder(context.Background(), h.holder(g[0], "close2"), "close2", next.ID)
	wantRefusal(t, err, refusal.NotFound)
}

// Whoever opens an order shows the key of the wallet, and gets no more than signing would.
func TestOrdersNeedTheKey(t *testing.T) {
	h, g := newHouse(t, terms{templates: payUpTo(), end: began.Add(2 * time.Hour)}, terms{})
	ask := func(x delegation.Holder) error {
		_, err := h.delegation.OpenOrder(context.Background(), x, delegation.NewOrder{RequestID: "r", Template: "pay", NotAfter: h.clock.now().Add(time.Minute),
			Values: map[string]string{"payee": solana.Address(solPayee), "amount": "1"}})
		return err
	}
	wrong := h.holder(g[0], "r")
	wrong.APIKey[len(wrong.APIKey)-1] ^= 1
	wantRefusal(t, ask(wrong), refusal.APIKeyInvalid)
	other := h.holder(g[1], "r") // a delegation of the same wallet, without templates
	wantRefusal(t, ask(other), refusal.NotFound)
	if _, err := h.pause(delegation.Scope{Organization: site.organization}, "p", site.root); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, ask(h.holder(g[0], "r")), refusal.Paused)
	h.clock.add(2 * time.Hour)
	if err := h.delegation.Resume(context.Background(), actor(site.organization, "Resume", site.root), "resume", delegation.Scope{Organization: site.organization}); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, ask(h.holder(g[0], "r")), refusal.DelegationExpired)
	_, err := h.delegation.Orders(h.holder(g[0], ""))
	wantRefusal(t, err, refusal.DelegationExpired)
	h.revoke(g[1])
	wantRefusal(t, ask(h.holder(g[1], "r")), refusal.APIKeyInvalid)
}
