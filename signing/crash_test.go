package signing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// What is on disk when, and what becomes of it after a crash.

func TestApprovalIsOnDiskBeforeTheLastShare(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	var onDisk *house
	h.signing.BeforeRelease(func() { onDisk = h.again() })
	h.mustSign(g[0], "id", g[0].pay(400, 1))
	onDisk.wantKinds(1, 0, 0, 1)
	if s := onDisk.spent(g[0], sol); s != 400 {
		t.Errorf("%d charged on disk, want 400", s)
	}
}

// The shares of the set are damaged: whoever lends them finds out, and by then
// the approval is in the journal.
func TestApprovalIsOnDiskBeforeSharesAreLent(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	id := delegation.ShareID(g[0].set.ID, "server")
	h.update(func(tx *vault.Tx) error { return tx.Delete(vault.TypeShare, id) })
	h.signing.BeforeRelease(func() { t.Error("a share was about to leave") })
	_, err := h.sign(g[0], "id", g[0].pay(400, 1))
	wantRefusal(t, err, refusal.CeremonyFailed)
	h.wantKinds(1, 0, 1, 0)
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
	// When the share is back, the same request is judged and reserved anew.
	h.update(func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, id, g[0].set.Shares(t, "server")[0]) })
	h.signing.BeforeRelease(nil)
	h.mustSign(g[0], "id", g[0].pay(400, 1))
	h.wantKinds(2, 1, 1, 0)
	if s := h.spent(g[0], sol); s != 400 {
		t.Errorf("%d charged, want 400", s)
	}
}

// crashed is a copy of h as it was when the signature "id" waited for its last
// share; h itself goes on and signs.
func crashed(t *testing.T, ts terms) (*house, *grant) {
	t.Helper()
	h, g := newHouse(t, ts)
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "id", g[0].pay(400, 1))
	<-gate.reached
	after := h.again()
	gate.open()
	if a := <-running; a.err != nil {
		t.Fatal(a.err)
	}
	return after, g[0]
}

func TestCrashBetweenApprovalAndSignature(t *testing.T) {
	h, g := crashed(t, terms{limits: limit(700, day)})
	h.wantKinds(1, 0, 0, 1)
	if st, ok, _ := h.journal.Request(site.organization, "id"); !ok || st.State != journal.StateOutcomeUnknown {
		t.Fatalf("request is %+v, want outcome_unknown", st)
	}
	if s := h.spent(g, sol); s != 400 {
		t.Errorf("%d charged after the crash, want 400", s)
	}
	_, err := h.sign(g, "id", g.pay(400, 2))
	wantRefusal(t, err, refusal.RequestIDReused)
	_, err = h.sign(g, "other", g.pay(400, 2))
	wantRefusal(t, err, refusal.LimitExceeded)

	r := h.mustSign(g, "id", g.pay(400, 1))
	h.wantKinds(1, 1, 0, 1)
	if s := h.spent(g, sol); s != 400 || r.Sequence != h.entries(journal.KindApproved)[0].Seq {
		t.Errorf("%d charged under approval %d, want 400 under the first", s, r.Sequence)
	}
	if again := h.mustSign(g, "id", g.pay(400, 1)); !bytes.Equal(again.Signature, r.Signature) {
		t.Error("asked once more it signed once more")
	}
}

// After a crash the policy is asked again, and steps 3 and 4 hold.
func TestRetryAfterCrashIsJudgedAgain(t *testing.T) {
	brief := solAllow
	brief.NotAfter = began.Add(time.Hour)
	h, g := crashed(t, terms{policies: []policy.Policy{brief}, end: began.Add(2 * time.Hour)})
	h.clock.add(time.Hour)
	_, err := h.sign(g, "id", g.pay(400, 1))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "id")
	h.clock.add(time.Hour)
	_, err = h.sign(g, "id", g.pay(400, 1))
	h.wantRefused(wantRefusal(t, err, refusal.DelegationExpired), "id")
	h.revoke(g)
	_, err = h.sign(g, "id", g.pay(400, 1))
	wantRefusal(t, err, refusal.APIKeyInvalid)
	h.wantKinds(1, 0, 0, 1)
	if s := h.spent(g, sol); s != 400 {
		t.Errorf("%d charged, want 400: nobody knows whether it was signed", s)
	}
}

// A retry whose charge is about to leave the window would be signed uncounted.
func TestRetryAfterItsWindowIsRefused(t *testing.T) {
	h, g := crashed(t, terms{limits: limit(700, day)})
	h.clock.add(day - 21*time.Second)
	old := h.again() // a second before it is too late
	h.clock.add(time.Second)
	_, err := h.sign(g, "id", g.pay(400, 1))
	no := wantRefusal(t, err, refusal.OutcomeUnknown)
	if no.Details["limit"] != "pocket money" {
		t.Errorf("details %v, want the limit", no.Details)
	}
	h.wantRefused(no, "id")
	h.wantKinds(1, 0, 0, 1)
	old.mustSign(g, "id", g.pay(400, 1))
}

