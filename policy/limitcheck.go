package policy

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Checking limits: what a request asks, per group, beside what was spent before.

// SpentQuery asks how much was spent before, in one group.
type SpentQuery struct {
	// Delegation narrows to what this delegation spent; empty: everybody's counts.
	Delegation string
	// Per is the kind of group and Of its name: a user, a delegation, a wallet or a
	// destination as charges spell it. Of is empty with PerAll.
	Per Per
	Of  string
	// Asset is canonical, as [CanonicalAsset] returns it; empty: requests are counted
	// whatever they spent, and there is no sum.
	Asset string
	// IncludeFees: charges for fees count, else they do not.
	IncludeFees bool
	// Since selects charges that took effect after this instant, and all that are
	// still in flight. The zero time selects all.
	Since time.Time
}

// Usage answers a [SpentQuery].
type Usage struct {
	// Sum is in the asset's smallest unit.
	Sum uint256.Int
	// Unbounded: one of the charges has no bound, or the sum is beyond 2^256-1.
	Unbounded bool
	// Count is how many requests have such charges.
	Count uint64
	// InFlight is how many of these are not settled.
	InFlight int
	// Kept is how many separate sums are kept for the group, see [MaxKept].
	Kept int
	// Oldest is when the oldest of them that is settled took effect; it leaves a window
	// w at Oldest+w. Zero: none is settled.
	Oldest time.Time
}

// Spending is a request as limits see it.
type Spending struct {
	// Chain is the CAIP-2 id of the payload's chain.
	Chain string
	// Charges are the payload's, all of them.
	Charges []chains.Charge
	// Opaque: part of the payload was not understood.
	Opaque bool
	// Delegation is the delegation that asks; empty when the owner does. User is who
	// asks and Wallet what signs: a limit per user refuses where there is none.
	Delegation, User, Wallet string
	Now                      time.Time
	// Reserved: the charges are in what Spent answers already, and the limits are held
	// against that alone. Of Charges only the groups matter then.
	Reserved bool
	// Spent sums charges that were reserved before. It is called under the lock under
	// which the request will be reserved.
	Spent func(SpentQuery) Usage
}

// LimitExceeded is the refusal of a limit.
type LimitExceeded struct {
	LimitID, Name string
	// Delegation is whose requests the limit counts, and Per and Of which group of them.
	Delegation string
	Per        Per
	Of         string
	// Asset is the limit's, canonical.
	Asset string
	// Max, Spent and Asked are in the asset's smallest unit. Spent does not include
	// Asked.
	Max, Spent, Asked uint256.Int
	// MaxCount and Count are of requests; set when there were too many.
	MaxCount, Count uint64
	// AskedUnbounded: it cannot be computed how much the request spends, or on whom.
	AskedUnbounded bool
	// SpentUnbounded: it cannot be computed how much was spent before.
	SpentUnbounded bool
	// Full: more is remembered of the group than a limit may look at.
	Full bool
	// RetryAfter is how long to wait until the same request would pass if nothing
	// else is spent, rounded up to seconds; 0: waiting does not help.
	RetryAfter time.Duration
}

func (e *LimitExceeded) Error() string {
	title := e.Name
	if title == "" {
		title = e.LimitID
	}
	what := e.Asset
	if what == "" {
		what = "signatures"
	}
	switch {
	case e.Full:
		return fmt.Sprintf("limit %q: %d sums of %s are kept already", title, MaxKept, what)
	case e.AskedUnbounded:
		return fmt.Sprintf("limit %q: what the request spends of %s has no known bound", title, what)
	case e.SpentUnbounded:
		return fmt.Sprintf("limit %q: what was spent of %s has no known bound", title, what)
	case e.MaxCount > 0:
		return fmt.Sprintf("limit %q: %d of %d requests for %s were approved", title, e.Count, e.MaxCount, what)
	}
	return fmt.Sprintf("limit %q: %s of %s asked, %s of %s spent", title, e.Asked.Dec(), what, e.Spent.Dec(), e.Max.Dec())
}

