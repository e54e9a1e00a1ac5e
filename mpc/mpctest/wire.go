package mpctest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/mpc"
)

// End is one member's session on a wire without the rules of a session: what a
// hostile peer sends arrives. It serves one ceremony.
type End struct {
	Self mpc.Member
	// Change, if not nil, plays the hostile peer on what this end sends: it is
	// called once for each receiver. An empty kind drops the message.
	Change func(e mpc.Envelope, to mpc.Member) mpc.Envelope
	// Patience ends a Recv with mpc.ErrSilent; zero means never.
	Patience time.Duration

	id    [32]byte
	in    chan mpc.Envelope
	peers map[mpc.Member]*End
}

// Wire connects members.
func Wire(members ...mpc.Member) map[mpc.Member]*End {
	ends := map[mpc.Member]*End{}
	for _, m := range members {
		ends[m] = &End{Self: m, id: [32]byte{1}, in: make(chan mpc.Envelope, 256), peers: ends}
	}
	return ends
}

// ID is the same for every wire: tests that need fresh ones use mpc's own sessions.
func (l *End) ID() [32]byte { return l.id }

// Send delivers to every receiver's end.
func (l *End) Send(ctx context.Context, e mpc.Envelope) error {
	for _, to := range e.To {
		out := e
		out.From, out.Session, out.Payload = l.Self, l.id, slices.Clone(e.Payload)
		if l.Change != nil {
			out = l.Change(out, to)
		}
		if out.Kind == "" {
			continue
		}
		select {
		case l.peers[to].in <- out:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Recv returns what came next.
func (l *End) Recv(ctx context.Context) (mpc.Envelope, error) {
	select {
	case e := <-l.in: // what is there comes before an end of patience
		return e, nil
	default:
	}
	var silent <-chan time.Time // nil, so never
	if l.Patience > 0 {
		silent = time.After(l.Patience)
	}
	select {
	case e := <-l.in:
		return e, nil
	case <-silent:
		return mpc.Envelope{}, fmt.Errorf("%w of %v", mpc.ErrSilent, l.Patience)
	case <-ctx.Done():
		return mpc.Envelope{}, context.Cause(ctx)
	}
}

// Put hands this end a message as if it had arrived.
func (l *End) Put(e mpc.Envelope) { l.in <- e }
