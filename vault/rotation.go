package vault

// Rotation of the root key. A new one is made and sealed to every keyslot before
// anything is written (PrepareRoot). One transaction makes it the store's: its
// statement signed by the store key, the keyslots, the head, and one row that
// holds the old root key wrapped under the new (Tx.RotateRoot). From then on what
// is written is wrapped under the new one, and Rewrap brings over the rest, some
// records at a time between other updates; the last transaction drops the row.
// Whenever the process dies the store opens with its keyslots and goes on.
//
//	row  "SGRO" | ver u8 | store id 16 | generation u32 | previous generation u32 | nonce 12 | wrapped old root key 48
//
// wrapped under k_rotation of the new root key, AAD = all before the nonce.

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/seal"
)

const (
	rotationMagic   = "SGRO"
	rotationVersion = 1
	rotationHeader  = 4 + 1 + 16 + 4 + 4
	rotationLen     = rotationHeader + nonceLen + 32 + tagLen

	// rewrapAtOnce bounds how long one step of the rotation holds up updates.
	rewrapAtOnce = 128
)

// NewRoot is a root key that every keyslot can open but no store has yet.
type NewRoot struct {
	root       *secmem.Buf
	generation uint32
	groups     []slotGroup
	replaces   [32]byte // the keyslots it was made from
	statement  []byte
	row        []byte // of table rotation
}

// Generation is the number that it will have.
func (n *NewRoot) Generation() uint32 { return n.generation }

// Discard wipes it; to be called when it was used, too.
func (n *NewRoot) Discard() { n.root.Destroy() }

// PrepareRoot makes a root key for [Tx.RotateRoot] and asks every keyslot's device
// to seal it: all of them must have been given to Unseal; custodians need not be there.
// Nothing is written. Errors: [ErrRotating], [ErrNoKeyslot] naming the device that
// is missing, those of the devices.
func (v *Vault) PrepareRoot(ctx context.Context) (_ *NewRoot, err error) {
	u := v.open.Load()
	if u == nil {
		return nil, ErrSealed
	}
	before, busy := u.keys.generations()
	if busy != 0 {
		return nil, ErrRotating
	}
	groups := *v.groups.Load()
	n := &NewRoot{generation: before + 1, replaces: hashKeyslots(groups)}
	if n.root, err = secmem.New(32); err != nil {
		return nil, fmt.Errorf("holding the new root key: %w", err)
	}
	defer func() {
		if err != nil {
			n.Discard()
		}
	}()
	err = n.root.Use(func(root []byte) error {
		if err := newRoot(ctx, v.cfg, root); err != nil {
			return err
		}
		commit := rootCommit(root, v.storeID)
		for _, g := range groups {
			again, err := v.reseal(ctx, root, g, n.generation, commit, u.devices())
			if err != nil {
				return err
			}
			n.groups = append(n.groups, again)
		}
		st := statement{storeID: v.storeID, generation: n.generation, commit: commit, created: v.cfg.Now().Unix()}
		err = v.With(ctx, TypeStoreKey, storeKeyID, func(seed []byte) error {
			key := ed25519.NewKeyFromSeed(seed)
			defer clear(key)
			n.statement = st.sign(key)
			return nil
		})
		if err != nil {
			return err
		}
		n.row, err = u.keys.rotationRow(root, n.generation)
		return err
	})
	return n, err
}

// reseal makes the group anew, with the same members and keys, over root.
func (v *Vault) reseal(ctx context.Context, root []byte, g slotGroup, generation uint32, commit [32]byte, sealers map[string]seal.Sealer) (slotGroup, error) {
	holders := make([]KeyHolder, len(g.slots))
	fresh := slotGroup{id: g.id, generation: generation, store: v.storeID, commit: commit}
	for i, s := range g.slots {
		holders[i] = KeyHolder{ID: s.info.Provider, Ref: s.info.Ref, Group: g.id, Sealer: sealers[s.info.Provider]}
		if s.scheme == schemeCustodians {
			c, err := custodiansOf(s.blob)
			if err != nil {
				return fresh, err
			}
			holders[i].Sealer = c
		}
		if holders[i].Sealer == nil {
			return fresh, fmt.Errorf("%w: keyslot %d is of %s, which is not here; hint: connect it, or remove the keyslot first", ErrNoKeyslot, s.info.ID, s.info.Provider)
		}
		next := slot{info: s.info, scheme: s.scheme, store: v.storeID, commit: commit}
		next.info.Generation, next.info.Created = generation, v.cfg.Now().UTC().Truncate(second)
		fresh.slots = append(fresh.slots, next)
	}
	return sealGroup(ctx, root, fresh, holders)
}

