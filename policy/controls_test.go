package policy

import (
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
)

// daily is a control of 100 wei a day, at most five times.
var daily = Limit{ID: "organization/daily", Name: "pocket money", Asset: ether, Max: amount(100), MaxCount: 5, Window: 24 * time.Hour, IncludeFees: true, Control: true}

func controlled(condition string) Policy {
	p := allow(condition)
	p.Lang = LangSigild
	return p
}

func TestConditionsReadLimits(t *testing.T) {
	fresh := ledger{{asset: ether, amount: amount(60), at: noon.Add(-time.Hour)}, {asset: ether, amount: amount(500), at: noon.Add(-25 * time.Hour)}}
	forty := []chains.Charge{to(ether, "alice", 39), charge(ether, amount(1), "fee")}
	open := Limit{ID: "often", MaxCount: 2, AnyAmount: true}
	each := Limit{ID: "each", Asset: usdcAsset, Max: amount(10), Per: PerDestination}
	for _, row := range []struct {
		condition string
		past      ledger
		charges   []chains.Charge
		want      PolicyOutcome
	}{
		{"controls.daily.used == 60 && controls.daily.left == 40 && controls.daily.max == 100 && controls.daily.asked == 40", fresh, forty, Matched},
		{"controls['pocket money'].count == 1 && controls['organization/daily'].count_left == 4 && controls.daily.max_count == 5", fresh, forty, Matched},
		{"controls.daily.asked <= controls.daily.left", fresh, forty, Matched},
		{"controls.daily.asked <= controls.daily.left", fresh, append(forty, forty...), NoMatch},
		{"controls.daily.left == 0", ledger{{asset: ether, amount: amount(101)}}, forty, Matched},
		{"controls.daily.asked == 0 && controls.daily.left == 100", nil, nil, Matched},
		{"controls.daily.used < 100", ledger{{asset: ether, unbounded: true}}, forty, Failed},
		{"controls.daily.count == 1", ledger{{asset: ether, unbounded: true}}, forty, Matched},
		{"controls.daily.asked < 100", fresh, []chains.Charge{{Chain: "eip155:1", Asset: ether, Unbounded: true}}, Failed},
		{"controls.often.count_left == 0", fresh, nil, Matched},
		{"controls.often.used == 0", fresh, nil, Failed},
		{"controls.often.left == 0", fresh, nil, Failed},
		{"controls.each.left == 10", nil, []chains.Charge{to(usdcAsset, "alice", 3)}, Matched},
		{"controls.each.left == 10", nil, []chains.Charge{to(usdcAsset, "alice", 3), to(usdcAsset, "bob", 3)}, Failed},
		{"controls.each.left == 10", nil, nil, Failed},
		{"true || controls.often.max == 1", fresh, nil, Failed},
	} {
		s, ds := Compile([]Policy{controlled(row.condition)}, []Limit{daily, open, each}, nil)
		if s == nil {
			t.Errorf("%s: %v", row.condition, ds)
			continue
		}
		req := evmRequest(t, nil)
		req.Spending = &Spending{Chain: "eip155:1", Charges: row.charges, Now: noon, Spent: row.past.spent}
		if d := s.Evaluate(req); d.Policies[0].Outcome != row.want {
			t.Errorf("%s: got %v (%s), want %v", row.condition, d.Policies[0].Outcome, d.Reason, row.want)
		}
		req.Spending = nil
		if d := s.Evaluate(req); d.Policies[0].Outcome != Failed {
			t.Errorf("%s, spending not known: got %v", row.condition, d.Policies[0].Outcome)
		}
	}
}

