package frost

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/mpc"
)

// The messages of a reshare from a quorum of one set to a new set with threshold
// t, after the version byte:
//
//	frost/reshare/1   t commitments                                     32·t bytes, old to all
//	frost/reshare/2   the receiver's share of the sender's polynomial   32 bytes, secret, old to new
//	frost/reshare/3   SHA-256 of all of round 1                         32 bytes, new to all
//
// Each old member shares its own share, weighted for the quorum. Old members know
// what the first commitment of each other must be; new members know what they must
// add up to, the pinned key. (Desmedt and Jajodia 1997.)
const (
	kindReshareOpen  = "frost/reshare/1"
	kindReshareShare = "frost/reshare/2"
	kindReshareEcho  = "frost/reshare/3"
	reshareRounds    = 3
)

func reshare(ctx context.Context, session mpc.Session, p mpc.ReshareParams) (body, pub []byte, err error) {
	if len(p.Quorum) < p.From.Threshold {
		return nil, nil, errors.New("quorum is below the threshold")
	}
	r := &resharing{p: p, from: (*share)(nil).members(p.From, p.Quorum), to: p.To.Members()}
	r.all = slices.Concat(r.from, r.to)
	if _, err := identifiers(r.all); err != nil {
		return nil, nil, err // disjoint committees, too
	}
	if r.ids, err = identifiers(r.to); err != nil {
		return nil, nil, err
	}
	if !slices.Contains(r.all, p.Self) {
		return nil, nil, fmt.Errorf("%s takes no part", p.Self)
	}
	r.x = mpc.NewExchange(session, p.Self, map[string][]mpc.Member{kindReshareOpen: r.from, kindReshareShare: r.from, kindReshareEcho: r.to})
	if slices.Contains(r.from, p.Self) {
		return nil, p.PublicKey, r.give(ctx)
	}
	return r.take(ctx)
}

// resharing is one member's part in a reshare.
type resharing struct {
	p mpc.ReshareParams
	x *mpc.Exchange
	// from are the old members that take part, to the new ones, all both.
	from, to, all []mpc.Member
	// ids are those of to.
	ids []*scalar
}

func (r *resharing) entered(round int) {
	if r.p.Round != nil {
		r.p.Round(round, reshareRounds)
	}
}

// give is the part of an old member.
func (r *resharing) give(ctx context.Context) error {
	sh, err := decodeBody(r.p.Body, r.p.From, r.p.Self.Party, r.p.PublicKey)
	if err != nil {
		return err
	}
	defer sh.wipe()
	old, err := identifiers(r.from)
	if err != nil {
		return err
	}

	// Round 1: commit to a polynomial whose constant is the weighted share.
	weight := func(m mpc.Member) *scalar { return lagrange(old, slices.Index(r.from, m), zero) }
	f := newPolynomial(new(scalar).Multiply(weight(r.p.Self), sh.secret), r.p.To.Threshold)
	defer f.wipe()
	var own []byte
	for _, c := range f.commit() {
		own = append(own, c.Bytes()...)
	}
	r.entered(1)
	if err := r.x.Broadcast(ctx, kindReshareOpen, r.all, own, false); err != nil {
		return err
	}
	polynomials, digest, err := r.openings(ctx, own)
	if err != nil {
		return err
	}
	for i, m := range r.from {
		want := new(point).VarTimeMultiScalarMult([]*scalar{weight(m)}, []*point{sh.publics[m]})
		if polynomials[i][0].Equal(want) != 1 {
			return mpc.Accuse(m, "commitments to something else than its share")
		}
	}

	// Round 2: give each new member its share.
	r.entered(2)
	for i, m := range r.to {
		y := f.at(r.ids[i])
		err := r.x.Secretly(ctx, kindReshareShare, m, y.Bytes())
		if wipe(y); err != nil {
			return err
		}
	}

	// Round 3: all new members heard what we heard.
	echoes, err := r.x.Collect(ctx, kindReshareEcho, sha256.Size)
	if err != nil {
		return err
	}
	return checkEcho(r.all, r.to, echoes, digest)
}

// take is the part of a new member.
func (r *resharing) take(ctx context.Context) (body, pub []byte, err error) {
	// Round 1: what the old members commit to must add up to the key.
	polynomials, digest, err := r.openings(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	if key := sumAt(polynomials, zero).Bytes(); string(key) != string(r.p.PublicKey) {
		return nil, nil, fmt.Errorf("%w: the commitments are to another key", mpc.ErrProtocol)
	}

	// Round 2: the shares must fit the commitments.
	shares, err := r.x.Collect(ctx, kindReshareShare, 32)
	if err != nil {
		return nil, nil, err
	}
	secret, err := addShares(r.from, r.p.Self, polynomials, nil, shares)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(secret)

	// Round 3: compare what was heard.
	r.entered(3)
	if err := r.x.Broadcast(ctx, kindReshareEcho, r.all, digest, false); err != nil {
		return nil, nil, err
	}
	echoes, err := r.x.Collect(ctx, kindReshareEcho, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	if err := checkEcho(r.all, without(r.to, r.p.Self), echoes, digest); err != nil {
		return nil, nil, err
	}
	return assemble(r.p.To, r.p.Self.Party, r.ids, polynomials, secret, slices.Clone(r.p.PublicKey))
}

// openings collects round 1, in the order of the old members, with a digest of it.
func (r *resharing) openings(ctx context.Context, own []byte) ([]commitments, []byte, error) {
	got, err := r.x.Collect(ctx, kindReshareOpen, 32*r.p.To.Threshold)
	if err != nil {
		return nil, nil, err
	}
	if own != nil {
		got[r.p.Self] = own
	}
	seen := sha256.New()
	all := make([]commitments, len(r.from))
	for i, m := range r.from {
		seen.Write(got[m])
		for b := range slices.Chunk(got[m], 32) {
			c, err := decodePoint(b)
			if err != nil {
				return nil, nil, mpc.Accuse(m, "a bad commitment: %w", err)
			}
			all[i] = append(all[i], c)
		}
	}
	return all, seen.Sum(nil), nil
}
