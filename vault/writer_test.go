package vault

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// blockWriter keeps the writer goroutine busy until the returned function is
// called; that waits for its end.
func blockWriter(t testing.TB, v *Vault) (release func()) {
	t.Helper()
	started, free, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		err := v.UpdateAlone(context.Background(), func(*Tx) error { close(started); <-free; return nil })
		if err != nil {
			t.Errorf("the blocking update: %v", err)
		}
	}()
	<-started
	return func() { close(free); <-done }
}

func TestUpdatesShareCommits(t *testing.T) {
	v, pin := create(t, stateDir(t))
	before := v.Info().Seq
	const callers, each = 64, 20
	release := blockWriter(t, v)
	var wg sync.WaitGroup
	var commitOrder []string // only the writer goroutine appends
	for w := range callers {
		wg.Go(func() {
			for n := range each {
				id := fmt.Sprintf("%d-%d", w, n)
				err := v.Update(context.Background(), func(tx *Tx) error {
					tx.OnCommit(func() { commitOrder = append(commitOrder, id) })
					return tx.Put(TypeWallet, id, []byte(id))
				})
				if err != nil {
					t.Errorf("update %s: %v", id, err)
				}
			}
		})
	}
	release()
	wg.Wait()
	commits := v.Info().Seq - before
	t.Logf("%d updates in %d commits", callers*each, commits)
	if commits > callers*each/4 {
		t.Errorf("%d updates took %d commits, want them grouped", callers*each, commits)
	}
	if len(commitOrder) != callers*each {
		t.Errorf("%d commit hooks ran, want %d", len(commitOrder), callers*each)
	}
	v = reopen(t, v, pin)
	for w := range callers {
		for n := range each {
			id := fmt.Sprintf("%d-%d", w, n)
			wantRecord(t, v, TypeWallet, id, id)
		}
	}
}

// inOneBatch sends fns so that they share a batch, in order, and returns their results.
func inOneBatch(t testing.TB, v *Vault, fns ...func(*Tx) error) []error {
	t.Helper()
	jobs := make([]*job, len(fns))
	for i, fn := range fns {
		jobs[i] = &job{ctx: context.Background(), fn: fn, done: make(chan struct{})}
	}
	// Through an internal job, so that the batch runs where all batches run.
	if err := v.submit(context.Background(), &job{internal: func() error { v.runBatch(jobs); return nil }}); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, len(fns))
	for i, j := range jobs {
		<-j.done
		errs[i] = j.err
	}
	return errs
}

func TestAFailingClosureLeavesTheOthersAlone(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeUser, "kept", "original")
	boom := errors.New("boom")
	var events []string
	note := func(s string) func() { return func() { events = append(events, s) } }
	errs := inOneBatch(t, v,
		func(tx *Tx) error {
			tx.OnCommit(note("commit a"))
			tx.OnRollback(note("undo a"))
			if err := benchRow(tx); err != nil {
				return err
			}
			return tx.Put(TypeUser, "a", []byte("a"))
		},
		func(tx *Tx) error {
			tx.OnCommit(note("commit b"))
			tx.OnRollback(note("undo b1"))
			tx.OnRollback(note("undo b2"))
			for _, id := range []string{"b", "kept", "a"} { // new, old, and another closure's
				if err := tx.Put(TypeUser, id, []byte("from b")); err != nil {
					return err
				}
			}
			if err := tx.Delete(TypeUser, "kept"); err != nil {
				return err
			}
			if err := benchRow(tx); err != nil {
				return err
			}
			return boom
		},
		func(tx *Tx) error {
			var none []int
			tx.OnRollback(note("undo c"))
			_ = tx.Put(TypeUser, "c", nil)
			_ = none[len(events)] // panics
			return nil
		},
		func(tx *Tx) error {
			tx.OnCommit(note("commit d"))
			if h, err := tx.JournalHead(); err != nil || h.Seq != 1 {
				return fmt.Errorf("journal head = %d, %v; want 1: a's row", h.Seq, err)
			}
			return tx.With(TypeUser, "a", func(p []byte) error {
				if string(p) != "a" {
					return fmt.Errorf("a = %q after b was rolled back", p)
				}
				return nil
			})
		},
	)
	if errs[0] != nil || errs[3] != nil {
		t.Errorf("the good closures got %v and %v", errs[0], errs[3])
	}
	if errs[1] != boom {
		t.Errorf("the failing closure got %v, want its own error", errs[1])
	}
	if errs[2] == nil || !strings.Contains(errs[2].Error(), "recovered a panic") {
		t.Errorf("the panicking closure got %v", errs[2])
	}
	want := []string{"undo b2", "undo b1", "undo c", "commit a", "commit d"}
	if !slices.Equal(events, want) {
		t.Errorf("hooks ran as %q, want %q", events, want)
	}
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "a", "a")
	wantRecord(t, v, TypeUser, "kept", "original")
	for _, id := range []string{"b", "c"} {
		_, err := get(v, TypeUser, id)
		wantIs(t, err, ErrNotFound)
	}
}

