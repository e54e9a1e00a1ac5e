package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Outcome is the answer to a request. The zero value denies.
type Outcome uint8

// The outcomes.
const (
	// DenyImplicit: no policy allows it.
	DenyImplicit Outcome = iota
	// DenyExplicit: a DENY policy holds.
	DenyExplicit
	// DenyError: a DENY policy could not be evaluated, or the request is broken.
	DenyError
	// RequiresConsensus: an ALLOW policy would hold with more approvals.
	RequiresConsensus
	// Allowed: an ALLOW policy holds and no DENY policy does.
	Allowed
)

var outcomeNames = [...]string{"DENY_IMPLICIT", "DENY_EXPLICIT", "DENY_ERROR", "REQUIRES_CONSENSUS", "ALLOW"}

// String returns DENY_IMPLICIT, DENY_EXPLICIT, DENY_ERROR, REQUIRES_CONSENSUS or ALLOW.
func (o Outcome) String() string { return nameOf(outcomeNames[:], uint8(o)) }

// MarshalText writes what String returns.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// PolicyOutcome is what became of one policy.
type PolicyOutcome uint8

// The outcomes of a policy.
const (
	NoMatch        PolicyOutcome = iota // a clause is false
	Matched                             // every clause holds: it allows or denies
	NeedsConsensus                      // an ALLOW that lacks only its consensus
	Failed                              // a clause could not be evaluated
	TimeInactive                        // outside its time, or past NotAfter
	NotApplicable                       // about another kind of payload or subject
)

var policyOutcomeNames = [...]string{"NO_MATCH", "MATCH", "REQUIRES_CONSENSUS", "ERROR", "TIME_INACTIVE", "NOT_APPLICABLE"}

// String returns NO_MATCH, MATCH, REQUIRES_CONSENSUS, ERROR, TIME_INACTIVE or NOT_APPLICABLE.
func (o PolicyOutcome) String() string { return nameOf(policyOutcomeNames[:], uint8(o)) }

// MarshalText writes what String returns.
func (o PolicyOutcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

func nameOf(names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("UNKNOWN_%d", i)
}

// PolicyResult says what became of one policy and which part of its text decided.
type PolicyResult struct {
	ID      string        `json:"id"`
	Name    string        `json:"name,omitempty"`
	Effect  Effect        `json:"effect"`
	Outcome PolicyOutcome `json:"outcome"`
	// OneTime and Replace as in [Policy]; who approves the request looks at them.
	OneTime bool `json:"-"`
	Replace bool `json:"-"`
	// Clause and Expr are the clause and the piece of its source that decided: the
	// first top-level conjunct that is false, or what could not be evaluated.
	// Offset is where it starts. Clause is empty when every clause holds.
	Clause string `json:"clause,omitempty"`
	Expr   string `json:"expr,omitempty"`
	Offset int    `json:"offset,omitempty"`
	// Error says why Expr could not be evaluated.
	Error string `json:"error,omitempty"`

	// held and missed count conjuncts, to find the policy that came closest.
	held, missed int
}

// Decision is the answer of [Set.Evaluate].
type Decision struct {
	Outcome Outcome
	// Rule is the id of the policy that decided; empty when none did, which is an
	// implicit deny or a broken request. PolicyName is its name; in an implicit deny
	// that of the ALLOW policy which came nearest.
	Rule, PolicyName string
	// Reason is one line for operators; it quotes policy text. It must not be shown
	// to others than the organization whose policies these are.
	Reason string
	// Policies holds every policy in scope, ordered by id.
	Policies []PolicyResult
	SetHash  [32]byte
	// Steps is how much work it was.
	Steps int
}

// maxReason bounds the source text that is quoted in a reason.
const maxReason = 160

// quote makes a piece of source fit into a reason: one line, not too long.
func quote(s string) string {
	tail := ""
	if cut := maxReason; len(s) > cut {
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s, tail = s[:cut], "..."
	}
	return oneLine.Replace(s) + tail
}

var oneLine = strings.NewReplacer("\n", " ", "\t", " ", "\r", " ")

// explain says in one line why a policy did what it did.
func (r *PolicyResult) explain() string {
	title := r.Name
	if title == "" {
		title = r.ID
	}
	title = fmt.Sprintf("policy %q", title)
	switch r.Outcome {
	case Matched:
		return title + " holds"
	case NeedsConsensus:
		return fmt.Sprintf("%s: needs consensus: %s is false", title, quote(r.Expr))
	case Failed:
		if r.Expr == "" {
			return fmt.Sprintf("%s could not be evaluated: %s", title, r.Error)
		}
		return fmt.Sprintf("%s: %s could not be evaluated: %s", title, quote(r.Expr), r.Error)
	case TimeInactive:
		if r.Expr == "" {
			return title + ": has ended"
		}
		return fmt.Sprintf("%s: outside its time: %s is false", title, quote(r.Expr))
	case NotApplicable:
		return title + ": is about another kind of request"
	}
	if r.Error != "" { // a guard: see compiled.overlooks
		return fmt.Sprintf("%s: %s: %s", title, quote(r.Expr), r.Error)
	}
	return fmt.Sprintf("%s: %s is false", title, quote(r.Expr))
}

// closer orders ALLOW policies that do not allow by how near they came: fewest
// conjuncts missed, then most held.
func (r *PolicyResult) closer(than *PolicyResult) bool {
	rank := func(o PolicyOutcome) int {
		switch o {
		case NotApplicable:
			return 2
		case TimeInactive:
			return 1
		}
		return 0
	}
	if a, b := rank(r.Outcome), rank(than.Outcome); a != b {
		return a < b
	}
	if r.missed != than.missed {
		return r.missed < than.missed
	}
	return r.held > than.held
}
