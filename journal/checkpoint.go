package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/vault"
)

// signedUpTo is how far the device's signatures reach.
type signedUpTo struct {
	covered uint64 // the last entry under a checkpoint
	waiting uint64 // entries after it, checkpoints not counted
	failure error  // of the last attempt; nil if it succeeded
}

// note counts a committed entry; true when Run should know.
func (s *signedUpTo) note(e *Entry) bool {
	if e.Kind == KindCheckpoint {
		return false // Checkpoint sets what it covered
	}
	s.waiting++
	return true
}

// Status is what `status` says of the journal.
type Status struct {
	Entries  uint64
	Covered  uint64 // the last entry under a checkpoint; 0: none
	Unsigned uint64 // entries not under a checkpoint yet, checkpoints not counted
	// CheckpointFailure is why the last checkpoint could not be made; nil if it could.
	CheckpointFailure error
}

// Status is a consistent picture as of the last commit.
func (j *Journal) Status() Status {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return Status{Entries: j.durable, Covered: j.signed.covered, Unsigned: j.signed.waiting, CheckpointFailure: j.signed.failure}
}

// Checkpoint has the device sign the chain as it is on disk and appends the
// signature as an entry, durable on return. With nothing unsigned it does
// nothing. One call at a time: others wait.
func (j *Journal) Checkpoint(ctx context.Context) error {
	j.checkpointing.Lock()
	defer j.checkpointing.Unlock()
	err := j.checkpoint(ctx)
	j.mu.Lock()
	j.signed.failure = err
	j.mu.Unlock()
	return err
}

func (j *Journal) checkpoint(ctx context.Context) error {
	j.mu.RLock()
	waiting := j.signed.waiting
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
		head, err := tx.JournalHead()
		if err != nil {
			return err
		}
		if _, err := j.Append(tx, c.entry()); err != nil {
			return err
		}
		tx.OnCommit(func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			// What came between the signing and here: all of it, since only this
			// function appends checkpoints.
			j.signed.covered, j.signed.waiting = c.row.Seq, head.Seq-c.row.Seq
		})
		return nil
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

// Run makes checkpoints until ctx ends: when CheckpointEntries wait, or
// CheckpointAfter past the first that waits. A device that fails is logged and
// asked again after the same time. It returns ctx's error.
func (j *Journal) Run(ctx context.Context) error {
	timer := time.NewTimer(j.cfg.CheckpointAfter)
	timer.Stop()
	defer timer.Stop()
	ticking, failed := false, false
	for {
		due := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			ticking, due = false, true
		case <-j.wake:
			if !ticking {
				timer.Reset(j.cfg.CheckpointAfter)
				ticking = true
			}
			due = !failed && j.Status().Unsigned >= j.cfg.CheckpointEntries
		}
		if !due {
			continue
		}
		err := j.Checkpoint(ctx)
		if failed = err != nil; failed && ctx.Err() == nil {
			j.cfg.Log.ErrorContext(ctx, "making a checkpoint failed; the journal's newest entries are unsigned", "error", err)
		}
		if j.Status().Unsigned > 0 {
			timer.Reset(j.cfg.CheckpointAfter)
			ticking = true
		} else {
			timer.Stop()
			ticking = false
		}
	}
}

// Close makes a last checkpoint. Call it after Run has returned and before the
// vault is sealed; the vault stays open.
func (j *Journal) Close(ctx context.Context) error { return j.Checkpoint(ctx) }
