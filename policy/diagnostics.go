package policy

import (
	"fmt"
	"strings"
)

// Severity says whether a diagnostic stops compilation. The zero value does.
type Severity uint8

// The severities.
const (
	SeverityError Severity = iota
	SeverityLint
)

// String returns "error" or "lint".
func (s Severity) String() string {
	if s == SeverityLint {
		return "lint"
	}
	return "error"
}

// MarshalText writes "error" or "lint".
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Clauses, as named in diagnostics and results.
const (
	ClauseCondition = "condition"
	ClauseConsensus = "consensus"
	ClauseTime      = "time"
	ClauseLimit     = "limit" // the diagnostic is about a limit, ID is the limit's id
)

// Codes of diagnostics, stable.
const (
	CodeSyntax       = "syntax"           // the text does not parse
	CodeEncoding     = "encoding"         // not UTF-8, or a control character
	CodeTooLong      = "too_long"         // more than 16 kB
	CodeTooDeep      = "too_deep"         // nested more than 64 deep
	CodePlaceholder  = "placeholder"      // <LIKE_THIS> was not filled in
	CodeUnknownName  = "unknown_name"     // no such root, variable or function
	CodeUnknownField = "unknown_field"    // the struct has no such field
	CodeUnsupported  = "unsupported"      // part of the language, not of this build yet
	CodeWrongClause  = "wrong_clause"     // the root exists, in another clause or language
	CodeType         = "type_mismatch"    // operand of a wrong type
	CodeNotBool      = "not_bool"         // the clause is not a yes or no
	CodeNumber       = "number_range"     // integer outside 256 bits, or badly written
	CodeBadAddress   = "bad_address"      // not 20 bytes, or a wrong EIP-55 checksum
	CodeBadPubkey    = "bad_pubkey"       // not base58 of 32 bytes
	CodeBadHex       = "bad_hex"          // not hexadecimal
	CodeBadSlice     = "bad_slice"        // reversed, or an index no text or list can have
	CodeBadTimestamp = "bad_timestamp"    // not RFC 3339 with zero offset
	CodeBadCronSpan  = "bad_cron_span"    // not a schedule, a duration and a zone
	CodeBadID        = "bad_id"           // id, name or delegation id
	CodeDuplicateID  = "duplicate_id"     // two policies, or two limits, of one id
	CodeBadEffect    = "bad_effect"       // neither Allow nor Deny
	CodeBadLang      = "bad_lang"         // neither turnkey nor sigild
	CodeBadAsset     = "bad_asset"        // not a CAIP-19 id this build understands
	CodeBadBound     = "bad_bound"        // of a limit: no bound, or decimals that the asset has not
	CodeBadGroup     = "bad_group"        // of a limit: sums that cannot be split so
	CodeBadWindow    = "bad_window"       // neither 0 nor whole seconds of 1 s to 366 d
	CodeAllowAll     = "allow_all"        // lint: an ALLOW without a real condition
	CodeEmptyAll     = "all_may_be_empty" // lint: all() holds on an empty list
	CodeAnyOfMany    = "any_of_many"      // lint: one good element lets the bad ones pass
	CodeNoData       = "no_data_rule"     // lint: recipient named, calldata free
	CodeNoChain      = "no_chain_id"      // lint: the same text holds on every chain
	CodeNoTables     = "no_table_guard"   // lint: lookup tables are not excluded
	CodeNeverEqual   = "never_equal"      // lint: slice and literal differ in length
	CodeTextAmount   = "text_amount"      // lint: a word of calldata is compared as text
	CodeUpperHex     = "upper_hex"        // lint: upper-case digits in hexadecimal text
	CodeTextHex      = "text_hex"         // lint: upper-case digits where text is compared
	CodePartialLists = "partial_lists"    // lint: lists may lack what was not understood
	CodeDenyErrs     = "deny_errs"        // lint: a DENY reads what few activities have
	CodeDenyBranch   = "deny_branch"      // lint: one branch of a DENY keeps another from applying
	CodeMixedRoots   = "mixed_payloads"   // lint: no payload has all the roots that are read
	CodeNoFees       = "fees_not_counted" // lint: a limit on a native asset leaves fees free
)

// Diagnostic is one thing to tell the author of a policy or limit.
type Diagnostic struct {
	// ID is the policy's id, or the limit's when Clause is ClauseLimit.
	ID       string   `json:"id"`
	Clause   string   `json:"clause"`
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	// Offset is the byte in the clause's text, −1 when it is about no text.
	Offset  int    `json:"offset"`
	Message string `json:"message"`
	// Suggestion says what to write instead; empty when there is no good guess.
	Suggestion string `json:"suggestion,omitempty"`
}

// String puts a diagnostic into one line.
func (d Diagnostic) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s", d.Severity, d.ID, d.Clause)
	if d.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", d.Offset)
	}
	fmt.Fprintf(&b, ": %s (%s)", d.Message, d.Code)
	if d.Suggestion != "" {
		fmt.Fprintf(&b, "; %s", d.Suggestion)
	}
	return b.String()
}

// HasErrors reports whether one of ds stops compilation.
func HasErrors(ds []Diagnostic) bool {
	for _, d := range ds {
		if d.Severity == SeverityError {
			return true
		}
	}
	return false
}

// didYouMean picks the known name closest to got: the same but for case and
// underscores, or at most two edits away. Empty when none is.
func didYouMean(got string, known []string) string {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	best, bestDistance := "", 3
	if len(got) <= 4 {
		bestDistance = 2
	}
	for _, k := range known {
		if plain(k) == plain(got) {
			return fmt.Sprintf("did you mean %s?", k)
		}
		if d := editDistance(got, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// editDistance is Levenshtein's; names longer than 64 bytes are far from everything.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var row [65]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
