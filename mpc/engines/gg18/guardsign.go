package gg18

import (
	"errors"
	"math/big"

	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecsigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	edsigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"
)

// ecdsaSigning guards one party of a signature.
type ecdsaSigning struct {
	key *eckeygen.LocalPartySaveData
	// own is the party's index in key; quorum how many sign.
	own, quorum int
	limits      limits
	pledges     pledges
	// theta is the sum of the shares of k·γ seen so far, thetas how many.
	theta  *big.Int
	thetas int
}

func guardECDSASign(key *eckeygen.LocalPartySaveData, quorum int) (*guard, error) {
	g := &ecdsaSigning{key: key, own: -1, quorum: quorum, limits: limitsOf(tss.S256()), pledges: pledges{}, theta: new(big.Int)}
	for j, k := range key.Ks {
		if k.Cmp(key.ShareID) == 0 {
			g.own = j
		}
	}
	if g.own < 0 {
		return nil, errors.New("the share is not of its own set")
	}
	sent := func(c tss.MessageContent) {
		if m, is := c.(*ecsigning.SignRound3Message); is {
			_ = g.addTheta(new(big.Int).SetBytes(m.GetTheta()))
		}
	}
	return &guard{received: g.received, sent: sent}, nil
}

// addTheta refuses the share that makes the sum zero: the library would divide by it.
func (g *ecdsaSigning) addTheta(x *big.Int) error {
	q := tss.S256().Params().N
	g.theta.Mod(g.theta.Add(g.theta, x), q)
	if g.thetas++; g.thetas == g.quorum && g.theta.Sign() == 0 {
		return errors.New("theta cancels all others")
	}
	return nil
}

func (g *ecdsaSigning) received(from *tss.PartyID, content tss.MessageContent) error {
	ec, n := tss.S256(), new(numbers)
	switch m := content.(type) {
	case *ecsigning.SignRound1Message1:
		return g.alice(from, m)
	case *ecsigning.SignRound1Message2:
		if n.hash("commitment", m.GetCommitment()); n.err == nil {
			n.err = g.pledges.commit(from, "gamma", m.GetCommitment())
		}
	case *ecsigning.SignRound2Message:
		return g.bob(m)
	case *ecsigning.SignRound3Message:
		if theta := n.scalar("theta", m.GetTheta(), ec); n.err == nil {
			n.err = g.addTheta(theta)
		}
	case *ecsigning.SignRound4Message:
		n.points("opening of gamma", ec, m.GetDeCommitment(), 1)
		n.point("proof of gamma", ec, m.GetProofAlphaX(), m.GetProofAlphaY())
		n.scalar("proof of gamma", m.GetProofT(), ec)
		if n.err == nil {
			n.err = g.pledges.open(from, "gamma", m.GetDeCommitment())
		}
	case *ecsigning.SignRound5Message:
		if n.hash("commitment", m.GetCommitment()); n.err == nil {
			n.err = g.pledges.commit(from, "V and A", m.GetCommitment())
		}
	case *ecsigning.SignRound6Message:
		n.points("opening of V and A", ec, m.GetDeCommitment(), 2)
		n.point("proof of A", ec, m.GetProofAlphaX(), m.GetProofAlphaY())
		n.scalar("proof of A", m.GetProofT(), ec)
		n.point("proof of V", ec, m.GetVProofAlphaX(), m.GetVProofAlphaY())
		n.scalar("proof of V", m.GetVProofT(), ec)
		n.scalar("proof of V", m.GetVProofU(), ec)
		if n.err == nil {
			n.err = g.pledges.open(from, "V and A", m.GetDeCommitment())
		}
	case *ecsigning.SignRound7Message:
		if n.hash("commitment", m.GetCommitment()); n.err == nil {
			n.err = g.pledges.commit(from, "U and T", m.GetCommitment())
		}
	case *ecsigning.SignRound8Message:
		// The library asks for a good opening *and* the wrong length before it refuses.
		if n.points("opening of U and T", ec, m.GetDeCommitment(), 2); n.err == nil {
			n.err = g.pledges.open(from, "U and T", m.GetDeCommitment())
		}
	case *ecsigning.SignRound9Message:
		n.scalar("share of s", m.GetS(), ec)
	default:
		return errors.New("message is of another protocol")
	}
	return n.err
}

