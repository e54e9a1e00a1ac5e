package journal

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/vault"
)

// Report is what an off-line verification found.
type Report struct {
	StoreID     [16]byte
	ApplianceID string
	Entries     uint64
	First, Last time.Time
	Checkpoints int
	// Head is the hash of the last entry. Whoever remembers it with its number notices
	// a journal that was cut back to an older checkpoint.
	Head [32]byte
	// Covered is the last entry under a checkpoint; 0: none.
	Covered uint64
	// Unsigned counts the entries after it (the checkpoint's own entry left out),
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
	r := Report{KeyFromGenesis: pub == nil}
	f, err := vault.OpenFile(ctx, path)
	if errors.Is(err, vault.ErrTampered) || errors.Is(err, vault.ErrSchema) {
		return r, &VerifyError{Reason: err.Error()}
	}
	if err != nil {
		return r, fmt.Errorf("verifying the journal: %w", err)
	}
	w := &walker{storeID: f.StoreID(), pub: pub}
	var stopped error
	err = f.JournalRows(ctx, func(row vault.JournalRow) error {
		e, err := w.step(row)
		if err == nil {
			r.Last = time.UnixMilli(e.TimeMS).UTC()
			if e.Seq == 1 {
				r.First = r.Last
			}
			stopped = visit(e)
			err = stopped
		}
		return err
	})
	head := f.JournalHead()
	closeErr := f.Close()

	r.StoreID, r.ApplianceID, r.CheckpointKey = w.storeID, w.genesis.ApplianceID, w.pub
	r.Entries, r.Head, r.Checkpoints, r.Covered = w.last.Seq, w.last.Hash, w.checkpoints, w.covered.Seq
	r.FirstUnsigned, r.Unsigned = w.unsigned()

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
