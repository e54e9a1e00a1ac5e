package policy

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

func TestZeroValuesDeny(t *testing.T) {
	var d Decision
	if d.Outcome != DenyImplicit {
		t.Errorf("zero decision: got %v", d.Outcome)
	}
	var p Policy
	if p.Effect != Deny {
		t.Errorf("zero policy: got %v", p.Effect)
	}
	if d := compileSet(t).Evaluate(evmRequest(t, nil)); d.Outcome != DenyImplicit || d.Reason == "" {
		t.Errorf("empty set: got %v %q", d.Outcome, d.Reason)
	}
	var none *Set
	if d := none.Evaluate(evmRequest(t, nil)); d.Outcome != DenyError {
		t.Errorf("no set: got %v", d.Outcome)
	}
	if d := compileSet(t).Evaluate(Request{}); d.Outcome != DenyImplicit {
		t.Errorf("empty request: got %v", d.Outcome)
	}
}

func TestDecisions(t *testing.T) {
	const broken = "eth.tx.data[0..99999] == 'x'"
	allowID := func(id, condition string) Policy { return Policy{ID: id, Effect: Allow, Condition: condition} }
	deny := func(id, condition string) Policy { return Policy{ID: id, Condition: condition} }
	needs := Policy{ID: "c", Effect: Allow, Condition: "eth.tx.value == 0", Consensus: "approvers.count() >= 2"}
	rows := []struct {
		name     string
		policies []Policy
		want     Outcome
		rule     string
	}{
		{"an allow allows", []Policy{allowID("a", "eth.tx.value == 0")}, Allowed, "a"},
		{"the first allow by id is named", []Policy{allowID("b", "true"), allowID("a", "true")}, Allowed, "a"},
		{"an explicit deny wins", []Policy{allowID("a", "true"), deny("d", "eth.tx.nonce == 7")}, DenyExplicit, "d"},
		{"a deny that does not hold", []Policy{allowID("a", "true"), deny("d", "eth.tx.nonce == 8")}, Allowed, "a"},
		{"nothing allows", []Policy{allowID("a", "eth.tx.value == 1"), deny("d", "eth.tx.nonce == 8")}, DenyImplicit, ""},
		{"only a deny", []Policy{deny("d", "eth.tx.nonce == 8")}, DenyImplicit, ""},
		{"an allow that errs does not allow", []Policy{allowID("a", broken)}, DenyImplicit, ""},
		{"another allow still does", []Policy{allowID("a", broken), allowID("b", "true")}, Allowed, "b"},
		{"a deny that errs denies", []Policy{allowID("a", "true"), deny("d", broken)}, DenyError, "d"},
		{"an explicit deny is named before one that errs", []Policy{deny("d", broken), deny("e", "true")}, DenyExplicit, "e"},
		{"consensus missing", []Policy{needs}, RequiresConsensus, "c"},
		{"consensus missing, another allows", []Policy{needs, allowID("x", "true")}, Allowed, "x"},
		{"consensus missing, a deny holds", []Policy{needs, deny("d", "true")}, DenyExplicit, "d"},
		{"consensus missing, condition false", []Policy{{ID: "c", Effect: Allow, Condition: "eth.tx.value == 1", Consensus: "approvers.count() >= 2"}}, DenyImplicit, ""},
		{"consensus errs in an allow", []Policy{{ID: "c", Effect: Allow, Consensus: "approvers[5].id == 'a'"}}, DenyImplicit, ""},
		{"consensus errs in a deny", []Policy{allowID("a", "true"), {ID: "d", Consensus: "approvers[5].id == 'a'", Condition: "false"}}, DenyError, "d"},
		{"condition errs in a deny whose consensus is false", []Policy{allowID("a", "true"), {ID: "d", Consensus: "approvers.count() == 0", Condition: broken}}, DenyError, "d"},
		{"consensus false in a deny", []Policy{allowID("a", "true"), {ID: "d", Consensus: "approvers.count() == 0"}}, Allowed, "a"},
		{"a deny for people", []Policy{allowID("a", "true"), {ID: "d", Consensus: "approvers.any(u, u.id == 'u-1')"}}, DenyExplicit, "d"},
		{"time inactive allow", []Policy{{ID: "a", Effect: Allow, Time: "time.now < Timestamp('2026-01-01T00:00:00Z')"}}, DenyImplicit, ""},
		{"time inactive deny", []Policy{allowID("a", "true"), {ID: "d", Time: "time.now < Timestamp('2026-01-01T00:00:00Z')", Condition: broken}}, Allowed, "a"},
		{"other payload", []Policy{allowID("a", "true"), deny("d", "solana.tx.transfers.any(t, t.amount > 0)")}, Allowed, "a"},
		{"roots of two payloads err", []Policy{allowID("a", "true"), deny("d", "eth.tx.nonce == 8 || solana.tx.transfers.count() == 1")}, DenyError, "d"},
		{"other subject", []Policy{allowID("a", "true"), deny("d", "private_key.tags.contains('x')")}, Allowed, "a"},
		{"subjects of two kinds err", []Policy{allowID("a", "true"), deny("d", "private_key.id == 'x' || wallet.id == 'y'")}, DenyError, "d"},
	}
	for _, row := range rows {
		d := compileSet(t, row.policies...).Evaluate(evmRequest(t, nil))
		if d.Outcome != row.want || d.Rule != row.rule {
			t.Errorf("%s: got %v by %q (%s), want %v by %q", row.name, d.Outcome, d.Rule, d.Reason, row.want, row.rule)
		}
	}
}

