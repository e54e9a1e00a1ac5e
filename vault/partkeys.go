package vault

// Keys for devices' parts. They are not the sealing keys of the keyslots: those may be
// replaced with every act that must not be undone (anchor kek-roll), which would mean
// to seal every part anew. Each device has one for parts, named by a record, and rotate
// kek replaces it as well:
//
//	record  ver u8 = 1 | key ref len u16, text | previous key ref len u16, text or nothing
//
// While there is a previous one, parts may still be under it; when the last is sealed
// anew it is destroyed. One more record, id "rule", has SHA-256 of the rule that all
// records were last brought to.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sigild/sigild/seal"
)

const (
	partKeyVersion = 1
	partRuleID     = "rule"
)

// errSuperseded says that a record changed while its new envelope was prepared.
var errSuperseded = errors.New("the record changed meanwhile")

// partKey is a device's key for parts.
type partKey struct{ ref, previous seal.KeyRef }

func (k partKey) encode() []byte {
	b := []byte{partKeyVersion}
	for _, ref := range []seal.KeyRef{k.ref, k.previous} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(ref)))
		b = append(b, ref...)
	}
	return b
}

func parsePartKey(b []byte) (k partKey, err error) {
	bad := func() (partKey, error) {
		return partKey{}, fmt.Errorf("%w: the record of a device's key for parts has an unknown form", ErrTampered)
	}
	if len(b) < 1 || b[0] != partKeyVersion {
		return bad()
	}
	b = b[1:]
	for i, ref := range []*seal.KeyRef{&k.ref, &k.previous} {
		if len(b) < 2 {
			return bad()
		}
		n := int(binary.BigEndian.Uint16(b))
		if n > maxSlotText || n > len(b)-2 || n == 0 && i == 0 {
			return bad()
		}
		*ref, b = seal.KeyRef(b[2:2+n]), b[2+n:]
	}
	if len(b) != 0 {
		return bad()
	}
	return k, nil
}

// partKeys are all devices' keys for parts as tx sees them.
func (tx *Tx) partKeys() (map[string]partKey, error) {
	keys := map[string]partKey{}
	read := func(l leaf, env []byte) error {
		return openRecord(context.Background(), tx.b.u, l, bytes.Clone(env), "", func(id string, b []byte) error {
			if id == partRuleID {
				return nil
			}
			k, err := parsePartKey(b)
			keys[id] = k
			return err
		})
	}
	known, _ := tx.b.u.tree.ofTypes(TypePartKey)
	for _, l := range known {
		if tx.b.changes[l.key] != nil {
			continue
		}
		l, env, err := tx.b.v.fetch(tx.b.u, l.key)
		if err != nil {
			return nil, err
		}
		if err := read(l, env); err != nil {
			return nil, err
		}
	}
	for _, c := range tx.b.changes {
		if c.leaf.typ == TypePartKey && !c.remove {
			if err := read(c.leaf, c.env); err != nil {
				return nil, err
			}
		}
	}
	return keys, nil
}

// partRefs are the keys under which parts are sealed now.
func (tx *Tx) partRefs() (map[string]seal.KeyRef, error) {
	keys, err := tx.partKeys()
	refs := make(map[string]seal.KeyRef, len(keys))
	for id, k := range keys {
		refs[id] = k.ref
	}
	return refs, err
}

// HasPartKey says whether a key for parts was made in the device.
func (v *Vault) HasPartKey(ctx context.Context, provider string) (bool, error) {
	err := v.With(ctx, TypePartKey, provider, func([]byte) error { return nil })
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// AddPartKey names the device's key for parts, which was made just now. A device that
// has one is [ErrExists].
func (tx *Tx) AddPartKey(provider string, ref seal.KeyRef) error {
	if provider == partRuleID || ref == "" || len(ref) > maxSlotText {
		return fmt.Errorf("naming a key for parts: device %q, key of %d bytes", provider, len(ref))
	}
	has, err := tx.Has(TypePartKey, provider)
	if err == nil && has {
		err = fmt.Errorf("naming a key for parts: %w for %s", ErrExists, provider)
	}
	if err != nil {
		return err
	}
	return tx.Put(TypePartKey, provider, partKey{ref: ref}.encode())
}

// rollPartKeys makes successors to the keys for parts of all devices that can. Parts
// are sealed under them from now on; ResealParts brings the others over.
func (tx *Tx) rollPartKeys(ctx context.Context) error {
	keys, err := tx.partKeys()
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		k := keys[id]
		roller, ok := tx.b.u.devices()[id].(seal.Roller)
		switch {
		case !ok:
			continue
		case k.previous != "":
			return fmt.Errorf("%w: parts of %s are still being sealed under its new key", ErrRotating, id)
		}
		if _, err := roller.EndRoll(ctx, k.ref); err != nil { // what an earlier attempt left
			return fmt.Errorf("rolling the key of %s for parts: %w", id, err)
		}
		next, err := roller.BeginRoll(ctx, k.ref)
		if err != nil {
			return fmt.Errorf("rolling the key of %s for parts: %w", id, err)
		}
		if err := tx.Put(TypePartKey, id, partKey{ref: next, previous: k.ref}.encode()); err != nil {
			return err
		}
	}
	return nil
}

