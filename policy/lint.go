package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/chains"
)

// Lints tell of holes that a correct text can leave. They never stop a policy.

// lint looks at a policy whose clauses all compiled.
func (facts *policyFacts) lint(add func(Diagnostic)) {
	if facts.failed {
		return
	}
	say := func(code string, offset int, message, suggestion string) {
		add(Diagnostic{ID: facts.policy.ID, Clause: ClauseCondition, Code: code, Severity: SeverityLint, Offset: offset, Message: message, Suggestion: suggestion})
	}
	for _, site := range facts.sites {
		switch site.what {
		case CodeNeverEqual:
			say(CodeNeverEqual, site.pos, "slice and literal differ in length and are never equal", "")
		case CodeTextAmount:
			say(CodeTextAmount, site.pos, "a whole word is compared as text: as an amount it holds for exactly this one", "with the contract's ABI, eth.tx.contract_call_args['name'] compares as a number")
		case CodeUpperHex:
			say(CodeUpperHex, site.pos, "hexadecimal text is compared by value; upper case makes no difference", "write it in lower case")
		case CodeTextHex:
			say(CodeTextHex, site.pos, "this is compared as text, and the payload's is in lower case: it never matches", "write it in lower case")
		}
	}
	facts.lintRoots(say)
	facts.lintParams(say)
	if facts.policy.PartialLists {
		say(CodePartialLists, -1, "lists may lack what was not understood: all() and count() say nothing of that", "leave partial_lists out")
	}
	if facts.policy.Effect == Allow {
		facts.lintAllow(say)
	}
}

type sayFunc func(code string, offset int, message, suggestion string)

// lintRoots looks for roots that cannot exist together.
func (facts *policyFacts) lintRoots(say sayFunc) {
	payloads := facts.optional(perPayload)
	if len(payloads) > 1 {
		say(CodeMixedRoots, -1, fmt.Sprintf("no payload has all of %s: the policy is an error for each", strings.Join(payloads, ", ")), "make one policy of each")
	}
	if facts.policy.Effect != Deny || facts.tree == nil || facts.tree.op != opOr {
		return
	}
	// A DENY is not applicable where its payload root is missing, also in those of
	// its branches that do not read the root.
	for _, branch := range facts.tree.kids {
		if len(payloads) > 0 && !facts.readsOptional(branch) {
			say(CodeDenyBranch, branch.pos, fmt.Sprintf("this branch denies nothing where there is no %s, which another branch reads", payloads[0]), "make it a policy of its own")
		}
	}
}

// lintParams looks for a DENY about a parameter that few activities have: for all
// others it is an error, and an error in a DENY denies.
func (facts *policyFacts) lintParams(say sayFunc) {
	if facts.policy.Effect != Deny {
		return
	}
	for i, f := range paramsType.Fields {
		if path := "activity.params." + f.Name; facts.reads[path] {
			say(CodeDenyErrs, -1, fmt.Sprintf("%s is there for %s; every other request is denied with an error", path, afterSemicolon(paramsType.Fields[i].Doc)),
				"allow only what you mean instead")
		}
	}
}

// afterSemicolon is the part of a field's line that says for what it is there.
func afterSemicolon(doc string) string {
	_, where, _ := strings.Cut(doc, "; ")
	return where
}

// optional lists the roots read of one group, ordered.
func (facts *policyFacts) optional(group presence) []string {
	var names []string
	for i := range facts.roots {
		if r := &facts.schema.roots[i]; r.presence == group {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (facts *policyFacts) readsOptional(n *node) bool {
	if n.op == opRoot && facts.schema.roots[n.index].presence == perPayload {
		return true
	}
	return slices.ContainsFunc(n.kids, facts.readsOptional)
}

// readsAny reports whether one of the paths, or something below it, is read.
func (facts *policyFacts) readsAny(paths ...string) bool {
	for _, p := range paths {
		if facts.reads[p] {
			return true
		}
	}
	return false
}

// lintAllow looks for ALLOW policies that allow more than they seem to.
func (facts *policyFacts) lintAllow(say sayFunc) {
	if t := facts.tree; t == nil || t.op == opBool && !t.value.Int.IsZero() {
		say(CodeAllowAll, -1, "this allows everything that no other policy denies", "")
		return
	}
	if facts.readsAny("eth.tx.to") && !facts.readsAny("eth.tx.data", "eth.tx.function_name", "eth.tx.function_signature", "eth.tx.contract_call_args", "eth.tx.calls") {
		say(CodeNoData, -1, "the recipient is named but any call of it is allowed", "for plain transfers add eth.tx.data == '0x'")
	}
	if slices.Contains(facts.optional(perPayload), "eth.tx") && !facts.readsAny("eth.tx.chain_id") {
		say(CodeNoChain, -1, "this holds on every EVM chain", "add eth.tx.chain_id == 1")
	}
	if slices.Contains(facts.optional(perPayload), "solana.tx") && !facts.readsAny("solana.tx.address_table_lookups") {
		say(CodeNoTables, -1, "accounts may hide behind lookup tables", "add solana.tx.address_table_lookups.count() == 0")
	}
	for _, site := range facts.sites {
		switch {
		case site.what == "all" && !facts.sized(site.path):
			say(CodeEmptyAll, site.pos, "all() holds when the list is empty", "add a condition on its count()")
		case site.what == "any" && batch(site.path):
			say(CodeAnyOfMany, site.pos, "any() lets one good element pass all the others", "use all() and count()")
		}
	}
}

// batch reports whether a list's elements all take effect, so that one good element
// among bad ones is no reason to allow.
func batch(path string) bool {
	return strings.HasSuffix(path, "transfers") || path == "eth.tx.calls" || path == "charges" ||
		strings.HasPrefix(path, "eth.tx.contract_call_args[") || strings.HasPrefix(path, "eth.eip_712.message[")
}

// sized reports whether the condition says something about how long a list is.
func (facts *policyFacts) sized(path string) bool {
	return path != "" && slices.ContainsFunc(facts.sites, func(s lintSite) bool {
		return s.path == path && (s.what == "count" || s.what == "index")
	})
}

// textHex notes a text field of hexadecimal digits that is compared with upper
// case, which it never has.
func (c *checker) textHex(n, other *node) {
	if other.typ.Kind == chains.KindString && strings.HasSuffix(other.path, "_hex") && hasUpper(n.text) {
		c.lints = append(c.lints, lintSite{what: CodeTextHex, pos: n.pos})
	}
}
