package frost

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/mpc"
)

// wireVersion is the first byte of every message; what follows has a fixed length.
const wireVersion = 1

// exchange sorts what a member receives by kind, because a fast peer may be a
// round ahead.
type exchange struct {
	session mpc.Session
	self    mpc.Member
	// kinds are all that may come, and from whom.
	kinds map[string][]mpc.Member
	got   map[string]map[mpc.Member]mpc.Envelope
}

func newExchange(s mpc.Session, self mpc.Member, kinds map[string][]mpc.Member) *exchange {
	return &exchange{session: s, self: self, kinds: kinds, got: map[string]map[mpc.Member]mpc.Envelope{}}
}

// broadcast sends one payload to all of to but the sender itself.
func (x *exchange) broadcast(ctx context.Context, kind string, to []mpc.Member, payload []byte, final bool) error {
	others := slices.DeleteFunc(slices.Clone(to), func(m mpc.Member) bool { return m == x.self })
	return x.session.Send(ctx, mpc.Envelope{To: others, Kind: kind, Broadcast: true, Final: final, Payload: payload})
}

// secretly sends one member what is only for it, and wipes it.
func (x *exchange) secretly(ctx context.Context, kind string, to mpc.Member, payload []byte) error {
	defer clear(payload)
	return x.session.Send(ctx, mpc.Envelope{To: []mpc.Member{to}, Kind: kind, Payload: payload})
}

// collect waits for the message of a kind from everybody who owes one, and returns
// what follows the version byte, size bytes from each.
func (x *exchange) collect(ctx context.Context, kind string, size int) (map[mpc.Member][]byte, error) {
	from := slices.DeleteFunc(slices.Clone(x.kinds[kind]), func(m mpc.Member) bool { return m == x.self })
	for len(x.got[kind]) < len(from) {
		env, err := x.session.Recv(ctx)
		if errors.Is(err, mpc.ErrSilent) {
			missing := slices.DeleteFunc(from, func(m mpc.Member) bool { _, ok := x.got[kind][m]; return ok })
			return nil, &mpc.Blame{Culprits: missing, Err: err}
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(x.kinds[env.Kind], env.From) || env.From == x.self {
			return nil, blame(env.From, "a message of kind %q, which it has no reason to send", env.Kind)
		}
		if x.got[env.Kind] == nil {
			x.got[env.Kind] = map[mpc.Member]mpc.Envelope{}
		}
		if _, again := x.got[env.Kind][env.From]; again {
			return nil, blame(env.From, "a second message of kind %q", env.Kind)
		}
		x.got[env.Kind][env.From] = env
	}
	out := map[mpc.Member][]byte{}
	for _, m := range from { // in order, so that all blame the same one
		b := x.got[kind][m].Payload
		if len(b) != 1+size || b[0] != wireVersion {
			return nil, blame(m, "a message %q of %d bytes, want %d that start with %#02x", kind, len(b), 1+size, wireVersion)
		}
		out[m] = b[1:]
	}
	return out, nil
}

// message starts an encoded message.
func message(parts ...[]byte) []byte {
	return slices.Concat(append([][]byte{{wireVersion}}, parts...)...)
}

// blame names the sender of what broke the protocol.
func blame(m mpc.Member, format string, args ...any) error {
	return &mpc.Blame{Culprits: []mpc.Member{m}, Err: fmt.Errorf("%w: %s sent "+format, append([]any{mpc.ErrProtocol, m}, args...)...)}
}

// checkEcho compares what others say was broadcast with our own view. With a single
// peer there is nobody else to have told two stories.
func checkEcho(members, others []mpc.Member, got map[mpc.Member][]byte, own []byte) error {
	for _, m := range others {
		if string(got[m][:len(own)]) == string(own) {
			continue
		}
		if len(members) == 2 {
			return blame(m, "another account of what both sent")
		}
		return fmt.Errorf("%w: %s was told something else than we were: one of the parties told two stories", mpc.ErrProtocol, m)
	}
	return nil
}
