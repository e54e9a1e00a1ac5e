package journal

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strconv"

	"github.com/sigild/sigild/vault"
)

// A snapshot is the folds in sealed records of the vault, written in one transaction
// with the entry that tells of it. The vault's head vouches that the records are
// those and no older ones; the entry's hashes, in the chain, say what they must hold,
// so that a full fold can check every snapshot that was ever made.
//
//	"state/<n>"        the state (state.go) in pieces; before the first its length u32
//	"requests/<id>/<n>", "replays/<id>/<n>"   the runs, in pieces
//
// Open continues from the newest: what comes before it is read only when a request of
// that time is asked about again, and each row is authenticated then.

// pieceLen is what one record holds.
const pieceLen = 512 << 10

// The facts of a snapshot entry, beside factTime.
const (
	factState    = "state"    // SHA-256 of the state, hex
	factRequests = "requests" // SHA-256 of the newest run of requests, hex; empty list: of nothing
	factReplays  = "replays"  // likewise of replay keys
)

func snapshotEntry(ms int64, state []byte, over, held runs) Entry {
	newest := func(r runs) string {
		var data []byte
		if n := len(r.list); n > 0 {
			data = r.list[n-1].data
		}
		sum := sha256.Sum256(data)
		return hexOf(sum[:])
	}
	sum := sha256.Sum256(state)
	return Entry{Kind: KindSnapshot, Facts: map[string]string{
		factTime: strconv.FormatInt(ms, 10), factState: hexOf(sum[:]), factRequests: newest(over), factReplays: newest(held),
	}}
}

// Snapshot writes the folds into the vault, so that the next Open begins here, and
// forgets in memory what the records hold now. Durable on return.
func (j *Journal) Snapshot(ctx context.Context) error {
	// No checkpoint is between its signing and its entry: the next covers what is here.
	j.checkpointing.Lock()
	defer j.checkpointing.Unlock()
	err := j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		head, err := tx.JournalHead()
		if err != nil {
			return err
		}
		// Nothing else is under way: this update is alone, and closures run one at a time.
		j.mu.RLock()
		at, ms := j.positionLocked(head), j.nowLocked()
		state, over, held := j.proj.snapshot(at, ms)
		next, err := j.proj.replaced(state, over, held)
		before := j.proj
		j.mu.RUnlock()
		if err != nil {
			return err
		}
		if err := putSnapshot(tx, before, state, over, held); err != nil {
			return err
		}
		if _, err := j.Append(tx, snapshotEntry(ms, state, over, held)); err != nil {
			return err
		}
		tx.OnCommit(func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.proj, j.snapped, j.stateLen = next, head.Seq, uint64(len(state))
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("taking a snapshot of the journal: %w", err)
	}
	return nil
}

func (j *Journal) positionLocked(head vault.JournalHead) position {
	return position{
		last: head, lastMS: j.lastMS, covered: j.unsigned.covered, unsigned: j.unsigned.count,
		unarchived: j.unarchived.count, since: j.unarchived.since, archivedMS: j.unarchived.last,
	}
}

// replaced is what an Open would make of the snapshot of p.
func (p *projections) replaced(state []byte, over, held runs) (*projections, error) {
	next, _, err := unpackState(state, p.read)
	if err != nil {
		return nil, err
	}
	next.over, next.held = over, held
	return next, nil
}

