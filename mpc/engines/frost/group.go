package frost

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"filippo.io/edwards25519"

	"github.com/sigild/sigild/mpc"
)

type (
	scalar = edwards25519.Scalar
	point  = edwards25519.Point
)

var (
	zero = edwards25519.NewScalar()
	one  = mustScalar(1)
	// minusOne is L-1: L-1 times a point is its negative in the prime-order group only.
	minusOne = new(scalar).Negate(one)
	identity = edwards25519.NewIdentityPoint()
)

func mustScalar(n byte) *scalar {
	s, err := new(scalar).SetCanonicalBytes(append([]byte{n}, make([]byte, 31)...))
	if err != nil {
		panic(err)
	}
	return s
}

// decodeScalar takes 32 canonical bytes, little-endian, of a secret or a public
// scalar, in constant time.
func decodeScalar(b []byte) (*scalar, error) {
	if len(b) != 32 {
		return nil, errors.New("scalar has not 32 bytes")
	}
	var wide [64]byte
	defer clear(wide[:])
	copy(wide[:], b)
	s, err := new(scalar).SetUniformBytes(wide[:])
	if err != nil {
		return nil, err
	}
	reduced := s.Bytes()
	defer clear(reduced)
	if subtle.ConstantTimeCompare(reduced, b) != 1 {
		return nil, errors.New("scalar is not canonical")
	}
	return s, nil
}

// decodePoint is DeserializeElement of RFC 9591 §6.1: canonical, not the identity,
// in the prime-order group.
func decodePoint(b []byte) (*point, error) {
	p, err := storedPoint(b)
	if err == nil && new(point).VarTimeDoubleScalarBaseMult(minusOne, p, zero).Equal(new(point).Negate(p)) != 1 {
		return nil, errors.New("point is not in the prime-order group")
	}
	return p, err
}

// storedPoint is the same for a point that was in the prime-order group when it
// was sealed: looking again would cost as much as a signature.
func storedPoint(b []byte) (*point, error) {
	p, err := new(point).SetBytes(b)
	switch {
	case err != nil:
		return nil, errors.New("point is not on the curve")
	case string(p.Bytes()) != string(b): // SetBytes takes some encodings that are not canonical
		return nil, errors.New("point is not canonical")
	case p.Equal(identity) == 1:
		return nil, errors.New("point is the identity")
	}
	return p, nil
}

// randomScalar is uniform and not zero.
func randomScalar() *scalar {
	var wide [64]byte
	defer clear(wide[:])
	for {
		rand.Read(wide[:]) // never fails, see crypto/rand
		s, err := new(scalar).SetUniformBytes(wide[:])
		if err == nil && s.Equal(zero) == 0 {
			return s
		}
	}
}

func wipe(ss ...*scalar) {
	for _, s := range ss {
		if s != nil {
			s.Set(zero)
		}
	}
}

// identifier is the x coordinate of a member's share.
func identifier(m mpc.Member) *scalar {
	h := m.Hash()
	var wide [64]byte
	copy(wide[:], h[:])
	slices.Reverse(wide[:32]) // the hash is read big-endian
	s, err := new(scalar).SetUniformBytes(wide[:])
	if err != nil {
		panic(err) // 64 bytes are always taken
	}
	return s
}

// identifiers of distinct members. One that is zero or taken would give the secret away.
func identifiers(ms []mpc.Member) ([]*scalar, error) {
	ids := make([]*scalar, len(ms))
	for i, m := range ms {
		ids[i] = identifier(m)
		taken := func(o *scalar) bool { return o.Equal(ids[i]) == 1 }
		if ids[i].Equal(zero) == 1 || slices.ContainsFunc(ids[:i], taken) {
			return nil, fmt.Errorf("identifier of %s is zero or taken", m)
		}
	}
	return ids, nil
}

// compareScalars orders public scalars as numbers.
func compareScalars(a, b *scalar) int {
	x, y := a.Bytes(), b.Bytes()
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}

// lagrange returns the coefficient of ids[i] that interpolates at x from all ids.
func lagrange(ids []*scalar, i int, x *scalar) *scalar {
	num, den := new(scalar).Set(one), new(scalar).Set(one)
	d := new(scalar)
	for j, id := range ids {
		if j != i {
			num.Multiply(num, d.Subtract(x, id))
			den.Multiply(den, d.Subtract(ids[i], id))
		}
	}
	return num.Multiply(num, den.Invert(den))
}

// interpolate evaluates in the exponent: the point at x of the polynomial through points.
func interpolate(ids []*scalar, points []*point, x *scalar) *point {
	l := make([]*scalar, len(ids))
	for i := range ids {
		l[i] = lagrange(ids, i, x)
	}
	return new(point).VarTimeMultiScalarMult(l, points)
}

// polynomial has secret coefficients, the constant one first.
type polynomial []*scalar

// newPolynomial draws a polynomial with n coefficients and takes over its constant.
func newPolynomial(constant *scalar, n int) polynomial {
	f := polynomial{constant}
	for len(f) < n {
		f = append(f, randomScalar())
	}
	return f
}

// at evaluates with Horner's rule.
func (f polynomial) at(x *scalar) *scalar {
	y := new(scalar).Set(f[len(f)-1])
	for i := len(f) - 2; i >= 0; i-- {
		y.MultiplyAdd(y, x, f[i])
	}
	return y
}

func (f polynomial) wipe() { wipe(f...) }

// commit returns Feldman's commitments: each coefficient times the generator.
func (f polynomial) commit() commitments {
	c := make(commitments, len(f))
	for i, a := range f {
		c[i] = new(point).ScalarBaseMult(a)
	}
	return c
}

// commitments to a polynomial, the constant one first.
type commitments []*point

// at is the polynomial's value at x, times the generator.
func (c commitments) at(x *scalar) *point {
	y := new(point).Set(c[len(c)-1])
	for i := len(c) - 2; i >= 0; i-- {
		y = new(point).VarTimeMultiScalarMult([]*scalar{x, one}, []*point{y, c[i]})
	}
	return y
}

// sumAt adds up what several polynomials have at x.
func sumAt(all []commitments, x *scalar) *point {
	sum := edwards25519.NewIdentityPoint()
	for _, c := range all {
		sum.Add(sum, c.at(x))
	}
	return sum
}
