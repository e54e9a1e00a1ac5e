package mpc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var (
	alice = Member{"s", Server}
	bob   = Member{"s", Delegate}
)

func twoParty(release func() error) ceremony {
	return ceremony{op: "sign", engine: "test", sets: []Committee{{SetID: "s", Parties: []Party{Delegate, Server}, Threshold: 2}},
		members: []Member{alice, bob}, round: time.Minute, maxPayload: 64, beforeRelease: release}
}

func mustHub(t *testing.T, c ceremony) *hub {
	t.Helper()
	h, err := c.newHub()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestInboxTakesEachMessageOnceAndCountsTheRest(t *testing.T) {
	b := newInbox([32]byte{7}, bob, []Member{alice, bob}, 8)
	good := Envelope{Session: [32]byte{7}, From: alice, To: []Member{bob}, Kind: "round1", Payload: []byte("hello")}
	for i, tc := range []struct {
		name   string
		change func(*Envelope)
		ok     bool
	}{
		{"the first", func(*Envelope) {}, true},
		{"the same again", func(*Envelope) {}, false},
		{"the same kind with another payload", func(e *Envelope) { e.Payload = []byte("other") }, false},
		{"another kind", func(e *Envelope) { e.Kind = "round2" }, true},
		{"another session", func(e *Envelope) { e.Kind, e.Session = "round3", [32]byte{8} }, false},
		{"a stranger", func(e *Envelope) { e.Kind, e.From = "round3", Member{"s", User} }, false},
		{"a party of another set", func(e *Envelope) { e.Kind, e.From = "round3", Member{"t", Server} }, false},
		{"from itself", func(e *Envelope) { e.Kind, e.From = "round3", bob }, false},
		{"for somebody else", func(e *Envelope) { e.Kind, e.To = "round3", []Member{alice} }, false},
		{"no kind", func(e *Envelope) { e.Kind = "" }, false},
		{"empty", func(e *Envelope) { e.Kind, e.Payload = "round3", nil }, false},
		{"too large", func(e *Envelope) { e.Kind, e.Payload = "round3", make([]byte, 9) }, false},
		{"as large as allowed", func(e *Envelope) { e.Kind, e.Payload = "round3", make([]byte, 8) }, true},
	} {
		env := good
		tc.change(&env)
		dropped := b.dropped
		if err := b.put(env); (err == nil) != tc.ok || (b.dropped == dropped) != tc.ok {
			t.Errorf("%d, %s: error %v, dropped %d more, want accepted %v", i, tc.name, err, b.dropped-dropped, tc.ok)
		}
	}
	var kinds []string
	for env, ok := b.next(); ok; env, ok = b.next() {
		kinds = append(kinds, env.Kind)
	}
	if want := []string{"round1", "round2", "round3"}; !slices.Equal(kinds, want) {
		t.Errorf("received %q, want %q", kinds, want)
	}
}

func TestInboxBoundsItsMemory(t *testing.T) {
	b := newInbox([32]byte{}, bob, []Member{alice, bob}, 8)
	for i := range 2 * maxKinds {
		_ = b.put(Envelope{From: alice, To: []Member{bob}, Kind: string(rune('A' + i)), Payload: []byte{1}})
	}
	if len(b.queue) != maxKinds || b.dropped != maxKinds {
		t.Errorf("kept %d and dropped %d, want %d each", len(b.queue), b.dropped, maxKinds)
	}
}

func TestSessionStampsSenderAndSession(t *testing.T) {
	h := mustHub(t, twoParty(nil))
	sent := Envelope{Session: [32]byte{1}, From: bob, To: []Member{bob}, Kind: "k", Payload: []byte("x")}
	if err := h.ends[0].Send(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	sent.Payload[0] = 'y' // the session took a copy
	got, err := h.ends[1].Recv(t.Context())
	if err != nil || got.From != alice || got.Session != h.ends[0].id || string(got.Payload) != "x" {
		t.Errorf("received %+v, error %v, want it from %v with payload x", got, err, alice)
	}
	if err := h.ends[0].Send(t.Context(), Envelope{To: []Member{alice}, Kind: "k", Payload: []byte("x")}); !errors.Is(err, ErrProtocol) {
		t.Errorf("sending to oneself: error %v, want ErrProtocol", err)
	}
}

func TestSessionIDsAreFresh(t *testing.T) {
	c := twoParty(nil)
	if a, b := c.sessionID(), c.sessionID(); a == b {
		t.Errorf("two sessions of one ceremony have id %x", a)
	}
}

func TestMemberTakesPartOnce(t *testing.T) {
	c := twoParty(nil)
	c.members = []Member{alice, alice}
	if _, err := c.newHub(); !errors.Is(err, ErrProtocol) {
		t.Errorf("error %v, want ErrProtocol", err)
	}
}

func TestSilenceEndsARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mustHub(t, twoParty(nil))
		start := time.Now()
		_, err := h.ends[0].Recv(t.Context())
		if !errors.Is(err, ErrSilent) || time.Since(start) != time.Minute {
			t.Errorf("error %v after %v, want ErrSilent after the round's minute", err, time.Since(start))
		}
	})
}

