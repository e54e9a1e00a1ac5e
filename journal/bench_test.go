package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigild/sigild/vault"
)

func BenchmarkReserve1(b *testing.B)  { benchReserve(b, 1) }
func BenchmarkReserve64(b *testing.B) { benchReserve(b, 64) }

// benchReserve is step 7 of a request: look, check the limit, append, fsync.
func benchReserve(b *testing.B, callers int) {
	f := newFixture(b)
	f.clock.t = time.Now()
	f.running() // checkpoints and snapshots, as in the daemon
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				e := approval(fmt.Sprint("r", n), 100)
				err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
					at := f.j.At(tx)
					if _, ok, err := at.Request("org", e.RequestID); ok || err != nil {
						return errors.Join(ErrRequestExists, err)
					}
					if _, ok := at.ReplayKey(e.ReplayKeys[0]); ok {
						return ErrRequestExists
					}
					if s := at.Spent(ByDelegation("delegation"), eth, "", at.Now().Add(-24*time.Hour)); s.Unbounded {
						return ErrNotApproved
					}
					_, err := f.j.Append(tx, e)
					return err
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reservations/s")
}

// BenchmarkSpent100k is one limit check among 100,000 live charges.
func BenchmarkSpent100k(b *testing.B) {
	p := newProjections(nil)
	for i := range uint64(100_000) {
		a := approval(fmt.Sprint("r", i), 100)
		a.Seq, a.TimeMS = 2*i+2, int64(i)
		if _, err := p.apply(&a); err != nil {
			b.Fatal(err)
		}
		if i%100 != 0 { // some stay in flight
			s := signedEntry(a.Seq, "s")
			s.Seq, s.TimeMS = a.Seq+1, int64(i)
			if _, err := p.apply(&s); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		if s := p.spent(ByDelegation("delegation"), eth, "", time.UnixMilli(50_000)); s.Count < 50_000 {
			b.Fatal(s.Count)
		}
	}
}

func benchJournal(b *testing.B, n int) *fixture {
	f := newFixture(b)
	f.clock.t = time.Now()
	for i := 0; i < n; {
		if err := f.j.Checkpoint(context.Background()); err != nil {
			b.Fatal(err)
		}
		err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
			for range 500 {
				seq, err := f.j.Append(tx, approval(fmt.Sprint("r", i), 100))
				if err != nil {
					return err
				}
				if _, err := f.j.Append(tx, signedEntry(seq, "a signature of sixty-five bytes or so, to have the right size ...")); err != nil {
					return err
				}
				i += 2
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return f
}

func BenchmarkOpen10k(b *testing.B)  { benchOpen(b, 10_000, false) }
func BenchmarkOpen100k(b *testing.B) { benchOpen(b, 100_000, false) }

// BenchmarkFullFold100k is what every start was without snapshots.
func BenchmarkFullFold100k(b *testing.B) { benchOpen(b, 100_000, true) }

// benchOpen opens a journal of n entries that was closed in order.
func benchOpen(b *testing.B, n int, full bool) {
	f := benchJournal(b, n)
	if err := f.j.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	cfg := f.config()
	cfg.FullFold = full
	for b.Loop() {
		if _, err := Open(context.Background(), f.v, cfg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenLive100k is a start with 100,000 charges in a window of 366 days, spread
// over most of it; BenchmarkSpentLive100k one limit's check among them, as the journal
// keeps them after its snapshots.
func BenchmarkOpenLive100k(b *testing.B) {
	f := liveJournal(b)
	for b.Loop() {
		if _, err := Open(context.Background(), f.v, f.config()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSpentLive100k(b *testing.B) {
	f := liveJournal(b)
	day := 24 * time.Hour
	for b.Loop() {
		if s := f.j.Spent(ByDelegation("delegation"), eth, ButFees, f.clock.now().Add(-366*day)); s.Count != 100_000 {
			b.Fatal(s.Count)
		}
	}
}

func liveJournal(b *testing.B) *fixture {
	f := newFixture(b)
	f.clock.t = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100 {
		f.clock.add(3 * 24 * time.Hour)
		if err := f.j.Checkpoint(context.Background()); err != nil {
			b.Fatal(err)
		}
		err := f.v.Update(context.Background(), func(tx *vault.Tx) error {
			for n := range 1000 {
				seq, err := f.j.Append(tx, approval(fmt.Sprint("r", 1000*i+n), 100))
				if err != nil {
					return err
				}
				f.clock.add(2 * time.Second)
				if _, err := f.j.Append(tx, signedEntry(seq, "a signature of sixty-five bytes or so, to have the right size ...")); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		if i%8 == 7 {
			if err := f.j.Snapshot(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := f.j.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkRecall is a request asked about again long after it left memory.
func BenchmarkRecall(b *testing.B) {
	f := benchJournal(b, 10_000)
	if err := f.j.Snapshot(context.Background()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, ok, err := f.j.Request("org", "r4000"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// BenchmarkSnapshot100k writes the folds of 100,000 entries.
func BenchmarkSnapshot100k(b *testing.B) {
	f := benchJournal(b, 100_000)
	for b.Loop() {
		if err := f.j.Snapshot(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify10k verifies the same off-line.
func BenchmarkVerify10k(b *testing.B) {
	f := benchJournal(b, 10_000)
	for b.Loop() {
		if _, err := Verify(context.Background(), f.path(), nil); err != nil {
			b.Fatal(err)
		}
	}
}