// RotateRoot makes n's root key the store's. The update must be alone. Errors:
// [ErrRotating]; [ErrKeyslotsMoved] when keyslots changed since n was made.
func (tx *Tx) RotateRoot(n *NewRoot) error {
	b := tx.b
	switch {
	case b == nil:
		return errEnded
	case b.u.head.previous != 0:
		return ErrRotating
	case b.u.head.keyslots != n.replaces || b.u.head.generation+1 != n.generation:
		return ErrKeyslotsMoved
	}
	b.extra.newRoot, b.extra.groups, b.extra.advance = n, n.groups, true
	return nil
}

// Rotating says whether records still wait to be wrapped under the new root key.
func (v *Vault) Rotating() bool {
	u := v.open.Load()
	if u == nil {
		return false
	}
	_, previous := u.keys.generations()
	return previous != 0
}

// Rewrap brings every record over to the new root key and ends the rotation.
// Between its steps other updates go on; each step is durable, and a Rewrap that
// was interrupted, by ctx or by a crash, is continued by calling it again. With
// no rotation under way it does nothing. It gives the number of records that it
// wrapped anew.
func (v *Vault) Rewrap(ctx context.Context) (done int, err error) {
	if v.open.Load() == nil {
		return 0, ErrSealed
	}
	var cursor recordKey
	for from := cursor[:0]; v.Rotating(); {
		n, last := 0, false
		err := v.UpdateAlone(ctx, func(tx *Tx) error {
			var err error
			n, from, last, err = tx.rewrap(from)
			return err
		})
		if err != nil {
			return done, fmt.Errorf("rotating the root key: %w", err)
		}
		if done += n; last {
			err := v.UpdateAlone(ctx, (*Tx).endRotation)
			if err != nil {
				return done, fmt.Errorf("ending the rotation of the root key: %w", err)
			}
		}
	}
	return done, nil
}

// rewrap wraps the next records after key from anew.
func (tx *Tx) rewrap(from []byte) (n int, next []byte, last bool, err error) {
	b := tx.b
	keys, err := b.v.readers.keysAfter(from, rewrapAtOnce)
	if err != nil {
		return 0, from, false, err
	}
	for _, k := range keys {
		l, env, err := b.v.fetch(b.u, k)
		if err != nil {
			return 0, from, false, err
		}
		changed, err := b.u.keys.rewrap(env)
		if err != nil {
			return 0, from, false, fmt.Errorf("wrapping a %s anew: %w", l.typ, err)
		}
		if changed {
			b.set(k, &change{leaf: leafOf(recordMeta{Key: l.key, Type: l.typ, Version: l.version}, env), env: env})
			n++
		}
		from = k[:]
	}
	return n, from, len(keys) < rewrapAtOnce, nil
}

// endRotation drops the old root key, after looking that nothing needs it.
func (tx *Tx) endRotation() error {
	b := tx.b
	left, err := b.v.readers.wrappedBy(b.u.head.previous)
	if err != nil {
		return err
	}
	if left != 0 {
		return fmt.Errorf("%w: %d records are still under root key %d", ErrTampered, left, b.u.head.previous)
	}
	b.extra.settle, b.extra.advance = true, true
	return nil
}

