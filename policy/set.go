package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

// Set is the compiled policies and limits of one organization. It is immutable
// and safe for concurrent use.
type Set struct {
	schema   *Schema
	policies []compiled // ordered by id
	// everywhere and scoped hold numbers into policies, ascending.
	everywhere []int
	scoped     map[string][]int
	limits     []Limit // ordered by id, assets canonical
	controls   bool    // some policy reads a limit
	hash       [32]byte
}

// compiled is one policy ready to evaluate.
type compiled struct {
	policy    *Policy
	time      clause
	consensus clause
	condition clause
	// payloads and subjects are the roots of those groups that are read; when all
	// of a group are missing from a request the policy is not applicable.
	payloads, subjects []int
	// reads are the paths of view fields that its clauses read.
	reads map[string]bool
}

// clause is the conjuncts of one text; none: it holds.
type clause struct {
	name  string
	src   string
	parts []conjunct
}

// conjunct is one top-level part of a clause, at pos to end of its source. Positions in
// its errors count from its own start: parts with one text are one (memo.go).
type conjunct struct {
	*part
	pos, end int
}

// Compile checks policies and limits against a schema (nil: [StandardSchema])
// and makes a set of them. With any diagnostic of SeverityError the set is nil.
// Diagnostics are ordered by id, clause and offset. The order of the arguments
// means nothing; policies and limits are copied.
func Compile(policies []Policy, limits []Limit, schema *Schema) (*Set, []Diagnostic) {
	if schema == nil {
		schema = StandardSchema()
	}
	s := &Set{schema: schema, scoped: map[string][]int{}}
	shared := parts{}
	var ds []Diagnostic
	add := func(d Diagnostic) { ds = append(ds, d) }

	s.limits = compileLimits(limits, add)
	sorted := slices.Clone(policies)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].ID < sorted[j].ID })
	for i := range sorted {
		p := &sorted[i]
		if i > 0 && sorted[i-1].ID == p.ID {
			add(Diagnostic{ID: p.ID, Clause: "id", Code: CodeDuplicateID, Offset: -1, Message: "two policies have this id"})
		}
		s.add(compilePolicy(p, schema, s.limits, shared, add))
	}

	sort.SliceStable(ds, func(i, j int) bool {
		a, b := &ds[i], &ds[j]
		if a.ID != b.ID {
			return a.ID < b.ID
		}
		if a.Clause != b.Clause {
			return a.Clause < b.Clause
		}
		return a.Offset < b.Offset
	})
	if HasErrors(ds) {
		return nil, ds
	}
	s.hash = hashSet(sorted, s.limits)
	return s, ds
}

// add puts a policy behind those of the set; its id comes after theirs.
func (s *Set) add(c compiled) {
	if d := c.policy.Scope.Delegation; d != "" {
		s.scoped[d] = append(s.scoped[d], len(s.policies))
	} else {
		s.everywhere = append(s.everywhere, len(s.policies))
	}
	s.controls = s.controls || c.reads[controlsName]
	s.policies = append(s.policies, c)
}

// Hash identifies what the set says: SHA-256 over the language version and every
// field of every policy and limit, in the order of their ids.
func (s *Set) Hash() [32]byte { return s.hash }

// Limits returns the limits of the set, ordered by id.
func (s *Set) Limits() []Limit { return slices.Clone(s.limits) }

func compilePolicy(p *Policy, schema *Schema, limits []Limit, shared parts, add func(Diagnostic)) compiled {
	p.diagnose(add)
	c := compiled{policy: p}
	facts := policyFacts{policy: p, schema: schema, limits: limits, shared: shared, roots: map[int]bool{}, reads: map[string]bool{}}
	c.time = compileClause(&facts, ClauseTime, add)
	c.consensus = compileClause(&facts, ClauseConsensus, add)
	c.condition = compileClause(&facts, ClauseCondition, add)
	for i := range facts.roots {
		switch schema.roots[i].presence {
		case perPayload:
			c.payloads = append(c.payloads, i)
		case perSubject:
			c.subjects = append(c.subjects, i)
		}
	}
	c.reads = facts.reads
	facts.lint(add)
	return c
}

// policyFacts is what the clauses of a policy say, for lints.
type policyFacts struct {
	policy *Policy
	schema *Schema
	limits []Limit
	shared parts
	roots  map[int]bool
	reads  map[string]bool
	sites  []lintSite // of the condition
	tree   *node      // of the condition; nil when empty or wrong
	failed bool
}

