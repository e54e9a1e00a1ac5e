package policy

import (
	"bytes"
	"hash/maphash"
	"strings"

	"github.com/sigild/sigild/chains"
)

// Comparisons are by value: an address is its 20 bytes, not its spelling.

// operand is one side of a comparison. Constants and fields of roots, which is
// what most comparisons are of, are read without another call.
type operand struct {
	value       *chains.Value // a constant
	of          valueFunc     // anything else but
	root, field int           // a field of a root, when of is nil too
	n           *node
}

func compileOperand(n *node) operand {
	switch {
	case n.value != nil:
		return operand{value: n.value, n: n}
	case n.op == opField && n.kids[0].op == opRoot:
		return operand{root: n.kids[0].index, field: n.index, n: n}
	}
	return operand{of: compileValue(n), n: n}
}

func (o *operand) get(f *frame) (*chains.Value, *evalError) {
	switch {
	case o.value != nil:
		return o.value, nil
	case o.of != nil:
		return o.of(f)
	}
	if v := f.roots[o.root]; v != nil && v.Kind == chains.KindStruct && o.field < len(v.List) {
		if v = &v.List[o.field]; v.Kind != chains.KindAbsent && !v.Partial {
			return v, nil
		}
	}
	return compileField(o.n)(f) // the first read of the root, or an error to explain
}

func compileEquality(n *node) boolFunc {
	a, b := compileOperand(n.kids[0]), compileOperand(n.kids[1])
	want := n.op == opEqual
	return func(f *frame) (bool, *evalError) {
		x, err := a.get(f)
		if err != nil {
			return false, err
		}
		y, err := b.get(f)
		if err != nil {
			return false, err
		}
		equal, err := f.equal(n, x, y)
		if f.native && err == nil {
			// Only its name, written in the policy, can be compared with what is not known.
			hidden := a.value == nil && unknown(x) || b.value == nil && unknown(y)
			named := a.value != nil && unknown(x) || b.value != nil && unknown(y)
			if hidden && !named {
				return false, n.err(evalMissing, "an account behind a lookup table is not known")
			}
		}
		return equal == want && err == nil, err
	}
}

func compileOrdering(n *node) boolFunc {
	a, b := compileOperand(n.kids[0]), compileOperand(n.kids[1])
	return func(f *frame) (bool, *evalError) {
		x, err := a.get(f)
		if err != nil {
			return false, err
		}
		y, err := b.get(f)
		if err != nil {
			return false, err
		}
		if err := f.spend(n, 1); err != nil {
			return false, err
		}
		if x.Kind != y.Kind || x.Kind != chains.KindInt && x.Kind != kindTime {
			return false, n.err(evalType, "the two sides have no order")
		}
		c := compare(x, y)
		switch n.op {
		case opLess:
			return c < 0, nil
		case opLessEqual:
			return c <= 0, nil
		case opGreater:
			return c > 0, nil
		}
		return c >= 0, nil
	}
}

// compare orders two signed integers.
func compare(x, y *chains.Value) int {
	switch {
	case x.Neg != y.Neg:
		if x.Neg {
			return -1
		}
		return 1
	case x.Neg:
		return y.Int.Cmp(&x.Int)
	}
	return x.Int.Cmp(&y.Int)
}

// literalSet is the elements of a constant list of texts or of accounts, for lists
// too long to be compared one by one: a hash table that a miss reads one word of,
// where a Go map's would be four places in memory. In large sets memory is the cost.
type literalSet struct {
	kind  chains.TypeKind
	size  int // of the list
	texts []string
	slots []literalSlot // a power of two, at most half full
}

// literalSlot is empty when its hash is 0.
type literalSlot struct {
	hash uint64
	text int // number in texts
}

var literalSeed = maphash.MakeSeed()

// newLiteralSet returns nil for lists that it doesn't help with.
func newLiteralSet(list *chains.Value) *literalSet {
	if list == nil || len(list.List) < 4 {
		return nil
	}
	room := 8
	for room < 2*len(list.List) {
		room *= 2
	}
	s := &literalSet{kind: list.List[0].Kind, size: len(list.List), slots: make([]literalSlot, room)}
	for i := range list.List {
		v := &list.List[i]
		switch {
		case v.Kind != s.kind:
			return nil
		case s.kind == chains.KindString:
			s.add(v.Str)
		case account(s.kind) && v.Str == "":
			s.add(string(v.Raw))
		default:
			return nil
		}
	}
	return s
}

