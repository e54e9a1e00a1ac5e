package policy

import (
	"os"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// Every kind of payload has an activity, and the manual says which.
func TestSigningActivityOfEveryKind(t *testing.T) {
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []chains.Kind{chains.KindEVMTransaction, chains.KindEVMMessage, chains.KindEVMTypedData, chains.KindEVMAuthorization,
		chains.KindEVMUserOperation, chains.KindEVMSafeTransaction, chains.KindSolanaMessage, chains.KindSolanaOffchain} {
		a := SigningActivity(kind)
		set := compileSet(t, Policy{ID: "p", Effect: Allow, Condition: "activity.resource == 'PRIVATE_KEY' && activity.action == 'SIGN'"})
		if d := set.Evaluate(Request{Activity: a}); d.Outcome != Allowed {
			t.Errorf("%s: %v: %s", kind, d.Outcome, d.Reason)
		}
		if transaction := a.Params.Type != ""; transaction == (a.Params.Encoding != "") || transaction != (a.Kind == "SIGN_TRANSACTION") {
			t.Errorf("%s is %+v", kind, a)
		}
		for _, word := range []string{a.Type, a.Kind, a.Params.HashFunction, a.Params.Encoding} {
			if word != "" && !strings.Contains(string(b), "`"+word+"`") {
				t.Errorf("%s does not name %s", manual, word)
			}
		}
	}
	// What is not known here is nothing a policy could allow by its activity.
	if d := compileSet(t, allow("activity.action != 'EXPORT'")).Evaluate(Request{Activity: SigningActivity("evm.raw")}); d.Outcome != DenyImplicit || d.Policies[0].Outcome != Failed {
		t.Errorf("an unknown kind: %+v", d)
	}
}