// A retry of unknown outcome that fails can't give the charge back.
func TestFailedRetryKeepsTheCharge(t *testing.T) {
	h, g := crashed(t, terms{limits: limit(700, day)})
	id := delegation.ShareID(g.set.ID, "delegate")
	h.update(func(tx *vault.Tx) error { return tx.Delete(vault.TypeShare, id) })
	_, err := h.sign(g, "id", g.pay(400, 1))
	wantRefusal(t, err, refusal.OutcomeUnknown)
	h.wantKinds(1, 0, 1, 1)
	if s := h.spent(g, sol); s != 400 || h.entries(journal.KindFailed)[0].Refunded() {
		t.Errorf("%d charged, want 400: the first try may have been signed", s)
	}
	h.update(func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, id, g.set.Shares(t, "delegate")[0]) })
	h.mustSign(g, "id", g.pay(400, 1))
	h.wantKinds(1, 1, 1, 1)
}

// Its outcome could not be journaled, but the daemon lives: the charge is in
// flight and counts in every window, so the retry is signed under it.
func TestRetryUnderAReservationInFlight(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	a, err := h.signing.Approve(context.Background(), g[0].request("id", g[0].pay(400, 1)))
	if err != nil {
		t.Fatal(err)
	}
	a.Forget()
	h.clock.add(30 * day)
	h.mustSign(g[0], "id", g[0].pay(400, 1))
	h.wantKinds(1, 1, 0, 0)
	if s := h.spent(g[0], sol); s != 400 {
		t.Errorf("%d charged, want 400 once", s)
	}
}

func TestApprovalIsRedeemedOnce(t *testing.T) {
	h, g := newHouse(t, terms{})
	ctx := context.Background()
	a, err := h.signing.Approve(ctx, g[0].request("id", g[0].pay(1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.signing.Release(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	g[0].verify(t, r, g[0].pay(1, 1))
	if r, err := h.signing.Release(ctx, a); !errors.Is(err, signing.ErrRedeemed) || r != nil {
		t.Errorf("redeemed again: %+v, %v", r, err)
	}
	h.wantKinds(1, 1, 0, 0)
}

// poison makes the vault take no more updates, as after a failed fsync.
func (h *house) poison() {
	h.update(func(tx *vault.Tx) error {
		tx.OnCommit(func() { panic("poison") })
		return nil
	})
	if !h.vault.Info().Unwritable {
		h.t.Fatal("the vault still takes updates")
	}
}

func TestUnwritableJournalSignsNothing(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.poison()
	h.signing.BeforeRelease(func() { t.Error("a share was lent") })
	if _, err := h.sign(g[0], "id", g[0].pay(1, 1)); !errors.Is(err, vault.ErrUnwritable) {
		t.Errorf("error %v, want ErrUnwritable", err)
	}
	// A refusal stands although it can't be journaled.
	_, err := h.sign(g[0], "id", g[0].pay(501, 1))
	wantRefusal(t, err, refusal.PolicyDenied)
	h.wantKinds(0, 0, 0, 0)
}

// The journal fails after the last share left: what was signed is not released,
// the charge stands, and after a restart the same request is signed under it.
func TestSignatureThatCannotBeJournaledIsNotReleased(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	h.signing.BeforeRelease(h.poison)
	r, err := h.sign(g[0], "id", g[0].pay(400, 1))
	if !errors.Is(err, vault.ErrUnwritable) || r != nil {
		t.Fatalf("result %+v, error %v, want ErrUnwritable alone", r, err)
	}
	h.wantKinds(1, 0, 0, 0)
	after := h.again()
	after.wantKinds(1, 0, 0, 1)
	_, err = after.sign(g[0], "other", g[0].pay(1, 2))
	wantRefusal(t, err, refusal.LimitExceeded)
	after.mustSign(g[0], "id", g[0].pay(400, 1))
	after.wantKinds(1, 1, 0, 1)
}

// Close waits for what is under way, and lets nothing begin.
func TestCloseWaitsForOutcomes(t *testing.T) {
	h, g := newHouse(t, terms{})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "id", g[0].pay(1, 1))
	<-gate.reached
	closed := make(chan bool, 1) // was the outcome in the journal then?
	go func() {
		h.signing.Close()
		st, _, _ := h.journal.Request(site.organization, "id")
		closed <- st.State == journal.StateSigned
	}()
	for n := byte(0); ; n++ { // Close may still be about to begin
		_, err := h.sign(g[0], fmt.Sprint("late", n), g[0].pay(1, n))
		if errors.Is(err, vault.ErrSealed) {
			break
		}
		if err != nil || n == 100 {
			t.Fatalf("signing %d times beside Close: %v, want ErrSealed in the end", n, err)
		}
	}
	select {
	case <-closed:
		t.Error("closed while a signature was under way")
	default:
	}
	gate.open()
	if a := <-running; a.err != nil {
		t.Error(a.err)
	}
	if !<-closed {
		t.Error("closed before the outcome was journaled")
	}
}
