package gg18_test

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"

	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecresharing "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	edkeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	edresharing "github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	edsigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// Attacks on keygens and reshares through a session, by a process that plays a party
// of them: none crashes us, and each is blamed on that process. An ECDSA keygen costs
// ten seconds of computing, so make test plays a few attacks of each kind on ECDSA
// and the campaign all of them.

// attack changes one kind of message; want is in the error that it comes to.
type attack struct {
	name   string
	change func(mpc.Envelope) mpc.Envelope
	want   string
	// sampled: make test has it, too.
	sampled bool
}

// play runs every attack on a ceremony, or only those that are sampled.
func play(t *testing.T, c func() joint, all bool, attacks ...attack) {
	for _, a := range attacks {
		if !all && !a.sampled && os.Getenv("CAMPAIGN") == "" {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			j := c()
			j.blames(t, j.against(t, a.change, nil), a.want)
		})
	}
}

// garbled has a process send bytes that are no message under a kind that is one.
func garbled(kind string) func(mpc.Envelope) mpc.Envelope {
	return func(e mpc.Envelope) mpc.Envelope {
		if strings.HasSuffix(e.Kind, kind) {
			e.Payload = []byte("\xff\xff garbage")
		}
		return e
	}
}

// keygenOfEdDSA is tss-lib's keygen for server and delegate, see keygenAsSign.
func keygenOfEdDSA(t *testing.T) joint {
	return signing(t, mpctest.Ed25519DelegateSet(t).WithEngine(t, keygenEngine))
}

func TestAttacksOnAnEdDSAKeygen(t *testing.T) {
	c := keygenOfEdDSA(t)
	if err := c.against(t, nil, nil); !errors.Is(err, errKeyMade) {
		t.Fatalf("an honest keygen: %v", err)
	}
	q, g := tss.Edwards().Params().N, tss.Edwards().Params()
	play(t, func() joint { return keygenOfEdDSA(t) }, true,
		attack{name: "too few points", change: rewire(t, func(m *edkeygen.KGRound2Message2) { m.DeCommitment = m.DeCommitment[:3] }), want: "parts"},
		attack{name: "too many points", change: rewire(t, func(m *edkeygen.KGRound2Message2) {
			m.DeCommitment = append(m.DeCommitment, g.Gx.Bytes(), g.Gy.Bytes())
		}), want: "parts"},
		attack{name: "point off the curve", change: rewire(t, func(m *edkeygen.KGRound2Message2) { m.DeCommitment[1] = []byte{7} }), want: "not on the curve"},
		attack{name: "not what was committed to", change: rewire(t, func(m *edkeygen.KGRound2Message2) { m.DeCommitment[0] = []byte{7} }), want: "committed to"},
		attack{name: "another commitment", change: rewire(t, func(m *edkeygen.KGRound1Message) { m.Commitment = []byte{7} }), want: "committed to"},
		attack{name: "long commitment", change: rewire(t, func(m *edkeygen.KGRound1Message) { m.Commitment = bytes.Repeat([]byte{1}, 33) }), want: "at most 32"},
		attack{name: "proof off the curve", change: rewire(t, func(m *edkeygen.KGRound2Message2) { m.ProofAlphaX = []byte{5} }), want: "not on the curve"},
		attack{name: "proof of the order", change: rewire(t, func(m *edkeygen.KGRound2Message2) { m.ProofT = q.Bytes() }), want: "out of range"},
		attack{name: "a proof of nothing", change: rewire(t, func(m *edkeygen.KGRound2Message2) { m.ProofT = []byte{9} })},
		attack{name: "share of zero", change: rewire(t, func(m *edkeygen.KGRound2Message1) { m.Share = []byte{0} })},
		attack{name: "share of the order", change: rewire(t, func(m *edkeygen.KGRound2Message1) { m.Share = q.Bytes() }), want: "out of range"},
		attack{name: "share of another polynomial", change: rewire(t, func(m *edkeygen.KGRound2Message1) { m.Share = []byte{9} })},
		attack{name: "garbage in round 1", change: garbled("KGRound1Message")},
		attack{name: "garbage in round 2", change: garbled("KGRound2Message2")},
		attack{name: "a message of signing", change: func(e mpc.Envelope) mpc.Envelope {
			e.Payload = wire(t, edsigning.NewSignRound1Message(somebody, big.NewInt(3)))
			return e
		}},
		attack{name: "nothing", change: func(mpc.Envelope) mpc.Envelope { return mpc.Envelope{} }},
	)
}

