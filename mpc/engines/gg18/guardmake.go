package gg18

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/crypto/dlnproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/facproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/modproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/paillier"
	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecresharing "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	edkeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	edresharing "github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/mpc"
)

// making guards one party of a keygen or reshare, of either scheme.
type making struct {
	ec elliptic.Curve
	// threshold is how many coefficients a polynomial has.
	threshold int
	pledges   pledges
	limits    limits
	// own has the party's Paillier modulus and NTilde; moduli are all that were
	// seen, theirs the Paillier moduli and NTildes of each sender.
	ownTilde *big.Int
	moduli   []*big.Int
	theirs   map[string]*big.Int
	// publicKey is what a reshare must come to, encoded; nil for a keygen.
	publicKey []byte
}

func guardMake(ec elliptic.Curve, threshold int, pre *mpc.PreParamNumbers, publicKey []byte) *guard {
	g := &making{ec: ec, threshold: threshold, pledges: pledges{}, limits: limitsOf(ec), theirs: map[string]*big.Int{}, publicKey: publicKey}
	if pre != nil {
		g.ownTilde = pre.NTilde
		g.moduli = []*big.Int{pre.NTilde, new(big.Int).Mul(pre.PaillierP, pre.PaillierQ)}
	}
	return &guard{received: g.received}
}

func (g *making) received(from *tss.PartyID, content tss.MessageContent) error {
	n := new(numbers)
	switch m := content.(type) {
	case *eckeygen.KGRound1Message:
		n.hash("commitment", m.GetCommitment())
		g.auxiliary(n, from, m, m.GetDlnproof_1(), m.GetDlnproof_2())
		if n.err == nil {
			n.err = g.pledges.commit(from, "polynomial", m.GetCommitment())
		}
	case *eckeygen.KGRound2Message1:
		n.scalar("share", m.GetShare(), g.ec)
		g.factors(n, from, m.GetFacProof())
	case *eckeygen.KGRound2Message2:
		g.polynomial(n, from, m.GetDeCommitment())
		g.modulusProof(n, from, m.GetModProof())
	case *eckeygen.KGRound3Message:
		if n.list("Paillier proof", m.GetPaillierProof(), paillier.ProofIters) {
			for _, y := range m.GetPaillierProof() {
				n.inside("Paillier proof", y, g.modulusOf(n, from))
			}
		}
	case *ecresharing.DGRound1Message:
		g.pinned(n, m.GetEcdsaPubX(), m.GetEcdsaPubY(), compressedXY)
		g.begin(n, from, m.GetVCommitment(), m.GetSsid())
	case *ecresharing.DGRound2Message1:
		g.auxiliary(n, from, m, m.GetDlnproof_1(), m.GetDlnproof_2())
		g.modulusProof(n, from, m.GetModProof())
	case *ecresharing.DGRound3Message1:
		n.scalar("share", m.GetShare(), g.ec)
	case *ecresharing.DGRound3Message2:
		g.polynomial(n, from, m.GetVDecommitment())
	case *ecresharing.DGRound4Message1:
		g.factors(n, from, m.GetFacProof())
	case *edkeygen.KGRound1Message:
		if n.hash("commitment", m.GetCommitment()); n.err == nil {
			n.err = g.pledges.commit(from, "polynomial", m.GetCommitment())
		}
	case *edkeygen.KGRound2Message1:
		n.scalar("share", m.GetShare(), g.ec)
	case *edkeygen.KGRound2Message2:
		g.polynomial(n, from, m.GetDeCommitment())
		n.point("proof", g.ec, m.GetProofAlphaX(), m.GetProofAlphaY())
		n.scalar("proof", m.GetProofT(), g.ec)
	case *edresharing.DGRound1Message:
		g.pinned(n, m.GetEddsaPubX(), m.GetEddsaPubY(), edwardsXY)
		g.begin(n, from, m.GetVCommitment(), nil)
	case *edresharing.DGRound3Message1:
		n.scalar("share", m.GetShare(), g.ec)
	case *edresharing.DGRound3Message2:
		g.polynomial(n, from, m.GetVDecommitment())
	case *ecresharing.DGRound2Message2, *ecresharing.DGRound4Message2, *edresharing.DGRound2Message, *edresharing.DGRound4Message:
		// acknowledgements, without content
	default:
		return errors.New("message is of another protocol")
	}
	return n.err
}

// auxiliary is what keygen and reshare share: the sender's moduli and generators.
type auxiliary interface {
	GetPaillierN() []byte
	GetNTilde() []byte
	GetH1() []byte
	GetH2() []byte
	UnmarshalDLNProof1() (*dlnproof.Proof, error)
	UnmarshalDLNProof2() (*dlnproof.Proof, error)
}

