package mpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sigild/sigild/chains"
)

// Deadlines of a ceremony whose context has none, and of one round in it. A
// round of an ECDSA keygen computes for several seconds on a slow core.
const (
	makeDeadline = 10 * time.Minute
	makeRound    = 2 * time.Minute
)

// KeygenRequest asks for a new key.
type KeygenRequest struct {
	// SetID names the new set and must be unique for ever.
	SetID  string
	Scheme Scheme
	// Parties are 2 to 4 distinct names, in any order.
	Parties []Party
	// Threshold is how many are needed, at least 2.
	Threshold int
	// PreParams is called once per party when the scheme is ECDSA; nil generates
	// them on the spot. A [Pool]'s Take fits.
	PreParams func(context.Context) (*PreParams, error)
	// Progress, if not nil, is told of each step: stage is "pre-parameters",
	// "rounds" or "test signatures". Calls do not overlap.
	Progress func(stage string, done, total int)
	// With is a session with another process that plays some of the parties; nil when
	// all are here. What both agreed on must be what is asked for here.
	With *Joint
}

// Keygen makes a key that is never whole: each party draws its own part. Before
// it returns, every quorum of the new set has signed a test input. The caller
// seals the shares and destroys them. A secp256k1 key gets a chain code, which is in
// each share: many addresses can be derived from it (BIP-32). With another process
// it returns the shares of the parties that are here. Errors are *[Error].
//
// An ECDSA keygen of three parties takes about 15 s of CPU besides its
// pre-parameters. Cancellation takes effect between two steps of a party, which
// can last some seconds.
func Keygen(ctx context.Context, r KeygenRequest) (ShareSet, []*Share, error) {
	set, shares, err := keygen(ctx, r)
	if err != nil {
		return ShareSet{}, nil, failed("keygen", err, false)
	}
	return set, shares, nil
}

func keygen(ctx context.Context, r KeygenRequest) (ShareSet, []*Share, error) {
	engineID, engine, err := engineFor(r.Scheme)
	if err != nil {
		return ShareSet{}, nil, err
	}
	set := ShareSet{ID: r.SetID, Scheme: r.Scheme, Parties: slices.Sorted(slices.Values(r.Parties)),
		Threshold: r.Threshold, Epoch: 1, Engine: engineID}
	if err := errors.Join(checkID(set.ID), checkParties(set.Parties, set.Threshold)); err != nil {
		return ShareSet{}, nil, err
	}
	if err := r.With.agreed(OpKeygen, engineID, ShareSet{}, nil, set); err != nil {
		return ShareSet{}, nil, err
	}
	ctx, cancel := withDefault(ctx, makeDeadline)
	defer cancel()
	here := r.With.partiesHere(set)
	pre, err := takePreParams(ctx, r.Scheme, len(here), r.PreParams, r.Progress)
	if err != nil {
		return ShareSet{}, nil, err
	}
	defer destroyPreParams(pre)

	c := set.committee()
	chainCode, err := makeChainCode(ctx, c, r.With)
	if err != nil {
		return ShareSet{}, nil, err
	}
	rounds := &roundProgress{report: r.Progress}
	made, err := runMakers(ctx, ceremony{op: "keygen", engine: engineID, sets: []Committee{c}, members: c.Members(), round: makeRound, maxPayload: maxMakePayload, joint: r.With},
		func(ctx context.Context, s Session, _ int, m Member) ([]byte, []byte, error) {
			return engine.Keygen(ctx, s, KeygenParams{Self: m.Party, Committee: c, PreParams: pre[slices.Index(here, m.Party)], Round: rounds.enter})
		})
	if err != nil {
		return ShareSet{}, nil, err
	}
	set.PublicKey = made[slices.Index(set.Parties, here[0])].publicKey
	return finish(ctx, set, chainCode, made, r.With, r.Progress)
}

// made is what a maker of a share returned.
type made struct {
	body, publicKey []byte
}

