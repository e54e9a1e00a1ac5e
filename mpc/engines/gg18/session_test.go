package gg18_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// throughSession plays an attack as another process would: an honest server signs
// over a session with a delegate whose frames are changed on their way. It must end
// with the delegate blamed, or without the message that the session refused.
func throughSession(t *testing.T, set mpctest.Set, change, seen func(mpc.Envelope) mpc.Envelope) {
	t.Helper()
	liar := func(c mpc.Conn, change func(mpc.Envelope) mpc.Envelope) mpc.Conn {
		if change == nil {
			return c
		}
		return &mpctest.Liar{Conn: c, Change: change}
	}
	in := signParams(t, set, mpc.Server).Input
	digest := mpc.InputDigest(in)
	engine := set.Engine
	if in.Message != nil {
		return // FROST signs with sets of Ed25519 keys; it has tests of its own
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := mpc.Pipe()
		defer a.Close()
		p := mpc.Proposal{Op: mpc.OpSign, Engine: engine, Key: "key", Decision: "req", From: &set.ShareSet,
			FromProposer: []mpc.Party{mpc.Server}, FromAcceptor: []mpc.Party{mpc.Delegate}, Kind: "evm_transaction", Payload: []byte("p"), Digest: digest[:]}
		sign := func(j *mpc.Joint, err error, party mpc.Party) error {
			if err != nil {
				return err
			}
			_, err = mpc.Sign(context.Background(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t, party), Input: in, With: j})
			j.Close(err)
			return err
		}
		var delegate sync.WaitGroup
		delegate.Go(func() {
			o, err := mpc.ReadOffer(context.Background(), liar(b, change))
			if err != nil {
				t.Error(err)
				return
			}
			j, err := o.Accept(context.Background())
			_ = sign(j, err, mpc.Delegate)
		})
		j, err := mpc.Propose(context.Background(), liar(a, seen), p)
		err = sign(j, err, mpc.Server)
		delegate.Wait()
		var e *mpc.Error
		switch {
		case err == nil:
			t.Error("through a session: the server has a signature")
		case !errors.As(err, &e) || !slices.Equal(e.Culprits, []mpc.Party{mpc.Delegate}):
			t.Errorf("through a session: error %v, want the delegate blamed", err)
		}
	})
}
