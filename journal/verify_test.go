package journal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// written makes a journal with every kind of entry, a checkpoint in the middle
// and two entries after it, and closes it.
func written(t testing.TB) *fixture {
	t.Helper()
	f := newFixture(t)
	f.must(Entry{Kind: KindStarted, Facts: map[string]string{"version": "1"}})
	a := f.must(approval("r1", 100))
	f.must(signedEntry(a, "signature"))
	f.must(Entry{Kind: KindRefused, Organization: "org", RequestID: "r2", Reason: "POLICY_DENIED", Rule: "no"})
	b := f.must(approval("r3", 100))
	if err := f.j.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.must(failedEntry(b, true))
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "a1", RequestHash: hashOf("a1"), Answer: []byte("reply")})
	if err := f.v.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// editDB changes the closed store behind its back.
func editDB(t testing.TB, path string, fn func(db *sql.DB)) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	fn(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (f *fixture) rows() []vault.JournalRow {
	f.t.Helper()
	file, err := vault.OpenFile(context.Background(), f.path())
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var rows []vault.JournalRow
	if err := file.JournalRows(context.Background(), 1, 0, func(r vault.JournalRow) error { rows = append(rows, r); return nil }); err != nil {
		f.t.Fatal(err)
	}
	return rows
}

// wantBroken expects a VerifyError at entry seq.
func wantBroken(t testing.TB, what string, err error, seq uint64) {
	t.Helper()
	var ve *VerifyError
	if !errors.As(err, &ve) || ve.Seq != seq {
		t.Errorf("%s: %v; want a VerifyError at entry %d", what, err, seq)
	}
}

func TestVerifyReports(t *testing.T) {
	f := written(t)
	r, err := Verify(context.Background(), f.path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Entries != 9 || r.Checkpoints != 1 || r.Covered != 6 || r.FirstUnsigned != 8 || r.Unsigned != 2 || !r.KeyFromGenesis {
		t.Errorf("report = %+v; want 9 entries, one checkpoint over 6, 8 and 9 unsigned", r)
	}
	if r.ApplianceID != "appliance-1" || r.StoreID != f.pin.StoreID || !r.CheckpointKey.Equal(&f.device.key.PublicKey) || !r.First.Equal(testStart) {
		t.Errorf("report = %+v", r)
	}
	if r, err = Verify(context.Background(), f.path(), &f.device.key.PublicKey); err != nil || r.KeyFromGenesis {
		t.Errorf("with the key given: %+v, %v", r, err)
	}
	_, err = Verify(context.Background(), f.path(), &newDevice(t).key.PublicKey)
	wantBroken(t, "another checkpoint key", err, 1)
	if _, err := Verify(context.Background(), filepath.Join(t.TempDir(), "none.db"), nil); !errors.Is(err, vault.ErrMissing) {
		t.Errorf("no file: %v, want ErrMissing", err)
	}
}

// Every bit and every shorter body of every row, checkpoints among them, through the
// checker that Open and Verify share.
func TestCampaignFlippedBitsAreNamed(t *testing.T) {
	f := written(t)
	rows := f.rows()
	walk := func(rows []vault.JournalRow) error {
		w := &walker{storeID: f.pin.StoreID}
		for _, r := range rows {
			if _, err := w.step(r); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(rows); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		flip := func(what string, b []byte) {
			for bit := range 8 * len(b) {
				b[bit/8] ^= 1 << (bit % 8)
				var ve *VerifyError
				if err := walk(rows); !errors.As(err, &ve) || ve.Seq != uint64(i+1) {
					t.Errorf("%s of entry %d, bit %d: %v", what, i+1, bit, err)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		}
		flip("body", rows[i].Body)
		for whole, n := rows[i].Body, 0; n < len(whole); n++ {
			rows[i].Body = whole[:n]
			var ve *VerifyError
			if err := walk(rows); !errors.As(err, &ve) || ve.Seq != uint64(i+1) {
				t.Errorf("entry %d cut to %d bytes: %v", i+1, n, err)
			}
			rows[i].Body = whole
		}
		flip("hash", rows[i].Hash[:])
		flip("mac", rows[i].MAC[:])
	}
}

func TestOneChangedByteInTheFileIsNamed(t *testing.T) {
	f := written(t)
	rows := f.rows()
	db, err := sql.Open("sqlite", "file:"+f.path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, r := range rows {
		for _, column := range []string{"body", "hash", "mac"} {
			was := map[string][]byte{"body": r.Body, "hash": r.Hash[:], "mac": r.MAC[:]}[column]
			bad := bytes.Clone(was)
			bad[len(bad)/2] ^= 0x20
			mustExec(t, db, "UPDATE journal SET "+column+" = ? WHERE seq = ?", bad, int64(r.Seq))
			_, err := Verify(context.Background(), f.path(), nil)
			wantBroken(t, column, err, r.Seq)
			mustExec(t, db, "UPDATE journal SET "+column+" = ? WHERE seq = ?", was, int64(r.Seq))
		}
	}
	if _, err := Verify(context.Background(), f.path(), nil); err != nil {
		t.Errorf("after putting everything back: %v", err)
	}
}

func TestCutAndReorderedJournalsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name string
		seq  uint64
		edit []string
	}{
		{"last entry gone", 9, []string{"DELETE FROM journal WHERE seq = 9"}},
		{"middle entry gone", 4, []string{"DELETE FROM journal WHERE seq = 4"}},
		{"first entry gone", 1, []string{"DELETE FROM journal WHERE seq = 1"}},
		{"gap closed", 4, []string{"DELETE FROM journal WHERE seq = 4", "UPDATE journal SET seq = seq - 1 WHERE seq > 4"}},
		{"entry doubled", 10, []string{"INSERT INTO journal SELECT 10, body, hash, mac FROM journal WHERE seq = 9"}},
		{"two exchanged", 2, []string{"UPDATE journal SET seq = 100 WHERE seq = 2", "UPDATE journal SET seq = 2 WHERE seq = 3", "UPDATE journal SET seq = 3 WHERE seq = 100"}},
		{"all gone", 0, []string{"DELETE FROM journal"}},
		{"hash cut", 3, []string{"UPDATE journal SET hash = x'00' WHERE seq = 3"}},
		{"trigger in the file", 0, []string{"CREATE TRIGGER x AFTER DELETE ON journal BEGIN SELECT 1; END"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := written(t)
			editDB(t, f.path(), func(db *sql.DB) {
				for _, q := range c.edit {
					mustExec(t, db, q)
				}
			})
			_, err := Verify(context.Background(), f.path(), nil)
			wantBroken(t, c.name, err, c.seq)
		})
	}
}

func TestAHeadOfAnotherChainIsNamed(t *testing.T) {
	f := written(t)
	editDB(t, f.path(), func(db *sql.DB) {
		var body []byte
		if err := db.QueryRow("SELECT body FROM head").Scan(&body); err != nil {
			t.Fatal(err)
		}
		body[len(body)-1] ^= 1
		mustExec(t, db, "UPDATE head SET body = ?", body)
	})
	_, err := Verify(context.Background(), f.path(), nil)
	wantBroken(t, "another head", err, 9)
}

// forge rewrites the whole journal as someone would who can write the file but
// has neither the vault's key nor the device: everything fits, except what a
// key outside says.
func forge(t *testing.T, f *fixture, from int, change func(seq uint64, e *Entry)) {
	t.Helper()
	rows := f.rows()
	editDB(t, f.path(), func(db *sql.DB) {
		var prev vault.JournalHead
		for i, r := range rows {
			if i+1 >= from {
				e, err := decodeEntry(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				change(r.Seq, &e)
				if r.Body, err = e.encode(); err != nil {
					t.Fatal(err)
				}
				in := inner(prev, r.Body)
				r.MAC = chainMAC(hmac.New(sha256.New, []byte("guess")), in)
				r.Hash = chainHash(in, r.MAC)
			}
			prev = vault.JournalHead{Seq: r.Seq, Hash: r.Hash}
			mustExec(t, db, "UPDATE journal SET body = ?, hash = ?, mac = ? WHERE seq = ?", r.Body, r.Hash[:], r.MAC[:], int64(r.Seq))
		}
		var body []byte
		if err := db.QueryRow("SELECT body FROM head").Scan(&body); err != nil {
			t.Fatal(err)
		}
		copy(body[len(body)-32:], prev.Hash[:])
		mustExec(t, db, "UPDATE head SET body = ?", body)
	})
}

func TestAForgedChainFailsAtTheCheckpoint(t *testing.T) {
	f := written(t)
	forge(t, f, 5, func(seq uint64, e *Entry) {
		if seq == 5 {
			e.Reason = "nothing happened"
		}
	})
	_, err := Verify(context.Background(), f.path(), nil)
	wantBroken(t, "entry 5 rewritten with all after it", err, 7) // the checkpoint
}

// After the last checkpoint only the vault's key tells: the off-line report
// says which entries those are, and the vault itself refuses.
func TestAForgedTailIsUnsignedAndRefusedByTheVault(t *testing.T) {
	f := written(t)
	forge(t, f, 9, func(_ uint64, e *Entry) { e.Answer = []byte("forged") })
	r, err := Verify(context.Background(), f.path(), nil)
	if err != nil || r.FirstUnsigned != 8 {
		t.Errorf("report = %+v, %v; want the tail named as unsigned", r, err)
	}
	v, err := vault.Open(context.Background(), vault.Config{Dir: f.dir}, f.pin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	if err := v.Unseal(context.Background(), map[string]seal.Sealer{deviceID: f.device}); !errors.Is(err, vault.ErrTampered) {
		t.Errorf("unsealing: %v, want ErrTampered", err)
	}
}

// A journal forged from its first entry on, with a checkpoint key of the
// forger's, fits in itself: a key kept elsewhere finds it.
func TestAWhollyForgedJournalNeedsTheKeyFromOutside(t *testing.T) {
	f := written(t)
	forger := newDevice(t)
	var prev, through vault.JournalHead
	forge(t, f, 1, func(seq uint64, e *Entry) {
		switch e.Kind {
		case KindGenesis:
			g, err := parseGenesis(*e)
			if err != nil {
				t.Fatal(err)
			}
			g.CheckpointKey = &forger.key.PublicKey
			fake, err := g.entry()
			if err != nil {
				t.Fatal(err)
			}
			e.Facts = fake.Facts
		case KindCheckpoint:
			c := checkpoint{row: through, timeMS: e.TimeMS}
			var err error
			if c.signature, err = forger.SignP256(context.Background(), "", c.digest(f.pin.StoreID)); err != nil {
				t.Fatal(err)
			}
			e.Facts = c.entry().Facts
		}
		// The same arithmetic as forge's, one row behind.
		body, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		in := inner(prev, body)
		prev = vault.JournalHead{Seq: seq, Hash: chainHash(in, chainMAC(hmac.New(sha256.New, []byte("guess")), in))}
		through = prev
	})
	r, err := Verify(context.Background(), f.path(), nil)
	if err != nil || !r.KeyFromGenesis {
		t.Errorf("without a key from outside: %+v, %v; want success that says so", r, err)
	}
	_, err = Verify(context.Background(), f.path(), &f.device.key.PublicKey)
	wantBroken(t, "with the real key", err, 1)
}

func TestAWrongMACIsFoundWithTheKey(t *testing.T) {
	f := written(t)
	rows := f.rows()
	w := &walker{storeID: f.pin.StoreID, mac: hmac.New(sha256.New, []byte("another key"))}
	_, err := w.step(rows[0])
	wantBroken(t, "another MAC key", err, 1)
}

func TestVerifyBesideARunningWriter(t *testing.T) {
	f := newFixture(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := f.append(Entry{Kind: KindRefused, Reason: "POLICY_DENIED"}); err != nil {
				t.Errorf("appending: %v", err)
				return
			}
		}
	}()
	var last uint64
	for range 20 {
		r, err := Verify(context.Background(), f.path(), nil)
		if err != nil || r.Entries < last {
			t.Errorf("verifying a live file: %+v, %v", r, err)
		}
		last = r.Entries
	}
	close(stop)
	<-done

	// A copy of file and log, as a backup tool that knows both would make it.
	to := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(f.path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, "copy.db"+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Verify(context.Background(), filepath.Join(to, "copy.db"), nil)
	if err != nil || r.Entries < last {
		t.Errorf("verifying a copy: %+v, %v; want at least %d entries", r, err, last)
	}
}

func TestOpenRefusesAForeignJournal(t *testing.T) {
	f := written(t)
	f.openVault()
	cfg := f.config()
	cfg.Signer = newDevice(t)
	_, err := Open(context.Background(), f.v, cfg)
	wantBroken(t, "another checkpoint key", err, 1)
	if _, err := Create(context.Background(), f.v, f.config(), Genesis{ApplianceID: "again"}, nil); !errors.Is(err, ErrHasGenesis) {
		t.Errorf("second genesis: %v, want ErrHasGenesis", err)
	}

	dir := filepath.Join(t.TempDir(), "state")
	v, _, err := vault.Create(context.Background(), vault.Config{Dir: dir}, vault.KeyHolder{Sealer: f.device, ID: deviceID, Ref: "1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	if _, err := Open(context.Background(), v, f.config()); !errors.Is(err, ErrNoGenesis) {
		t.Errorf("journal without genesis: %v, want ErrNoGenesis", err)
	}
	if _, err := Create(context.Background(), v, f.config(), Genesis{ApplianceID: "a", Facts: map[string]string{"store": "x"}}, nil); err == nil {
		t.Error("a genesis fact of the caller's took the place of ours")
	}
	boom := errors.New("boom")
	if _, err := Create(context.Background(), v, f.config(), Genesis{ApplianceID: "a"}, func(*vault.Tx) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("Create whose other half fails: %v", err)
	}
	if h, err := v.JournalHead(); err != nil || h.Seq != 0 {
		t.Errorf("it left %d entries, %v", h.Seq, err)
	}
	v.Seal()
	if _, err := Open(context.Background(), v, f.config()); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("sealed vault: %v, want ErrSealed", err)
	}
}

func TestWalkShowsEntriesUntilToldToStop(t *testing.T) {
	f := written(t)
	var seen []uint64
	boom := errors.New("boom")
	_, err := Walk(context.Background(), f.path(), nil, func(e Entry) error {
		if seen = append(seen, e.Seq); e.Seq == 3 {
			return boom
		}
		return nil
	})
	if err != boom || len(seen) != 3 || seen[2] != 3 {
		t.Errorf("walk showed %v and returned %v; want 1 to 3 and the visitor's error", seen, err)
	}
}

func TestFollowShowsWhatComes(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(chan uint64, 100)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, f.path(), nil, time.Millisecond, func(e Entry) error { seen <- e.Seq; return nil })
	}()
	next := uint64(1)
	await := func() {
		t.Helper()
		select {
		case seq := <-seen:
			if seq != next {
				t.Fatalf("shown entry %d, want %d", seq, next)
			}
			next++
		case err := <-done:
			t.Fatalf("ended: %v", err)
		}
	}
	await()
	for range 5 {
		f.must(Entry{Kind: KindStarted})
		if err := f.j.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		await()
		await()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	// A store put back to an earlier time is noticed by whoever was looking.
	w := &walker{}
	if _, err := walkFile(context.Background(), f.path(), w, func(vault.JournalHead, vault.JournalRow, Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	w.last.Seq++
	var ve *VerifyError
	if err := more(context.Background(), f.path(), w, func(Entry) error { return nil }); !errors.As(err, &ve) {
		t.Errorf("a shorter journal: %v", err)
	}
}
