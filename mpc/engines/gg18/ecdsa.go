package gg18

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/common"
	"github.com/bnb-chain/tss-lib/v2/crypto/paillier"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	"github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/mpc"
)

func ecdsaKeygen(ctx context.Context, s mpc.Session, p mpc.KeygenParams) (body, pub []byte, err error) {
	ec := tss.S256()
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	r, err := newRoster(ec, p.Committee.Members())
	if err != nil {
		return nil, nil, err
	}
	params, err := r.params(ec, self, p.Committee.Threshold)
	if err != nil {
		return nil, nil, err
	}
	err = withPreParams(p.PreParams, func(n *mpc.PreParamNumbers, pre keygen.LocalPreParams) error {
		out := make(chan tss.Message, outCapacity)
		end := make(chan *keygen.LocalPartySaveData, 1)
		m := &machine{session: s, self: self, roster: r, party: keygen.NewLocalParty(params, out, end, pre),
			out: out, rounds: 3, round: p.Round, guard: guardMake(ec, p.Committee.Threshold, n, nil)}
		if err := m.run(ctx, func() bool { return len(end) > 0 }); err != nil {
			return err
		}
		body, pub, err = encodeECDSA(<-end, p.Committee, p.Self)
		return err
	})
	return body, pub, err
}

func ecdsaReshare(ctx context.Context, s mpc.Session, p mpc.ReshareParams) (body, pub []byte, err error) {
	r, params, err := reshareParams(tss.S256(), p)
	if err != nil {
		return nil, nil, err
	}
	run := func(n *mpc.PreParamNumbers, save keygen.LocalPartySaveData) (*keygen.LocalPartySaveData, error) {
		out := make(chan tss.Message, outCapacity)
		end := make(chan *keygen.LocalPartySaveData, 1)
		m := &machine{session: s, self: p.Self, roster: r, party: resharing.NewLocalParty(params, save, out, end),
			out: out, rounds: 4, round: p.Round, guard: guardMake(tss.S256(), p.To.Threshold, n, p.PublicKey)}
		if err := m.run(ctx, func() bool { return len(end) > 0 }); err != nil {
			return nil, err
		}
		return <-end, nil
	}
	if p.Self.SetID == p.From.SetID {
		old, err := decodeOld(p.Body, p.From, p.Self.Party, p.PublicKey)
		if err != nil {
			return nil, nil, err
		}
		defer wipeECDSA(old)
		_, err = run(nil, *old)
		return nil, p.PublicKey, err
	}
	err = withPreParams(p.PreParams, func(n *mpc.PreParamNumbers, pre keygen.LocalPreParams) error {
		save := keygen.NewLocalPartySaveData(len(p.To.Parties))
		save.LocalPreParams = pre
		made, err := run(n, save)
		if err != nil {
			return err
		}
		// A reshare leaves a sum that is not reduced.
		made.Xi.Mod(made.Xi, tss.S256().Params().N)
		body, pub, err = encodeECDSA(made, p.To, p.Self.Party)
		return err
	})
	return body, pub, err
}

func ecdsaSign(ctx context.Context, s mpc.Session, p mpc.SignParams) ([]byte, error) {
	digest := new(big.Int)
	signer, err := newSigner(s, p, digest)
	if err != nil {
		return nil, err
	}
	defer wipeECDSA(signer.key)
	if err := setDigest(digest, p.Input.Digest); err != nil {
		return nil, err
	}
	if err := signer.run(ctx, signer.signed); err != nil {
		return nil, err
	}
	return signer.signature()
}

// ecdsaSigner is one party of a signature.
type ecdsaSigner struct {
	machine
	// key is its own copy of the share, which whoever has the signer wipes.
	key *keygen.LocalPartySaveData
	end chan *common.SignatureData
}

// newSigner prepares a party. tss-lib keeps digest and reads it in round 5.
func newSigner(s mpc.Session, p mpc.SignParams, digest *big.Int) (_ *ecdsaSigner, err error) {
	ec := tss.S256()
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	r, err := newRoster(ec, quorumMembers(p.Committee, p.Quorum))
	if err != nil {
		return nil, err
	}
	params, err := r.params(ec, self, p.Committee.Threshold)
	if err != nil {
		return nil, err
	}
	key, err := decodeECDSA(p.Body, p.Committee, p.Self, p.PublicKey)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			wipeECDSA(key)
		}
	}()
	if p.Tweak != nil {
		if err := tweak(key, p.Tweak); err != nil {
			return nil, fmt.Errorf("%w: %w", mpc.ErrPath, err)
		}
	}
	guard, err := guardECDSASign(key, len(p.Quorum))
	if err != nil {
		return nil, err
	}
	out := make(chan tss.Message, outCapacity)
	end := make(chan *common.SignatureData, 1)
	return &ecdsaSigner{key: key, end: end, machine: machine{session: s, self: self, roster: r, out: out, rounds: 9,
		party: signing.NewLocalParty(digest, params, *key, out, end, len(p.Input.Digest)),
		final: func(c tss.MessageContent) bool { _, is := c.(*signing.SignRound9Message); return is }, guard: guard}}, nil
}

func (s *ecdsaSigner) signed() bool { return len(s.end) > 0 }

// signature is r ‖ s ‖ recid, once the party has signed.
func (s *ecdsaSigner) signature() ([]byte, error) {
	sig := <-s.end
	if len(sig.R) != 32 || len(sig.S) != 32 || len(sig.SignatureRecovery) != 1 {
		return nil, mpc.ErrSignature
	}
	return append(append(append(make([]byte, 0, 65), sig.R...), sig.S...), sig.SignatureRecovery[0]), nil
}

// setDigest gives a party what it is to sign, a number from 1 to n-1.
func setDigest(to *big.Int, digest [32]byte) error {
	to.SetBytes(digest[:])
	if to.Sign() <= 0 || to.Cmp(tss.S256().Params().N) >= 0 {
		return mpc.ErrInput
	}
	return nil
}

// withPreParams lends pre-parameters, also in tss-lib's form, and wipes them.
func withPreParams(p *mpc.PreParams, use func(*mpc.PreParamNumbers, keygen.LocalPreParams) error) error {
	if p == nil {
		return errors.New("ecdsa needs pre-parameters")
	}
	return p.Numbers(func(n *mpc.PreParamNumbers) error {
		pMinus1, qMinus1 := new(big.Int).Sub(n.PaillierP, one), new(big.Int).Sub(n.PaillierQ, one)
		phi := new(big.Int).Mul(pMinus1, qMinus1)
		// lcm(p-1, q-1) of safe primes is half their product.
		sk := &paillier.PrivateKey{PublicKey: paillier.PublicKey{N: new(big.Int).Mul(n.PaillierP, n.PaillierQ)},
			LambdaN: new(big.Int).Rsh(phi, 1), PhiN: phi, P: n.PaillierP, Q: n.PaillierQ}
		defer wipeInts(pMinus1, qMinus1, sk.PhiN, sk.LambdaN)
		pre := keygen.LocalPreParams{PaillierSK: sk, NTildei: n.NTilde, H1i: n.H1, H2i: n.H2,
			Alpha: n.Alpha, Beta: n.Beta, P: n.P, Q: n.Q}
		if !pre.ValidateWithProof() || sk.N.BitLen() != modulusBits || pre.NTildei.BitLen() != modulusBits {
			return errors.New("pre-parameters failed tss-lib's validation")
		}
		return use(n, pre)
	})
}
