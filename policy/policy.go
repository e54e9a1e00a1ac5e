// Package policy decides whether a request may be signed. It reads what a
// payload does from its decoded view (package chains) and judges it by the
// policies of one organization; it keeps amounts within limits.
//
// The language is Turnkey's policy language with native 256-bit integers,
// values compared by value, and static types: a policy that cannot mean what it
// says is refused when it is compiled, with a position and a suggestion. Errors
// while evaluating fail closed: an ALLOW that errs does not allow, a DENY that
// errs denies. There is no root quorum that goes around policies.
// docs/policy.md is the manual.
//
// The package is pure: no clock, no files, no network, no global state.
//
//   - [Compile] turns policies and limits into a [Set], or into diagnostics.
//   - [Set.Evaluate] answers one [Request] with a [Decision]; it never panics.
//   - [Set.CheckLimits] compares charges with what was spent before.
package policy

import (
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// LanguageVersion is hashed into every set. It changes when a text that compiled
// before would mean something else.
const LanguageVersion = "sigild-policy/2"

// Languages. Turnkey is the imported language as documented by its maker, but for
// the departures listed in docs/policy.md. Sigild is the same language with the
// roots delegation, request and caller, negative numbers and hexadecimal integers.
const (
	LangTurnkey = "turnkey"
	LangSigild  = "sigild"
)

// Effect is what a policy does when its clauses hold. The zero value denies.
type Effect uint8

// The effects.
const (
	Deny Effect = iota
	Allow
)

// String returns the spelling of the JSON form, EFFECT_ALLOW or EFFECT_DENY.
func (e Effect) String() string {
	if e == Allow {
		return "EFFECT_ALLOW"
	}
	return "EFFECT_DENY"
}

// MarshalText writes EFFECT_ALLOW or EFFECT_DENY.
func (e Effect) MarshalText() ([]byte, error) {
	if e > Allow {
		return nil, fmt.Errorf("writing effect: unknown effect %d", e)
	}
	return []byte(e.String()), nil
}

// UnmarshalText reads exactly EFFECT_ALLOW or EFFECT_DENY.
func (e *Effect) UnmarshalText(b []byte) error {
	switch string(b) {
	case "EFFECT_ALLOW":
		*e = Allow
	case "EFFECT_DENY":
		*e = Deny
	default:
		return fmt.Errorf("reading effect %q: want EFFECT_ALLOW or EFFECT_DENY", b)
	}
	return nil
}

// Scope narrows a policy to some requests. An index may skip a policy by its
// scope, never by what its condition says.
type Scope struct {
	// Delegation is the id of the delegation whose requests the policy judges.
	// Empty: every request of the organization, those of delegations included.
	Delegation string
}

// Policy is one rule. All three clauses are texts of type bool; an empty clause
// holds.
type Policy struct {
	// ID names the policy in decisions and in the journal: 1 to 128 printable
	// ASCII characters, no spaces, unique in its set.
	ID string
	// Name is for people, at most 256 bytes of UTF-8 without control characters.
	Name string
	// Effect is Deny when left out in Go; the JSON form must say it.
	Effect Effect
	// Condition says when, over the payload, the activity and the wallet.
	Condition string
	// Consensus says who, over approvers and credentials.
	Consensus string
	// Time says during what time the policy exists at all, over time.now.
	Time string
	// Lang is LangTurnkey or LangSigild; empty is LangTurnkey.
	Lang string
	// PartialLists reads a list that may lack elements, because part of the payload was
	// not understood, as what was understood of it. Otherwise reading it is an error.
	// Only in LangTurnkey, whose documentation says so.
	PartialLists bool
	// RequesterAbstains keeps whoever asks out of approvers and credentials, whatever
	// else it stamps. Otherwise asking counts as approving, once.
	RequesterAbstains bool
	// Scope narrows the policy to one delegation.
	Scope Scope
	// NotAfter ends the policy: at that instant and after it, it is inactive. The
	// zero time: no end.
	NotAfter time.Time
	// OneTime: an ALLOW that allows one transaction, ever. Who approves the request
	// sees to that, and consumes it with the approval.
	OneTime bool
	// Replace: an ALLOW that also allows a transaction in place of one that was signed
	// with the same nonce before, if its fees are higher.
	Replace bool
}

const (
	maxIDBytes   = 128
	maxNameBytes = 256
)

func (p *Policy) lang() string {
	if p.Lang == "" {
		return LangTurnkey
	}
	return p.Lang
}

// dialect is the language with its switches, for what is hashed.
func (p *Policy) dialect() string {
	d := p.lang()
	if p.PartialLists {
		d += "/partial_lists"
	}
	if p.RequesterAbstains {
		d += "/requester_abstains"
	}
	return d
}

func (p *Policy) clause(name string) string {
	switch name {
	case ClauseCondition:
		return p.Condition
	case ClauseConsensus:
		return p.Consensus
	}
	return p.Time
}

func validID(s string) bool {
	if s == "" || len(s) > maxIDBytes {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func validName(s string) bool {
	if len(s) > maxNameBytes || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// diagnose reports what is wrong with the fields around the clauses.
func (p *Policy) diagnose(add func(Diagnostic)) {
	fail := func(clause, code, format string, args ...any) {
		add(Diagnostic{ID: p.ID, Clause: clause, Code: code, Severity: SeverityError, Offset: -1, Message: fmt.Sprintf(format, args...)})
	}
	if !validID(p.ID) {
		fail("id", CodeBadID, "an id is 1 to %d printable ASCII characters without spaces", maxIDBytes)
	}
	if !validName(p.Name) {
		fail("name", CodeBadID, "a name is at most %d bytes of printable UTF-8", maxNameBytes)
	}
	if p.Effect > Allow {
		fail("effect", CodeBadEffect, "unknown effect %d", p.Effect)
	}
	if l := p.lang(); l != LangTurnkey && l != LangSigild {
		fail("lang", CodeBadLang, "unknown language %q; known are %q and %q", l, LangTurnkey, LangSigild)
	}
	if p.PartialLists && p.lang() != LangTurnkey {
		fail("partial_lists", CodeBadLang, "partial_lists exists in lang %q only", LangTurnkey)
	}
	if (p.OneTime || p.Replace) && p.Effect != Allow {
		fail("effect", CodeBadEffect, "one_time and replace are about what is allowed; this policy denies")
	}
	if p.Scope.Delegation != "" && !validID(p.Scope.Delegation) {
		fail("scope", CodeBadID, "a delegation id is 1 to %d printable ASCII characters without spaces", maxIDBytes)
	}
}
