package vault

// Restoring: a backup is copied beside the place where the store shall be and
// opened by its custodians. Whoever restores changes it then, in one transaction
// with [Tx.Restore]: a keyslot of this machine's device in place of the old ones, the
// next epoch, and what its own rooms must say of a store that has forgotten things.
// Only then does it get its name. A Restoration that dies before leaves nothing that
// Open takes for a store.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/seal"
)

// Restoration is a backup that is being restored.
type Restoration struct {
	v      *Vault
	lock   *os.File
	anchor Anchor
	epoch  uint64 // of the change; 0: not made
	// keep is the device's key that stays, where the anchor replaces keys.
	keep seal.KeyRef
}

// BeginRestore copies the file backup into cfg.Dir and opens it with the
// custodians alone. The directory is made if it's missing; a store that is there
// already is [ErrExists]. Errors: those of [VerifyFile], [ErrCustodians],
// [ErrNoKeyslot] when the backup has no recovery group.
func BeginRestore(ctx context.Context, cfg Config, backup string, pin Pin, people *Custodians) (_ *Restoration, err error) {
	cfg = cfg.withDefaults()
	if _, err := VerifyFile(ctx, backup, pin); err != nil {
		return nil, err
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("restoring the vault: %w", err)
	}
	if err := checkModes(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	r := &Restoration{lock: lock, anchor: pin.Anchor}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Abandon())
		}
	}()
	final, fresh := filepath.Join(cfg.Dir, FileName), filepath.Join(cfg.Dir, newName)
	if _, err := os.Lstat(final); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s; hint: move it away, it may hold what the backup has forgotten", ErrExists, final)
	}
	removeDB(fresh)
	if err := copyFile(backup, fresh); err != nil {
		return nil, fmt.Errorf("restoring the vault: %w", err)
	}
	pin.Anchor = Anchor{} // it is an older copy, on purpose
	if r.v, err = openPath(ctx, cfg, fresh, pin, nil); err != nil {
		return nil, err
	}
	return r, r.v.Unseal(ctx, map[string]seal.Sealer{RecoveryProvider: people})
}

// Vault is the store that is being restored, unsealed.
func (r *Restoration) Vault() *Vault { return r.v }

// ReadAll opens every record and says how many there are: all of them are what was
// written, under a head that is genuine. One that needs a device's part as well is
// compared with the head alone.
func (r *Restoration) ReadAll(ctx context.Context) (records int, err error) {
	for t := TypeAppliance; t.known(); t++ {
		err := r.v.eachWhole(ctx, t, func() { records++ })
		if err != nil {
			return records, err
		}
	}
	if want := r.v.Info().Records; uint64(records) != want {
		return records, fmt.Errorf("%w: %d records read, want %d", ErrTampered, records, want)
	}
	return records, nil
}

// Prepare makes the keyslot of this machine's device, under a successor of its key
// where the anchor is one of kind kek-roll, and finds the epoch that follows all that
// the anchor has seen.
func (r *Restoration) Prepare(ctx context.Context, h KeyHolder) (*NewGroup, error) {
	r.epoch = r.v.Info().Epoch + 1
	c, err := r.anchor.counter(map[string]seal.Sealer{h.ID: h.Sealer})
	if err != nil {
		return nil, err
	}
	if c != nil {
		n, err := c.ReadCounter(ctx, r.anchor.Counter)
		if err != nil {
			return nil, fmt.Errorf("reading the rollback anchor: %w", err)
		}
		r.epoch = n + 1
	}
	if r.anchor.Kind() == AnchorKEKRoll {
		roller := h.Sealer.(seal.Roller) // or counter had refused it
		if _, err := roller.EndRoll(ctx, h.Ref); err != nil {
			return nil, fmt.Errorf("rolling the sealing key: %w", err)
		}
		if h.Ref, err = roller.BeginRoll(ctx, h.Ref); err != nil {
			return nil, fmt.Errorf("rolling the sealing key: %w", err)
		}
		r.keep = h.Ref
	}
	return r.v.PrepareGroup(ctx, h)
}

