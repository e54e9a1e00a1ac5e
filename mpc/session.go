package mpc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Largest payloads of one message, in bytes. GG18's largest are 7 KiB in a
// signature and 172 KiB in an issue.
const (
	maxSignPayload = 64 << 10
	maxMakePayload = 512 << 10
	maxKind        = 128
)

// ceremony is one run of a protocol between members: a hub delivers what their
// sessions send, to those in this process and, with a joint, to those in another.
type ceremony struct {
	op, engine string
	sets       []Committee
	members    []Member
	// digest of what is signed; zero for keygen and issue.
	digest [32]byte
	// path is what is signed with, below the key.
	path          []uint32
	round         time.Duration
	maxPayload    int
	beforeRelease func() error
	// joint reaches the members that another process plays; nil when all are here.
	joint *Joint
	// background: it counts for no one, and each round waits while others run.
	background bool
	// testOnlyRelay, if not nil, carries messages in place of a direct delivery.
	testOnlyRelay func(e Envelope, to Member, deliver func(Envelope))
}

// run starts part for every member and waits for all of them; when one fails,
// the others are cancelled. The first failure is the one reported. sent says
// whether the release check let a last share go.
func (c ceremony) run(ctx context.Context, part func(ctx context.Context, s Session, i int) error) (sent bool, err error) {
	if !c.background {
		defer busy.enter()()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hub, err := c.newHub()
	if err != nil {
		return false, err
	}
	if c.joint != nil {
		defer c.joint.arrivals.enter(hub.id, hub)()
	}
	var wg sync.WaitGroup
	var failures atomic.Int32
	for i, m := range c.members {
		if !c.plays(m) {
			continue
		}
		wg.Go(func() {
			if err := part(ctx, hub.end(m), i); err != nil {
				failures.Add(1)
				cancel(err) // only the first cause is kept
			}
		})
	}
	wg.Wait()
	if failures.Load() > 0 {
		err = c.silence(context.Cause(ctx))
	}
	return hub.release.sent.Load(), err
}

// silence leaves those who are here out of who was silent: a party here that did not
// send waits itself for what another process owes it, whose members are named then.
func (c ceremony) silence(err error) error {
	if c.joint == nil || !errors.Is(err, ErrSilent) {
		return err
	}
	silent := &Blame{Err: err}
	if b := (*Blame)(nil); errors.As(err, &b) {
		silent.Err, silent.Culprits = b.Err, slices.DeleteFunc(slices.Clone(b.Culprits), c.plays)
	}
	if len(silent.Culprits) == 0 {
		silent.Culprits = slices.DeleteFunc(slices.Clone(c.members), c.plays)
	}
	return silent
}

// plays says whether a member is played by this process.
func (c ceremony) plays(m Member) bool { return c.joint == nil || c.joint.plays(m) }

// sessionID binds a fresh nonce and everything the members must agree on. Two
// processes have the nonce from their joint session.
func (c ceremony) sessionID() [32]byte {
	var nonce [32]byte
	rand.Read(nonce[:]) // never fails, see crypto/rand
	if c.joint != nil {
		nonce = c.joint.nextStep()
	}
	h := sha256.New()
	field := func(b []byte) {
		_ = binary.Write(h, binary.BigEndian, uint32(len(b)))
		h.Write(b)
	}
	field([]byte("sigild/mpc/session/v1"))
	field(nonce[:])
	field([]byte(c.engine))
	field([]byte(c.op))
	for _, s := range c.sets {
		field([]byte(s.SetID))
		field([]byte(s.Scheme))
		field([]byte{byte(s.Threshold), byte(len(s.Parties))})
		for _, p := range s.Parties {
			field([]byte(p))
		}
	}
	for _, m := range c.members {
		field([]byte(m.String()))
	}
	field(c.digest[:])
	field([]byte(FormatPath(c.path)))
	return [32]byte(h.Sum(nil))
}

// hub connects the members of one ceremony that this process plays, with each other
// and with the rest.
type hub struct {
	id      [32]byte
	members []Member
	// ends are those of members that are here.
	ends    []*end
	release *release
	relay   func(e Envelope, to Member, deliver func(Envelope))
	joint   *Joint

	// mu guards what follows, what is known of messages between processes.
	mu sync.Mutex
	// broadcasts says of each kind whether it is one; told has those that came.
	broadcasts map[string]bool
	told       map[string]bool
}

// end finds the session of a member that is here; nil for others.
func (h *hub) end(m Member) *end {
	for _, e := range h.ends {
		if e.self == m {
			return e
		}
	}
	return nil
}

func (c ceremony) newHub() (*hub, error) {
	id := c.sessionID()
	h := &hub{id: id, members: c.members, release: &release{check: c.beforeRelease}, relay: c.testOnlyRelay, joint: c.joint,
		broadcasts: map[string]bool{}, told: map[string]bool{}}
	for i, m := range c.members {
		if slices.Contains(c.members[:i], m) {
			return nil, fmt.Errorf("%w: %s takes part twice", ErrProtocol, m)
		}
		if c.plays(m) {
			h.ends = append(h.ends, &end{hub: h, id: id, self: m, round: c.round, background: c.background,
				in: newInbox(id, m, c.members, c.maxPayload)})
		}
	}
	return h, nil
}

// end is one member's Session.
type end struct {
	hub   *hub
	id    [32]byte
	self  Member
	round time.Duration
	// background waits for other ceremonies before each message.
	background bool
	in         *inbox
}

func (e *end) ID() [32]byte { return e.id }

func (e *end) Send(ctx context.Context, env Envelope) error {
	env.Session, env.From = e.id, e.self
	env.To = slices.Clone(env.To)
	env.Payload = slices.Clone(env.Payload)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if env.Final {
		if err := e.hub.release.pass(ctx); err != nil {
			return err
		}
	}
	var elsewhere []Member
	for _, to := range env.To {
		if to == e.self || !slices.Contains(e.hub.members, to) {
			return fmt.Errorf("%w: %s sends %s to %s", ErrProtocol, e.self, env.Kind, to)
		}
		receiver := e.hub.end(to)
		if receiver == nil {
			elsewhere = append(elsewhere, to)
			continue
		}
		// What is refused is counted by the receiver, who would not trust us either.
		deliver := func(env Envelope) { _ = receiver.in.put(env) }
		if e.hub.relay != nil {
			e.hub.relay(env, to, deliver)
			continue
		}
		deliver(env)
	}
	return e.hub.sendElsewhere(ctx, env, elsewhere)
}

func (e *end) Recv(ctx context.Context) (Envelope, error) {
	if err := context.Cause(ctx); err != nil {
		return Envelope{}, err
	}
	if e.background {
		if err := busy.wait(ctx); err != nil {
			return Envelope{}, err
		}
	}
	timer := time.NewTimer(e.round)
	defer timer.Stop()
	over := e.hub.over()
	for {
		if env, ok := e.in.next(); ok {
			return env, nil
		}
		select {
		case <-e.in.arrived:
		case <-over: // what had arrived comes first
			if env, ok := e.in.next(); ok {
				return env, nil
			}
			return Envelope{}, e.hub.joint.lost()
		case <-ctx.Done():
			return Envelope{}, context.Cause(ctx)
		case <-timer.C:
			return Envelope{}, fmt.Errorf("%w of %v", ErrSilent, e.round)
		}
	}
}

// inbox holds the messages for one member that passed its rules. A transport
// between processes puts into the same inbox what it authenticated.
type inbox struct {
	id         [32]byte
	self       Member
	peers      []Member
	maxPayload int
	// arrived has one token when queue may have grown.
	arrived chan struct{}

	// mu guards what follows.
	mu      sync.Mutex
	queue   []Envelope
	seen    map[string]bool
	dropped int
}

func newInbox(id [32]byte, self Member, members []Member, maxPayload int) *inbox {
	return &inbox{id: id, self: self, maxPayload: maxPayload, arrived: make(chan struct{}, 1), seen: map[string]bool{},
		peers: slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m == self })}
}

