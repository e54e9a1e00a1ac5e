package signing_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
)

// What an organization's own rules do to requests, those under way included.

// setRules replaces acme's document of rules.
func (h *house) setRules(id, content string) {
	h.t.Helper()
	a := actor(site.organization, "SetDocuments", site.root)
	now, err := h.delegation.Documents(a, site.organization, nil)
	if err == nil {
		_, err = h.delegation.SetDocuments(context.Background(), a, delegation.DocumentChanges{
			RequestID: id, Organization: site.organization, Expected: now.Version,
			Set: []delegation.NewDocument{{DocumentName: delegation.DocumentName{Kind: delegation.KindRules, Name: "main"}, Content: []byte(content)}},
		})
	}
	if err != nil {
		h.t.Error(err)
	}
}

const denyTen = `{"policies":[{"id":"below-ten","effect":"EFFECT_DENY","condition":"solana.tx.transfers.any(t, t.amount >= 10)"}]}`

func TestOrganizationDenies(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.mustSign(g[0], "before", g[0].pay(10, 1))
	h.setRules("set", denyTen)
	_, err := h.sign(g[0], "after", g[0].pay(10, 2))
	no := wantRefusal(t, err, refusal.PolicyDenied)
	if no.Details["rule"] != "organization/below-ten" {
		t.Errorf("details %v, want the rule", no.Details)
	}
	h.wantRefused(no, "after")
	h.mustSign(g[0], "less", g[0].pay(9, 3))
	all := h.entries(journal.KindApproved)
	if len(all) != 2 || len(all[0].PolicySet) != 64 || all[0].PolicySet == all[1].PolicySet {
		t.Errorf("approvals %+v, want two under two policy sets", all)
	}
}

// New rules between judging and approval: the request goes back and is judged by them.
func TestRulesMovedBetweenJudgingAndApproval(t *testing.T) {
	for _, lamports := range []uint64{10, 9} {
		h, g := newHouse(t, terms{})
		once := false
		h.signing.BeforeApproval(func() {
			if !once {
				once = true
				h.setRules("set", denyTen)
			}
		})
		_, err := h.sign(g[0], "id", g[0].pay(lamports, 1))
		if lamports == 10 {
			h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "id")
			h.wantKinds(0, 0, 0, 0)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		h.wantKinds(1, 1, 0, 0)
	}
}

// New rules before the last share leaves: nothing comes out, the charge is given
// back, and the same request is judged by the new rules.
func TestRulesMovedBeforeTheLastShare(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	h.signing.BeforeRelease(func() { h.setRules("set", denyTen) })
	_, err := h.sign(g[0], "id", g[0].pay(10, 1))
	wantRefusal(t, err, refusal.NotActive)
	h.wantKinds(1, 0, 1, 0)
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
	h.signing.BeforeRelease(nil)
	_, err = h.sign(g[0], "id", g[0].pay(10, 1))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "id")
}

// A limit of the organization sums what all delegations spend, and tells none of
// them what the others did.
func TestOrganizationLimitCountsEverybody(t *testing.T) {
	h, g := newHouse(t, terms{}, terms{})
	h.setRules("set", fmt.Sprintf(`{"limits":[{"id":"all","name":"a day","asset":%q,"max":"400","window_seconds":86400}]}`, sol))
	h.mustSign(g[0], "one", g[0].pay(317, 1))
	_, err := h.sign(g[1], "two", g[1].pay(84, 2))
	no := wantRefusal(t, err, refusal.LimitExceeded)
	h.wantRefused(no, "two")
	if no.Details["rule"] != "organization/all" || no.Details["limit"] != "a day" || no.After != day {
		t.Errorf("refusal %v, details %v, after %v", no, no.Details, no.After)
	}
	for _, secret := range []string{"317", "400", "83"} {
		if strings.Contains(no.Message+fmt.Sprint(no.Details), secret) {
			t.Errorf("the refusal tells %s: %v %v", secret, no, no.Details)
		}
	}
	h.mustSign(g[1], "three", g[1].pay(83, 3))
}

// What a file of the appliance says may be about others: the caller hears the rule
// and no word of it, whether it denies or can't be evaluated.
func TestPolicyFilesTellNothing(t *testing.T) {
	secret := "5Q544fKrFoe6tsEbD7S8EmxGTJYAKtTVhAW5Q5pge4j1"
	for name, condition := range map[string]string{
		"denied":             "solana.tx.transfers.any(t, t.amount == 10) || solana.tx.transfers.any(t, t.to == '" + secret + "')",
		"in error":           "solana.tx.transfers[5].to == '" + secret + "'",
		"denied by its name": "solana.tx.transfers.count() == 1",
	} {
		h, g := newHouse(t, terms{})
		f, err := delegation.CompilePolicyFiles([]delegation.RuleFile{{Name: "host.json",
			Content: fmt.Appendf(nil, `{"policies":[{"id":"guard","name":"about globex","effect":"EFFECT_DENY","condition":%q}]}`, condition)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.delegation.LoadPolicyFiles(context.Background(), f); err != nil {
			t.Fatal(err)
		}
		_, err = h.sign(g[0], "id", g[0].pay(10, 1))
		no := wantRefusal(t, err, refusal.PolicyDenied)
		h.wantRefused(no, "id")
		if said := no.Message + fmt.Sprint(no.Details); no.Details["rule"] != "appliance/guard" || strings.Contains(said, secret) || strings.Contains(said, "globex") || strings.Contains(said, "solana.tx") {
			t.Errorf("%s: told %q %v", name, no.Message, no.Details)
		}
	}
}

// Files loaded while a signature is under way stop it before its last share.
func TestPolicyFilesMovedBeforeTheLastShare(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	h.signing.BeforeRelease(func() {
		f, err := delegation.CompilePolicyFiles([]delegation.RuleFile{{Name: "host.json", Content: []byte(denyTen)}})
		if err == nil {
			err = h.delegation.LoadPolicyFiles(context.Background(), f)
		}
		if err != nil {
			t.Error(err)
		}
	})
	_, err := h.sign(g[0], "id", g[0].pay(10, 1))
	wantRefusal(t, err, refusal.NotActive)
	h.signing.BeforeRelease(nil)
	_, err = h.sign(g[0], "id", g[0].pay(10, 1))
	wantRefusal(t, err, refusal.PolicyDenied)
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
}

// A limit of the appliance bounds each organization for itself, and says no sums.
func TestPolicyFilesLimit(t *testing.T) {
	h, g := newHouse(t, terms{}, terms{})
	f, err := delegation.CompilePolicyFiles([]delegation.RuleFile{{Name: "host.json", Content: fmt.Appendf(nil, `{"limits":[{"id":"cap","asset":%q,"max":"400"}]}`, sol)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.delegation.LoadPolicyFiles(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	h.mustSign(g[0], "one", g[0].pay(317, 1))
	_, err = h.sign(g[1], "two", g[1].pay(84, 2))
	no := wantRefusal(t, err, refusal.LimitExceeded)
	if no.Details["rule"] != "appliance/cap" || strings.Contains(no.Message, "317") || strings.Contains(no.Message, "400") {
		t.Errorf("refusal %v %v", no, no.Details)
	}
}
