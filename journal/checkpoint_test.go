package journal

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// running starts Run and ends it with the test.
func (f *fixture) running() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.j.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			f.t.Errorf("Run returned %v", err)
		}
	})
}

// await spins until ok, for what another goroutine does soon.
func (f *fixture) await(what string, ok func(Status) bool) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(f.j.Status()); runtime.Gosched() {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited in vain for %s: %+v", what, f.j.Status())
		}
	}
}

func (f *fixture) reopenWith(entries uint64, after time.Duration) {
	f.t.Helper()
	f.openVault()
	cfg := f.config()
	cfg.CheckpointEntries, cfg.CheckpointAfter = entries, after
	j, err := Open(context.Background(), f.v, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.j = j
}

func TestCheckpointsAreMadeByNumber(t *testing.T) {
	f := newFixture(t)
	f.reopenWith(5, time.Hour)
	f.running()
	f.await("the genesis to be signed", func(s Status) bool { return s.Covered == 1 && s.Unsigned == 0 && s.Entries == 2 })
	for range 4 {
		f.must(Entry{Kind: KindStarted})
	}
	if s := f.j.Status(); s.Unsigned != 4 || s.Covered != 1 {
		t.Errorf("after four entries: %+v, want none signed yet", s)
	}
	f.must(Entry{Kind: KindStopped})
	f.await("a checkpoint", func(s Status) bool { return s.Covered == 7 && s.Unsigned == 0 && s.Entries == 8 })
	// A checkpoint alone is no reason for another.
	if err := f.j.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := f.j.Status(); s.Entries != 8 {
		t.Errorf("a checkpoint over nothing was made: %+v", s)
	}
}

func TestCheckpointsAreMadeByTime(t *testing.T) {
	f := newFixture(t)
	f.reopenWith(1000, time.Millisecond)
	f.running()
	f.await("the genesis to be signed", func(s Status) bool { return s.Covered == 1 && s.Unsigned == 0 })
	f.must(Entry{Kind: KindStarted})
	f.await("the next checkpoint", func(s Status) bool { return s.Covered == 3 && s.Unsigned == 0 })
	r, err := Verify(context.Background(), f.path(), nil)
	if err != nil || r.Checkpoints != 2 || r.Unsigned != 0 {
		t.Errorf("report = %+v, %v; want two checkpoints and nothing unsigned", r, err)
	}
}

func TestAFailingDeviceIsToldAndAskedAgain(t *testing.T) {
	f := newFixture(t)
	f.reopenWith(1000, time.Millisecond)
	f.device.setFault(seal.ErrUnavailable)
	f.running()
	f.must(Entry{Kind: KindStarted})
	f.await("the failure", func(s Status) bool { return errors.Is(s.CheckpointFailure, seal.ErrUnavailable) })
	if s := f.j.Status(); s.Unsigned != 2 || s.Covered != 0 {
		t.Errorf("status = %+v, want two entries unsigned", s)
	}
	f.must(Entry{Kind: KindStopped}) // journaling goes on
	f.device.setFault(nil)
	f.await("recovery", func(s Status) bool { return s.CheckpointFailure == nil && s.Unsigned == 0 && s.Covered == 3 })
}

// A device that signs nothing for too long ends approvals, and nothing else.
func TestNothingIsApprovedOnALongUnsignedJournal(t *testing.T) {
	f := newFixture(t)
	f.openVault()
	cfg := f.config()
	cfg.UnsignedEntries = 5
	j, err := Open(context.Background(), f.v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.j = j
	f.device.setFault(seal.ErrUnavailable)
	a := f.must(approval("r1", 1))
	for range 3 {
		f.must(Entry{Kind: KindRefused, Reason: "POLICY_DENIED"})
	}
	if _, err := f.append(approval("r2", 1)); !errors.Is(err, ErrUnsigned) {
		t.Errorf("approving on five unsigned entries: %v, want ErrUnsigned", err)
	}
	f.must(signedEntry(a, "s"))                                                                           // what was approved ends
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "revoke", RequestHash: hashOf("revoke")}) // revocation always works
	if err := f.j.Checkpoint(context.Background()); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("checkpoint: %v", err)
	}
	f.device.setFault(nil)
	if err := f.j.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.must(approval("r2", 1))

	synctest.Test(t, func(t *testing.T) { // and by time
		u, cfg := unsigned{}, Config{}.withDefaults()
		u.note(&Entry{Kind: KindStarted})
		if time.Sleep(5*time.Minute - 1); u.overdue(&cfg) {
			t.Error("overdue before five minutes")
		}
		if time.Sleep(time.Nanosecond); !u.overdue(&cfg) {
			t.Error("not overdue after five minutes")
		}
	})
}

