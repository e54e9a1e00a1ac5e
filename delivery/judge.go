package delivery

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// This file is the rule of what a delivery comes to. It looks at timestamps, never
// at the order of arrival: the state after any sequence of events, with any
// repetitions, is the same as after any other sequence of the same events.

// Outcome of a delivery that was taken in.
type Outcome string

// The outcomes. To the vendor all of them are success: it must not send again.
const (
	Stored     Outcome = "STORED"     // it changed what is kept
	Duplicate  Outcome = "DUPLICATE"  // the event or its message was taken in before
	Tombstoned Outcome = "TOMBSTONED" // a revocation of the same time or younger stands against it
	Ignored    Outcome = "IGNORED"    // an event that means nothing here, or older than what is kept
)

// buried returns the youngest revocation that stands against what a created event
// brings for this set. A revocation without a set hits them all. One for a named
// set hits, besides it, what came without a name: it may be the same.
func (w *vendorWallet) buried(set string) (at time.Time, ok bool) {
	for name, t := range w.Revoked {
		if name == "" || name == set || set == "" {
			if !ok || t.After(at) {
				at, ok = t, true
			}
		}
	}
	return at, ok
}

// judge says what e comes to. seen: it was taken in before.
func (w *vendorWallet) judge(e *event, seen bool) Outcome {
	switch e.name {
	case eventRevoked:
		if seen {
			return Duplicate
		}
		return Stored
	case eventCreated:
		if t, ok := w.buried(e.set); ok && !e.at.After(t) { // at the same time the revocation wins
			return Tombstoned
		}
		if seen {
			return Duplicate
		}
		for _, of := range []map[string]material{w.Sets, w.Beside} {
			if m, ok := of[e.set]; ok && !m.olderThan(e) {
				return Ignored
			}
		}
		return Stored
	}
	if seen {
		return Duplicate
	}
	return Ignored
}

// olderThan orders created events of one set; the id decides between equal times,
// so that the order of arrival does not.
func (m material) olderThan(e *event) bool {
	if c := m.At.Compare(e.at); c != 0 {
		return c < 0
	}
	return strings.Compare(m.Event, e.id) < 0
}

// ending is a material that a revocation destroys, and the set it was of.
type ending struct {
	set string
	material
}

// bury remembers a revocation and marks what it ends, whose records the caller
// destroys. w is a clone. A wallet whose memory is full takes it for all share
// sets: rather one too many ended than one too few. What stood beside a set that
// ended, and is younger than the revocation, waits for the organization anew.
func (w *vendorWallet) bury(e *event) (ended []ending) {
	named := e.set
	if _, ok := w.Revoked[named]; !ok && len(w.Revoked) >= maxSets {
		named = ""
	}
	if t, ok := w.Revoked[named]; !ok || e.at.After(t) {
		w.Revoked[named] = e.at
	}
	over := func(set string, m material) bool {
		t, ok := w.buried(set)
		return ok && !m.At.After(t) && m.Status != Revoked
	}
	for _, set := range slices.Sorted(maps.Keys(w.Beside)) {
		if m := w.Beside[set]; over(set, m) {
			ended = append(ended, ending{set, m})
			delete(w.Beside, set)
		}
	}
	for _, set := range slices.Sorted(maps.Keys(w.Sets)) {
		if m := w.Sets[set]; over(set, m) {
			ended = append(ended, ending{set, m})
			w.unbind(set)
		}
	}
	return ended
}

// unbind marks the material of a set as destroyed; what stands beside it waits in
// its place.
func (w *vendorWallet) unbind(set string) {
	m := w.Sets[set]
	m.Status, m.Delegation = Revoked, ""
	w.Sets[set] = m
	if next, ok := w.Beside[set]; ok {
		w.Sets[set] = next
		delete(w.Beside, set)
	}
}
