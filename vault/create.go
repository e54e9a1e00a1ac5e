package vault

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	sealers := make(map[string]seal.Sealer)
	for _, h := range holders {
		sealers[h.ID] = h.Sealer
	}
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

// buildStore writes a store of one record, the store key, to path.
func buildStore(ctx context.Context, cfg Config, path string, holders []KeyHolder) (Pin, error) {
	now := cfg.Now()
	pin := Pin{StoreID: newStoreID()}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return pin, fmt.Errorf("making the store key: %w", err)
	}
	defer clear(private)
	copy(pin.StoreKey[:], public)

	root := make([]byte, 32)
	defer clear(root)
	rand.Read(root)
	commit, err := rootCommit(root, pin.StoreID)
	if err != nil {
		return pin, err
	}
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

	// The store key's record, and the head over it.
	key, err := keys.recordKey(TypeStoreKey, storeKeyID)
	if err != nil {
		return pin, err
	}
	m := recordMeta{Type: TypeStoreKey, Key: key, Version: 1, Created: now.Unix()}
	env, err := keys.seal(m, storeKeyID, private.Seed())
	if err != nil {
		return pin, err
	}
	l := leafOf(m, env)
	t, _ := newTree([]leaf{l})
	h := head{storeID: pin.StoreID, generation: generation, epoch: 1, seq: 1, records: 1, setRoot: t.root()}
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
			{"INSERT INTO rec VALUES (?, ?)", []any{l.key[:], env}},
			{"INSERT INTO leaf VALUES (?, ?, ?, ?)", []any{l.key[:], int64(l.typ), int64(l.version), l.hash[:]}},
			{"INSERT INTO head VALUES (1, ?, ?)", []any{h.encode(), mac[:]}},
			{"INSERT INTO generation VALUES (?, ?)", []any{generation, st.sign(private)}},
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

// sealGroups makes one keyslot group for each group number among the holders.
func sealGroups(ctx context.Context, root []byte, m slotGroup, now time.Time, holders []KeyHolder) ([]slotGroup, error) {
	var groups []slotGroup
	members := make(map[uint32][]KeyHolder)
	for i, h := range holders {
		if members[h.Group] == nil {
			groups = append(groups, slotGroup{id: h.Group, generation: m.generation, store: m.store, commit: m.commit})
		}
		members[h.Group] = append(members[h.Group], h)
		for j := range groups {
			if groups[j].id == h.Group {
				groups[j].slots = append(groups[j].slots, slot{
					info: SlotInfo{
						ID: uint32(i + 1), Group: h.Group, Provider: h.ID, Ref: h.Ref,
						Generation: m.generation, Created: now.UTC().Truncate(time.Second),
					},
					scheme: schemeSealer, store: m.store, commit: m.commit,
				})
			}
		}
	}
	for i := range groups {
		var err error
		if groups[i], err = sealGroup(ctx, root, groups[i], members[groups[i].id]); err != nil {
			return nil, err
		}
	}
	return groups, nil
}
