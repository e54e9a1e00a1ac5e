package journal

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/vault"
)

func TestPages(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t)
	for range 20 {
		f.must(Entry{Kind: KindStarted, Facts: map[string]string{"version": strings.Repeat("x", 100)}})
	}
	last := f.j.Status().Entries
	page := func(from uint64, limit int, first, count uint64) []vault.JournalRow {
		t.Helper()
		rows, err := f.j.Page(ctx, from, limit)
		if err != nil || uint64(len(rows)) != count || count > 0 && rows[0].Seq != first {
			t.Fatalf("Page(%d, %d) = %d rows, %v; want %d from %d", from, limit, len(rows), err, count, first)
		}
		return rows
	}
	// All of it, page by page, is one chain.
	var links Links
	for from := uint64(1); ; {
		rows, err := f.j.Page(ctx, from, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			if _, err := links.Next(r); err != nil {
				t.Fatal(err)
			}
		}
		from = links.Last() + 1
	}
	if links.Last() != last {
		t.Errorf("the pages end at entry %d, want %d", links.Last(), last)
	}
	page(0, 3, last-2, 3)
	page(0, MaxPage, 1, last)
	page(last, 10, last, 1)
	page(last+1, 10, 0, 0)
	page(1<<63, 10, 0, 0)
	for _, n := range []int{-1, 0, MaxPage + 1} {
		if _, err := f.j.Page(ctx, 1, n); err == nil {
			t.Errorf("a page of %d was given", n)
		}
	}

	// Rows that don't continue one another.
	rows := page(5, 4, 5, 4)
	changed := func(name string, change func([]vault.JournalRow)) {
		t.Helper()
		c := append([]vault.JournalRow{}, rows...)
		change(c)
		var l Links
		var err error
		for _, r := range c {
			if _, err = l.Next(r); err != nil {
				break
			}
		}
		if verify := (*VerifyError)(nil); !errors.As(err, &verify) {
			t.Errorf("%s: %v", name, err)
		}
	}
	changed("one left out", func(r []vault.JournalRow) { r[1] = r[2] })
	changed("a body", func(r []vault.JournalRow) { r[2].Body = append([]byte(nil), r[1].Body...) })
	changed("another hash", func(r []vault.JournalRow) { r[1].Hash[0] ^= 1 })
	changed("another MAC", func(r []vault.JournalRow) { r[1].MAC[0] ^= 1 })
	changed("no JSON", func(r []vault.JournalRow) { r[0].Body = []byte("{") })

	// A row that was changed in the file is not given out.
	editDB(t, f.path(), func(db *sql.DB) { mustExec(t, db, "UPDATE journal SET mac = ? WHERE seq = 6", make([]byte, 32)) })
	var verify *VerifyError
	if _, err := f.j.Page(ctx, 5, 4); !errors.As(err, &verify) || verify.Seq != 6 {
		t.Errorf("a changed row: %v", err)
	}
	if err := f.v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.j.Page(ctx, 1, 4); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("sealed: %v", err)
	}
}

func TestPagesOfAPrunedJournal(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t)
	f.archive, f.keep = t.TempDir(), Keep{For: 24 * time.Hour}
	f.reopen()
	for range 5 {
		f.must(Entry{Kind: KindStarted})
	}
	f.cut()
	f.clock.add(23 * time.Hour)
	if err := errors.Join(f.j.Snapshot(ctx), f.j.tidy(ctx)); err != nil {
		t.Fatal(err)
	}
	f.must(Entry{Kind: KindStarted})
	if err := f.j.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	f.clock.add(2 * time.Hour)
	if err := f.j.tidy(ctx); err != nil {
		t.Fatal(err)
	}
	pruned := f.j.proj.pruned.Seq
	if pruned == 0 {
		t.Fatal("nothing was pruned")
	}
	for _, from := range []uint64{2, pruned} {
		if _, err := f.j.Page(ctx, from, 9); !errors.Is(err, ErrPruned) {
			t.Errorf("entry %d: %v, want ErrPruned", from, err)
		}
	}
	for from, want := range map[uint64]uint64{0: pruned + 1, pruned + 1: pruned + 1, pruned + 2: pruned + 2, 1: 1} {
		rows, err := f.j.Page(ctx, from, MaxPage)
		if err != nil || len(rows) == 0 || rows[0].Seq != want || from == 1 && len(rows) != 1 {
			t.Errorf("Page(%d): %d rows, %v; want them from %d", from, len(rows), err, want)
		}
	}
}
