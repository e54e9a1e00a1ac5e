package policy

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

const manual = "../docs/policy.md"

const (
	tablesBegin = "<!-- roots: made from the schema; go test ./policy says what should stand here -->"
	tablesEnd   = "<!-- roots end -->"
)

// The tables of roots in the manual are those of the schema.
func TestManualHasTheSchema(t *testing.T) {
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), tablesBegin+"\n")
	got, _, ok2 := strings.Cut(rest, tablesEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no marked tables", manual)
	}
	if want := tables(StandardSchema()); got != want {
		t.Errorf("the tables of %s should be:\n%s", manual, want)
	}
}

// Every code of a diagnostic, every departure and every example of the manual is real.
func TestManualExamplesCompile(t *testing.T) {
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range strings.Split(string(b), "```policy\n")[1:] {
		text, _, ok := strings.Cut(block, "```")
		if !ok {
			t.Fatal("a block does not end")
		}
		for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
			p := Policy{ID: "p", Effect: Allow, Condition: line, Lang: LangSigild}
			if strings.HasPrefix(line, "approvers") || strings.HasPrefix(line, "credentials") {
				p.Condition, p.Consensus = "", line
			}
			if errs := errorsOf(t, p); len(errs) > 0 {
				t.Errorf("%s: %v", line, errs)
			}
			n++
		}
	}
	if n < 10 {
		t.Errorf("only %d examples", n)
	}
}

func TestManualNamesEveryCode(t *testing.T) {
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile("diagnostics.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, line := range strings.Split(string(src), "\n") {
		if name, value, ok := strings.Cut(line, "= \""); ok && strings.HasPrefix(strings.TrimSpace(name), "Code") {
			code, _, _ := strings.Cut(value, "\"")
			if !strings.Contains(string(b), "`"+code+"`") {
				t.Errorf("%s does not name `%s`", manual, code)
			}
			n++
		}
	}
	if n < 30 {
		t.Errorf("only %d codes found", n)
	}
}

// tables writes the roots of a schema as the manual has them.
func tables(s *Schema) string {
	var b strings.Builder
	for _, r := range s.roots {
		where := strings.Join(r.clauses, ", ")
		if r.lang != "" {
			where += ", only under lang `" + r.lang + "`"
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s (`%s`). In: %s.\n", r.Name, capital(r.Doc), typeName(r.Type), where)
		t := r.Type
		if t.Kind == chains.KindList {
			t = t.Elem
		}
		if t.Kind == chains.KindStruct {
			b.WriteString("\n| field | type | |\n|---|---|---|\n")
			rows(&b, "", t)
		}
	}
	b.WriteString("\n")
	return b.String()
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func rows(b *strings.Builder, prefix string, t *chains.Type) {
	for _, f := range t.Fields {
		fmt.Fprintf(b, "| `%s%s` | `%s` | %s |\n", prefix, f.Name, typeName(f.Type), f.Doc)
		switch {
		case f.Type.Kind == chains.KindStruct:
			rows(b, prefix+f.Name+".", f.Type)
		case f.Type.Kind == chains.KindList && f.Type.Elem.Kind == chains.KindStruct:
			rows(b, prefix+f.Name+"[].", f.Type.Elem)
		}
	}
}