// PartsPending says whether records may be sealed otherwise than the rule and the keys
// of today say.
func (v *Vault) PartsPending(ctx context.Context) (pending bool, err error) {
	err = v.UpdateAlone(ctx, func(tx *Tx) error {
		keys, err := tx.partKeys()
		if err != nil {
			return err
		}
		for _, k := range keys {
			pending = pending || k.previous != ""
		}
		brought, err := tx.broughtTo()
		pending = pending || !bytes.Equal(brought, v.ruleHash())
		return err
	})
	return pending, err
}

// ruleHash names the rule; empty for none.
func (v *Vault) ruleHash() []byte {
	r := v.partRule.Load()
	if r == nil || r.Text == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(r.Text))
	return sum[:]
}

// broughtTo is the hash of the rule that all records were last brought to.
func (tx *Tx) broughtTo() (hash []byte, err error) {
	err = tx.With(TypePartKey, partRuleID, func(b []byte) error { hash = bytes.Clone(b); return nil })
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return hash, err
}

// ResealParts seals anew every record that the rule, or the keys of today, want sealed
// otherwise, and destroys keys for parts that are needed no more. Between its steps
// other updates go on; each is durable, and one that was interrupted, by ctx or a
// crash, is continued by calling it again. It gives the number of records. Errors:
// those of the devices; what was done stays.
func (v *Vault) ResealParts(ctx context.Context) (done int, err error) {
	v.resealing.Lock()
	defer v.resealing.Unlock()
	pending, err := v.PartsPending(ctx)
	if err != nil || !pending {
		return 0, err
	}
	rule := v.ruleHash()
	u := v.open.Load()
	if u == nil {
		return 0, ErrSealed
	}
	for _, l := range u.tree.leaves() {
		n, err := v.resealRecord(ctx, u, l)
		if done += n; err != nil {
			return done, fmt.Errorf("sealing a %s with the devices' parts: %w", l.typ, err)
		}
	}
	return done, v.endReseal(ctx, u, rule)
}

// resealRecord brings one record over, if it needs to.
func (v *Vault) resealRecord(ctx context.Context, u *unsealed, l leaf) (n int, err error) {
	ruled := false
	if r := v.partRule.Load(); r != nil {
		ruled = slices.Contains(r.Types, l.typ)
	}
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		now, env, err := v.fetch(u, l.key)
		if errors.Is(err, ErrNotFound) || err == nil && !ruled && !hasParts(env) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		stale := false
		err = openRecord(ctx, u, now, bytes.Clone(env), "", func(id string, plaintext []byte) error {
			return v.UpdateAlone(ctx, func(tx *Tx) error {
				if at, ok := tx.b.u.tree.lookup(now.key); !ok || at != now {
					return errSuperseded
				}
				keys, err := tx.partKeys()
				if err != nil {
					return err
				}
				if stale = v.wantsReseal(env, now.typ, id, keys); !stale {
					return nil
				}
				return tx.Put(now.typ, id, plaintext)
			})
		})
		switch {
		case errors.Is(err, errSuperseded):
			continue // what was written since follows the rule, or is gone
		case err != nil || !stale:
			return 0, err
		}
		return 1, nil
	}
}

// wantsReseal compares an envelope's parts with those it would get now.
func (v *Vault) wantsReseal(env []byte, t Type, id string, keys map[string]partKey) bool {
	e, err := parseEnvelope(env)
	if err != nil {
		return false // it was opened just now
	}
	return !slices.EqualFunc(e.parts, v.devicesFor(t, id), func(p devicePart, want string) bool {
		return p.provider == want && p.ref == keys[want].ref
	})
}

// endReseal notes what was brought about and destroys the keys that were replaced. It
// moves the anchor: a copy whose parts are under the old keys must not come back.
func (v *Vault) endReseal(ctx context.Context, u *unsealed, rule []byte) error {
	var ended map[string]partKey
	err := v.UpdateAlone(ctx, func(tx *Tx) error {
		keys, err := tx.partKeys()
		if err != nil {
			return err
		}
		ended = map[string]partKey{}
		for id, k := range keys {
			if k.previous == "" {
				continue
			}
			ended[id] = k
			if err := tx.Put(TypePartKey, id, partKey{ref: k.ref}.encode()); err != nil {
				return err
			}
		}
		tx.Advance()
		if len(rule) > 0 {
			return tx.Put(TypePartKey, partRuleID, rule)
		}
		if has, err := tx.Has(TypePartKey, partRuleID); err != nil || !has {
			return err
		}
		return tx.Delete(TypePartKey, partRuleID)
	})
	if err != nil {
		return fmt.Errorf("ending the sealing with devices' parts: %w", err)
	}
	return u.endPartRolls(ctx, ended)
}

// endPartRolls destroys the keys that keys follow.
func (u *unsealed) endPartRolls(ctx context.Context, keys map[string]partKey) error {
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		roller, ok := u.devices()[id].(seal.Roller)
		if !ok {
			continue
		}
		if _, err := roller.EndRoll(ctx, keys[id].ref); err != nil {
			return fmt.Errorf("destroying the old key of %s for parts: %w", id, err)
		}
	}
	return nil
}

// EndPartRolls makes up for a crash between the last step of ResealParts and the
// destruction of the keys that were replaced; for start-up.
func (v *Vault) EndPartRolls(ctx context.Context) error {
	u := v.open.Load()
	if u == nil {
		return ErrSealed
	}
	settled := map[string]partKey{}
	err := v.UpdateAlone(ctx, func(tx *Tx) error {
		keys, err := tx.partKeys()
		for id, k := range keys {
			if k.previous == "" {
				settled[id] = k
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return u.endPartRolls(ctx, settled)
}