func (s *literalSet) add(text string) {
	if slot := s.slot(text); slot.hash == 0 {
		*slot = literalSlot{literalHash(text), len(s.texts)}
		s.texts = append(s.texts, text)
	}
}

// slot is where text is, or would be.
func (s *literalSet) slot(text string) *literalSlot {
	hash := literalHash(text)
	for i := hash; ; i++ {
		slot := &s.slots[i%uint64(len(s.slots))]
		if slot.hash == 0 || slot.hash == hash && s.texts[slot.text] == text {
			return slot
		}
	}
}

func literalHash(text string) uint64 { return maphash.String(literalSeed, text) | 1 }

// contains answers as comparing x with every element would; ok is false when it can't.
func (s *literalSet) contains(x *chains.Value) (found, ok bool) {
	switch {
	case s == nil || x.Kind != s.kind:
		return false, false
	case s.kind == chains.KindString:
		return s.slot(x.Str).hash != 0, true
	case x.Str == "":
		return s.slot(string(x.Raw)).hash != 0, true
	}
	return false, false
}

func compileMembership(n, item, list *node) boolFunc {
	itemOf, listOf := compileValue(item), compileValue(list)
	set := newLiteralSet(list.value)
	return func(f *frame) (bool, *evalError) {
		x, err := itemOf(f)
		if err != nil {
			return false, err
		}
		if found, ok := set.contains(x); ok {
			return found, f.spend(n, set.size*comparisonSteps(x))
		}
		l, err := listOf(f)
		if err != nil {
			return false, err
		}
		if !l.IsList() {
			return false, list.err(evalType, "members are looked for in a list")
		}
		if err := f.spend(n, l.Len()*comparisonSteps(x)); err != nil {
			return false, err
		}
		found, undecided := false, f.native && item.value == nil && unknown(x)
		var at chains.Value
		for i := range l.Len() {
			element := l.At(i, &at)
			equal, ok := same(x, element)
			if !ok {
				return false, n.err(evalType, "element %d is of another type", i)
			}
			found = found || equal
			undecided = undecided || f.native && list.value == nil && unknown(element)
		}
		if undecided && !found {
			return false, n.err(evalMissing, "an account behind a lookup table is not known")
		}
		return found, nil
	}
}

// unknown reports whether v is an account behind a lookup table that was not
// resolved. In LangTurnkey it equals its name and nothing else; in LangSigild
// nothing can be said of it but that name.
func unknown(v *chains.Value) bool { return v.Kind == chains.KindPubkey && v.Raw == nil }

// equal compares two values; sides that cannot be compared are an error.
func (f *frame) equal(n *node, x, y *chains.Value) (bool, *evalError) {
	if err := f.spend(n, comparisonSteps(x)); err != nil {
		return false, err
	}
	equal, ok := same(x, y)
	if !ok {
		return false, n.err(evalType, "the two sides are of different types")
	}
	return equal, nil
}

// comparisonSteps is what comparing x with anything costs.
func comparisonSteps(x *chains.Value) int { return 1 + len(x.Str)/64 }

// same compares by value; ok is false for values that cannot be compared. Static
// types keep most of those out: what is left comes from values of kind any.
func same(x, y *chains.Value) (equal, ok bool) {
	if x.Kind == y.Kind {
		switch x.Kind {
		case chains.KindString:
			return x.Str == y.Str, true
		case chains.KindBool, chains.KindInt, kindTime:
			return x.Neg == y.Neg && x.Int == y.Int, true
		case chains.KindAddress, chains.KindPubkey:
			return bytes.Equal(x.Raw, y.Raw) && x.Str == y.Str, true
		case chains.KindHex:
			return equalHex(x.Str, y.Str), true
		}
		return false, false
	}
	// A literal beside a value of kind any is text that may spell an account.
	if y.Kind == chains.KindString {
		x, y = y, x
	}
	if x.Kind == chains.KindString {
		switch {
		case y.Kind == chains.KindHex:
			return equalHex(x.Str, y.Str), true
		case y.Kind == chains.KindAddress && len(x.Raw) == 20, y.Kind == chains.KindPubkey && len(x.Raw) == 32:
			return bytes.Equal(x.Raw, y.Raw), true
		}
	}
	return false, account(x.Kind) && account(y.Kind) // an address and a key: never one account
}

// equalHex compares hexadecimal text by its bytes: neither the case of digits
// nor a leading 0x counts.
func equalHex(a, b string) bool {
	if a == b {
		return true
	}
	return strings.EqualFold(strings.TrimPrefix(a, "0x"), strings.TrimPrefix(b, "0x"))
}
