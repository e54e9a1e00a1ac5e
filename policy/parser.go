package policy

import (
	"fmt"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// The parser is a Pratt parser over this grammar:
//
//	expr    = and { "||" and }
//	and     = compare { "&&" compare }
//	compare = unary [ ("==" | "!=" | "<" | ">" | "<=" | ">=" | "in") unary ]
//	unary   = "!" unary | postfix
//	postfix = primary { "." name [ "(" args ")" ] | "[" expr [ ".." expr ] "]" }
//	primary = [ "-" ] int | string | "true" | "false" | list | "(" expr ")" | name [ "(" args ")" ]
//	list    = "[" [ expr { "," expr } ] "]"
//	args    = [ expr { "," expr } ]

// maxDepth bounds nesting in the text and in the tree.
const maxDepth = 64

type op uint8

const (
	opOr op = iota
	opAnd
	opNot
	opEqual
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opIn
	opIndex   // kids: base, index
	opSlice   // kids: base, from, to
	opField   // kids: base; text: name
	opControl // controls.<limit>: the checker makes it of a field or an index
	opMethod  // kids: base, args…; text: name
	opCall    // kids: args…; text: name
	opName    // text
	opInt     // value
	opString  // text
	opBool    // value
	opList    // kids: elements

	// The checker turns names into these.
	opRoot // index
	opVar  // slot
)

// node is one piece of a parsed clause. The checker fills in the second half.
type node struct {
	op       op
	pos, end int // bytes of the source
	depth    int
	kids     []*node
	text     string
	value    *chains.Value // of a literal

	typ *chains.Type
	// path is how lints and messages call what is read: "eth.tx.to",
	// "solana.tx.transfers[].amount". Empty for computed values.
	path string
	// index is the number of a root or of a field.
	index int
	// slot is a variable's number; of all, any and filter, that of their item.
	slot int
	// span is what a call of CronSpan says.
	span *cronSpan
	// limit is what a control reads.
	limit *Limit
}

// moved is a copy of n and all below it with positions that count from elsewhere.
func (n *node) moved(by int) *node {
	m := *n
	m.pos, m.end = n.pos+by, n.end+by
	m.kids = make([]*node, len(n.kids))
	for i, k := range n.kids {
		m.kids[i] = k.moved(by)
	}
	return &m
}

type parser struct {
	src   string
	toks  []token
	at    int
	depth int
	lang  string
}

var precedence = map[string]int{
	"||": 1, "&&": 2,
	"==": 3, "!=": 3, "<": 3, ">": 3, "<=": 3, ">=": 3, "in": 3,
}

const comparePrecedence = 3

var comparisons = map[string]op{
	"==": opEqual, "!=": opNotEqual, "<": opLess, ">": opGreater,
	"<=": opLessEqual, ">=": opGreaterEqual, "in": opIn,
}

// parse turns a clause into a tree. It does not know types or names.
func parse(src, lang string) (n *node, err *textError) {
	toks, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, toks: toks, lang: lang}
	n, err = p.expr(1)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokEnd {
		return nil, p.unexpected(t, "the end")
	}
	return n, nil
}

func (p *parser) peek() token { return p.toks[p.at] }

func (p *parser) next() token {
	t := p.toks[p.at]
	if t.kind != tokEnd {
		p.at++
	}
	return t
}

