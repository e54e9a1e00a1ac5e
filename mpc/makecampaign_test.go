package mpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/frost"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

// Simulated keygens and reshares, on the network of campaign_test.go. For every one:
// it ends within its deadline; honest members that have a share agree on one public
// key, which of a reshare is the old one; no honest member is blamed for misconduct;
// where nothing was lost or changed all succeed, and the new shares sign.

// maker is what one simulation makes.
type maker struct {
	name   string
	engine mpc.Engine
	id     string // of the engine, in the new set
	scheme mpc.Scheme
	// from is reshared; its zero value means a keygen.
	from    mpctest.Set
	parties []mpc.Party
	pre     bool
}

func simulateMake(t *testing.T, m maker, seed uint64) fault {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	to := mpc.Committee{SetID: fmt.Sprintf("made-%d", seed), Scheme: m.scheme, Parties: m.parties, Threshold: 2}
	n := &network{rng: rng, fault: fault(rng.IntN(int(faults))), culprit: m.parties[rng.IntN(len(m.parties))], held: map[mpc.Member]func(){}}
	synctest.Test(t, func(t *testing.T) {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("seed %d, %s, %v, culprit %s: %s", seed, m.name, n.fault, n.culprit, fmt.Sprintf(format, args...))
		}
		var pre []*mpc.PreParams
		for i := range m.parties {
			if m.pre {
				p, err := mpc.ParsePreParams(mpctest.EncodedPreParams(t, i))
				if err != nil {
					t.Fatal(err)
				}
				defer p.Destroy()
				pre = append(pre, p)
			}
		}
		var from *mpc.ShareSet
		var shares [][]byte
		if m.from.ID != "" {
			from, shares = &m.from.ShareSet, m.from.Shares(t)[:m.from.Threshold]
		}
		ctx, cancel := context.WithTimeout(t.Context(), mpc.MakeDeadline)
		defer cancel()
		start := time.Now()
		all, err := mpc.SimulateMake(ctx, m.engine, from, shares, to, pre, n.relay)
		if err != nil {
			fail("%v", err)
		}
		if took := time.Since(start); took > mpc.MakeDeadline {
			fail("took %v, more than the deadline", took)
		}
		var made []mpc.Made
		var key []byte
		if from != nil {
			key = from.PublicKey
		}
		for _, o := range all {
			if o.Err != nil {
				if n.fault < dropped {
					fail("%s: %v, though nothing was lost or changed", o.Member, o.Err)
				}
				blameIsRight(o, n.culprit, fail)
				continue
			}
			if o.SetID != to.SetID {
				continue
			}
			made = append(made, o)
			if o.Party == n.culprit && n.fault >= dropped {
				continue
			}
			if key == nil {
				key = o.PublicKey
			}
			if !bytes.Equal(o.PublicKey, key) {
				fail("%s has key %x, others %x", o.Member, o.PublicKey, key)
			}
		}
		if len(made) == len(m.parties) && n.fault < dropped {
			set := mpc.ShareSet{ID: to.SetID, Scheme: m.scheme, Parties: m.parties, Threshold: 2, Epoch: 1, Engine: m.id, PublicKey: key}
			if err := mpc.SignWithBodies(t.Context(), set, made); err != nil {
				fail("the new shares do not sign: %v", err)
			}
		}
		time.Sleep(time.Minute) // timers of the network end with the bubble
	})
	return n.fault
}

// blameIsRight fails when an honest member says that an honest party broke the protocol.
func blameIsRight(o mpc.Made, culprit mpc.Party, fail func(string, ...any)) {
	var b *mpc.Blame
	if o.Party == culprit || !errors.As(o.Err, &b) || !errors.Is(o.Err, mpc.ErrProtocol) {
		return
	}
	for _, c := range b.Culprits {
		if c.Party != culprit {
			fail("%s blames %s, who is honest: %v", o.Member, c.Party, o.Err)
		}
	}
}

func makings(t *testing.T, n int, first uint64, ms ...maker) {
	t.Helper()
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	tally := map[fault]int{}
	for i := range uint64(n) {
		seed := first + i
		tally[simulateMake(t, ms[seed%uint64(len(ms))], seed)]++
	}
	t.Logf("%d ceremonies from seed %d: %v", n, first, tally)
}

var (
	three = []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}
	two   = []mpc.Party{mpc.Delegate, mpc.Server}
)

func TestSimulatedMakingFROST(t *testing.T) {
	ed := chains.EdDSAEd25519
	makings(t, count(200, 4000), firstSeed(),
		maker{name: "keygen of three", engine: frost.Engine{}, id: frost.ID, scheme: ed, parties: three},
		maker{name: "keygen of two", engine: frost.Engine{}, id: frost.ID, scheme: ed, parties: two},
		maker{name: "issue", engine: frost.Engine{}, id: frost.ID, scheme: ed, from: mpctest.Ed25519RootSet(t), parties: two},
		maker{name: "rotation", engine: frost.Engine{}, id: frost.ID, scheme: ed, from: mpctest.Ed25519RootSet(t), parties: three})
}

func TestSimulatedMakingTSSLibEd25519(t *testing.T) {
	ed, set := chains.EdDSAEd25519, mpctest.Ed25519RootSet(t)
	makings(t, count(8, 160), firstSeed(),
		maker{name: "keygen of three", engine: gg18.Engine{}, id: set.Engine, scheme: ed, parties: three},
		maker{name: "issue", engine: gg18.Engine{}, id: set.Engine, scheme: ed, from: set, parties: two},
		maker{name: "rotation", engine: gg18.Engine{}, id: set.Engine, scheme: ed, from: set, parties: three})
}

func TestSimulatedMakingECDSA(t *testing.T) {
	ec, set := chains.ECDSASecp256k1, mpctest.ECDSARootSet(t)
	makings(t, count(1, 24), firstSeed(),
		maker{name: "issue", engine: gg18.Engine{}, id: gg18.ID, scheme: ec, from: set, parties: two, pre: true},
		maker{name: "keygen of two", engine: gg18.Engine{}, id: gg18.ID, scheme: ec, parties: two, pre: true},
		maker{name: "keygen of three", engine: gg18.Engine{}, id: gg18.ID, scheme: ec, parties: three, pre: true})
}
