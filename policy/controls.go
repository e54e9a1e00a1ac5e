package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Controls: conditions in lang sigild read how much of a limit is used. The names
// are limits of the text that the policy was compiled with, so a set that is joined
// of several reads in each part the limits of that part: a control is a part of the
// clause, not a root of the schema.

// controlsName is the word before the limit's: controls.<limit>.<field>.
const controlsName = "controls"

// controlFields are what a condition reads of a limit, in the group that the request
// belongs to and the limit's window as of now. docs/policy.md says the same.
var controlFields = []controlField{
	{"used", func(c *controlState) (uint256.Int, string) { return c.used.Sum, c.sumUnknown() }},
	{"left", func(c *controlState) (left uint256.Int, why string) {
		if c.limit.Max.Gt(&c.used.Sum) {
			left.Sub(&c.limit.Max, &c.used.Sum)
		}
		return left, firstOf(c.noMax(), c.sumUnknown())
	}},
	{"max", func(c *controlState) (uint256.Int, string) { return c.limit.Max, c.noMax() }},
	{"asked", func(c *controlState) (uint256.Int, string) { return c.ask.amount, c.askUnknown() }},
	{"count", func(c *controlState) (uint256.Int, string) { return *uint256.NewInt(c.used.Count), "" }},
	{"count_left", func(c *controlState) (left uint256.Int, why string) {
		if c.limit.MaxCount > c.used.Count {
			left.SetUint64(c.limit.MaxCount - c.used.Count)
		}
		return left, c.noCount()
	}},
	{"max_count", func(c *controlState) (uint256.Int, string) { return *uint256.NewInt(c.limit.MaxCount), c.noCount() }},
}

type controlField struct {
	name string
	// read gives the value, or why there is none.
	read func(*controlState) (value uint256.Int, why string)
}

// controlState is one limit as one request sees it.
type controlState struct {
	limit *Limit
	// unknown says why nothing can be read; "": it can.
	unknown string
	used    Usage
	ask     asking
	// vague: what the request asks of the limit cannot be told.
	vague bool
}

func (c *controlState) sumUnknown() string {
	switch {
	case c.limit.Asset == "":
		return "the limit counts requests of any asset and has no sum"
	case c.used.Unbounded:
		return "what was spent has no known bound"
	}
	return ""
}

func (c *controlState) askUnknown() string {
	if c.vague || c.ask.unbounded {
		return "what the request spends has no known bound"
	}
	return ""
}

func (c *controlState) noMax() string {
	if c.limit.AnyAmount {
		return "the limit has no max"
	}
	return ""
}

func (c *controlState) noCount() string {
	if c.limit.MaxCount == 0 {
		return "the limit has no max_count"
	}
	return ""
}

func firstOf(whys ...string) string {
	for _, why := range whys {
		if why != "" {
			return why
		}
	}
	return ""
}

// see finds out how a limit stands for the request.
func (l *Limit) see(sp *Spending) (c controlState) {
	c.limit = l
	switch {
	case sp == nil || sp.Spent == nil:
		c.unknown = "what was spent is not known here"
		return c
	case !l.covers(*sp):
		c.unknown = "the limit is another delegation's"
		return c
	}
	asks, ok := l.asks(l.Asset, *sp)
	switch {
	case len(asks) > 1:
		c.unknown = "the request has several destinations"
		return c
	case len(asks) == 1:
		c.ask = asks[0]
	case l.Per == PerDestination:
		c.unknown = "the request has no destination of this asset"
		return c
	case ok:
		c.ask.of = l.group(*sp)
	default:
		c.ask.of, c.vague = l.group(*sp), true
	}
	if c.ask.of == "" && l.Per != PerAll {
		c.unknown = fmt.Sprintf("the request has no %s", l.Per)
		return c
	}
	c.used = sp.Spent(l.query(c.ask.of, l.Asset, sp.Now))
	if c.used.Kept >= MaxKept {
		c.unknown = fmt.Sprintf("%d sums are kept already", MaxKept)
	}
	return c
}

