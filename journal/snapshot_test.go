package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sigild/sigild/vault"
)

// compareCoarse holds a journal that took snapshots against the slow fold: requests
// and replay keys exactly, sums within what coarsening may add and never below.
func (f *fixture) compareCoarse(when string) {
	f.t.Helper()
	es, err := f.j.Entries(context.Background(), 1, 1<<20)
	if err != nil {
		f.t.Fatal(err)
	}
	s := foldSlowly(es)
	now := f.clock.now().UnixMilli()
	for _, scope := range []Scope{ByDelegation("d0"), ByWallet("w1"), ByOrganization("org")} {
		for _, back := range []int64{0, 1, 500, 5_000, 60_000, now} {
			got := f.j.Spent(scope, eth, "", time.UnixMilli(now-back))
			least, _, count := s.spent(scope, eth, "", now-back)
			most, _, countMost := s.spent(scope, eth, "", now-back-back/(coarseness-1)-1)
			if got.Sum.Lt(least) || got.Sum.Gt(most) || got.Count < count || got.Count > countMost {
				f.t.Fatalf("%s: spent %v within %d ms = %s in %d; want %s in %d to %s in %d", when, scope, back, got.Sum.Dec(), got.Count, least.Dec(), count, most.Dec(), countMost)
			}
		}
	}
	for id, want := range s.requests {
		if got, ok, err := f.j.Request("org", id); !ok || err != nil || string(got.State) != want {
			f.t.Fatalf("%s: request %s is %q (%v, %v), want %q", when, id, got.State, ok, err, want)
		}
	}
	for key, want := range s.replays {
		if got, ok := f.j.ReplayKey(key); !ok || got != want {
			f.t.Fatalf("%s: replay key %s has %q, want %q", when, key, got, want)
		}
	}
}

func TestSnapshotsChangeNothingThatIsKnown(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			f := newFixture(t)
			var approved []uint64
			for n := range 200 {
				f.clock.add(time.Duration(rng.IntN(900)) * time.Millisecond)
				e := randomEntry(rng, approved, n)
				if seq, err := f.append(e); err == nil && e.Kind == KindApproved {
					approved = append(approved, seq)
				}
				switch {
				case n%13 == 12:
					if err := f.j.Snapshot(context.Background()); err != nil {
						t.Fatal(err)
					}
				case n%31 == 30:
					f.compareCoarse(fmt.Sprint("step ", n))
				case n%47 == 46:
					if err := f.j.Checkpoint(context.Background()); err != nil {
						t.Fatal(err)
					}
					f.reopen()
				}
			}
			f.reopen() // ends what is open
			want := f.foldedState()
			f.reopen()
			if got := f.foldedState(); !bytes.Equal(got, want) {
				t.Error("a second start from the snapshot gives something else")
			}
			f.compareCoarse("from the snapshot")
			// The whole chain, folded anew, checks every snapshot and ends the same.
			f.openVault()
			cfg := f.config()
			cfg.FullFold = true
			j, err := Open(context.Background(), f.v, cfg)
			if err != nil {
				t.Fatal(err)
			}
			f.j = j
			if got := f.foldedState(); !bytes.Equal(got, want) {
				t.Error("the full fold gives something else than the snapshot and what came since")
			}
			f.compareCoarse("folded in full")
			r, err := VerifyFull(context.Background(), f.copyOf(), nil)
			if err != nil || r.Snapshots < 14 {
				t.Errorf("off-line full verification: %+v, %v; want every snapshot checked", r, err)
			}
		})
	}
}

// foldedState is all that the folds know, as bytes.
func (f *fixture) foldedState() []byte {
	head, err := f.v.JournalHead()
	if err != nil {
		f.t.Fatal(err)
	}
	state, over, held := f.j.proj.snapshot(f.j.positionLocked(head), f.clock.now().UnixMilli())
	for _, r := range append(slices.Clone(over.list), held.list...) {
		state = append(state, r.data...)
	}
	return state
}

// copyOf closes the store and gives its path.
func (f *fixture) copyOf() string {
	f.t.Helper()
	if err := f.v.Close(); err != nil {
		f.t.Fatal(err)
	}
	return f.path()
}