func TestControlsThatMustNotCompile(t *testing.T) {
	theirs := Limit{ID: "theirs", Asset: usdcAsset, Max: amount(1), Delegation: "d"}
	twin := Limit{ID: "twin", Name: "pocket money", Asset: usdcAsset, Max: amount(1)}
	imported := allow("controls.daily.left > 0")
	consensus := controlled("eth.tx.nonce == 1")
	consensus.Consensus = "controls.daily.left > 0"
	scoped := controlled("controls.theirs.left > 0")
	scoped.Scope.Delegation = "e"
	for _, row := range []struct {
		policy     Policy
		code, hint string
	}{
		{controlled("controls.dayly.left > 0"), CodeUnknownName, "did you mean daily?"},
		{controlled("controls.daily.lft > 0"), CodeUnknownField, "did you mean left?"},
		{controlled("controls.daily.left == 'much'"), CodeType, ""},
		{controlled("controls.daily == 1"), CodeType, ""},
		{controlled("[controls.daily].count() == 1 && controls == 1"), CodeType, ""},
		{controlled("controls['pocket money'].left > 0"), CodeUnknownName, "name it by its id"},
		{controlled("controls.theirs.left > 0"), CodeWrongClause, "give the policy the scope of that delegation"},
		{scoped, CodeWrongClause, "give the policy the scope of that delegation"},
		{imported, CodeWrongClause, `set lang to "sigild"`},
		{consensus, CodeWrongClause, ""},
	} {
		s, ds := Compile([]Policy{row.policy}, []Limit{daily, theirs, twin}, nil)
		found := false
		for _, d := range ds {
			found = found || d.Code == row.code && (row.hint == "" || d.Suggestion == row.hint)
		}
		if s != nil || !found {
			t.Errorf("%s: got %v, want %s, %q", row.policy.Condition+row.policy.Consensus, ds, row.code, row.hint)
		}
	}
	scoped.Scope.Delegation = "d"
	if s, ds := Compile([]Policy{scoped}, []Limit{theirs}, nil); s == nil {
		t.Errorf("in its own delegation: %v", ds)
	}
}

// Sets that are joined keep their own limits, also where two have one of a name.
func TestJoinedSetsReadTheirOwnLimits(t *testing.T) {
	ours, theirs := controlled("controls.daily.max == 100"), controlled("controls.daily.max == 7")
	ours.ID, theirs.ID = "ours", "theirs"
	seven := daily
	seven.ID, seven.Max = "appliance/daily", amount(7)
	a, _ := Compile([]Policy{ours}, []Limit{daily}, nil)
	b, _ := Compile([]Policy{theirs}, []Limit{seven}, nil)
	s, err := Join(a, b)
	if err != nil {
		t.Fatal(err)
	}
	req := evmRequest(t, nil)
	req.Spending = &Spending{Chain: "eip155:1", Now: noon, Spent: ledger(nil).spent}
	for _, p := range s.Evaluate(req).Policies {
		if p.Outcome != Matched {
			t.Errorf("%s: got %v: %s", p.ID, p.Outcome, p.Error)
		}
	}
}

// Again looks at what reads controls once more, and leaves the rest as it was.
func TestAgainDecidesOnWhatIsSpentNow(t *testing.T) {
	plain := controlled("eth.tx.nonce < 1")
	plain.ID = "a-plain"
	reads := controlled("controls.daily.left >= 40")
	reads.ID = "b-reads"
	s, ds := Compile([]Policy{plain, reads}, []Limit{daily}, nil)
	if s == nil {
		t.Fatal(ds)
	}
	req := evmRequest(t, nil)
	req.Spending = &Spending{Chain: "eip155:1", Now: noon, Spent: ledger{{asset: ether, amount: amount(60)}}.spent}
	first := s.Evaluate(req)
	if first.Outcome != Allowed || first.Rule != "b-reads" {
		t.Fatalf("got %v by %s: %s", first.Outcome, first.Rule, first.Reason)
	}
	req.Spending = &Spending{Chain: "eip155:1", Now: noon, Spent: ledger{{asset: ether, amount: amount(61)}}.spent}
	again := s.Again(first, req)
	if again.Outcome != DenyImplicit || again.SetHash != first.SetHash || again.Policies[0] != first.Policies[0] {
		t.Errorf("with more spent: got %v, %+v", again.Outcome, again.Policies)
	}
	if first.Policies[1].Outcome != Matched {
		t.Error("the first decision was changed")
	}
	other, _ := Compile([]Policy{reads}, []Limit{daily}, nil)
	if d := other.Again(first, req); d.Outcome != DenyError {
		t.Errorf("another set's decision: got %v", d.Outcome)
	}
}
