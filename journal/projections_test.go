package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/holiman/uint256"
	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/vault"
)

// slowFold is the meaning of the entries, told again in the plainest way.
type slowFold struct {
	approvals map[uint64]*slowApproval
	requests  map[string]string // request id → state
	replays   map[string]string
}

type slowApproval struct {
	e        Entry
	endMS    int64 // 0: in flight
	refunded bool
}

func foldSlowly(es []Entry) *slowFold {
	s := &slowFold{approvals: map[uint64]*slowApproval{}, requests: map[string]string{}, replays: map[string]string{}}
	for _, e := range es {
		a := s.approvals[e.ApprovedSeq]
		switch e.Kind {
		case KindApproved:
			s.approvals[e.Seq] = &slowApproval{e: e}
			s.requests[e.RequestID] = "approved"
		case KindSigned, KindFailed, KindOutcomeUnknown:
			a.endMS, a.refunded = e.TimeMS, e.Refunded()
			s.requests[a.e.RequestID] = string(e.Kind)
		case KindAct:
			if e.RequestID != "" {
				s.requests[e.RequestID] = "done"
			}
		}
	}
	for _, a := range s.approvals {
		if !a.refunded {
			for _, k := range a.e.ReplayKeys {
				s.replays[k] = a.e.Digest
			}
		}
	}
	return s
}

func (s *slowFold) spent(scope Scope, asset, what string, sinceMS int64) (sum *uint256.Int, unbounded bool, count int) {
	sum = new(uint256.Int)
	for _, a := range s.approvals {
		of := map[scopeKind]string{scopeDelegation: a.e.Delegation, scopeWallet: a.e.Wallet, scopeOrganization: a.e.Organization, scopeUser: a.e.User}[scope.kind]
		if of != scope.id || a.refunded || a.endMS != 0 && a.endMS <= sinceMS {
			continue
		}
		hit := asset == AnyAsset && scope.to == ""
		for _, c := range a.e.Charges {
			if asset != AnyAsset && c.Asset != asset || scope.to != "" && scope.to != c.To || what == ButFees && c.What == "fee" {
				continue
			}
			hit = true
			if asset == AnyAsset {
				continue
			}
			if c.Unbounded {
				unbounded = true
			} else {
				sum.Add(sum, uint256.MustFromDecimal(c.Amount))
			}
		}
		if hit {
			count++
		}
	}
	return sum, unbounded, count
}

// compare holds the journal's projections against the slow fold of its entries.
func (f *fixture) compare(when string) {
	f.t.Helper()
	es, err := f.j.Entries(context.Background(), 1, 1<<20)
	if err != nil {
		f.t.Fatal(err)
	}
	s := foldSlowly(es)
	now := f.clock.now().UnixMilli()
	for _, scope := range []Scope{ByDelegation("d0"), ByDelegation("d1"), ByWallet("w0"), ByOrganization("org"), ByOrganization("none"), ByUser("user"),
		ByOrganization("org").To("alice"), ByDelegation("d0").To("bob")} {
		for _, asset := range []string{eth, "other", AnyAsset} {
			for _, what := range []string{AllCharges, ButFees} {
				if asset == AnyAsset && what == ButFees || scope.to != "" && asset != AnyAsset && what == AllCharges {
					continue // nobody keeps these
				}
				for _, back := range []int64{0, 1, 500, 5_000, 60_000, now} {
					got := f.j.Spent(scope, asset, what, time.UnixMilli(now-back))
					sum, unbounded, count := s.spent(scope, asset, what, now-back)
					if !got.Sum.Eq(sum) || got.Unbounded != unbounded || got.Count != count {
						f.t.Fatalf("%s: spent %v %s %q within %d ms = %s, %v, %d; want %s, %v, %d",
							when, scope, asset, what, back, got.Sum.Dec(), got.Unbounded, got.Count, sum.Dec(), unbounded, count)
					}
				}
			}
		}
	}
	for id, want := range s.requests {
		if got, ok, _ := f.j.Request("org", id); !ok || string(got.State) != want {
			f.t.Fatalf("%s: request %s is %q (%v), want %q", when, id, got.State, ok, want)
		}
	}
	held := map[string]string{}
	for k, r := range f.j.proj.replays {
		held[k] = r.digest
	}
	if !maps.Equal(held, s.replays) {
		f.t.Fatalf("%s: replay keys %v, want %v", when, held, s.replays)
	}
	if len(f.j.proj.requests) != len(s.requests) {
		f.t.Fatalf("%s: %d requests, want %d", when, len(f.j.proj.requests), len(s.requests))
	}
}

