package gg18

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/common"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/tss"
)

// What tss-lib v2.0.2 does not check about a peer's message, or checks where no
// recover reaches: many of its verifiers run in goroutines of their own, and a
// panic there ends the process. Each message is parsed and looked at here before
// the library sees it. The rules:
//
//   - numbers are in canonical bytes, inside the group they belong to, and neither
//     0 nor 1;
//   - exponents of range proofs are at most what an honest prover can reach;
//   - points are on the curve with reduced coordinates; scalars are in 1 to q-1,
//     because the library panics when it multiplies by a multiple of q;
//   - openings have the right number of parts and open what was committed to;
//   - moduli have exactly 2048 bits, are odd, composite, without small factors
//     and without a factor in common with another one.
//
// The MtA exponents' bounds are those of GG18 appendix A (and of Canetti et al.
// 2021): with them an exponent tells nothing about a modulus.

// errEarly says that a message can't be judged before another one of its sender
// has come: it is held back.
var errEarly = errors.New("an earlier message is missing")

// guard is what one party checks in one ceremony.
type guard struct {
	// received refuses a message; nil takes all.
	received func(from *tss.PartyID, c tss.MessageContent) error
	// sent is told of the party's own messages; nil for none.
	sent func(c tss.MessageContent)
}

// numbers collects the first thing that is wrong with a message.
type numbers struct{ err error }

func (n *numbers) fail(format string, args ...any) {
	if n.err == nil {
		n.err = fmt.Errorf(format, args...)
	}
}

// canonical reads a positive number without leading zero bytes.
func (n *numbers) canonical(what string, b []byte) *big.Int {
	if len(b) == 0 || b[0] == 0 {
		n.fail("%s is not in canonical form", what)
	}
	return new(big.Int).SetBytes(b)
}

// inside wants 1 < x < m.
func (n *numbers) inside(what string, b []byte, m *big.Int) *big.Int {
	x := n.canonical(what, b)
	if !inside(x, m) {
		n.fail("%s is out of range", what)
	}
	return x
}

// unit wants 1 < x < m without a factor of root, whose multiple m is.
func (n *numbers) unit(what string, b []byte, m, root *big.Int) *big.Int {
	x := n.inside(what, b, m)
	if n.err == nil && new(big.Int).GCD(nil, nil, x, root).Cmp(one) != 0 {
		n.fail("%s is not of its group", what)
	}
	return x
}

// upTo wants 0 < x ≤ limit.
func (n *numbers) upTo(what string, b []byte, limit *big.Int) *big.Int {
	x := n.canonical(what, b)
	if x.Cmp(limit) > 0 {
		n.fail("%s is larger than an honest party's", what)
	}
	return x
}

// scalar wants 0 < x < q.
func (n *numbers) scalar(what string, b []byte, ec elliptic.Curve) *big.Int {
	x := n.canonical(what, b)
	if x.Cmp(ec.Params().N) >= 0 {
		n.fail("%s is out of range", what)
	}
	return x
}

// point wants affine coordinates on the curve, below p.
func (n *numbers) point(what string, ec elliptic.Curve, xb, yb []byte) {
	x, y := n.canonical(what, xb), n.canonical(what, yb)
	_, err := crypto.NewECPoint(ec, x, y)
	if p := ec.Params().P; x.Cmp(p) >= 0 || y.Cmp(p) >= 0 || err != nil {
		n.fail("%s is not on the curve", what)
	}
}

// points wants an opening: randomness, then count points.
func (n *numbers) points(what string, ec elliptic.Curve, parts [][]byte, count int) {
	if len(parts) != 1+2*count {
		n.fail("%s has %d parts, want %d", what, len(parts), 1+2*count)
		return
	}
	n.hash(what, parts[0])
	for i := range count {
		n.point(what, ec, parts[1+2*i], parts[2+2*i])
	}
}

// hash wants up to 256 bits.
func (n *numbers) hash(what string, b []byte) {
	if n.canonical(what, b); len(b) > 32 {
		n.fail("%s has %d bytes, want at most 32", what, len(b))
	}
}

// list wants a number of parts.
func (n *numbers) list(what string, parts [][]byte, count int) bool {
	if len(parts) != count {
		n.fail("%s has %d parts, want %d", what, len(parts), count)
		return false
	}
	return true
}

// pledges matches each sender's opening with its commitment, whichever comes first.
type pledges map[string]*pledge

type pledge struct {
	commitment []byte
	opening    [][]byte
}

func (p pledges) of(from *tss.PartyID, step string) *pledge {
	k := string(from.Key) + step
	if p[k] == nil {
		p[k] = new(pledge)
	}
	return p[k]
}

func (p pledges) commit(from *tss.PartyID, step string, c []byte) error {
	one := p.of(from, step)
	one.commitment = bytes.Clone(c)
	return one.check()
}

func (p pledges) open(from *tss.PartyID, step string, parts [][]byte) error {
	one := p.of(from, step)
	one.opening = parts
	return one.check()
}

func (p *pledge) check() error {
	if p.commitment == nil || p.opening == nil {
		return nil
	}
	hash := common.SHA512_256i(common.MultiBytesToBigInts(p.opening)...)
	if hash.Cmp(new(big.Int).SetBytes(p.commitment)) != 0 {
		return errors.New("opening is not what was committed to")
	}
	return nil
}

// limits are the largest exponents that honest provers of range proofs reach.
type limits struct{ q, q3, q7 *big.Int }

func limitsOf(ec elliptic.Curve) limits {
	q := ec.Params().N
	q3 := new(big.Int).Exp(q, big.NewInt(3), nil)
	return limits{q, q3, new(big.Int).Exp(q, big.NewInt(7), nil)}
}

// masked is the limit of e·x + y with e < q, x < q·m, y < q³·m.
func (l limits) masked(m *big.Int) *big.Int {
	q2 := new(big.Int).Mul(l.q, l.q)
	return q2.Mul(q2.Add(q2, l.q3), m)
}

// smallPrimes is the product of the odd primes below 2000.
var smallPrimes = func() *big.Int {
	product := big.NewInt(1)
	for p := int64(3); p < 2000; p += 2 {
		if x := big.NewInt(p); x.ProbablyPrime(0) {
			product.Mul(product, x)
		}
	}
	return product
}()

// modulus wants an RSA-like modulus that shares no factor with those seen before,
// and remembers it.
func (n *numbers) modulus(what string, b []byte, seen *[]*big.Int) *big.Int {
	m := n.canonical(what, b)
	switch {
	case n.err != nil:
	case !isModulus(m):
		n.fail("%s has %d bits or is even, want an odd one of %d", what, m.BitLen(), modulusBits)
	case new(big.Int).GCD(nil, nil, m, smallPrimes).Cmp(one) != 0:
		n.fail("%s has a small factor", what)
	case m.ProbablyPrime(1):
		n.fail("%s is prime", what)
	default:
		for _, o := range *seen {
			if new(big.Int).GCD(nil, nil, m, o).Cmp(one) != 0 {
				n.fail("%s has a factor in common with another modulus", what)
			}
		}
		*seen = append(*seen, m)
	}
	return m
}
