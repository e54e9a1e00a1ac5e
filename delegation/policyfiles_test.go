package delegation

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/policy"
)

func compiledFiles(t testing.TB, files ...RuleFile) *PolicyFiles {
	t.Helper()
	f, err := CompilePolicyFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPolicyFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files []RuleFile
		want  string
	}{
		"an ALLOW":               {[]RuleFile{{"a.json", []byte(ruleText("p", "ALLOW", "true"))}}, `a.json: "p" allows`},
		"one ALLOW of many":      {[]RuleFile{{"a.json", []byte(ruleText("p", "DENY", "true"))}, {"b.json", []byte(ruleText("q", "ALLOW", "false"))}}, `b.json: "q" allows`},
		"no JSON":                {[]RuleFile{{"a.json", []byte("policies:")}}, "a.json: reading rules"},
		"no grammar":             {[]RuleFile{{"a.json", []byte(ruleText("p", "DENY", "(("))}}, "a.json: "},
		"one id twice":           {[]RuleFile{{"a.json", []byte(ruleText("p", "DENY", "true"))}, {"b.json", []byte(ruleText("p", "DENY", "true"))}}, "b.json: "},
		"a long id":              {[]RuleFile{{"a.json", []byte(ruleText(strings.Repeat("x", maxRuleID+1), "DENY", "true"))}}, "at most 64 characters"},
		"for one delegation":     {[]RuleFile{{"a.json", []byte(`{"policies":[{"id":"p","effect":"EFFECT_DENY","scope":{"delegation":"dlg_1"}}]}`)}}, "for one delegation"},
		"a limit for one":        {[]RuleFile{{"a.json", []byte(`{"limits":[{"id":"l","asset":"eip155:1/slip44:60","max":"1","delegation":"dlg_1"}]}`)}}, "for one delegation"},
		"a limit of no asset":    {[]RuleFile{{"a.json", []byte(`{"limits":[{"id":"l","asset":"gold","max":"1"}]}`)}}, "a.json: "},
		"an effect of its own":   {[]RuleFile{{"a.json", []byte(`{"policies":[{"id":"p","effect":"EFFECT_WARN"}]}`)}}, "a.json: "},
		"an effect left to luck": {[]RuleFile{{"a.json", []byte(`{"policies":[{"id":"p"}]}`)}}, "a.json: "},
	} {
		if f, err := CompilePolicyFiles(c.files); err == nil || f != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", name, f, err, c.want)
		}
	}
}

// The files judge every organization's requests, above whatever allows them.
func TestPolicyFilesJudgeEverybody(t *testing.T) {
	always := policy.Policy{Name: "always", Effect: policy.Allow, Condition: "true", Lang: policy.LangSigild}
	h := newHouse(t, withWallet)
	n := newDelegation("d", solWallet)
	n.Policies, n.OrganizationAllows = []policy.Policy{always}, true
	made, err := h.createDelegation(n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	h.mustSet("s", []NewDocument{rulesDocument("main", ruleText("yes", "ALLOW", "true"))})
	before, err := h.Current(made.DelegationID)
	if err != nil {
		t.Fatal(err)
	}
	if d := h.decide(made.DelegationID); d.Outcome != policy.Allowed {
		t.Fatalf("decision %+v", d)
	}
	deny := compiledFiles(t, RuleFile{"a.json", []byte(ruleText("no", "DENY", "true"))},
		RuleFile{"b.json", []byte(`{"limits":[{"id":"no","asset":"eip155:1/slip44:60","max":"1","include_fees":true}]}`)})
	ctx := context.Background()
	if err := h.LoadPolicyFiles(ctx, deny); err != nil {
		t.Fatal(err)
	}
	e := h.last()
	if e.Method != policyFilesMethod || e.Outcome != "loaded" || e.PolicySet != fmt.Sprintf("%x", deny.Hash()) || e.Facts["files"] != "2" || len(e.Facts["file.a.json"]) != 64 {
		t.Errorf("entry %+v", e)
	}
	check := func() {
		t.Helper()
		now, err := h.Current(made.DelegationID)
		if err != nil || now.PolicySet == before.PolicySet || len(now.Rules.Limits()) != 1 {
			t.Errorf("standing %+v, %v", now, err)
		}
		if d := h.decide(made.DelegationID); d.Outcome != policy.DenyExplicit || d.Rule != "appliance/no" {
			t.Errorf("decision %+v", d)
		}
	}
	check()
	h.unchanged("the same files again", func() {
		if err := h.LoadPolicyFiles(ctx, compiledFiles(t, deny.files...)); err != nil {
			t.Error(err)
		}
	})

	// A bad set is told of, and changes nothing.
	if err := h.RefusedPolicyFiles(ctx, "a.json: nonsense"); err != nil {
		t.Fatal(err)
	}
	if e := h.last(); e.Outcome != "refused" || e.Reason != "a.json: nonsense" || e.PolicySet != fmt.Sprintf("%x", deny.Hash()) {
		t.Errorf("entry %+v", e)
	}
	check()
	// Told once; the same again, or another within a minute, is for log and status.
	refused := func(why string) func() {
		return func() {
			if err := h.RefusedPolicyFiles(ctx, why); err != nil {
				t.Error(err)
			}
		}
	}
	h.unchanged("the same refusal", refused("a.json: nonsense"))
	h.unchanged("another at once", refused("a.json: other nonsense"))
	h.clock.add(time.Minute)
	h.unchanged("the same refusal a minute later", refused("a.json: nonsense"))
	refused("a.json: other nonsense")()
	if e := h.last(); e.Reason != "a.json: other nonsense" {
		t.Errorf("entry %+v, want the other refusal", e)
	}
	if err := h.LoadPolicyFiles(ctx, deny); err != nil {
		t.Fatal(err)
	}
	h.clock.add(time.Minute)
	refused("a.json: other nonsense")()
	if all := h.entries(); all[len(all)-1].Reason != all[len(all)-2].Reason {
		t.Error("a refusal after good files is no news")
	}

	// A start with the files that are known writes nothing about them; without any it does.
	entries := len(h.entries())
	h.cfg.PolicyFiles = deny
	h.restart()
	check()
	if n := len(h.entries()); n != entries {
		t.Errorf("%d entries after a restart, want %d", n, entries)
	}
	h.cfg.PolicyFiles = nil
	h.restart()
	if e := h.last(); e.Method != policyFilesMethod || e.Facts["files"] != "0" {
		t.Errorf("entry %+v, want that the files are gone", e)
	}
	if d := h.decide(made.DelegationID); d.Outcome != policy.Allowed {
		t.Errorf("decision %+v", d)
	}
}
