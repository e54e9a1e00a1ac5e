package policy

import (
	"unicode/utf8"

	"github.com/sigild/sigild/chains"
)

// Access reads parts: fields, elements, slices, keys. A part that is absent, or
// outside of what it is taken from, is an error and never an empty value.

// compileValue builds the function of any node.
func compileValue(n *node) valueFunc {
	if n.value != nil {
		v := n.value
		return func(*frame) (*chains.Value, *evalError) { return v, nil }
	}
	switch n.op {
	case opRoot:
		return compileRoot(n)
	case opVar:
		slot := n.slot
		return func(f *frame) (*chains.Value, *evalError) { return f.vars[slot], nil }
	case opField:
		return compileField(n)
	case opControl:
		return func(*frame) (*chains.Value, *evalError) {
			return nil, n.err(evalType, "%s is not a value by itself", n.path)
		}
	case opIndex:
		return compileIndex(n)
	case opSlice:
		return compileSlice(n)
	case opList:
		return compileList(n)
	case opMethod:
		switch n.text {
		case "count":
			return compileCount(n)
		case "filter":
			return compileFilter(n)
		}
	}
	b := compileBool(n)
	return func(f *frame) (*chains.Value, *evalError) {
		holds, err := b(f)
		if err != nil {
			return nil, err
		}
		v := f.temp()
		*v = chains.BoolValue(holds)
		return v, nil
	}
}

func compileRoot(n *node) valueFunc {
	index := n.index
	return func(f *frame) (*chains.Value, *evalError) {
		if v := f.root(index); v != nil {
			return v, nil
		}
		return nil, n.err(evalMissing, "this request has no %s", n.path)
	}
}

func compileField(n *node) valueFunc {
	if n.kids[0].op == opControl {
		return compileControl(n)
	}
	base, index := compileValue(n.kids[0]), n.index
	return func(f *frame) (*chains.Value, *evalError) {
		v, err := base(f)
		if err != nil {
			return nil, err
		}
		if v.Kind != chains.KindStruct || index >= len(v.List) {
			return nil, n.err(evalType, "%s is not laid out as expected", n.kids[0].path)
		}
		if v = &v.List[index]; v.Kind != chains.KindAbsent {
			return v, n.whole(f, v)
		}
		return nil, n.err(evalMissing, "%s does not exist here", n.path)
	}
}

// whole refuses a list that may lack elements: what is not understood could be
// one of them. A policy with PartialLists takes what there is.
func (n *node) whole(f *frame, v *chains.Value) *evalError {
	if v.Partial && !f.partial {
		return n.err(evalMissing, "%s is not known: part of the payload was not understood", n.path)
	}
	return nil
}

func compileIndex(n *node) valueFunc {
	base, at := compileValue(n.kids[0]), compileValue(n.kids[1])
	return func(f *frame) (*chains.Value, *evalError) {
		v, err := base(f)
		if err != nil {
			return nil, err
		}
		k, err := at(f)
		if err != nil {
			return nil, err
		}
		if err := f.spend(n, 1); err != nil {
			return nil, err
		}
		if v.Kind == chains.KindMap {
			if k.Kind != chains.KindString {
				return nil, n.kids[1].err(evalType, "the key of a map is a string")
			}
			x := v.Map.Get(k.Str)
			if x == nil || x.Kind == chains.KindAbsent {
				return nil, n.err(evalMissing, "there is no %q", k.Str)
			}
			return x, nil
		}
		i, err := f.position(n.kids[1], k)
		if err != nil {
			return nil, err
		}
		if !v.IsList() {
			return f.cut(n, v, i, i+1)
		}
		if i >= v.Len() {
			return nil, n.err(evalRange, "there is no element %d in a list of %d", i, v.Len())
		}
		item := f.item(v, i)
		if item.Kind == chains.KindAbsent {
			return nil, n.err(evalMissing, "element %d is not known", i)
		}
		return item, nil
	}
}

// position reads an index; no list or text reaches 2^31.
func (f *frame) position(n *node, v *chains.Value) (int, *evalError) {
	if v.Kind != chains.KindInt {
		return 0, n.err(evalType, "an index is an int")
	}
	if v.Neg || v.Int.GtUint64(1<<31) {
		return 0, n.err(evalRange, "no text or list has this index")
	}
	return int(v.Int.Uint64()), nil
}

