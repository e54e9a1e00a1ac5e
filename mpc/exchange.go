package mpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// wireVersion is the first byte of every message of an [Exchange]; what follows has
// a fixed length.
const wireVersion = 1

// Exchange is one member's side of a protocol in rounds, over a [Session]. It
// sorts what comes by kind, because a fast peer may be a round ahead, and names
// whoever sends what has no place. It belongs to one ceremony and one goroutine.
type Exchange struct {
	session Session
	self    Member
	// kinds are all that may come, and from whom.
	kinds map[string][]Member
	got   map[string]map[Member]Envelope
}

// NewExchange wants all kinds of message there are, with those who send them.
func NewExchange(s Session, self Member, kinds map[string][]Member) *Exchange {
	return &Exchange{session: s, self: self, kinds: kinds, got: map[string]map[Member]Envelope{}}
}

// Broadcast sends one payload to all of to but the sender itself.
func (x *Exchange) Broadcast(ctx context.Context, kind string, to []Member, payload []byte, final bool) error {
	others := slices.DeleteFunc(slices.Clone(to), func(m Member) bool { return m == x.self })
	return x.session.Send(ctx, Envelope{To: others, Kind: kind, Broadcast: true, Final: final, Payload: append([]byte{wireVersion}, payload...)})
}

// Secretly sends one member what is only for it, and wipes it.
func (x *Exchange) Secretly(ctx context.Context, kind string, to Member, payload []byte) error {
	wire := append([]byte{wireVersion}, payload...)
	clear(payload)
	defer clear(wire)
	return x.session.Send(ctx, Envelope{To: []Member{to}, Kind: kind, Payload: wire})
}

// Collect waits for the message of a kind from everybody who owes one, and returns
// what follows the version byte, size bytes from each.
func (x *Exchange) Collect(ctx context.Context, kind string, size int) (map[Member][]byte, error) {
	from := slices.DeleteFunc(slices.Clone(x.kinds[kind]), func(m Member) bool { return m == x.self })
	for len(x.got[kind]) < len(from) {
		env, err := x.session.Recv(ctx)
		if errors.Is(err, ErrSilent) {
			missing := slices.DeleteFunc(from, func(m Member) bool { _, ok := x.got[kind][m]; return ok })
			return nil, &Blame{Culprits: missing, Err: err}
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(x.kinds[env.Kind], env.From) || env.From == x.self {
			return nil, Accuse(env.From, "a message of kind %q, which it has no reason to send", env.Kind)
		}
		if x.got[env.Kind] == nil {
			x.got[env.Kind] = map[Member]Envelope{}
		}
		if _, again := x.got[env.Kind][env.From]; again {
			return nil, Accuse(env.From, "a second message of kind %q", env.Kind)
		}
		x.got[env.Kind][env.From] = env
	}
	out := map[Member][]byte{}
	for _, m := range from { // in order, so that all blame the same one
		b := x.got[kind][m].Payload
		if len(b) != 1+size || b[0] != wireVersion {
			return nil, Accuse(m, "a message %q of %d bytes, want %d that start with %#02x", kind, len(b), 1+size, wireVersion)
		}
		out[m] = b[1:]
	}
	return out, nil
}

// Accuse names the sender of what broke the protocol.
func Accuse(m Member, format string, args ...any) error {
	return &Blame{Culprits: []Member{m}, Err: fmt.Errorf("%w: %s sent "+format, append([]any{ErrProtocol, m}, args...)...)}
}
