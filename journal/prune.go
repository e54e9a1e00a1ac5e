package journal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sigild/sigild/vault"
)

// Pruning removes the oldest rows from the store, segment by segment, and only what
// lies in a segment of the archive and before the newest snapshot. What limits,
// replay keys and reservations need is in the snapshot, not in rows; a request id is
// remembered as long as the row that ended it. The genesis stays for ever.

// Keep says how long rows stay in the store. Either rule alone lets a segment go; with
// both zero, or without an archive, nothing does.
type Keep struct {
	// For is how old a segment must be.
	For time.Duration
	// Entries is how many newer rows there must be.
	Entries uint64
}

// boundary is the end of an archived segment whose rows are still here.
type boundary struct {
	vault.JournalHead
	ms int64 // when it was archived: none of its rows is younger
}

// The facts of a pruned entry: factThrough and factHash.

// applyPruned folds that rows are gone.
func (p *projections) applyPruned(e *Entry) (func(), error) {
	i := slices.IndexFunc(p.segments, func(b boundary) bool {
		return strconv.FormatUint(b.Seq, 10) == e.Facts[factThrough] && hex.EncodeToString(b.Hash[:]) == e.Facts[factHash]
	})
	if i < 0 {
		return nil, errors.New("pruned entry doesn't name the end of an archived segment")
	}
	before, segments := p.pruned, p.segments
	p.pruned, p.segments = segments[i].JournalHead, slices.Clone(segments[i+1:])
	return func() { p.pruned, p.segments = before, segments }, nil
}

// prunable is the oldest segment that may go.
func (j *Journal) prunable() (boundary, bool) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	k := j.cfg.Keep
	if len(j.proj.segments) == 0 {
		return boundary{}, false
	}
	b := j.proj.segments[0]
	old := k.For > 0 && j.nowLocked()-b.ms >= k.For.Milliseconds() || k.Entries > 0 && j.durable-b.Seq >= k.Entries
	return b, old && b.Seq <= j.snapped && b.Seq < j.unsigned.covered
}

// prune removes what may go, a segment a transaction.
func (j *Journal) prune(ctx context.Context) error {
	for {
		b, ok := j.prunable()
		if !ok {
			return nil
		}
		e := Entry{Kind: KindPruned, Facts: map[string]string{
			factThrough: strconv.FormatUint(b.Seq, 10), factHash: hex.EncodeToString(b.Hash[:]),
		}}
		err := j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
			if _, err := j.Append(tx, e); err != nil {
				return err
			}
			return tx.PruneJournal(b.Seq)
		})
		if err != nil {
			return fmt.Errorf("pruning the journal: %w", err)
		}
		j.cfg.Log.InfoContext(ctx, "pruned the journal; the archive has what is gone", "through", b.Seq)
	}
}
