package frost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"filippo.io/edwards25519"

	"github.com/sigild/sigild/mpc"
)

// The messages of a keygen among n parties with threshold t, after the version byte:
//
//	frost/keygen/1   SHA-256 of the opening, with session and sender   32 bytes, to all
//	frost/keygen/2   opening: t commitments ‖ proof R ‖ proof z        32·t + 64 bytes, to all
//	frost/keygen/3   the receiver's share of the sender's polynomial   32 bytes, secret
//	frost/keygen/4   SHA-256 of all of rounds 1 and 2                  32 bytes, to all
//
// Round 1 keeps the last to speak from choosing the key; the proof of knowledge of
// the constant coefficient (Schnorr, as in FROST 2020, figure 1) keeps it from
// cancelling the others'. Shares are sent when every opening has been checked. The
// last round shows whether all were told the same.
const (
	kindKeygenHash  = "frost/keygen/1"
	kindKeygenOpen  = "frost/keygen/2"
	kindKeygenShare = "frost/keygen/3"
	kindKeygenEcho  = "frost/keygen/4"
	keygenRounds    = 4
)

func keygen(ctx context.Context, session mpc.Session, p mpc.KeygenParams) (body, pub []byte, err error) {
	all := p.Committee.Members()
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	ids, err := identifiers(all)
	if err != nil {
		return nil, nil, err
	}
	x := mpc.NewExchange(session, self, map[string][]mpc.Member{kindKeygenHash: all, kindKeygenOpen: all, kindKeygenShare: all, kindKeygenEcho: all})
	entered := func(round int) {
		if p.Round != nil {
			p.Round(round, keygenRounds)
		}
	}

	// Round 1: draw a polynomial, and bind to it.
	f := newPolynomial(randomScalar(), p.Committee.Threshold)
	defer f.wipe()
	opening := open(session.ID(), self, f)
	entered(1)
	if err := x.Broadcast(ctx, kindKeygenHash, all, openingHash(session.ID(), self, opening), false); err != nil {
		return nil, nil, err
	}
	hashes, err := x.Collect(ctx, kindKeygenHash, sha256.Size)
	if err != nil {
		return nil, nil, err
	}

	// Round 2: open.
	entered(2)
	if err := x.Broadcast(ctx, kindKeygenOpen, all, opening, false); err != nil {
		return nil, nil, err
	}
	openings, err := x.Collect(ctx, kindKeygenOpen, len(opening))
	if err != nil {
		return nil, nil, err
	}
	openings[self] = opening
	seen := sha256.New()
	polynomials := make([]commitments, len(all))
	for i, m := range all {
		if m != self && !bytes.Equal(openingHash(session.ID(), m, openings[m]), hashes[m]) {
			return nil, nil, mpc.Accuse(m, "an opening that is not what it was bound to")
		}
		if polynomials[i], err = readOpening(session.ID(), m, openings[m]); err != nil {
			return nil, nil, mpc.Accuse(m, "a bad opening: %w", err)
		}
		seen.Write(openings[m])
	}

	// Round 3: give each its share.
	entered(3)
	for i, m := range all {
		if m != self {
			y := f.at(ids[i])
			err := x.Secretly(ctx, kindKeygenShare, m, y.Bytes())
			if wipe(y); err != nil {
				return nil, nil, err
			}
		}
	}
	shares, err := x.Collect(ctx, kindKeygenShare, 32)
	if err != nil {
		return nil, nil, err
	}
	secret, err := addShares(all, self, polynomials, f, shares)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(secret)

	// Round 4: compare what was heard.
	entered(4)
	digest := seen.Sum(nil)
	if err := x.Broadcast(ctx, kindKeygenEcho, all, digest, false); err != nil {
		return nil, nil, err
	}
	echoes, err := x.Collect(ctx, kindKeygenEcho, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	if err := checkEcho(all, without(all, self), echoes, digest); err != nil {
		return nil, nil, err
	}
	return assemble(p.Committee, p.Self, ids, polynomials, secret, sumAt(polynomials, zero).Bytes())
}

// assemble makes and checks the body of a new share.
func assemble(c mpc.Committee, self mpc.Party, ids []*scalar, polynomials []commitments, secret *scalar, pub []byte) (body, public []byte, err error) {
	sh := &share{secret: secret, publics: map[mpc.Member]*point{}}
	for i, m := range c.Members() {
		sh.publics[m] = sumAt(polynomials, ids[i])
	}
	body = encodeBody(c, sh)
	checked, err := decodeBody(body, c, self, pub)
	if err != nil {
		clear(body)
		return nil, nil, fmt.Errorf("%w: the parts do not make a key: %w", mpc.ErrProtocol, err)
	}
	checked.wipe()
	return body, pub, nil
}

// addShares checks what each polynomial has for self, and adds it up. f is the
// party's own, nil for one that gave none.
func addShares(from []mpc.Member, self mpc.Member, polynomials []commitments, f polynomial, got map[mpc.Member][]byte) (*scalar, error) {
	sum, own := new(scalar), identifier(self)
	for i, m := range from {
		var y *scalar
		if m == self {
			y = f.at(own)
		} else {
			var err error
			if y, err = decodeScalar(got[m]); err != nil {
				return nil, mpc.Accuse(m, "a bad share: %w", err)
			}
			clear(got[m])
			if new(point).ScalarBaseMult(y).Equal(polynomials[i].at(own)) != 1 {
				return nil, mpc.Accuse(m, "a share that does not fit its commitments")
			}
		}
		sum.Add(sum, y)
		wipe(y)
	}
	return sum, nil
}

// open encodes the commitments to a polynomial with a proof that its constant is known.
func open(session [32]byte, m mpc.Member, f polynomial) []byte {
	var b []byte
	for _, p := range f.commit() {
		b = append(b, p.Bytes()...)
	}
	k := randomScalar()
	defer wipe(k)
	r := new(point).ScalarBaseMult(k).Bytes()
	z := new(scalar).MultiplyAdd(proofChallenge(session, m, b[:32], r), f[0], k)
	return append(append(b, r...), z.Bytes()...)
}

func readOpening(session [32]byte, m mpc.Member, b []byte) (commitments, error) {
	var c commitments
	for ; len(b) > 64; b = b[32:] {
		p, err := decodePoint(b[:32])
		if err != nil {
			return nil, err
		}
		c = append(c, p)
	}
	z, err := decodeScalar(b[32:])
	if err != nil {
		return nil, err
	}
	// z·G − c·A must be R.
	minus := new(scalar).Negate(proofChallenge(session, m, c[0].Bytes(), b[:32]))
	if !bytes.Equal(new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minus, c[0], z).Bytes(), b[:32]) {
		return nil, errors.New("the proof of knowledge does not hold")
	}
	return c, nil
}

func proofChallenge(session [32]byte, m mpc.Member, constant, r []byte) *scalar {
	h := m.Hash()
	return toScalar(sum512([]byte("sigild/frost/keygen-proof/v1"), session[:], h[:], constant, r))
}

func openingHash(session [32]byte, m mpc.Member, opening []byte) []byte {
	h, who := sha256.New(), m.Hash()
	h.Write([]byte("sigild/frost/keygen-opening/v1"))
	h.Write(session[:])
	h.Write(who[:])
	h.Write(opening)
	return h.Sum(nil)
}

func without(all []mpc.Member, self mpc.Member) []mpc.Member {
	var others []mpc.Member
	for _, m := range all {
		if m != self {
			others = append(others, m)
		}
	}
	return others
}
