package vault

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// closedStore makes a store of a few records and journal rows and closes it.
func closedStore(t testing.TB) (dir string, pin Pin) {
	t.Helper()
	v, pin := create(t, stateDir(t))
	for i := range 6 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), fmt.Sprint("text ", i))
	}
	for range 3 {
		if err := v.Update(context.Background(), benchRow); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return v.cfg.Dir, pin
}

// copyStore copies a closed store.
func copyStore(t testing.TB, dir string) string {
	t.Helper()
	to := stateDir(t)
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, FileName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// edit changes a closed store behind the vault's back.
func edit(t testing.TB, dir string, fn func(db *sql.DB)) {
	t.Helper()
	db, err := openDB(filepath.Join(dir, FileName), "mode=rw", 1)
	if err != nil {
		t.Fatal(err)
	}
	fn(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func sqlExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// readAll opens the store and reads every record that it says it has.
func readAll(dir string, pin Pin) (map[string]string, error) {
	v, err := openUnsealed(dir, pin)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Close() }()
	got := make(map[string]string)
	err = v.Each(context.Background(), TypeWallet, func(id string, p []byte) error { got[id] = string(p); return nil })
	if err != nil {
		return nil, err
	}
	if err := v.Each(context.Background(), TypeStoreKey, func(string, []byte) error { return nil }); err != nil {
		return nil, err
	}
	return got, v.JournalRows(context.Background(), 1, 0, func(JournalRow) error { return nil })
}

func TestEditsOfTheFileAreFound(t *testing.T) {
	dir, pin := closedStore(t)
	// What an attacker may have kept of an earlier state.
	var oldEnv, oldHash, k []byte
	var oldVer int64
	edit(t, dir, func(db *sql.DB) {
		if err := db.QueryRow("SELECT leaf.k, ver, h, v FROM leaf JOIN rec ON rec.k = leaf.k WHERE t = 6").Scan(&k, &oldVer, &oldHash, &oldEnv); err != nil {
			t.Fatal(err)
		}
	})
	if len(k) != 32 {
		t.Fatal("no wallet record")
	}
	v, err := openUnsealed(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), fmt.Sprint("newer ", i))
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(dir, pin); err != nil || len(got) != 6 {
		t.Fatalf("before any edit: %v, %v", got, err)
	}

	bogus := bytes.Repeat([]byte{1}, 32)
	for _, c := range []struct {
		name string
		want error
		edit []string
		args [][]any
	}{
		{"record row deleted", ErrTampered, []string{"DELETE FROM rec WHERE k = ?"}, [][]any{{k}}},
		{"listed row deleted", ErrTampered, []string{"DELETE FROM leaf WHERE k = ?"}, [][]any{{k}}},
		{"record deleted in both", ErrTampered, []string{"DELETE FROM rec WHERE k = ?", "DELETE FROM leaf WHERE k = ?"}, [][]any{{k}, {k}}},
		{"record row added", ErrTampered, []string{"INSERT INTO rec VALUES (?, ?)"}, [][]any{{bogus, oldEnv}}},
		{"record added in both", ErrTampered, []string{"INSERT INTO rec VALUES (?, ?)", "INSERT INTO leaf VALUES (?, 6, 1, ?)"}, [][]any{{bogus, oldEnv}, {bogus, oldHash}}},
		{"one deleted, one added", ErrTampered, []string{"DELETE FROM rec WHERE k = ?", "INSERT INTO rec VALUES (?, ?)"}, [][]any{{k}, {bogus, oldEnv}}},
		{"older record row", ErrTampered, []string{"UPDATE rec SET v = ? WHERE k = ?"}, [][]any{{oldEnv, k}}},
		{"older record in both", ErrTampered, []string{"UPDATE rec SET v = ? WHERE k = ?", "UPDATE leaf SET ver = ?, h = ? WHERE k = ?"}, [][]any{{oldEnv, k}, {oldVer, oldHash, k}}},
		{"two records swapped", ErrTampered, []string{"UPDATE rec SET v = (SELECT v FROM rec r WHERE r.k <> rec.k ORDER BY r.k LIMIT 1) WHERE k = ?"}, [][]any{{k}}},
		{"type changed", ErrTampered, []string{"UPDATE leaf SET t = 7 WHERE k = ?"}, [][]any{{k}}},
		{"unknown type", ErrTampered, []string{"UPDATE leaf SET t = 65542 WHERE k = ?"}, [][]any{{k}}},
		{"list row cut", ErrTampered, []string{"UPDATE leaf SET h = x'00' WHERE k = ?"}, [][]any{{k}}},
		{"last journal row deleted", ErrTampered, []string{"DELETE FROM journal WHERE seq = 3"}, [][]any{nil}},
		{"middle journal row deleted", ErrTampered, []string{"DELETE FROM journal WHERE seq = 2"}, [][]any{nil}},
		{"journal row added", ErrTampered, []string{"INSERT INTO journal SELECT 4, body, hash, mac FROM journal WHERE seq = 3"}, [][]any{nil}},
		{"journal hash cut", ErrTampered, []string{"UPDATE journal SET hash = x'00' WHERE seq = 2"}, [][]any{nil}},
		{"head deleted", ErrTampered, []string{"DELETE FROM head"}, [][]any{nil}},
		{"keyslot deleted", ErrTampered, []string{"DELETE FROM slot"}, [][]any{nil}},
		{"keyslot doubled", ErrTampered, []string{"INSERT INTO slot SELECT 2, body FROM slot"}, [][]any{nil}},
		{"keyslot group deleted", ErrTampered, []string{"DELETE FROM slot_group"}, [][]any{nil}},
		{"statement deleted", ErrPinMismatch, []string{"DELETE FROM generation"}, [][]any{nil}},
		{"statement filed elsewhere", ErrTampered, []string{"UPDATE generation SET gen = 2"}, [][]any{nil}},
		{"store id changed", ErrPinMismatch, []string{"UPDATE meta SET store_id = x'00112233445566778899aabbccddeeff'"}, [][]any{nil}},
		{"newer schema", ErrSchema, []string{"UPDATE meta SET schema = 3"}, [][]any{nil}},
		{"older schema", ErrSchema, []string{"UPDATE meta SET schema = 1"}, [][]any{nil}},
		{"older schema, tables fitting", ErrTampered, []string{"UPDATE meta SET schema = 1", "DROP TABLE rotation"}, [][]any{nil, nil}},
		{"old root key added", ErrTampered, []string{"INSERT INTO rotation VALUES (1, zeroblob(93))"}, [][]any{nil}},
		{"lasting key deleted", ErrTampered, []string{"DELETE FROM rec WHERE k = (SELECT k FROM leaf WHERE t = 24)"}, [][]any{nil}},
		{"trigger added", ErrSchema, []string{"CREATE TRIGGER x AFTER INSERT ON journal BEGIN DELETE FROM rec; END"}, [][]any{nil}},
		{"view added", ErrSchema, []string{"CREATE VIEW x AS SELECT 1"}, [][]any{nil}},
		{"index added", ErrSchema, []string{"CREATE INDEX x ON rec (v)"}, [][]any{nil}},
		{"table dropped", ErrSchema, []string{"DROP TABLE leaf"}, [][]any{nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyStore(t, dir)
			edit(t, dir, func(db *sql.DB) {
				for i, q := range c.edit {
					sqlExec(t, db, q, c.args[i]...)
				}
			})
			got, err := readAll(dir, pin)
			if !errors.Is(err, c.want) {
				t.Errorf("read %v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// Every byte of the rows that are read at Open or Unseal: one bit each, in the
// file itself.
func TestFlippedRowsAreFound(t *testing.T) {
	dir, pin := closedStore(t)
	db, err := openDB(filepath.Join(dir, FileName), "mode=rw", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, col := range []string{"head.body", "head.mac", "generation.body", "slot_group.body", "slot.body"} {
		table, column, _ := strings.Cut(col, ".")
		var row []byte
		if err := db.QueryRow("SELECT " + column + " FROM " + table).Scan(&row); err != nil {
			t.Fatal(err)
		}
		for i := range row {
			bad := bytes.Clone(row)
			bad[i] ^= 1 << (i % 8)
			sqlExec(t, db, "UPDATE "+table+" SET "+column+" = ?", bad)
			v, err := openUnsealed(dir, pin)
			if err == nil {
				_ = v.Close()
			}
			if !errors.Is(err, ErrTampered) && !errors.Is(err, ErrPinMismatch) && !errors.Is(err, ErrNoKeyslot) {
				t.Errorf("%s byte %d: %v", col, i, err)
			}
		}
		sqlExec(t, db, "UPDATE "+table+" SET "+column+" = ?", row)
	}
	if _, err := readAll(dir, pin); err != nil {
		t.Errorf("after putting everything back: %v", err)
	}
}

func TestOpenFileReadsACopyAndALiveFile(t *testing.T) {
	v, pin := create(t, stateDir(t))
	for range 4 {
		if err := v.Update(context.Background(), benchRow); err != nil {
			t.Fatal(err)
		}
	}
	count := func(path string) (n int) {
		t.Helper()
		f, err := OpenFile(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}()
		if f.StoreID() != pin.StoreID || f.JournalHead().Seq != 4 {
			t.Errorf("store %x, head %d", f.StoreID(), f.JournalHead().Seq)
		}
		if err := f.JournalRows(context.Background(), 1, 0, func(JournalRow) error { n++; return nil }); err != nil {
			t.Error(err)
		}
		return n
	}
	live := filepath.Join(v.cfg.Dir, FileName)
	if n := count(live); n != 4 {
		t.Errorf("live file: %d rows, want 4", n)
	}
	if err := v.Update(context.Background(), func(tx *Tx) error { return tx.Put(TypeUser, "u", nil) }); err != nil {
		t.Errorf("updating after a reader: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	// A copy on a medium that can't be written.
	ro := filepath.Join(mountTmpfs(t, "1m"), FileName)
	src, err := os.Open(live)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.Create(ro)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	remountReadOnly(t, filepath.Dir(ro))
	if n := count(ro); n != 4 {
		t.Errorf("read-only copy: %d rows, want 4", n)
	}
	_, err = OpenFile(context.Background(), filepath.Join(t.TempDir(), "nothing"))
	wantIs(t, err, ErrMissing)
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenFile(context.Background(), junk)
	wantIs(t, err, ErrTampered)
}

// A column that was cut off, or has become something else, is damage and not a fault
// of ours: a power cut in the middle of a backup leaves such files.
func TestAColumnOfAnotherTypeIsDamage(t *testing.T) {
	db, err := openDB(filepath.Join(t.TempDir(), "x.db"), "mode=rwc", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{"SELECT NULL", "SELECT 'text'", "SELECT 1.5"} {
		var n int64
		err := db.QueryRow(q).Scan(&n)
		if err == nil {
			t.Fatalf("%s was read as a number", q)
		}
		wantIs(t, readError("reading", err), ErrTampered)
	}
}