func TestRulesAboutTimeNeedAClock(t *testing.T) {
	req := evmRequest(t, nil)
	req.Now = time.Time{}
	later := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, p := range []Policy{
		{ID: "x", Time: "time.now < Timestamp('2020-01-01T00:00:00Z')"},
		{ID: "x", NotAfter: later},
	} {
		if d := compileSet(t, allow("true"), p).Evaluate(req); d.Outcome != DenyError {
			t.Errorf("DENY without a clock: got %v", d.Outcome)
		}
		p.Effect = Allow
		if d := compileSet(t, p).Evaluate(req); d.Outcome != DenyImplicit {
			t.Errorf("ALLOW without a clock: got %v", d.Outcome)
		}
	}
}

func TestNotAfterIsEndExclusive(t *testing.T) {
	end := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	s := compileSet(t, Policy{ID: "p", Effect: Allow, NotAfter: end})
	req := evmRequest(t, nil)
	for at, want := range map[time.Time]Outcome{end.Add(-1): Allowed, end: DenyImplicit, end.Add(1): DenyImplicit} {
		req.Now = at
		if d := s.Evaluate(req); d.Outcome != want {
			t.Errorf("at %v: got %v, want %v", at, d.Outcome, want)
		}
	}
	req.Now = end
	if d := s.Evaluate(req); d.Reason != `policy "p": has ended` {
		t.Errorf("got %q", d.Reason)
	}
}

func TestScopeIsOneDelegation(t *testing.T) {
	mine := Policy{ID: "b", Effect: Allow, Scope: Scope{Delegation: "d-1"}}
	others := Policy{ID: "c", Scope: Scope{Delegation: "d-2"}}
	all := Policy{ID: "a", Condition: "eth.tx.nonce == 8"}
	also := Policy{ID: "d", Condition: "eth.tx.nonce == 8"}
	s := compileSet(t, mine, others, all, also)
	for delegation, want := range map[string]struct {
		outcome Outcome
		ids     string
	}{"": {DenyImplicit, "a d"}, "d-1": {Allowed, "a b d"}, "d-2": {DenyExplicit, "a c d"}, "d-3": {DenyImplicit, "a d"}} {
		req := evmRequest(t, nil)
		req.DelegationID = delegation
		d := s.Evaluate(req)
		var ids []string
		for _, r := range d.Policies {
			ids = append(ids, r.ID)
		}
		if d.Outcome != want.outcome || strings.Join(ids, " ") != want.ids {
			t.Errorf("delegation %q: got %v over %v, want %v over %s", delegation, d.Outcome, ids, want.outcome, want.ids)
		}
	}
}

