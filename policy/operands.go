package policy

import (
	"slices"

	"github.com/sigild/sigild/chains"
)

// This part of the checker says which operands may stand together.

func (c *checker) equality(n *node) *chains.Type {
	a, b := n.kids[0], n.kids[1]
	ta, tb := c.check(a), c.check(b)
	if ta.Kind == kindWrong || tb.Kind == kindWrong {
		return typeBool
	}
	if !c.comparable(n, a, b) {
		return typeWrong
	}
	c.neverEqual(a, b)
	c.neverEqual(b, a)
	return typeBool
}

// comparable makes two sides comparable with ==, turning a literal into what the
// other side is, and complains when they are not.
func (c *checker) comparable(n *node, a, b *node) bool {
	switch {
	case a.op == opString && b.op != opString:
		c.textHex(a, b)
		return c.coerce(a, b.typ)
	case b.op == opString && a.op != opString:
		c.textHex(b, a)
		return c.coerce(b, a.typ)
	}
	ka, kb := a.typ.Kind, b.typ.Kind
	switch {
	case ka == kindWrong || kb == kindWrong:
		return true
	case !scalar(ka) || !scalar(kb):
		c.fail(n, CodeType, "compare a part of it", "%s and %s cannot be compared", typeName(a.typ), typeName(b.typ))
		return false
	case ka == kb, ka == kindAny, kb == kindAny:
		return true
	case account(ka) && account(kb) && (ka == kindAccount || kb == kindAccount):
		return true
	}
	suggestion := ""
	if a.op == opInt && kb == chains.KindString || b.op == opInt && ka == chains.KindString {
		suggestion = "text stands between single quotes"
	}
	c.fail(n, CodeType, suggestion, "%s and %s cannot be compared", typeName(a.typ), typeName(b.typ))
	return false
}

func scalar(k chains.TypeKind) bool {
	return k != chains.KindList && k != chains.KindStruct && k != chains.KindMap
}

func account(k chains.TypeKind) bool {
	return k == chains.KindAddress || k == chains.KindPubkey || k == kindAccount
}

// coerce turns the string literal n into a value of type t.
func (c *checker) coerce(n *node, t *chains.Type) bool {
	if t.Kind == kindWrong {
		return true
	}
	v, problem := literal(n.text, t)
	if problem != nil {
		c.fail(n, problem.code, problem.suggestion, "%s", problem.message)
		return false
	}
	if (t.Kind == chains.KindHex || t.Kind == kindHexText) && hasUpper(n.text) {
		c.lints = append(c.lints, lintSite{what: CodeUpperHex, pos: n.pos})
	}
	n.value, n.typ = &v, t
	return true
}

func hasUpper(s string) bool {
	return slices.ContainsFunc([]byte(s), func(b byte) bool { return b >= 'A' && b <= 'Z' })
}

// neverEqual notes a slice whose length is not that of the literal beside it.
func (c *checker) neverEqual(cut, lit *node) {
	if cut.op != opSlice || lit.op != opString || cut.kids[1].op != opInt || cut.kids[2].op != opInt {
		return
	}
	from, to := cut.kids[1].value.Int.Uint64(), cut.kids[2].value.Int.Uint64()
	switch {
	case to < from: // does not compile
	case to-from != uint64(len([]rune(lit.text))):
		c.lints = append(c.lints, lintSite{what: CodeNeverEqual, pos: lit.pos})
	case to-from == 64 && cut.kids[0].typ.Kind == chains.KindHex:
		c.lints = append(c.lints, lintSite{what: CodeTextAmount, pos: lit.pos})
	}
}

func (c *checker) ordering(n *node) *chains.Type {
	a, b := n.kids[0], n.kids[1]
	ta, tb := c.check(a), c.check(b)
	for _, side := range [...]struct {
		n     *node
		t     *chains.Type
		other *chains.Type
	}{{a, ta, tb}, {b, tb, ta}} {
		switch side.t.Kind {
		case chains.KindInt, kindTime, kindAny, kindWrong:
			continue
		}
		if side.n.op == opString && (side.other.Kind == chains.KindInt || side.other.Kind == kindTime) {
			c.coerce(side.n, side.other) // always complains, with a suggestion
			return typeWrong
		}
		return c.fail(side.n, CodeType, "", "only int and timestamp have an order; this is %s", typeName(side.t))
	}
	if ta.Kind != tb.Kind && ta.Kind != kindAny && tb.Kind != kindAny && ta.Kind != kindWrong && tb.Kind != kindWrong {
		return c.fail(n, CodeType, "", "%s and %s cannot be compared", typeName(ta), typeName(tb))
	}
	return typeBool
}

// membership checks `item in list` and `list.contains(item)`; both sides are
// checked already.
func (c *checker) membership(n, item, list *node) *chains.Type {
	switch {
	case item.typ.Kind == kindWrong || list.typ.Kind == kindWrong:
		return typeWrong
	case list.typ.Kind == kindAny:
		if item.op == opString {
			c.coerce(item, typeAny)
		}
		return typeBool
	case list.typ.Kind != chains.KindList:
		return c.fail(list, CodeType, "", "members are looked for in a list, not in %s", typeName(list.typ))
	}
	if list.op == opList && item.op != opString {
		ok := true
		for _, k := range list.kids {
			ok = c.comparable(k, item, k) && ok
		}
		if !ok {
			return typeWrong
		}
		list.typ = listOf(item.typ)
		c.constant(list)
		return typeBool
	}
	elem := &node{op: opName, pos: list.pos, typ: list.typ.Elem}
	if list.op == opList && list.typ.Elem.Kind == chains.KindString {
		elem.op = opString
	}
	if !c.comparable(n, item, elem) {
		return typeWrong
	}
	return typeBool
}

// list checks a list literal: all elements of one type.
func (c *checker) list(n *node) *chains.Type {
	elem := typeAny
	for i, k := range n.kids {
		t := c.check(k)
		switch {
		case t.Kind == kindWrong:
			return typeWrong
		case !scalar(t.Kind):
			return c.fail(k, CodeType, "", "a list holds simple values, not %s", typeName(t))
		case i > 0 && t.Kind != elem.Kind:
			return c.fail(k, CodeType, "", "the list mixes %s and %s", typeName(elem), typeName(t))
		}
		elem = t
	}
	n.typ = listOf(elem)
	c.constant(n)
	return n.typ
}

// constant folds a list of literals into one value.
func (c *checker) constant(n *node) {
	vs := make([]chains.Value, len(n.kids))
	for i, k := range n.kids {
		if k.value == nil {
			n.value = nil
			return
		}
		vs[i] = *k.value
	}
	v := chains.ListValue(vs...)
	n.value = &v
}
