package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/vault"
)

// leasing makes a fixture's journal lease; that the anchor moves with it is shown
// where there is one (signing, vault).
func (f *fixture) leasing() *fixture {
	f.j.anchored = true
	return f
}

// ceiling is what counts of a delegation plus what its lease has left, without fees.
func (f *fixture) ceiling(delegation string) uint64 {
	f.t.Helper()
	k := accountKey{ByDelegation(delegation), eth, ButFees}
	sum := f.j.Spent(k.scope, eth, ButFees, time.Time{}).Sum
	if a := f.j.proj.accounts[k]; a != nil && a.lease.amount != nil {
		sum.Add(&sum, a.lease.amount)
	}
	return sum.Uint64()
}

func boundOf(e *Entry, most uint64) []Bound {
	asked := new(uint256.Int)
	for _, c := range e.Charges {
		if c.Asset == eth && c.What != "fee" {
			asked.Add(asked, uint256.MustFromDecimal(c.Amount))
		}
	}
	n := uint256.NewInt(most)
	return []Bound{{Scope: ByDelegation(e.Delegation), Asset: eth, What: ButFees, Asked: asked, Max: n, Left: n, MaxCount: 40, LeftCount: 40}}
}

// Whatever happens, what is charged and what the lease has left add up to what was
// granted; an update that fails leaves no trace; snapshots hold leases; and a crash
// charges exactly what was left.
func TestLeasesAddUp(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			f := newFixture(t).leasing()
			var open []uint64
			boom := errors.New("boom")
			grants, refunds := 0, 0
			for n := range 120 {
				f.clock.add(time.Second)
				before, ceilings := f.foldedState(), map[string]uint64{}
				for _, d := range []string{"d0", "d1"} {
					ceilings[d] = f.ceiling(d)
				}
				granted, ended := map[string]bool{}, -1
				fail := rng.IntN(5) == 0
				err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
					if len(open) > 0 && rng.IntN(2) == 0 {
						ended = rng.IntN(len(open))
						e := failedEntry(open[ended], rng.IntN(2) == 0)
						if e.Refunded() {
							refunds++
						}
						if _, err := f.j.Append(tx, e); err != nil {
							return err
						}
					} else {
						e := approval(fmt.Sprint("id", n), rng.IntN(30))
						e.Delegation = fmt.Sprint("d", rng.IntN(2))
						head, _ := tx.JournalHead()
						if err := f.j.Lease(tx, func() []Bound { return boundOf(&e, 200) }); err != nil {
							return err
						}
						if after, _ := tx.JournalHead(); after.Seq > head.Seq {
							grants++
							granted["d0"], granted["d1"] = true, true
						}
						seq, err := f.j.Append(tx, e)
						if err != nil {
							return err
						}
						if !fail {
							open = append(open, seq)
						}
					}
					if fail {
						return boom
					}
					return nil
				})
				if err != nil && !errors.Is(err, boom) {
					t.Fatal(err)
				}
				if after := f.foldedState(); fail && !bytes.Equal(before, after) {
					t.Fatalf("step %d left a trace though it failed", n)
				}
				for d, want := range ceilings {
					if got := f.ceiling(d); got != want && !granted[d] {
						t.Fatalf("step %d: %s has a ceiling of %d, had %d", n, d, got, want)
					}
				}
				if !fail && ended >= 0 {
					open = append(open[:ended], open[ended+1:]...)
				}
				if n%25 == 24 {
					if err := f.j.Snapshot(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				if n == 60 || n == 110 { // a crash
					want := map[string]uint64{"d0": f.ceiling("d0"), "d1": f.ceiling("d1")}
					f.reopen()
					f.leasing()
					open = nil
					if left := f.j.proj.leases(); left != nil {
						t.Fatalf("after a crash there are leases: %v", left)
					}
					for d, w := range want {
						if got := f.ceiling(d); got != w {
							t.Fatalf("after a crash %d of %s count, want %d", got, d, w)
						}
					}
				}
			}
			if grants == 0 || refunds == 0 {
				t.Errorf("%d grants, %d refunds; want some of each", grants, refunds)
			}
			if err := f.j.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := VerifyFull(context.Background(), f.copyOf(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// The smaller of two limits decides, fees have a lease of their own where they
// count, and leases that are half used are renewed together.
func TestWhatIsLeased(t *testing.T) {
	f := newFixture(t).leasing()
	lease := func(bounds ...Bound) *Entry {
		e, err := f.j.newLeases(bounds)
		if err != nil {
			t.Fatal(err)
		}
		if e != nil {
			f.must(*e)
		}
		return e
	}
	n := uint256.NewInt
	small := Bound{Scope: ByDelegation("d"), Asset: eth, What: ButFees, Asked: n(3), Max: n(80), Left: n(80)}
	large := small
	large.Max, large.Left = n(8000), n(8000)
	fees := Bound{Scope: ByOrganization("o"), Asset: eth, Asked: n(5), Max: n(800), Left: n(40), MaxCount: 16, LeftCount: 9}
	e := lease(small, large, fees)
	want := []Lease{{Of: "approvals", Count: "1024"}, {Of: "delegation", ID: "d", Asset: eth, What: ButFees, Amount: "10"}, {Of: "organization", ID: "o", Asset: eth, Amount: "40", Count: "2"}}
	if e == nil || fmt.Sprint(e.Leases) != fmt.Sprint(want) {
		t.Fatalf("leased %+v, want %+v", e, want)
	}
	if again := lease(small, large, fees); again != nil {
		t.Errorf("leased again what is covered: %+v", again.Leases)
	}
	// Something else needs a lease; the organization's count is used up more than half.
	a := approval("id", 1)
	a.Delegation, a.Organization, a.Wallet = "d", "o", ""
	f.must(a)
	a.RequestID, a.Digest, a.ReplayKeys = "id2", hashOf("2"), nil
	f.must(a)
	other := small
	other.Scope, other.Asked, other.Max = ByWallet("w"), n(100), n(100)
	e = lease(other)
	got := map[string]Lease{}
	for _, l := range e.Leases {
		got[l.Of] = l
	}
	if got["organization"].Count != "2" {
		t.Errorf("renewed %+v; want the organization's, of which nothing was left", e.Leases)
	}
	if got["wallet"].Amount != "100" {
		t.Errorf("leased %+v; want what was asked, though it is more than a part of the limit", e.Leases)
	}
	if _, ok := got["delegation"]; ok {
		t.Errorf("renewed %+v; the delegation's is not half used", e.Leases)
	}
}

// Entries about leases that do not fit are refused, and change nothing.
func TestLeaseEntriesMustFit(t *testing.T) {
	f := newFixture(t)
	all := Lease{Of: "approvals", Count: "9"}
	one := Lease{Of: "delegation", ID: "d", Asset: eth, Amount: "5"}
	two := Lease{Of: "organization", ID: "o", Asset: eth, Amount: "5", Count: "1"}
	f.must(Entry{Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{all, one, two}})
	before := f.foldedState()
	for name, e := range map[string]Entry{
		"none":                   {Kind: KindLease, Outcome: leaseGranted},
		"an unknown word":        {Kind: KindLease, Outcome: "given", Leases: []Lease{all}},
		"of another kind":        {Kind: KindStarted, Leases: []Lease{all}},
		"without approvals":      {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{one}},
		"in another order":       {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{all, two, one}},
		"one twice":              {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{all, one, one}},
		"of an unknown scope":    {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{all, {Of: "moon", ID: "d", Amount: "5"}}},
		"of nothing":             {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{all, {Of: "wallet", ID: "w", Asset: eth}}},
		"not a number":           {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{all, {Of: "wallet", ID: "w", Amount: "05"}}},
		"approvals by amount":    {Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{{Of: "approvals", Amount: "5", Count: "5"}}},
		"charged, but not all":   {Kind: KindLease, Outcome: leaseCharged, Leases: []Lease{all, one}},
		"charged, but more":      {Kind: KindLease, Outcome: leaseCharged, Leases: []Lease{all, {Of: "delegation", ID: "d", Asset: eth, Amount: "6"}, two}},
		"returned, but not all":  {Kind: KindLease, Outcome: leaseReturned, Leases: []Lease{all}},
		"returned, but approval": {Kind: KindLease, Outcome: leaseReturned, Leases: []Lease{{Of: "approvals", Count: "8"}, one, two}},
	} {
		if _, err := f.append(e); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if !bytes.Equal(f.foldedState(), before) {
		t.Error("a refused entry changed something")
	}
	f.must(Entry{Kind: KindLease, Outcome: leaseReturned, Leases: []Lease{all, one, two}})
	if f.j.proj.leases() != nil || f.ceiling("d") != 0 {
		t.Error("returned leases count")
	}
}
