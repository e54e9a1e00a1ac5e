package mpc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A joint ceremony is run by two processes, each of which plays some of its parties.
// The processes agree on a proposal and both draw a nonce: the session's id binds
// both, and every ceremony of the session (chain code, keygen, test signatures)
// derives its own from it. What comes from the other process goes through its
// arrivals and then into the same inboxes as messages within this process.

// Conn carries frames to one other process and back, in order, and knows who that
// is: whoever hands it over has authenticated both ends. Send and Recv end with the
// context or with the connection. A frame that Recv returned is the caller's. Recv
// is called by one goroutine, Send by any.
type Conn interface {
	Send(ctx context.Context, frame []byte) error
	Recv(ctx context.Context) ([]byte, error)
}

// ErrGone: the other process of a joint ceremony ended it, or its connection.
var ErrGone = errors.New("the other side is gone")

// RefusedError is the other process's refusal of a proposal, in its own words.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return "the other side refuses: " + e.Text }

// handshakeTimeout bounds the time from a proposal to its answer; a person may have
// to read it.
const handshakeTimeout = 5 * time.Minute

// Joint is a session with another process, for one operation. It is used by one
// goroutine at a time; Close ends it.
type Joint struct {
	conn     Conn
	proposal Proposal
	proposer bool
	id       [32]byte
	// step counts the ceremonies and agreements of the session so far.
	step uint32

	// sendMu guards seq: frames leave in the order of their numbers.
	sendMu sync.Mutex
	seq    uint64

	arrivals *arrivals
	// stop ends the reading; done is closed after it.
	stop context.CancelFunc
	done chan struct{}
}

// Propose asks the other process to take part and waits for its answer. It fills in
// the proposal's nonce and version. Errors: [*RefusedError], [ErrGone], [ErrFrame],
// the context's.
func Propose(ctx context.Context, conn Conn, p Proposal) (*Joint, error) {
	p.V, p.Nonce = proposalVersion, make([]byte, nonceBytes)
	rand.Read(p.Nonce) // never fails, see crypto/rand
	if err := p.check(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding proposal: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.Send(ctx, frame{typ: frameProposal, body: body}.encode(0)); err != nil {
		return nil, fmt.Errorf("proposing: %w: %w", ErrGone, err)
	}
	f, err := firstFrame(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("proposing: %w", err)
	}
	switch f.typ {
	case frameAcceptance:
		return newJoint(conn, p, true, sessionOf(body, f.body)), nil
	case frameRefusal, frameEnd:
		return nil, &RefusedError{printable(f.body)}
	}
	return nil, fmt.Errorf("proposing: %w: type %d in place of an answer", ErrFrame, f.typ)
}

// Offer is a proposal that came and has no answer yet.
type Offer struct {
	Proposal
	conn Conn
	body []byte
}

// ReadOffer waits for the other process's proposal. Its form is checked; whether to
// take part is the caller's to judge before Accept.
func ReadOffer(ctx context.Context, conn Conn) (*Offer, error) {
	f, err := firstFrame(ctx, conn)
	switch {
	case err != nil:
		return nil, fmt.Errorf("waiting for a proposal: %w", err)
	case f.typ == frameRefusal || f.typ == frameEnd:
		return nil, &RefusedError{printable(f.body)}
	case f.typ != frameProposal:
		return nil, fmt.Errorf("waiting for a proposal: %w: type %d", ErrFrame, f.typ)
	}
	p, err := decodeProposal(f.body)
	if err != nil {
		return nil, err
	}
	return &Offer{p, conn, f.body}, nil
}

// Accept takes part.
func (o *Offer) Accept(ctx context.Context) (*Joint, error) {
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce)
	if err := o.conn.Send(ctx, frame{typ: frameAcceptance, body: nonce}.encode(0)); err != nil {
		return nil, fmt.Errorf("accepting: %w: %w", ErrGone, err)
	}
	return newJoint(o.conn, o.Proposal, false, sessionOf(o.body, nonce)), nil
}

// Refuse answers with a text that the other side may read.
func (o *Offer) Refuse(ctx context.Context, text string) error { return Refuse(ctx, o.conn, text) }

// Refuse tells whoever waits for our first frame why there is none.
func Refuse(ctx context.Context, conn Conn, text string) error {
	return conn.Send(ctx, frame{typ: frameRefusal, body: []byte(text[:min(len(text), maxText)])}.encode(0))
}

func firstFrame(ctx context.Context, conn Conn) (frame, error) {
	b, err := conn.Recv(ctx)
	if err != nil {
		return frame{}, fmt.Errorf("%w: %w", ErrGone, err)
	}
	seq, f, err := decodeFrame(b)
	if err == nil && seq != 0 {
		err = fmt.Errorf("%w: the first is number %d", ErrFrame, seq)
	}
	return f, err
}

// printable keeps another process's text safe for terminals and logs.
func printable(b []byte) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7f || c == '\ufffd' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(string(b), " "))
}