func (g *making) auxiliary(n *numbers, from *tss.PartyID, m auxiliary, proofs ...[][]byte) {
	g.theirs[string(from.Key)] = n.modulus("Paillier modulus", m.GetPaillierN(), &g.moduli)
	tilde := n.modulus("NTilde", m.GetNTilde(), &g.moduli)
	if n.err != nil {
		return
	}
	h1, h2 := n.unit("h1", m.GetH1(), tilde, tilde), n.unit("h2", m.GetH2(), tilde, tilde)
	// Both are squares, so neither has Jacobi symbol -1.
	if n.err == nil && (h1.Cmp(h2) == 0 || big.Jacobi(h1, tilde) != 1 || big.Jacobi(h2, tilde) != 1) {
		n.fail("h1 and h2 do not generate the squares")
	}
	// The library parses the proofs in goroutines; a length that is negative as an
	// int64 would be its last. Here it is a panic that is recovered.
	for i, p := range proofs {
		if !n.list("proof of h1 and h2", p, 2+2*dlnproof.Iterations) {
			return
		}
		for _, at := range []int{0, 1 + dlnproof.Iterations} {
			if !bytes.Equal(p[at], []byte{dlnproof.Iterations}) {
				n.fail("proof of h1 and h2 has other lengths")
				return
			}
		}
		for _, alpha := range p[1 : 1+dlnproof.Iterations] {
			n.inside("proof of h1 and h2", alpha, tilde)
		}
		for _, t := range p[2+dlnproof.Iterations:] {
			n.inside("proof of h1 and h2", t, tilde)
		}
		parse := []func() (*dlnproof.Proof, error){m.UnmarshalDLNProof1, m.UnmarshalDLNProof2}[i]
		if _, err := parse(); err != nil {
			n.fail("proof of h1 and h2 can't be parsed")
		}
	}
}

// modulusOf is the sender's Paillier modulus; errEarly if that has not come.
func (g *making) modulusOf(n *numbers, from *tss.PartyID) *big.Int {
	if m := g.theirs[string(from.Key)]; m != nil {
		return m
	}
	if n.err == nil {
		n.err = errEarly
	}
	return one
}

// modulusProof checks the form of Canetti et al. 2021, figure 16.
func (g *making) modulusProof(n *numbers, from *tss.PartyID, p [][]byte) {
	m := g.modulusOf(n, from)
	if !n.list("proof of modulus", p, modproof.ProofModBytesParts) {
		return
	}
	for i, x := range p {
		if i == modproof.Iterations+1 || i == modproof.Iterations+2 {
			n.upTo("proof of modulus", x, new(big.Int).Lsh(one, modproof.Iterations+1)) // bits
			continue
		}
		n.inside("proof of modulus", x, m)
	}
}

// factors checks the form of Canetti et al. 2021, figure 28: a proof about the
// sender's Paillier modulus, modulo our NTilde.
func (g *making) factors(n *numbers, from *tss.PartyID, p [][]byte) {
	m := g.modulusOf(n, from)
	if g.ownTilde == nil || !n.list("proof of factors", p, facproof.ProofFacBytesParts) {
		n.fail("a proof of factors for one who has no modulus")
		return
	}
	tilde, both := g.ownTilde, new(big.Int).Mul(m, g.ownTilde)
	for _, x := range p[:5] {
		n.unit("proof of factors", x, tilde, tilde)
	}
	n.upTo("sigma", p[5], new(big.Int).Mul(g.limits.q, both))
	z := new(big.Int).Mul(g.limits.q3, new(big.Int).Sqrt(m))
	n.upTo("z1", p[6], z)
	n.upTo("z2", p[7], z)
	n.upTo("w1", p[8], g.limits.masked(tilde))
	n.upTo("w2", p[9], g.limits.masked(tilde))
	n.upTo("v", p[10], g.limits.masked(both))
}

// polynomial checks the opening of Feldman's commitments.
func (g *making) polynomial(n *numbers, from *tss.PartyID, parts [][]byte) {
	if n.points("opening of the polynomial", g.ec, parts, g.threshold); n.err == nil {
		n.err = g.pledges.open(from, "polynomial", parts)
	}
}

// begin checks the rest of a reshare's first message.
func (g *making) begin(n *numbers, from *tss.PartyID, commitment, ssid []byte) {
	n.hash("commitment", commitment)
	if len(ssid) > 32 {
		n.fail("session id has %d bytes", len(ssid))
	}
	if n.err == nil {
		n.err = g.pledges.commit(from, "polynomial", commitment)
	}
}

// pinned wants the key that the caller pinned, not the one the old members name.
func (g *making) pinned(n *numbers, x, y []byte, encode func(x, y *big.Int) []byte) {
	if n.point("public key", g.ec, x, y); n.err != nil {
		return
	}
	if !bytes.Equal(encode(new(big.Int).SetBytes(x), new(big.Int).SetBytes(y)), g.publicKey) {
		n.fail("public key is another one")
	}
}