func compileClause(facts *policyFacts, name string, add func(Diagnostic)) clause {
	p := facts.policy
	src := p.clause(name)
	out := clause{name: name, src: src}
	if src == "" {
		return out
	}
	report := func(code string, pos int, message, suggestion string) {
		facts.failed = true
		add(Diagnostic{ID: p.ID, Clause: name, Code: code, Offset: pos, Message: message, Suggestion: suggestion})
	}
	tree, err := parse(src, p.lang())
	if err != nil {
		report(err.code, err.pos, err.message, err.suggestion)
		return out
	}
	wrong := false
	c := &checker{schema: facts.schema, clause: name, lang: p.lang(), limits: facts.limits, scope: p.Scope.Delegation, roots: facts.roots, reads: facts.reads}
	c.report = func(code string, pos int, message, suggestion string) {
		wrong = true
		report(code, pos, message, suggestion)
	}
	c.clauseType(tree)
	if wrong {
		return out
	}
	if name == ClauseCondition {
		facts.tree, facts.sites = tree, c.lints
	}
	parts := []*node{tree}
	if tree.op == opAnd {
		parts = tree.kids
	}
	for _, n := range parts {
		part := facts.shared.of(partKey{name, p.lang(), src[n.pos:n.end], p.PartialLists}, func() boolFunc { return compileBool(n.moved(-n.pos)) })
		out.parts = append(out.parts, conjunct{part, n.pos, n.end})
	}
	return out
}

// evaluate runs every conjunct and reports whether the clause holds. It fills in
// the first conjunct that is false, or what could not be evaluated.
func (c *clause) evaluate(f *frame, r *PolicyResult) (holds bool, err *evalError) {
	holds = true
	for i := range c.parts {
		part := &c.parts[i]
		ok, e := f.judge(part.part)
		switch {
		case e != nil:
			if err == nil {
				moved := *e
				moved.pos, moved.end = e.pos+part.pos, e.end+part.pos
				err = &moved
			}
			r.missed++
		case ok:
			r.held++
		default:
			if holds && err == nil {
				r.Clause, r.Expr, r.Offset = c.name, c.src[part.pos:part.end], part.pos
			}
			holds = false
			r.missed++
		}
	}
	if err != nil {
		r.Clause, r.Expr, r.Offset = c.name, c.src[err.pos:err.end], err.pos
		r.Error = err.message
		return false, err
	}
	return holds, nil
}

// Evaluate decides one request. It is a pure function of the set and the
// request, and it does not panic: a fault in here denies with DenyError.
//
// Each policy is judged by time, then consensus, then condition. A DENY that
// holds denies; else a DENY that could not be evaluated denies; else one ALLOW
// that holds allows; else the request needs consensus, or is denied implicitly.
func (s *Set) Evaluate(req Request) (d Decision) {
	if s == nil {
		return Decision{Outcome: DenyError, Reason: "no policies are loaded"}
	}
	defer func() {
		if r := recover(); r != nil {
			d = Decision{Outcome: DenyError, SetHash: s.hash, Reason: "internal error while evaluating policies"}
		}
	}()
	d.SetHash = s.hash
	if dec := req.Decoded; dec != nil && req.Kind != "" && dec.Kind != req.Kind {
		d.Outcome = DenyError
		d.Reason = fmt.Sprintf("the payload is of kind %s, not %s", dec.Kind, req.Kind)
		return d
	}
	f := &frame{req: &req, schema: s.schema}
	walk := s.walk(req.DelegationID)
	d.Policies = make([]PolicyResult, 0, len(walk.everywhere)+len(walk.scoped))
	for next, ok := walk.next(); ok; next, ok = walk.next() {
		f.steps = policySteps
		d.Policies = append(d.Policies, PolicyResult{})
		s.policies[next].evaluate(f, &d.Policies[len(d.Policies)-1])
		if d.Steps += policySteps - max(f.steps, 0); d.Steps > requestSteps {
			d.Outcome, d.Reason = DenyError, fmt.Sprintf("more than %d steps for all policies", requestSteps)
			return d
		}
	}
	d.decide()
	return d
}

// walk is the way through the policies in scope, by id.
type walk struct{ everywhere, scoped []int }

func (s *Set) walk(delegation string) walk {
	w := walk{everywhere: s.everywhere}
	if delegation != "" {
		w.scoped = s.scoped[delegation]
	}
	return w
}

// next gives the number of the next policy.
func (w *walk) next() (i int, ok bool) {
	from := &w.everywhere
	if len(w.everywhere) == 0 || len(w.scoped) > 0 && w.scoped[0] < w.everywhere[0] {
		from = &w.scoped
	}
	if len(*from) == 0 {
		return 0, false
	}
	i, *from = (*from)[0], (*from)[1:]
	return i, true
}

