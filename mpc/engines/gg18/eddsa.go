package gg18

import (
	"context"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/common"
	"github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	"github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/mpc"
)

func eddsaKeygen(ctx context.Context, s mpc.Session, p mpc.KeygenParams) (body, pub []byte, err error) {
	ec := tss.Edwards()
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	r, err := newRoster(ec, p.Committee.Members())
	if err != nil {
		return nil, nil, err
	}
	params, err := r.params(ec, self, p.Committee.Threshold)
	if err != nil {
		return nil, nil, err
	}
	out := make(chan tss.Message, outCapacity)
	end := make(chan *keygen.LocalPartySaveData, 1)
	m := &machine{session: s, self: self, roster: r, party: keygen.NewLocalParty(params, out, end),
		out: out, rounds: 2, round: p.Round, guard: guardMake(ec, p.Committee.Threshold, nil, nil)}
	if err := m.run(ctx, func() bool { return len(end) > 0 }); err != nil {
		return nil, nil, err
	}
	return encodeEdDSA(<-end, p.Committee, p.Self)
}

func eddsaReshare(ctx context.Context, s mpc.Session, p mpc.ReshareParams) (body, pub []byte, err error) {
	r, params, err := reshareParams(tss.Edwards(), p)
	if err != nil {
		return nil, nil, err
	}
	save := keygen.NewLocalPartySaveData(len(p.To.Parties))
	old := p.Self.SetID == p.From.SetID
	if old {
		own, err := decodeEdDSA(p.Body, p.From, p.Self.Party, p.PublicKey)
		if err != nil {
			return nil, nil, err
		}
		save = *own
		defer wipeEdDSA(own)
	}
	out := make(chan tss.Message, outCapacity)
	end := make(chan *keygen.LocalPartySaveData, 1)
	m := &machine{session: s, self: p.Self, roster: r, party: resharing.NewLocalParty(params, save, out, end),
		out: out, rounds: 4, round: p.Round, guard: guardMake(tss.Edwards(), p.To.Threshold, nil, p.PublicKey)}
	if err := m.run(ctx, func() bool { return len(end) > 0 }); err != nil {
		return nil, nil, err
	}
	made := <-end
	if old {
		return nil, p.PublicKey, nil
	}
	// A reshare leaves a sum that is not reduced.
	made.Xi.Mod(made.Xi, tss.Edwards().Params().N)
	return encodeEdDSA(made, p.To, p.Self.Party)
}

func eddsaSign(ctx context.Context, s mpc.Session, p mpc.SignParams) ([]byte, error) {
	ec := tss.Edwards()
	if len(p.Input.Message) == 0 || len(p.Input.Message) > mpc.MaxMessage {
		return nil, mpc.ErrInput
	}
	if p.Tweak != nil {
		return nil, mpc.ErrPath
	}
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	r, err := newRoster(ec, quorumMembers(p.Committee, p.Quorum))
	if err != nil {
		return nil, err
	}
	params, err := r.params(ec, self, p.Committee.Threshold)
	if err != nil {
		return nil, err
	}
	key, err := decodeEdDSA(p.Body, p.Committee, p.Self, p.PublicKey)
	if err != nil {
		return nil, err
	}
	defer wipeEdDSA(key)
	out := make(chan tss.Message, outCapacity)
	end := make(chan *common.SignatureData, 1)
	m := &machine{session: s, self: self, roster: r, out: out, rounds: 3,
		party: signing.NewLocalParty(new(big.Int).SetBytes(p.Input.Message), params, *key, out, end, len(p.Input.Message)),
		final: func(c tss.MessageContent) bool { _, is := c.(*signing.SignRound3Message); return is }, guard: guardEdDSASign()}
	if err := m.run(ctx, func() bool { return len(end) > 0 }); err != nil {
		return nil, err
	}
	return (<-end).Signature, nil
}