func TestReasonsNameWhatDecided(t *testing.T) {
	named := func(condition string) Policy {
		return Policy{ID: "p-1", Name: "payouts", Effect: Allow, Condition: condition}
	}
	rows := []struct {
		policies []Policy
		want     string
	}{
		{[]Policy{named("eth.tx.value == 0 && eth.tx.to == '" + recipient + "'")},
			`policy "payouts": eth.tx.to == '` + recipient + `' is false`},
		{[]Policy{named("eth.tx.value == 0 && (eth.tx.nonce == 8\n || eth.tx.nonce == 9) && eth.tx.chain_id == 2")},
			`policy "payouts": (eth.tx.nonce == 8  || eth.tx.nonce == 9) is false`},
		{[]Policy{named("eth.tx.data[0..999] == '0x'")},
			`policy "payouts": eth.tx.data[0..999] could not be evaluated: characters 0..999 of a text of 138`},
		{[]Policy{named("eth.tx.value == 0")}, `policy "payouts" holds`},
		{[]Policy{{ID: "p-1", Effect: Allow, Consensus: "approvers.count() == 2 && approvers.any(u, u.id == 'u-9')"}},
			`policy "p-1": needs consensus: approvers.count() == 2 is false`},
		{[]Policy{{ID: "p-1", Effect: Allow, Time: "time.now > Timestamp('2030-01-01T00:00:00Z')"}},
			`policy "p-1": outside its time: time.now > Timestamp('2030-01-01T00:00:00Z') is false`},
		{[]Policy{named("solana.tx.transfers.count() == 1")}, `policy "payouts": is about another kind of request`},
		{[]Policy{named("activity.params.encoding == 'x'")},
			`policy "payouts": activity.params.encoding could not be evaluated: activity.params.encoding does not exist here`},
		{[]Policy{{ID: "d", Condition: "true"}}, `policy "d" holds`},
		{[]Policy{{ID: "d", Condition: "false"}}, `no policy allows anything here`},
		// The one that came closest: fewest conjuncts missed, then most held.
		{[]Policy{
			{ID: "a", Effect: Allow, Condition: "eth.tx.value == 5 && eth.tx.nonce == 5"},
			{ID: "b", Effect: Allow, Condition: "eth.tx.value == 0 && eth.tx.nonce == 6"},
			{ID: "c", Effect: Allow, Condition: "eth.tx.nonce == 4"},
			{ID: "e", Effect: Allow, Condition: "solana.tx.transfers.count() == 1"},
		}, `policy "b": eth.tx.nonce == 6 is false`},
		{[]Policy{named("wallet.id == '" + strings.Repeat("ß", 300) + "'")},
			`policy "payouts": wallet.id == '` + strings.Repeat("ß", 73) + `... is false`},
	}
	for _, row := range rows {
		if d := compileSet(t, row.policies...).Evaluate(evmRequest(t, nil)); d.Reason != row.want {
			t.Errorf("got  %s\nwant %s", d.Reason, row.want)
		}
	}
}

func TestResultsSayWhereItWasDecided(t *testing.T) {
	src := "eth.tx.value == 0 && !(eth.tx.nonce == 7)"
	r := outcomeOf(t, allow(src), evmRequest(t, nil))
	if r.Clause != ClauseCondition || r.Expr != "!(eth.tx.nonce == 7)" || r.Offset != 21 {
		t.Errorf("got clause %q, expr %q at %d", r.Clause, r.Expr, r.Offset)
	}
	if r := outcomeOf(t, allow("true"), evmRequest(t, nil)); r.Clause != "" || r.Expr != "" {
		t.Errorf("a policy that holds: got clause %q, expr %q", r.Clause, r.Expr)
	}
}

