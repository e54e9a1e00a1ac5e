package gg18_test

import (
	"context"
	"crypto/elliptic"
	"math/big"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bnb-chain/tss-lib/v2/common"
	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecresharing "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	ecsigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	edsigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

// The benchmarks compare with tss-lib used plainly, as its own tests do: a
// goroutine for each message, nothing checked besides. Both take turns in one run.
// CPU is of all parties, and all cores.

func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// compare measures ours and plain, plain once for every n of ours.
func compare(b *testing.B, n int, ours, plain func()) {
	ours()
	plain()
	var cpuOurs, cpuPlain, wallOurs, wallPlain time.Duration
	runs := 0
	measure := func(f func(), times int, c, w *time.Duration) {
		before, start := cpu(b), time.Now()
		for range times {
			f()
		}
		*w += time.Since(start)
		*c += cpu(b) - before
	}
	for b.Loop() {
		measure(ours, n, &cpuOurs, &wallOurs)
		measure(plain, 1, &cpuPlain, &wallPlain)
		runs++
	}
	ms := func(d time.Duration, n int) float64 { return float64(d.Microseconds()) / 1000 / float64(n) }
	b.ReportMetric(ms(cpuOurs, runs*n), "ms-cpu")
	b.ReportMetric(ms(wallOurs, runs*n), "ms-wall")
	b.ReportMetric(ms(cpuPlain, runs), "ms-cpu-tsslib")
	b.ReportMetric(ms(wallPlain, runs), "ms-wall-tsslib")
	b.ReportMetric(ms(cpuPlain, runs)/ms(cpuOurs, runs*n), "x-cpu")
	b.ReportMetric(ms(wallPlain, runs)/ms(wallOurs, runs*n), "x-wall")
	b.ReportMetric(0, "ns/op")
}

// plainly routes messages between parties until done says so.
func plainly(b *testing.B, parties map[string]tss.Party, out <-chan tss.Message, done func() bool) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, p := range parties {
		wg.Go(func() {
			if err := p.Start(); err != nil {
				b.Error(err)
			}
		})
	}
	for !done() {
		select {
		case m := <-out:
			wire, r, err := m.WireBytes()
			if err != nil {
				b.Fatal(err)
			}
			to := r.To
			if to == nil {
				for _, p := range parties {
					to = append(to, p.PartyID())
				}
			}
			for _, id := range to {
				if string(id.Key) == string(m.GetFrom().Key) {
					continue
				}
				p := parties[string(id.Key)]
				wg.Go(func() {
					if _, err := p.UpdateFromBytes(wire, m.GetFrom(), r.IsBroadcast); err != nil {
						b.Error(err)
					}
				})
			}
		case <-time.After(time.Millisecond):
		}
	}
}

func sortedIDs(ec elliptic.Curve, members []mpc.Member) tss.SortedPartyIDs {
	var ids tss.UnSortedPartyIDs
	for _, m := range members {
		ids = append(ids, tss.NewPartyID(m.String(), string(m.Party), gg18.PartyKey(ec, m)))
	}
	return tss.SortPartyIDs(ids)
}

func ids(m mpc.Member, ec elliptic.Curve, all tss.SortedPartyIDs) *tss.PartyID {
	i := slices.IndexFunc(all, func(id *tss.PartyID) bool { return id.KeyInt().Cmp(gg18.PartyKey(ec, m)) == 0 })
	return all[i]
}

func BenchmarkSignECDSA(b *testing.B) {
	set, in := mpctest.ECDSADelegateSet(b), chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: [32]byte{1}}
	members := set.Committee().Members()
	compare(b, 1, func() { sign(b, set, in) }, func() {
		all := sortedIDs(tss.S256(), members)
		out, end := make(chan tss.Message, 64), make(chan *common.SignatureData, 2)
		parties := map[string]tss.Party{}
		for _, m := range members {
			key, err := gg18.DecodeECDSA(set.Body(b, m.Party), set.Committee(), m.Party, set.PublicKey)
			if err != nil {
				b.Fatal(err)
			}
			id := ids(m, tss.S256(), all)
			params := tss.NewParameters(tss.S256(), tss.NewPeerContext(all), id, 2, 1)
			parties[string(id.Key)] = ecsigning.NewLocalParty(new(big.Int).SetBytes(in.Digest[:]), params, *key, out, end, 32)
		}
		plainly(b, parties, out, func() bool { return len(end) == 2 })
	})
}