// runMakers runs a keygen or reshare and returns what the members made, in their
// order, after checking that all agree on one public key. Members of another process
// have nothing.
func runMakers(ctx context.Context, c ceremony, part func(context.Context, Session, int, Member) (body, pub []byte, err error)) (_ []made, err error) {
	out := make([]made, len(c.members))
	defer func() {
		if err != nil {
			for _, m := range out {
				clear(m.body)
			}
		}
	}()
	_, err = c.run(ctx, func(ctx context.Context, s Session, i int) error {
		var err error
		out[i].body, out[i].publicKey, err = part(ctx, s, i, c.members[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	first := slices.IndexFunc(c.members, c.plays)
	for i, m := range out {
		if c.plays(c.members[i]) && !bytes.Equal(m.publicKey, out[first].publicKey) {
			return nil, &Blame{[]Member{c.members[i]}, fmt.Errorf("%w: %s has another public key", ErrProtocol, c.members[i])}
		}
	}
	return out, nil
}

// finish wraps the bodies of a complete set, wipes them, and has every quorum
// sign a test input. made is in the order of set.Parties; another process does the
// same with its own.
func finish(ctx context.Context, set ShareSet, chainCode []byte, bodies []made, joint *Joint, progress func(string, int, int)) (_ ShareSet, _ []*Share, err error) {
	var shares []*Share
	defer func() {
		for _, m := range bodies {
			clear(m.body)
		}
		if err != nil {
			destroyAll(shares)
		}
	}()
	if err := set.Validate(); err != nil {
		return ShareSet{}, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	here := joint.partiesHere(set)
	for i, p := range set.Parties {
		if !slices.Contains(here, p) {
			continue
		}
		s, err := newShare(opened{set, p, chainCode, bodies[i].body})
		if err != nil {
			return ShareSet{}, nil, err
		}
		shares = append(shares, s)
	}
	if joint != nil {
		if err := joint.agree(ctx, "new set", describe(set, chainCode)); err != nil {
			return ShareSet{}, nil, err
		}
	}
	all := quorums(set.Parties, set.Threshold)
	for i, q := range all {
		if progress != nil {
			progress("test signatures", i, len(all))
		}
		if err := testSign(ctx, set, shares, q, joint); err != nil {
			return ShareSet{}, nil, fmt.Errorf("test-signing with %v: %w", q, err)
		}
	}
	if progress != nil {
		progress("test signatures", len(all), len(all))
	}
	return set, shares, nil
}

// testSign has a quorum sign; one whose parties are all elsewhere signs there.
func testSign(ctx context.Context, set ShareSet, shares []*Share, quorum []Party, joint *Joint) error {
	req := SignRequest{Set: set, Input: testInput(set.Scheme)}
	elsewhere := joint.notHere(set, quorum)
	if len(elsewhere) == len(quorum) {
		return nil
	}
	if len(elsewhere) > 0 {
		req.With = joint
	}
	return lendAll(shares, quorum, nil, func(encoded [][]byte) error {
		req.Shares = encoded
		_, sent, err := signWith(ctx, req, elsewhere)
		if err != nil {
			return failed(OpSign, err, sent)
		}
		return nil
	})
}

// lendAll lends the shares of the named parties at once.
func lendAll(shares []*Share, parties []Party, lent [][]byte, use func([][]byte) error) error {
	for i, s := range shares {
		if slices.Contains(parties, s.Party()) {
			return s.Lend(func(b []byte) error { return lendAll(shares[i+1:], parties, append(lent, b), use) })
		}
	}
	return use(lent)
}

// testDomain starts with 0xff, which no Solana message can: a legacy message
// would announce 255 signatures and a versioned one version 127.
const testDomain = "\xffsigild/mpc/test-signature/v1: not a transaction"

// testInput is what new sets sign to prove themselves. It can't be a
// transaction: for Ed25519 see testDomain; for secp256k1 the digest is the
// SHA-256 of the same text, and a transaction whose Keccak-256 or double SHA-256
// hits it would be a second preimage. The signatures are thrown away.
func testInput(s Scheme) chains.SignInput {
	if s == chains.EdDSAEd25519 {
		return chains.SignInput{Scheme: s, Message: []byte(testDomain)}
	}
	return chains.SignInput{Scheme: s, Digest: testDigest}
}

// takePreParams gets one set of pre-parameters for each of n parties, or nils
// when the scheme needs none.
func takePreParams(ctx context.Context, s Scheme, n int, take func(context.Context) (*PreParams, error), progress func(string, int, int)) (_ []*PreParams, err error) {
	pre := make([]*PreParams, n)
	if s != chains.ECDSASecp256k1 {
		return pre, nil
	}
	if take == nil {
		take = GeneratePreParams
	}
	defer func() {
		if err != nil {
			destroyPreParams(pre)
		}
	}()
	for i := range pre {
		if progress != nil {
			progress("pre-parameters", i, n)
		}
		if pre[i], err = take(ctx); err != nil {
			return nil, fmt.Errorf("getting pre-parameters: %w", err)
		}
		for _, earlier := range pre[:i] {
			if earlier.sharesPrime(pre[i]) {
				return nil, errors.New("getting pre-parameters: two parties got the same primes")
			}
		}
	}
	if progress != nil {
		progress("pre-parameters", n, n)
	}
	return pre, nil
}

func destroyPreParams(pre []*PreParams) {
	for _, p := range pre {
		if p != nil {
			p.Destroy()
		}
	}
}

// roundProgress reports a round once, when the first party enters it.
type roundProgress struct {
	report func(string, int, int)
	mu     sync.Mutex
	last   int
}

func (p *roundProgress) enter(round, rounds int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.report != nil && round > p.last {
		p.last = round
		p.report("rounds", round, rounds)
	}
}

func withDefault(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
