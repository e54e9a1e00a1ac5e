// Package frost runs one party of threshold Ed25519: signing after RFC 9591,
// FROST(Ed25519, SHA-512), and its own key generation and resharing with
// verifiable secret sharing (Feldman 1987, Pedersen 1991). It registers itself
// with mpc as the engine of new Ed25519 keys, and adopts the sets that tss-lib
// made: same key, same address.
//
// Arithmetic on secrets is filippo.io/edwards25519's, in constant time; variable
// time is used for public values only. Reading a tss-lib share is the exception:
// it is JSON of math/big numbers (tsslib.go).
//
// A peer may send what it likes: messages have a version and a fixed length,
// points must be canonical, of the prime-order group and not the identity,
// scalars canonical. Whoever sends a share that does not fit its own commitments
// is named. When three or more parties disagree about what was broadcast, nobody
// can be named: one of them told two stories, and the messages carry no
// signatures that would show which.
//
// It refuses to sign twice with one nonce: nonces live inside one call, are drawn
// for one session and one message, and are wiped before the call returns.
package frost

import (
	"context"
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
)

// ID is the engine's id in share sets.
const ID = "frost-ed25519-v1"

// tssLib is the engine whose Ed25519 sets this one adopts.
const tssLib = "gg18-tsslib-v2.0.2"

// Engine implements mpc.Engine. It has no state.
type Engine struct{}

func init() {
	mpc.Register(ID, Engine{}, chains.EdDSAEd25519)
	mpc.Adopt(ID, tssLib, chains.EdDSAEd25519)
}

// Keygen makes this party's share of a new key.
func (Engine) Keygen(ctx context.Context, s mpc.Session, p mpc.KeygenParams) (body, pub []byte, err error) {
	defer recovered(&err)
	if p.Committee.Scheme != chains.EdDSAEd25519 {
		return nil, nil, fmt.Errorf("frost has no scheme %q", p.Committee.Scheme)
	}
	return keygen(ctx, s, p)
}

// Reshare takes part in moving a key to another committee.
func (Engine) Reshare(ctx context.Context, s mpc.Session, p mpc.ReshareParams) (body, pub []byte, err error) {
	defer recovered(&err)
	if p.From.Scheme != chains.EdDSAEd25519 || p.To.Scheme != chains.EdDSAEd25519 {
		return nil, nil, fmt.Errorf("frost has no scheme %q", p.From.Scheme)
	}
	return reshare(ctx, s, p)
}

// Sign takes part in a signature.
func (Engine) Sign(ctx context.Context, s mpc.Session, p mpc.SignParams) (sig []byte, err error) {
	defer recovered(&err)
	if p.Committee.Scheme != chains.EdDSAEd25519 {
		return nil, fmt.Errorf("frost has no scheme %q", p.Committee.Scheme)
	}
	return sign(ctx, s, p)
}

// recovered turns a panic, as in the caller's release check, into an error that
// blames nobody.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: engine crashed: %v", mpc.ErrProtocol, r)
	}
}
