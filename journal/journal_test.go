package journal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestRequestsOutliveARestart(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	f.must(signedEntry(a, "signature 1"))
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "act1", RequestHash: hashOf("act1"), Method: "/x/Y", Answer: []byte("reply")})
	b := f.must(approval("r2", 50))
	f.must(failedEntry(b, false))
	c := f.must(approval("r3", 7))
	f.must(failedEntry(c, true))
	check := func() {
		t.Helper()
		s := f.wantState("r1", StateSigned)
		if string(s.Answer) != "signature 1" || s.ApprovedSeq != a || s.RequestHash != hashOf("message r1") || s.Digest != hashOf("digest r1") {
			t.Errorf("r1 = %+v", s)
		}
		if s := f.wantState("act1", StateDone); string(s.Answer) != "reply" {
			t.Errorf("act1 = %+v", s)
		}
		if s := f.wantState("r2", StateFailed); s.Refunded {
			t.Error("r2 counts as refunded")
		}
		if s := f.wantState("r3", StateFailed); !s.Refunded {
			t.Error("r3 doesn't count as refunded")
		}
		f.wantSpent(time.Time{}, ButFees, 150, 2)
		f.wantSpent(time.Time{}, AllCharges, 42150, 2)
		f.wantSpent(time.Time{}, "", 42150, 2)
		if d, ok := f.j.ReplayKey("evm-nonce:1:0x00:r1"); !ok || d != hashOf("digest r1") {
			t.Errorf("replay key of r1 = %q, %v", d, ok)
		}
		if _, ok := f.j.ReplayKey("evm-nonce:1:0x00:r3"); ok {
			t.Error("the replay key of a refunded approval is still held")
		}
		if _, ok, _ := f.j.Request("org", "unknown"); ok {
			t.Error("an unknown request is known")
		}
		if _, ok, _ := f.j.Request("other org", "r1"); ok {
			t.Error("another organization's request id is visible")
		}
	}
	check()
	f.reopen()
	check()
	if g := f.j.Genesis(); g.ApplianceID != "appliance-1" || len(g.Operators) != 2 || g.Facts["quorum"] != "2" || g.StoreID != f.v.StoreID() {
		t.Errorf("genesis = %+v", g)
	}
}

func TestACrashLeavesOutcomeUnknown(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	f.wantState("r1", StateApproved)
	f.clock.add(time.Hour)
	f.reopen()
	s := f.wantState("r1", StateOutcomeUnknown)
	if s.ApprovedSeq != a || !s.ChargedAt.Equal(testStart.Add(time.Hour)) {
		t.Errorf("r1 = %+v, want approval %d charged an hour later", s, a)
	}
	f.wantSpent(testStart.Add(30*time.Minute), ButFees, 100, 1)
	f.reopen()
	if st := f.j.Status(); st.Entries != 3 {
		t.Errorf("a second restart leaves %d entries, want 3: nothing is ended twice", st.Entries)
	}

	// A retry of the same digest under the same reservation may end it for good,
	// and counts from then on.
	if _, err := f.append(failedEntry(a, true)); !errors.Is(err, ErrNoRefund) {
		t.Errorf("refund after an unknown outcome: %v, want ErrNoRefund", err)
	}
	f.clock.add(24 * time.Hour)
	f.must(signedEntry(a, "late"))
	f.wantState("r1", StateSigned)
	f.wantSpent(testStart.Add(20*time.Hour), ButFees, 100, 1)
	f.wantSpent(time.Time{}, ButFees, 100, 1)
	if _, err := f.append(signedEntry(a, "again")); !errors.Is(err, ErrNotApproved) {
		t.Errorf("a second signature: %v, want ErrNotApproved", err)
	}
}

func TestWindowStartsWhenTheRequestEnds(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	f.clock.add(48 * time.Hour) // in flight: never expires
	day := func() time.Time { return f.clock.now().Add(-24 * time.Hour) }
	if s := f.wantSpent(day(), ButFees, 100, 1); s.InFlight != 1 || !s.Oldest.IsZero() {
		t.Errorf("in flight: %+v", s)
	}
	f.must(signedEntry(a, "s"))
	f.clock.add(24*time.Hour - time.Millisecond)
	if s := f.wantSpent(day(), ButFees, 100, 1); s.InFlight != 0 || !s.Oldest.Equal(testStart.Add(48*time.Hour)) {
		t.Errorf("after its end: %+v", s)
	}
	f.clock.add(time.Millisecond)
	f.wantSpent(day(), ButFees, 0, 0)
	f.wantSpent(time.Time{}, ButFees, 100, 1)
}