func newJoint(conn Conn, p Proposal, proposer bool, id [32]byte) *Joint {
	ctx, stop := context.WithCancel(context.Background())
	j := &Joint{conn: conn, proposal: p, proposer: proposer, id: id, seq: 1, arrivals: newArrivals(), stop: stop, done: make(chan struct{})}
	go j.read(ctx)
	return j
}

// Proposal is what both sides agreed on.
func (j *Joint) Proposal() Proposal { return j.proposal }

// Dropped counts the frames and messages of the other side that broke the rules of
// order and of one message a kind.
func (j *Joint) Dropped() int { return j.arrivals.count() }

// Close ends the session; err, if not nil, is why our part failed: the other side
// hears that it did, and need not wait for its deadline. Nothing runs afterwards.
func (j *Joint) Close(err error) {
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = j.send(ctx, frame{typ: frameEnd, body: []byte(endText(err))}) // it may be gone itself
		cancel()
	}
	j.stop()
	<-j.done
}

// endText says no more of a failure than what the other side may know.
func endText(err error) string {
	switch {
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrSignature), errors.Is(err, ErrFrame):
		return "the protocol was broken"
	case errors.Is(err, ErrAborted):
		return "the last look before the release said no"
	case errors.Is(err, ErrSilent), errors.Is(err, context.DeadlineExceeded):
		return "it took too long"
	}
	return "it failed here"
}

func (j *Joint) send(ctx context.Context, f frame) error {
	j.sendMu.Lock()
	defer j.sendMu.Unlock()
	b := f.encode(j.seq)
	defer clear(b) // some carry shares of shares
	j.seq++
	if err := j.conn.Send(ctx, b); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil
}

// read takes frames until the connection ends or breaks the rules.
func (j *Joint) read(ctx context.Context) {
	defer close(j.done)
	for {
		b, err := j.conn.Recv(ctx)
		if err != nil {
			j.arrivals.end(fmt.Errorf("%w: %w", ErrGone, err))
			return
		}
		seq, f, err := decodeFrame(b)
		if err == nil {
			err = j.arrivals.take(seq, f)
		}
		if err != nil {
			j.arrivals.end(err)
			return
		}
	}
}

// here and there are the parties that this process and the other one play, of the
// set with this id; in order.
func (j *Joint) here(setID string) []Party  { return j.side(setID, j.proposer) }
func (j *Joint) there(setID string) []Party { return j.side(setID, !j.proposer) }

func (j *Joint) side(setID string, proposer bool) []Party {
	p := j.proposal
	switch {
	case p.From != nil && p.From.ID == setID && proposer:
		return p.FromProposer
	case p.From != nil && p.From.ID == setID:
		return p.FromAcceptor
	case p.To != nil && p.To.ID == setID && proposer:
		return p.ToProposer
	case p.To != nil && p.To.ID == setID:
		return p.ToAcceptor
	}
	return nil
}

// plays says whether this process plays a member.
func (j *Joint) plays(m Member) bool { return slices.Contains(j.here(m.SetID), m.Party) }

// nextStep is what the session's next ceremony or agreement is bound to.
func (j *Joint) nextStep() [32]byte {
	j.step++
	h := sha256.New()
	h.Write([]byte("sigild/mpc/step/v1"))
	h.Write(j.id[:])
	_ = binary.Write(h, binary.BigEndian, j.step)
	return [32]byte(h.Sum(nil))
}

// agree fails unless both sides have the same bytes; it takes a step of the session.
func (j *Joint) agree(ctx context.Context, what string, value []byte) error {
	step := j.nextStep()
	bind := sha256.New()
	bind.Write(step[:])
	bind.Write(value)
	own := [32]byte(bind.Sum(nil))
	if err := j.send(ctx, frame{typ: frameAgreement, what: what, hash: own}); err != nil {
		return err
	}
	theirs, err := j.arrivals.agreement(ctx, what, makeRound)
	switch {
	case errors.Is(err, ErrFrame):
		err = j.lost()
	case errors.Is(err, ErrSilent):
		err = &Blame{Culprits: j.others(), Err: err}
	}
	if err != nil {
		return fmt.Errorf("agreeing on %s: %w", what, err)
	}
	if subtle.ConstantTimeCompare(theirs[:], own[:]) != 1 {
		return j.blame("has another %s than ours", what)
	}
	return nil
}

// Confirm waits until both sides have come to the same point with the same value,
// such as the receipt of a share that is on disk. Errors as those of a ceremony.
func (j *Joint) Confirm(ctx context.Context, what string, value []byte) error {
	if err := j.agree(ctx, what, value); err != nil {
		return failed(j.proposal.Op, err, false)
	}
	return nil
}

// blame lays a failure on the parties of the other side.
func (j *Joint) blame(format string, args ...any) error {
	return &Blame{Culprits: j.others(), Err: fmt.Errorf("%w: the other side "+format, append([]any{ErrProtocol}, args...)...)}
}

// others are the members that the other process plays.
func (j *Joint) others() (ms []Member) {
	for _, set := range []*ShareSet{j.proposal.From, j.proposal.To} {
		if set == nil {
			continue
		}
		for _, p := range j.there(set.ID) {
			ms = append(ms, Member{set.ID, p})
		}
	}
	return ms
}
