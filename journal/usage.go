package journal

import (
	"slices"
	"sort"
	"time"

	"github.com/holiman/uint256"
)

// Usage: what was charged, per scope, asset and purpose. A reservation is in
// flight from its approval on and counts in every window; once it ended it
// counts in the windows that reach back to its end. An account keeps running
// sums in time order, so a window's sum is two binary searches away however
// many charges there are. At a snapshot what is old becomes coarse: charges whose
// ends lie closer together than 1/256 of their age count as if they had all ended
// with the last of them. So an account has a few thousand sums at most, and a charge
// leaves a window at most 1/256 of the window late, never early.
//
// Every charge is kept in every scope, for ever, whether a limit asks for it or not: a
// limit that is made later, or made anew, sees what was spent before it. Pruning takes
// rows and leaves the accounts, which are in the snapshots.

// Scope says whose charges are summed, and with [Scope.To] which of them.
type Scope struct {
	kind   scopeKind
	id, to string
}

type scopeKind uint8

const (
	scopeDelegation scopeKind = iota + 1
	scopeWallet
	scopeOrganization
	scopeUser
	scopeRule
)

// ByDelegation sums the charges of one delegation.
func ByDelegation(id string) Scope { return Scope{kind: scopeDelegation, id: id} }

// ByWallet sums the charges of one wallet.
func ByWallet(id string) Scope { return Scope{kind: scopeWallet, id: id} }

// ByOrganization sums the charges of one organization.
func ByOrganization(id string) Scope { return Scope{kind: scopeOrganization, id: id} }

// ByUser sums the charges of the requests that one user made.
func ByUser(id string) Scope { return Scope{kind: scopeUser, id: id} }

// ByRule sums the charges of the approvals under one rule that asked for it, by
// [Entry.SumByRule].
func ByRule(id string) Scope { return Scope{kind: scopeRule, id: id} }

// To narrows a delegation's or an organization's charges to one destination, as
// [Charge.To] spells it. Fees have none. Other scopes keep no such sums.
func (s Scope) To(destination string) Scope { s.to = destination; return s }

// Purposes of charges, for [Journal.Spent].
const (
	// AllCharges are all, fees included.
	AllCharges = ""
	// ButFees are all but fees.
	ButFees = "but fees"
	// whatFee is the purpose of a charge that is a fee.
	whatFee = "fee"
)

// AnyAsset counts requests whatever they spend, those too that spend nothing; it has
// no sums. Ask for [AllCharges] of it.
const AnyAsset = ""

// Spent is the usage within a window.
type Spent struct {
	Sum uint256.Int // in the asset's smallest unit
	// Unbounded: a charge without a bound is among them, or the sum passes 2^256−1.
	Unbounded bool
	Count     int // approved requests with such a charge
	InFlight  int // of these, how many have not ended
	// Oldest is when the oldest that ended did; zero if there is none. It leaves a
	// window w at Oldest+w.
	Oldest time.Time
	// Kept is how many separate sums are kept for the account, those in flight included.
	Kept int
}

type accountKey struct {
	scope       Scope
	asset, what string
}

// total is a sum that can't overflow: lo + hi·2^256.
type total struct {
	lo        uint256.Int
	hi        uint64
	unbounded uint64 // how many unbounded charges
}

func (t *total) add(o *total) {
	if _, over := t.lo.AddOverflow(&t.lo, &o.lo); over {
		t.hi++
	}
	t.hi += o.hi
	t.unbounded += o.unbounded
}

func (t *total) sub(o *total) {
	if _, under := t.lo.SubOverflow(&t.lo, &o.lo); under {
		t.hi--
	}
	t.hi -= o.hi
	t.unbounded -= o.unbounded
}

// ended is a reservation that ended, or several; running and count include them and
// all before.
type ended struct {
	from, ms int64  // when the first and the last of them ended
	seq      uint64 // of the approval; 0: several
	running  total
	count    uint64
}

// account is one running sum.
type account struct {
	flying  total
	inAir   int
	history []ended // by ms, then by when they were added
	lease   allowance
	// pass and place say where the running pass of sharesOf has put it.
	pass  uint64
	place int
}

func (a *account) depart(t *total) { a.flying.add(t); a.inAir++ }
func (a *account) recall(t *total) { a.flying.sub(t); a.inAir-- }

// land starts the window of what is in flight.
func (a *account) land(ms int64, seq uint64, t *total) {
	a.recall(t)
	e := ended{from: ms, ms: ms, seq: seq, running: *t, count: 1}
	if n := len(a.history); n > 0 {
		e.running.add(&a.history[n-1].running)
		e.count += a.history[n-1].count
	}
	a.history = append(a.history, e)
}

// unland takes the last land back.
func (a *account) unland(t *total) {
	a.history = a.history[:len(a.history)-1]
	a.depart(t)
}

