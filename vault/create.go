package vault

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/seal"
)

// storeKeyID is the id of the one record of TypeStoreKey.
const storeKeyID = "store"

// Create makes a new store in cfg.Dir and returns it unsealed, with the pin to
// be kept outside it. The directory is made if it's missing, mode 0700. Each
// holder's key must seal and open a share before anything is kept. It is the
// explicit act of initialization: a store that exists is [ErrExists] and is not
// touched. A Create that dies half way leaves nothing that Open takes for a store.
func Create(ctx context.Context, cfg Config, holders ...KeyHolder) (*Vault, Pin, error) {
	cfg = cfg.withDefaults()
	if err := checkHolders(holders); err != nil {
		return nil, Pin{}, err
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, Pin{}, fmt.Errorf("creating the vault: %w", err)
	}
	if err := checkModes(cfg.Dir); err != nil {
		return nil, Pin{}, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, Pin{}, err
	}
	v, pin, err := createLocked(ctx, cfg, lock, holders)
	if err != nil {
		_ = lock.Close()
		return nil, Pin{}, err
	}
	return v, pin, nil
}

// createLocked builds the store under another name, opens it there to prove
// that the devices give the root key back, and only then gives it its name.
func createLocked(ctx context.Context, cfg Config, lock *os.File, holders []KeyHolder) (*Vault, Pin, error) {
	final, fresh := filepath.Join(cfg.Dir, FileName), filepath.Join(cfg.Dir, newName)
	if _, err := os.Lstat(final); !errors.Is(err, os.ErrNotExist) {
		return nil, Pin{}, fmt.Errorf("%w: %s; hint: initialization is done once, nothing was changed", ErrExists, final)
	}
	removeDB(fresh) // left by a Create that died; we hold the lock
	defer removeDB(fresh)

	pin, err := buildStore(ctx, cfg, fresh, holders)
	if err != nil {
		return nil, Pin{}, err
	}
	sealers := devicesOf(holders)
	trial, err := openPath(ctx, cfg, fresh, pin, nil)
	if err != nil {
		return nil, Pin{}, fmt.Errorf("opening the new vault: %w", err)
	}
	err = trial.Unseal(ctx, sealers)
	if err = errors.Join(err, trial.Close()); err != nil {
		return nil, Pin{}, fmt.Errorf("unsealing the new vault: %w", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err != nil {
		return nil, Pin{}, fmt.Errorf("creating the vault: %w", err)
	}
	if err := syncDir(cfg.Dir); err != nil {
		return nil, Pin{}, err
	}
	v, err := openPath(ctx, cfg, final, pin, lock)
	if err != nil {
		return nil, Pin{}, err
	}
	if err := v.Unseal(ctx, sealers); err != nil {
		v.lock = nil // ours to release
		return nil, Pin{}, errors.Join(err, v.Close())
	}
	return v, pin, nil
}

// newRoot fills root with the kernel's random bytes, xored with those of cfg.Random:
// the sum is as good as the better of the two, since neither source sees the other's.
func newRoot(ctx context.Context, cfg Config, root []byte) error {
	rand.Read(root)
	if cfg.Random == nil {
		return nil
	}
	more := make([]byte, len(root))
	defer clear(more)
	if err := cfg.Random(ctx, more); err != nil {
		return fmt.Errorf("making the root key: asking the second source of random bytes: %w", err)
	}
	subtle.XORBytes(root, root, more)
	return nil
}

// buildStore writes a store of the vault's own records to path.
func buildStore(ctx context.Context, cfg Config, path string, holders []KeyHolder) (Pin, error) {
	now := cfg.Now()
	pin := Pin{StoreID: newStoreID(), Anchor: cfg.Anchor}
	epoch, err := firstEpoch(ctx, cfg.Anchor, holders)
	if err != nil {
		return pin, err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return pin, fmt.Errorf("making the store key: %w", err)
	}
	defer clear(private)
	copy(pin.StoreKey[:], public)

	root := make([]byte, 32)
	defer clear(root)
	if err := newRoot(ctx, cfg, root); err != nil {
		return pin, err
	}
	commit := rootCommit(root, pin.StoreID)
	const generation = 1
	groups, err := sealGroups(ctx, root, slotGroup{generation: generation, store: pin.StoreID, commit: commit}, now, holders)
	if err != nil {
		return pin, err
	}
	keys, err := newKeyring(root, pin.StoreID, generation)
	if err != nil {
		return pin, err
	}
	defer keys.destroy()

	lasting := make([]byte, 32)
	defer clear(lasting)
	rand.Read(lasting)
	if err := keys.hold(lasting); err != nil {
		return pin, err
	}

	// The vault's own records, and the head over them.
	var leaves []leaf
	var envs [][]byte
	for _, own := range []struct {
		typ    Type
		id     string
		secret []byte
	}{{TypeStoreKey, storeKeyID, private.Seed()}, {TypeLastingKey, lastingKeyID, lasting}} {
		key, err := keys.recordKey(own.typ, own.id)
		if err != nil {
			return pin, err
		}
		m := recordMeta{Type: own.typ, Key: key, Version: 1, Created: now.Unix()}
		env, err := keys.seal(m, nil, own.id, own.secret)
		clear(own.secret)
		if err != nil {
			return pin, err
		}
		leaves, envs = append(leaves, leafOf(m, env)), append(envs, env)
	}
	t, _ := newTree(leaves)
	h := head{
		storeID: pin.StoreID, generation: generation, epoch: epoch, seq: 1, records: uint64(len(leaves)),
		setRoot: t.root(), keyslots: hashKeyslots(groups),
	}
	mac, err := keys.headMAC(h.encode())
	if err != nil {
		return pin, err
	}
	st := statement{storeID: pin.StoreID, generation: generation, commit: commit, created: now.Unix()}
	return pin, createTables(ctx, path, pin.StoreID, func(tx *sql.Tx) error {
		type row struct {
			sql  string
			args []any
		}
		rows := []row{
			{"INSERT INTO head VALUES (1, ?, ?)", []any{h.encode(), mac[:]}},
			{"INSERT INTO generation VALUES (?, ?)", []any{generation, st.sign(private)}},
		}
		for i, l := range leaves {
			rows = append(rows,
				row{"INSERT INTO rec VALUES (?, ?)", []any{l.key[:], envs[i]}},
				row{"INSERT INTO leaf VALUES (?, ?, ?, ?)", []any{l.key[:], int64(l.typ), int64(l.version), l.hash[:]}})
		}
		for _, g := range groups {
			rows = append(rows, row{"INSERT INTO slot_group VALUES (?, ?)", []any{int64(g.id), g.encode()}})
			for _, s := range g.slots {
				rows = append(rows, row{"INSERT INTO slot VALUES (?, ?)", []any{int64(s.info.ID), s.encode()}})
			}
		}
		for _, r := range rows {
			if _, err := tx.Exec(r.sql, r.args...); err != nil {
				return fmt.Errorf("filling the new vault: %w", err)
			}
		}
		return nil
	})
}

// devicesOf are the holders' devices by id.
func devicesOf(holders []KeyHolder) map[string]seal.Sealer {
	devices := make(map[string]seal.Sealer)
	for _, h := range holders {
		devices[h.ID] = h.Sealer
	}
	return devices
}

// firstEpoch is where the anchor stands now.
func firstEpoch(ctx context.Context, a Anchor, holders []KeyHolder) (uint64, error) {
	c, err := a.counter(devicesOf(holders))
	if err != nil {
		return 0, fmt.Errorf("creating the vault: %w", err)
	}
	if c == nil {
		return 1, nil
	}
	n, err := c.ReadCounter(ctx, a.Counter)
	if err != nil {
		return 0, fmt.Errorf("reading the rollback anchor: %w", err)
	}
	return n, nil
}

// removeDB removes what a dead Create left.
func removeDB(path string) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(path + suffix)
	}
}

