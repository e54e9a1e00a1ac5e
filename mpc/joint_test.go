package mpc_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// The tests play two processes in one: each has its own end of a pipe, its own
// shares and its own goroutine, and nothing else in common.

// side is what one process does with the session it has.
type side func(ctx context.Context, j *mpc.Joint) error

// together has one side propose and the other accept, and returns both ends' errors.
func together(t testing.TB, p mpc.Proposal, proposer, acceptor side) (atProposer, atAcceptor error) {
	t.Helper()
	a, b := mpc.Pipe()
	defer a.Close()
	return over(t, a, b, p, proposer, acceptor)
}

func over(t testing.TB, a, b mpc.Conn, p mpc.Proposal, proposer, acceptor side) (atProposer, atAcceptor error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	run := func(open func() (*mpc.Joint, error), do side, err *error) {
		wg.Go(func() {
			j, e := open()
			if e != nil {
				*err = e
				return
			}
			*err = do(ctx, j)
			j.Close(*err)
		})
	}
	run(func() (*mpc.Joint, error) { return mpc.Propose(ctx, a, p) }, proposer, &atProposer)
	run(func() (*mpc.Joint, error) {
		o, err := mpc.ReadOffer(ctx, b)
		if err != nil {
			return nil, err
		}
		return o.Accept(ctx)
	}, acceptor, &atAcceptor)
	wg.Wait()
	return atProposer, atAcceptor
}

// made is what one side of a keygen or an issue holds.
type made struct {
	set    mpc.ShareSet
	shares [][]byte
}

func (m *made) keep(t testing.TB, set mpc.ShareSet, shares []*mpc.Share) {
	m.set = set
	for _, s := range shares {
		if err := s.Lend(func(b []byte) error { m.shares = append(m.shares, bytes.Clone(b)); return nil }); err != nil {
			t.Error(err)
		}
		s.Destroy()
	}
}