// randomEntry is plausible more often than not.
func randomEntry(rng *rand.Rand, approved []uint64, n int) Entry {
	switch k := rng.IntN(10); {
	case k < 4 || len(approved) == 0:
		id := fmt.Sprint("r", rng.IntN(n+5))
		e := approval(id, rng.IntN(1000))
		e.Delegation, e.Wallet = fmt.Sprint("d", rng.IntN(2)), fmt.Sprint("w", rng.IntN(2))
		if rng.IntN(4) == 0 {
			e.Charges = append(e.Charges, Charge{Asset: eth, Amount: "5", What: "transfer", To: "alice"}, Charge{Asset: "other", Unbounded: true, What: "transfer", To: []string{"alice", "bob"}[rng.IntN(2)]})
		}
		if rng.IntN(5) == 0 {
			e.ReplayKeys = append(e.ReplayKeys, "shared:"+strconv.Itoa(rng.IntN(3)))
		}
		return e
	case k < 6:
		return signedEntry(approved[rng.IntN(len(approved))], "answer")
	case k < 8:
		return failedEntry(approved[rng.IntN(len(approved))], rng.IntN(2) == 0)
	case k < 9:
		return Entry{Kind: KindOutcomeUnknown, ApprovedSeq: approved[rng.IntN(len(approved))]}
	}
	return Entry{Kind: KindAct, Organization: "org", RequestID: fmt.Sprint("r", rng.IntN(2*n+5)), RequestHash: hashOf("x"), Answer: []byte("y")}
}

func TestProjectionsEqualASlowRefold(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 99))
			f := newFixture(t)
			var approved []uint64
			refused, rolledBack := 0, 0
			boom := errors.New("boom")
			for n := range 150 {
				f.clock.add(time.Duration(rng.IntN(900)) * time.Millisecond)
				// An update of one to four entries; some updates fail in the end.
				fail := rng.IntN(4) == 0
				var fresh []uint64
				err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
					for range 1 + rng.IntN(4) {
						e := randomEntry(rng, append(slices.Clone(approved), fresh...), n)
						seq, err := f.j.Append(tx, e)
						if err != nil {
							refused++ // and nothing of it may remain
						} else if e.Kind == KindApproved {
							fresh = append(fresh, seq)
						}
					}
					if fail {
						return boom
					}
					return nil
				})
				switch {
				case err == nil:
					approved = append(approved, fresh...)
				case errors.Is(err, boom):
					rolledBack++
				default:
					t.Fatal(err)
				}
				if n%30 == 29 {
					f.compare(fmt.Sprint("step ", n))
				}
			}
			if refused == 0 || rolledBack == 0 {
				t.Errorf("%d entries refused, %d updates rolled back; want some of each", refused, rolledBack)
			}
			// What is folded from the file is the same, once the file's open approvals
			// are ended here too, as Open does.
			for _, seq := range f.j.proj.flying() {
				f.must(Entry{Kind: KindOutcomeUnknown, ApprovedSeq: seq})
			}
			before := f.j.proj
			f.reopen()
			f.compare("after a restart")
			if !reflect.DeepEqual(before.requests, f.j.proj.requests) || !reflect.DeepEqual(before.replays, f.j.proj.replays) {
				t.Error("requests or replay keys differ after a restart")
			}
		})
	}
}

// A batch whose commit fails takes the projections back with it.
func TestAFullDiskUndoesTheProjections(t *testing.T) {
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "mode=0700,size=1m"); err != nil {
		t.Fatalf("mounting a small tmpfs (tests run as root): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	f := newFixtureIn(t, filepath.Join(mnt, "state"))
	a := f.must(approval("r1", 100))
	b := f.must(approval("r2", 10))
	f.must(Entry{Kind: KindOutcomeUnknown, ApprovedSeq: b})
	f.clock.add(time.Minute)
	err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
		for _, e := range []Entry{signedEntry(a, "s"), signedEntry(b, "late"), approval("r3", 1)} {
			if _, err := f.j.Append(tx, e); err != nil {
				return err
			}
		}
		at := f.j.At(tx)
		if s, ok, _ := at.Request("org", "r1"); !ok || s.State != StateSigned {
			return fmt.Errorf("within the update r1 is %+v", s)
		}
		if s := at.Spent(ByDelegation("delegation"), eth, ButFees, time.Time{}); s.Count != 3 {
			return fmt.Errorf("within the update %d requests are charged, want 3", s.Count)
		}
		if d, ok := at.ReplayKey("evm-nonce:1:0x00:r3"); !ok || d != hashOf("digest r3") {
			return fmt.Errorf("within the update the replay key of r3 has digest %q", d)
		}
		return tx.Put(vault.TypeAnswer, "big", make([]byte, vault.MaxRecord))
	})
	if !errors.Is(err, vault.ErrStoreFull) {
		t.Fatalf("writing 1 MiB into 1 MiB: %v, want ErrStoreFull", err)
	}
	f.wantState("r1", StateApproved)
	f.wantState("r2", StateOutcomeUnknown)
	if _, ok, _ := f.j.Request("org", "r3"); ok {
		t.Error("r3 is known")
	}
	if _, ok := f.j.ReplayKey("evm-nonce:1:0x00:r3"); ok {
		t.Error("the replay key of r3 is held")
	}
	f.wantSpent(time.Time{}, ButFees, 110, 2)
	f.wantSpent(testStart, ButFees, 100, 1) // r2 ended at the start itself

	if err := unix.Mount("tmpfs", mnt, "tmpfs", unix.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	f.must(signedEntry(a, "s"))
	f.reopen()
	f.wantState("r1", StateSigned)
	f.wantSpent(time.Time{}, ButFees, 110, 2)
}
