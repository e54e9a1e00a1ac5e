package mpc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// a session whose ceremony has alice here and bob elsewhere.
func halfHub(t *testing.T) (*Joint, *hub) {
	t.Helper()
	set := ShareSet{ID: "s", Parties: []Party{Delegate, Server}, Threshold: 2}
	j := &Joint{proposer: true, proposal: Proposal{From: &set, FromProposer: []Party{Server}, FromAcceptor: []Party{Delegate}}, arrivals: newArrivals(), seq: 1}
	c := twoParty(nil)
	c.joint = j
	h, err := c.newHub()
	if err != nil {
		t.Fatal(err)
	}
	return j, h
}

func (h *hub) fromBob(kind string) frame {
	return frame{typ: frameMessage, env: Envelope{Session: h.id, From: bob, To: []Member{alice}, Kind: kind, Payload: []byte(kind)}}
}

func kindsOf(h *hub) (kinds []string) {
	for e, ok := h.ends[0].in.next(); ok; e, ok = h.ends[0].in.next() {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestFramesArePutInOrderAndTakenOnce(t *testing.T) {
	j, h := halfHub(t)
	a := j.arrivals
	defer a.enter(h.id, h)()
	for _, f := range []struct {
		seq  uint64
		kind string
	}{{2, "b"}, {1, "a"}, {1, "again"}, {4, "d"}, {4, "again"}, {2, "again"}, {3, "c"}} {
		if err := a.take(f.seq, h.fromBob(f.kind)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := kindsOf(h), []string{"a", "b", "c", "d"}; !slices.Equal(got, want) || a.count() != 3 {
		t.Errorf("received %q and dropped %d, want %q and 3", got, a.count(), want)
	}
	if err := a.take(5+maxAhead+1, h.fromBob("far")); !errors.Is(err, ErrFrame) {
		t.Errorf("a frame far ahead: error %v, want ErrFrame", err)
	}
}

func TestMessagesWaitForTheirCeremony(t *testing.T) {
	j, h := halfHub(t)
	a := j.arrivals
	if err := a.take(1, h.fromBob("early")); err != nil {
		t.Fatal(err)
	}
	leave := a.enter(h.id, h)
	leave()
	if err := a.take(2, h.fromBob("late")); err != nil {
		t.Fatal(err)
	}
	if got := kindsOf(h); !slices.Equal(got, []string{"early"}) || a.count() != 1 {
		t.Errorf("received %q and dropped %d, want the early one, and the late one dropped", got, a.count())
	}
	var err error
	stray := h.fromBob("stray")
	stray.env.Session = [32]byte{99}
	for i := uint64(3); err == nil && i < 3+2*maxEarly; i++ {
		err = a.take(i, stray)
	}
	if !errors.Is(err, ErrFrame) || len(a.early) > maxEarly {
		t.Errorf("error %v with %d messages kept, want ErrFrame at %d", err, len(a.early), maxEarly)
	}
}

func TestOneStoryForAllMembersHere(t *testing.T) {
	j, h := halfHub(t)
	carol := Member{"s", Recovery}
	h.members = append(h.members, carol)
	h.ends = append(h.ends, &end{hub: h, id: h.id, self: carol, in: newInbox(h.id, carol, h.members, 64)})
	j.proposal.From.Parties, j.proposal.FromProposer = []Party{Delegate, Recovery, Server}, []Party{Recovery, Server}
	for i, tc := range []struct {
		env     Envelope
		dropped int
	}{
		{Envelope{From: bob, To: []Member{alice}, Kind: "b", Broadcast: true, Payload: []byte("one story")}, 0},
		{Envelope{From: bob, To: []Member{carol}, Kind: "b", Broadcast: true, Payload: []byte("another")}, 1},
		{Envelope{From: bob, To: []Member{carol}, Kind: "b", Payload: []byte("another, not as a broadcast")}, 1},
		{Envelope{From: alice, To: []Member{carol}, Kind: "c", Payload: []byte("in the name of alice")}, 1},
		{Envelope{From: Member{"s", User}, To: []Member{carol}, Kind: "c", Payload: []byte("a stranger's")}, 1},
		{Envelope{From: bob, To: []Member{alice, carol}, Kind: "d", Broadcast: true, Payload: []byte("for both")}, 0},
		{Envelope{From: bob, To: []Member{bob}, Kind: "e", Payload: []byte("for itself")}, 1},
	} {
		tc.env.Session = h.id
		if got := h.arrive(tc.env); got != tc.dropped {
			t.Errorf("message %d: %d dropped, want %d", i, got, tc.dropped)
		}
	}
}

// A peer that makes a direct message of what we broadcast, so as to tell two stories.
func TestOurOwnShapeOfAKindCounts(t *testing.T) {
	_, h := halfHub(t)
	if n := h.arrive(Envelope{Session: h.id, From: bob, To: []Member{alice}, Kind: "k", Payload: []byte("direct")}); n != 0 {
		t.Fatalf("%d dropped", n)
	}
	err := h.sendElsewhere(t.Context(), Envelope{Kind: "k", Broadcast: true, Payload: []byte("ours")}, nil)
	var b *Blame
	if !errors.As(err, &b) || !errors.Is(err, ErrProtocol) || !slices.Equal(b.Culprits, []Member{bob}) {
		t.Errorf("error %v, want bob blamed", err)
	}
}

func TestWhatHasArrivedComesBeforeTheEnd(t *testing.T) {
	j, h := halfHub(t)
	defer j.arrivals.enter(h.id, h)()
	if err := j.arrivals.take(1, h.fromBob("last words")); err != nil {
		t.Fatal(err)
	}
	j.arrivals.end(ErrGone)
	if e, err := h.ends[0].Recv(t.Context()); err != nil || e.Kind != "last words" {
		t.Errorf("received %q, error %v", e.Kind, err)
	}
	if _, err := h.ends[0].Recv(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
	j, h = halfHub(t)
	j.arrivals.end(ErrFrame)
	var b *Blame
	if _, err := h.ends[0].Recv(t.Context()); !errors.As(err, &b) || !errors.Is(err, ErrProtocol) {
		t.Errorf("after bytes that are no frame: error %v, want the other side blamed", err)
	}
	if _, err := j.arrivals.agreement(t.Context(), "x", time.Minute); !errors.Is(err, ErrFrame) {
		t.Errorf("an agreement after the end: error %v", err)
	}
}

func TestRefusalsReachTheProposer(t *testing.T) {
	a, b := Pipe()
	defer a.Close()
	done := make(chan error, 1)
	go func() {
		_, err := Propose(context.Background(), a, someProposal(OpSign))
		done <- err
	}()
	o, err := ReadOffer(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Refuse(t.Context(), "no policy\x1b[2J allows it"); err != nil {
		t.Fatal(err)
	}
	var no *RefusedError
	if err := <-done; !errors.As(err, &no) || no.Text != "no policy [2J allows it" {
		t.Errorf("error %v, want the refusal, fit to print", err)
	}
}

func TestSessionIDsBindBothNonces(t *testing.T) {
	p := encodeProposal(t, someProposal(OpSign))
	id := sessionOf(p, make([]byte, 32))
	other := slices.Clone(p)
	other[len(other)-2] ^= 1
	if id == sessionOf(p, append(make([]byte, 31), 1)) || id == sessionOf(other, make([]byte, 32)) {
		t.Error("a session's id does not move with its proposal and acceptance")
	}
}