func TestUnboundedAndHugeChargesFailClosed(t *testing.T) {
	f := newFixture(t)
	e := approval("r1", 1)
	e.Charges = []Charge{{Chain: "eip155:1", Asset: eth, Unbounded: true, What: "transfer"}}
	f.must(e)
	if s := f.j.Spent(ByWallet("wallet"), eth, "", time.Time{}); !s.Unbounded || s.Count != 1 {
		t.Errorf("spent = %+v, want unbounded", s)
	}
	huge := "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	for i := range 3 {
		e := approval(fmt.Sprint("h", i), 1)
		e.Wallet = "rich"
		e.Charges = []Charge{{Chain: "eip155:1", Asset: eth, Amount: huge, What: "transfer"}}
		f.must(signedEntry(f.must(e), "s"))
		f.clock.add(time.Hour)
	}
	if s := f.j.Spent(ByWallet("rich"), eth, "", time.Time{}); !s.Unbounded || s.Sum.Dec() != huge {
		t.Errorf("three times 2^256−1 = %+v, want saturated and unbounded", s)
	}
	if s := f.j.Spent(ByWallet("rich"), eth, "", f.clock.now().Add(-90*time.Minute)); s.Unbounded || s.Sum.Dec() != huge || s.Count != 1 {
		t.Errorf("the last one alone = %+v, want 2^256−1 exactly", s)
	}
}

func TestAppendRefusesWhatDoesNotFit(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 1))
	var reused *RequestReusedError
	var replay *ReplayError
	other := approval("r1", 1)
	other.RequestHash = hashOf("another message")
	if _, err := f.append(other); !errors.As(err, &reused) || reused.Have != hashOf("message r1") || reused.Got != other.RequestHash {
		t.Errorf("id with another message: %v", err)
	}
	if _, err := f.append(approval("r1", 1)); !errors.Is(err, ErrRequestExists) {
		t.Errorf("same approval twice: %v, want ErrRequestExists", err)
	}
	nonce := approval("r2", 1)
	nonce.ReplayKeys = []string{"new", "evm-nonce:1:0x00:r1"}
	if _, err := f.append(nonce); !errors.As(err, &replay) || replay.Have != hashOf("digest r1") || replay.Got != nonce.Digest {
		t.Errorf("another digest under a replay key: %v", err)
	}
	if _, ok := f.j.ReplayKey("new"); ok {
		t.Error("a refused approval left a replay key")
	}
	nonce.Digest = hashOf("digest r1")
	f.must(nonce)
	for name, e := range map[string]Entry{
		"unknown kind":             {Kind: "else"},
		"second genesis":           {Kind: KindGenesis},
		"signed without approval":  {Kind: KindSigned},
		"approval without request": {Kind: KindApproved, Organization: "o"},
		"act with approval":        {Kind: KindAct, ApprovedSeq: a},
		"act with charges":         {Kind: KindAct, Charges: []Charge{{Asset: eth, Amount: "1", What: "fee"}}},
		"act without hash":         {Kind: KindAct, RequestID: "x"},
		"bad digest":               {Kind: KindRefused, Digest: "ABCD"},
		"not UTF-8":                {Kind: KindRefused, Reason: "\xff"},
		"bad amount": func() Entry {
			e := approval("r9", 1)
			e.Charges[0].Amount = "007"
			return e
		}(),
		"amount too large": func() Entry {
			e := approval("r9", 1)
			e.Charges[0].Amount = "115792089237316195423570985008687907853269984665640564039457584007913129639936"
			return e
		}(),
	} {
		if seq, err := f.append(e); err == nil {
			t.Errorf("%s was accepted as entry %d", name, seq)
		}
	}
	if _, err := f.append(signedEntry(99, "s")); !errors.Is(err, ErrNotApproved) {
		t.Errorf("signing an approval that isn't there: %v", err)
	}
	// What was refused left no trace: the chain opens and the folds are as before.
	f.must(signedEntry(a, "s"))
	f.reopen()
	f.wantState("r1", StateSigned)
}

func TestRefundedRequestMayBeApprovedAnew(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	f.must(failedEntry(a, true))
	f.wantSpent(time.Time{}, ButFees, 0, 0)
	b := f.must(approval("r1", 100))
	f.must(signedEntry(b, "s"))
	if s := f.wantState("r1", StateSigned); s.ApprovedSeq != b {
		t.Errorf("approval = %d, want %d", s.ApprovedSeq, b)
	}
	f.wantSpent(time.Time{}, ButFees, 100, 1)
}

func TestClockNeverGoesBack(t *testing.T) {
	f := newFixture(t)
	f.must(Entry{Kind: KindStarted})
	f.clock.add(-time.Hour)
	seq := f.must(Entry{Kind: KindStopped})
	es, err := f.j.Entries(context.Background(), seq, 1)
	if err != nil || len(es) != 1 || es[0].TimeMS != testStart.UnixMilli() {
		t.Errorf("entry after the clock went back = %+v, %v; want the time of the one before", es, err)
	}
	f.reopen()
}

func TestEntriesArePaged(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		f.must(Entry{Kind: KindStarted})
	}
	es, err := f.j.Entries(context.Background(), 2, 3)
	if err != nil || len(es) != 3 || es[0].Seq != 2 || es[2].Seq != 4 {
		t.Errorf("Entries(2, 3) = %+v, %v", es, err)
	}
	if es, err = f.j.Entries(context.Background(), 7, 3); err != nil || len(es) != 0 {
		t.Errorf("Entries past the end = %+v, %v", es, err)
	}
}
