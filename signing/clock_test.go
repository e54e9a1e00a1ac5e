package signing_test

import (
	"testing"
	"time"

	sigilclock "github.com/sigild/sigild/clock"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// What a host whose clock is set, or lost, can and can't do to limits and to rules
// about time. The judgement itself is package clock's.

// host is a machine whose clock a test sets.
type host struct {
	wall   time.Time
	boot   time.Duration
	synced bool
	id     string
}

func (m *host) Wall() time.Time          { return m.wall }
func (m *host) SinceBoot() time.Duration { return m.boot }
func (m *host) Synced() bool             { return m.synced }
func (m *host) BootID() string           { return m.id }

func (m *host) pass(d time.Duration) { m.wall, m.boot = m.wall.Add(d), m.boot+d }

// on opens h's rooms on the machine, as the daemon does; kept is the anchor in the store.
func (h *house) on(m *host, kept *sigilclock.Anchor) *sigilclock.Clock {
	c := sigilclock.New(m, kept)
	c.Reached(h.journal.Now())
	h.clock.judge = c.Now
	h.serve(signing.Config{TimeUnconfirmed: c.Unconfirmed})
	return c
}

const year = 365 * day

func timed(limits []policy.Limit) terms {
	p := solAllow
	p.Time = "time.now > Timestamp('2020-01-01T00:00:00Z')"
	other := solAllow
	other.Condition += " && solana.tx.transfers[0].amount <= 100"
	other.Name = "any time"
	return terms{policies: []policy.Policy{p, other}, limits: limits}
}

func TestAClockThatIsSet(t *testing.T) {
	for name, step := range map[string]time.Duration{"a year forward": year, "a year back": -year, "an hour forward": time.Hour, "an hour back": -time.Hour} {
		h, g := newHouse(t, timed(limit(500, day)), terms{end: began.Add(2 * year)})
		m := &host{wall: h.clock.now(), boot: time.Hour, id: "boot 1"}
		a := sigilclock.Init(m)
		h.on(m, &a)
		h.mustSign(g[0], "one", g[0].pay(400, 1))
		m.wall = m.wall.Add(step)
		// The window does not end, rules about time are errors, others go on.
		_, err := h.sign(g[0], "window", g[0].pay(101, 2))
		h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "window")
		h.mustSign(g[0], "two", g[0].pay(60, 3))
		_, err = h.sign(g[0], "full", g[0].pay(60, 4))
		wantRefusal(t, err, refusal.LimitExceeded)
		// What ends at some time is over, for all that is known.
		_, err = h.sign(g[1], "ends", g[1].pay(1, 5))
		h.wantRefused(wantRefusal(t, err, refusal.ClockUnconfirmed), "ends")
		// Set right again.
		m.wall = m.wall.Add(-step)
		m.pass(time.Second)
		h.mustSign(g[1], "ends", g[1].pay(1, 5))
		_, err = h.sign(g[0], "full", g[0].pay(60, 4))
		wantRefusal(t, err, refusal.LimitExceeded)
		m.pass(day)
		h.mustSign(g[0], name, g[0].pay(500, 6))
	}
}

func TestABootWithoutATime(t *testing.T) {
	for name, off := range map[string]time.Duration{"a year later": year, "a year earlier": -year, "at once": time.Minute} {
		h, g := newHouse(t, timed(limit(500, day)))
		m := &host{wall: h.clock.now(), boot: time.Hour, id: "boot 1"}
		a := sigilclock.Init(m)
		h.on(m, &a)
		h.mustSign(g[0], "one", g[0].pay(400, 1))

		m = &host{wall: m.wall.Add(off), boot: time.Minute, id: "boot 2"}
		h = h.again()
		c := h.on(m, &a)
		_, err := h.sign(g[0], "window", g[0].pay(101, 2))
		wantRefusal(t, err, refusal.PolicyDenied) // its policy is about time
		h.mustSign(g[0], "two", g[0].pay(90, 3))
		_, err = h.sign(g[0], "three", g[0].pay(90, 4))
		wantRefusal(t, err, refusal.LimitExceeded)
		m.pass(day - time.Minute)
		_, err = h.sign(g[0], "three", g[0].pay(90, 4))
		wantRefusal(t, err, refusal.LimitExceeded)
		m.pass(2 * time.Minute) // a day has passed since, whatever the date
		h.mustSign(g[0], "three", g[0].pay(90, 4))

		m.wall = c.Now().Add(3 * day)
		anchor, err := c.Confirmed(m.wall, "boot 2")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Confirm(anchor)
		h.mustSign(g[0], "confirmed", g[0].pay(450, 5))
	}
}