func TestWhatIsOverLeavesMemoryAndIsRecalled(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	f.must(signedEntry(a, "signature 1"))
	f.must(Entry{Kind: KindAct, Organization: "org", RequestID: "act1", RequestHash: hashOf("act1"), Method: "/x/Y", Answer: []byte("reply")})
	c := f.must(approval("r3", 7))
	f.must(failedEntry(c, true))
	d := f.must(approval("r4", 7))
	f.must(Entry{Kind: KindOutcomeUnknown, ApprovedSeq: d})
	want := map[string]RequestState{}
	for _, id := range []string{"r1", "act1", "r3", "r4"} {
		want[id], _, _ = f.j.Request("org", id)
	}
	if err := f.j.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for id, w := range want {
			got, ok, err := f.j.Request("org", id)
			if !ok || err != nil || fmt.Sprint(got) != fmt.Sprint(w) {
				t.Errorf("%s = %+v (%v, %v), want %+v", id, got, ok, err, w)
			}
		}
		if len(f.j.proj.requests) != 1 || len(f.j.proj.replays) != 0 {
			t.Errorf("%d requests and %d replay keys in memory, want the open one and none", len(f.j.proj.requests), len(f.j.proj.replays))
		}
	}
	check()
	f.reopen()
	check()
	// What is only on disk still refuses.
	other := approval("r1", 1)
	other.RequestHash = hashOf("another message")
	var reused *RequestReusedError
	if _, err := f.append(other); !errors.As(err, &reused) {
		t.Errorf("an old id with another message: %v", err)
	}
	if _, err := f.append(approval("r1", 100)); !errors.Is(err, ErrRequestExists) {
		t.Errorf("an old approval once more: %v", err)
	}
	nonce := approval("r9", 1)
	nonce.ReplayKeys = []string{"evm-nonce:1:0x00:r1"}
	var replay *ReplayError
	if _, err := f.append(nonce); !errors.As(err, &replay) || replay.Have != hashOf("digest r1") {
		t.Errorf("another digest under an old replay key: %v", err)
	}
	f.must(approval("r3", 7)) // refunded: may be approved anew
	f.must(signedEntry(d, "late"))
	f.wantState("r4", StateSigned)
}