func TestAPanicTellsNoSecret(t *testing.T) {
	v, _ := create(t, stateDir(t))
	err := v.Update(context.Background(), func(*Tx) error { panic("secret-marker") })
	if err == nil || strings.Contains(err.Error(), "secret-marker") {
		t.Errorf("error = %v; want one that doesn't repeat what was panicked with", err)
	}
}

func TestAClosureThatEndsItsGoroutine(t *testing.T) {
	v, _ := create(t, stateDir(t))
	undone := false
	err := v.Update(context.Background(), func(tx *Tx) error {
		tx.OnRollback(func() { undone = true })
		_ = tx.Put(TypeUser, "u", nil)
		runtime.Goexit()
		return nil
	})
	if err == nil || !undone {
		t.Errorf("error %v, undone %v", err, undone)
	}
	put(t, v, TypeUser, "v", "the writer goes on")
	_, err = get(v, TypeUser, "u")
	wantIs(t, err, ErrNotFound)
}

func TestAFailedCommitUndoesTheWholeBatch(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeUser, "kept", "original")
	root := v.open.Load().tree.root()
	v.hooks.beforeCommit = func() error { return errors.New("disk on fire") }
	var events []string
	closure := func(name string) func(*Tx) error {
		return func(tx *Tx) error {
			tx.OnCommit(func() { events = append(events, "commit "+name) })
			tx.OnRollback(func() { events = append(events, "undo "+name) })
			return tx.Put(TypeUser, "kept", []byte(name))
		}
	}
	errs := inOneBatch(t, v, closure("a"), closure("b"))
	for _, err := range errs {
		wantIs(t, err, ErrUnwritable)
	}
	if want := []string{"undo b", "undo a"}; !slices.Equal(events, want) {
		t.Errorf("hooks ran as %q, want %q", events, want)
	}
	if v.open.Load().tree.root() != root {
		t.Error("the tree isn't as before")
	}
	wantRecord(t, v, TypeUser, "kept", "original")
	v.hooks.beforeCommit = nil
	wantIs(t, v.Update(context.Background(), closure("c")), ErrUnwritable)
	if !v.Info().Unwritable {
		t.Error("Info doesn't say unwritable")
	}
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "kept", "original")
}

// A commit that reports an error but reached the disk: nobody may go on as if
// either had happened.
func TestAnUnclearCommitPoisons(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeUser, "u", "old")
	v.hooks.afterCommit = func() error { return errors.New("fsync failed") }
	err := v.Update(context.Background(), func(tx *Tx) error { return tx.Put(TypeUser, "u", []byte("new")) })
	wantIs(t, err, ErrUnwritable)
	v.hooks.afterCommit = nil
	wantIs(t, v.Update(context.Background(), func(*Tx) error { return nil }), ErrUnwritable)
	_, err = get(v, TypeUser, "u")
	wantIs(t, err, ErrUnwritable)
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "u", "new")
}

func TestAHookThatPanicsPoisons(t *testing.T) {
	v, pin := create(t, stateDir(t))
	err := v.Update(context.Background(), func(tx *Tx) error {
		tx.OnCommit(func() { panic("bug") })
		return tx.Put(TypeUser, "u", []byte("durable"))
	})
	if err != nil {
		t.Errorf("the update was durable, but got %v", err)
	}
	wantIs(t, v.Update(context.Background(), func(*Tx) error { return nil }), ErrUnwritable)
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "u", "durable")
}

func TestAForeignLockIsNotFatal(t *testing.T) {
	v, _ := create(t, stateDir(t))
	if _, err := v.write.conn.ExecContext(context.Background(), "PRAGMA busy_timeout = 20"); err != nil {
		t.Fatal(err)
	}
	other, err := openDB(filepath.Join(v.cfg.Dir, FileName), "mode=rw&_txlock=immediate", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	err = v.Update(context.Background(), func(tx *Tx) error { return tx.Put(TypeUser, "u", nil) })
	wantIs(t, err, ErrInUse)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	put(t, v, TypeUser, "u", "after it let go")
}
