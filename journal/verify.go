package journal

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sigild/sigild/vault"
)

// Report is what an off-line verification found.
type Report struct {
	StoreID     [16]byte
	ApplianceID string
	// From is the first entry that was there (after the genesis, which is never
	// pruned), Entries the number of the last.
	From, Entries uint64
	First, Last   time.Time
	Checkpoints   int
	// Snapshots is how many were checked against the fold; [VerifyFull] does that.
	Snapshots int
	// Head is the hash of the last entry. Whoever remembers it with its number notices
	// a journal that was cut back to an older checkpoint.
	Head [32]byte
	// Covered is the last entry under a checkpoint; 0: none.
	Covered uint64
	// Unsigned counts the entries after it (the journal's own upkeep left out),
	// of which FirstUnsigned is the first. Their chain is whole, but only the
	// vault's key, not the device's signature, speaks for them.
	Unsigned, FirstUnsigned uint64
	// CheckpointKey is the key that the checkpoints were verified with.
	CheckpointKey *ecdsa.PublicKey
	// KeyFromGenesis: the key was taken from the journal itself. Whoever can write
	// the whole file can also write that; compare the key with one kept elsewhere.
	KeyFromGenesis bool
}

// VerifyError says where the journal is not what was written.
type VerifyError struct {
	Seq    uint64 // the first entry found wrong or missing; 0: the file as a whole
	Kind   Kind   // of that entry; empty if it can't be read
	Reason string
}

func (e *VerifyError) Error() string {
	if e.Seq == 0 {
		return "journal doesn't verify: " + e.Reason
	}
	if e.Kind == "" {
		return fmt.Sprintf("journal doesn't verify at entry %d: %s", e.Seq, e.Reason)
	}
	return fmt.Sprintf("journal doesn't verify at entry %d (%s): %s", e.Seq, e.Kind, e.Reason)
}

// Verify checks the journal in the database at path without the daemon and
// without a secret: form, chain, the head's row, and every checkpoint's
// signature under pub (nil: the key that the genesis names, and the report says
// so). path may be in use by a daemon, or be a copy. It can't check the MACs,
// but the chain covers them. On failure the error is a [*VerifyError]; the
// report then tells how far it came.
func Verify(ctx context.Context, path string, pub *ecdsa.PublicKey) (Report, error) {
	return Walk(ctx, path, pub, func(Entry) error { return nil })
}

// Walk is [Verify] that shows each entry once it has passed, oldest first. An
// error of visit ends the walk and is returned as it is. What comes after the
// entries that were shown may still fail: only a nil error vouches for the whole.
func Walk(ctx context.Context, path string, pub *ecdsa.PublicKey, visit func(Entry) error) (Report, error) {
	return walkFile(ctx, path, &walker{pub: pub}, func(_ vault.JournalHead, _ vault.JournalRow, e Entry) error { return visit(e) })
}

// walkFile is Walk with a fresh walker of the caller's; it shows the rows, too, and
// what each continues.
func walkFile(ctx context.Context, path string, w *walker, visit func(prev vault.JournalHead, row vault.JournalRow, e Entry) error) (Report, error) {
	r := Report{KeyFromGenesis: w.pub == nil}
	f, err := vault.OpenFile(ctx, path)
	if errors.Is(err, vault.ErrTampered) || errors.Is(err, vault.ErrSchema) {
		return r, &VerifyError{Reason: err.Error()}
	}
	if err != nil {
		return r, fmt.Errorf("verifying the journal: %w", err)
	}
	w.storeID = f.StoreID()
	var stopped error
	step := func(row vault.JournalRow) error {
		prev := w.last
		e, err := w.step(row)
		if err == nil {
			r.saw(e)
			stopped = visit(prev, row, e)
			err = stopped
		}
		return err
	}
	err = f.JournalRows(ctx, 1, 1, step)
	if err == nil {
		r.From, err = enter(ctx, f, w)
	}
	if err == nil {
		err = f.JournalRows(ctx, w.last.Seq+1, 0, step)
	}
	head := f.JournalHead()
	closeErr := f.Close()
	r.walked(w)

	var ve *VerifyError
	switch {
	case stopped != nil:
		return r, stopped
	case errors.As(err, &ve):
		return r, ve
	case errors.Is(err, vault.ErrTampered):
		return r, &VerifyError{Seq: w.last.Seq + 1, Reason: err.Error()}
	case err != nil:
		return r, fmt.Errorf("verifying the journal: %w", err)
	case closeErr != nil:
		return r, fmt.Errorf("verifying the journal: %w", closeErr)
	case w.last.Seq == 0:
		return r, &VerifyError{Reason: "there are no entries"}
	case w.last.Seq < head.Seq:
		return r, &VerifyError{Seq: w.last.Seq + 1, Reason: fmt.Sprintf("the journal ends before it; the vault's head names entry %d as the last", head.Seq)}
	case w.last != head:
		return r, &VerifyError{Seq: w.last.Seq, Reason: fmt.Sprintf("the vault's head names another last entry, %d", head.Seq)}
	}
	return r, nil
}