func TestReleaseStopsEveryPartyWhenRefused(t *testing.T) {
	calls := 0
	h := mustHub(t, twoParty(func() error { calls++; return errors.New("no") }))
	for i, to := range []Member{bob, alice} {
		err := h.ends[i].Send(t.Context(), Envelope{To: []Member{to}, Kind: "last", Final: true, Payload: []byte("share")})
		if !errors.Is(err, ErrAborted) {
			t.Errorf("party %d: error %v, want ErrAborted", i, err)
		}
		if _, ok := h.ends[1-i].in.next(); ok {
			t.Errorf("party %d: its last share left", i)
		}
	}
	if calls != 1 || h.release.sent.Load() {
		t.Errorf("%d calls, sent %v, want 1 and false", calls, h.release.sent.Load())
	}
}

func TestReleaseThatPanicsLetsNothingGo(t *testing.T) {
	h := mustHub(t, twoParty(func() error { panic("hook") }))
	last := Envelope{To: []Member{bob}, Kind: "last", Final: true, Payload: []byte("share")}
	func() {
		defer func() { _ = recover() }()
		_ = h.ends[0].Send(t.Context(), last)
	}()
	last.To = []Member{alice}
	if err := h.ends[1].Send(t.Context(), last); !errors.Is(err, ErrAborted) || h.release.sent.Load() {
		t.Errorf("error %v, sent %v, want ErrAborted and false", err, h.release.sent.Load())
	}
}

func TestReleaseIsNotAskedAfterTheEnd(t *testing.T) {
	h := mustHub(t, twoParty(func() error { t.Error("asked"); return nil }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.release.pass(ctx); !errors.Is(err, context.Canceled) || h.release.sent.Load() {
		t.Errorf("error %v, sent %v, want cancelled and false", err, h.release.sent.Load())
	}
}

func TestRunReportsTheFirstFailureAndWaitsForAll(t *testing.T) {
	boom := errors.New("boom")
	ended := 0
	sent, err := twoParty(nil).run(t.Context(), func(ctx context.Context, s Session, i int) error {
		if i == 0 {
			return &Blame{[]Member{bob}, boom}
		}
		_, err := s.Recv(ctx) // nothing comes; ends with the cause of the cancel
		ended++
		return err
	})
	e := failed("sign", err, sent)
	if !errors.Is(e, boom) || !slices.Equal(e.Culprits, []Party{Delegate}) || e.LastShareSent || ended != 1 {
		t.Errorf("error %v, culprits %v, sent %v, %d ended; want boom, delegate, false, 1", e, e.Culprits, e.LastShareSent, ended)
	}
}