// compilePosition is the function of an index; of a number that is written there it is
// read once.
func compilePosition(n *node) func(*frame) (int, *evalError) {
	if n.value != nil {
		if at, err := (*frame)(nil).position(n, n.value); err == nil {
			return func(*frame) (int, *evalError) { return at, nil }
		}
	}
	of := compileValue(n)
	return func(f *frame) (int, *evalError) {
		v, err := of(f)
		if err != nil {
			return 0, err
		}
		return f.position(n, v)
	}
}

func compileSlice(n *node) valueFunc {
	base, from, to := compileValue(n.kids[0]), compilePosition(n.kids[1]), compilePosition(n.kids[2])
	return func(f *frame) (*chains.Value, *evalError) {
		v, err := base(f)
		if err != nil {
			return nil, err
		}
		a, err := from(f)
		if err != nil {
			return nil, err
		}
		b, err := to(f)
		if err != nil {
			return nil, err
		}
		if a > b {
			return nil, n.err(evalRange, "the slice ends before it starts")
		}
		if !v.IsList() {
			return f.cut(n, v, a, b)
		}
		if b > v.Len() {
			return nil, n.err(evalRange, "slice %d..%d of a list of %d", a, b, v.Len())
		}
		if v.Kind == chains.KindSeq {
			part := make([]chains.Value, b-a)
			for i := range part {
				part[i] = v.Seq.At(a + i)
			}
			out := f.temp()
			*out = chains.ListValue(part...)
			return out, f.spend(n, 1+len(part))
		}
		out := f.temp()
		*out = chains.ListValue(v.List[a:b]...)
		return out, f.spend(n, 1)
	}
}

// cut takes characters a to b out of text. Plain text counts in code points,
// hexadecimal text in digits; both start at 0, and "0x" counts as two.
func (f *frame) cut(n *node, v *chains.Value, a, b int) (*chains.Value, *evalError) {
	if v.Kind != chains.KindString && v.Kind != chains.KindHex {
		return nil, n.err(evalType, "only lists and texts have parts")
	}
	s := v.Str
	if v.Kind == chains.KindString {
		if err := f.spend(n, 1+len(s)/64); err != nil {
			return nil, err
		}
		if utf8.RuneCountInString(s) != len(s) {
			return f.cutRunes(n, s, a, b)
		}
	}
	if b > len(s) {
		return nil, n.err(evalRange, "characters %d..%d of a text of %d", a, b, len(s))
	}
	out := f.temp()
	*out = chains.StringValue(s[a:b])
	return out, f.spend(n, 1+(b-a)/64)
}

func (f *frame) cutRunes(n *node, s string, a, b int) (*chains.Value, *evalError) {
	r := []rune(s)
	if b > len(r) {
		return nil, n.err(evalRange, "characters %d..%d of a text of %d", a, b, len(r))
	}
	out := f.temp()
	*out = chains.StringValue(string(r[a:b]))
	return out, nil
}

func compileList(n *node) valueFunc {
	kids := make([]valueFunc, len(n.kids))
	for i, k := range n.kids {
		kids[i] = compileValue(k)
	}
	return func(f *frame) (*chains.Value, *evalError) {
		if err := f.spend(n, len(kids)); err != nil {
			return nil, err
		}
		vs := make([]chains.Value, len(kids))
		for i, kid := range kids {
			v, err := kid(f)
			if err != nil {
				return nil, err
			}
			vs[i] = *v
		}
		out := f.temp()
		*out = chains.ListValue(vs...)
		return out, nil
	}
}

func compileCount(n *node) valueFunc {
	list := compileValue(n.kids[0])
	return func(f *frame) (*chains.Value, *evalError) {
		l, err := list(f)
		if err != nil {
			return nil, err
		}
		if !l.IsList() {
			return nil, n.kids[0].err(evalType, "count works on a list")
		}
		out := f.temp()
		*out = chains.Uint64Value(uint64(l.Len()))
		return out, f.spend(n, 1)
	}
}

func compileFilter(n *node) valueFunc {
	each := compileLoop(n)
	return func(f *frame) (*chains.Value, *evalError) {
		var kept []chains.Value
		_, err := each(f, func(item *chains.Value, holds bool) {
			if holds {
				kept = append(kept, *item)
			}
		})
		if err != nil {
			return nil, err
		}
		out := f.temp()
		*out = chains.ListValue(kept...)
		return out, nil
	}
}
