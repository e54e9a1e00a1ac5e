package signing

import (
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Replay guards: names under which at most one digest is approved, ever. A decoder
// names what its chain takes once (a nonce of an account, a value of a durable nonce);
// orders and one-time policies are names of our own. The journal takes them with the
// approval and gives them back only when the last share provably was not sent.

// guardKeys are the decoder's names, each within its organization: a nonce account, a
// Safe or a smart account may be named by anybody's payload, and must not be taken
// from those who own it.
func guardKeys(st *Standing, d *chains.Decoded) []string {
	keys := make([]string, len(d.ReplayKeys), len(d.ReplayKeys)+1)
	for i, k := range d.ReplayKeys {
		keys[i] = st.Organization + "/" + k
	}
	return keys
}

// onceKey is the name that one transaction takes under an order or a one-time
// policy; empty for other policies.
func onceKey(st *Standing, p *policy.PolicyResult) string {
	switch {
	case isOrder(p.ID):
		return "order/" + p.ID
	case p.OneTime:
		return st.Organization + "/once/" + p.ID
	}
	return ""
}

// checkReplay refuses a second digest under a replay key, such as another
// transaction with the same nonce.
func checkReplay(known journal.View, guards []string, d *chains.Decoded) error {
	for i, k := range guards {
		if digest, ok := known.ReplayKey(k); ok && digest != digestOf(d) {
			return refusal.New(refusal.PolicyDenied, "something else was signed under %s", d.ReplayKeys[i]).With("rule", "replay-guard")
		}
	}
	return nil
}

// allowedBy picks the policy under which the request is approved: one that is not
// used up by it if there is one, else the first order or one-time policy that no
// other transaction has taken.
func allowedBy(known journal.View, st *Standing, decision policy.Decision, d *chains.Decoded) (*policy.PolicyResult, error) {
	var once, taken *policy.PolicyResult
	for i := range decision.Policies {
		p := &decision.Policies[i]
		if p.Effect != policy.Allow || p.Outcome != policy.Matched {
			continue
		}
		k := onceKey(st, p)
		if k == "" {
			return p, nil
		}
		switch digest, ok := known.ReplayKey(k); {
		case ok && digest != digestOf(d):
			taken = p
		case once == nil:
			once = p
		}
	}
	switch {
	case once != nil:
		return once, nil
	case taken != nil && isOrder(taken.ID):
		return nil, refusal.New(refusal.PolicyDenied, "the order is filled: it allowed another transaction").With("rule", taken.ID)
	case taken != nil:
		return nil, refusal.New(refusal.PolicyDenied, "the policy is used up: it allowed another transaction, and allows one").With("rule", taken.ID)
	}
	return nil, fmt.Errorf("approving: %v by no rule", decision.Outcome)
}
