package gg18_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

// Keys of Ed25519 are FROST's, also those that tss-lib made. So that attacks on
// tss-lib's EdDSA run through a session, it is an engine of its own in these tests,
// and its keygen takes the place of another one's signature.
const (
	eddsaEngine  = "gg18-eddsa-under-test"
	keygenEngine = "gg18-eddsa-keygen-under-test"
)

func init() {
	mpc.Register(eddsaEngine, gg18.Engine{})
	mpc.Register(keygenEngine, keygenAsSign{})
}

type keygenAsSign struct{ gg18.Engine }

// errKeyMade: a keygen with a liar came to its end.
var errKeyMade = errors.New("a key was made")

func (e keygenAsSign) Sign(ctx context.Context, s mpc.Session, p mpc.SignParams) ([]byte, error) {
	if _, _, err := e.Keygen(ctx, s, mpc.KeygenParams{Self: p.Self, Committee: p.Committee}); err != nil {
		return nil, err
	}
	return nil, errKeyMade
}

// joint is a ceremony of two processes: we propose, and are honest.
type joint struct {
	mpc.Proposal
	// ours and theirs are the parts of the two processes.
	ours, theirs func(ctx context.Context, j *mpc.Joint) error
}

// against runs the ceremony with another process whose messages change alters on their
// way, and after ours went through seen. It returns our error.
func (c joint) against(t *testing.T, change, seen func(mpc.Envelope) mpc.Envelope) (err error) {
	t.Helper()
	liar := func(conn mpc.Conn, change func(mpc.Envelope) mpc.Envelope) mpc.Conn {
		if change == nil {
			return conn
		}
		return &mpctest.Liar{Conn: conn, Change: change}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		a, b := mpc.Pipe()
		defer a.Close()
		play := func(j *mpc.Joint, err error, part func(context.Context, *mpc.Joint) error) error {
			if err != nil {
				return err
			}
			err = part(ctx, j)
			j.Close(err)
			return err
		}
		var other sync.WaitGroup
		other.Go(func() {
			o, err := mpc.ReadOffer(ctx, liar(b, change))
			if err != nil {
				t.Error(err)
				return
			}
			j, err := o.Accept(ctx)
			_ = play(j, err, c.theirs)
		})
		j, e := mpc.Propose(ctx, liar(a, seen), c.Proposal)
		err = play(j, e, c.ours)
		other.Wait()
	})
	return err
}

// blames insists that a ceremony failed and that the other process's parties, and
// nobody else, are named. Where want is not "", the error says so.
func (c joint) blames(t *testing.T, err error, want string) {
	t.Helper()
	theirs := slices.Concat(c.FromAcceptor, c.ToAcceptor)
	var e *mpc.Error
	switch {
	case err == nil:
		t.Error("through a session: it came to its end")
	case !errors.As(err, &e) || len(e.Culprits) == 0 || slices.ContainsFunc(e.Culprits, func(p mpc.Party) bool { return !slices.Contains(theirs, p) }):
		t.Errorf("through a session: error %v, want blame of %v", err, theirs)
	case !strings.Contains(err.Error(), want):
		t.Errorf("through a session: error %v, want %q", err, want)
	}
}

// signing is a signature of server and delegate.
func signing(t *testing.T, set mpctest.Set) joint {
	in := signParams(t, set, mpc.Server).Input
	digest := mpc.InputDigest(in)
	sign := func(party mpc.Party) func(context.Context, *mpc.Joint) error {
		return func(ctx context.Context, j *mpc.Joint) error {
			_, err := mpc.Sign(ctx, mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t, party), Input: in, With: j})
			return err
		}
	}
	return joint{mpc.Proposal{Op: mpc.OpSign, Engine: set.Engine, Key: "key", Decision: "req", From: &set.ShareSet, FromProposer: []mpc.Party{mpc.Server},
		FromAcceptor: []mpc.Party{mpc.Delegate}, Kind: "evm_transaction", Payload: []byte("p"), Digest: digest[:]}, sign(mpc.Server), sign(mpc.Delegate)}
}

// throughSession plays an attack on a signature as another process would.
func throughSession(t *testing.T, set mpctest.Set, change, seen func(mpc.Envelope) mpc.Envelope) {
	t.Helper()
	if set.Scheme == chains.EdDSAEd25519 {
		set = set.WithEngine(t, eddsaEngine)
	}
	c := signing(t, set)
	c.blames(t, c.against(t, change, seen), "")
}