// alice checks round 1: a ciphertext under the sender's key, and its range proof
// modulo our NTilde (GG18 A.1).
func (g *ecdsaSigning) alice(from *tss.PartyID, m *ecsigning.SignRound1Message1) error {
	j := -1
	for i, k := range g.key.Ks {
		if k.Cmp(from.KeyInt()) == 0 {
			j = i
		}
	}
	if j < 0 {
		return errors.New("sender is not of the set")
	}
	n, root, tilde := new(numbers), g.key.PaillierPKs[j].N, g.key.NTildej[g.own]
	square, p := new(big.Int).Mul(root, root), m.GetRangeProofAlice()
	n.unit("ciphertext", m.GetC(), square, root)
	if n.list("range proof", p, 6) {
		n.unit("z", p[0], tilde, tilde)
		n.unit("u", p[1], square, root)
		n.unit("w", p[2], tilde, tilde)
		n.unit("s", p[3], root, root)
		n.upTo("s1", p[4], g.limits.q3)
		n.upTo("s2", p[5], g.limits.masked(tilde))
	}
	return n.err
}

// bob checks round 2: two ciphertexts under our own key and their proofs modulo
// our NTilde (GG18 A.2 and A.3).
func (g *ecdsaSigning) bob(m *ecsigning.SignRound2Message) error {
	n, root, tilde := new(numbers), g.key.PaillierPKs[g.own].N, g.key.NTildej[g.own]
	square := new(big.Int).Mul(root, root)
	proof := func(p [][]byte) {
		for i, what := range []string{"z", "z'", "t"} {
			n.unit(what, p[i], tilde, tilde)
		}
		n.unit("v", p[3], square, root)
		n.unit("w", p[4], tilde, tilde)
		n.unit("s", p[5], root, root)
		s1 := n.upTo("s1", p[6], g.limits.q3)
		if s1.Mod(s1, g.limits.q).Sign() == 0 {
			n.fail("s1 is a multiple of the order") // times the generator it is no point: a panic in a goroutine
		}
		n.upTo("s2", p[7], g.limits.masked(tilde))
		n.upTo("t1", p[8], g.limits.q7)
		n.upTo("t2", p[9], g.limits.masked(tilde))
	}
	n.unit("ciphertext 1", m.GetC1(), square, root)
	n.unit("ciphertext 2", m.GetC2(), square, root)
	if n.list("proof of Bob", m.GetProofBob(), 10) {
		proof(m.GetProofBob())
	}
	if n.list("proof of Bob with check", m.GetProofBobWc(), 12) {
		proof(m.GetProofBobWc())
		n.point("u", tss.S256(), m.GetProofBobWc()[10], m.GetProofBobWc()[11])
	}
	return n.err
}

// guardEdDSASign guards a signature over Ed25519.
func guardEdDSASign() *guard {
	pledged := pledges{}
	return &guard{received: func(from *tss.PartyID, content tss.MessageContent) error {
		ec, n := tss.Edwards(), new(numbers)
		switch m := content.(type) {
		case *edsigning.SignRound1Message:
			if n.hash("commitment", m.GetCommitment()); n.err == nil {
				n.err = pledged.commit(from, "R", m.GetCommitment())
			}
		case *edsigning.SignRound2Message:
			// The library uses the point before it looks whether it is one.
			n.points("opening of R", ec, m.GetDeCommitment(), 1)
			n.point("proof of R", ec, m.GetProofAlphaX(), m.GetProofAlphaY())
			n.scalar("proof of R", m.GetProofT(), ec)
			if n.err == nil {
				n.err = pledged.open(from, "R", m.GetDeCommitment())
			}
		case *edsigning.SignRound3Message:
			n.scalar("share of s", m.GetS(), ec)
		default:
			return errors.New("message is of another protocol")
		}
		return n.err
	}}
}
