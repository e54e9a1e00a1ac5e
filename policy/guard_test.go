package policy

import (
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
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
