package mpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// IssueRequest asks for a further set of an existing key.
type IssueRequest struct {
	// From is the set that stays live.
	From ShareSet
	// Quorum are encoded shares of From, at least its Threshold, lent for the call.
	Quorum [][]byte
	// SetID names the new set; it differs from every set there ever was.
	SetID   string
	Parties []Party
	// Threshold of the new set, at least 2.
	Threshold int
	// PreParams and Progress are as in [KeygenRequest].
	PreParams func(context.Context) (*PreParams, error)
	Progress  func(stage string, done, total int)
	// With is as in [KeygenRequest]; Quorum then has the shares of the parties here.
	With *Joint
}

// Issue reshares a key to a new committee. The set it comes from stays valid and
// the lent shares untouched; shares of the two don't combine, because party keys
// are derived from the set's id. The public key is the same, the epoch one more.
// Before it returns, every quorum of the new set has signed a test input. Nothing
// ends the old set but the destruction of its shares. Errors are *[Error].
func Issue(ctx context.Context, r IssueRequest) (ShareSet, []*Share, error) {
	return issueAs(ctx, "issue", r)
}

// Rotate is [Issue] to the same parties and threshold, whose names r leaves out. The
// caller puts the new set in the place of the old one and destroys that.
func Rotate(ctx context.Context, r IssueRequest) (ShareSet, []*Share, error) {
	r.Parties, r.Threshold = r.From.Parties, r.From.Threshold
	return issueAs(ctx, "rotate", r)
}

func issueAs(ctx context.Context, op string, r IssueRequest) (ShareSet, []*Share, error) {
	set, shares, err := issue(ctx, op, r)
	if err != nil {
		return ShareSet{}, nil, failed(op, err, false)
	}
	return set, shares, nil
}

func issue(ctx context.Context, op string, r IssueRequest) (ShareSet, []*Share, error) {
	engineID, engine, err := engineOf(r.From.Engine, r.From.Scheme)
	if err != nil {
		return ShareSet{}, nil, err
	}
	q, err := openShares(r.From, r.Quorum, r.With.elsewhere(r.From)...)
	if err != nil {
		return ShareSet{}, nil, err
	}
	if len(r.Quorum) == 0 && r.With != nil {
		q.chainCode = r.With.proposal.ChainCode // nobody here has it
	}
	set := r.From
	set.ID, set.Parties, set.Threshold = r.SetID, slices.Sorted(slices.Values(r.Parties)), r.Threshold
	set.PublicKey, set.Engine = bytes.Clone(r.From.PublicKey), engineID
	set.Epoch++
	if err := set.Validate(); err != nil {
		return ShareSet{}, nil, err
	}
	if set.ID == r.From.ID {
		return ShareSet{}, nil, errors.New("a new set needs an id of its own")
	}
	if err := r.With.agreed(op, engineID, r.From, q.here(), set); err != nil {
		return ShareSet{}, nil, err
	}
	ctx, cancel := withDefault(ctx, makeDeadline)
	defer cancel()
	return reshare(ctx, op, engine, r.From, q, set, r.With, r.PreParams, r.Progress)
}

// reshare runs the ceremony that moves a key from a quorum of one set to another
// set, and has that sign.
func reshare(ctx context.Context, op string, engine Engine, fromSet ShareSet, q lentQuorum, set ShareSet, joint *Joint, preParams func(context.Context) (*PreParams, error), progress func(string, int, int)) (ShareSet, []*Share, error) {
	here := joint.partiesHere(set)
	pre, err := takePreParams(ctx, set.Scheme, len(here), preParams, progress)
	if err != nil {
		return ShareSet{}, nil, err
	}
	defer destroyPreParams(pre)

	from, to := fromSet.committee(), set.committee()
	members := append(from.members(q.parties), to.Members()...)
	rounds := &roundProgress{report: progress}
	out, err := runMakers(ctx, ceremony{op: op, engine: set.Engine, sets: []Committee{from, to}, members: members, round: makeRound, maxPayload: maxMakePayload, joint: joint},
		func(ctx context.Context, s Session, i int, m Member) ([]byte, []byte, error) {
			p := ReshareParams{Self: m, From: from, Quorum: q.parties, To: to, PublicKey: set.PublicKey, Round: rounds.enter}
			if i < len(q.parties) {
				p.Body = q.bodies[m.Party]
			} else {
				p.PreParams = pre[slices.Index(here, m.Party)]
			}
			return engine.Reshare(ctx, s, p)
		})
	if err != nil {
		return ShareSet{}, nil, err
	}
	if first := slices.IndexFunc(members, func(m Member) bool { return joint == nil || joint.plays(m) }); !bytes.Equal(out[first].publicKey, set.PublicKey) {
		return ShareSet{}, nil, fmt.Errorf("%w: the new set has another public key", ErrProtocol)
	}
	return finish(ctx, set, q.chainCode, out[len(q.parties):], joint, progress)
}
