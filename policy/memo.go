package policy

// In large sets most parts of clauses are written alike: the same chain, the same
// contract, the same cap on fees. What such a part says is a function of the request, so
// within one decision it is worked out once and remembered. Nothing is skipped by it:
// every part of every policy in scope has its value and its steps in every decision,
// as if it had been evaluated there.

// part is a function that the conjuncts of one text share.
type part struct {
	holds boolFunc
	// slot is where its value is remembered.
	slot uint8
	// shared: more than one conjunct has it.
	shared bool
}

// partKey is what a part's meaning depends on, beside the schema and limits of the set.
type partKey struct {
	clause, lang, text string
	partial            bool
}

// parts are those of a set while it is compiled.
type parts map[partKey]*part

// of finds the part for a key, or makes it.
func (ps parts) of(key partKey, compile func() boolFunc) *part {
	p := ps[key]
	if p == nil {
		p = &part{holds: compile(), slot: uint8(len(ps) % memoSlots)}
		ps[key] = p
		return p
	}
	p.shared = true
	return p
}

// memoSlots is how many values a decision remembers at a time. Two parts of one slot
// take turns, which costs time and nothing else.
const memoSlots = 64

// remembered is the value of a part, and what it cost.
type remembered struct {
	of    *part
	holds bool
	err   *evalError
	steps int
}

// judge says whether a part holds.
func (f *frame) judge(p *part) (bool, *evalError) {
	if !p.shared {
		f.used = 0
		return p.holds(f)
	}
	if f.memo == nil {
		f.memo = new([memoSlots]remembered)
	}
	m := &f.memo[p.slot]
	if m.of == p && m.steps <= f.steps { // with fewer left it would run out on its way
		f.steps -= m.steps
		return m.holds, m.err
	}
	f.used = 0
	before := f.steps
	holds, err := p.holds(f)
	if f.steps >= 0 { // what ran out of steps may not, in another policy
		*m = remembered{p, holds, err, before - f.steps}
	}
	return holds, err
}
