package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/chains"
)

// The checker gives every node of a clause its type, resolves names to numbers
// and literals to values. After it, evaluation can meet a wrong type only where
// the static type is any.

// maxVariables bounds how deep all, any and filter nest.
const maxVariables = 8

type variable struct {
	name string
	typ  *chains.Type
	path string
}

type checker struct {
	schema *Schema
	clause string
	lang   string
	vars   []variable
	// limits are what controls reads; scope is the delegation that the policy is for.
	limits []Limit
	scope  string
	report func(code string, pos int, message, suggestion string)

	// roots read by this clause; comparisons and calls are kept for lints.
	roots map[int]bool
	reads map[string]bool
	lints []lintSite
}

// lintSite is a call or comparison that a lint may want to look at.
type lintSite struct {
	what string // method name, or CodeNeverEqual, CodeUpperHex
	pos  int
	path string // of the list that a method is called on
}

func (c *checker) fail(n *node, code, suggestion, format string, args ...any) *chains.Type {
	c.report(code, n.pos, fmt.Sprintf(format, args...), suggestion)
	return typeWrong
}

// clauseType checks a whole clause.
func (c *checker) clauseType(n *node) {
	t := c.check(n)
	if t.Kind == chains.KindBool || t.Kind == kindAny || t.Kind == kindWrong {
		return
	}
	c.fail(n, CodeNotBool, "compare it with something", "a clause is a yes or no; this is %s", typeName(t))
}

// check types n and everything below it.
func (c *checker) check(n *node) *chains.Type {
	n.typ = c.typeOf(n)
	return n.typ
}

func (c *checker) typeOf(n *node) *chains.Type {
	switch n.op {
	case opAnd, opOr, opNot:
		for _, k := range n.kids {
			c.wantBool(k)
		}
		return typeBool
	case opEqual, opNotEqual:
		return c.equality(n)
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		return c.ordering(n)
	case opIn:
		c.check(n.kids[0])
		c.check(n.kids[1])
		return c.membership(n, n.kids[0], n.kids[1])
	case opIndex:
		return c.index(n)
	case opSlice:
		return c.slice(n)
	case opField:
		return c.field(n)
	case opMethod:
		return c.method(n)
	case opCall:
		return c.call(n)
	case opName:
		return c.name(n)
	case opInt:
		return typeInt
	case opBool:
		return typeBool
	case opString:
		v := chains.StringValue(n.text)
		n.value = &v
		return typeString
	}
	return c.list(n)
}

func (c *checker) wantBool(n *node) {
	t := c.check(n)
	if t.Kind != chains.KindBool && t.Kind != kindAny && t.Kind != kindWrong {
		c.fail(n, CodeType, "", "%s stands where a bool should", typeName(t))
	}
}

// wantInt is for indexes.
func (c *checker) wantInt(n *node) {
	t := c.check(n)
	switch {
	case t.Kind == kindWrong:
	case t.Kind != chains.KindInt && t.Kind != kindAny:
		c.fail(n, CodeType, "", "an index is an int, not %s", typeName(t))
	case n.op == opInt && (n.value.Neg || n.value.Int.GtUint64(1<<31)):
		c.fail(n, CodeBadSlice, "", "no text or list has this index")
	}
}

func (c *checker) index(n *node) *chains.Type {
	base, at := n.kids[0], n.kids[1]
	if c.isControl(base) && at.op == opString {
		return c.limitNode(n, at.text)
	}
	t := c.check(base)
	if t.Kind == kindWrong {
		return t
	}
	if t.Kind == chains.KindMap || t.Kind == kindAny && at.op == opString {
		if kt := c.check(at); kt.Kind != chains.KindString && kt.Kind != kindWrong {
			return c.fail(at, CodeType, "write it as ['name']", "the key of a map is a string, not %s", typeName(kt))
		}
		n.path = base.path + "[]"
		return typeAny
	}
	c.wantInt(at)
	switch t.Kind {
	case chains.KindList:
		n.path = base.path + "[]"
		c.lints = append(c.lints, lintSite{what: "index", pos: n.pos, path: base.path})
		return t.Elem
	case chains.KindString:
		return typeString
	case chains.KindHex, kindHexText:
		return typeHexText
	case kindAny:
		return t
	}
	return c.notText(n, t, "indexed")
}