// VerifyFull is [Verify] that also folds every entry, as a start without a snapshot
// would, and holds each snapshot entry's hashes against the folds: what the daemon
// starts from is what the entries add up to. A journal that was pruned can't be folded.
func VerifyFull(ctx context.Context, path string, pub *ecdsa.PublicKey) (Report, error) {
	j := &Journal{cfg: Config{}.withDefaults(), proj: newProjections(nil), settled: make(chan struct{})}
	var f *vault.File
	j.proj.read = func(seq uint64) (e Entry, err error) {
		if f == nil {
			if f, err = vault.OpenFile(ctx, path); err != nil {
				return e, err
			}
		}
		err = f.JournalRows(ctx, seq, 1, func(row vault.JournalRow) error { // walked already
			e, err = decodeEntry(row.Body)
			return err
		})
		return e, err
	}
	defer func() {
		if f != nil {
			_ = f.Close()
		}
	}()
	snapshots := 0
	next := uint64(1)
	r, err := walkFile(ctx, path, &walker{pub: pub}, func(before vault.JournalHead, row vault.JournalRow, e Entry) error {
		if row.Seq != next {
			return &VerifyError{Seq: row.Seq, Reason: "the entries before it were pruned: a full fold needs all of them"}
		}
		if e.Kind == KindSnapshot {
			if err := j.refold(e, before); err != nil {
				return &VerifyError{Seq: e.Seq, Kind: e.Kind, Reason: err.Error()}
			}
			snapshots++
		}
		if _, err := j.proj.apply(&e); err != nil {
			return &VerifyError{Seq: e.Seq, Kind: e.Kind, Reason: err.Error()}
		}
		j.noteLocked(&e)
		next, j.lastMS = row.Seq+1, e.TimeMS
		return nil
	})
	r.Snapshots = snapshots
	return r, err
}

// enter moves w, which has walked the genesis, over entries that were pruned. What
// is behind them tells, in an archived entry, the number and hash of the last one
// that is gone; were that a lie, the next checkpoint would not fit.
func enter(ctx context.Context, f *vault.File, w *walker) (from uint64, err error) {
	first, err := f.JournalStart(ctx)
	if err != nil || first <= 2 || w.last.Seq != 1 {
		return 1, err // whole; what is missing otherwise the walk itself will name
	}
	found := errors.New("found")
	err = f.JournalRows(ctx, first, 0, func(row vault.JournalRow) error {
		if !bytes.Contains(row.Body, []byte(KindArchived)) {
			return nil
		}
		e, err := decodeEntry(row.Body)
		if err != nil || e.Kind != KindArchived {
			return nil // the walk will say what is wrong with it
		}
		if at, err := archivedUpTo(&e); err == nil && at.Seq == first-1 {
			*w = *walkOn(w, at)
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return first, nil
	}
	if err == nil {
		err = &VerifyError{Seq: 2, Reason: fmt.Sprintf("entries 2 to %d are missing, and no segment is said to hold them", first-1)}
	}
	return first, err
}

// walkOn is w behind row at, of the same journal.
func walkOn(w *walker, at vault.JournalHead) *walker {
	next := walkFrom(w.storeID, w.pub, at)
	next.mac, next.genesis, next.checkpoints = w.mac, w.genesis, w.checkpoints
	return next
}

// VerifySegments checks segment files, in the order given, as one part of a chain,
// without the store: each continues the one before, and each is signed. pub may be
// nil only if the first of them begins with the genesis. visit (nil: none) sees
// each entry that fits, before the signature of its file is checked: only a nil
// error vouches for all. Errors: [*SegmentError], [*VerifyError], those of reading.
func VerifySegments(ctx context.Context, files []string, pub *ecdsa.PublicKey, visit func(vault.JournalRow, Entry) error) (Report, error) {
	r := Report{KeyFromGenesis: pub == nil}
	if len(files) == 0 {
		return r, segmentError("there are no segments")
	}
	var w *walker
	for _, path := range files {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		err := openSegment(path, func(in io.ReadSeeker, s Segment) error {
			if w == nil {
				w = walkFrom(s.StoreID, pub, vault.JournalHead{Seq: s.First - 1, Hash: s.Prev})
				r.From = s.First
			}
			_, err := readSegment(in, w, func(row vault.JournalRow, e Entry) error {
				r.saw(e)
				if visit == nil {
					return nil
				}
				return visit(row, e)
			})
			return err
		})
		if w != nil {
			r.walked(w)
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		w = walkOn(w, w.last)
		r.Covered, r.Unsigned, r.FirstUnsigned = r.Entries, 0, 0
	}
	return r, nil
}

// openSegment lends the file, from its beginning, and what its head says.
func openSegment(path string, use func(in io.ReadSeeker, s Segment) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading a segment: %w", err)
	}
	defer f.Close()
	s, err := readSegmentHead(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading a segment: %w", err)
	}
	return use(f, s)
}

// saw notes an entry that fits.
func (r *Report) saw(e Entry) {
	r.Last = time.UnixMilli(e.TimeMS).UTC()
	if r.First.IsZero() {
		r.First = r.Last
	}
}

// walked notes how far w came.
func (r *Report) walked(w *walker) {
	r.StoreID, r.ApplianceID, r.CheckpointKey = w.storeID, w.genesis.ApplianceID, w.pub
	r.Entries, r.Head, r.Checkpoints, r.Covered = w.last.Seq, w.last.Hash, w.checkpoints, w.covered.Seq
	r.FirstUnsigned, r.Unsigned = w.unsigned()
}
