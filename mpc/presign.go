package mpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sigild/sigild/chains"
)

// A presignature is most of a signature, made before anybody knows what is to be
// signed. It is good for one signature by one key at one path with one share set. Used
// for two digests it gives the key away, so there is no way to copy, store or reuse
// it: it lives in memory, [Presignature.Sign] takes it whatever comes of the call, and
// nothing can encode it.

// Presigner is an Engine that can do the part of a signature that does not depend on
// its input ahead of time.
type Presigner interface {
	// Presign runs one party's part; p.Input is empty. What is lent in p stays as it
	// was: the result has copies of its own.
	Presign(ctx context.Context, s Session, p SignParams) (Presigned, error)
}

// Presigned is one party's part of a presignature, secret.
type Presigned interface {
	// Sign does the rest over a new session and leaves nothing, also when it fails. It
	// signs once: a second call is an error.
	Sign(ctx context.Context, s Session, in chains.SignInput) (signature []byte, err error)
	// Destroy wipes it. Idempotent.
	Destroy()
}

// ErrUsed says that a presignature was used or destroyed before.
var ErrUsed = errors.New("presignature was used")

// Presignature is all parties' parts of one. It prints as "[redacted]" and can't be
// encoded. Safe for concurrent use; one caller at most signs with it.
type Presignature struct {
	secret
	// id names it: the session it was made in.
	id        [32]byte
	engine    string
	committee Committee
	quorum    []Party
	path      []uint32
	// publicKey is what its signature verifies with: of the set, or derived at path.
	publicKey []byte
	parts     []Presigned
	used      atomic.Bool
}

// PresignRequest asks for a presignature.
type PresignRequest struct {
	Set ShareSet
	// Shares are encoded shares of Set, at least its Threshold, lent for the call.
	Shares [][]byte
	// Path is as in [SignRequest]; the presignature is good for no other.
	Path []uint32
	// Background: each round waits until no other ceremony of this process runs.
	Background bool
}

// Presign makes a presignature. It takes about as long as a signature. Errors are
// *[Error]; [ErrEngine] where the set's engine has no presignatures.
func Presign(ctx context.Context, r PresignRequest) (*Presignature, error) {
	p, err := presign(ctx, r)
	if err != nil {
		return nil, failed("presign", err, false)
	}
	return p, nil
}

func presign(ctx context.Context, r PresignRequest) (_ *Presignature, err error) {
	engineID, engine, err := engineOf(r.Set.Engine, r.Set.Scheme)
	if err != nil {
		return nil, err
	}
	presigner, ok := engine.(Presigner)
	if !ok {
		return nil, fmt.Errorf("%w that presigns: %q does not", ErrEngine, engineID)
	}
	q, err := openShares(r.Set, r.Shares)
	if err != nil {
		return nil, err
	}
	child, err := derive(r.Set.PublicKey, q.chainCode, r.Path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withDefault(ctx, signDeadline)
	defer cancel()

	com := r.Set.committee()
	p := &Presignature{engine: engineID, committee: com, quorum: q.parties, path: slices.Clone(r.Path),
		publicKey: bytes.Clone(child.publicKey), parts: make([]Presigned, len(q.parties))}
	defer func() {
		if err != nil {
			p.Destroy()
		}
	}()
	c := ceremony{op: "presign", engine: engineID, sets: []Committee{com}, members: com.members(q.parties), path: r.Path,
		round: signRound, maxPayload: maxSignPayload, background: r.Background}
	_, err = c.run(ctx, func(ctx context.Context, s Session, i int) (err error) {
		if i == 0 {
			p.id = s.ID()
		}
		p.parts[i], err = presigner.Presign(ctx, s, SignParams{Self: q.parties[i], Committee: com, Quorum: q.parties,
			PublicKey: r.Set.PublicKey, Tweak: child.tweak, Body: q.bodies[q.parties[i]], Input: chains.SignInput{Scheme: r.Set.Scheme}})
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// ID names the presignature, for the journal: 64 hexadecimal digits, no secret.
func (p *Presignature) ID() string { return hex.EncodeToString(p.id[:]) }

// Sign ends the signature and takes the presignature, whatever comes of it: a second
// call is [ErrUsed]. beforeRelease is as in [SignRequest]. Nothing but the digest may
// differ from what the presignature was made for; that the digest is a hash of what
// somebody judged is the caller's to see to. Errors are *[Error].
func (p *Presignature) Sign(ctx context.Context, in chains.SignInput, beforeRelease func() error) (Signature, error) {
	sig, sent, err := p.sign(ctx, in, beforeRelease)
	if err != nil {
		return Signature{}, failed("sign", err, sent)
	}
	return sig, nil
}

func (p *Presignature) sign(ctx context.Context, in chains.SignInput, beforeRelease func() error) (_ Signature, sent bool, err error) {
	if p.used.Swap(true) {
		return Signature{}, false, ErrUsed
	}
	defer p.wipe()
	if err := checkInput(p.committee.Scheme, in); err != nil {
		return Signature{}, false, err
	}
	ctx, cancel := withDefault(ctx, signDeadline)
	defer cancel()
	// The session is bound to the presignature, beside all that a signature's is.
	c := ceremony{op: "sign/" + p.ID(), engine: p.engine, sets: []Committee{p.committee}, members: p.committee.members(p.quorum),
		digest: inputDigest(in), path: p.path, round: signRound, maxPayload: maxSignPayload, beforeRelease: beforeRelease}
	sigs := make([][]byte, len(p.parts))
	sent, err = c.run(ctx, func(ctx context.Context, s Session, i int) (err error) {
		sigs[i], err = p.parts[i].Sign(ctx, s, in)
		return err
	})
	if err != nil {
		return Signature{}, sent, err
	}
	sig, err := agreed(p.committee.Scheme, p.publicKey, in, sigs)
	return sig, sent, err
}

// Destroy wipes it. Idempotent; a Sign that runs goes on.
func (p *Presignature) Destroy() {
	if !p.used.Swap(true) {
		p.wipe()
	}
}

func (p *Presignature) wipe() {
	for _, part := range p.parts {
		if part != nil {
			part.Destroy()
		}
	}
	p.parts = nil
}

// ProvePresignatures makes one presignature with lent shares and signs a test input
// with it, as new sets do. An error means that the engine does not do what
// presignatures rely on, and that none must be used.
func ProvePresignatures(ctx context.Context, r PresignRequest) error {
	p, err := Presign(ctx, r)
	if err != nil {
		return fmt.Errorf("testing presignatures: %w", err)
	}
	defer p.Destroy()
	in := testInput(r.Set.Scheme)
	if _, err := p.Sign(ctx, in, nil); err != nil {
		return fmt.Errorf("testing presignatures: %w", err)
	}
	// What is used must be used up.
	if _, err := p.Sign(ctx, in, nil); !errors.Is(err, ErrUsed) {
		return errors.New("testing presignatures: one signed twice")
	}
	return nil
}