func TestAnActIsSignedAtOnce(t *testing.T) {
	f := newFixture(t)
	f.reopenWith(1000, time.Hour)
	f.running()
	f.await("the genesis to be signed", func(s Status) bool { return s.Covered == 1 })
	f.must(Entry{Kind: KindRefused, Reason: "POLICY_DENIED"})
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "revoke", RequestHash: hashOf("revoke")})
	f.await("the act to be signed", func(s Status) bool { return s.Covered >= 4 && s.Unsigned == 0 })
	f.must(Entry{Kind: KindAct, Urgent: true})
	f.await("the urgent entry to be signed", func(s Status) bool { return s.Covered >= 6 && s.Unsigned == 0 })
}

func TestABadSignatureIsNotWritten(t *testing.T) {
	f := newFixture(t)
	f.device.bad = true
	if err := f.j.Checkpoint(context.Background()); err == nil {
		t.Error("a signature that doesn't verify was taken")
	}
	if s := f.j.Status(); s.Entries != 1 || s.CheckpointFailure == nil {
		t.Errorf("status = %+v", s)
	}
	f.device.bad = false
	f.v.Seal()
	if err := f.j.Checkpoint(context.Background()); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("checkpoint of a sealed vault: %v, want ErrSealed", err)
	}
}

func TestCloseSignsTheRest(t *testing.T) {
	f := newFixture(t)
	f.must(Entry{Kind: KindStopped})
	if err := f.j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := f.v.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(context.Background(), f.path(), &f.device.key.PublicKey)
	if err != nil || r.Unsigned != 0 || r.Covered != 2 || r.Entries != 3 {
		t.Errorf("report = %+v, %v; want everything signed", r, err)
	}
	f.reopen()
	if s := f.j.Status(); s.Covered != 2 || s.Unsigned != 0 {
		t.Errorf("status after a restart = %+v", s)
	}
}

// While an approval is being committed, its request is neither known nor
// unknown to others: they wait.
func TestRequestWaitsForTheCommit(t *testing.T) {
	f := newFixture(t)
	appended, free := make(chan struct{}), make(chan struct{})
	committed := make(chan error)
	var durable bool
	go func() {
		committed <- f.v.Update(context.Background(), func(tx *vault.Tx) error {
			_, err := f.j.Append(tx, Entry{Kind: KindAct, Organization: "org", RequestID: "a", RequestHash: hashOf("a"), Answer: []byte("reply")})
			tx.OnCommit(func() { durable = true })
			close(appended)
			<-free
			return err
		})
	}()
	<-appended
	asked := make(chan RequestState)
	go func() {
		s, _, _ := f.j.Request("org", "a")
		asked <- s
	}()
	select {
	case s := <-asked:
		t.Errorf("answered before the commit: %+v", s)
	default:
	}
	close(free)
	if s := <-asked; s.State != StateDone || string(s.Answer) != "reply" {
		t.Errorf("after the commit: %+v", s)
	}
	if err := <-committed; err != nil || !durable {
		t.Errorf("update: %v, durable %v", err, durable)
	}

	// And if the update fails, it was never there.
	appended, free = make(chan struct{}), make(chan struct{})
	boom := errors.New("boom")
	go func() {
		committed <- f.v.Update(context.Background(), func(tx *vault.Tx) error {
			_, _ = f.j.Append(tx, Entry{Kind: KindAct, Organization: "org", RequestID: "b", RequestHash: hashOf("b")})
			close(appended)
			<-free
			return boom
		})
	}()
	<-appended
	known := make(chan bool)
	go func() {
		_, ok, _ := f.j.Request("org", "b")
		known <- ok
	}()
	close(free)
	if <-known {
		t.Error("a request of a failed update is known")
	}
	if err := <-committed; !errors.Is(err, boom) {
		t.Errorf("update: %v", err)
	}
}
