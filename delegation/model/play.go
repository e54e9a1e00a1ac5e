package model

import (
	"fmt"
	"time"

	"github.com/sigild/sigild/refusal"
)

// Tally counts what lives came to, so that a run which met nothing is noticed.
type Tally struct {
	Lives, Acts, Done, Cuts int
	Refused                 map[refusal.Reason]int
	Outcomes                map[string]int
	Signed                  int
}

// Differs says where the world and the model part.
type Differs struct {
	Move int
	What string
}

func (e *Differs) Error() string { return fmt.Sprintf("move %d: %s", e.Move, e.What) }

// Play has a world live a life, and compares each answer and, every few acts and in the
// end, everything that there is. The error is a *[Differs], or the world's own.
func Play(w World, start time.Time, life []Move, t *Tally) error {
	return play(w, New(start), life, t, nil)
}

// PlayOverSockets is Play for a daemon: its clock is the host's, strangers are turned
// away before anything else, and its store is not looked into.
func PlayOverSockets(w World, life []Move, t *Tally) error {
	m := New(time.Now())
	m.sockets = true
	return play(w, m, life, t, time.Now)
}

func play(w World, m *Model, life []Move, t *Tally, host func() time.Time) error {
	c := &choice{m: m, start: m.now}
	seen := &witness{approved: map[int]bool{}, ended: map[int]string{}}
	for i, mv := range life {
		if host != nil {
			m.now = host()
		}
		a, ok := c.act(mv)
		if !ok || host != nil && (a.Verb == SetClock || a.Verb == Sweep) {
			continue
		}
		if err := step(w, m, seen, a, t); err != nil {
			return at(i, a.String(), err)
		}
		if i%5 == 4 || i == len(life)-1 {
			got, err := w.Look()
			if err != nil {
				return fmt.Errorf("looking after move %d: %w", i, err)
			}
			if want := m.Picture(); got != want {
				return &Differs{i, fmt.Sprintf("after %v there is\n%s\nwant\n%s", a, got, want)}
			}
		}
	}
	t.Lives++
	return nil
}

func at(i int, what string, err error) error {
	if d, ok := err.(*Differs); ok {
		return &Differs{i, what + ": " + d.What}
	}
	return fmt.Errorf("move %d, %s: %w", i, what, err)
}

// step performs one act on both sides.
func step(w World, m *Model, seen *witness, a Act, t *Tally) error {
	want := m.Judge(a)
	got, err := w.Do(a)
	if err != nil {
		return err
	}
	t.Acts++
	if got.Repeated {
		t.Cuts++
	}
	if got.Reached.IsZero() {
		got.Reached = m.reached
	}
	if got.Reached.Before(m.reached) {
		return &Differs{What: fmt.Sprintf("the journal's time went back from %v to %v", m.reached, got.Reached)}
	}
	if got.Cut {
		t.Cuts++
		want.happen(a.Cut)
	} else {
		if got.Repeated && got.Outcome == Duplicate && want.Outcome != Tombstoned {
			got.Outcome = want.Outcome // the first time: what came before is a duplicate, whatever came of it
		}
		if got.Refused != want.Refused || got.Outcome != want.Outcome {
			return &Differs{What: fmt.Sprintf("answered %q %q, want %q %q", got.Refused, got.Outcome, want.Refused, want.Outcome)}
		}
		if err := seen.answered(m, a, got); err != nil {
			return err
		}
		want.happen(0)
		t.count(a, got)
	}
	m.reached = got.Reached
	if a.Cut > 0 || a.Verb == Restart {
		m.interrupted()
	}
	return nil
}

func (t *Tally) count(a Act, got Answer) {
	switch {
	case got.Refused != "":
		t.Refused[got.Refused]++
	case a.Verb == Sign:
		t.Signed++
	default:
		t.Done++
	}
	if got.Outcome != "" {
		t.Outcomes[got.Outcome]++
	}
}

// NewTally counts nothing yet.
func NewTally() *Tally {
	return &Tally{Refused: map[refusal.Reason]int{}, Outcomes: map[string]int{}}
}

// witness holds the promises that must not depend on the model's being right: it
// goes by acknowledged answers alone.
type witness struct {
	approved map[int]bool
	// ended says by what a delegation ended.
	ended map[int]string
}

func (s *witness) answered(m *Model, a Act, got Answer) error {
	if a.By.Delegates() && got.Refused == "" && a.stamped() {
		return &Differs{What: "delegated users did what only others may"}
	}
	if got.Refused != "" {
		return nil
	}
	switch a.Verb {
	case Create, Bind:
		s.approved[len(m.delegations)] = true
	case Approve:
		s.approved[a.Delegation] = true
	case Revoke:
		s.ended[a.Delegation] = "it was revoked"
	case RemoveUser:
		for i, d := range m.delegations {
			if d.user == a.User {
				s.ended[i] = "its user was removed"
			}
		}
	case Deliver:
		s.revokedByVendor(m, a, got)
	case Sign:
		d := m.delegations[a.Delegation]
		switch {
		case !s.approved[a.Delegation]:
			return &Differs{What: "a delegation signed that nobody approved"}
		case s.ended[a.Delegation] != "":
			return &Differs{What: "a delegation signed though " + s.ended[a.Delegation]}
		case !d.ends.IsZero() && !m.later().Before(d.ends):
			return &Differs{What: "a delegation signed after its end"}
		}
	}
	return nil
}

// stamped says whether an act is authorized by the stamps that it carries.
func (a Act) stamped() bool {
	switch a.Verb {
	case Deliver, Sign, SetClock, Sweep, Restart:
		return false
	}
	return true
}

// revokedByVendor notes which delegations a vendor's revocation ended: those that sign
// with what is not younger.
func (s *witness) revokedByVendor(m *Model, a Act, got Answer) {
	if !a.Event.Revoked || got.Outcome != Stored {
		return
	}
	for i, d := range m.delegations {
		p := d.place
		if p == nil || p.of != d || p.vendor != a.Event.Vendor || a.Event.Set != "" && p.set != "" && a.Event.Set != p.set {
			continue
		}
		if !p.in.event.At.After(a.Event.At) {
			s.ended[i] = "its vendor revoked it"
		}
	}
}

// Shrink finds a shorter life that still differs, by leaving moves out. fresh makes a
// world that nothing has happened in; done is told when one is not needed any more.
func Shrink(life []Move, differs func([]Move) bool) []Move {
	for size := len(life) / 2; size > 0; {
		shorter := false
		for i := 0; i+size <= len(life); {
			rest := append(append([]Move{}, life[:i]...), life[i+size:]...)
			if differs(rest) {
				life, shorter = rest, true
			} else {
				i += size
			}
		}
		if !shorter || size > len(life) {
			size /= 2
		}
	}
	return life
}
