package vault

// Keyslots change like this: a group is made and proved outside of any
// transaction, because devices are slow (PrepareGroup), then one transaction puts
// it into the store. Removing the last group is refused. A change of keyslots
// must never be undone, so it moves the anchor.

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const second = time.Second

// NewGroup is a keyslot group that holds the root key and is in no store yet.
type NewGroup struct {
	group    slotGroup
	replaces [32]byte // the keyslots it was made beside
}

// ID is the group's number.
func (n *NewGroup) ID() uint32 { return n.group.id }

// PrepareGroup seals the root key to holders, all of which will be needed
// together, and proves that the devices open it again; custodians can't be asked.
// Holders' Group is not looked at. Nothing is written.
func (v *Vault) PrepareGroup(ctx context.Context, holders ...KeyHolder) (*NewGroup, error) {
	u := v.open.Load()
	if u == nil {
		return nil, ErrSealed
	}
	if err := checkHolders(holders); err != nil {
		return nil, err
	}
	groups := *v.groups.Load()
	group, slotID := uint32(0), uint32(1)
	for _, g := range groups {
		group = max(group, g.id+1)
		for _, s := range g.slots {
			slotID = max(slotID, s.info.ID+1)
		}
	}
	n := &NewGroup{replaces: hashKeyslots(groups)}
	err := u.withRoot(func(root []byte, generation uint32) error {
		commit := rootCommit(root, v.storeID)
		n.group = newGroup(group, slotID, generation, v.storeID, commit, v.cfg.Now(), holders)
		var err error
		n.group, err = sealGroup(ctx, root, n.group, holders)
		return err
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// newGroup lays out a group that is still to be sealed.
func newGroup(id, firstSlot, generation uint32, store [16]byte, commit [32]byte, now time.Time, holders []KeyHolder) slotGroup {
	g := slotGroup{id: id, generation: generation, store: store, commit: commit}
	for i, h := range holders {
		scheme := uint8(schemeSealer)
		if _, ok := h.Sealer.(*Custodians); ok {
			scheme = schemeCustodians
		}
		g.slots = append(g.slots, slot{
			info: SlotInfo{
				ID: firstSlot + uint32(i), Group: id, Provider: h.ID, Ref: h.Ref,
				Generation: generation, Created: now.UTC().Truncate(second),
			},
			scheme: scheme, store: store, commit: commit,
		})
	}
	return g
}

// AddGroup puts n into the store, and takes the groups in place of which it comes
// out of it. The update must be alone. Errors: [ErrKeyslotsMoved] when keyslots
// changed since n was made, [ErrNotFound].
func (tx *Tx) AddGroup(n *NewGroup, instead ...uint32) error {
	groups, err := tx.keyslots()
	if err != nil {
		return err
	}
	if hashKeyslots(groups) != n.replaces {
		return ErrKeyslotsMoved
	}
	if groups, err = without(groups, instead); err != nil {
		return err
	}
	tx.setKeyslots(append(groups, n.group))
	return nil
}

// RemoveGroup takes a group out of the store. The update must be alone. Errors:
// [ErrNotFound], [ErrLastKeyslot]. A copy of the store that was made before still
// opens by it; the root key must be changed for that to be worthless.
func (tx *Tx) RemoveGroup(id uint32) error {
	groups, err := tx.keyslots()
	if err != nil {
		return err
	}
	if groups, err = without(groups, []uint32{id}); err != nil {
		return err
	}
	if len(groups) == 0 {
		return ErrLastKeyslot
	}
	if !slices.ContainsFunc(groups, func(g slotGroup) bool { return g.slots[0].scheme != schemeCustodians }) {
		return fmt.Errorf("%w: only custodians would be left", ErrLastKeyslot)
	}
	tx.setKeyslots(groups)
	return nil
}

// keyslots are the groups as this update sees them; the slice is the caller's.
func (tx *Tx) keyslots() ([]slotGroup, error) {
	if tx.b == nil {
		return nil, errEnded
	}
	if tx.b.extra.groups != nil {
		return slices.Clone(tx.b.extra.groups), nil
	}
	return slices.Clone(*tx.b.v.groups.Load()), nil
}

func (tx *Tx) setKeyslots(groups []slotGroup) {
	slices.SortFunc(groups, func(a, b slotGroup) int { return int(int64(a.id) - int64(b.id)) })
	tx.b.extra.groups, tx.b.extra.advance = groups, true
}

func without(groups []slotGroup, ids []uint32) ([]slotGroup, error) {
	for _, id := range ids {
		i := slices.IndexFunc(groups, func(g slotGroup) bool { return g.id == id })
		if i < 0 {
			return nil, fmt.Errorf("removing keyslot group %d: %w", id, ErrNotFound)
		}
		groups = slices.Delete(groups, i, i+1)
	}
	return groups, nil
}

// VerifyGroup asks the group's devices, as given to Unseal, for the root key and
// compares it with the one in use. Errors: [ErrNotFound], [ErrNoKeyslot] when a
// device is missing (custodians always are), [ErrTampered], those of the devices.
func (v *Vault) VerifyGroup(ctx context.Context, id uint32) error {
	u := v.open.Load()
	if u == nil {
		return ErrSealed
	}
	groups := *v.groups.Load()
	i := slices.IndexFunc(groups, func(g slotGroup) bool { return g.id == id })
	if i < 0 {
		return fmt.Errorf("verifying keyslot group %d: %w", id, ErrNotFound)
	}
	g := groups[i]
	for _, s := range g.slots {
		if u.devices()[s.info.Provider] == nil {
			return fmt.Errorf("verifying keyslot group %d: %w: %s is not here", id, ErrNoKeyslot, s.info.Provider)
		}
	}
	// unsealGroup holds what comes out against the commitment that the store key signed.
	return g.unsealGroup(ctx, u.devices(), func([]byte) error { return nil })
}

// writeKeyslots replaces all keyslots, as part of a transaction.
func (w *writeStmts) writeKeyslots(groups []slotGroup) error {
	for _, text := range []string{"DELETE FROM slot", "DELETE FROM slot_group"} {
		if err := w.exec(text); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if err := w.exec("INSERT INTO slot_group VALUES (?, ?)", int64(g.id), g.encode()); err != nil {
			return err
		}
		for _, s := range g.slots {
			if err := w.exec("INSERT INTO slot VALUES (?, ?)", int64(s.info.ID), s.encode()); err != nil {
				return err
			}
		}
	}
	return nil
}