// checkHolders refuses what could never be unsealed by the same configuration.
func checkHolders(holders []KeyHolder) error {
	if len(holders) == 0 || len(holders) > maxGroupSize {
		return fmt.Errorf("creating the vault: %d key holders, want 1 to %d", len(holders), maxGroupSize)
	}
	for _, h := range holders {
		if h.Sealer == nil || h.ID == "" || len(h.ID) > maxSlotText || h.Ref == "" || len(h.Ref) > maxSlotText {
			return fmt.Errorf("creating the vault: key holder %q needs a sealer, an id and a key reference of 1 to %d bytes", h.ID, maxSlotText)
		}
	}
	return nil
}

// sealGroups makes one keyslot group for each group number among the holders, in
// the order of the numbers.
func sealGroups(ctx context.Context, root []byte, m slotGroup, now time.Time, holders []KeyHolder) ([]slotGroup, error) {
	members := make(map[uint32][]KeyHolder)
	for _, h := range holders {
		members[h.Group] = append(members[h.Group], h)
	}
	var groups []slotGroup
	slotID := uint32(1)
	for _, id := range slices.Sorted(maps.Keys(members)) {
		g, err := sealGroup(ctx, root, newGroup(id, slotID, m.generation, m.store, m.commit, now, members[id]), members[id])
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
		slotID += uint32(len(g.slots))
	}
	return groups, nil
}