func (c *checker) slice(n *node) *chains.Type {
	t := c.check(n.kids[0])
	from, to := n.kids[1], n.kids[2]
	c.wantInt(from)
	c.wantInt(to)
	if from.op == opInt && to.op == opInt && from.value.Int.Gt(&to.value.Int) {
		return c.fail(from, CodeBadSlice, "", "the slice ends before it starts")
	}
	switch t.Kind {
	case chains.KindList, chains.KindString, kindAny, kindWrong:
		n.path = n.kids[0].path
		return t
	case chains.KindHex, kindHexText:
		return typeHexText
	}
	return c.notText(n, t, "sliced")
}

func (c *checker) notText(n *node, t *chains.Type, how string) *chains.Type {
	suggestion := ""
	if account(t.Kind) {
		suggestion = "accounts compare as wholes, by value"
	}
	return c.fail(n, CodeType, suggestion, "%s cannot be %s", typeName(t), how)
}

func (c *checker) field(n *node) *chains.Type {
	base := n.kids[0]
	if c.isControl(base) {
		return c.limitNode(n, n.text)
	}
	if base.op == opName && c.variable(base.text) < 0 {
		name := base.text + "." + n.text
		if c.schema.spaces[base.text] || c.schema.missing(base.text) && notYet[name] != "" {
			return c.root(n, name)
		}
	}
	t := c.check(base)
	if base.op == opRoot && base.path+"."+n.text == spendField {
		return c.root(n, "charges") // and eth.tx counts as read
	}
	switch t.Kind {
	case kindWrong:
		return typeWrong
	case chains.KindStruct:
		i := t.Index(n.text)
		if other, ok := fieldAliases[n.text]; ok && i < 0 && strings.HasPrefix(base.path, "solana.tx") {
			i, n.text = t.Index(other), other
		}
		n.path = base.path + "." + n.text
		if i < 0 {
			return c.unknownField(n, t)
		}
		n.index = i
		c.reads[n.path] = true
		return t.Fields[i].Type
	case chains.KindList, kindAny:
		if slices.Contains(listMethods, n.text) {
			return c.fail(n, CodeSyntax, "write ."+n.text+callForm(n.text), "%s is called with parentheses", n.text)
		}
	}
	suggestion := ""
	if t.Kind == chains.KindMap || t.Kind == kindAny {
		suggestion = fmt.Sprintf("write ['%s']", n.text)
	}
	return c.fail(n, CodeType, suggestion, "%s has no fields", typeName(t))
}

// spendField is what an EVM transaction spends: the charges, of that payload only.
const spendField = "eth.tx.spend"

// fieldAliases are second names of fields of solana.tx: Turnkey's newer ones, and one
// that its examples use beside the documented one.
var fieldAliases = map[string]string{
	"static_account_keys":    "account_keys",
	"top_level_program_keys": "program_keys",
	"top_level_instructions": "instructions",
	"named_account":          "named_accounts",
}

func callForm(method string) string {
	switch method {
	case "count":
		return "()"
	case "contains":
		return "(value)"
	}
	return "(item, condition)"
}

func (c *checker) unknownField(n *node, t *chains.Type) *chains.Type {
	if what, ok := notYet[n.path]; ok {
		return c.fail(n, CodeUnsupported, "", "%s: not supported yet", what)
	}
	names := make([]string, len(t.Fields))
	for i, f := range t.Fields {
		names[i] = f.Name
	}
	return c.fail(n, CodeUnknownField, didYouMean(n.text, names), "%s has no field %q", n.kids[0].path, n.text)
}

var listMethods = []string{"all", "any", "filter", "contains", "count"}

func (c *checker) method(n *node) *chains.Type {
	base, args := n.kids[0], n.kids[1:]
	t := c.check(base)
	if t.Kind == kindWrong {
		return typeWrong
	}
	if !slices.Contains(listMethods, n.text) {
		return c.fail(n, CodeUnknownName, didYouMean(n.text, listMethods), "there is no function %q", n.text)
	}
	if t.Kind != chains.KindList && t.Kind != kindAny {
		return c.fail(n, CodeType, "", "%s works on lists, not on %s", n.text, typeName(t))
	}
	want := map[string]int{"count": 0, "contains": 1}
	arity, ok := want[n.text]
	if !ok {
		arity = 2
	}
	if len(args) != arity {
		return c.fail(n, CodeSyntax, "write ."+n.text+callForm(n.text), "%s takes %d arguments, not %d", n.text, arity, len(args))
	}
	c.lints = append(c.lints, lintSite{what: n.text, pos: n.pos, path: base.path})
	switch n.text {
	case "count":
		return typeInt
	case "contains":
		c.check(args[0])
		return c.membership(n, args[0], base)
	}
	return c.quantifier(n, base, args[0], args[1])
}