// putSnapshot writes the records in place of those of before.
func putSnapshot(tx *vault.Tx, before *projections, state []byte, over, held runs) error {
	framed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(state)), uint32(len(state)))
	if err := putPieces(tx, "state", append(framed, state...)); err != nil {
		return err
	}
	for _, k := range []struct {
		name     string
		old, new runs
	}{{"requests", before.over, over}, {"replays", before.held, held}} {
		there := map[uint64]bool{}
		for _, r := range k.old.list {
			there[r.id] = true
		}
		for _, r := range k.new.list {
			if !there[r.id] {
				if err := putPieces(tx, runName(k.name, r.id), r.data); err != nil {
					return err
				}
			}
			delete(there, r.id)
		}
		for id := range there {
			if err := dropPieces(tx, runName(k.name, id), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func runName(kind string, id uint64) string { return kind + "/" + strconv.FormatUint(id, 10) }

func pieceName(name string, n int) string { return name + "/" + strconv.Itoa(n) }

// putPieces writes b as records and removes what a longer one left.
func putPieces(tx *vault.Tx, name string, b []byte) error {
	n := 0
	for ; len(b) > 0 || n == 0; n++ {
		piece := b[:min(len(b), pieceLen)]
		if err := tx.Put(vault.TypeJournal, pieceName(name, n), piece); err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return dropPieces(tx, name, n)
}

func dropPieces(tx *vault.Tx, name string, from int) error {
	for n := from; ; n++ {
		err := tx.Delete(vault.TypeJournal, pieceName(name, n))
		if errors.Is(err, vault.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pieces reads want bytes back; want < 0: the first piece says how many.
func (j *Journal) pieces(ctx context.Context, name string, want int) ([]byte, error) {
	var out []byte
	for n := 0; want < 0 || len(out) < want; n++ {
		err := j.v.With(ctx, vault.TypeJournal, pieceName(name, n), func(b []byte) error {
			if want < 0 {
				if len(b) < 4 {
					return fmt.Errorf("%w: snapshot without a length", vault.ErrTampered)
				}
				want, b = int(binary.BigEndian.Uint32(b)), b[4:]
				out = make([]byte, 0, want)
			}
			out = append(out, b...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(out) != want {
		return nil, fmt.Errorf("%w: snapshot of %d bytes, want %d", vault.ErrTampered, len(out), want)
	}
	return out, nil
}

// loadSnapshot reads the newest snapshot; nil when there is none.
func (j *Journal) loadSnapshot(ctx context.Context, read entryReader) (*projections, position, [32]byte, error) {
	fail := func(err error) (*projections, position, [32]byte, error) {
		return nil, position{}, [32]byte{}, fmt.Errorf("reading the journal's snapshot: %w", err)
	}
	state, err := j.pieces(ctx, "state", -1)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, position{}, [32]byte{}, nil
	}
	if err != nil {
		return fail(err)
	}
	p, at, err := unpackState(state, read)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", vault.ErrTampered, err))
	}
	for name, r := range map[string]*runs{"requests": &p.over, "replays": &p.held} {
		for i := range r.list {
			data, err := j.pieces(ctx, runName(name, r.list[i].id), r.want[i]*r.size)
			if err == nil {
				err = r.fill(i, data)
			}
			if err != nil {
				return fail(err)
			}
		}
		r.want = nil
	}
	return p, at, sha256.Sum256(state), nil
}

// load verifies and folds: from the newest snapshot, or all of it.
func (j *Journal) load(ctx context.Context, head vault.JournalHead, w *walker) error {
	j.proj.read = j.reader(w.mac)
	var snapshot [32]byte
	fold := &folder{j: j, w: w, full: true}
	if err := j.v.JournalRows(ctx, 1, 1, fold.row); err != nil {
		return err
	}
	if !j.cfg.FullFold {
		p, at, sum, err := j.loadSnapshot(ctx, j.proj.read)
		if err != nil {
			return err
		}
		if p != nil {
			*w = *walkOn(w, at.last)
			w.lastMS = at.lastMS
			j.proj, j.snapped, j.lastMS = p, at.last.Seq, at.lastMS
			j.unsigned = unsigned{covered: at.covered, count: at.unsigned, since: j.unsigned.since, urgent: at.unsigned > 0}
			j.unarchived = unarchived{count: at.unarchived, since: at.since, urgent: at.unarchived > 0, last: at.archivedMS}
			snapshot, fold.full = sum, false
		}
	}
	if err := j.v.JournalRows(ctx, w.last.Seq+1, 0, func(row vault.JournalRow) error {
		if !fold.full && row.Seq == j.snapped+1 {
			fold.want = hexOf(snapshot[:])
		}
		return fold.row(row)
	}); err != nil {
		return err
	}
	if w.last != head {
		return &VerifyError{Seq: w.last.Seq, Reason: fmt.Sprintf("the chain ends here, the vault's head names entry %d", head.Seq)}
	}
	if !fold.full && j.snapped == head.Seq {
		return &VerifyError{Seq: head.Seq, Reason: "the snapshot has no entry"}
	}
	return nil
}

// folder folds verified rows, one after the other.
type folder struct {
	j    *Journal
	w    *walker
	full bool   // every snapshot entry is checked against the folds
	want string // else: the hash that the next entry, a snapshot's, must name
}

func (f *folder) row(row vault.JournalRow) error {
	j, before, beforeMS := f.j, f.w.last, f.w.lastMS
	e, err := f.w.step(row)
	if err != nil {
		return err
	}
	fail := func(format string, args ...any) error {
		return &VerifyError{Seq: e.Seq, Kind: e.Kind, Reason: fmt.Sprintf(format, args...)}
	}
	if f.want != "" && (e.Kind != KindSnapshot || e.Facts[factState] != f.want) {
		return fail("the vault's snapshot is not the one that was taken here")
	}
	if e.Kind == KindSnapshot && f.want == "" {
		if !f.full {
			return fail("a snapshot newer than the vault's")
		}
		j.lastMS = beforeMS
		if err := j.refold(e, before); err != nil {
			return fail("%v", err)
		}
	}
	f.want = ""
	if _, err := j.proj.apply(&e); err != nil {
		return fail("%v", err)
	}
	j.noteLocked(&e)
	j.lastMS = e.TimeMS
	return nil
}

// refold takes the snapshot that e tells of once more.
func (j *Journal) refold(e Entry, before vault.JournalHead) error {
	_, _, _, err := j.refoldState(e, before)
	return err
}

// refoldState is refold that gives what was taken.
func (j *Journal) refoldState(e Entry, before vault.JournalHead) (state []byte, over, held runs, err error) {
	ms, err := strconv.ParseInt(e.Facts[factTime], 10, 64)
	if err != nil || ms < 0 || ms > e.TimeMS {
		return nil, over, held, errors.New("snapshot entry has an unknown form")
	}
	state, over, held = j.proj.snapshot(j.positionLocked(before), ms)
	want := snapshotEntry(ms, state, over, held)
	for name, value := range want.Facts {
		if e.Facts[name] != value {
			return nil, over, held, fmt.Errorf("the snapshot is not what the entries add up to: its %s differ", name)
		}
	}
	if j.proj, err = j.proj.replaced(state, over, held); err != nil {
		return nil, over, held, err
	}
	j.snapped, j.stateLen = before.Seq, uint64(len(state))
	return state, over, held, nil
}

// reader reads single rows and authenticates each; mac nil: under the vault's key.
func (j *Journal) reader(mac hash.Hash) entryReader {
	return func(seq uint64) (Entry, error) {
		var prev vault.JournalHead
		from, n := seq, 1
		switch {
		case seq == 1:
		case seq == j.proj.pruned.Seq+1:
			prev = j.proj.pruned
		default:
			from, n = seq-1, 2
		}
		var rows []vault.JournalRow
		if err := j.v.JournalRows(context.Background(), from, n, func(r vault.JournalRow) error {
			rows = append(rows, r)
			return nil
		}); err != nil {
			return Entry{}, err
		}
		if len(rows) != n {
			return Entry{}, fmt.Errorf("%w: journal row %d is missing", vault.ErrTampered, seq)
		}
		if n == 2 {
			prev = vault.JournalHead{Seq: rows[0].Seq, Hash: rows[0].Hash}
		}
		row := rows[n-1]
		check := func(h hash.Hash) error {
			if sum := chainMAC(h, inner(prev, row.Body)); !hmac.Equal(sum[:], row.MAC[:]) {
				return &VerifyError{Seq: seq, Reason: "MAC doesn't authenticate"}
			}
			return nil
		}
		var err error
		if mac != nil {
			err = check(mac)
		} else {
			err = j.v.Derive(macPurpose, func(key []byte) error { return check(hmac.New(sha256.New, key)) })
		}
		if err != nil {
			return Entry{}, err
		}
		return decodeEntry(row.Body)
	}
}
