// Package clock says what time it is, and whether that can be relied on. It is for
// those who let charges leave windows and rules begin and end: whoever sets the
// host's clock, or its battery that ends, must not be able to widen a limit.
//
// The wall clock is held against the time since boot, which nobody can set. A moment
// at which the wall clock was confirmed, by NTP or by the operators, draws a line; as
// long as the wall clock keeps near that line it is believed. When it jumps, or after
// a boot without a moment of its own, time goes on from the latest that was known, by
// what has provably passed since: never earlier than the truth was, so that windows
// end late and not early. Who needs the true time asks Unconfirmed first.
//
// It refuses to believe: a step back by more than two seconds, a step forward by more
// than five minutes that NTP does not vouch for, and any time at all after a boot
// until NTP or the operators confirm it.
package clock

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// How far the wall clock may be off the line.
const (
	maxBack    = 2 * time.Second
	maxForward = 5 * time.Minute
)

// MaxConfirm is how far the time that operators state may be off the wall clock, and
// how far what was relied on before may lie ahead of it.
const MaxConfirm = 2 * time.Minute

// Source is where time comes from. [Host] is the one of this machine.
type Source interface {
	// Wall is the wall clock.
	Wall() time.Time
	// SinceBoot is the time since boot, sleep included. It never goes back but by a
	// boot, and nobody sets it.
	SinceBoot() time.Duration
	// Synced says whether NTP keeps the wall clock right now.
	Synced() bool
	// BootID names this boot; "" when that can't be told: then every start counts as
	// one after a boot.
	BootID() string
}

// Anchor is a moment at which the wall clock was confirmed.
type Anchor struct {
	V           int    `json:"v"`
	BootID      string `json:"boot_id"`
	WallMS      int64  `json:"wall_ms"`       // since 1970
	SinceBootMS int64  `json:"since_boot_ms"` // since that boot
	By          string `json:"by"`            // "init", "ntp" or "operators"
}

// Near says whether two anchors of one boot agree within a second.
func (a Anchor) Near(b Anchor) bool {
	off := (a.WallMS - a.SinceBootMS) - (b.WallMS - b.SinceBootMS)
	return a.BootID == b.BootID && -1000 < off && off < 1000
}

// Clock is safe for concurrent use.
type Clock struct {
	source Source
	bootID string

	mu sync.Mutex // guards all below
	// line is a wall time and the time since boot at which it was.
	line struct {
		wall time.Time
		boot time.Duration
	}
	// anchored: the line was confirmed in this boot, by whom anchor says.
	anchored bool
	anchor   Anchor
	// latest is what Now said last; it never goes back.
	latest time.Time
}

// New makes a clock that goes on from a kept anchor (nil: there is none). It believes
// no time of another boot. Call [Clock.Reached] before its time is relied on.
func New(source Source, kept *Anchor) *Clock {
	c := &Clock{source: source, bootID: source.BootID()}
	c.line.boot = source.SinceBoot()
	if kept != nil && kept.BootID != "" && kept.BootID == c.bootID && kept.SinceBootMS <= c.line.boot.Milliseconds() {
		c.draw(*kept)
	}
	return c
}

// draw takes an anchor of this boot as the line.
func (c *Clock) draw(a Anchor) {
	c.anchored, c.anchor = true, a
	c.line.wall, c.line.boot = time.UnixMilli(a.WallMS), time.Duration(a.SinceBootMS)*time.Millisecond
}

// Reached says what time was relied on before, as the journal knows it: time goes on
// from there. After a boot that is all that is known.
func (c *Clock) Reached(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.latest) {
		c.latest = t
	}
	if !c.anchored && t.After(c.line.wall) {
		c.line.wall, c.line.boot = t, c.source.SinceBoot()
	}
}

// Now is the time to go by: the wall clock's while it is believed, else what has
// provably passed. It never goes back.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, _ := c.lookLocked()
	return now
}

// Unconfirmed says why the time can't be relied on; nil: it can.
func (c *Clock) Unconfirmed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.lookLocked()
	return err
}

// ErrUnconfirmed is beneath every error of [Clock.Unconfirmed].
var ErrUnconfirmed = errors.New("the time is not confirmed")

// lookLocked is Now and Unconfirmed at once.
func (c *Clock) lookLocked() (now time.Time, err error) {
	wall, boot := c.source.Wall(), c.source.SinceBoot()
	line := c.line.wall.Add(boot - c.line.boot)
	switch off := wall.Sub(line); {
	case wall.Before(c.latest.Add(-maxBack)):
		err = fmt.Errorf("%w: the wall clock is %v behind what was relied on before", ErrUnconfirmed, c.latest.Sub(wall).Round(time.Second))
	case c.source.Synced():
		if off < -maxBack || off > maxBack || !c.anchored {
			c.draw(c.anchorLocked(wall, boot, "ntp"))
		}
		line = wall
	case !c.anchored:
		err = fmt.Errorf("%w since this boot: neither NTP nor the operators did", ErrUnconfirmed)
	case off < -maxBack:
		err = fmt.Errorf("%w: the wall clock went back by %v", ErrUnconfirmed, (-off).Round(time.Second))
	case off > maxForward:
		err = fmt.Errorf("%w: the wall clock went forward by %v, and NTP does not vouch for it", ErrUnconfirmed, off.Round(time.Second))
	default:
		line = wall
	}
	if line.After(c.latest) {
		c.latest = line
	}
	return c.latest, err
}

func (c *Clock) anchorLocked(wall time.Time, boot time.Duration, by string) Anchor {
	return Anchor{V: anchorVersion, BootID: c.bootID, WallMS: wall.UnixMilli(), SinceBootMS: boot.Milliseconds(), By: by}
}

// Confirmed is the anchor that the operators' word makes: they say that it is stated,
// on an appliance booted as bootID, and the wall clock agrees. Nothing has changed
// until it is given to [Clock.Confirm].
func (c *Clock) Confirmed(stated time.Time, bootID string) (Anchor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, boot := c.source.Wall(), c.source.SinceBoot()
	c.lookLocked()
	switch off := wall.Sub(stated).Abs(); {
	case bootID != c.bootID:
		return Anchor{}, fmt.Errorf("the appliance was booted anew: its boot is %q", c.bootID)
	case off > MaxConfirm:
		return Anchor{}, fmt.Errorf("the wall clock says %s, which is %v off", wall.UTC().Format(time.RFC3339), off.Round(time.Second))
	case c.latest.Sub(wall) > MaxConfirm:
		return Anchor{}, fmt.Errorf("the journal goes on to %s: a time before that can't be confirmed", c.latest.UTC().Format(time.RFC3339))
	}
	return c.anchorLocked(wall, boot, "operators"), nil
}

// Confirm goes by an anchor of [Clock.Confirmed] from now on; call it when that is on
// disk.
func (c *Clock) Confirm(a Anchor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draw(a)
}

// State is what people see of a clock.
type State struct {
	// Wall is the wall clock, Now the time that is gone by.
	Wall, Now time.Time
	// Why the time is not confirmed; nil: it is, by whom Anchor says.
	Why    error
	Synced bool
	// Anchor is the newest; zero: none in this boot.
	Anchor Anchor
	BootID string
}

// State looks at everything at once.
func (c *Clock) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.lookLocked()
	return State{Wall: c.source.Wall(), Now: now, Why: err, Synced: c.source.Synced(), Anchor: c.anchor, BootID: c.bootID}
}