// CheckLimits checks the set's limits; see [Check].
func (s *Set) CheckLimits(sp Spending) *LimitExceeded { return Check(s.limits, sp) }

// Check returns nil when every limit that covers the spending holds, else the
// first that does not, in the order given. A limit covers what its delegation
// spends of its asset; a spending that asks nothing of the asset passes. Limits
// that are controls are not looked at. It reads sp.Spent and changes nothing.
//
// An opaque payload could spend what no charge tells of, so it fails every limit
// of its chain that it could touch: on EVM chains those on tokens (native value
// and fee are always known from the transaction itself, and other payloads that
// are not understood carry a charge of native coins without a bound), elsewhere all.
// A limit that counts requests of any asset needs no charge, and counts it.
func Check(limits []Limit, sp Spending) *LimitExceeded {
	for i := range limits {
		l := &limits[i]
		if l.Control || !l.covers(sp) {
			continue
		}
		if e := l.check(sp); e != nil {
			return e
		}
	}
	return nil
}

func (l *Limit) covers(sp Spending) bool { return l.Delegation == "" || l.Delegation == sp.Delegation }

// asking is what a request asks of a limit, in one group.
type asking struct {
	of        string
	amount    uint256.Int
	unbounded bool
}

func (l *Limit) check(sp Spending) *LimitExceeded {
	refusal := LimitExceeded{LimitID: l.ID, Name: l.Name, Delegation: l.Delegation, Per: l.Per, Asset: l.Asset, Max: l.Max}
	asset := ""
	if l.Asset != "" || !l.AnyAmount {
		var err error
		if asset, err = CanonicalAsset(l.Asset); err != nil { // an uncompiled limit: nothing can be said of it
			refusal.AskedUnbounded = true
			return &refusal
		}
		refusal.Asset = asset
	}
	asks, ok := l.asks(asset, sp)
	if !ok {
		refusal.AskedUnbounded = true
		return &refusal
	}
	for i := range asks {
		if e := l.checkGroup(&asks[i], asset, sp, refusal); e != nil {
			return e
		}
	}
	return nil
}

// checkGroup compares one group's usage with what is asked of it.
func (l *Limit) checkGroup(a *asking, asset string, sp Spending, refusal LimitExceeded) *LimitExceeded {
	refusal.Of = a.of
	if a.unbounded && !l.AnyAmount {
		refusal.AskedUnbounded = true
		return &refusal
	}
	query := l.query(a.of, asset, sp.Now)
	before := sp.Spent(query)
	refusal.Asked, refusal.Spent = a.amount, before.Sum
	if before.Kept >= MaxKept {
		refusal.Full = true
		return &refusal
	}
	switch {
	case l.fits(&before, a, sp.Reserved):
		return nil
	case l.MaxCount > 0 && !l.fits(&Usage{Count: before.Count}, &asking{}, sp.Reserved):
		refusal.MaxCount, refusal.Count = l.MaxCount, before.Count
	default:
		refusal.SpentUnbounded = before.Unbounded
	}
	refusal.RetryAfter = l.retryAfter(query, a, sp)
	return &refusal
}

// Query asks for one group's usage as of now, of a limit that compiles.
func (l *Limit) Query(of string, now time.Time) SpentQuery {
	asset := l.Asset
	if canonical, err := CanonicalAsset(asset); err == nil {
		asset = canonical
	}
	return l.query(of, asset, now)
}

// query is about one group's usage as of now.
func (l *Limit) query(of, asset string, now time.Time) SpentQuery {
	q := SpentQuery{Delegation: l.Delegation, Per: l.Per, Of: of, Asset: asset, IncludeFees: l.IncludeFees}
	if l.Window > 0 {
		q.Since = now.Add(-l.Window)
	}
	return q
}

