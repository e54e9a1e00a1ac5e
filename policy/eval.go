package policy

import (
	"fmt"

	"github.com/sigild/sigild/chains"
)

// A checked clause becomes closures over a frame. Both sides of && and || and
// every element of a list are always evaluated, so that an error never depends
// on what stands before it.

// Step budgets. A step is one operator, one list element, or 64 bytes of text.
const (
	// policySteps bounds the clauses of one policy.
	policySteps = 100_000
	// requestSteps bounds all policies of one decision.
	requestSteps = 5_000_000
)

// evalError says why a clause has no value.
type evalError struct {
	code     string
	message  string
	pos, end int // the sub-expression
}

// Codes of evaluation errors, stable; they stand in reasons.
const (
	evalMissing = "missing" // not part of this payload or request
	evalRange   = "range"   // index or slice outside of the text or list
	evalType    = "type"    // a value of kind any is not what it is used as
	evalBudget  = "budget"  // too many steps
)

type (
	valueFunc func(*frame) (*chains.Value, *evalError)
	boolFunc  func(*frame) (bool, *evalError)
)

// frame is the state of one decision; nothing outlives it.
type frame struct {
	req    *Request
	schema *Schema
	// native: the policy under evaluation is in LangSigild. partial: it reads lists that
	// may lack elements.
	native, partial bool
	// roots are built when first read.
	roots [maxRoots]*chains.Value
	vars  [maxVariables]*chains.Value
	// items holds the elements that variables stand for, where a list makes them.
	items [maxVariables]chains.Value
	steps int
	// controls are the limits that were read so far.
	controls []controlState

	// memo holds values of parts that several policies share; nil before the first.
	memo *[memoSlots]remembered

	// scratch holds short-lived values; a loop gives back what its body took.
	scratch [4]chains.Value
	used    int
}

func (f *frame) temp() *chains.Value {
	if f.used == len(f.scratch) {
		return new(chains.Value)
	}
	v := &f.scratch[f.used]
	f.used++
	*v = chains.Value{}
	return v
}

// item returns element i of a list.
func (f *frame) item(list *chains.Value, i int) *chains.Value {
	if list.Kind == chains.KindSeq {
		return list.At(i, f.temp())
	}
	return &list.List[i]
}

// root returns the value of a root, nil when this request does not have it.
func (f *frame) root(i int) *chains.Value {
	if v := f.roots[i]; v != nil {
		return present(v)
	}
	v := new(chains.Value)
	if r := &f.schema.roots[i]; r.of != nil {
		*v = r.of(f.req)
	} else if f.req.Decoded != nil {
		*v = f.req.Decoded.View[r.Name]
	}
	f.roots[i] = v
	return present(v)
}

func present(v *chains.Value) *chains.Value {
	if v.Kind == chains.KindAbsent {
		return nil
	}
	return v
}

func (n *node) err(code, format string, args ...any) *evalError {
	return &evalError{code: code, message: fmt.Sprintf(format, args...), pos: n.pos, end: n.end}
}

// spend takes steps off the budget.
func (f *frame) spend(n *node, steps int) *evalError {
	if f.steps -= steps; f.steps < 0 {
		return n.err(evalBudget, "more than %d steps", policySteps)
	}
	return nil
}

// compileBool builds the function of a node that is a yes or no.
func compileBool(n *node) boolFunc {
	switch n.op {
	case opAnd, opOr:
		return compileLogic(n)
	case opNot:
		kid := compileBool(n.kids[0])
		return func(f *frame) (bool, *evalError) {
			b, err := kid(f)
			return !b && err == nil, err
		}
	case opEqual, opNotEqual:
		return compileEquality(n)
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		return compileOrdering(n)
	case opIn:
		return compileMembership(n, n.kids[0], n.kids[1])
	case opCall:
		if n.span != nil {
			return compileCronSpan(n)
		}
	case opMethod:
		switch n.text {
		case "contains":
			return compileMembership(n, n.kids[1], n.kids[0])
		case "all", "any":
			return compileQuantifier(n)
		}
	}
	value := compileValue(n)
	return func(f *frame) (bool, *evalError) {
		v, err := value(f)
		if err != nil {
			return false, err
		}
		if v.Kind != chains.KindBool {
			return false, n.err(evalType, "%s is no bool", n.path)
		}
		return !v.Int.IsZero(), nil
	}
}

func compileLogic(n *node) boolFunc {
	kids := make([]boolFunc, len(n.kids))
	for i, k := range n.kids {
		kids[i] = compileBool(k)
	}
	and := n.op == opAnd
	return func(f *frame) (bool, *evalError) {
		result := and
		for _, kid := range kids {
			b, err := kid(f)
			if err != nil {
				return false, err
			}
			if and {
				result = result && b
			} else {
				result = result || b
			}
		}
		return result, f.spend(n, len(kids))
	}
}

// compileQuantifier builds all and any.
func compileQuantifier(n *node) boolFunc {
	each := compileLoop(n)
	all := n.text == "all"
	return func(f *frame) (bool, *evalError) {
		result := all
		_, err := each(f, func(_ *chains.Value, holds bool) {
			if all {
				result = result && holds
			} else {
				result = result || holds
			}
		})
		return result && err == nil, err
	}
}

// compileLoop builds the walk that all, any and filter share; it visits every
// element and returns the list.
func compileLoop(n *node) func(*frame, func(item *chains.Value, holds bool)) (*chains.Value, *evalError) {
	list, body, slot := compileValue(n.kids[0]), compileBool(n.kids[2]), n.slot
	return func(f *frame, visit func(*chains.Value, bool)) (*chains.Value, *evalError) {
		l, err := list(f)
		if err != nil {
			return nil, err
		}
		if !l.IsList() {
			return nil, n.kids[0].err(evalType, "%s works on a list", n.text)
		}
		mark := f.used
		for i := range l.Len() {
			if err := f.spend(n, 1); err != nil {
				return nil, err
			}
			item := l.At(i, &f.items[slot])
			if item.Kind == chains.KindAbsent {
				return nil, n.kids[0].err(evalMissing, "element %d is not known", i)
			}
			f.vars[slot] = item
			holds, err := body(f)
			if err != nil {
				return nil, err
			}
			f.used = mark
			visit(item, holds)
		}
		return l, nil
	}
}
