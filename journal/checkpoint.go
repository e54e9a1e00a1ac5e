package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/vault"
)

// Status is what `status` says of the journal.
type Status struct {
	Entries  uint64
	Covered  uint64 // the last entry under a checkpoint; 0: none
	Unsigned uint64 // entries not under a checkpoint yet, checkpoints not counted
	// CheckpointFailure is why the last checkpoint could not be made; nil if it could.
	CheckpointFailure error
	// Archived is the last entry in a segment of the archive; 0: none. ArchiveFailure
	// is why the last segment could not be made; nil if it could.
	Archived       uint64
	ArchiveFailure error
}

// Status is a consistent picture as of the last commit.
func (j *Journal) Status() Status {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return Status{
		Entries: j.durable, Covered: j.unsigned.covered, Unsigned: j.unsigned.count, CheckpointFailure: j.unsigned.failure,
		Archived: j.proj.archived.Seq, ArchiveFailure: j.unarchived.failure,
	}
}

// Checkpoint has the device sign the chain as it is on disk and appends the
// signature as an entry, durable on return. With nothing unsigned it does
// nothing. One call at a time: others wait.
func (j *Journal) Checkpoint(ctx context.Context) error {
	j.checkpointing.Lock()
	defer j.checkpointing.Unlock()
	err := j.checkpoint(ctx)
	j.mu.Lock()
	j.unsigned.failure = err
	j.mu.Unlock()
	return err
}

// segment makes what is due of the archive; see [Journal.archive].
func (j *Journal) segment(ctx context.Context, force bool) error {
	err := j.archive(ctx, force)
	j.mu.Lock()
	j.unarchived.failure = err
	j.mu.Unlock()
	return err
}

func (j *Journal) checkpoint(ctx context.Context) error {
	j.mu.RLock()
	waiting := j.unsigned.count
	c := checkpoint{timeMS: j.nowLocked()}
	j.mu.RUnlock()
	if waiting == 0 {
		return nil
	}
	var err error
	if c.row, err = j.v.JournalHead(); err != nil {
		return fmt.Errorf("making a checkpoint: %w", err)
	}
	if c.signature, err = j.cfg.Signer.SignP256(ctx, j.cfg.CheckpointKey, c.digest(j.v.StoreID())); err != nil {
		return fmt.Errorf("making a checkpoint: %w", err)
	}
	if len(c.signature) != 64 || !c.verify(j.genesis.CheckpointKey, j.v.StoreID()) {
		return errors.New("making a checkpoint: the device's signature doesn't verify under the checkpoint key of the genesis")
	}
	err = j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		_, err := j.Append(tx, c.entry())
		return err
	})
	if err != nil {
		return fmt.Errorf("making a checkpoint: %w", err)
	}
	return nil
}

// wakeUp tells Run, without waiting for it.
func (j *Journal) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Run makes checkpoints and, where there is an archive, segments, until ctx ends:
// when CheckpointEntries wait, CheckpointAfter past the first that waits, and at once
// after an urgent entry. A device or folder that fails is logged and asked again
// after the same time. It returns ctx's error.
func (j *Journal) Run(ctx context.Context) error {
	timer := time.NewTimer(0) // what a crash left unsigned is signed at once
	defer timer.Stop()
	refusals := time.NewTicker(j.cfg.RefusalsEvery)
	defer refusals.Stop()
	ticking, failed := true, false
	for {
		due := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-refusals.C:
			if err := j.tellRefusals(ctx); err != nil && ctx.Err() == nil {
				j.cfg.Log.ErrorContext(ctx, "journaling the counts of refusals failed; they are kept", "error", err)
			}
		case <-timer.C:
			ticking, due = false, true
		case <-j.wake:
			if !ticking {
				timer.Reset(j.cfg.CheckpointAfter)
				ticking = true
			}
			due = !failed && j.pressing()
		}
		if !due {
			continue
		}
		err := j.Checkpoint(ctx)
		if failed = err != nil; failed && ctx.Err() == nil {
			j.cfg.Log.ErrorContext(ctx, "making a checkpoint failed; the journal's newest entries are unsigned", "error", err)
		}
		if err := j.tidy(ctx); err != nil && ctx.Err() == nil {
			j.cfg.Log.ErrorContext(ctx, "tidying the journal failed; the next start takes longer", "error", err)
		}
		if err := j.segment(ctx, false); err != nil && ctx.Err() == nil {
			failed = true
			j.cfg.Log.ErrorContext(ctx, "making a segment failed; the archive lacks the journal's newest entries", "error", err)
		}
		if j.idle() {
			timer.Stop()
			ticking = false
		} else {
			timer.Reset(j.cfg.CheckpointAfter)
			ticking = true
		}
	}
}

// closingSnapshot is how many entries since the last snapshot are worth one at Close.
const closingSnapshot = 256

// behindSnapshot counts the entries since the last snapshot, its own left out.
func (j *Journal) behindSnapshot() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.durable - min(j.durable, j.snapped+1)
}

// nextSnapshot is how many entries after the last snapshot the next one is due: where
// the state is large, later, so that an entry's part of the writing stays small.
func (j *Journal) nextSnapshot() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return max(j.cfg.SnapshotEntries, j.stateLen/stateShare)
}

// stateShare is how many bytes of state an entry may cost.
const stateShare = 128

// tidy takes a snapshot when enough has come, and prunes.
func (j *Journal) tidy(ctx context.Context) error {
	if j.behindSnapshot() >= j.nextSnapshot() {
		if err := j.Snapshot(ctx); err != nil {
			return err
		}
	}
	return j.prune(ctx)
}

// Close returns the leases and makes a last checkpoint and a last segment. Call it after Run has returned
// and before the vault is sealed; the vault stays open.
func (j *Journal) Close(ctx context.Context) error {
	if err := j.tellRefusals(ctx); err != nil {
		j.cfg.Log.ErrorContext(ctx, "journaling the counts of refusals failed; they are in the log only", "error", err)
	}
	returned := j.returnLeases(ctx)
	if j.behindSnapshot() >= min(j.cfg.SnapshotEntries, closingSnapshot) {
		if err := j.Snapshot(ctx); err != nil {
			j.cfg.Log.ErrorContext(ctx, "the journal is closed without a snapshot; the next start takes longer", "error", err)
		}
	}
	return errors.Join(returned, j.Checkpoint(ctx), j.segment(ctx, true))
}