// issuing is a reshare of a root set to server and delegate. The other process plays
// the user, an old member, or the delegate, a new one.
func issuing(t *testing.T, root mpctest.Set, other mpc.Party) joint {
	to := root.ShareSet
	to.ID, to.Parties, to.Threshold, to.Epoch = "attacked", []mpc.Party{mpc.Delegate, mpc.Server}, 2, root.Epoch+1
	p := mpc.Proposal{Op: mpc.OpIssue, Engine: root.Engine, Key: "key", Decision: "cer", From: &root.ShareSet, To: &to}
	if other == mpc.User {
		p.FromProposer, p.FromAcceptor, p.ToProposer = []mpc.Party{mpc.Server}, []mpc.Party{mpc.User}, to.Parties
	} else {
		p.FromProposer, p.ToProposer, p.ToAcceptor = []mpc.Party{mpc.Server, mpc.User}, []mpc.Party{mpc.Server}, []mpc.Party{mpc.Delegate}
	}
	part := func(quorum []mpc.Party, primes int) func(context.Context, *mpc.Joint) error {
		return func(ctx context.Context, j *mpc.Joint) error {
			var shares [][]byte
			if len(quorum) > 0 {
				shares = root.Shares(t, quorum...)
			}
			_, made, err := mpc.Issue(ctx, mpc.IssueRequest{From: root.ShareSet, Quorum: shares, SetID: to.ID, Parties: to.Parties, Threshold: 2,
				PreParams: primesFrom(t, primes), With: j})
			for _, s := range made {
				s.Destroy()
			}
			return err
		}
	}
	return joint{p, part(p.FromProposer, 0), part(p.FromAcceptor, 2)}
}

// primesFrom lends the ready pre-parameters from one on.
func primesFrom(t *testing.T, i int) func(context.Context) (*mpc.PreParams, error) {
	return func(context.Context) (*mpc.PreParams, error) {
		i++
		return mpc.ParsePreParams(mpctest.EncodedPreParams(t, (i-1)%3))
	}
}

func TestAttacksOnAnEdDSAReshare(t *testing.T) {
	root := mpctest.Ed25519RootSet(t).WithEngine(t, eddsaEngine)
	g := tss.Edwards().Params()
	by := func(party mpc.Party) func() joint { return func() joint { return issuing(t, root, party) } }
	for _, party := range []mpc.Party{mpc.User, mpc.Delegate} {
		if err := by(party)().against(t, nil, nil); err != nil {
			t.Fatalf("an honest %s: %v", party, err)
		}
	}
	t.Run("old member", func(t *testing.T) {
		play(t, by(mpc.User), true,
			attack{name: "another key", change: rewire(t, func(m *edresharing.DGRound1Message) { m.EddsaPubX, m.EddsaPubY = g.Gx.Bytes(), g.Gy.Bytes() }), want: "another one"},
			attack{name: "key off the curve", change: rewire(t, func(m *edresharing.DGRound1Message) { m.EddsaPubX = []byte{5} }), want: "not on the curve"},
			attack{name: "another commitment", change: rewire(t, func(m *edresharing.DGRound1Message) { m.VCommitment = []byte{7} }), want: "committed to"},
			attack{name: "share of zero", change: rewire(t, func(m *edresharing.DGRound3Message1) { m.Share = []byte{0} })},
			attack{name: "share of the order", change: rewire(t, func(m *edresharing.DGRound3Message1) { m.Share = g.N.Bytes() }), want: "out of range"},
			attack{name: "share of another polynomial", change: rewire(t, func(m *edresharing.DGRound3Message1) { m.Share = []byte{9} })},
			attack{name: "point off the curve", change: rewire(t, func(m *edresharing.DGRound3Message2) { m.VDecommitment[1] = []byte{5} }), want: "not on the curve"},
			attack{name: "not what was committed to", change: rewire(t, func(m *edresharing.DGRound3Message2) { m.VDecommitment[0] = []byte{5} }), want: "committed to"},
			attack{name: "too few points", change: rewire(t, func(m *edresharing.DGRound3Message2) { m.VDecommitment = m.VDecommitment[:3] }), want: "parts"},
			attack{name: "garbage", change: garbled("DGRound3Message2")},
			attack{name: "nothing", change: func(mpc.Envelope) mpc.Envelope { return mpc.Envelope{} }})
	})
	t.Run("new member", func(t *testing.T) {
		play(t, by(mpc.Delegate), true,
			attack{name: "garbage for an acknowledgement", change: garbled("DGRound2Message")},
			attack{name: "a message of signing", change: func(e mpc.Envelope) mpc.Envelope {
				e.Payload = wire(t, edsigning.NewSignRound1Message(somebody, big.NewInt(3)))
				return e
			}},
			attack{name: "in another's name", change: func(e mpc.Envelope) mpc.Envelope { e.From.Party = mpc.Server; return e }},
			attack{name: "nothing", change: func(mpc.Envelope) mpc.Envelope { return mpc.Envelope{} }})
	})
}

// keygenOfECDSA has the other process play the delegate.
func keygenOfECDSA(t *testing.T) joint {
	parties := []mpc.Party{mpc.Delegate, mpc.Server}
	to := mpc.ShareSet{ID: "attacked", Scheme: chains.ECDSASecp256k1, Parties: parties, Threshold: 2, Epoch: 1, Engine: mpc.EngineFor(chains.ECDSASecp256k1)}
	part := func(primes int) func(context.Context, *mpc.Joint) error {
		return func(ctx context.Context, j *mpc.Joint) error {
			_, made, err := mpc.Keygen(ctx, mpc.KeygenRequest{SetID: to.ID, Scheme: to.Scheme, Parties: parties, Threshold: 2, PreParams: primesFrom(t, primes), With: j})
			for _, s := range made {
				s.Destroy()
			}
			return err
		}
	}
	return joint{mpc.Proposal{Op: mpc.OpKeygen, Engine: to.Engine, Key: "key", Decision: "cer", To: &to,
		ToProposer: parties[1:], ToAcceptor: parties[:1]}, part(0), part(1)}
}