func TestPayloadOfAnotherKindIsDenied(t *testing.T) {
	req := evmRequest(t, nil)
	req.Kind = chains.KindSolanaMessage
	if d := compileSet(t, allow("true")).Evaluate(req); d.Outcome != DenyError {
		t.Errorf("got %v, want DENY_ERROR", d.Outcome)
	}
}

func TestEvaluateSurvivesPanics(t *testing.T) {
	s := compileSet(t, allow("eth.tx.value == 0"))
	s.policies[0].condition.parts[0].holds = func(*frame) (bool, *evalError) { panic("boom") }
	d := s.Evaluate(evmRequest(t, nil))
	if d.Outcome != DenyError || d.SetHash != s.Hash() || strings.Contains(d.Reason, "boom") {
		t.Errorf("got %v %q", d.Outcome, d.Reason)
	}
}

// goldenPolicies and goldenLimits must hash to golden for ever; a change of the
// language raises LanguageVersion and makes a new golden hash.
var (
	goldenPolicies = []Policy{
		{ID: "p-1", Name: "payouts", Effect: Allow, Condition: "eth.tx.chain_id == 1", Consensus: "approvers.count() > 0", Time: "time.now < Timestamp('2030-01-01T00:00:00Z')",
			Lang: LangSigild, Scope: Scope{Delegation: "d-1"}, NotAfter: time.Unix(1893456000, 5)},
		{ID: "p-2", Condition: "eth.tx.nonce == 0"},
	}
	goldenLimits = []Limit{
		{ID: "l-2", Asset: "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp/slip44:501", Max: *uint256.NewInt(5)},
		{ID: "l-1", Name: "daily", Asset: "eip155:1/erc20:" + usdc, Max: *uint256.NewInt(1000), Window: 24 * time.Hour, Delegation: "d-1", IncludeFees: true},
	}
)

const golden = "7cf9595a3c7c7376aa06e5c2dc0ef8f7b5a4dc9903b3f732a777d3d2cd96985b"

func TestSetHashIsStable(t *testing.T) {
	hashOf := func(ps []Policy, ls []Limit) string {
		s, ds := Compile(ps, ls, nil)
		if s == nil {
			t.Fatal(ds)
		}
		h := s.Hash()
		return hex.EncodeToString(h[:])
	}
	if got := hashOf(goldenPolicies, goldenLimits); got != golden {
		t.Errorf("got %s, want %s", got, golden)
	}
	backwards, limits := slices.Clone(goldenPolicies), slices.Clone(goldenLimits)
	slices.Reverse(backwards)
	slices.Reverse(limits)
	if got := hashOf(backwards, limits); got != golden {
		t.Errorf("in another order: got %s", got)
	}
	seen := map[string]string{golden: "unchanged"}
	change := func(name string, edit func(*Policy, *Limit)) {
		ps, ls := slices.Clone(goldenPolicies), slices.Clone(goldenLimits)
		edit(&ps[0], &ls[1])
		h := hashOf(ps, ls)
		if other, ok := seen[h]; ok {
			t.Errorf("changing %s hashes as %s", name, other)
		}
		seen[h] = name
	}
	change("id", func(p *Policy, _ *Limit) { p.ID = "p-3" })
	change("name", func(p *Policy, _ *Limit) { p.Name = "x" })
	change("effect", func(p *Policy, _ *Limit) { p.Effect = Deny })
	change("condition", func(p *Policy, _ *Limit) { p.Condition += " " })
	change("consensus", func(p *Policy, _ *Limit) { p.Consensus = "" })
	change("time", func(p *Policy, _ *Limit) { p.Time = "" })
	change("lang", func(p *Policy, _ *Limit) { p.Lang = LangTurnkey })
	change("scope", func(p *Policy, _ *Limit) { p.Scope.Delegation = "d-2" })
	change("not after", func(p *Policy, _ *Limit) { p.NotAfter = p.NotAfter.Add(1) })
	change("no end", func(p *Policy, _ *Limit) { p.NotAfter = time.Time{} })
	change("limit id", func(_ *Policy, l *Limit) { l.ID = "l-3" })
	change("limit name", func(_ *Policy, l *Limit) { l.Name = "" })
	change("asset", func(_ *Policy, l *Limit) { l.Asset = "eip155:1/slip44:60" })
	change("max", func(_ *Policy, l *Limit) { l.Max.SetUint64(1001) })
	change("window", func(_ *Policy, l *Limit) { l.Window = 0 })
	change("delegation", func(_ *Policy, l *Limit) { l.Delegation = "" })
	change("fees", func(_ *Policy, l *Limit) { l.IncludeFees = false })
}

