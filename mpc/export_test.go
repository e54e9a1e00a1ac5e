package mpc

import (
	"bytes"
	"context"

	"github.com/sigild/sigild/chains"
)

// Outcome is how one party's part of a simulated signature ended.
type Outcome struct {
	Party     Party
	Signature []byte
	Err       error
}

// Simulate runs a signature over a network that relay plays. Each party goes on to
// its own end: nobody hears of another's failure.
func Simulate(ctx context.Context, engine Engine, set ShareSet, shares [][]byte, in chains.SignInput, relay func(e Envelope, to Member, deliver func(Envelope))) ([]Outcome, error) {
	q, err := openShares(set, shares)
	if err != nil {
		return nil, err
	}
	com := set.committee()
	c := ceremony{op: "sign", engine: set.Engine, sets: []Committee{com}, members: com.members(q.parties), digest: inputDigest(in),
		round: signRound, maxPayload: maxSignPayload, testOnlyRelay: relay}
	out := make([]Outcome, len(q.parties))
	_, err = c.run(ctx, func(ctx context.Context, s Session, i int) error {
		own := in
		own.Message = bytes.Clone(in.Message)
		sig, err := engine.Sign(ctx, s, SignParams{Self: q.parties[i], Committee: com, Quorum: q.parties,
			PublicKey: set.PublicKey, Body: q.bodies[q.parties[i]], Input: own})
		out[i] = Outcome{q.parties[i], sig, err}
		return nil
	})
	return out, err
}

// Verify says whether an engine's signature is one.
func Verify(set ShareSet, in chains.SignInput, raw []byte) error {
	sig, err := parseSignature(set.Scheme, raw)
	if err != nil {
		return err
	}
	return verify(set.PublicKey, in, sig)
}

// SignDeadline is when a signature has ended, one way or another.
const SignDeadline = signDeadline

// Made is how one member's part of a simulated keygen or reshare ended.
type Made struct {
	Member
	Body, PublicKey []byte
	Err             error
}

// SimulateMake runs a keygen of to, or, when from is not nil, a reshare of it to to,
// over a network that relay plays. Each member goes on to its own end. pre are for the
// members of to.
func SimulateMake(ctx context.Context, engine Engine, from *ShareSet, shares [][]byte, to Committee, pre []*PreParams, relay func(e Envelope, to Member, deliver func(Envelope))) ([]Made, error) {
	c := ceremony{op: "simulation", sets: []Committee{to}, members: to.Members(), round: makeRound, maxPayload: maxMakePayload, testOnlyRelay: relay}
	var q lentQuorum
	if from != nil {
		var err error
		if q, err = openShares(*from, shares); err != nil {
			return nil, err
		}
		c.members = append(from.committee().members(q.parties), c.members...)
	}
	old := len(q.parties)
	out := make([]Made, len(c.members))
	_, err := c.run(ctx, func(ctx context.Context, s Session, i int) error {
		m := Made{Member: c.members[i]}
		var own *PreParams
		if i >= old && pre != nil {
			own = pre[i-old]
		}
		if from == nil {
			m.Body, m.PublicKey, m.Err = engine.Keygen(ctx, s, KeygenParams{Self: m.Party, Committee: to, PreParams: own})
		} else {
			p := ReshareParams{Self: m.Member, From: from.committee(), Quorum: q.parties, To: to, PublicKey: from.PublicKey, PreParams: own}
			if i < old {
				p.Body = q.bodies[m.Party]
			}
			m.Body, m.PublicKey, m.Err = engine.Reshare(ctx, s, p)
		}
		out[i] = m
		return nil
	})
	return out, err
}

// SignWithBodies signs a test with the first Threshold members' bodies of a new set.
func SignWithBodies(ctx context.Context, set ShareSet, made []Made) error {
	var shares []*Share
	defer func() { destroyAll(shares) }()
	for _, m := range made {
		sh, err := newShare(opened{set, m.Party, nil, m.Body})
		if err != nil {
			return err
		}
		shares = append(shares, sh)
	}
	return testSign(ctx, set, shares, set.Parties[:set.Threshold], nil)
}

// MakeDeadline is when a keygen or reshare has ended, one way or another.
const MakeDeadline = makeDeadline