func TestCampaignAttacksOnAnECDSAKeygen(t *testing.T) {
	type r1 = *eckeygen.KGRound1Message
	type r2 = *eckeygen.KGRound2Message2
	type p2 = *eckeygen.KGRound2Message1
	q := tss.S256().Params().N
	play(t, func() joint { return keygenOfECDSA(t) }, false,
		attack{name: "even modulus", change: rewire(t, func(m r1) { m.PaillierN[255] &^= 1 }), want: "even"},
		attack{name: "2047 bits", change: rewire(t, func(m r1) { m.PaillierN = m.PaillierN[1:] }), want: "2048"},
		attack{name: "prime modulus", change: rewire(t, func(m r1) { m.NTilde = prime2048().Bytes() }), want: "is prime"},
		attack{name: "h1 of 1", change: rewire(t, func(m r1) { m.H1 = []byte{1} }), want: "h1 is out of range"},
		attack{name: "proof with a negative length", change: rewire(t, func(m r1) { m.Dlnproof_1[0] = bytes.Repeat([]byte{0xff}, 8) }), want: "other lengths", sampled: true},
		attack{name: "another commitment", change: rewire(t, func(m r1) { m.Commitment = []byte{7} }), want: "committed to"},
		attack{name: "share a multiple of the order", change: rewire(t, func(m p2) { m.Share = q.Bytes() }), want: "share is out of range", sampled: true},
		attack{name: "share of another polynomial", change: rewire(t, func(m p2) { m.Share = []byte{9} })},
		attack{name: "no proof of factors", change: rewire(t, func(m p2) { m.FacProof = nil })},
		attack{name: "no proof of modulus", change: rewire(t, func(m r2) { m.ModProof = nil })},
		attack{name: "point off the curve", change: rewire(t, func(m r2) { m.DeCommitment[4] = []byte{7} }), want: "not on the curve"},
		attack{name: "Paillier proof with a 1", change: rewire(t, func(m *eckeygen.KGRound3Message) { m.PaillierProof[0] = []byte{1} })},
		attack{name: "garbage", change: garbled("KGRound1Message")},
		attack{name: "nothing", change: func(mpc.Envelope) mpc.Envelope { return mpc.Envelope{} }},
	)
}

func TestCampaignAttacksOnAnECDSAReshare(t *testing.T) {
	root, g := mpctest.ECDSARootSet(t), tss.S256().Params()
	by := func(party mpc.Party) func() joint { return func() joint { return issuing(t, root, party) } }
	t.Run("old member", func(t *testing.T) {
		play(t, by(mpc.User), false,
			attack{name: "another key", change: rewire(t, func(m *ecresharing.DGRound1Message) { m.EcdsaPubX, m.EcdsaPubY = g.Gx.Bytes(), g.Gy.Bytes() }), want: "another one", sampled: true},
			attack{name: "long session id", change: rewire(t, func(m *ecresharing.DGRound1Message) { m.Ssid = make([]byte, 33) }), want: "session id"},
			attack{name: "share of the order", change: rewire(t, func(m *ecresharing.DGRound3Message1) { m.Share = g.N.Bytes() }), want: "out of range"},
			attack{name: "share of another polynomial", change: rewire(t, func(m *ecresharing.DGRound3Message1) { m.Share = []byte{9} })},
			attack{name: "point off the curve", change: rewire(t, func(m *ecresharing.DGRound3Message2) { m.VDecommitment[1] = []byte{5} }), want: "not on the curve"},
			attack{name: "not what was committed to", change: rewire(t, func(m *ecresharing.DGRound3Message2) { m.VDecommitment[0] = []byte{5} }), want: "committed to"})
	})
	t.Run("new member", func(t *testing.T) {
		play(t, by(mpc.Delegate), false,
			attack{name: "2047 bits", change: rewire(t, func(m *ecresharing.DGRound2Message1) { m.PaillierN = m.PaillierN[1:] }), want: "2048", sampled: true},
			attack{name: "even NTilde", change: rewire(t, func(m *ecresharing.DGRound2Message1) { m.NTilde[255] &^= 1 }), want: "even"},
			attack{name: "no proof of modulus", change: rewire(t, func(m *ecresharing.DGRound2Message1) { m.ModProof = nil })},
			attack{name: "no proof of factors", change: rewire(t, func(m *ecresharing.DGRound4Message1) { m.FacProof = nil })},
			attack{name: "factors: v too large", change: rewire(t, func(m *ecresharing.DGRound4Message1) { m.FacProof[10] = bytes.Repeat([]byte{255}, 900) }), want: "v is larger"})
	})
}