// Newest says whether the backup, with all that was replayed over it, has every
// change that must not be undone, because the anchor says so: its counter stands where
// the last of them left it, or the device still has the sealing key that it left, which
// the next would have destroyed. epoch and key are the last that the replayed rows tell
// of; 0 and "" when none does. Without an anchor, or with another device than the
// anchor's, nobody can know. Call it before Prepare.
func (r *Restoration) Newest(ctx context.Context, h KeyHolder, epoch uint64, key seal.KeyRef) (bool, error) {
	if h.ID != r.anchor.Provider {
		return false, nil
	}
	switch r.anchor.Kind() {
	case AnchorNV:
		c, err := r.anchor.counter(map[string]seal.Sealer{h.ID: h.Sealer})
		if err != nil {
			return false, err
		}
		n, err := c.ReadCounter(ctx, r.anchor.Counter)
		if err != nil {
			return false, fmt.Errorf("reading the rollback anchor: %w", err)
		}
		last := max(epoch, r.v.Info().Epoch)
		return last == n || last == n+1, nil // n+1: committed, and never acknowledged
	case AnchorKEKRoll:
		roller, ok := h.Sealer.(seal.Roller)
		if !ok {
			return false, fmt.Errorf("%w: %s can't replace its sealing key", ErrNoAnchor, h.ID)
		}
		if key == "" {
			key = r.deviceKey(h.ID)
		}
		if key == "" {
			return false, nil
		}
		_, err := roller.EndRoll(ctx, key) // destroys nothing unless it is there
		if errors.Is(err, seal.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	return false, nil
}

// deviceKey is the key under which the backup is sealed to a device; "": to none.
func (r *Restoration) deviceKey(provider string) seal.KeyRef {
	for _, s := range r.v.Slots() {
		if s.Provider == provider {
			return s.Ref
		}
	}
	return ""
}

// Restore puts the device's group in place of all others but the custodians', and
// moves the store to the epoch that Prepare found. The update must be alone.
func (r *Restoration) Restore(tx *Tx, device *NewGroup) error {
	groups, err := tx.keyslots()
	if err != nil {
		return err
	}
	if r.epoch == 0 || hashKeyslots(groups) != device.replaces {
		return ErrKeyslotsMoved
	}
	groups = slices.DeleteFunc(groups, func(g slotGroup) bool { return g.slots[0].scheme != schemeCustodians })
	tx.setKeyslots(append(groups, device.group))
	tx.b.extra.epoch = r.epoch
	return nil
}

// Finish closes the store and gives it its name; the device's counter is moved on
// before. The store that the pin names is then this one.
func (r *Restoration) Finish(ctx context.Context, device seal.Sealer) error {
	if r.v.Info().Epoch != r.epoch {
		return errors.New("finishing a restoration: its keyslots were not changed")
	}
	dir := r.v.cfg.Dir
	if err := r.v.Close(); err != nil {
		return err
	}
	c, err := r.anchor.counter(map[string]seal.Sealer{r.anchor.Provider: device})
	if err != nil {
		return err
	}
	if c != nil {
		if _, err := c.Increment(ctx, r.anchor.Counter, r.epoch-1); err != nil {
			return fmt.Errorf("incrementing the rollback anchor: %w", err)
		}
	}
	if r.keep != "" {
		if _, err := device.(seal.Roller).EndRoll(ctx, r.keep); err != nil {
			return fmt.Errorf("destroying the sealing key of the backup: %w", err)
		}
	}
	fresh, final := filepath.Join(dir, newName), filepath.Join(dir, FileName)
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("finishing a restoration: %w", err)
	}
	return errors.Join(syncDir(dir), r.lock.Close())
}

// Abandon removes what was copied. Not after Finish.
func (r *Restoration) Abandon() error {
	var err error
	if r.v != nil {
		err = r.v.Close()
		removeDB(filepath.Join(r.v.cfg.Dir, newName))
	}
	return errors.Join(err, r.lock.Close())
}

// copyFile copies from to the new file to, mode 0600, and fsyncs it.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}
