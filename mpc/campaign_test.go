package mpc_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/frost"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

// Simulated ceremonies: real engines and real sessions over a network that loses,
// delays, repeats, reorders and changes messages, and with a party that lies. Time
// is synctest's, so that a silent minute costs nothing. Every ceremony has a seed,
// which a failure prints; -seed runs it again.

var (
	campaign = flag.Bool("campaign", false, "run the whole campaign, hours, in place of its short version")
	oneSeed  = flag.Uint64("seed", 0, "run the ceremony of this seed only")
)

// count is how many ceremonies of a kind run.
func count(short, long int) int {
	if *campaign {
		return long
	}
	return short
}

// fault is what happens to some messages of one party, the culprit.
type fault int

const (
	none fault = iota
	delayed
	duplicated
	reordered
	dropped
	mutated
	lying
	faults
)

func (f fault) String() string {
	return []string{"none", "delayed", "duplicated", "reordered", "dropped", "mutated", "lying"}[f]
}

// network plays the faults of one ceremony.
type network struct {
	fault   fault
	culprit mpc.Party

	mu   sync.Mutex // guards what follows
	rng  *rand.Rand
	held map[mpc.Member]func() // a message that the next one overtakes
	past [][]byte              // payloads that were seen, for the liar to use again
}

func (n *network) relay(e mpc.Envelope, to mpc.Member, deliver func(mpc.Envelope)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e.Payload = slices.Clone(e.Payload)
	n.past = append(n.past, slices.Clone(e.Payload))
	if e.From.Party != n.culprit || n.rng.IntN(2) == 0 {
		deliver(e)
		n.overtaken(to)
		return
	}
	switch n.fault {
	case delayed:
		time.AfterFunc(time.Duration(n.rng.IntN(20))*time.Second, func() { deliver(e) })
		return
	case duplicated:
		deliver(e)
		for range 1 + n.rng.IntN(3) {
			again := e
			again.Payload = slices.Clone(e.Payload)
			if n.rng.IntN(2) == 0 {
				again.Payload[n.rng.IntN(len(again.Payload))] ^= 1
			}
			deliver(again)
		}
	case reordered:
		if n.held[to] == nil {
			once := sync.OnceFunc(func() { deliver(e) })
			n.held[to] = once
			time.AfterFunc(5*time.Second, once) // nothing may come after it
			return
		}
		deliver(e)
	case dropped:
		return
	case mutated:
		e.Payload = n.mutate(e.Payload)
		deliver(e)
	case lying:
		// Well-formed lies: what was said before, by whomever, in another place.
		if p := n.past[n.rng.IntN(len(n.past))]; len(p) == len(e.Payload) {
			e.Payload = p
		} else {
			e.Payload = n.mutate(e.Payload)
		}
		deliver(e)
	default:
		deliver(e)
	}
	n.overtaken(to)
}

// overtaken lets go what the message just delivered overtook.
func (n *network) overtaken(to mpc.Member) {
	if late := n.held[to]; late != nil {
		n.held[to] = nil
		late()
	}
}

func (n *network) mutate(b []byte) []byte {
	switch n.rng.IntN(5) {
	case 0:
		return b[:n.rng.IntN(len(b)+1)]
	case 1:
		return append(b, byte(n.rng.Uint32()))
	case 2:
		for i := range b {
			b[i] = byte(n.rng.Uint32())
		}
	default:
		for range 1 + n.rng.IntN(4) {
			b[n.rng.IntN(len(b))] ^= 1 << n.rng.IntN(8)
		}
	}
	return b
}

// simulate runs one ceremony and checks what must hold for every one:
// no signature that does not verify, an end within the deadline, and no blame of
// misconduct on a party that is honest.
func simulate(t *testing.T, engine mpc.Engine, set mpctest.Set, quorum []mpc.Party, seed uint64) fault {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	n := &network{rng: rng, fault: fault(rng.IntN(int(faults))), culprit: quorum[rng.IntN(len(quorum))], held: map[mpc.Member]func(){}}
	in := messageInput(fmt.Appendf(nil, "ceremony %d", seed))
	if set.Scheme == chains.ECDSASecp256k1 {
		in = digestInput(fmt.Sprint("ceremony ", seed))
	}
	synctest.Test(t, func(t *testing.T) {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("seed %d, %s, %v, culprit %s: %s", seed, set.ID, n.fault, n.culprit, fmt.Sprintf(format, args...))
		}
		ctx, cancel := context.WithTimeout(t.Context(), mpc.SignDeadline)
		defer cancel()
		start := time.Now()
		outcomes, err := mpc.Simulate(ctx, engine, set.ShareSet, set.Shares(t, quorum...), in, n.relay)
		if err != nil {
			fail("%v", err)
		}
		if took := time.Since(start); took > mpc.SignDeadline {
			fail("took %v, more than the deadline", took)
		}
		for _, o := range outcomes {
			if o.Err == nil {
				if err := mpc.Verify(set.ShareSet, in, o.Signature); err != nil {
					fail("%s released %x: %v", o.Party, o.Signature, err)
				}
				continue
			}
			if n.fault < dropped {
				fail("%s: %v, though nothing was lost or changed", o.Party, o.Err)
			}
			var b *mpc.Blame
			if o.Party == n.culprit || !errors.As(o.Err, &b) || !errors.Is(o.Err, mpc.ErrProtocol) {
				continue
			}
			for _, c := range b.Culprits {
				if c.Party != n.culprit {
					fail("%s blames %s, who is honest: %v", o.Party, c.Party, o.Err)
				}
			}
		}
		time.Sleep(time.Minute) // timers of the network end with the bubble
	})
	return n.fault
}

