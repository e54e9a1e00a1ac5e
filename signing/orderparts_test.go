package signing_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Orders of several transactions, and their owner.

// inParts is payUpTo for orders of up to three transactions and 250 lamports together.
func inParts() []delegation.Template {
	list := payUpTo()
	list[0].MaxTransactions, list[0].Totals = 3, []delegation.AssetTotal{{Asset: sol, Max: "250"}}
	return list
}

// openParts opens an order of transactions of at most 100 lamports each.
func (h *house) openParts(g *grant, id string, transactions int, totals ...delegation.AssetTotal) (delegation.Order, error) {
	return h.delegation.OpenOrder(context.Background(), h.holder(g, id), delegation.NewOrder{
		RequestID: id, Template: "pay", NotAfter: h.clock.now().Add(time.Hour), Transactions: transactions, Totals: totals,
		Values: map[string]string{"payee": solana.Address(solPayee), "amount": "100"},
	})
}

func TestOrderOfSeveralTransactions(t *testing.T) {
	h, g := newHouse(t, terms{templates: inParts()})
	order, err := h.openParts(g[0], "order", 3)
	if err != nil {
		t.Fatal(err)
	}
	h.mustSign(g[0], "a", g[0].pay(100, 1))
	h.mustSign(g[0], "a", g[0].pay(100, 1)) // asked for again it is the same transaction
	h.mustSign(g[0], "b", g[0].pay(100, 2))
	_, err = h.sign(g[0], "above", g[0].pay(51, 3))
	no := wantRefusal(t, err, refusal.LimitExceeded)
	if h.wantRefused(no, "above"); no.Details["rule"] != order.ID || no.Details["asset"] != sol {
		t.Errorf("details %v, want the order and its asset", no.Details)
	}
	after := h.again() // what it spent is on disk
	_, err = after.sign(g[0], "above", g[0].pay(51, 3))
	wantRefusal(t, err, refusal.LimitExceeded)
	if list, err := h.delegation.Orders(h.holder(g[0], "")); err != nil || len(list) != 1 {
		t.Errorf("orders %v, %v, want the one with a place left", list, err)
	}
	if r := h.mustSign(g[0], "c", g[0].pay(50, 4)); r.Rule != order.ID {
		t.Errorf("allowed by %s", r.Rule)
	}
	if list, err := h.delegation.Orders(h.holder(g[0], "")); err != nil || len(list) != 0 {
		t.Errorf("orders %v, %v, want none", list, err)
	}
	_, err = h.sign(g[0], "d", g[0].pay(1, 5))
	wantRefusal(t, err, refusal.PolicyDenied)
}

// Sixteen at once: the total lets two of 100 through, whatever places are left.
func TestOrderTotalsUnderConcurrency(t *testing.T) {
	h, g := newHouse(t, terms{templates: inParts()})
	if _, err := h.openParts(g[0], "order", 3); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { _, errs[i] = h.sign(g[0], fmt.Sprint("part-", i), g[0].pay(100, byte(i))) })
	}
	wg.Wait()
	signed := 0
	for i, err := range errs {
		if err == nil {
			signed++
		} else if !refusal.Is(err, refusal.LimitExceeded) && !refusal.Is(err, refusal.PolicyDenied) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if signed != 2 {
		t.Errorf("%d transactions of 100 under a total of 250, want 2", signed)
	}
}

// What failed before its last share left gives place and amount back.
func TestFailedPartIsGivenBack(t *testing.T) {
	h, g := newHouse(t, terms{templates: inParts()})
	if _, err := h.openParts(g[0], "order", 3, delegation.AssetTotal{Asset: sol, Max: "100"}); err != nil {
		t.Fatal(err)
	}
	id := delegation.ShareID(g[0].set.ID, "server")
	h.update(func(tx *vault.Tx) error { return tx.Delete(vault.TypeShare, id) })
	_, err := h.sign(g[0], "a", g[0].pay(100, 1))
	wantRefusal(t, err, refusal.CeremonyFailed)
	h.update(func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, id, g[0].set.Shares(t, "server")[0]) })
	h.mustSign(g[0], "b", g[0].pay(100, 2))
	_, err = h.sign(g[0], "c", g[0].pay(1, 3))
	wantRefusal(t, err, refusal.LimitExceeded)
}

func TestOrdersAreNoWiderThanTheirTemplate(t *testing.T) {
	h, g := newHouse(t, terms{templates: inParts()}, terms{templates: payUpTo()})
	for name, c := range map[string]struct {
		g            *grant
		transactions int
		totals       []delegation.AssetTotal
		parameter    string
	}{
		"too many":           {g[0], 4, nil, "transactions"},
		"more than none":     {g[1], 2, nil, "transactions"},
		"less than none":     {g[0], -1, nil, "transactions"},
		"too much":           {g[0], 3, []delegation.AssetTotal{{Asset: sol, Max: "251"}}, "totals"},
		"of something else":  {g[0], 3, []delegation.AssetTotal{{Asset: wei, Max: "1"}}, "totals"},
		"of no bound":        {g[1], 1, []delegation.AssetTotal{{Asset: sol, Max: "1"}}, "totals"},
		"of no known amount": {g[0], 3, []delegation.AssetTotal{{Asset: sol, Max: "-1"}}, "totals"},
	} {
		_, err := h.openParts(c.g, "wide", c.transactions, c.totals...)
		if no := wantRefusal(t, err, refusal.PolicyDenied); no.Details["parameter"] != c.parameter {
			t.Errorf("%s: details %v, want parameter %s", name, no.Details, c.parameter)
		}
	}
}

// The owner, or the root, ends an order that is open; nobody else does.
func TestOwnersEndOrders(t *testing.T) {
	h, g := newHouse(t, terms{templates: inParts()})
	_, ann := h.user("ann")
	end := func(id, order string, who *credential.PrivateKey) error {
		a := actor(site.organization, "OrderService/EndOrder", who)
		a.RequestHash = sha256.Sum256([]byte(id))
		return h.delegation.EndOrder(context.Background(), a, id, site.organization, g[0].id, order)
	}
	for i, who := range []*credential.PrivateKey{site.dana, site.root} {
		order, err := h.openParts(g[0], fmt.Sprint("order-", i), 3)
		if err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, end(fmt.Sprint("ann-", i), order.ID, ann[0]), refusal.QuorumMissing)
		if list, err := h.delegation.OpenOrders(actor(site.organization, "ShowOrders", who), site.organization, g[0].id); err != nil || len(list) != 1 || list[0].ID != order.ID {
			t.Errorf("orders %v, %v, want %s", list, err, order.ID)
		}
		_, err = h.delegation.OpenOrders(actor(site.organization, "ShowOrders", ann[0]), site.organization, g[0].id)
		wantRefusal(t, err, refusal.NotFound)
		h.mustSign(g[0], fmt.Sprint("first-", i), g[0].pay(10, byte(2*i)))
		if err := end(fmt.Sprint("end-", i), order.ID, who); err != nil {
			t.Fatal(err)
		}
		_, err = h.sign(g[0], fmt.Sprint("second-", i), g[0].pay(10, byte(2*i+1)))
		wantRefusal(t, err, refusal.PolicyDenied)
		wantRefusal(t, end(fmt.Sprint("twice-", i), order.ID, who), refusal.NotFound)
	}
}