func (p *parser) accept(op string) bool {
	if t := p.peek(); t.kind == tokOp && t.text == op {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(op string) (token, *textError) {
	t := p.peek()
	if !p.accept(op) {
		return t, p.unexpected(t, "\""+op+"\"")
	}
	return t, nil
}

func (p *parser) unexpected(t token, want string) *textError {
	got := "the end"
	if t.kind != tokEnd {
		got = fmt.Sprintf("%q", p.src[t.pos:t.end])
	}
	return &textError{code: CodeSyntax, pos: t.pos, message: fmt.Sprintf("found %s where %s should be", got, want)}
}

func (p *parser) enter() *textError {
	if p.depth++; p.depth > maxDepth {
		return &textError{code: CodeTooDeep, pos: p.peek().pos, message: fmt.Sprintf("nested more than %d deep", maxDepth)}
	}
	return nil
}

// make builds a node over kids and refuses trees that are too deep to walk.
func (p *parser) make(n node, kids ...*node) (*node, *textError) {
	n.kids = kids
	for _, k := range kids {
		n.depth = max(n.depth, k.depth+1)
	}
	if n.depth > maxDepth {
		return nil, &textError{code: CodeTooDeep, pos: n.pos, message: fmt.Sprintf("nested more than %d deep", maxDepth)}
	}
	return &n, nil
}

func (p *parser) expr(least int) (*node, *textError) {
	left, err := p.unary()
	if err != nil {
		return nil, err
	}
	for {
		t := p.peek()
		prec := 0
		if t.kind == tokOp || t.kind == tokName && t.text == "in" {
			prec = precedence[t.text]
		}
		if prec == 0 || prec < least {
			return left, nil
		}
		p.next()
		right, err := p.expr(prec + 1)
		if err != nil {
			return nil, err
		}
		if left, err = p.binary(t.text, left, right); err != nil {
			return nil, err
		}
		if prec == comparePrecedence {
			if after := p.peek(); precedence[after.text] == prec && (after.kind == tokOp || after.kind == tokName) {
				return nil, &textError{code: CodeSyntax, pos: after.pos, message: "comparisons do not chain", suggestion: "join two comparisons with &&"}
			}
		}
	}
}

// binary joins two sides; chains of && and of || become one node of many kids.
func (p *parser) binary(text string, left, right *node) (*node, *textError) {
	n := node{pos: left.pos, end: right.end}
	if o, ok := comparisons[text]; ok {
		n.op = o
		return p.make(n, left, right)
	}
	n.op = opOr
	if text == "&&" {
		n.op = opAnd
	}
	var kids []*node
	for _, side := range [...]*node{left, right} {
		if side.op == n.op {
			kids = append(kids, side.kids...)
		} else {
			kids = append(kids, side)
		}
	}
	return p.make(n, kids...)
}

func (p *parser) unary() (*node, *textError) {
	t := p.peek()
	if !p.accept("!") {
		return p.postfix()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	kid, err := p.unary()
	if err != nil {
		return nil, err
	}
	p.depth--
	return p.make(node{op: opNot, pos: t.pos, end: kid.end}, kid)
}

func (p *parser) postfix() (*node, *textError) {
	n, err := p.primary()
	for err == nil {
		switch {
		case p.accept("."):
			n, err = p.member(n)
		case p.accept("["):
			n, err = p.subscript(n)
		default:
			return n, nil
		}
	}
	return nil, err
}

func (p *parser) member(base *node) (*node, *textError) {
	name := p.next()
	if name.kind != tokName {
		return nil, p.unexpected(name, "a name")
	}
	n := node{op: opField, pos: base.pos, end: name.end, text: name.text}
	kids := []*node{base}
	if p.accept("(") {
		args, end, err := p.args(")")
		if err != nil {
			return nil, err
		}
		n.op, n.end = opMethod, end
		kids = append(kids, args...)
	}
	return p.make(n, kids...)
}

func (p *parser) subscript(base *node) (*node, *textError) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	from, err := p.expr(1)
	if err != nil {
		return nil, err
	}
	n, kids := node{op: opIndex, pos: base.pos}, []*node{base, from}
	if p.accept("..") {
		to, err := p.expr(1)
		if err != nil {
			return nil, err
		}
		n.op, kids = opSlice, append(kids, to)
	}
	closing, err := p.expect("]")
	if err != nil {
		return nil, err
	}
	p.depth--
	n.end = closing.end
	return p.make(n, kids...)
}

// args reads expressions separated by commas up to the closing bracket, whose
// end it returns.
func (p *parser) args(closing string) ([]*node, int, *textError) {
	if err := p.enter(); err != nil {
		return nil, 0, err
	}
	var args []*node
	for {
		t := p.peek()
		if len(args) == 0 && p.accept(closing) {
			p.depth--
			return nil, t.end, nil
		}
		a, err := p.expr(1)
		if err != nil {
			return nil, 0, err
		}
		args = append(args, a)
		if t = p.peek(); p.accept(closing) {
			p.depth--
			return args, t.end, nil
		}
		if !p.accept(",") {
			return nil, 0, p.unexpected(t, "\",\" or \""+closing+"\"")
		}
	}
}

func (p *parser) primary() (*node, *textError) {
	t := p.next()
	n := node{pos: t.pos, end: t.end, text: t.text}
	switch t.kind {
	case tokString:
		n.op = opString
		return &n, nil
	case tokInt, tokHexInt:
		return p.integer(t, t.pos, false)
	case tokName:
		return p.name(n)
	case tokOp:
		switch t.text {
		case "-":
			return p.negative(t)
		case "(":
			return p.parentheses(t)
		case "[":
			args, end, err := p.args("]")
			if err != nil {
				return nil, err
			}
			return p.make(node{op: opList, pos: t.pos, end: end}, args...)
		}
	}
	return nil, p.unexpected(t, "a value")
}

func (p *parser) name(n node) (*node, *textError) {
	switch n.text {
	case "true", "false":
		v := chains.BoolValue(n.text == "true")
		n.op, n.value = opBool, &v
		return &n, nil
	case "in":
		return nil, &textError{code: CodeSyntax, pos: n.pos, message: "found \"in\" where a value should be"}
	}
	n.op = opName
	if !p.accept("(") {
		return &n, nil
	}
	args, end, err := p.args(")")
	if err != nil {
		return nil, err
	}
	n.op, n.end = opCall, end
	return p.make(n, args...)
}

// parentheses reads what follows a "("; the node keeps them in its position, so
// that a reason quotes them.
func (p *parser) parentheses(open token) (*node, *textError) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	n, err := p.expr(1)
	if err != nil {
		return nil, err
	}
	closing, err := p.expect(")")
	if err != nil {
		return nil, err
	}
	p.depth--
	n.pos, n.end = open.pos, closing.end
	return n, nil
}

func (p *parser) negative(minus token) (*node, *textError) {
	t := p.next()
	if t.kind != tokInt && t.kind != tokHexInt {
		return nil, &textError{code: CodeSyntax, pos: minus.pos, message: "the language has no arithmetic"}
	}
	if p.lang != LangSigild {
		return nil, &textError{code: CodeNumber, pos: minus.pos, message: "negative numbers exist only under lang \"sigild\""}
	}
	return p.integer(t, minus.pos, true)
}

func (p *parser) integer(t token, pos int, negative bool) (*node, *textError) {
	v := chains.Value{Kind: chains.KindInt}
	tooBig := &textError{code: CodeNumber, pos: t.pos, message: "the number is larger than 2^256-1"}
	if t.kind == tokHexInt {
		if p.lang != LangSigild {
			return nil, &textError{code: CodeNumber, pos: t.pos, message: "hexadecimal integers exist only under lang \"sigild\"", suggestion: "addresses and data stand between single quotes"}
		}
		if len(t.text) > 64 {
			return nil, tooBig
		}
		for i := range len(t.text) {
			v.Int.Lsh(&v.Int, 4)
			v.Int.Or(&v.Int, uint256.NewInt(uint64(hexDigit(t.text[i]))))
		}
	} else if err := v.Int.SetFromDecimal(t.text); err != nil {
		return nil, tooBig
	}
	v.Neg = negative && !v.Int.IsZero()
	return &node{op: opInt, pos: pos, end: t.end, value: &v}, nil
}

func hexDigit(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