// put takes the first message of a (sender, kind) and drops and counts all else
// that breaks the rules. It never blocks: the rules bound the queue.
func (b *inbox) put(env Envelope) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.allowed(env); err != nil {
		b.dropped++
		return err
	}
	b.seen[seenKey(env)] = true
	b.queue = append(b.queue, env)
	select {
	case b.arrived <- struct{}{}:
	default:
	}
	return nil
}

func (b *inbox) allowed(env Envelope) error {
	switch {
	case env.Session != b.id:
		return errors.New("message of another session")
	case !slices.Contains(b.peers, env.From):
		return fmt.Errorf("message from %s, who is no peer", env.From)
	case !slices.Contains(env.To, b.self):
		return errors.New("message for somebody else")
	case env.Kind == "" || len(env.Kind) > maxKind || strings.ContainsRune(env.Kind, '\n'):
		return errors.New("message without a kind")
	case len(env.Payload) == 0 || len(env.Payload) > b.maxPayload:
		return fmt.Errorf("payload of %d bytes, want 1 to %d", len(env.Payload), b.maxPayload)
	case b.seen[seenKey(env)]:
		return fmt.Errorf("second %s from %s", env.Kind, env.From)
	case len(b.seen) >= maxKinds*len(b.peers):
		return errors.New("too many kinds of message")
	}
	return nil
}

// maxKinds bounds how many kinds one peer may send in a session.
const maxKinds = 32

func seenKey(env Envelope) string { return env.From.String() + "\n" + env.Kind }

func (b *inbox) next() (Envelope, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return Envelope{}, false
	}
	env := b.queue[0]
	b.queue = b.queue[1:]
	return env, true
}

// release lets last shares go, after one check for all parties.
type release struct {
	check func() error
	once  sync.Once
	err   error
	// sent is true once the check has passed.
	sent atomic.Bool
}

// pass returns nil when this party's last share may leave. The first caller runs
// the check; the others wait for its verdict.
func (r *release) pass(ctx context.Context) error {
	r.once.Do(func() {
		r.err = ErrAborted // stands if check panics
		if err := context.Cause(ctx); err != nil {
			r.err = err
			return
		}
		if r.check != nil {
			if err := r.check(); err != nil {
				r.err = fmt.Errorf("%w: %w", ErrAborted, err)
				return
			}
		}
		r.err = nil
		r.sent.Store(true)
	})
	return r.err
}