func BenchmarkSignEd25519(b *testing.B) {
	plainSet := mpctest.Ed25519DelegateSet(b)
	set := mpctest.Ed25519RootSet(b).Issue(b, "bench", mpc.Server, mpc.Delegate) // FROST's own form
	in := chains.SignInput{Scheme: chains.EdDSAEd25519, Message: make([]byte, 200)}
	members := plainSet.Committee().Members()
	compare(b, 100, func() { sign(b, set, in) }, func() {
		all := sortedIDs(tss.Edwards(), members)
		out, end := make(chan tss.Message, 64), make(chan *common.SignatureData, 2)
		parties := map[string]tss.Party{}
		for _, m := range members {
			key, err := gg18.DecodeEdDSA(plainSet.Body(b, m.Party), plainSet.Committee(), m.Party, plainSet.PublicKey)
			if err != nil {
				b.Fatal(err)
			}
			id := ids(m, tss.Edwards(), all)
			params := tss.NewParameters(tss.Edwards(), tss.NewPeerContext(all), id, 2, 1)
			parties[string(id.Key)] = edsigning.NewLocalParty(new(big.Int).SetBytes(in.Message), params, *key, out, end, len(in.Message))
		}
		plainly(b, parties, out, func() bool { return len(end) == 2 })
	})
}

func sign(b *testing.B, set mpctest.Set, in chains.SignInput) {
	if _, err := mpc.Sign(b.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(b), Input: in}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkThroughputEd25519 signs on all cores.
func BenchmarkThroughputEd25519(b *testing.B) {
	set := mpctest.Ed25519RootSet(b).Issue(b, "bench", mpc.Server, mpc.Delegate)
	in := chains.SignInput{Scheme: chains.EdDSAEd25519, Message: make([]byte, 200)}
	before, start := cpu(b), time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			sign(b, set, in)
		}
	})
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "sig/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "ms-cpu")
}

// BenchmarkReshareECDSA moves a key from two of three parties to two others.
func BenchmarkReshareECDSA(b *testing.B) {
	root := mpctest.ECDSARootSet(b)
	quorum := []mpc.Party{mpc.Server, mpc.User}
	from, to := root.Committee(), mpc.Committee{SetID: "bench", Scheme: root.Scheme, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	from.Parties = quorum
	members := append(from.Members(), to.Members()...)
	pre := func(i int) *mpc.PreParams {
		p, err := mpc.ParsePreParams(mpctest.EncodedPreParams(b, i))
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	ours := func() {
		ends := mpctest.Wire(members...)
		var wg sync.WaitGroup
		for m, end := range ends {
			wg.Go(func() {
				p := mpc.ReshareParams{Self: m, From: root.Committee(), Quorum: quorum, To: to, PublicKey: root.PublicKey}
				if m.SetID == root.ID {
					p.Body = root.Body(b, m.Party)
				} else {
					p.PreParams = pre(slices.Index(to.Parties, m.Party))
				}
				if _, _, err := (gg18.Engine{}).Reshare(context.Background(), end, p); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	plain := func() {
		old, fresh := sortedIDs(tss.S256(), from.Members()), sortedIDs(tss.S256(), to.Members())
		out, end := make(chan tss.Message, 256), make(chan *eckeygen.LocalPartySaveData, 4)
		parties := map[string]tss.Party{}
		for i, m := range members {
			all, save := old, eckeygen.NewLocalPartySaveData(2)
			if i < 2 {
				key, err := gg18.DecodeECDSA(root.Body(b, m.Party), root.Committee(), m.Party, root.PublicKey)
				if err != nil {
					b.Fatal(err)
				}
				save = *key
			} else {
				all = fresh
				save.LocalPreParams = localPreParams(b, pre(i-2))
			}
			id := ids(m, tss.S256(), all)
			params := tss.NewReSharingParameters(tss.S256(), tss.NewPeerContext(old), tss.NewPeerContext(fresh), id, 2, 1, 2, 1)
			parties[string(id.Key)] = ecresharing.NewLocalParty(params, save, out, end)
		}
		plainly(b, parties, out, func() bool { return len(end) == 4 })
	}
	compare(b, 1, ours, plain)
}

// localPreParams are pre-parameters in tss-lib's form.
func localPreParams(b *testing.B, p *mpc.PreParams) (l eckeygen.LocalPreParams) {
	if err := gg18.WithPreParams(p, func(_ *mpc.PreParamNumbers, pre eckeygen.LocalPreParams) error {
		l = gg18.CopyPreParams(pre)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return l
}
