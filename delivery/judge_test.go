package delivery

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// permutations calls f with every order of list.
func permutations[T any](list []T, f func([]T)) {
	var walk func(k int)
	walk = func(k int) {
		if k == len(list) {
			f(slices.Clone(list))
			return
		}
		for i := k; i < len(list); i++ {
			list[k], list[i] = list[i], list[k]
			walk(k + 1)
			list[k], list[i] = list[i], list[k]
		}
	}
	walk(0)
}

// step is one event of a story.
type step struct {
	id      string
	revoked bool
	set     string
	at      int
}

func (s step) String() string {
	what := "created"
	if s.revoked {
		what = "revoked"
	}
	return fmt.Sprintf("%s %s set %q at %d", s.id, what, s.set, s.at)
}

var stories = []struct {
	name  string
	steps []step
	want  map[string]string // what is alive in the end: set → event
}{
	{"created, revoked", []step{{"c", false, "", 1}, {"r", true, "", 2}}, nil},
	{"revoked before it was created", []step{{"c", false, "", 2}, {"r", true, "", 1}}, map[string]string{"": "c"}},
	{"at the same time", []step{{"c", false, "", 2}, {"r", true, "", 2}}, nil},
	{"delegated anew", []step{{"c1", false, "", 1}, {"r", true, "", 2}, {"c2", false, "", 3}}, map[string]string{"": "c2"}},
	{"delegated anew, revoked again", []step{{"c1", false, "", 1}, {"r1", true, "", 2}, {"c2", false, "", 3}, {"r2", true, "", 3}}, nil},
	{"replaced", []step{{"c1", false, "a", 1}, {"c2", false, "a", 2}}, map[string]string{"a": "c2"}},
	{"replaced at the same time", []step{{"c1", false, "a", 1}, {"c2", false, "a", 1}}, map[string]string{"a": "c2"}},
	{"one set of two", []step{{"c1", false, "a", 1}, {"c2", false, "b", 1}, {"r", true, "a", 2}}, map[string]string{"b": "c2"}},
	{"all sets", []step{{"c1", false, "a", 1}, {"c2", false, "b", 1}, {"r", true, "", 2}}, nil},
	{"all sets but the younger", []step{{"c1", false, "a", 1}, {"c2", false, "b", 3}, {"r", true, "", 2}}, map[string]string{"b": "c2"}},
	{"a named set hits the one without a name", []step{{"c", false, "", 1}, {"r", true, "a", 2}}, nil},
	{"two revocations, one is younger", []step{{"c", false, "a", 2}, {"r1", true, "", 1}, {"r2", true, "a", 3}}, nil},
	{"of another set", []step{{"c", false, "a", 1}, {"r", true, "b", 2}}, map[string]string{"a": "c"}},
}

// Every story ends the same in whatever order its events come, and every event
// may come twice.
func TestOrderOfArrivalDecidesNothing(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	run := 0
	for _, story := range stories {
		permutations(story.steps, func(steps []step) {
			if len(steps) > 3 && run%3 != 0 {
				run++
				return // the rest is judged without a token below
			}
			run++
			wallet := numbered("w", run)
			send := func(s step) {
				o := revoked(numbered(s.id, run), wallet, s.set, s.at)
				if !s.revoked {
					o = e.created(t, numbered(s.id, run), wallet, s.set, s.at)
				}
				if _, err := h.send(e, body(t, o)); err != nil {
					t.Fatalf("%s: %s: %v", story.name, s, err)
				}
			}
			for _, s := range steps {
				send(s)
			}
			want := map[string]string{}
			for set, id := range story.want {
				want[set] = numbered(id, run)
			}
			if got := h.alive(e, wallet); !maps.Equal(got, want) {
				t.Errorf("%s: after %v these are alive: %v, want %v", story.name, steps, got, want)
			}
			send(steps[0])
			if got := h.alive(e, wallet); !maps.Equal(got, want) {
				t.Errorf("%s: %v, and the first again: these are alive: %v, want %v", story.name, steps, got, want)
			}
		})
	}
}

// final is the state after events, by the rule alone.
func final(steps []step) (alive map[string]string, graves map[string]time.Time) {
	w := (&vendorWallet{}).clone()
	seen := map[string]bool{}
	for _, s := range steps {
		e := &event{name: eventCreated, id: s.id, set: s.set, at: testTime.Add(time.Duration(s.at) * time.Minute)}
		if s.revoked {
			e.name = eventRevoked
		}
		outcome := w.judge(e, seen[s.id])
		seen[s.id] = true
		switch {
		case outcome != Stored:
		case s.revoked:
			w.bury(e)
		default:
			w.Sets[s.set] = material{ID: s.id, Status: Pending, Event: s.id, At: e.at}
		}
	}
	alive = map[string]string{}
	for set, m := range w.Sets {
		if m.Status == Pending {
			alive[set] = m.Event
		}
	}
	return alive, w.Revoked
}

func TestRandomStoriesEndTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		var steps []step
		for i := range 2 + r.IntN(6) {
			steps = append(steps, step{numbered("e", i), r.IntN(2) == 0, []string{"", "a", "b"}[r.IntN(3)], r.IntN(4)})
		}
		alive, graves := final(steps)
		for range 30 {
			again := slices.Concat(steps, steps[:r.IntN(len(steps))]) // with repetitions
			r.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
			a, g := final(again)
			if !maps.Equal(a, alive) || !maps.Equal(g, graves) {
				t.Fatalf("%v\nleaves alive %v, buried %v\n%v\nleaves alive %v, buried %v", steps, alive, graves, again, a, g)
			}
		}
		for set, id := range alive { // nothing lives that is not younger than every revocation of it
			for _, s := range steps {
				if s.id == id {
					for _, x := range steps {
						if x.revoked && (x.set == "" || x.set == set || set == "") && s.at <= x.at {
							t.Fatalf("%v: %s lives, and %s stands against it", steps, s, x)
						}
					}
				}
			}
		}
	}
}