// simulations runs count ceremonies over sets in turn.
func simulations(t *testing.T, engine mpc.Engine, count int, first uint64, sets ...mpctest.Set) {
	t.Helper()
	if *oneSeed != 0 {
		first, count = *oneSeed, 1
	}
	tally := map[fault]int{}
	for i := range uint64(count) {
		seed := first + i
		set := sets[seed%uint64(len(sets))]
		quorum := set.Parties // with a root set, all three sign
		tally[simulate(t, engine, set, quorum, seed)]++
	}
	t.Logf("%d ceremonies from seed %d: %v", count, first, tally)
}

// firstSeed is the seed a run begins with: another one each day a campaign runs.
func firstSeed() uint64 {
	if *campaign {
		return uint64(time.Now().Unix()) << 20
	}
	return 1
}

func TestSimulatedFROST(t *testing.T) {
	root := mpctest.Keygen(t, mpc.KeygenRequest{SetID: "sim-root", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2})
	simulations(t, frost.Engine{}, count(500, 9500), firstSeed(), root, root.Issue(t, "sim-two", mpc.Server, mpc.Delegate), mpctest.Ed25519RootSet(t))
}

func TestSimulatedTSSLibEd25519(t *testing.T) {
	simulations(t, gg18.Engine{}, count(20, 400), firstSeed(), mpctest.Ed25519DelegateSet(t), mpctest.Ed25519RootSet(t))
}

func TestSimulatedECDSA(t *testing.T) {
	sets := []mpctest.Set{mpctest.ECDSADelegateSet(t)}
	if *campaign {
		sets = append(sets, mpctest.ECDSARootSet(t))
	}
	first := firstSeed()
	if !*campaign {
		first = 98 // five different faults, a liar among them
	}
	simulations(t, gg18.Engine{}, count(5, 100), first, sets...)
}

// Two signatures with one R give the key away. Every second ECDSA signature is made
// with a presignature.
func TestRValuesAreAllDifferent(t *testing.T) {
	ed, ec := mpctest.Ed25519DelegateSet(t).Issue(t, "r-values", mpc.Server, mpc.Delegate), mpctest.ECDSADelegateSet(t)
	edShares, ecShares := ed.Shares(t), ec.Shares(t)
	message, digest := messageInput([]byte("the same message")), digestInput("the same digest")
	whole := func(set mpctest.Set, shares [][]byte, in chains.SignInput) (mpc.Signature, error) {
		return mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: shares, Input: in})
	}
	for _, tc := range []struct {
		name string
		n    int
		sign func(i int) (mpc.Signature, error)
	}{
		{"FROST", count(1000, 1_000_000), func(int) (mpc.Signature, error) { return whole(ed, edShares, message) }},
		{"ECDSA", count(4, 2000), func(i int) (mpc.Signature, error) {
			if i%2 == 0 {
				return whole(ec, ecShares, digest)
			}
			p, err := mpc.Presign(t.Context(), mpc.PresignRequest{Set: ec.ShareSet, Shares: ecShares})
			if err != nil {
				return mpc.Signature{}, err
			}
			return p.Sign(t.Context(), digest, nil)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen := make(map[[32]byte]struct{}, tc.n)
			for i := range tc.n {
				sig, err := tc.sign(i)
				if err != nil {
					t.Fatal(err)
				}
				if _, again := seen[sig.R]; again {
					t.Fatalf("signature %d has an R that was there: %x", i, sig.R)
				}
				seen[sig.R] = struct{}{}
				if (i+1)%max(1, tc.n/20) == 0 {
					t.Logf("%d signatures with as many R", len(seen))
				}
			}
		})
	}
}

// What 1,000 FROST and 20 ECDSA ceremonies leave behind: no goroutine, and no more than 1 MB.
func TestCeremoniesLeaveNothing(t *testing.T) {
	leavesNothing(t)
	const limit = 1 << 20
	run := func(set mpctest.Set, n int, in chains.SignInput) {
		shares := set.Shares(t)
		for i := range n {
			if in.Scheme == chains.ECDSASecp256k1 && i%2 == 1 {
				presign(t, set).Destroy() // half of them end as presignatures that nobody used
				continue
			}
			if _, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: shares, Input: in}); err != nil {
				t.Fatal(err)
			}
		}
	}
	both := func(frost, ecdsa int) {
		run(mpctest.Ed25519DelegateSet(t), frost, messageInput([]byte("m")))
		run(mpctest.ECDSADelegateSet(t), ecdsa, digestInput("d"))
	}
	both(2, 2) // tables and pools
	before := heap()
	both(1000, 20)
	if after := heap(); after > before+limit {
		t.Errorf("the ceremonies left %d bytes, want at most %d", after-before, limit)
	} else {
		t.Logf("the ceremonies left %d bytes", int64(after)-int64(before))
	}
}

func heap() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