// control is the state of a limit, looked up once a decision.
func (f *frame) control(l *Limit) *controlState {
	for i := range f.controls {
		if f.controls[i].limit == l {
			return &f.controls[i]
		}
	}
	f.controls = append(f.controls, l.see(f.req.Spending))
	return &f.controls[len(f.controls)-1]
}

// isControl reports whether a node is the bare word controls.
func (c *checker) isControl(n *node) bool {
	return n.op == opName && n.text == controlsName && c.variable(n.text) < 0
}

// limitNode resolves controls.<name> and controls['name'] to a limit.
func (c *checker) limitNode(n *node, name string) *chains.Type {
	n.path = controlsName + "." + name
	if c.lang != LangSigild {
		return c.fail(n, CodeWrongClause, fmt.Sprintf("set lang to %q", LangSigild), "%s exists only under lang %q", controlsName, LangSigild)
	}
	if c.clause != ClauseCondition {
		return c.fail(n, CodeWrongClause, "", "%s belongs into %s, not into %s", controlsName, ClauseCondition, c.clause)
	}
	var found []*Limit
	var names []string
	for i := range c.limits {
		l := &c.limits[i]
		short := l.ID[strings.LastIndexByte(l.ID, '/')+1:]
		if name != "" && (l.ID == name || short == name || l.Name == name) {
			found = append(found, l)
		}
		names = append(names, short)
		if l.Name != "" {
			names = append(names, l.Name)
		}
	}
	switch {
	case len(found) == 0:
		return c.fail(n, CodeUnknownName, didYouMean(name, names), "there is no limit %q beside this policy", name)
	case len(found) > 1:
		return c.fail(n, CodeUnknownName, "name it by its id", "%d limits are called %q", len(found), name)
	}
	l := found[0]
	if l.Delegation != "" && l.Delegation != c.scope {
		return c.fail(n, CodeWrongClause, "give the policy the scope of that delegation", "limit %q is of delegation %q, and the policy judges others too", name, l.Delegation)
	}
	n.op, n.limit = opControl, l
	c.reads[controlsName] = true
	return typeControl
}

// typeControl is what controls.<limit> is.
var typeControl = func() *chains.Type {
	var fields []chains.Field
	for _, f := range controlFields {
		fields = append(fields, chains.Field{Name: f.name, Type: typeInt})
	}
	return structOf(fields...)
}()

// compileControl builds the reading of a field of a limit.
func compileControl(n *node) valueFunc {
	limit, read := n.kids[0].limit, controlFields[n.index].read
	return func(f *frame) (*chains.Value, *evalError) {
		if err := f.spend(n, 16); err != nil {
			return nil, err
		}
		c := f.control(limit)
		value, why := read(c)
		if why = firstOf(c.unknown, why); why != "" {
			return nil, n.err(evalMissing, "%s is not known: %s", n.path, why)
		}
		out := f.temp()
		*out = chains.IntValue(&value)
		return out, nil
	}
}

// Again decides once more on a request whose limits may stand otherwise than when d
// was made: under the lock under which it will be reserved. Policies that read a limit
// are evaluated anew with req, all others keep their result, as the rest of req must be
// what it was.
func (s *Set) Again(d Decision, req Request) (again Decision) {
	if s == nil || !s.controls {
		return d
	}
	defer func() {
		if r := recover(); r != nil {
			again = Decision{Outcome: DenyError, SetHash: s.hash, Reason: "internal error while evaluating policies"}
		}
	}()
	again = Decision{SetHash: d.SetHash, Steps: d.Steps, Policies: slices.Clone(d.Policies)}
	f := &frame{req: &req, schema: s.schema}
	walk := s.walk(req.DelegationID)
	for i := range again.Policies {
		next, ok := walk.next()
		if !ok || s.policies[next].policy.ID != d.Policies[i].ID {
			return Decision{Outcome: DenyError, SetHash: s.hash, Reason: "the decision is of another set of policies"}
		}
		if !s.policies[next].reads[controlsName] {
			continue
		}
		f.steps = policySteps
		again.Policies[i] = PolicyResult{}
		s.policies[next].evaluate(f, &again.Policies[i])
		again.Steps += policySteps - max(f.steps, 0)
	}
	again.decide()
	return again
}
