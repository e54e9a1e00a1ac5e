package signing

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
)

// The other side's no is a denial, but when it only has no time.
func TestRefusalsOfTheOtherParty(t *testing.T) {
	for text, want := range map[string]refusal.Reason{
		"POLICY_DENIED: no policy allows it":            refusal.PolicyDenied,
		"RATE_LIMITED: too many signatures are waiting": refusal.RateLimited,
		"RATE_LIMITED":                     refusal.PolicyDenied,
		"PAUSED: the delegation is paused": refusal.PolicyDenied,
		"":                                 refusal.PolicyDenied,
	} {
		if no := refusedElsewhere(fmt.Errorf("proposing: %w", &mpc.RefusedError{Text: text})); no == nil || no.Reason != want {
			t.Errorf("%q became %v, want %s", text, no, want)
		}
	}
	if no := refusedElsewhere(errors.New("gone")); no != nil {
		t.Errorf("another error became %v", no)
	}
}
