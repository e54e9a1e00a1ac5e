package journal

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Replaying: what a backup has forgotten is in segments of the archive that are newer.
// They continue its journal, row by row with hash and MAC, each file under a
// checkpoint of the device. Appended to it they bring back requests, charges and
// replay keys, which are folds of the rows, and what the rows say of records is done
// again: what was revoked is destroyed once more, credentials, policies and owners
// are those of the last row. What can't come back are secrets that were made after the
// backup. It is for restoring (package vault), before anything else opens the journal.

// Replayed says what was done.
type Replayed struct {
	// From and Through are the first and the last row that the backup had not; 0: none.
	From, Through uint64
	// Records is how many changes of records were made again.
	Records int
	// Epoch is the anchor's last step that the rows tell of, and Key the sealing key it
	// left in the device, if any; 0 when none of them tells of one.
	Epoch uint64
	Key   seal.KeyRef
}

// replayAtOnce bounds the rows of one update.
const replayAtOnce = 2048

// replay takes the rows behind head out of the segment files, which may overlap with
// what is there. Every file is verified whole before a row of it is used.
func (j *Journal) replay(ctx context.Context, files []string, w *walker) (r Replayed, err error) {
	for _, path := range files {
		var rows []vault.JournalRow
		err := openSegment(path, func(in io.ReadSeeker, s Segment) (err error) {
			if s.Last <= w.last.Seq {
				return nil // the backup has them
			}
			rows, err = j.newRows(in, s, w)
			return err
		})
		for len(rows) > 0 && err == nil {
			n := 0
			n, err = j.redo(ctx, rows[:min(len(rows), replayAtOnce)], w, &r)
			rows = rows[n:]
		}
		if err != nil {
			return r, fmt.Errorf("replaying %s: %w", filepath.Base(path), err)
		}
	}
	return r, nil
}

// newRows verifies a segment and gives the rows that follow w.
func (j *Journal) newRows(in io.Reader, s Segment, w *walker) (rows []vault.JournalRow, err error) {
	if s.StoreID != w.storeID {
		return nil, segmentError("it is of store %x, not %x", s.StoreID, w.storeID)
	}
	if s.First > w.last.Seq+1 {
		return nil, segmentError("it begins with entry %d, the one before it ends with %d; hint: a segment is missing between", s.First, w.last.Seq)
	}
	var here [32]byte // hash of row w.last, as the segment has it
	if s.First == w.last.Seq+1 {
		here = s.Prev
	}
	at := walkFrom(w.storeID, w.pub, vault.JournalHead{Seq: s.First - 1, Hash: s.Prev})
	at.mac = w.mac
	_, err = readSegment(in, at, func(row vault.JournalRow, _ Entry) error {
		switch {
		case row.Seq == w.last.Seq:
			here = row.Hash
		case row.Seq > w.last.Seq:
			rows = append(rows, row)
		}
		return nil
	})
	if err == nil && here != w.last.Hash {
		err = segmentError("its entry %d is not the one of the backup: they are two continuations of one journal", w.last.Seq)
	}
	return rows, err
}

// redo appends rows in one update and does what they say of records. It ends behind a
// snapshot: what that took out of memory is looked up in rows that are committed.
func (j *Journal) redo(ctx context.Context, rows []vault.JournalRow, w *walker, r *Replayed) (done int, err error) {
	err = j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		for _, row := range rows {
			before, beforeMS, stored := w.last, w.lastMS, j.proj
			e, err := w.step(row)
			if err != nil {
				return err
			}
			if err := tx.AppendJournal(row); err != nil {
				return err
			}
			if e.Kind == KindSnapshot {
				j.lastMS = beforeMS
				state, over, held, err := j.refoldState(e, before)
				if err == nil {
					err = putSnapshot(tx, stored, state, over, held)
				}
				if err != nil {
					return &VerifyError{Seq: e.Seq, Kind: e.Kind, Reason: err.Error()}
				}
			}
			if _, err := j.proj.apply(&e); err != nil {
				return &VerifyError{Seq: e.Seq, Kind: e.Kind, Reason: err.Error()}
			}
			if e.Kind == KindPruned {
				if err := tx.PruneJournal(j.proj.pruned.Seq); err != nil {
					return err
				}
			}
			j.noteLocked(&e)
			j.lastMS = e.TimeMS
			if err := j.redoRecords(tx, &e, r); err != nil {
				return err
			}
			if r.From == 0 {
				r.From = row.Seq
			}
			r.Through = row.Seq
			if done++; e.Kind == KindSnapshot {
				return nil
			}
		}
		return nil
	})
	return done, err
}

func (j *Journal) redoRecords(tx *vault.Tx, e *Entry, r *Replayed) error {
	if e.Kind == KindEpoch {
		epoch, key, err := parseEpoch(e)
		if err != nil {
			return &VerifyError{Seq: e.Seq, Kind: e.Kind, Reason: err.Error()}
		}
		r.Epoch, r.Key = epoch, key
	}
	changes, err := openChanges(j.v, e)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := tx.Redo(c); err != nil {
			return fmt.Errorf("changing %s %q again: %w", c.Type, c.ID, err)
		}
		r.Records++
	}
	return nil
}

// OpenReplaying is [Open] of a backup that is being restored, which takes in segments
// on the way: files in the order of the chain, of which those that the backup has are
// passed over. Open approvals and leases are those behind the last row. Errors, beside
// those of Open: [*SegmentError], [*VerifyError].
func OpenReplaying(ctx context.Context, v *vault.Vault, cfg Config, files []string) (*Journal, Replayed, error) {
	var r Replayed
	j, err := open(ctx, v, cfg, func(j *Journal, w *walker) (err error) {
		r, err = j.replay(ctx, files, w)
		return err
	})
	return j, r, err
}
