package journal

import (
	"fmt"
	"slices"

	"github.com/holiman/uint256"
)

// Leases: what an older copy of the store, put back within one epoch of the anchor,
// can't spend again. Approvals are too many to move the anchor with each. So the
// store says beforehand how far they may go: a lease entry grants, for each account
// that a limit reads, what may be charged to it from then on, and is committed with
// the anchor's next epoch. A charge that doesn't fit takes a new lease, and with it
// the next epoch, before it is acknowledged (leasing.go). All approvals together are
// counted, too, so that there is a bound on what a copy forgets beside charges.
//
//	granted    with the next epoch: the leases named have so much left from here on
//	returned   at an orderly end: there are no leases any more
//	charged    at the start after any other end: what was left counts as spent, now
//
// Whoever opens a store with leases can't know whether it is the newest of its
// epoch, and charges them whole: what any copy of the epoch spent is within them.
// `returned` needs no epoch of its own: a lease is spent from by the process alone
// that took it, so its last word is the sum; and since nothing is approved without a
// lease, whoever opens that store approves nothing within the epoch. Put back after
// a newer lease was taken, it is of an older epoch and refused. Without an anchor
// there are no leases: they would be worth nothing.

// Lease is what a lease entry says of one account: how much was granted, returned or
// charged. Numbers are decimal.
type Lease struct {
	// Of is "organization", "user", "wallet" or "delegation"; "approvals" is all
	// approvals together, and has a count only.
	Of     string `json:"of"`
	ID     string `json:"id,omitempty"`     // which one
	To     string `json:"to,omitempty"`     // only what goes to this destination
	Asset  string `json:"asset,omitempty"`  // CAIP-19; empty: any
	What   string `json:"what,omitempty"`   // purposes: [ButFees], or [AllCharges]
	Amount string `json:"amount,omitempty"` // in the asset's smallest unit; empty: amounts are not leased
	Count  string `json:"count,omitempty"`  // how many approvals; empty: they are not leased
}

// What a lease entry's Outcome is.
const (
	leaseGranted  = "granted"
	leaseReturned = "returned"
	leaseCharged  = "charged"
)

const leaseOfApprovals = "approvals"

// scopeNames are the scopes that can be leased.
var scopeNames = map[scopeKind]string{
	scopeDelegation: "delegation", scopeWallet: "wallet", scopeOrganization: "organization", scopeUser: "user", scopeRule: "rule",
}

// allowance is what an account's leases have left; nil: there is none. The numbers
// are swapped, never modified.
type allowance struct{ amount, count *uint256.Int }

func (a allowance) none() bool { return a == allowance{} }

// parts are the numbers, for what is done to each.
func (a *allowance) parts() [2]**uint256.Int { return [...]**uint256.Int{&a.amount, &a.count} }

// each is a after f of the amount and t, and of the count and one approval.
func (a allowance) each(t *total, f func(left *uint256.Int, t *total) *uint256.Int) allowance {
	if a.amount != nil {
		a.amount = f(a.amount, t)
	}
	if a.count != nil {
		a.count = f(a.count, &total{lo: *uint256.NewInt(1)})
	}
	return a
}

// minus is what is left after t. What doesn't fit was asked for by no limit: then
// that lease is over.
func minus(left *uint256.Int, t *total) *uint256.Int {
	n, under := new(uint256.Int).SubOverflow(left, &t.lo)
	if under || t.hi > 0 || t.unbounded > 0 {
		return nil
	}
	return n
}

// plus is the inverse.
func plus(left *uint256.Int, t *total) *uint256.Int {
	if t.hi > 0 || t.unbounded > 0 {
		return left
	}
	n, over := new(uint256.Int).AddOverflow(left, &t.lo)
	if over {
		n.SetAllOne()
	}
	return n
}

// leaseOf spells an account's allowance.
func leaseOf(k accountKey, a allowance) Lease {
	l := Lease{Of: leaseOfApprovals, ID: k.scope.id, To: k.scope.to, Asset: k.asset, What: k.what}
	if k != (accountKey{}) {
		l.Of = scopeNames[k.scope.kind]
	}
	for i, out := range [...]*string{&l.Amount, &l.Count} {
		if n := *a.parts()[i]; n != nil {
			*out = n.Dec()
		}
	}
	return l
}

// parse is the inverse of leaseOf; the zero key is that of all approvals.
func (l *Lease) parse() (k accountKey, a allowance, err error) {
	bad := func(format string, args ...any) (accountKey, allowance, error) {
		return accountKey{}, allowance{}, fmt.Errorf("lease of %s %q, asset %q: %s", l.Of, l.ID, l.Asset, fmt.Sprintf(format, args...))
	}
	for i, text := range [...]string{l.Amount, l.Count} {
		if text == "" {
			continue
		}
		n := new(uint256.Int)
		if err := n.SetFromDecimal(text); err != nil || n.Dec() != text {
			return bad("%q is no decimal number below 2^256", text)
		}
		*a.parts()[i] = n
	}
	if a.none() {
		return bad("of nothing")
	}
	k = accountKey{Scope{id: l.ID, to: l.To}, l.Asset, l.What}
	if l.Of == leaseOfApprovals {
		if k != (accountKey{}) || a.amount != nil {
			return bad("it is of all approvals together")
		}
		return k, a, nil
	}
	for kind, name := range scopeNames {
		if name == l.Of && l.ID != "" {
			k.scope.kind = kind
			return k, a, nil
		}
	}
	return bad("not known to this build")
}

