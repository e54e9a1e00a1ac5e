package mpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/sigild/sigild/chains"
)

// Engine does one party's part of a ceremony. Each call blocks until that party
// is done, leaves nothing running, and never panics: what a peer can provoke
// becomes a [*Blame]. Shares and pre-parameters are lent for the call and stay
// as they were. Results are secret and belong to the caller, who wipes them.
type Engine interface {
	// Keygen returns this party's encoded share body and the new public key.
	Keygen(ctx context.Context, s Session, p KeygenParams) (body, publicKey []byte, err error)
	// Reshare moves a key to another committee. Members of From get a nil body,
	// members of To their share body; all get the public key.
	Reshare(ctx context.Context, s Session, p ReshareParams) (body, publicKey []byte, err error)
	// Sign returns r ‖ s ‖ recid (65 bytes) or an RFC 8032 signature (64 bytes).
	// The message with which this party gives up its last share has Final set.
	Sign(ctx context.Context, s Session, p SignParams) (signature []byte, err error)
}

// Session is one party's end of a ceremony: an authenticated, ordered channel
// to the other members that delivers each message once. It owns the envelopes it
// returns; nothing is durable. Errors: the cause of the context's end,
// [ErrSilent] after a round without a message, [ErrAborted] from a refused release.
type Session interface {
	// ID is fresh for every ceremony and binds what its members agreed on.
	ID() [32]byte
	// Send delivers to every member of e.To. Before an envelope marked Final
	// leaves, the ceremony's release check runs, once for all parties.
	Send(ctx context.Context, e Envelope) error
	// Recv returns the next valid envelope.
	Recv(ctx context.Context) (Envelope, error)
}

// Member is a party of one share set; a party that belongs to both sets of an
// issue takes part as two members.
type Member struct {
	SetID string
	Party Party
}

func (m Member) String() string { return m.SetID + "/" + string(m.Party) }

// Hash is SHA-256 over set id and party. Read big-endian and reduced modulo the
// group order it is the x coordinate of the member's share in every engine, so
// that one engine can sign with the shares another one made. Members of different
// sets have different coordinates: their shares don't combine.
func (m Member) Hash() [32]byte {
	h := sha256.New()
	for _, f := range []string{"sigild/mpc/party/v1", m.SetID, string(m.Party)} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(f)))
		h.Write([]byte(f))
	}
	return [32]byte(h.Sum(nil))
}

// Envelope is one protocol message on its way.
type Envelope struct {
	// Session is set by the session that sends.
	Session [32]byte
	// From is set by the session that sends, never by the engine.
	From Member
	To   []Member
	// Kind is the engine's name of the message type, round included. A second
	// message of the same kind from the same member is dropped.
	Kind string
	// Broadcast: every receiver gets the same payload.
	Broadcast bool
	// Final: the payload completes the signature.
	Final   bool
	Payload []byte
}

// Committee is who holds the shares of a set and how many of them are needed.
type Committee struct {
	SetID     string
	Scheme    Scheme
	Parties   []Party
	Threshold int
}

// Members lists the committee's members in the order of Parties.
func (c Committee) Members() []Member { return c.members(c.Parties) }

func (c Committee) members(ps []Party) []Member {
	ms := make([]Member, len(ps))
	for i, p := range ps {
		ms[i] = Member{c.SetID, p}
	}
	return ms
}

// KeygenParams is one party's input to a keygen.
type KeygenParams struct {
	Self      Party
	Committee Committee
	// PreParams is nil unless the scheme is ECDSA.
	PreParams *PreParams
	// Round is told when this party enters a round.
	Round func(round, rounds int)
}

// ReshareParams is one member's input to a reshare.
type ReshareParams struct {
	Self Member
	From Committee
	// Quorum are the parties of From that take part, sorted.
	Quorum []Party
	To     Committee
	// PublicKey is pinned: a reshare to any other key fails.
	PublicKey []byte
	// Body is the share body of a member of From, nil for a member of To.
	Body []byte
	// PreParams is for a member of To when the scheme is ECDSA.
	PreParams *PreParams
	Round     func(round, rounds int)
}

// SignParams is one party's input to a signature.
type SignParams struct {
	Self      Party
	Committee Committee
	// Quorum are the parties that sign, sorted.
	Quorum    []Party
	PublicKey []byte
	Body      []byte
	// Tweak is added to the key that signs, 32 bytes, big-endian; nil for none. An
	// engine for a scheme that derives nothing refuses one. PublicKey and Body are
	// those of the key itself.
	Tweak []byte
	Input chains.SignInput
}

var (
	// enginesMu guards engines and adopted, which are filled while packages are initialised.
	enginesMu sync.RWMutex
	engines   = map[string]registered{}
	// adopted maps sets, by the engine that made them and their scheme, to the id of
	// the engine that uses them now.
	adopted = map[setKind]string{}
)

type registered struct {
	Engine
	schemes []Scheme
}

type setKind struct {
	engine string
	scheme Scheme
}

// Register makes an engine available under its id, and as the one that makes new
// keys of schemes. Engine packages call it when they are initialised; it panics
// when the id or a scheme is taken.
func Register(id string, e Engine, schemes ...Scheme) {
	enginesMu.Lock()
	defer enginesMu.Unlock()
	if _, dup := engines[id]; dup || id == "" || len(id) > maxID {
		panic("mpc: bad or second registration of engine " + id)
	}
	for other, have := range engines {
		for _, s := range schemes {
			if slices.Contains(have.schemes, s) {
				panic("mpc: engines " + id + " and " + other + " both make keys of " + string(s))
			}
		}
	}
	engines[id] = registered{e, schemes}
}

// Adopt has engine id use the sets of one scheme that engine maker made: sign with
// them, and reshare them into sets of its own. It panics when somebody did already.
func Adopt(id, maker string, s Scheme) {
	enginesMu.Lock()
	defer enginesMu.Unlock()
	kind := setKind{maker, s}
	if _, dup := adopted[kind]; dup || id == maker {
		panic("mpc: bad or second adoption of sets of engine " + maker)
	}
	adopted[kind] = id
}

// engineOf returns the engine that uses the sets of one kind now.
func engineOf(maker string, s Scheme) (string, Engine, error) {
	enginesMu.RLock()
	defer enginesMu.RUnlock()
	id := maker
	if by, ok := adopted[setKind{maker, s}]; ok {
		id = by
	}
	if e, ok := engines[id]; ok {
		return id, e.Engine, nil
	}
	return "", nil, fmt.Errorf("%w: %q", ErrEngine, id)
}

// EngineOf is the id of the engine that uses a set now: the one that made it, or the
// one that adopted its sets.
func EngineOf(s ShareSet) string {
	id, _, err := engineOf(s.Engine, s.Scheme)
	if err != nil {
		return s.Engine
	}
	return id
}

// EngineFor is the id of the engine that makes new keys of a scheme; "" for none.
func EngineFor(s Scheme) string {
	id, _, err := engineFor(s)
	if err != nil {
		return ""
	}
	return id
}

// engineFor returns the engine that makes new keys of a scheme.
func engineFor(s Scheme) (string, Engine, error) {
	enginesMu.RLock()
	defer enginesMu.RUnlock()
	for id, e := range engines {
		if slices.Contains(e.schemes, s) {
			return id, e.Engine, nil
		}
	}
	return "", nil, fmt.Errorf("%w for scheme %q", ErrEngine, s)
}
