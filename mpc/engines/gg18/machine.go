package gg18

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/mpc"
)

// outCapacity holds every message that one party of a committee of eight can
// send in a whole ceremony, so that tss-lib never blocks on its out channel.
const outCapacity = 512

// machine drives one tss-lib party: one step at a time, on the caller's
// goroutine, each under recover.
type machine struct {
	session mpc.Session
	self    mpc.Member
	roster  *roster
	party   tss.Party
	out     <-chan tss.Message
	// final says which message gives up the last share; nil for none.
	final func(tss.MessageContent) bool
	// hold says which message waits for [machine.letGo]; nil for none.
	hold    func(tss.MessageContent) bool
	waiting []mpc.Envelope
	// guard looks at each message before tss-lib does.
	guard *guard
	// rounds is how many rounds have messages; round, if not nil, is told of each.
	rounds int
	round  func(round, rounds int)
	last   int
	// held are messages that came before an earlier one of their sender.
	held []mpc.Envelope
}

// run starts the party and feeds it until done.
func (m *machine) run(ctx context.Context, done func() bool) error {
	if err := m.step(nil, m.party.Start); err != nil {
		return err
	}
	return m.feed(ctx, done)
}

// letGo sends what was held back, over another session, and feeds the party until done.
func (m *machine) letGo(ctx context.Context, s mpc.Session, done func() bool) error {
	m.session, m.hold = s, nil
	for _, env := range m.waiting {
		if err := s.Send(ctx, env); err != nil {
			return err
		}
	}
	m.waiting = nil
	return m.feed(ctx, done)
}

func (m *machine) feed(ctx context.Context, done func() bool) error {
	for {
		if err := m.flush(ctx); err != nil {
			return err
		}
		if done() {
			return nil
		}
		env, err := m.session.Recv(ctx)
		if errors.Is(err, mpc.ErrSilent) {
			// Before the first message of a round tss-lib waits for ourselves, too.
			silent := slices.DeleteFunc(m.roster.members(m.party.WaitingFor()), func(c mpc.Member) bool { return c == m.self })
			return &mpc.Blame{Culprits: silent, Err: err}
		}
		if err != nil {
			return err
		}
		if err := m.handle(env); err != nil {
			return err
		}
	}
}

// handle takes one message, and then those that waited for it.
func (m *machine) handle(env mpc.Envelope) error {
	err := m.handleOne(env)
	if errors.Is(err, errEarly) {
		m.held = append(m.held, env) // the session bounds how many there can be
		return nil
	}
	waiting := m.held
	m.held = nil
	for i := 0; i < len(waiting) && err == nil; i++ {
		if err = m.handleOne(waiting[i]); errors.Is(err, errEarly) {
			m.held, err = append(m.held, waiting[i]), nil
		}
	}
	return err
}

func (m *machine) handleOne(env mpc.Envelope) error {
	// Whatever is wrong with the message itself is its sender's doing.
	var msg tss.ParsedMessage
	err := m.step(&env.From, func() (e *tss.Error) { msg, e = m.look(env); return e })
	if err != nil {
		return err
	}
	// What tss-lib finds in a round is the sender's doing if nobody else is there;
	// else it names the culprits itself, or nobody can.
	sender := &env.From
	if len(m.roster.ids) > 2 {
		sender = nil
	}
	return m.step(sender, func() *tss.Error { _, e := m.party.Update(msg); return e })
}

// look parses and guards a message.
func (m *machine) look(env mpc.Envelope) (tss.ParsedMessage, *tss.Error) {
	from := m.roster.ids[env.From]
	refuse := func(err error) *tss.Error { return tss.NewError(err, "", -1, nil, from) }
	if from == nil {
		return nil, tss.NewError(errors.New("sender is not of the committee"), "", -1, nil)
	}
	msg, err := tss.ParseWireMessage(env.Payload, from, env.Broadcast)
	if err != nil {
		return nil, refuse(errors.New("message can't be parsed"))
	}
	// The session admits one message per kind: a wrong label would get in a second.
	if msg.Type() != env.Kind {
		return nil, refuse(errors.New("message is of another kind than it says"))
	}
	if !msg.ValidateBasic() {
		return nil, refuse(errors.New("message lacks a part"))
	}
	if err := m.guard.received(from, msg.Content()); err != nil {
		return nil, refuse(err)
	}
	return msg, nil
}

// step calls into tss-lib. A panic and an error that names nobody but ourselves
// are laid on sender, if not nil.
func (m *machine) step(sender *mpc.Member, f func() *tss.Error) (err error) {
	blame := func(culprits []mpc.Member, err error) error {
		// "U doesn't equal T" names the party that noticed.
		culprits = slices.DeleteFunc(culprits, func(c mpc.Member) bool { return c == m.self })
		if len(culprits) == 0 && sender != nil {
			culprits = []mpc.Member{*sender}
		}
		return &mpc.Blame{Culprits: culprits, Err: fmt.Errorf("%w: %w", mpc.ErrProtocol, err)}
	}
	defer func() {
		if r := recover(); r != nil {
			err = blame(nil, fmt.Errorf("engine crashed: %v", r))
		}
	}()
	// A *tss.Error without a cause exists and is an error; its pointer tells.
	if e := f(); e != nil {
		cause := e.Cause()
		if cause == nil {
			cause = errors.New("no cause given")
		}
		if e.Round() > 0 {
			cause = fmt.Errorf("round %d of %s: %w", e.Round(), m.self, cause)
		}
		return blame(m.roster.members(e.Culprits()), cause)
	}
	return nil
}

// flush sends what the last step put out.
func (m *machine) flush(ctx context.Context) error {
	for {
		select {
		case msg := <-m.out:
			if err := m.send(ctx, msg); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (m *machine) send(ctx context.Context, msg tss.Message) error {
	payload, routing, err := msg.WireBytes()
	if err != nil {
		return fmt.Errorf("encoding %s: %w", msg.Type(), err)
	}
	defer clear(payload) // some carry shares of shares
	env := mpc.Envelope{Kind: msg.Type(), Broadcast: routing.IsBroadcast, Payload: payload}
	if len(payload) == 0 {
		return fmt.Errorf("encoding %s: empty", msg.Type())
	}
	to := routing.To
	if to == nil {
		to = m.roster.groups[0]
	}
	for _, peer := range m.roster.members(to) {
		if peer != m.self {
			env.To = append(env.To, peer)
		}
	}
	if parsed, ok := msg.(tss.ParsedMessage); ok {
		env.Final = m.final != nil && m.final(parsed.Content())
		if m.guard.sent != nil {
			m.guard.sent(parsed.Content())
		}
		if m.hold != nil && m.hold(parsed.Content()) {
			env.Payload = slices.Clone(payload)
			m.waiting = append(m.waiting, env)
			return nil
		}
	}
	if n := roundOf(env.Kind); n > m.last {
		if m.last = n; m.round != nil {
			m.round(n, m.rounds)
		}
	}
	return m.session.Send(ctx, env)
}

// roundOf reads the number out of a message type as "…SignRound5Message".
func roundOf(kind string) int {
	_, after, ok := strings.Cut(kind, "Round")
	if !ok || after == "" || after[0] < '1' || after[0] > '9' {
		return 0
	}
	return int(after[0] - '0')
}
