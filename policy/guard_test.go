package policy

import (
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

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
