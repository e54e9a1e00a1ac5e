package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/sigild/sigild/seal"
)

// Inspect checks what can be checked of the store at path without a key, a lock or a
// daemon, beside one that runs or on a copy: schema, the database's own structure,
// keyslots and generation statements against pin. It changes nothing, and doesn't look
// at modes. Errors: those of [Open], of which [ErrMissing], [ErrSchema],
// [ErrPinMismatch] and [ErrTampered] are its own.
func Inspect(ctx context.Context, path string, pin Pin) ([]SlotInfo, error) {
	v, err := readPublic(ctx, path, pin)
	if err != nil {
		return nil, err
	}
	return v.Slots(), nil
}

// readPublic is a vault that was read and is no longer open.
func readPublic(ctx context.Context, path string, pin Pin) (*Vault, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrMissing, path)
	}
	db, err := openDB(path, "mode=ro", 1)
	if err != nil {
		return nil, err
	}
	v := &Vault{cfg: Config{Log: slog.New(slog.DiscardHandler)}, storeID: pin.StoreID, anchor: pin.Anchor, db: db, gens: make(map[uint32]statement)}
	err = v.loadPublic(ctx, pin)
	return v, errors.Join(err, db.Close())
}

// tryAnchor compares the epoch that the file tells of itself with the counter; nil: none.
func (v *Vault) tryAnchor(ctx context.Context, path string, counter seal.Counter) error {
	if counter == nil {
		return nil
	}
	f, err := OpenFile(ctx, path)
	if err != nil {
		return err
	}
	epoch := f.epoch
	if err := f.Close(); err != nil {
		return err
	}
	n, err := counter.ReadCounter(ctx, v.anchor.Counter)
	if err != nil {
		return fmt.Errorf("reading the rollback anchor: %w", err)
	}
	return v.judgeEpoch(epoch, n)
}

// TryUnseal asks the devices for the root key, as [Vault.Unseal] does, and lets go of
// it: it says whether a start would get it, and why not. It changes nothing. Errors:
// those of Inspect, [ErrNoKeyslot], [ErrRollback] and the anchor's, and what the devices answer.
func TryUnseal(ctx context.Context, path string, pin Pin, sealers map[string]seal.Sealer) error {
	v, err := readPublic(ctx, path, pin)
	if err != nil {
		return err
	}
	counter, err := pin.Anchor.counter(sealers)
	if err != nil {
		return err
	}
	var errs []error
	groups := *v.groups.Load()
	for i := range groups {
		g := &groups[i]
		if slices.ContainsFunc(g.slots, func(s slot) bool { return sealers[s.info.Provider] == nil }) {
			continue
		}
		err := g.unsealGroup(ctx, sealers, func([]byte) error { return nil })
		if err == nil {
			return v.tryAnchor(ctx, path, counter)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return fmt.Errorf("%w: %d groups, none complete", ErrNoKeyslot, len(groups))
	}
	return errors.Join(errs...)
}