func TestCompileKeepsNothingOfItsArguments(t *testing.T) {
	ps := []Policy{{ID: "b", Effect: Allow}, {ID: "a", Effect: Allow, Condition: "false"}}
	s := compileSet(t, ps...)
	if ps[0].ID != "b" {
		t.Error("the caller's slice was sorted")
	}
	ps[0].Effect, ps[0].ID = Deny, "zz"
	if d := s.Evaluate(evmRequest(t, nil)); d.Outcome != Allowed || d.Rule != "b" {
		t.Errorf("got %v by %q", d.Outcome, d.Rule)
	}
}

func TestTenThousandPolicies(t *testing.T) {
	ps := make([]Policy, 10_000)
	for i := range ps {
		ps[i] = Policy{ID: fmt.Sprintf("p-%05d", i), Effect: Allow, Condition: "eth.tx.chain_id == 1 && eth.tx.to == '" + usdc + "' && eth.tx.nonce == " + fmt.Sprint(i+1000)}
	}
	d := compileSet(t, ps...).Evaluate(evmRequest(t, nil))
	if d.Outcome != DenyImplicit || len(d.Policies) != len(ps) {
		t.Errorf("got %v over %d policies", d.Outcome, len(d.Policies))
	}
}

func TestOutcomesAreSpelledAsTheCorpusDoes(t *testing.T) {
	d := compileSet(t, allow("eth.tx.nonce == 8")).Evaluate(evmRequest(t, nil))
	b, err := json.Marshal(d.Policies)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"id":"p","effect":"EFFECT_ALLOW","outcome":"NO_MATCH","clause":"condition","expr":"eth.tx.nonce == 8"}]`
	if string(b) != want {
		t.Errorf("got %s\nwant %s", b, want)
	}
	for o, want := range map[Outcome]string{DenyImplicit: "DENY_IMPLICIT", DenyExplicit: "DENY_EXPLICIT", DenyError: "DENY_ERROR",
		RequiresConsensus: "REQUIRES_CONSENSUS", Allowed: "ALLOW", 9: "UNKNOWN_9"} {
		if b, _ := o.MarshalText(); string(b) != want {
			t.Errorf("got %s, want %s", b, want)
		}
	}
	if b, _ := json.Marshal([]Severity{SeverityError, SeverityLint}); string(b) != `["error","lint"]` {
		t.Errorf("got %s", b)
	}
}

// Parts with one text are compiled once; what their errors point at is each policy's own.
func TestSharedPartsPointIntoTheirOwnPolicy(t *testing.T) {
	const part = "eth.tx.data[0..200] == '0xa9059cbb'"
	set := compileSet(t, Policy{ID: "a", Effect: Allow, Condition: part}, Policy{ID: "b", Effect: Allow, Condition: "eth.tx.chain_id == 1 &&\n\t" + part})
	for i, offset := range []int{0, 25} {
		if r := set.Evaluate(evmRequest(t, nil)).Policies[i]; r.Outcome != Failed || r.Offset != offset || r.Expr != "eth.tx.data[0..200]" {
			t.Errorf("policy %s: %v at %d: %q", r.ID, r.Outcome, r.Offset, r.Expr)
		}
	}
}
