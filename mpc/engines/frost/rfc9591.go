package frost

import (
	"crypto/sha512"
	"errors"
	"slices"

	"filippo.io/edwards25519"
)

// This file is RFC 9591 with the ciphersuite FROST(Ed25519, SHA-512) of §6.1, for
// a message and signers that are known before the first message. It knows no
// sessions and no parties.

const contextString = "FROST-ED25519-SHA512-v1"

func sum512(parts ...[]byte) [64]byte {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	return [64]byte(h.Sum(nil))
}

func toScalar(wide [64]byte) *scalar {
	s, err := new(scalar).SetUniformBytes(wide[:])
	if err != nil {
		panic(err) // 64 bytes are always taken
	}
	clear(wide[:])
	return s
}

// The hash functions of §6.1. h2 is the challenge of RFC 8032 and has no prefix.
func h1(parts ...[]byte) *scalar  { return toScalar(prefixed("rho", parts)) }
func h2(parts ...[]byte) *scalar  { return toScalar(sum512(parts...)) }
func h3(parts ...[]byte) *scalar  { return toScalar(prefixed("nonce", parts)) }
func h4(parts ...[]byte) [64]byte { return prefixed("msg", parts) }
func h5(parts ...[]byte) [64]byte { return prefixed("com", parts) }

func prefixed(tag string, parts [][]byte) [64]byte {
	return sum512(slices.Concat([][]byte{[]byte(contextString + tag)}, parts)...)
}

// nonceGenerate is nonce_generate of §4.1: hedged by the secret, so that bad
// randomness alone does not give it away.
func nonceGenerate(randomness [32]byte, secret *scalar) *scalar {
	enc := secret.Bytes()
	defer clear(enc)
	return h3(randomness[:], enc)
}

// signer is what all signers know of one of them.
type signer struct {
	id *scalar
	// public is its share times the generator.
	public *point
	*commitment
	// lambda and rho are computed by prepare.
	lambda, rho *scalar
}

// signing is one signature: what all of its signers agree on.
type signing struct {
	key, message []byte
	// signers ascend by identifier (§4.3).
	signers []*signer
	// r is the encoded group commitment, c the challenge; computed by prepare.
	r []byte
	c *scalar
}

// newSigning takes signers with identifiers, public shares and commitments, in any order.
func newSigning(key, message []byte, signers []*signer) *signing {
	s := &signing{key: key, message: message, signers: slices.Clone(signers)}
	slices.SortFunc(s.signers, func(a, b *signer) int { return compareScalars(a.id, b.id) })
	ids := make([]*scalar, len(s.signers))
	for i, p := range s.signers {
		ids[i] = p.id
	}
	for i, p := range s.signers {
		p.lambda = lagrange(ids, i, zero)
	}
	// compute_binding_factors, §4.4.
	for i, input := range s.bindingInputs() {
		s.signers[i].rho = h1(input)
	}
	// compute_group_commitment, §4.5, in one multiplication.
	var factors []*scalar
	var points []*point
	sum := edwards25519.NewIdentityPoint()
	for _, p := range s.signers {
		sum.Add(sum, p.hiding)
		factors, points = append(factors, p.rho), append(points, p.binding)
	}
	sum.Add(sum, new(point).VarTimeMultiScalarMult(factors, points))
	s.r = sum.Bytes()
	// compute_challenge, §4.6.
	s.c = h2(s.r, key, message)
	return s
}

// bindingInputs are the inputs of the binding factors, in the order of signers.
func (s *signing) bindingInputs() [][]byte {
	var list []byte
	for _, p := range s.signers {
		list = append(append(list, p.id.Bytes()...), p.encoded...)
	}
	msg, com := h4(s.message), h5(list)
	prefix := slices.Concat(s.key, msg[:], com[:])
	inputs := make([][]byte, len(s.signers))
	for i, p := range s.signers {
		inputs[i] = slices.Concat(prefix, p.id.Bytes())
	}
	return inputs
}

// share is sign of §5.2: this signer's part of the signature. It spends the nonces:
// they are wiped when it returns.
func (s *signing) share(own *signer, n *nonces, secret *scalar) *scalar {
	defer n.wipe()
	z := new(scalar).MultiplyAdd(n.binding, own.rho, n.hiding)
	weighted := new(scalar).Multiply(own.lambda, secret)
	defer wipe(weighted)
	return z.MultiplyAdd(weighted, s.c, z)
}

// verifyShare is verify_signature_share of §5.4.
func (s *signing) verifyShare(p *signer, z *scalar) bool {
	// z·G − c·λ·Y must be the signer's commitment D + ρ·E.
	minus := new(scalar).Negate(new(scalar).Multiply(s.c, p.lambda))
	left := new(point).VarTimeDoubleScalarBaseMult(minus, p.public, z)
	right := new(point).VarTimeMultiScalarMult([]*scalar{one, p.rho}, []*point{p.hiding, p.binding})
	return left.Equal(right) == 1
}

// aggregate is aggregate of §5.3: R ‖ z.
func (s *signing) aggregate(shares []*scalar) []byte {
	z := new(scalar)
	for _, share := range shares {
		z.Add(z, share)
	}
	return slices.Concat(s.r, z.Bytes())
}

// nonces are one signer's secret of round one, for one signature.
type nonces struct {
	hiding, binding *scalar
}

// commit is commit of §5.1 with the randomness given. It returns the nonces and
// the signer's commitments.
func commit(hiding, binding [32]byte, secret *scalar) (*nonces, *commitment, error) {
	n := &nonces{nonceGenerate(hiding, secret), nonceGenerate(binding, secret)}
	c := &commitment{hiding: new(point).ScalarBaseMult(n.hiding), binding: new(point).ScalarBaseMult(n.binding)}
	if c.hiding.Equal(identity) == 1 || c.binding.Equal(identity) == 1 {
		n.wipe()
		return nil, nil, errors.New("drawing nonces: a nonce is zero")
	}
	c.encoded = append(c.hiding.Bytes(), c.binding.Bytes()...)
	return n, c, nil
}

func (n *nonces) wipe() { wipe(n.hiding, n.binding) }

// commitment is what a signer sends in round one.
type commitment struct {
	hiding, binding *point
	// encoded is both, 64 bytes.
	encoded []byte
}

// decodeCommitment takes 64 bytes.
func decodeCommitment(b []byte) (*commitment, error) {
	hiding, err := decodePoint(b[:32])
	binding, err2 := decodePoint(b[32:])
	return &commitment{hiding, binding, b}, errors.Join(err, err2)
}
