package delegation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Restoring has the rooms' part between vault.BeginRestore and Finish: what newer
// segments tell is replayed over the backup, the device gets its keyslot, and unless
// the anchor shows that nothing is missing, every organization is put in quarantine.

// Device seals the restored store and signs its journal.
type Device interface {
	seal.Sealer
	seal.Signer
	ID() string
}

// Restoring says what is restored.
type Restoring struct {
	// Backup is open; the caller finishes or abandons it.
	Backup *vault.Restoration
	// Device gets the store; Ref is its sealing key, as the backup names it.
	Device Device
	Ref    seal.KeyRef
	// NewKey: Ref was made for this restoration, and no anchor has replaced it.
	NewKey bool
	// Segments are files in the order of the chain; those that the backup has are passed over.
	Segments []string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Restored says what came of it.
type Restored struct {
	// Through is the last journal entry that the backup had.
	Through  uint64
	Replayed journal.Replayed
	// Newest: the anchor shows that nothing is missing which must not be undone.
	Newest bool
	// Quarantined is how many organizations wait for their root quorum; none if Newest.
	Quarantined int
}

// Restore does it. Errors: those of [journal.OpenReplaying], of the device, of the vault.
func Restore(ctx context.Context, r Restoring) (done Restored, err error) {
	if r.Now == nil {
		r.Now = time.Now
	}
	v := r.Backup.Vault()
	head, err := v.JournalHead()
	if err != nil {
		return done, fmt.Errorf("restoring: %w", err)
	}
	done.Through = head.Seq
	signer, err := CheckpointKey(ctx, v)
	if err != nil {
		return done, err
	}
	// Step 1: what the backup has forgotten, as far as segments tell.
	j, replayed, err := journal.OpenReplaying(ctx, v, journal.Config{Signer: r.Device, CheckpointKey: seal.KeyRef(signer), Now: r.Now}, r.Segments)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, j.Close(ctx)) }()
	done.Replayed = replayed
	// Step 2: whether that is all.
	h := vault.KeyHolder{Sealer: r.Device, ID: r.Device.ID(), Ref: r.Ref}
	if replayed.Key != "" && !r.NewKey {
		h.Ref = replayed.Key
	}
	if done.Newest, err = r.Backup.Newest(ctx, h, replayed.Epoch, replayed.Key); err != nil {
		return done, fmt.Errorf("asking the anchor: %w", err)
	}
	// Step 3: the device's keyslot, in one transaction with the entry that tells of it.
	held, err := r.Backup.Prepare(ctx, h)
	if err != nil {
		return done, err
	}
	facts := map[string]string{"restored_through": strconv.FormatUint(head.Seq, 10), "newest": strconv.FormatBool(done.Newest)}
	if replayed.Through != 0 {
		facts["replayed_through"] = strconv.FormatUint(replayed.Through, 10)
	}
	keyslots := func(tx *vault.Tx) error { return r.Backup.Restore(tx, held) }
	if done.Newest {
		return done, noteRestored(ctx, v, j, facts, keyslots)
	}
	done.Quarantined, err = quarantine(ctx, v, j, r.Now(), facts, keyslots)
	return done, err
}