// relaunch takes the ended reservation seq back into flight, and returns the
// history as it was.
func (a *account) relaunch(ms int64, seq uint64, t *total) (before []ended) {
	before = a.history
	i := a.where(ms, seq)
	after := slices.Clone(before[:i])
	var base uint64
	if i > 0 {
		base = before[i-1].count
	}
	for _, e := range before[min(i, len(before)):] {
		e.running.sub(t)
		if e.count--; e.count > base { // it is not the only one of its sum
			after = append(after, e)
		}
	}
	a.history = after
	a.depart(t)
	return before
}

// where finds the sum that an ended reservation is in: its own, or the coarse one
// over its time.
func (a *account) where(ms int64, seq uint64) int {
	first := sort.Search(len(a.history), func(i int) bool { return a.history[i].ms >= ms })
	for i := first; i < len(a.history) && a.history[i].from <= ms; i++ {
		if a.history[i].seq == seq {
			return i
		}
	}
	for i := first; i < len(a.history) && a.history[i].from <= ms; i++ {
		if a.history[i].seq == 0 {
			return i
		}
	}
	return len(a.history) // not there: nothing to take back
}

// coarseness is the part of its age by which a charge may leave a window late.
const coarseness = 256

// coarsen gives the history as a snapshot at ms keeps it.
func coarsen(history []ended, ms int64) []ended {
	var out []ended
	for _, e := range history {
		if n := len(out); n > 0 && e.ms-out[n-1].from <= (ms-e.ms)/coarseness {
			e.from, e.seq = out[n-1].from, 0
			out[n-1] = e
			continue
		}
		out = append(out, e)
	}
	return out
}

func (a *account) unrelaunch(before []ended, t *total) {
	a.history = before
	a.recall(t)
}

// since sums what is in flight and what ended after ms.
func (a *account) since(ms int64) Spent {
	t := a.flying
	i := sort.Search(len(a.history), func(i int) bool { return a.history[i].ms > ms })
	s := Spent{Count: a.inAir, InFlight: a.inAir, Kept: a.inAir + len(a.history)}
	if i < len(a.history) {
		n := a.history[len(a.history)-1].count
		s.Oldest = time.UnixMilli(a.history[i].ms).UTC()
		t.add(&a.history[len(a.history)-1].running)
		if i > 0 {
			t.sub(&a.history[i-1].running)
			n -= a.history[i-1].count
		}
		s.Count += int(n)
	}
	s.Sum, s.Unbounded = t.lo, t.unbounded > 0
	if t.hi > 0 {
		s.Sum.SetAllOne()
		s.Unbounded = true
	}
	return s
}

// share is what one reservation puts into one account.
type share struct {
	acc *account
	sum total
}

// sharesOf adds a reservation's charges up per account, making accounts as needed.
func (p *projections) sharesOf(e *Entry, charges []Charge, amounts []uint256.Int) []share {
	p.pass++
	var out []share
	put := func(s Scope, asset, what string, t *total) {
		k := accountKey{s, asset, what}
		a := p.accounts[k]
		if a == nil {
			a = &account{}
			p.accounts[k] = a
		}
		if a.pass != p.pass {
			a.pass, a.place = p.pass, len(out)
			out = append(out, share{acc: a})
		}
		out[a.place].sum.add(t)
	}
	var scopes []Scope
	for _, s := range [...]Scope{ByDelegation(e.Delegation), ByWallet(e.Wallet), ByOrganization(e.Organization), ByUser(e.User)} {
		if s.id != "" {
			scopes = append(scopes, s)
		}
	}
	if e.Facts[factSum] == sumByRule && e.Rule != "" {
		scopes = append(scopes, ByRule(e.Rule))
	}
	for _, s := range scopes {
		put(s, AnyAsset, AllCharges, &total{})
	}
	for i, c := range charges {
		t := total{lo: amounts[i]}
		if c.Unbounded {
			t.unbounded = 1
		}
		for _, s := range scopes {
			put(s, c.Asset, AllCharges, &t)
			if c.What != whatFee {
				put(s, c.Asset, ButFees, &t)
			}
			if c.What != whatFee && c.To != "" && (s.kind == scopeDelegation || s.kind == scopeOrganization) {
				put(s.To(c.To), c.Asset, ButFees, &t)
				put(s.To(c.To), AnyAsset, AllCharges, &total{})
			}
		}
	}
	return out
}

// spent sums; an account that isn't there is zero.
func (p *projections) spent(s Scope, asset, what string, since time.Time) Spent {
	a := p.accounts[accountKey{s, asset, what}]
	if a == nil {
		return Spent{}
	}
	ms := since.UnixMilli()
	if since.IsZero() {
		ms = -1
	}
	return a.since(ms)
}

// Destinations lists those that a scope, a delegation's or an organization's, ever
// charged, in no order.
func (j *Journal) Destinations(s Scope) (list []string) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for k := range j.proj.accounts {
		if k.scope.to != "" && k.scope == s.To(k.scope.to) && k.asset == AnyAsset {
			list = append(list, k.scope.to)
		}
	}
	return list
}