// parties are those whose shares one side holds.
func (m made) parties(t testing.TB) (ps []mpc.Party) {
	for _, s := range m.shares {
		_, p, err := mpc.DescribeShare(s)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func engineOf(s chains.Scheme) string {
	if s == chains.ECDSASecp256k1 {
		return "gg18-tsslib-v2.0.2"
	}
	return "frost-ed25519-v1"
}

// jointKeygen has one side play what is in here, the other side the rest of a root set.
func jointKeygen(t testing.TB, scheme chains.Scheme, id string, parties, here []mpc.Party) (a, b made) {
	t.Helper()
	slices.Sort(parties)
	there := slices.DeleteFunc(slices.Clone(parties), func(p mpc.Party) bool { return slices.Contains(here, p) })
	p := mpc.Proposal{Op: mpc.OpKeygen, Engine: engineOf(scheme), Key: "key_1", Decision: "cer_1",
		To:         &mpc.ShareSet{ID: id, Scheme: scheme, Parties: parties, Threshold: 2, Epoch: 1, Engine: engineOf(scheme)},
		ToProposer: here, ToAcceptor: there}
	pre := [2]func(context.Context) (*mpc.PreParams, error){mpctest.PreParams(t), mpctest.PreParams(t)}
	for range here { // no prime twice in a set
		if p, err := pre[1](t.Context()); err == nil {
			p.Destroy()
		}
	}
	part := func(i int, m *made) side {
		return func(ctx context.Context, j *mpc.Joint) error {
			set, shares, err := mpc.Keygen(ctx, mpc.KeygenRequest{SetID: id, Scheme: scheme, Parties: parties, Threshold: 2, PreParams: pre[i], With: j})
			m.keep(t, set, shares)
			return err
		}
	}
	if err := errors.Join(together(t, p, part(0, &a), part(1, &b))); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// signProposal is for what both sides hold.
func signProposal(t testing.TB, a, b made, in chains.SignInput) mpc.Proposal {
	digest := mpc.InputDigest(in)
	return mpc.Proposal{Op: mpc.OpSign, Engine: engineOf(a.set.Scheme), Key: "key_1", Decision: "req_1", From: &a.set, FromProposer: a.parties(t), FromAcceptor: b.parties(t),
		Kind: chains.KindSolanaMessage, Payload: []byte("payload"), Digest: digest[:]}
}

// jointSign signs with what both sides hold and checks that both have one signature that verifies.
func jointSign(t testing.TB, a, b made, in chains.SignInput) {
	t.Helper()
	var sigs [2]mpc.Signature
	part := func(i int, m made) side {
		return func(ctx context.Context, j *mpc.Joint) (err error) {
			sigs[i], err = mpc.Sign(ctx, mpc.SignRequest{Set: m.set, Shares: m.shares, Input: in, With: j})
			return err
		}
	}
	if err := errors.Join(together(t, signProposal(t, a, b, in), part(0, a), part(1, b))); err != nil {
		t.Fatal(err)
	}
	if sigs[0] != sigs[1] {
		t.Errorf("the sides have different signatures: %x and %x", sigs[0].Bytes(), sigs[1].Bytes())
	}
	if err := mpc.Verify(a.set, in, sigs[0].Bytes()); err != nil {
		t.Error(err)
	}
}

func inputOf(s chains.Scheme) chains.SignInput {
	if s == chains.ECDSASecp256k1 {
		return digestInput("together")
	}
	return messageInput([]byte("together"))
}

func TestTwoProcessesMakeAKeyAndSign(t *testing.T) {
	for _, scheme := range []chains.Scheme{chains.EdDSAEd25519, chains.ECDSASecp256k1} {
		t.Run(string(scheme), func(t *testing.T) {
			root := []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}
			here := []mpc.Party{mpc.Recovery, mpc.Server}
			if scheme == chains.ECDSASecp256k1 {
				root, here = []mpc.Party{mpc.User, mpc.Server}, []mpc.Party{mpc.Server} // seconds, not half a minute
			}
			daemon, device := jointKeygen(t, scheme, "joint-"+string(scheme), root, here)
			if len(daemon.shares) != len(here) || len(device.shares) != 1 {
				t.Fatalf("the sides hold %d and %d shares, want %d and 1", len(daemon.shares), len(device.shares), len(here))
			}
			daemon.shares = daemon.shares[len(daemon.shares)-1:] // the server's
			jointSign(t, daemon, device, inputOf(scheme))
		})
	}
}

// A delegation whose delegate is another process: that one gets a share of a key of
// which it had none.
func TestIssueToAnotherProcess(t *testing.T) {
	root := mpctest.Ed25519RootSet(t)
	from := root.ShareSet
	to := from
	to.ID, to.Parties, to.Epoch, to.Engine = "issued-elsewhere", []mpc.Party{mpc.Delegate, mpc.Server}, 2, engineOf(from.Scheme)
	p := mpc.Proposal{Op: mpc.OpIssue, Engine: to.Engine, Key: "key_1", Decision: "cer_1", From: &from, To: &to,
		FromProposer: []mpc.Party{mpc.Recovery, mpc.Server}, ToProposer: []mpc.Party{mpc.Server}, ToAcceptor: []mpc.Party{mpc.Delegate}}
	var a, b made
	part := func(m *made, quorum [][]byte) side {
		return func(ctx context.Context, j *mpc.Joint) error {
			set, shares, err := mpc.Issue(ctx, mpc.IssueRequest{From: from, Quorum: quorum, SetID: to.ID, Parties: to.Parties, Threshold: 2, With: j})
			m.keep(t, set, shares)
			return err
		}
	}
	if err := errors.Join(together(t, p, part(&a, root.Shares(t, mpc.Recovery, mpc.Server)), part(&b, nil))); err != nil {
		t.Fatal(err)
	}
	jointSign(t, a, b, inputOf(from.Scheme))
}