// quantifier checks all, any and filter.
func (c *checker) quantifier(n, base, item, body *node) *chains.Type {
	if item.op != opName {
		return c.fail(item, CodeSyntax, "", "the first argument of %s is a name for the item", n.text)
	}
	if len(c.vars) == maxVariables {
		return c.fail(n, CodeTooDeep, "", "all, any and filter nest at most %d deep", maxVariables)
	}
	elem := typeAny
	if base.typ.Kind == chains.KindList {
		elem = base.typ.Elem
	}
	path := ""
	if base.path != "" {
		path = base.path + "[]"
	}
	c.vars = append(c.vars, variable{item.text, elem, path})
	n.slot = len(c.vars) - 1
	c.wantBool(body)
	c.vars = c.vars[:len(c.vars)-1]
	if n.text == "filter" {
		n.path = base.path
		return base.typ
	}
	return typeBool
}

func (c *checker) call(n *node) *chains.Type {
	switch {
	case n.text == "Timestamp":
		if len(n.kids) != 1 || n.kids[0].op != opString {
			return c.fail(n, CodeBadTimestamp, "write Timestamp('2026-04-01T00:00:00Z')", "Timestamp takes one string")
		}
		v, problem := timestampLiteral(n.kids[0].text)
		if problem != nil {
			return c.fail(n.kids[0], problem.code, problem.suggestion, "%s", problem.message)
		}
		n.value = &v
		return typeTime
	case n.text == "CronSpan":
		return c.cronSpan(n)
	}
	return c.fail(n, CodeUnknownName, didYouMean(n.text, []string{"Timestamp", "CronSpan"}), "there is no function %q", n.text)
}

// variable returns the slot of the innermost variable of that name, -1 for none.
func (c *checker) variable(name string) int {
	for i := len(c.vars) - 1; i >= 0; i-- {
		if c.vars[i].name == name {
			return i
		}
	}
	return -1
}

func (c *checker) name(n *node) *chains.Type {
	if c.isControl(n) {
		return c.fail(n, CodeType, "write controls.<limit>.left", "%s is not a value by itself", n.text)
	}
	if slot := c.variable(n.text); slot >= 0 {
		v := c.vars[slot]
		n.op, n.slot, n.path = opVar, slot, v.path
		return v.typ
	}
	if c.schema.spaces[n.text] {
		return c.fail(n, CodeType, "", "%s is not a value by itself", n.text)
	}
	return c.root(n, n.text)
}

// root resolves a root of the schema, if this clause and language have it.
func (c *checker) root(n *node, name string) *chains.Type {
	n.path = name
	i, ok := c.schema.byName[name]
	if !ok {
		return c.unknownRoot(n, name)
	}
	r := &c.schema.roots[i]
	if r.lang != "" && r.lang != c.lang {
		return c.fail(n, CodeWrongClause, fmt.Sprintf("set lang to %q", r.lang), "%s exists only under lang %q", name, r.lang)
	}
	if !slices.Contains(r.clauses, c.clause) {
		return c.fail(n, CodeWrongClause, "", "%s belongs into %s, not into %s", name, r.clauses[0], c.clause)
	}
	n.op, n.index = opRoot, i
	c.roots[i] = true
	return r.Type
}

func (c *checker) unknownRoot(n *node, name string) *chains.Type {
	if what, ok := notYet[name]; ok {
		return c.fail(n, CodeUnsupported, "", "%s: not supported yet", what)
	}
	var names []string
	for _, r := range c.schema.roots {
		if r.lang == "" || r.lang == c.lang {
			names = append(names, r.Name)
		}
	}
	for _, v := range c.vars {
		names = append(names, v.name)
	}
	return c.fail(n, CodeUnknownName, didYouMean(name, names), "there is nothing called %q here", name)
}