// rotationRow wraps the root key of k under root, the next one.
func (k *keyring) rotationRow(root []byte, generation uint32) (row []byte, err error) {
	next, err := newKeyring(append([]byte(nil), root...), k.storeID, generation)
	if err != nil {
		return nil, err
	}
	defer next.destroy()
	err = k.use(func(old *subkeys) error {
		return next.use(func(s *subkeys) error {
			g, err := newGCM(s.rotation)
			if err != nil {
				return err
			}
			defer secmem.Scrub(g)
			row = make([]byte, rotationHeader+nonceLen, rotationLen)
			copy(row, rotationMagic)
			row[4] = rotationVersion
			copy(row[5:], k.storeID[:])
			binary.BigEndian.PutUint32(row[21:], generation)
			binary.BigEndian.PutUint32(row[25:], k.generation)
			nonce := row[rotationHeader:]
			rand.Read(nonce)
			row = g.Seal(row, nonce, old.root, row[:rotationHeader])
			return nil
		})
	})
	return row, err
}

// loadRotation takes up a rotation that was interrupted.
func (v *Vault) loadRotation(ctx context.Context, u *unsealed) error {
	if v.schema < 2 {
		return nil
	}
	var row []byte
	err := v.write.conn.QueryRowContext(ctx, "SELECT coalesce((SELECT body FROM rotation), x'')").Scan(&row)
	if err != nil {
		return readError("reading the rotation", err)
	}
	if u.head.previous == 0 {
		if len(row) != 0 {
			return fmt.Errorf("%w: there is an old root key, but no rotation", ErrTampered)
		}
		return nil
	}
	old, err := u.keys.openRotation(row, u.head.previous)
	if err != nil {
		return err
	}
	defer clear(old)
	return u.keys.remember(old, u.head.previous)
}

// openRotation is the inverse of rotationRow; the caller wipes the root key.
func (k *keyring) openRotation(row []byte, previous uint32) (root []byte, err error) {
	switch {
	case len(row) != rotationLen || string(row[:4]) != rotationMagic:
		return nil, fmt.Errorf("%w: rotation row has an unknown form", ErrTampered)
	case row[4] != rotationVersion:
		return nil, fmt.Errorf("%w: rotation version %d is not known to this build", ErrTampered, row[4])
	}
	err = k.use(func(s *subkeys) error {
		if [16]byte(row[5:21]) != k.storeID || binary.BigEndian.Uint32(row[21:]) != k.generation || binary.BigEndian.Uint32(row[25:]) != previous {
			return fmt.Errorf("%w: rotation row belongs to another store or root key", ErrTampered)
		}
		g, err := newGCM(s.rotation)
		if err != nil {
			return err
		}
		defer secmem.Scrub(g)
		header, nonce, wrapped := row[:rotationHeader], row[rotationHeader:rotationHeader+nonceLen], row[rotationHeader+nonceLen:]
		if root, err = g.Open(nil, nonce, wrapped, header); err != nil {
			return fmt.Errorf("%w: the old root key doesn't authenticate", ErrTampered)
		}
		return nil
	})
	return root, err
}

// headMAC is that of the head which makes n the root key.
func (n *NewRoot) headMAC(body []byte, storeID [16]byte) (mac [32]byte, err error) {
	err = n.root.Use(func(root []byte) error {
		k, err := newKeyring(append([]byte(nil), root...), storeID, n.generation)
		if err != nil {
			return err
		}
		defer k.destroy()
		mac, err = k.headMAC(body)
		return err
	})
	return mac, err
}

// adopt makes n the root key in memory, after its transaction.
func (n *NewRoot) adopt(k *keyring) error {
	err := n.root.Use(func(root []byte) error { return k.advance(root, n.generation) })
	if errors.Is(err, secmem.ErrDestroyed) {
		return fmt.Errorf("bringing in the new root key: %w", err)
	}
	return err
}

// write makes n the root key on disk, as part of a transaction.
func (n *NewRoot) write(w *writeStmts) error {
	if err := w.exec("INSERT INTO generation VALUES (?, ?)", n.generation, n.statement); err != nil {
		return err
	}
	return w.exec("INSERT INTO rotation VALUES (1, ?)", n.row)
}