// A snapshot is part of the store: its records can't be swapped, cut or put back.
// Every bit of the state's, with CAMPAIGN unset a sample.
func TestCampaignChangedSnapshots(t *testing.T) {
	f := newFixture(t)
	f.must(signedEntry(f.must(approval("r1", 100)), "s"))
	if err := f.j.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	older := f.snapshotRows()
	f.must(signedEntry(f.must(approval("r2", 100)), "s"))
	if err := f.j.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	path := f.copyOf()
	whole := read(t, path)
	opens := func() error {
		v, err := vault.Open(context.Background(), vault.Config{Dir: f.dir, Now: f.clock.now}, f.pin)
		if err != nil {
			return err
		}
		defer func() { _ = v.Close() }()
		if err := v.Unseal(context.Background(), f.sealers()); err != nil {
			return err
		}
		_, err = Open(context.Background(), v, f.config())
		return err
	}
	if err := opens(); err != nil {
		t.Fatal(err)
	}
	tried := 0
	refused := func(what string, edit func(db *sql.DB)) {
		t.Helper()
		editDB(t, path, edit)
		tried++
		if err := opens(); !errors.Is(err, vault.ErrTampered) {
			t.Errorf("%s: %v, want ErrTampered", what, err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(path + suffix)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for key, old := range older {
		refused("an older piece", func(db *sql.DB) { mustExec(t, db, "UPDATE rec SET v = ? WHERE hex(k) = ?", old, key) })
		refused("a missing piece", func(db *sql.DB) { mustExec(t, db, "DELETE FROM rec WHERE hex(k) = ?", key) })
		step := sample(397)
		for bit := 0; bit < 8*len(old); bit += step {
			refused(fmt.Sprint("bit ", bit), func(db *sql.DB) {
				var now []byte
				if err := db.QueryRow("SELECT v FROM rec WHERE hex(k) = ?", key).Scan(&now); err != nil {
					t.Fatal(err)
				}
				if bit/8 < len(now) {
					now[bit/8] ^= 1 << (bit % 8)
				} else {
					now = now[:len(now)-1]
				}
				mustExec(t, db, "UPDATE rec SET v = ? WHERE hex(k) = ?", now, key)
			})
		}
	}
	t.Logf("%d changed snapshots, none accepted", tried)
}

// snapshotRows gives the stored bytes of the snapshot's record that every next one
// replaces: the first piece of the state, the largest here.
func (f *fixture) snapshotRows() map[string][]byte {
	f.t.Helper()
	db, err := sql.Open("sqlite", "file:"+f.path()+"?mode=ro")
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var k string
	var v []byte
	if err := db.QueryRow("SELECT hex(rec.k), v FROM rec JOIN leaf ON rec.k = leaf.k WHERE t = ? ORDER BY length(v) DESC", int64(vault.TypeJournal)).Scan(&k, &v); err != nil {
		f.t.Fatal(err)
	}
	return map[string][]byte{k: v}
}

func TestARowThatOnlyTheIndexNamesIsAuthenticated(t *testing.T) {
	f := newFixture(t)
	a := f.must(approval("r1", 100))
	end := f.must(signedEntry(a, "signature"))
	if err := f.j.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	editDB(t, f.copyOf(), func(db *sql.DB) {
		mustExec(t, db, "UPDATE journal SET body = CAST(replace(CAST(body AS TEXT), 'c2lnbmF0dXJl', 'c2lnbmF0dXJm') AS BLOB) WHERE seq = ?", int64(end))
	})
	f.openVault()
	v := f.v
	j, err := Open(context.Background(), v, f.config())
	if err != nil {
		t.Fatal(err)
	}
	var ve *VerifyError
	if s, ok, err := j.Request("org", "r1"); !errors.As(err, &ve) {
		t.Errorf("a changed answer was given out: %+v, %v, %v", s, ok, err)
	}
	cfg := f.config()
	cfg.FullFold = true
	_, err = Open(context.Background(), v, cfg)
	wantBroken(t, "the full fold", err, end)
}

func TestPruningKeepsWhatIsNeeded(t *testing.T) {
	f := newFixture(t)
	f.archive = t.TempDir()
	f.keep = Keep{For: 24 * time.Hour}
	f.reopen()
	a := f.must(approval("old", 100))
	f.must(signedEntry(a, "signature"))
	b := f.must(approval("unknown", 10))
	f.must(Entry{Kind: KindOutcomeUnknown, ApprovedSeq: b})
	f.cut()
	tidy := func() {
		t.Helper()
		if err := f.j.tidy(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	f.clock.add(23 * time.Hour)
	if err := f.j.Snapshot(context.Background()); err != nil {
		t.Fatal(err)
	}
	tidy()
	if f.j.proj.pruned.Seq != 0 {
		t.Error("pruned before the time")
	}
	f.must(signedEntry(f.must(approval("new", 1)), "s"))
	if err := f.j.Checkpoint(context.Background()); err != nil { // covered, in no segment
		t.Fatal(err)
	}
	f.clock.add(time.Hour)
	tidy()
	through := f.j.proj.pruned.Seq
	if through == 0 || through >= f.j.Status().Covered {
		t.Fatalf("pruned through %d, want the one archived segment and no more", through)
	}
	check := func() {
		t.Helper()
		if n := f.count("SELECT count(*) FROM journal WHERE seq BETWEEN 2 AND ?", int64(through)); n != 0 {
			t.Errorf("%d pruned rows are there", n)
		}
		if _, ok, err := f.j.Request("org", "old"); ok || err != nil {
			t.Errorf("a pruned request is known: %v, %v", ok, err)
		}
		f.wantState("new", StateSigned)
		f.wantState("unknown", StateOutcomeUnknown) // a reservation outlives its rows
		if d, ok := f.j.ReplayKey("evm-nonce:1:0x00:old"); !ok || d != hashOf("digest old") {
			t.Error("a replay key was forgotten")
		}
		f.wantSpent(time.Time{}, ButFees, 111, 3)
		f.wantSpent(f.clock.now().Add(-48*time.Hour), ButFees, 111, 3)
		if g := f.j.Genesis(); g.ApplianceID != "appliance-1" {
			t.Errorf("genesis = %+v", g)
		}
	}
	check()
	f.reopen()
	check()
	tidy() // nothing more
	if f.j.proj.pruned.Seq != through {
		t.Error("a second pruning went on")
	}
	// The reservation may end, and the archive and the store verify, alone and together.
	f.must(signedEntry(b, "late"))
	f.cut()
	path := f.copyOf()
	r, err := Verify(context.Background(), path, &f.device.key.PublicKey)
	if err != nil || r.From != through+1 {
		t.Errorf("verifying a pruned journal: %+v, %v; want it to begin with %d", r, err, through+1)
	}
	files, err := SegmentFiles(f.archive)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := VerifySegments(context.Background(), files, nil, nil); err != nil || s.Entries < through || s.From != 1 {
		t.Errorf("the archive: %+v, %v", s, err)
	}
	if _, err := VerifyFull(context.Background(), path, nil); err == nil {
		t.Error("a full fold of a pruned journal")
	}
	// Export goes on behind the archive's last file, and not without it.
	if _, _, err := Export(context.Background(), path, nil, t.TempDir(), 1); err == nil {
		t.Error("an export with a gap")
	}
	if _, _, err := Export(context.Background(), path, nil, f.archive, 1); err != nil {
		t.Errorf("continuing the archive: %v", err)
	}
	// Rows that are missing otherwise are noticed.
	editDB(t, path, func(db *sql.DB) { mustExec(t, db, "DELETE FROM journal WHERE seq = ?", int64(through+1)) })
	_, err = Verify(context.Background(), path, nil)
	wantBroken(t, "one row more gone", err, 2)
}

func TestNothingIsPrunedWithoutAnArchive(t *testing.T) {
	f := newFixture(t)
	f.keep = Keep{For: time.Second, Entries: 1}
	f.reopen()
	for range 20 {
		f.must(Entry{Kind: KindStarted})
	}
	f.clock.add(time.Hour)
	if err := errors.Join(f.j.Checkpoint(context.Background()), f.j.Snapshot(context.Background()), f.j.tidy(context.Background())); err != nil {
		t.Fatal(err)
	}
	if n := f.count("SELECT count(*) FROM journal"); n != 23 {
		t.Errorf("%d rows, want all 23", n)
	}
}

func (f *fixture) count(query string, args ...any) (n int) {
	f.t.Helper()
	db, err := sql.Open("sqlite", "file:"+f.path()+"?mode=ro")
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func FuzzUnpackState(f *testing.F) {
	fix := newFixture(f)
	fix.must(approval("r1", 100))
	fix.must(Entry{Kind: KindOutcomeUnknown, ApprovedSeq: fix.must(approval("r2", 7))})
	fix.must(signedEntry(fix.must(approval("r3", 7)), "s"))
	state, _, _ := fix.j.proj.snapshot(position{}, fix.clock.now().UnixMilli())
	f.Add(state)
	fix.must(Entry{Kind: KindLease, Outcome: leaseGranted, Leases: []Lease{{Of: "approvals", Count: "9"}, {Of: "delegation", ID: "d", Asset: eth, What: ButFees, Amount: "9", Count: "7"}}})
	state, _, _ = fix.j.proj.snapshot(position{}, fix.clock.now().UnixMilli())
	f.Add(state)
	f.Add([]byte("SGJP"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, _, err := unpackState(b, nil)
		if err != nil {
			return
		}
		for i, n := range p.over.want {
			if err := p.over.fill(i, make([]byte, 0)); err == nil && n != 0 {
				t.Error("a run of another length was taken")
			}
		}
		for k := range p.accounts { // what was accepted can be asked
			p.spent(k.scope, k.asset, k.what, time.Time{})
		}
	})
}
