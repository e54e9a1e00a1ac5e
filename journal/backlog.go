package journal

import (
	"errors"
	"slices"
	"time"
)

// Two things lag behind the chain: the device's signatures and the archive. What
// waits for them is counted here, from the entries alone, so that an Open gives
// the same. The journal's own upkeep waits for nothing.

// ErrUnsigned: the device has not signed the journal for longer than allowed, so
// nothing more is approved. Acts go on: a revocation must always work.
var ErrUnsigned = errors.New("the sealing device has not signed the journal for too long")

// unsigned is what no checkpoint covers.
type unsigned struct {
	covered uint64    // the last entry under a checkpoint
	count   uint64    // entries after it
	since   time.Time // of this process's clock: when the oldest of them came, or was found at Open
	urgent  bool
	failure error // of the last attempt; nil if it succeeded
}

// note counts a committed entry.
func (u *unsigned) note(e *Entry) {
	if e.Kind == KindCheckpoint {
		c, err := parseCheckpoint(*e)
		if err != nil {
			return // neither Append nor a walk lets it come to this
		}
		// What came between the signing and the entry waits for the next one.
		u.covered, u.count = c.row.Seq, e.Seq-1-c.row.Seq
		u.since, u.urgent = time.Now(), u.urgent && u.count > 0
		return
	}
	if e.Kind.upkeep() {
		return
	}
	if u.count == 0 {
		u.since = time.Now()
	}
	u.count++
	u.urgent = u.urgent || e.urgent()
}

// overdue says whether more waits, or longer, than may.
func (u *unsigned) overdue(c *Config) bool {
	return u.count > 0 && (u.count >= c.UnsignedEntries || time.Since(u.since) >= c.UnsignedAfter)
}

// unarchived is what no segment of the archive holds.
type unarchived struct {
	count   uint64
	since   int64 // ms of the oldest
	urgent  bool
	last    int64 // ms of the last archived entry
	failure error // of the last attempt; nil if it succeeded
}

// urgentEvery bounds how often urgent entries make a segment of their own.
const urgentEvery = 10 * time.Second

// note counts a committed entry; u has counted it already.
func (a *unarchived) note(e *Entry, u *unsigned) {
	if e.Kind == KindArchived {
		// The segment ended where the last checkpoint did, give or take.
		a.count, a.since, a.urgent, a.last = u.count, e.TimeMS, u.urgent, e.TimeMS
		return
	}
	if e.Kind.upkeep() {
		return
	}
	if a.count == 0 {
		a.since = e.TimeMS
	}
	a.count++
	a.urgent = a.urgent || e.urgent()
}

func (a *unarchived) due(nowMS int64, c Archive) bool {
	return a.count > 0 && (a.urgent && nowMS-a.last >= urgentEvery.Milliseconds() || a.count >= c.Entries || nowMS-a.since >= c.After.Milliseconds())
}

// urgent says whether an entry asks for a checkpoint at once.
func (e *Entry) urgent() bool { return e.Urgent || e.Kind == KindAct && e.RequestID != "" }

// noteLocked counts a committed entry for both; true when Run should know: when it is
// the first to wait, when it is urgent, and every CheckpointEntries.
func (j *Journal) noteLocked(e *Entry) bool {
	j.unsigned.note(e)
	j.unarchived.note(e, &j.unsigned)
	return !e.Kind.upkeep() && (j.unsigned.count == 1 || e.urgent() || j.unsigned.count%j.cfg.CheckpointEntries == 0)
}

// pressing says whether Run must not wait for its clock.
func (j *Journal) pressing() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.unsigned.urgent || j.unsigned.count >= j.cfg.CheckpointEntries
}

// idle says whether nothing waits that time alone makes due.
func (j *Journal) idle() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.unsigned.count == 0 && (j.cfg.Archive.Dir == "" || j.unarchived.count == 0)
}

// MayApprove says whether the journal takes approvals: [ErrUnsigned] when too much
// of it is unsigned. Append asks it, too; a retry under an approval that stands
// must ask for itself.
func (v View) MayApprove() error {
	v.j.mu.RLock()
	defer v.j.mu.RUnlock()
	return v.j.mayApproveLocked()
}

func (j *Journal) mayApproveLocked() error {
	if j.unsigned.overdue(&j.cfg) {
		return ErrUnsigned
	}
	return nil
}

// applyArchived folds where the archive ends.
func (p *projections) applyArchived(e *Entry) (func(), error) {
	at, err := archivedUpTo(e)
	if err != nil {
		return nil, err
	}
	before, segments := p.archived, p.segments
	p.archived = at
	p.segments = append(slices.Clip(segments), boundary{at, e.TimeMS})
	return func() { p.archived, p.segments = before, segments }, nil
}
