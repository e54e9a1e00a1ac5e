package mpctest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
)

// roundsEngine is an engine without mathematics: its signature is rounds of one
// message of 256 bytes each way, and no signature at all.
type roundsEngine struct{ mpc.Engine }

const (
	roundsID     = "mpctest-rounds"
	roundsInOne  = 30 // a session takes at most 32 kinds of message
	roundMessage = 256
)

var (
	registerRounds = sync.OnceFunc(func() { mpc.Register(roundsID, roundsEngine{}) })
	roundsTook     = make(chan time.Duration, 2)
)

func (roundsEngine) Sign(ctx context.Context, s mpc.Session, p mpc.SignParams) ([]byte, error) {
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	kinds := map[string][]mpc.Member{}
	for i := range roundsInOne {
		kinds[fmt.Sprint(i)] = p.Committee.Members()
	}
	x := mpc.NewExchange(s, self, kinds)
	start := time.Now()
	for i := range roundsInOne {
		if err := x.Broadcast(ctx, fmt.Sprint(i), p.Committee.Members(), make([]byte, roundMessage), false); err != nil {
			return nil, err
		}
		if _, err := x.Collect(ctx, fmt.Sprint(i), roundMessage); err != nil {
			return nil, err
		}
	}
	roundsTook <- time.Since(start)
	return make([]byte, 64), nil
}

// BenchmarkRounds reports what a round costs between two processes that dial
// connects: a message of 256 bytes each way, ns/round, and a whole session with its
// handshake as ns/op less its rounds.
func BenchmarkRounds(b *testing.B, dial func() (proposer, acceptor mpc.Conn, done func())) {
	registerRounds()
	set := Ed25519DelegateSet(b).WithEngine(b, roundsID)
	shares := set.Shares(b)
	in := chains.SignInput{Scheme: set.Scheme, Message: []byte("m")}
	digest := sha256.Sum256(in.Message)
	p := mpc.Proposal{Op: mpc.OpSign, Engine: roundsID, Key: "key", Decision: "bench", From: &set.ShareSet,
		FromProposer: set.Parties[:1], FromAcceptor: set.Parties[1:], Kind: chains.KindSolanaMessage, Payload: in.Message, Digest: digest[:]}
	sign := func(i int, j *mpc.Joint, err error) {
		if err == nil {
			_, err = mpc.Sign(b.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: shares[i : i+1], Input: in, With: j})
			j.Close(nil)
		}
		if !errors.Is(err, mpc.ErrSignature) { // the one thing it can't do
			b.Error(err)
		}
	}
	var rounds time.Duration
	b.ReportAllocs()
	for b.Loop() {
		one, other, done := dial()
		var acceptor sync.WaitGroup
		acceptor.Go(func() {
			o, err := mpc.ReadOffer(b.Context(), other)
			if err != nil {
				b.Error(err)
				return
			}
			j, err := o.Accept(b.Context())
			sign(1, j, err)
		})
		j, err := mpc.Propose(b.Context(), one, p)
		sign(0, j, err)
		acceptor.Wait()
		done()
		if b.Failed() {
			return
		}
		rounds += max(<-roundsTook, <-roundsTook)
	}
	b.ReportMetric(float64(rounds.Nanoseconds())/float64(b.N*roundsInOne), "ns/round")
}