// checkLeases refuses lists that don't fit the kind.
func (e *Entry) checkLeases() error {
	if (e.Kind == KindLease) != (len(e.Leases) > 0) {
		return fmt.Errorf("kind %s with %d leases", e.Kind, len(e.Leases))
	}
	if e.Kind != KindLease {
		return nil
	}
	if !slices.Contains([]string{leaseGranted, leaseReturned, leaseCharged}, e.Outcome) {
		return fmt.Errorf("leases can't be %q", e.Outcome)
	}
	var last accountKey
	for i := range e.Leases {
		k, _, err := e.Leases[i].parse()
		if err != nil {
			return err
		}
		if i == 0 && k != last || i > 0 && compareAccounts(last, k) >= 0 {
			return fmt.Errorf("leases are not in order: all approvals, then accounts, each once")
		}
		last = k
	}
	return nil
}

// applyLease folds a lease entry.
func (p *projections) applyLease(e *Entry) (func(), error) {
	if e.Outcome == leaseGranted {
		return p.grant(e), nil
	}
	if !slices.Equal(p.leases(), e.Leases) {
		return nil, fmt.Errorf("the leases that are %s are not those that are outstanding", e.Outcome)
	}
	before := p.approvals
	undos := []func(){func() { p.approvals = before }}
	for _, k := range p.leased() {
		a := p.accounts[k]
		lease, history := a.lease, a.history
		undos = append(undos, func() { a.lease, a.history = lease, history })
		if e.Outcome == leaseCharged {
			a.charge(e.TimeMS, e.Seq, lease)
		}
		a.lease = allowance{}
	}
	p.approvals = nil
	return func() {
		for _, undo := range undos {
			undo()
		}
	}, nil
}

// charge counts what a lease had left as spent at ms.
func (a *account) charge(ms int64, seq uint64, left allowance) {
	e := ended{from: ms, ms: ms, seq: seq, count: 1} // every sum is of something
	if left.amount != nil {
		e.running.lo = *left.amount
	}
	if left.count != nil && left.count.IsUint64() {
		e.count = max(1, left.count.Uint64())
	}
	if n := len(a.history); n > 0 {
		e.running.add(&a.history[n-1].running)
		e.count += a.history[n-1].count
	}
	a.history = append(slices.Clip(a.history), e)
}

// grant sets leases; accounts that nothing was charged to yet are made.
func (p *projections) grant(e *Entry) (undo func()) {
	approvals := p.approvals
	before := map[*account]allowance{}
	for i := range e.Leases {
		k, left, _ := e.Leases[i].parse() // check has read it
		if i == 0 {
			p.approvals = left.count
			continue
		}
		a := p.accounts[k]
		if a == nil {
			a = &account{}
			p.accounts[k] = a
		}
		before[a], a.lease = a.lease, left
	}
	return func() {
		for a, lease := range before {
			a.lease = lease
		}
		p.approvals = approvals
	}
}

// leased are the accounts that have a lease, sorted. There are none unless approvals
// have one, too.
func (p *projections) leased() (keys []accountKey) {
	if p.approvals == nil {
		return nil
	}
	for k, a := range p.accounts {
		if !a.lease.none() {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareAccounts)
	return keys
}

// leases are those that are outstanding, as an entry lists them; nil for none.
func (p *projections) leases() []Lease {
	if p.approvals == nil {
		return nil
	}
	out := []Lease{leaseOf(accountKey{}, allowance{count: p.approvals})}
	for _, k := range p.leased() {
		out = append(out, leaseOf(k, p.accounts[k].lease))
	}
	return out
}

// take takes a new reservation out of the leases of its accounts, giveBack puts a
// released one back: an account's charges and what its lease has left always have
// the same sum, until the next grant.
func (p *projections) take(r *reservation) (putBack func()) {
	putBack = p.remember(r)
	for i := range r.shares {
		if a := r.shares[i].acc; !a.lease.none() {
			a.lease = a.lease.each(&r.shares[i].sum, minus)
		}
	}
	if p.approvals != nil && !p.approvals.IsZero() {
		p.approvals = new(uint256.Int).SubUint64(p.approvals, 1)
	}
	return putBack
}

func (p *projections) giveBack(r *reservation) (putBack func()) {
	putBack = p.remember(r)
	for i := range r.shares {
		if a := r.shares[i].acc; !a.lease.none() {
			a.lease = a.lease.each(&r.shares[i].sum, plus)
		}
	}
	return putBack
}

// remember gives a way back to the leases as they are.
func (p *projections) remember(r *reservation) (putBack func()) {
	leases := make([]allowance, len(r.shares))
	for i := range r.shares {
		leases[i] = r.shares[i].acc.lease
	}
	approvals := p.approvals
	return func() {
		for i := range r.shares {
			r.shares[i].acc.lease = leases[i]
		}
		p.approvals = approvals
	}
}

// leases of a snapshot's state.
func (w *packer) leases(p *projections, keys []accountKey, numbers map[*account]int) {
	w.u32(len(keys))
	for _, k := range keys {
		a := p.accounts[k]
		w.u32(numbers[a])
		w.raw([]byte{bit(a.lease.amount != nil) | bit(a.lease.count != nil)<<1})
		for _, n := range a.lease.parts() {
			if *n != nil {
				w.amount(*n)
			}
		}
	}
	w.raw([]byte{bit(p.approvals != nil)})
	if p.approvals != nil {
		w.amount(p.approvals)
	}
}

func (r *unpacker) leases(p *projections, accounts []*account) {
	for n := r.count(37); n > 0; n-- {
		i, flags := int(r.u32()), r.u8()
		var left allowance
		for k, out := range left.parts() {
			if flags>>k&1 != 0 {
				*out = r.amount()
			}
		}
		if i >= len(accounts) || left.none() || flags > 3 {
			r.bad = true
			return
		}
		accounts[i].lease = left
	}
	switch there := r.u8(); {
	case there == 1:
		p.approvals = r.amount()
	case there != 0:
		r.bad = true
	}
}