// asks is what the request asks, group by group; nothing when it does not touch the
// asset. ok is false when that, or the group, cannot be told.
func (l *Limit) asks(asset string, sp Spending) (list []asking, ok bool) {
	if asset != "" && sp.Opaque && couldTouch(asset, sp.Chain) {
		return nil, false
	}
	if l.Per == PerDestination && asset == "" && sp.Opaque {
		return nil, false
	}
	of := l.group(sp)
	if asset == "" && l.Per != PerDestination {
		return []asking{{of: of}}, of != "" || l.Per == PerAll
	}
	for i := range sp.Charges {
		c := &sp.Charges[i]
		if c.What == "fee" && !l.IncludeFees {
			continue
		}
		switch touched, known := touches(c, asset); {
		case !known:
			return nil, false
		case !touched:
			continue
		}
		if l.Per == PerDestination {
			if of = c.To; of == chains.AddressTableLookup {
				of = ""
			}
		}
		if of == "" && l.Per != PerAll {
			return nil, false
		}
		list = add(list, of, c)
	}
	return list, true
}

// group names the sum that a request belongs to, whatever it spends.
func (l *Limit) group(sp Spending) string {
	switch l.Per {
	case PerUser:
		return sp.User
	case PerDelegation:
		return sp.Delegation
	case PerWallet:
		return sp.Wallet
	}
	return ""
}

// touches says whether a charge is one of the asset ("": any), if that is known.
func touches(c *chains.Charge, asset string) (touched, known bool) {
	if asset == "" || c.Asset == asset {
		return true, true
	}
	if c.Asset == c.Chain+"/"+chains.AnyToken { // any token, never the chain's own coin
		return false, !strings.HasPrefix(asset, c.Chain+"/") || strings.HasPrefix(asset, c.Chain+"/slip44:")
	}
	own, err := CanonicalAsset(c.Asset)
	if err != nil && within(c.Chain, asset) {
		return false, false // what cannot be read may be any asset of its chain
	}
	return own == asset, true
}

// add puts a charge to what is asked of a group.
func add(list []asking, of string, c *chains.Charge) []asking {
	at := -1
	for i := range list {
		if list[i].of == of {
			at = i
		}
	}
	if at < 0 {
		at, list = len(list), append(list, asking{of: of})
	}
	a := &list[at]
	if c.Unbounded {
		a.unbounded = true
		return list
	}
	if _, overflow := a.amount.AddOverflow(&a.amount, &c.Amount); overflow {
		a.unbounded = true
	}
	return list
}

// couldTouch says whether an opaque payload of the chain could spend the asset.
func couldTouch(asset, chain string) bool {
	if chain != "" && !within(chain, asset) {
		return false
	}
	own, reference, _ := strings.Cut(asset, "/")
	return !(strings.HasPrefix(own, "eip155:") && strings.HasPrefix(reference, "slip44:"))
}

// within says whether an asset is one of the chain's; "eip155" is every EVM chain.
func within(chain, asset string) bool {
	own, _, _ := strings.Cut(asset, "/")
	return own == chain || !strings.Contains(chain, ":") && strings.HasPrefix(own, chain+":")
}

// fits reports whether the request fits beside what was spent, without wrapping
// around; reserved: it is among that.
func (l *Limit) fits(spent *Usage, a *asking, reserved bool) bool {
	count, sum, overflow := spent.Count, spent.Sum, false
	if !reserved {
		count++
		_, overflow = sum.AddOverflow(&sum, &a.amount)
	}
	if l.MaxCount > 0 && count > l.MaxCount {
		return false
	}
	if l.AnyAmount || !reserved && a.amount.IsZero() {
		return true
	}
	return !spent.Unbounded && !overflow && !sum.Gt(&l.Max)
}

// retryAfter searches for the first second at which enough has left the window.
// What was spent since a later instant is never more, so halving finds it.
func (l *Limit) retryAfter(query SpentQuery, a *asking, sp Spending) time.Duration {
	if l.Window == 0 || !l.AnyAmount && a.amount.Gt(&l.Max) {
		return 0
	}
	seconds := sort.Search(int(l.Window/time.Second)+1, func(s int) bool {
		query.Since = sp.Now.Add(time.Duration(s)*time.Second - l.Window)
		before := sp.Spent(query)
		return l.fits(&before, a, sp.Reserved)
	})
	if seconds > int(l.Window/time.Second) {
		return 0 // what is in flight alone is too much
	}
	return time.Duration(seconds) * time.Second
}
