package journal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sigild/sigild/vault"
)

// bump is an approval in place of another one, under its nonce.
func (f *fixture) bump(id string, amount int, of uint64) Entry {
	f.t.Helper()
	e := approval(id, amount)
	var h Holder
	err := f.v.Update(context.Background(), func(tx *vault.Tx) (err error) {
		h, _, err = f.j.At(tx).Holder("evm-nonce:1:0x00:r1")
		return err
	})
	if err != nil || h.Approved.Seq != of || !h.Signed {
		f.t.Fatalf("the nonce is held by %+v (%v), want approval %d, signed", h, err, of)
	}
	var before [][]Charge
	if h.Approved.Replaces != nil {
		before = h.Approved.Replaces.Charges
	}
	e.ReplayKeys = h.Approved.ReplayKeys
	e.Replaces = &Replaced{ApprovedSeq: of, ChargedMS: h.ChargedAt.UnixMilli(), Charges: append(before, h.Approved.Charges)}
	return e
}

// Together they are charged what the dearest costs, from the newest on, also over
// restarts and snapshots, and whatever is rolled back in between.
func TestReplacingChargesTheDearestOnce(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		f := newFixture(t)
		again := func() {
			f.t.Helper()
			if snapshots {
				if err := f.j.Snapshot(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			f.reopen()
		}
		hour := func() time.Time { return f.clock.now().Add(-time.Hour) }
		a := f.must(approval("r1", 100))
		f.must(signedEntry(a, "one"))
		again()
		f.clock.add(50 * time.Minute)

		rolledBack := errors.New("rolled back")
		b := f.bump("r2", 60, a)
		err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
			if _, err := f.j.Append(tx, b); err != nil {
				return err
			}
			if s := f.j.Spent(ByDelegation("delegation"), eth, ButFees, time.Time{}); s.InFlight != 1 || s.Count != 1 || s.Sum.Uint64() != 100 {
				return fmt.Errorf("within the update: %+v", s)
			}
			return rolledBack
		})
		if !errors.Is(err, rolledBack) {
			t.Fatal(err)
		}
		if s := f.wantSpent(hour(), ButFees, 100, 1); s.InFlight != 0 || !s.Oldest.Equal(testStart) {
			t.Errorf("after the rollback: %+v", s)
		}

		seq := f.must(b)
		f.wantSpent(hour(), ButFees, 100, 1)
		f.clock.add(20 * time.Minute)
		f.wantSpent(hour(), ButFees, 100, 1) // the older charge has not left the window
		f.must(signedEntry(seq, "two"))
		again()
		f.clock.add(time.Hour - time.Millisecond)
		f.wantSpent(hour(), ButFees, 100, 1)
		f.wantSpent(hour(), AllCharges, 21100, 1)

		c := f.bump("r3", 700, seq)
		seq = f.must(c)
		f.wantSpent(time.Time{}, ButFees, 700, 1)
		f.must(failedEntry(seq, true)) // what it took the place of comes back, and counts anew
		again()
		f.wantSpent(hour(), ButFees, 100, 1)
		if d, _ := f.j.ReplayKey("evm-nonce:1:0x00:r1"); d != b.Digest {
			t.Errorf("the key has digest %s, want that of the second", d)
		}
		f.clock.add(time.Hour)
		f.wantSpent(hour(), ButFees, 0, 0)
	}
}

func TestReplacingInFlightSurvivesASnapshot(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	f.must(signedEntry(a, "one"))
	f.clock.add(time.Minute)
	seq := f.must(f.bump("r2", 150, a))
	if err := f.j.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.wantSpent(time.Time{}, ButFees, 150, 1)
	f.must(failedEntry(seq, true))
	f.wantSpent(time.Time{}, ButFees, 100, 1)
	if d, _ := f.j.ReplayKey("evm-nonce:1:0x00:r1"); d != hashOf("digest r1") {
		t.Errorf("the key has digest %s, want the first", d)
	}
}

func TestReplacingRefusesWhatDoesNotStand(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	if _, ok, _ := f.j.Request("org", "r1"); !ok {
		t.Fatal("r1 is not known")
	}
	in := approval("r2", 1)
	in.ReplayKeys = []string{"evm-nonce:1:0x00:r1"}
	in.Replaces = &Replaced{ApprovedSeq: a, Charges: [][]Charge{{}}}
	if _, err := f.append(in); !errors.Is(err, ErrNotReplaceable) {
		t.Errorf("in place of what is in flight: %v", err)
	}
	f.must(signedEntry(a, "one"))
	in.Replaces.ApprovedSeq = a + 1
	var replay *ReplayError
	if _, err := f.append(in); !errors.As(err, &replay) {
		t.Errorf("in place of another approval: %v", err)
	}
	in.ReplayKeys = []string{"free"}
	if _, err := f.append(in); !errors.Is(err, ErrNotReplaceable) {
		t.Errorf("under a free key: %v", err)
	}
	in.Replaces.Charges = make([][]Charge, MaxReplaced+1)
	if _, err := f.append(in); err == nil {
		t.Error("more transactions than one may follow are taken")
	}
}
