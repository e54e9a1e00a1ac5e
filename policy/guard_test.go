package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// In our own language an ALLOW of a call that is not understood has to have looked at
// the call; in the imported one it has a lint.
func TestAllowInOurLanguageReadsTheCall(t *testing.T) {
	const condition = "eth.tx.chain_id == 1 && eth.tx.to == '" + usdc + "'"
	for status, want := range map[string]PolicyOutcome{"none": Matched, "exact": Matched, "unknown": NoMatch, "noncanonical": NoMatch} {
		req := evmRequest(t, map[string]chains.Value{"data_status": chains.StringValue(status)})
		got := outcomeOf(t, sigild(condition), req)
		if got.Outcome != want || want == NoMatch && !strings.Contains(got.explain(), "reads nothing of the call") {
			t.Errorf("%s: got %v (%s)", status, got.Outcome, got.explain())
		}
		for _, p := range []Policy{allow(condition), sigild(condition + " && eth.tx.data[0..10] == '0xa9059cbb'"), sigild(condition + " && eth.tx.data_status != ''"),
			{ID: "d", Effect: Deny, Lang: LangSigild, Condition: condition}} {
			if got := outcomeOf(t, p, req); got.Outcome != Matched {
				t.Errorf("%s, %s %v %q: got %v (%s)", status, p.lang(), p.Effect, p.Condition, got.Outcome, got.explain())
			}
		}
	}
}

// What is not understood makes a list an error, unless an imported policy says that it
// wants what is there.
func TestPartialListsAreASwitch(t *testing.T) {
	req := solanaRequest(t, 3)
	tx := req.Decoded.View["solana.tx"]
	tx.List[solana.TxType.Index("transfers")].Partial = true
	const condition = "solana.tx.transfers.all(t, t.amount < 5)"
	if got := outcomeOf(t, allow(condition), req); got.Outcome != Failed {
		t.Errorf("without the switch: got %v", got.Outcome)
	}
	p := allow(condition)
	p.PartialLists = true
	if got := outcomeOf(t, p, req); got.Outcome != Matched {
		t.Errorf("with it: got %v (%s)", got.Outcome, got.Error)
	}
	set, ds := Compile([]Policy{p, {ID: "q", Effect: Allow, Condition: condition}}, nil, nil)
	if d := set.Evaluate(req); d.Policies[1].Outcome != Failed {
		t.Errorf("another policy of the set: got %v", d.Policies[1].Outcome)
	}
	if !slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.ID == "p" && d.Code == CodePartialLists }) {
		t.Errorf("no lint: %v", ds)
	}
	plain, switched := compileSet(t, allow(condition)), compileSet(t, p)
	if plain.Hash() == switched.Hash() {
		t.Error("the switch is not in the hash")
	}
	p.Lang = LangSigild
	if errs := errorsOf(t, p); len(errs) != 1 || errs[0].Code != CodeBadLang {
		t.Errorf("in lang sigild: got %v", errs)
	}
}

// A payload may say something that an ALLOW has to have looked at; a DENY and
// other policies are judged as always.
func TestAllowThatOverlooksAGuardDoesNotAllow(t *testing.T) {
	req := evmRequest(t, map[string]chains.Value{})
	req.Decoded.Guards = []string{"eth.tx.nonce"}
	for _, row := range []struct {
		p    Policy
		want PolicyOutcome
	}{
		{allow("eth.tx.chain_id == 1"), NoMatch},
		{allow(""), NoMatch},
		{allow("eth.tx.chain_id == 1 && eth.tx.nonce >= 0"), Matched},
		{Policy{ID: "d", Effect: Deny, Condition: "eth.tx.chain_id == 1"}, Matched},
	} {
		got := outcomeOf(t, row.p, req)
		if got.Outcome != row.want {
			t.Errorf("%v %q: got %v, want %v", row.p.Effect, row.p.Condition, got.Outcome, row.want)
		}
		if row.want == NoMatch && !strings.Contains(got.explain(), "does not read it") {
			t.Errorf("%q: explained as %q", row.p.Condition, got.explain())
		}
	}
}
