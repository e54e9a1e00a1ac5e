// Package judge is what `sigilctl policy` does off-line: it compiles policies as
// the daemon would, says what is wrong with them, and decides requests by them. It
// asks no daemon, and its answers bind nobody.
//
// Rows in, rows out ([Check], [Evaluate]): see package decode. A payload is read by
// the decoders the daemon signs by, whatever a row says about it.
package judge

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/sigild/sigild/cmd/sigilctl/decode"
	"github.com/sigild/sigild/policy"
)

// problem is why a row can't be answered, or a policy not be compiled.
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Offset is in the clause's text, or in the row; -1 where there is none.
	Offset     int    `json:"offset"`
	Policy     string `json:"policy,omitempty"`
	Clause     string `json:"clause,omitempty"`
	Suggestion string `json:"suggestion,omitempty"`
}

func asProblem(err error) *problem {
	de := decode.AsError(err)
	return &problem{Code: de.Code, Message: de.Message, Offset: de.Offset}
}

// split parts diagnostics into the first error, all errors and all lints.
func split(ds []policy.Diagnostic) (first *problem, errors, lints []problem) {
	errors, lints = []problem{}, []problem{}
	for _, d := range ds {
		p := problem{d.Code, d.Message, d.Offset, d.ID, d.Clause, d.Suggestion}
		if d.Severity == policy.SeverityLint {
			lints = append(lints, p)
		} else {
			errors = append(errors, p)
		}
	}
	if len(errors) > 0 {
		first = &errors[0]
	}
	return first, errors, lints
}

// clauses are the texts of a policy as rows have them.
type clauses struct {
	Effect, Condition, Consensus, Time, Lang *string
}

// policy makes a policy of the texts; effect is that of rows which name none.
func (c clauses) policy(id string, effect policy.Effect) (policy.Policy, error) {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if c.Effect != nil {
		if err := effect.UnmarshalText([]byte(*c.Effect)); err != nil {
			return policy.Policy{}, err
		}
	}
	return policy.Policy{ID: id, Effect: effect, Condition: text(c.Condition), Consensus: text(c.Consensus),
		Time: text(c.Time), Lang: text(c.Lang)}, nil
}

// checked answers a row of Check.
type checked struct {
	ID     json.RawMessage `json:"id"`
	OK     bool            `json:"ok"`
	Error  *problem        `json:"error,omitempty"`
	Errors []problem       `json:"errors,omitempty"`
	Lints  []problem       `json:"lints"`
}

// Check compiles the policy of each row of in, {"id","condition","consensus","time"}
// and where it matters "effect" (EFFECT_ALLOW when absent) and "lang", and answers
// {"id","ok","error","errors","lints"}.
func Check(in io.Reader, out io.Writer) error {
	return decode.Lines(in, out, checkRow, func(err error) any { return checked{Error: asProblem(err), Lints: []problem{}} })
}

func checkRow(line []byte) any {
	a := checked{Lints: []problem{}}
	row, err := decode.ParseRow(line)
	a.ID = row["id"]
	if err != nil {
		a.Error = asProblem(err)
		return a
	}
	var c clauses
	p, err := policy.Policy{}, read(row, "", &c)
	if err == nil {
		p, err = c.policy("policy", policy.Allow)
	}
	if err != nil {
		a.Error = asProblem(err)
		return a
	}
	_, ds := policy.Compile([]policy.Policy{p}, nil, nil)
	a.Error, a.Errors, a.Lints = split(ds)
	a.OK = a.Error == nil
	return a
}

// read decodes a member of a row, or with no name the whole row; null is refused
// where a text belongs, since absent and empty must not be confused with it.
func read(row decode.Row, member string, into any) error {
	text := row[member]
	if member == "" {
		var err error
		if text, err = json.Marshal(row); err != nil {
			return decode.Malformed(-1, "the row is no JSON object")
		}
	}
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return decode.Malformed(-1, "%s", whatIsWrong(member, err))
	}
	return nil
}

func whatIsWrong(member string, err error) string {
	if t, ok := err.(*json.UnmarshalTypeError); ok {
		if t.Field != "" {
			member += "." + t.Field
		}
		return fmt.Sprintf("member %q is %s", member, t.Value)
	}
	return fmt.Sprintf("member %q: %v", member, err)
}
