package vault

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCancelBeforeStartRemovesFromTheQueue(t *testing.T) {
	v, _ := create(t, stateDir(t))
	release := blockWriter(t, v)
	ctx, cancel := context.WithCancel(context.Background())
	ran := false
	done := make(chan error)
	go func() { done <- v.Update(ctx, func(*Tx) error { ran = true; return nil }) }()
	cancel()
	wantIs(t, <-done, context.Canceled)
	release()
	if ran {
		t.Error("a cancelled update ran")
	}
	// In the batch but not started yet.
	ctx, cancel = context.WithCancel(context.Background())
	late := &job{ctx: ctx, fn: func(*Tx) error { ran = true; return nil }, done: make(chan struct{})}
	first := &job{ctx: context.Background(), fn: func(*Tx) error { cancel(); return nil }, done: make(chan struct{})}
	if err := v.submit(context.Background(), &job{internal: func() error { v.runBatch([]*job{first, late}); return nil }}); err != nil {
		t.Fatal(err)
	}
	if wantIs(t, late.err, context.Canceled); ran || first.err != nil {
		t.Errorf("ran %v, first %v", ran, first.err)
	}
}

func TestCancelAfterStartTellsTheTruth(t *testing.T) {
	v, pin := create(t, stateDir(t))
	ctx, cancel := context.WithCancel(context.Background())
	err := v.Update(ctx, func(tx *Tx) error { cancel(); return tx.Put(TypeUser, "u", []byte("written")) })
	if err != nil {
		t.Errorf("update = %v, want nil: it was done", err)
	}
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "u", "written")
}

func TestUpdateAloneSharesNoCommit(t *testing.T) {
	v, _ := create(t, stateDir(t))
	release := blockWriter(t, v)
	before := v.Info().Seq
	var wg sync.WaitGroup
	var alone, shared atomic.Uint64
	for i := range 30 {
		wg.Go(func() {
			update, counter := v.Update, &shared
			if i%3 == 0 {
				update, counter = v.UpdateAlone, &alone
			}
			err := update(context.Background(), func(tx *Tx) error {
				tx.OnCommit(func() { counter.Add(1) })
				return tx.Put(TypeUser, strconv.Itoa(i), nil)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if commits := v.Info().Seq - before; alone.Load() != 10 || shared.Load() != 20 || commits < 11 {
		t.Errorf("%d alone and %d shared updates in %d commits; want 10 commits for the first and at least one more", alone.Load(), shared.Load(), commits)
	}
}

func TestATxEndsWithItsClosure(t *testing.T) {
	v, _ := create(t, stateDir(t))
	var kept *Tx
	if err := v.Update(context.Background(), func(tx *Tx) error { kept = tx; return nil }); err != nil {
		t.Fatal(err)
	}
	kept.OnCommit(func() { t.Error("a hook of an ended update ran") })
	_, hasErr := kept.Has(TypeUser, "u")
	_, headErr := kept.JournalHead()
	for what, err := range map[string]error{
		"Put": kept.Put(TypeUser, "u", nil), "Delete": kept.Delete(TypeUser, "u"), "Has": hasErr, "JournalHead": headErr,
		"With": kept.With(TypeUser, "u", func([]byte) error { return nil }), "AppendJournal": kept.AppendJournal(JournalRow{Seq: 1}),
	} {
		if err == nil {
			t.Errorf("%s on an ended update succeeded", what)
		}
	}
}

func TestJournalRowsHaveNoGaps(t *testing.T) {
	v, _ := create(t, stateDir(t))
	err := v.Update(context.Background(), func(tx *Tx) error { return tx.AppendJournal(JournalRow{Seq: 2, Body: []byte("x")}) })
	if err == nil {
		t.Error("row 2 was taken first")
	}
	// More than fits into one statement, and an odd rest.
	const n = 2*manyRows + 3
	if err := v.Update(context.Background(), func(tx *Tx) error {
		for range n {
			if err := benchRow(tx); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := uint64(5)
	err = v.JournalRows(context.Background(), 5, 7, func(r JournalRow) error {
		if r.Seq != want || len(r.Body) != 700 {
			t.Errorf("row %d of %d bytes, want %d", r.Seq, len(r.Body), want)
		}
		want++
		return nil
	})
	if err != nil || want != 12 {
		t.Errorf("rows 5 to 11: stopped at %d, %v", want, err)
	}
}

func TestSealWaitsForTheWriter(t *testing.T) {
	v, pin := create(t, stateDir(t))
	started, free := make(chan struct{}), make(chan struct{})
	updated := make(chan error)
	go func() {
		updated <- v.Update(context.Background(), func(tx *Tx) error {
			close(started)
			<-free
			return tx.Put(TypeUser, "u", []byte("finished"))
		})
	}()
	<-started
	sealed := make(chan struct{})
	go func() { v.Seal(); close(sealed) }()
	select {
	case <-sealed:
		t.Error("Seal returned while an update ran")
	default:
	}
	close(free)
	if err := <-updated; err != nil {
		t.Errorf("the running update: %v", err)
	}
	<-sealed
	if !v.Sealed() {
		t.Error("not sealed")
	}
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "u", "finished")
}

// Readers of a record that is rewritten all the time see some whole version.
func TestReadersAndTheWriterAgree(t *testing.T) {
	v, _ := create(t, stateDir(t))
	put(t, v, TypeUser, "u", "0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			last := 0
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := get(v, TypeUser, "u")
				n, convErr := strconv.Atoi(got)
				if err != nil || convErr != nil || n < last {
					t.Errorf("read %q after %d: %v", got, last, err)
					return
				}
				last = n
			}
		})
	}
	for i := range 300 {
		put(t, v, TypeUser, "u", strconv.Itoa(i))
	}
	close(stop)
	wg.Wait()
}

// A read that was let in just before Close finds the door closed, and doesn't hang.
func TestReadersEndWithTheVault(t *testing.T) {
	v, _ := create(t, stateDir(t))
	u := v.open.Load()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	listed, _ := u.tree.ofTypes(TypeStoreKey)
	_, _, err := v.fetch(u, listed[0].key)
	wantIs(t, err, ErrSealed)
	if err := v.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
