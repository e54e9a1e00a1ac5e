package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/sigild/sigild/cmd/sigilctl/decode"
	"github.com/sigild/sigild/policy"
)

// MaxFile is the largest file of policies that is read, in bytes.
const MaxFile = 64 << 20

// File is a set of policies and limits as files have it; docs/policy.md has the
// forms of both.
type File struct {
	Policies []policy.Policy
	Limits   []policy.Limit
}

// ReadFile reads a File, as strictly as the daemon reads rules.
func ReadFile(r io.Reader) (File, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return File{}, fmt.Errorf("reading policies: %w", err)
	}
	if len(text) > MaxFile {
		return File{}, fmt.Errorf("reading policies: more than %d bytes", MaxFile)
	}
	var f File
	f.Policies, f.Limits, err = policy.ParseRules(text)
	return f, err
}

// Write writes f as files have it, one policy or limit a line.
func (f File) Write(w io.Writer) error {
	var b bytes.Buffer
	list := func(name string, n int, item func(int) any) error {
		fmt.Fprintf(&b, "%q: [", name)
		for i := range n {
			text, err := json.Marshal(item(i))
			if err != nil {
				return fmt.Errorf("writing policies: %w", err)
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString("\n  ")
			b.Write(text)
		}
		b.WriteString("\n]")
		return nil
	}
	b.WriteByte('{')
	if err := list("policies", len(f.Policies), func(i int) any { return f.Policies[i] }); err != nil {
		return err
	}
	if len(f.Limits) > 0 {
		b.WriteString(",\n ")
		if err := list("limits", len(f.Limits), func(i int) any { return f.Limits[i] }); err != nil {
			return err
		}
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

// ErrRefused: at least one policy or limit would not be taken.
var ErrRefused = errors.New("the policies have errors")

// Report compiles f and tells people what was found, a paragraph each, then what
// the set is. It returns the set, or [ErrRefused].
func (f File) Report(w io.Writer) (*policy.Set, error) {
	set, ds := policy.Compile(f.Policies, f.Limits, nil)
	var b strings.Builder
	for _, d := range ds {
		f.tell(&b, d)
	}
	_, errs, lints := split(ds)
	fmt.Fprintf(&b, "policies: %d, limits: %d, errors: %d, lints: %d\n", len(f.Policies), len(f.Limits), len(errs), len(lints))
	if set != nil {
		fmt.Fprintf(&b, "policy set hash: %x\n", set.Hash())
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return nil, err
	}
	if set == nil {
		return nil, ErrRefused
	}
	return set, nil
}

// tell writes one diagnostic with the line of text it is about and a mark below.
func (f File) tell(b *strings.Builder, d policy.Diagnostic) {
	suggestion := d.Suggestion
	d.Suggestion = ""
	fmt.Fprintln(b, d)
	if text := f.text(d); d.Offset >= 0 && d.Offset <= len(text) {
		start := strings.LastIndexByte(text[:d.Offset], '\n') + 1
		line, _, _ := strings.Cut(text[start:], "\n")
		fmt.Fprintf(b, "    %s\n    %s^\n", strings.ReplaceAll(line, "\t", " "), strings.Repeat(" ", utf8.RuneCountInString(text[start:d.Offset])))
	}
	if suggestion != "" {
		fmt.Fprintf(b, "    hint: %s\n", suggestion)
	}
}

// text is the clause a diagnostic is about, "" when it is about none.
func (f File) text(d policy.Diagnostic) string {
	for i := range f.Policies {
		if p := &f.Policies[i]; p.ID == d.ID {
			switch d.Clause {
			case policy.ClauseCondition:
				return p.Condition
			case policy.ClauseConsensus:
				return p.Consensus
			case policy.ClauseTime:
				return p.Time
			}
		}
	}
	return ""
}

// Explain decides one request, a JSON object as in a row of [Evaluate], and tells
// people the outcome and why, with every policy's part.
func Explain(set *policy.Set, requestText []byte, w io.Writer) (policy.Outcome, error) {
	row, err := decode.ParseRow(requestText)
	if err != nil {
		return policy.DenyError, err
	}
	var in request
	if err := read(row, "", &in); err != nil {
		return policy.DenyError, err
	}
	req, err := in.request()
	if err != nil {
		return policy.DenyError, err
	}
	d := set.Evaluate(req)
	var b strings.Builder
	if req.Decoded != nil {
		fmt.Fprintf(&b, "%s\n\n", strings.TrimRight(req.Decoded.Summary, "\n"))
	}
	fmt.Fprintf(&b, "%s: %s\n", d.Outcome, d.Reason)
	for i := range d.Policies {
		v := verdictOf(&d.Policies[i])
		fmt.Fprintf(&b, "  %-20s %s\n", v.Outcome, v.ID)
		if v.Clause != "" {
			fmt.Fprintf(&b, "  %-20s %s: %s\n", "", v.Clause, v.Expr)
		}
		if v.Error != "" {
			fmt.Fprintf(&b, "  %-20s %s\n", "", v.Error)
		}
	}
	_, err = io.WriteString(w, b.String())
	return d.Outcome, err
}
