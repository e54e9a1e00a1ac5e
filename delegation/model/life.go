package model

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Move is an act that is not yet about anything: its number chooses among what there is
// when its turn comes. So a life can lose moves and still mean something.
type Move struct {
	Verb Verb
	N    uint64
}

func (v Move) String() string { return fmt.Sprintf("{%q, %#x}", v.Verb, v.N) }

// Show is a life to be pasted into a regression test.
func Show(life []Move) string {
	var b strings.Builder
	for _, m := range life {
		fmt.Fprintf(&b, "\t%v,\n", m)
	}
	return b.String()
}

// dice are Knuth's (MMIX): the same numbers everywhere, for ever.
type dice uint64

func (d *dice) roll() uint64 {
	*d = *d*6364136223846793005 + 1442695040888963407
	return uint64(*d >> 33)
}

// pick is a number below n; 0 for n below 2.
func (d *dice) pick(n int) int {
	if n < 2 {
		return 0
	}
	return int(d.roll() % uint64(n))
}

// one is true once in n.
func (d *dice) one(n int) bool { return d.pick(n) == 0 }

// chances weigh the verbs.
var chances = []struct {
	verb   Verb
	weight int
}{
	{Enable, 2}, {Propose, 9}, {Approve, 9}, {Create, 6}, {Revoke, 5}, {Pause, 4}, {Resume, 6},
	{Deliver, 20}, {Bind, 12}, {Sign, 30}, {SignStamped, 2}, {SetClock, 6}, {Sweep, 3}, {Deny, 2},
	{RemoveUser, 2}, {EndCredential, 1}, {DropRoot, 1}, {Meddle, 2}, {Restart, 3},
}

// Life draws the moves of one life from a seed.
func Life(seed uint64, moves int) []Move {
	d := dice(seed)
	d.roll()
	total := 0
	for _, c := range chances {
		total += c.weight
	}
	var life []Move
	if !d.one(4) {
		life = append(life, Move{Enable, 1}) // more often than chance would
	}
	for range moves {
		n := d.pick(total)
		for _, c := range chances {
			if n -= c.weight; n < 0 {
				life = append(life, Move{c.verb, d.roll()})
				break
			}
		}
	}
	return life
}

// choice makes acts of moves. It remembers what the vendor sent, to send it again.
type choice struct {
	m      *Model
	start  time.Time
	events []Event
	asked  []Act // signatures
}

// act is what a move comes to now; ok is false when there is nothing to do it to.
func (c *choice) act(mv Move) (a Act, ok bool) {
	d := dice(mv.N)
	d.roll()
	m := c.m
	a = Act{Verb: mv.Verb, On: !d.one(3), By: "the quorum", Delegation: -1}
	if len(m.delegations) > 0 {
		a.Delegation = d.pick(len(m.delegations))
		if d.one(2) {
			a.Delegation = len(m.delegations) - 1
		}
	}
	a.Wallet, a.User = d.pick(len(m.wallets)), min(1, d.pick(Users+1)) // the second more often: the first is the default
	a.Wrong = d.one(8)
	switch mv.Verb {
	case Propose, Create:
		a.By, a.Ends = "the owner", c.ends(&d)
	case Approve, Revoke:
		a.By = "the owner"
		if mv.Verb == Approve {
			a.Delegation = c.among(&d, a.Delegation, func(x *delegation) bool { return x.status == pending })
		}
		if ok = a.Delegation >= 0; ok && m.wallets[m.delegations[a.Delegation].wallet].vendor >= 0 {
			a.By = "the quorum"
		}
		a.Wrong = a.Wrong && mv.Verb == Approve
	case Pause, Resume:
		c.scope(&a, &d)
	case Deliver:
		c.event(&a, &d)
	case Bind:
		if ok = len(c.events) > 0; ok {
			a.Event, a.Ends = c.bindable(&d), c.ends(&d)
		}
	case Sign:
		if ok = a.Delegation >= 0; ok {
			c.request(&a, &d)
		}
	case SignStamped:
		a.By = []Who{"a delegate", "both delegates", "the owner", "another user", "a stranger"}[d.pick(5)]
	case SetClock:
		steps := []time.Duration{time.Minute, time.Hour, 6 * time.Hour, 26 * time.Hour, 8 * 24 * time.Hour, -time.Minute, -3 * time.Hour, -30 * time.Hour}
		a.At = m.now.Add(steps[d.pick(len(steps))])
		if slices.ContainsFunc(m.delegations, func(x *delegation) bool { return x.status == pending }) && d.one(2) {
			a.At = m.now.Add(approveWithin + time.Minute) // what waits has waited too long
		}
	case EndCredential:
		a.By = "the owner"
	case Meddle:
		a.By = "a delegate"
	case Restart:
		a.On = !d.one(3)
		return a, true
	}
	if mv.Verb == Approve || mv.Verb == Revoke || mv.Verb == Bind || mv.Verb == Sign {
		if !ok {
			return a, false
		}
	}
	if d.one(5) && mv.Verb != SignStamped && mv.Verb != Meddle {
		a.By = everybody[d.pick(len(everybody))]
	}
	if mv.Verb == Meddle && d.one(2) {
		a.By = []Who{"a stranger", "another user", "another root", "both delegates", "one root member"}[d.pick(5)]
	}
	a.Foreign = d.one(25)
	often := 12
	if m.sockets { // there only some acts are killed
		often = 4
	}
	if d.one(often) && mv.Verb != SetClock && mv.Verb != Sweep && m.requests[a.Request.ID] == nil {
		a.Cut = 1 + d.pick(5)
	}
	return a, true
}

