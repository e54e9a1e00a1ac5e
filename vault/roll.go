package vault

// A KEK roll replaces a device's sealing key: every keyslot of the device is sealed
// anew under the successor, that is committed, and only then the old key is
// destroyed. From then on that device opens no older copy of the store. It is an
// operator's act (rotate kek), and it is the anchor of stores whose device has no
// counter: then it happens with every update that must never be undone. A crash
// between the commit and the destruction is made up for at the next Unseal. The act of
// an operator replaces the devices' keys for parts, too (partkeys.go).

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/sigild/sigild/seal"
)

// rolls are the keys that a batch leaves behind, by device.
type rolls map[string]seal.KeyRef

// RollKEK says that this update replaces the sealing keys of all devices that can;
// it must be alone. Errors: [ErrNoRoller] when none can.
func (tx *Tx) RollKEK() error {
	if tx.b == nil {
		return errEnded
	}
	groups, err := tx.keyslots()
	if err != nil {
		return err
	}
	if len(tx.b.u.rollers(groups)) == 0 {
		return ErrNoRoller
	}
	tx.b.extra.roll, tx.b.extra.advance = true, true
	return nil
}

// rollers are the devices of the keyslots that can roll, with their keys of today.
func (u *unsealed) rollers(groups []slotGroup) rolls {
	found := rolls{}
	for _, g := range groups {
		for _, s := range g.slots {
			if _, ok := u.devices()[s.info.Provider].(seal.Roller); ok && s.scheme == schemeSealer {
				found[s.info.Provider] = s.info.Ref
			}
		}
	}
	return found
}

// beginRoll makes successors to the keys of the devices and seals the groups that
// they belong to anew, over the root key that the batch leaves behind. It runs on
// the writer goroutine, before anything is written.
func (v *Vault) beginRoll(b *batch, only string) error {
	ctx := context.Background()
	if only == "" {
		if err := (&Tx{b: b}).rollPartKeys(ctx); err != nil {
			return err
		}
	}
	groups := b.extra.groups
	if groups == nil {
		groups = *v.groups.Load()
	}
	next := rolls{}
	for id, ref := range b.u.rollers(groups) {
		if only != "" && id != only {
			continue
		}
		roller := b.u.devices()[id].(seal.Roller)
		// What an earlier attempt left behind goes first.
		if _, err := roller.EndRoll(ctx, ref); err != nil {
			return fmt.Errorf("rolling the sealing key of %s: %w", id, err)
		}
		successor, err := roller.BeginRoll(ctx, ref)
		if err != nil {
			return fmt.Errorf("rolling the sealing key of %s: %w", id, err)
		}
		next[id] = successor
	}
	if only != "" && len(next) == 0 {
		return fmt.Errorf("%w: no keyslot of %s can roll its key", ErrNoAnchor, only)
	}
	reseal := func(root []byte, _ uint32) error {
		out := slices.Clone(groups)
		for i, g := range groups {
			moved := g
			moved.slots = slices.Clone(g.slots)
			touched := false
			for j := range moved.slots {
				if ref, ok := next[moved.slots[j].info.Provider]; ok {
					moved.slots[j].info.Ref, touched = ref, true
				}
			}
			if !touched {
				continue
			}
			again, err := v.reseal(ctx, root, moved, g.generation, g.commit, b.u.devices())
			if err != nil {
				return err
			}
			out[i] = again
		}
		b.extra.groups, b.extra.rolls = out, next
		return nil
	}
	if n := b.extra.newRoot; n != nil {
		return n.root.Use(func(root []byte) error { return reseal(root, n.generation) })
	}
	return b.u.withRoot(reseal)
}

// endRoll destroys the keys that the committed keyslots no longer use.
func (u *unsealed) endRoll(r rolls) error {
	for _, id := range slices.Sorted(maps.Keys(r)) {
		if _, err := u.devices()[id].(seal.Roller).EndRoll(context.Background(), r[id]); err != nil {
			return fmt.Errorf("destroying the old sealing key of %s: %w", id, err)
		}
	}
	return nil
}
