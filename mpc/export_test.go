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