// among is mostly a delegation of some kind, if there is one, and otherwise.
func (c *choice) among(d *dice, otherwise int, is func(*delegation) bool) int {
	var these []int
	for i, x := range c.m.delegations {
		if is(x) {
			these = append(these, i)
		}
	}
	if len(these) > 0 && !d.one(5) {
		return these[d.pick(len(these))]
	}
	return otherwise
}

// ends is when a delegation shall end.
func (c *choice) ends(d *dice) time.Time {
	now := c.m.now
	return []time.Time{{}, {}, {}, now.Add(time.Hour), now.Add(5 * time.Hour), now.Add(30 * time.Hour), now.Add(-time.Minute)}[d.pick(7)]
}

func (c *choice) scope(a *Act, d *dice) {
	scopes := []Scope{OfAppliance, OfOrganization, OfWallet, OfDelegation, OfDelegation, OfWallet}
	a.Scope = scopes[d.pick(len(scopes))]
	if a.Scope == OfDelegation && a.Delegation < 0 {
		a.Scope = OfOrganization
	}
	if a.Verb == Resume { // what is paused, if anything is
		var held []Act
		for _, s := range []Scope{OfAppliance, OfOrganization} {
			b := *a
			if b.Scope = s; *c.m.held(b) > 0 {
				held = append(held, b)
			}
		}
		for i := range c.m.wallets {
			b := *a
			if b.Scope, b.Wallet = OfWallet, i; *c.m.held(b) > 0 {
				held = append(held, b)
			}
		}
		for i := range c.m.delegations {
			b := *a
			if b.Scope, b.Delegation = OfDelegation, i; *c.m.held(b) > 0 {
				held = append(held, b)
			}
		}
		if len(held) > 0 && !d.one(6) {
			*a = held[d.pick(len(held))]
		}
	}
	switch {
	case a.Scope == OfAppliance:
		a.By = []Who{"two operators", "two operators", "one operator"}[d.pick(3)]
	case d.one(3):
		a.By = "the owner"
	}
}

// event is a new one, or one that was sent before, whole or damaged.
func (c *choice) event(a *Act, d *dice) {
	a.Delegation = -1
	if len(c.events) > 0 && d.one(3) {
		a.Event = c.events[d.pick(len(c.events))]
	} else {
		a.Event = Event{
			ID: len(c.events), Revoked: d.one(4), Vendor: d.pick(VendorWallets), Set: []string{"", "set-1", "set-2"}[d.pick(3)],
			At: c.start.Add(time.Duration(d.pick(12)-60) * time.Minute), Mood: []Mood{Good, Good, Good, Foreign, Dead}[d.pick(5)],
		}
		// Most wallets have sets with names or one without, not both.
		if d.one(2) {
			a.Event.Set = []string{"", "set-1"}[a.Event.Vendor]
		}
		if a.Event.Revoked && d.one(3) {
			a.Event.Set = ""
		}
		c.events = append(c.events, a.Event)
	}
	if d.one(6) {
		a.Damage = []Damage{BadMAC, ChangedByte, OtherKey, OtherKey, Oversized, Twice, Elsewhere, FarAhead}[d.pick(8)]
	}
}

// bindable is an event whose share waits, if there is one.
func (c *choice) bindable(d *dice) Event {
	var waits []Event
	for i := range c.m.vendors {
		for _, p := range c.m.vendors[i].places {
			if p.in.status == "pending" {
				waits = append(waits, p.in.event)
			}
		}
	}
	slices.SortFunc(waits, func(x, y Event) int { return x.ID - y.ID })
	if len(waits) == 0 || d.one(6) {
		return c.events[d.pick(len(c.events))]
	}
	return waits[d.pick(len(waits))]
}

// request is a new signature, or one that was asked for before.
func (c *choice) request(a *Act, d *dice) {
	if len(c.asked) > 0 && d.one(5) {
		old := c.asked[d.pick(len(c.asked))]
		a.Delegation, a.Wallet, a.Request, a.Away = old.Delegation, old.Wallet, old.Request, d.one(8)
		a.Wrong = d.one(10)
		if d.one(4) {
			a.Request.Lamports = 7
		}
		return
	}
	a.Delegation = c.among(d, a.Delegation, func(x *delegation) bool { return x.status == active })
	wallet := a.Wallet
	if a.Wallet = c.m.delegations[a.Delegation].wallet; d.one(12) {
		a.Wallet = wallet
	}
	a.Wrong = d.one(15)
	a.Away = d.one(8)
	a.Request = Request{ID: len(c.asked), Lamports: []uint64{5, 5, 400, 450, 501}[d.pick(5)]}
	c.asked = append(c.asked, *a)
}
