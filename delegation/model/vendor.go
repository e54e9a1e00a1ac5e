package model

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sigild/sigild/refusal"
)

// What a vendor delivers, by its timestamps (facts: deliveries come at least once and
// in any order, and carry no proof of when they were sent):
//
//   - a created event brings a share that waits; a younger one for the same share set
//     takes its place, or stands beside it as long as a delegation signs with it;
//   - a revocation ends what is not younger, of its share set or, without one, of all;
//     it stands for ever, and at the same time it wins;
//   - an event that came before changes nothing.

// maxAhead is how far a created event may lie in our future; one that did could not be
// revoked.
const maxAhead = 24 * time.Hour

// material is what one created event brought.
type material struct {
	event  Event
	status string // "pending", "bound", "frozen", "revoked"
	proven bool
}

// place is where a share set's material is, and what stands beside it.
type place struct {
	vendor int
	set    string
	in     *material
	beside *material
	// of signs with it; nil for none.
	of *delegation
}

// vendor is one of the vendor's wallets.
type vendor struct {
	wallet int // ours, once bound; -1 before
	places map[string]*place
	// revoked has the events that ended something or will.
	revoked []Event
	seen    map[string]bool
}

func newVendor() vendor {
	return vendor{wallet: -1, places: map[string]*place{}, seen: map[string]bool{}}
}

// dead reports whether a revocation stands against what came at a time for a set. What
// came without a set's name may be any of them.
func (v *vendor) dead(set string, at time.Time) bool {
	return slices.ContainsFunc(v.revoked, func(r Event) bool {
		return (r.Set == "" || set == "" || r.Set == set) && !at.After(r.At)
	})
}

// younger orders created events of one set; the name decides between equal times.
func younger(a, b Event) bool {
	if !a.At.Equal(b.At) {
		return a.At.After(b.At)
	}
	return a.Name() > b.Name()
}

func kindOf(e Event) string {
	if e.Revoked {
		return "revoked "
	}
	return "created "
}

func (m *Model) deliver(a Act) Verdict {
	e, v := a.Event, &m.vendors[a.Event.Vendor]
	switch a.Damage {
	case BadMAC, ChangedByte:
		return no(refusal.DeliveryInvalid)
	case Oversized, Twice, Elsewhere:
		return no(refusal.RequestInvalid)
	}
	if !e.Revoked && (a.Damage == FarAhead || e.At.After(m.now.Add(maxAhead))) {
		return no(refusal.RequestInvalid)
	}
	name := kindOf(e) + e.Name()
	outcome := Stored
	switch p := v.places[e.Set]; {
	case !e.Revoked && v.dead(e.Set, e.At):
		outcome = Tombstoned
	case v.seen[name]:
		outcome = Duplicate
	case !e.Revoked && p != nil && (p.in != nil && !younger(e, p.in.event) || p.beside != nil && !younger(e, p.beside.event)):
		outcome = Ignored
	}
	if outcome == Stored && !e.Revoked && a.Damage == OtherKey {
		return no(refusal.DeliveryInvalid)
	}
	return Verdict{Outcome: outcome, changes: []func(){func() {
		v.seen[name] = true
		switch {
		case outcome != Stored:
		case e.Revoked:
			m.bury(v, e)
		default:
			v.put(e)
		}
	}}}
}

// put keeps what a created event brought.
func (v *vendor) put(e Event) {
	p := v.places[e.Set]
	if p == nil {
		p = &place{vendor: e.Vendor, set: e.Set}
		v.places[e.Set] = p
	}
	made := &material{event: e, status: "pending"}
	if p.of != nil {
		p.beside = made
	} else {
		p.in = made
	}
}

// bury takes a revocation in: what it ends ends, with the delegation that signs with it.
func (m *Model) bury(v *vendor, e Event) {
	v.revoked = append(v.revoked, e)
	for set, p := range v.places {
		if p.beside != nil && v.dead(set, p.beside.event.At) {
			p.beside = nil
		}
		if p.in.status == "revoked" || !v.dead(set, p.in.event.At) {
			continue
		}
		if d := p.of; d != nil && d.status == active {
			d.status = revoked
		}
		p.clear()
	}
}

// unbind destroys what a delegation that ended signed with.
func (v *vendor) unbind(d *delegation) {
	if d.place.of == d {
		d.place.clear()
	}
}

// clear destroys what is in a place; what stood beside it waits there.
func (p *place) clear() {
	p.of, p.in.status = nil, "revoked"
	if p.beside != nil {
		p.in, p.beside = p.beside, nil
	}
}

// bind has a new delegation sign with what waits.
func (m *Model) bind(a Act) Verdict {
	v := &m.vendors[a.Event.Vendor]
	p := v.places[a.Event.Set]
	switch {
	case p == nil || p.in.event.ID != a.Event.ID:
		return no(refusal.NotFound)
	case p.in.status != "pending":
		return no(refusal.NotActive)
	case a.Wrong:
		return no(refusal.RequestInvalid)
	}
	if r := m.draft(a); r != "" {
		return no(r)
	}
	d := &delegation{user: a.User, status: active, ends: a.Ends, place: p}
	return do(func() {
		if v.wallet < 0 {
			v.wallet = len(m.wallets)
			m.wallets = append(m.wallets, wallet{vendor: a.Event.Vendor})
		}
		d.wallet = v.wallet
		p.in.status, p.of = "bound", d
		m.delegations = append(m.delegations, d)
	})
}

// shownMaterial is a line of the picture; live counts its share.
type shownMaterial struct {
	line string
	live int
}

func (v *vendor) list(m *Model, i int) (out []shownMaterial) {
	for _, set := range slices.Sorted(maps.Keys(v.places)) {
		p := v.places[set]
		of := -1
		if p.of != nil {
			of = slices.Index(m.delegations, p.of)
		}
		live := 1
		if p.in.status == "revoked" {
			live = 0
		}
		out = append(out, shownMaterial{ShowMaterial(i, set, p.in.event.Name(), p.in.status, of, p.in.proven, false), live})
		if p.beside != nil {
			out = append(out, shownMaterial{ShowMaterial(i, set, p.beside.event.Name(), p.beside.status, -1, p.beside.proven, true), 1})
		}
	}
	return out
}

// ShowMaterial is a delivery in a picture.
func ShowMaterial(vendor int, set, event, status string, of int, proven, beside bool) string {
	return fmt.Sprintf("vendor %d set %q: %s %s, of delegation %d, proven %v, beside %v", vendor, set, event, status, of, proven, beside)
}
