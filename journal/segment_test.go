package journal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sigild/sigild/vault"
)

// archived makes a journal with an archive of three segments and two entries that
// are in none, and returns its segments.
func archived(t testing.TB) (*fixture, []string) {
	t.Helper()
	f := newFixture(t)
	f.archive = t.TempDir()
	f.reopen()
	f.must(Entry{Kind: KindStarted, Facts: map[string]string{"version": "1"}})
	a := f.must(approval("r1", 100))
	f.must(signedEntry(a, "signature"))
	f.cut()
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "a1", RequestHash: hashOf("a1"), Answer: []byte("reply")})
	f.cut()
	b := f.must(approval("r2", 100))
	f.must(failedEntry(b, true))
	f.cut()
	f.must(Entry{Kind: KindStopped})
	if err := f.j.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.must(Entry{Kind: KindStarted})
	files, err := SegmentFiles(f.archive)
	if err != nil || len(files) != 3 {
		t.Fatalf("segments %v, %v; want three", files, err)
	}
	return f, files
}

// cut makes a checkpoint and a segment up to it.
func (f *fixture) cut() {
	f.t.Helper()
	if err := errors.Join(f.j.Checkpoint(context.Background()), f.j.segment(context.Background(), true)); err != nil {
		f.t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSegmentsHoldTheChainAndNeedOnlyTheKey(t *testing.T) {
	f, files := archived(t)
	var seen []Entry
	r, err := VerifySegments(context.Background(), files, &f.device.key.PublicKey, func(_ vault.JournalRow, e Entry) error {
		seen = append(seen, e)
		return nil
	})
	if err != nil || r.From != 1 || r.Entries != f.j.Status().Archived || r.Covered != r.Entries || r.KeyFromGenesis {
		t.Fatalf("report = %+v, %v; want all of the archive, %d entries", r, err, f.j.Status().Archived)
	}
	have, err := f.j.Entries(context.Background(), 1, len(seen))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range have {
		want, got := mustEncode(t, e), mustEncode(t, seen[i])
		if !bytes.Equal(want, got) {
			t.Errorf("entry %d is %s, want %s", i+1, got, want)
		}
	}
	// The newest alone, as a restore reads it.
	if r, err = VerifySegments(context.Background(), files[2:], &f.device.key.PublicKey, nil); err != nil || r.From == 1 {
		t.Errorf("the last segment alone: %+v, %v", r, err)
	}
	if r, err = VerifySegments(context.Background(), files, nil, nil); err != nil || !r.KeyFromGenesis || r.ApplianceID != "appliance-1" {
		t.Errorf("with the key of the genesis: %+v, %v", r, err)
	}
	// The archive survives a restart: nothing is written twice.
	f.reopen()
	if s := f.j.Status(); s.Archived != r.Entries {
		t.Errorf("archived up to %d after a restart, want %d", s.Archived, r.Entries)
	}
}

func mustEncode(t testing.TB, e Entry) []byte {
	t.Helper()
	b, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExportMakesTheSameSegmentsOffline(t *testing.T) {
	f, files := archived(t)
	if err := f.v.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	made, r, err := Export(context.Background(), f.path(), nil, dir, 1)
	if err != nil || r.Entries != 16 {
		t.Fatalf("export: %v, report %+v, %v", made, r, err)
	}
	for i, name := range files {
		if filepath.Base(made[i]) != filepath.Base(name) || !bytes.Equal(read(t, made[i]), read(t, name)) {
			t.Errorf("export made %s, the daemon %s, or their bytes differ", made[i], name)
		}
	}
	if r, err := VerifySegments(context.Background(), made, nil, nil); err != nil || r.Entries != 14 {
		t.Errorf("the export verifies up to %d, %v; want 14, the last under a checkpoint", r.Entries, err)
	}
	again, _, err := Export(context.Background(), f.path(), nil, dir, 1)
	if err != nil || len(again) != 0 {
		t.Errorf("a second export made %v, %v; want nothing", again, err)
	}
	// In one piece, when so much is wanted in a file.
	whole := t.TempDir()
	if made, _, err = Export(context.Background(), f.path(), nil, whole, 1000); err != nil || len(made) != 1 || filepath.Base(made[0]) != segmentName(1, 14) {
		t.Errorf("export in one piece: %v, %v", made, err)
	}
}

func TestSegmentsThatDontFitAreRefused(t *testing.T) {
	f, files := archived(t)
	pub := &f.device.key.PublicKey
	_, other := archived(t)
	refused := func(what string, files []string) {
		t.Helper()
		_, err := VerifySegments(context.Background(), files, pub, nil)
		var se *SegmentError
		var ve *VerifyError
		if !errors.As(err, &se) && !errors.As(err, &ve) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	refused("none", nil)
	refused("a gap", []string{files[0], files[2]})
	refused("two exchanged", []string{files[0], files[2], files[1]})
	refused("one doubled", []string{files[0], files[1], files[1]})
	refused("another store's", other)
	refused("another store's in the middle", []string{files[0], other[1]})
	if _, err := VerifySegments(context.Background(), files, &newDevice(t).key.PublicKey, nil); err == nil {
		t.Error("another checkpoint key was taken")
	}
	if _, err := VerifySegments(context.Background(), files[1:], nil, nil); err == nil {
		t.Error("segments without genesis were taken without a key")
	}
}

// A crash between the file and its entry: the file is found and told of, also
// when more has come since.
func TestASegmentWithoutItsEntryIsTakenUp(t *testing.T) {
	f := newFixture(t)
	f.archive = t.TempDir()
	f.reopen()
	f.cut()
	name := filepath.Join(f.archive, segmentName(1, 1))
	kept := read(t, name)
	f.must(Entry{Kind: KindStarted})
	if err := f.j.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := f.j.proj.archived
	f.cut()
	second, err := SegmentFiles(f.archive)
	if err != nil || len(second) != 2 {
		t.Fatalf("%v, %v", second, err)
	}
	f.j.proj.archived = before // as if the entry of the second were lost
	f.must(Entry{Kind: KindStopped})
	f.cut()
	files, err := SegmentFiles(f.archive)
	if err != nil || len(files) != 3 || !bytes.Equal(read(t, name), kept) {
		t.Errorf("%v, %v; want the second taken up and a third", files, err)
	}
	if _, err := VerifySegments(context.Background(), files, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestAnArchiveThatFailsIsToldAndAskedAgain(t *testing.T) {
	f := newFixture(t)
	f.archive = filepath.Join(t.TempDir(), "away")
	f.reopen()
	f.must(Entry{Kind: KindStarted})
	if err := f.j.Close(context.Background()); err == nil || f.j.Status().ArchiveFailure == nil {
		t.Error("an archive that is not there went unnoticed")
	}
	if err := os.Mkdir(f.archive, 0o700); err != nil {
		t.Fatal(err)
	}
	// In the way of the first segment lies something else.
	block := filepath.Join(f.archive, segmentName(1, 2))
	if err := os.WriteFile(block, []byte("else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.j.Close(context.Background()); err == nil || string(read(t, block)) != "else" {
		t.Errorf("a foreign file was overwritten, or taken for ours: %v", err)
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if err := f.j.Close(context.Background()); err != nil || f.j.Status().Archived != 2 {
		t.Errorf("after the obstacle is gone: %v, %+v", err, f.j.Status())
	}
	left, err := filepath.Glob(filepath.Join(f.archive, "*.part"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSegmentsAreMadeByTheArchivesRules(t *testing.T) {
	f := newFixture(t)
	f.archive = t.TempDir()
	f.reopen()
	count := func() int {
		t.Helper()
		if err := errors.Join(f.j.Checkpoint(context.Background()), f.j.segment(context.Background(), false)); err != nil {
			t.Fatal(err)
		}
		files, err := SegmentFiles(f.archive)
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	if n := count(); n != 0 {
		t.Errorf("%d segments at once, want none", n)
	}
	f.clock.add(time.Hour)
	if n := count(); n != 1 {
		t.Errorf("%d segments after an hour, want one", n)
	}
	f.clock.add(time.Hour)
	if n := count(); n != 1 {
		t.Errorf("%d segments when nothing has happened, want still one", n)
	}
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "revoke", RequestHash: hashOf("revoke")})
	if n := count(); n != 2 {
		t.Errorf("%d segments after an act, want two: it must not be undone by a restore", n)
	}
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "revoke2", RequestHash: hashOf("revoke")})
	if n := count(); n != 2 {
		t.Errorf("%d segments right after, want two: acts don't flood the folder", n)
	}
	f.clock.add(urgentEvery)
	if n := count(); n != 3 {
		t.Errorf("%d segments a little later, want three", n)
	}
}

// Every bit and every length of every segment; with CAMPAIGN unset a sample.
func TestCampaignDamagedSegments(t *testing.T) {
	f, files := archived(t)
	pub := &f.device.key.PublicKey
	step := sample(13)
	check := func(name string, b []byte) error {
		s, err := readSegmentHead(bytes.NewReader(b))
		if err != nil {
			return err
		}
		// As verifying the folder would begin, where only the signature speaks for the head.
		_, err = readSegment(bytes.NewReader(b), walkFrom(s.StoreID, pub, vault.JournalHead{Seq: s.First - 1, Hash: s.Prev}), func(vault.JournalRow, Entry) error { return nil })
		return err
	}
	tried := 0
	for _, name := range files {
		b := read(t, name)
		if err := check(name, b); err != nil {
			t.Fatal(err)
		}
		for bit := 0; bit < 8*len(b); bit += step {
			bad := slices.Clone(b)
			bad[bit/8] ^= 1 << (bit % 8)
			if check(name, bad) == nil {
				t.Errorf("%s with bit %d flipped was accepted", name, bit)
			}
			tried++
		}
		for n := 0; n < len(b); n += step {
			if check(name, b[:n]) == nil {
				t.Errorf("%s cut to %d bytes was accepted", name, n)
			}
			tried++
		}
		if check(name, append(slices.Clone(b), 0)) == nil {
			t.Errorf("%s with a byte more was accepted", name)
		}
	}
	t.Logf("%d damaged segments, none accepted", tried)
}

// sample is the distance between faults that are tried: 1 in a campaign.
func sample(short int) int {
	if os.Getenv("CAMPAIGN") != "" {
		return 1
	}
	return short
}

func FuzzReadSegment(f *testing.F) {
	fix, files := archived(f)
	for _, name := range files {
		f.Add(read(f, name))
	}
	pub := &fix.device.key.PublicKey
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSegmentHead(bytes.NewReader(b))
		if err != nil {
			return
		}
		var rows []vault.JournalRow
		at := vault.JournalHead{Seq: s.First - 1, Hash: s.Prev}
		_, err = readSegment(bytes.NewReader(b), walkFrom(s.StoreID, pub, at), func(r vault.JournalRow, _ Entry) error {
			rows = append(rows, r)
			return nil
		})
		if err != nil {
			return
		}
		// What is accepted is written exactly so.
		var again bytes.Buffer
		last := rows[len(rows)-1]
		c := checkpoint{row: vault.JournalHead{Seq: last.Seq, Hash: last.Hash}, timeMS: s.timeMS, signature: s.signature}
		if err := writeSegment(&again, s.StoreID, at, rows, c); err != nil || !bytes.Equal(again.Bytes(), b) {
			t.Errorf("accepted %x, which is written %x, %v", b, again.Bytes(), err)
		}
	})
}
