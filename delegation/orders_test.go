package delegation

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func payTemplate() Template {
	return Template{Name: "pay", Condition: "solana.tx.transfers.all(t, t.amount <= ${amount})",
		Parameters: []policy.Parameter{{Name: "amount", Min: "1", Max: "500"}}, MaxOpen: 2, Longest: 3600}
}

// templated makes an active delegation that has templates and no policy.
func (h *house) templated(templates ...Template) (id string, key []byte) {
	h.t.Helper()
	n := newDelegation("templated", solWallet)
	n.Policies, n.Templates = nil, templates
	made, err := h.createDelegation(n)
	if err != nil {
		h.t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	return made.DelegationID, h.apiKey(made.DelegationID)
}

func holderOf(key []byte, n NewOrder) Holder {
	return Holder{Actor: Actor{Caller: caller, Method: "/sigil.v1.OrderService/OpenOrder", RequestHash: sha256.Sum256(fmt.Appendf(nil, "%#v", n))}, WalletID: solWallet, APIKey: key}
}

func (h *house) openOrder(key []byte, n NewOrder) (Order, error) {
	return h.OpenOrder(context.Background(), holderOf(key, n), n)
}

func TestTemplatesOfDelegationsAreChecked(t *testing.T) {
	h := newHouse(t, withWallet)
	h.unchanged("refused templates", func() {
		for name, c := range map[string]struct {
			change func(n *NewDelegation)
			reason refusal.Reason
		}{
			"no name":           {func(n *NewDelegation) { n.Templates[0].Name = "" }, refusal.RequestInvalid},
			"a policy's name":   {func(n *NewDelegation) { n.Templates[0].Name = allow.Name }, refusal.RequestInvalid},
			"none may be open":  {func(n *NewDelegation) { n.Templates[0].MaxOpen = 0 }, refusal.RequestInvalid},
			"too many open":     {func(n *NewDelegation) { n.Templates[0].MaxOpen = maxOpen + 1 }, refusal.RequestInvalid},
			"no time":           {func(n *NewDelegation) { n.Templates[0].Longest = 0 }, refusal.RequestInvalid},
			"too long":          {func(n *NewDelegation) { n.Templates[0].Longest = maxLongest + 1 }, refusal.RequestInvalid},
			"too many":          {func(n *NewDelegation) { n.Templates = make([]Template, maxTemplates+1) }, refusal.RequestInvalid},
			"an open hole":      {func(n *NewDelegation) { n.Templates[0].Parameters = nil }, refusal.PolicyInvalid},
			"no grammar":        {func(n *NewDelegation) { n.Templates[0].Condition += ")" }, refusal.PolicyInvalid},
			"several, no total": {func(n *NewDelegation) { n.Templates[0].MaxTransactions = 2 }, refusal.RequestInvalid},
			"far too many": {func(n *NewDelegation) {
				n.Templates[0].MaxTransactions, n.Templates[0].Totals = maxTransactions+1, []AssetTotal{{Asset: cluster + "/slip44:501", Max: "1"}}
			}, refusal.RequestInvalid},
			"a total of nothing": {func(n *NewDelegation) { n.Templates[0].Totals = []AssetTotal{{Asset: "gold", Max: "1"}} }, refusal.PolicyInvalid},
			"a total twice": {func(n *NewDelegation) {
				n.Templates[0].Totals = []AssetTotal{{Asset: cluster + "/slip44:501", Max: "1"}, {Asset: cluster + "/slip44:501", Max: "1"}}
			}, refusal.PolicyInvalid},
			"a total of no amount": {func(n *NewDelegation) {
				n.Templates[0].Totals = []AssetTotal{{Asset: cluster + "/slip44:501", Max: "1.5"}}
			}, refusal.PolicyInvalid},
			"no bound": {func(n *NewDelegation) { n.Templates[0].Parameters[0].Max = "" }, refusal.PolicyInvalid},
		} {
			n := newDelegation("d", solWallet)
			n.Templates = []Template{payTemplate()}
			c.change(&n)
			_, err := h.createDelegation(n)
			wantRefusal(t, name, err, c.reason)
		}
	})
}

func TestOrdersAreWithinTheirTemplate(t *testing.T) {
	h := newHouse(t, withWallet)
	id, key := h.templated(payTemplate())
	good := func() NewOrder {
		return NewOrder{RequestID: "o", Template: "pay", Values: map[string]string{"amount": "500"}, NotAfter: h.clock.now().Add(time.Hour)}
	}
	h.unchanged("refused orders", func() {
		for name, c := range map[string]struct {
			change    func(n *NewOrder)
			reason    refusal.Reason
			parameter string
		}{
			"too much":         {func(n *NewOrder) { n.Values["amount"] = "501" }, refusal.PolicyDenied, "amount"},
			"a condition":      {func(n *NewOrder) { n.Values["amount"] = "1) || (true" }, refusal.PolicyDenied, "amount"},
			"no value":         {func(n *NewOrder) { n.Values = nil }, refusal.PolicyDenied, "amount"},
			"a value too many": {func(n *NewOrder) { n.Values["more"] = "1" }, refusal.PolicyDenied, `"more"`},
			"too long":         {func(n *NewOrder) { n.NotAfter = n.NotAfter.Add(time.Second) }, refusal.PolicyDenied, "not_after"},
			"over already":     {func(n *NewOrder) { n.NotAfter = h.clock.now() }, refusal.PolicyDenied, "not_after"},
			"no time":          {func(n *NewOrder) { n.NotAfter = time.Time{} }, refusal.PolicyDenied, "not_after"},
			"another template": {func(n *NewOrder) { n.Template = "play" }, refusal.NotFound, ""},
			"a bad request id": {func(n *NewOrder) { n.RequestID = "a b" }, refusal.RequestInvalid, ""},
		} {
			n := good()
			c.change(&n)
			_, err := h.openOrder(key, n)
			if no := wantRefusal(t, name, err, c.reason); no.Details["parameter"] != c.parameter {
				t.Errorf("%s: details %v, want parameter %s", name, no.Details, c.parameter)
			}
		}
	})
	n := good()
	first, err := h.openOrder(key, n)
	if err != nil || !strings.HasPrefix(first.ID, "ord_") || first.Condition != "solana.tx.transfers.all(t, t.amount <= 500)" {
		t.Fatalf("order %+v, %v", first, err)
	}
	if e := h.last(); e.Delegation != id || e.User != site.bot || e.RequestID != "o" || len(e.Credentials) != 1 {
		t.Errorf("entry %+v", e)
	}
	if again, err := h.openOrder(key, n); err != nil || again.ID != first.ID {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	n.RequestID = "o2"
	if _, err := h.openOrder(key, n); err != nil {
		t.Fatal(err)
	}
	n.RequestID = "o3"
	_, err = h.openOrder(key, n)
	if no := wantRefusal(t, "one too many", err, refusal.PolicyDenied); no.Details["parameter"] != "max_open" {
		t.Errorf("details %v", no.Details)
	}
	// They are there after a restart, and gone with the delegation.
	h.restart()
	list, err := h.Orders(holderOf(key, n))
	if err != nil || len(list) != 2 {
		t.Errorf("after a restart: %v, %v", list, err)
	}
	shown, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, id)
	if err != nil || len(shown.Templates) != 1 || shown.Templates[0].Parameters[0].Max != "500" {
		t.Errorf("shown %+v, %v", shown, err)
	}
	r := revocation{"r", id}
	if _, err := h.RevokeDelegation(context.Background(), stamped(site.acme, r, site.dana.holder), "r", site.acme, id); err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if err := h.cfg.Vault.With(context.Background(), vault.TypeOrder, o.ID, func([]byte) error { return nil }); err == nil {
			t.Errorf("order %s is there after the revocation", o.ID)
		}
	}
	_, err = h.openOrder(key, n)
	wantRefusal(t, "an order of a revoked delegation", err, refusal.APIKeyInvalid)
}

// An order that was changed by hand, or belongs to nothing, stops the start.
func TestBadOrdersStopTheStart(t *testing.T) {
	for name, o := range map[string]Order{
		"another id":    {V: 1, ID: "ord_b", Delegation: "dlg_1", Template: "pay", Condition: "true"},
		"no delegation": {V: 1, ID: "ord_a", Delegation: "dlg_9", Template: "pay", Condition: "true"},
		"no condition":  {V: 1, ID: "ord_a", Delegation: "dlg_1", Template: "pay", Condition: "true &&"},
		"a later form":  {V: 2, ID: "ord_a", Delegation: "dlg_1", Template: "pay", Condition: "true"},
	} {
		h := newFullHouse(t)
		h.put(func(tx *vault.Tx) error { return store(tx, vault.TypeOrder, "ord_a", o) })
		if s, err := Open(context.Background(), h.cfg); err == nil {
			s.Close()
			t.Errorf("%s: started", name)
		}
	}
}
