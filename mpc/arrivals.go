package mpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Bounds of what the other side of a joint ceremony can make us keep.
const (
	// maxAhead is how far a frame may be ahead of one that is missing.
	maxAhead = 64
	// maxEarly bounds messages for a ceremony that has not begun here.
	maxEarly      = 256
	maxEarlyBytes = 16 << 20
)

// arrivals is where the other process's frames come in: it puts them in order, drops
// and counts what came before, and hands messages to the hub of their ceremony. A
// message that comes too early for its ceremony waits here.
type arrivals struct {
	// mu guards what follows.
	mu sync.Mutex
	// next is the number of the frame to come; held are those after it.
	next uint64
	held map[uint64]frame
	// hubs are the ceremonies under way; early waits for others.
	hubs       map[[32]byte]*hub
	ended      map[[32]byte]bool
	early      []Envelope
	earlyBytes int
	agreed     map[string][32]byte
	dropped    int
	// ending is why nothing comes any more; over is closed then.
	ending error
	over   chan struct{}
	// agreedNow is closed and made anew with each agreement that comes.
	agreedNow chan struct{}
}

func newArrivals() *arrivals {
	return &arrivals{next: 1, held: map[uint64]frame{}, hubs: map[[32]byte]*hub{}, ended: map[[32]byte]bool{}, agreed: map[string][32]byte{},
		over: make(chan struct{}), agreedNow: make(chan struct{})}
}

// take is called for each frame as it comes. An error ends the session.
func (a *arrivals) take(seq uint64, f frame) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, again := a.held[seq]
	switch {
	case seq < a.next || again:
		a.dropped++
		return nil
	case seq > a.next+maxAhead:
		return fmt.Errorf("%w: number %d, %d is missing", ErrFrame, seq, a.next)
	}
	a.held[seq] = f
	for {
		f, ok := a.held[a.next]
		if !ok {
			return nil
		}
		delete(a.held, a.next)
		a.next++
		if err := a.passLocked(f); err != nil {
			return err
		}
	}
}

func (a *arrivals) passLocked(f frame) error {
	switch f.typ {
	case frameMessage:
		if h := a.hubs[f.env.Session]; h != nil {
			a.dropped += h.arrive(f.env)
			return nil
		}
		if a.ended[f.env.Session] {
			a.dropped++
			return nil
		}
		a.earlyBytes += len(f.env.Payload)
		if len(a.early) >= maxEarly || a.earlyBytes > maxEarlyBytes {
			return fmt.Errorf("%w: too many messages of ceremonies that have not begun", ErrFrame)
		}
		a.early = append(a.early, f.env)
		return nil
	case frameAgreement:
		if _, again := a.agreed[f.what]; again || len(a.agreed) >= maxKinds {
			a.dropped++
			return nil
		}
		a.agreed[f.what] = f.hash
		close(a.agreedNow)
		a.agreedNow = make(chan struct{})
		return nil
	case frameEnd:
		return fmt.Errorf("%w: it ended the session: %s", ErrGone, printable(f.body))
	}
	return fmt.Errorf("%w: type %d inside a session", ErrFrame, f.typ)
}

// enter lets in the messages of a ceremony until leave is called.
func (a *arrivals) enter(id [32]byte, h *hub) (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hubs[id] = h
	waiting := a.early
	a.early, a.earlyBytes = nil, 0
	for _, env := range waiting {
		if env.Session == id {
			a.dropped += h.arrive(env)
			continue
		}
		a.early = append(a.early, env)
		a.earlyBytes += len(env.Payload)
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.hubs, id)
		a.ended[id] = true
	}
}

// agreement waits for the other side's.
func (a *arrivals) agreement(ctx context.Context, what string, within time.Duration) ([32]byte, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		a.mu.Lock()
		hash, ok := a.agreed[what]
		delete(a.agreed, what)
		came := a.agreedNow
		a.mu.Unlock()
		if ok {
			return hash, nil
		}
		select {
		case <-came:
		case <-a.over:
			return [32]byte{}, a.why()
		case <-ctx.Done():
			return [32]byte{}, context.Cause(ctx)
		case <-timer.C:
			return [32]byte{}, fmt.Errorf("%w of %v", ErrSilent, within)
		}
	}
}

// end says that nothing comes any more. The first reason stands.
func (a *arrivals) end(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending == nil {
		a.ending = why
		close(a.over)
	}
}

func (a *arrivals) why() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ending
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}

// over is closed when nothing comes from another process any more; nil without one.
func (h *hub) over() <-chan struct{} {
	if h.joint == nil {
		return nil
	}
	return h.joint.arrivals.over
}

// lost is why nothing comes any more. Bytes that are no frame are the other side's doing.
func (j *Joint) lost() error {
	why := j.arrivals.why()
	if errors.Is(why, ErrFrame) {
		return j.blame("sent what breaks the session: %w", why)
	}
	return why
}

// sendElsewhere sends one message to members that the other process plays, if any.
func (h *hub) sendElsewhere(ctx context.Context, env Envelope, to []Member) error {
	if h.joint == nil {
		return nil
	}
	if err := h.shape(env); err != nil {
		return h.joint.blame("sent %s otherwise than we do: %w", env.Kind, err)
	}
	if len(to) == 0 {
		return nil
	}
	env.To = to
	return h.joint.send(ctx, frame{typ: frameMessage, env: env})
}

// arrive takes a message of another process and says how many of its copies were
// dropped. Members within this process are told one story: a second broadcast of a
// kind is dropped for all of them, and a kind is a broadcast either always or never.
func (h *hub) arrive(env Envelope) (dropped int) {
	if err := h.oneStory(env); err != nil {
		return 1
	}
	for _, to := range env.To {
		end := h.end(to)
		if end == nil || end.in.put(env) != nil {
			dropped++
		}
	}
	return dropped
}

func (h *hub) oneStory(env Envelope) error {
	switch {
	case h.joint.plays(env.From):
		return errors.New("message in the name of a party that is here")
	case !slices.Contains(h.members, env.From):
		return fmt.Errorf("message from %s, who is no peer", env.From)
	}
	if err := h.shape(env); err != nil || !env.Broadcast {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told[seenKey(env)] || len(h.told) >= maxKinds*len(h.members) {
		return fmt.Errorf("second %s from %s", env.Kind, env.From)
	}
	h.told[seenKey(env)] = true
	return nil
}

// shape holds every message of a kind, ours too, to what the first was: a broadcast or not.
func (h *hub) shape(env Envelope) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.broadcasts[env.Kind]
	switch {
	case ok && known != env.Broadcast:
		return fmt.Errorf("a kind that is a broadcast: %v", known)
	case !ok && len(h.broadcasts) >= maxKinds*len(h.members):
		return errors.New("too many kinds of message")
	}
	h.broadcasts[env.Kind] = env.Broadcast
	return nil
}