// evaluate judges one policy.
func (c *compiled) evaluate(f *frame, r *PolicyResult) {
	p := c.policy
	r.ID, r.Name, r.Effect, r.OneTime, r.Replace = p.ID, p.Name, p.Effect, p.OneTime, p.Replace
	f.native = p.lang() == LangSigild
	f.partial = p.PartialLists
	// Step 1: is the policy about this kind of request, and does it exist still?
	if f.missing(c.payloads) || f.missing(c.subjects) {
		r.Outcome = NotApplicable
		return
	}
	if !p.NotAfter.IsZero() {
		switch {
		case f.req.Now.IsZero():
			r.Outcome, r.Clause, r.Error = Failed, "not_after", "the time is not known"
			return
		case !f.req.Now.Before(p.NotAfter):
			r.Outcome, r.Clause = TimeInactive, "not_after"
			return
		}
	}
	// Step 2: time.
	active, err := c.time.evaluate(f, r)
	if err != nil {
		r.Outcome = Failed
		return
	}
	if !active {
		r.Outcome = TimeInactive
		return
	}
	// Step 3: consensus. The condition is looked at whatever it says.
	voters := f
	if p.RequesterAbstains {
		voters = f.abstaining()
	}
	agreed, err := c.consensus.evaluate(voters, r)
	f.steps = voters.steps
	if err != nil {
		r.Outcome = Failed
		return
	}
	missing, offset := r.Expr, r.Offset
	r.Clause, r.Expr, r.Offset = "", "", 0
	// Step 4: condition.
	holds, err := c.condition.evaluate(f, r)
	switch {
	case err != nil:
		r.Outcome = Failed
	case !holds:
		r.Outcome = NoMatch
	case p.Effect == Allow && c.overlooks(f.req.Decoded, r):
		r.Outcome = NoMatch
	case agreed:
		r.Outcome = Matched
	default:
		r.Clause, r.Expr, r.Offset = ClauseConsensus, missing, offset
		r.Outcome = NoMatch
		if p.Effect == Allow {
			r.Outcome = NeedsConsensus
		}
	}
}

// overlooks reports whether the payload says something dangerous that the policy
// does not read (chains.Decoded.Guards), such as a durable nonce: an ALLOW that
// did not look at it does not mean it.
func (c *compiled) overlooks(d *chains.Decoded, r *PolicyResult) bool {
	if d == nil {
		return false
	}
	for _, guard := range d.Guards {
		if !c.readsOf(guard) {
			r.Clause, r.Expr, r.Error = ClauseCondition, guard, "the payload has it and the policy does not read it"
			return true
		}
	}
	if c.policy.lang() != LangSigild || slices.ContainsFunc(calldataFields, c.readsOf) {
		return false
	}
	switch evm.DataStatus(d) {
	case "unknown", "noncanonical":
		r.Clause, r.Expr, r.Error = ClauseCondition, evm.Root+".data", "the payload calls something that is not understood, and the policy reads nothing of the call"
		return true
	}
	return false
}

// calldataFields are what an ALLOW in lang sigild reads one of when it means to allow
// calls that are not understood. The imported language has no such rule; it has a lint.
var calldataFields = []string{evm.Root + ".data", evm.Root + ".data_status", evm.Root + ".function_name",
	evm.Root + ".function_signature", evm.Root + ".contract_call_args", evm.Root + ".calls"}

// readsOf reports whether the policy reads a field, or a part of it.
func (c *compiled) readsOf(field string) bool {
	if c.reads[field] {
		return true
	}
	for path := range c.reads {
		if strings.HasPrefix(path, field+".") {
			return true
		}
	}
	return false
}

// missing reports whether the request has none of the roots, and there are some.
func (f *frame) missing(roots []int) bool {
	for _, i := range roots {
		if f.root(i) != nil {
			return false
		}
	}
	return len(roots) > 0
}

// decide turns the results of all policies into one outcome.
func (d *Decision) decide() {
	var denied, failed, allowed, waiting, near *PolicyResult
	first := func(at **PolicyResult, r *PolicyResult) {
		if *at == nil {
			*at = r
		}
	}
	for i := range d.Policies {
		r := &d.Policies[i]
		switch {
		case r.Effect == Deny && r.Outcome == Matched:
			first(&denied, r)
		case r.Effect == Deny && r.Outcome == Failed:
			first(&failed, r)
		case r.Effect == Deny:
		case r.Outcome == Matched:
			first(&allowed, r)
		case r.Outcome == NeedsConsensus:
			first(&waiting, r)
		case near == nil || r.closer(near):
			near = r
		}
	}
	settle := func(o Outcome, r *PolicyResult) {
		d.Outcome, d.Rule, d.PolicyName, d.Reason = o, r.ID, r.Name, r.explain()
	}
	switch {
	case denied != nil:
		settle(DenyExplicit, denied)
	case failed != nil:
		settle(DenyError, failed)
	case allowed != nil:
		settle(Allowed, allowed)
	case waiting != nil:
		settle(RequiresConsensus, waiting)
	case near != nil:
		d.PolicyName, d.Reason = near.Name, near.explain()
	default:
		d.Reason = "no policy allows anything here"
	}
}
