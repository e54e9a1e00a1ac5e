package vault

import (
	"context"
	"crypto/hmac"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/seal"
)

// loadPublic reads and checks everything that needs no key.
func (v *Vault) loadPublic(ctx context.Context, pin Pin) error {
	storeID, schema, err := checkSchema(ctx, v.db)
	if err != nil {
		return err
	}
	v.schema = schema
	if storeID != pin.StoreID {
		return fmt.Errorf("%w: this is store %x, pinned is %x; hint: restore the pin file of this store, or this store's file", ErrPinMismatch, storeID, pin.StoreID)
	}
	var verdict string
	if err := v.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return readError("checking the database", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: database structure: %s", ErrTampered, verdict)
	}
	err = eachBody(ctx, v.db, "SELECT gen, body FROM generation ORDER BY gen", func(n int64, b []byte) error {
		s, err := openStatement(pin, b)
		if err == nil && int64(s.generation) != n {
			err = fmt.Errorf("%w: root-key statement %d is filed as %d", ErrTampered, s.generation, n)
		}
		v.gens[s.generation] = s
		return err
	})
	if err != nil {
		return err
	}
	var groups []slotGroup
	err = eachBody(ctx, v.db, "SELECT id, body FROM slot_group ORDER BY id", func(n int64, b []byte) error {
		g, err := parseGroup(b)
		if err == nil && int64(g.id) != n {
			err = fmt.Errorf("%w: keyslot group %d is filed as %d", ErrTampered, g.id, n)
		}
		groups = append(groups, g)
		return err
	})
	if err != nil {
		return err
	}
	var slots []slot
	err = eachBody(ctx, v.db, "SELECT id, body FROM slot ORDER BY id", func(n int64, b []byte) error {
		s, err := parseSlot(b)
		if err == nil && int64(s.info.ID) != n {
			err = fmt.Errorf("%w: keyslot %d is filed as %d", ErrTampered, s.info.ID, n)
		}
		slots = append(slots, s)
		return err
	})
	if err != nil {
		return err
	}
	if groups, err = joinSlots(storeID, groups, slots); err != nil {
		return err
	}
	v.groups.Store(&groups)
	for _, g := range groups {
		if st, ok := v.gens[g.generation]; !ok || st.commit != g.commit {
			return fmt.Errorf("%w: keyslot group %d holds a root key that the store key didn't sign", ErrPinMismatch, g.id)
		}
		if g.generation < pin.OldestRoot {
			return fmt.Errorf("%w: keyslot group %d holds root key %d, the pin wants %d or a later one", ErrRollback, g.id, g.generation, pin.OldestRoot)
		}
	}
	return nil
}

// eachBody walks rows of (integer, blob); the blob is a copy.
func eachBody(ctx context.Context, q queryer, query string, fn func(n int64, b []byte) error) error {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return readError("reading the vault", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int64
		var b []byte
		if err := rows.Scan(&n, &b); err != nil {
			return readError("reading the vault", err)
		}
		if err := fn(n, b); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return readError("reading the vault", err)
	}
	return nil
}

func (v *Vault) unseal(ctx context.Context, sealers map[string]seal.Sealer) (*unsealed, error) {
	counter, err := v.anchor.counter(sealers)
	if err != nil {
		return nil, err
	}
	var errs []error
	groups := *v.groups.Load()
	for i := range groups {
		g := &groups[i]
		if slices.ContainsFunc(g.slots, func(s slot) bool { return sealers[s.info.Provider] == nil }) {
			continue
		}
		var keys *keyring
		err := g.unsealGroup(ctx, sealers, func(root []byte) (err error) {
			keys, err = newKeyring(root, v.storeID, g.generation)
			return err
		})
		if v.anchor.Kind() == AnchorKEKRoll && errors.Is(err, seal.ErrNotFound) {
			err = fmt.Errorf("%w: its sealing key is no longer in the device; hint: put the newest copy back, or restore a backup with its custodians: %w", ErrRollback, err)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fresh := &unsealed{keys: keys, counter: counter}
		fresh.here.Store(&sealers)
		u, err := v.loadSealed(context.WithoutCancel(ctx), fresh)
		if err != nil {
			keys.destroy()
			return nil, err
		}
		return u, nil
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("%w: %d groups, none complete; hint: is the token of `sigilctl status` connected?", ErrNoKeyslot, len(groups))
	}
	return nil, errors.Join(errs...)
}

// loadSealed authenticates the head and builds the tree it speaks of.
func (v *Vault) loadSealed(ctx context.Context, u *unsealed) (_ *unsealed, err error) {
	if _, v.schema, err = checkSchema(ctx, v.write.conn); err != nil {
		return nil, err
	}
	keys := u.keys
	var mac []byte
	if err := v.write.conn.QueryRowContext(ctx, "SELECT body, mac FROM head").Scan(&u.body, &mac); err != nil {
		return nil, readError("reading the head", err)
	}
	if u.head, err = keys.openHead(u.body, mac, v.storeID); err != nil {
		return nil, err
	}
	if (u.head.version == 1) != (v.schema == 1) {
		return nil, fmt.Errorf("%w: head row is of another schema", ErrTampered)
	}
	if u.head.version > 1 && u.head.keyslots != hashKeyslots(*v.groups.Load()) {
		return nil, fmt.Errorf("%w: the keyslots are not those that were written", ErrTampered)
	}
	leaves, err := readLeaves(ctx, v.write.conn, int(min(u.head.records, 1<<20)))
	if err != nil {
		return nil, err
	}
	if uint64(len(leaves)) != u.head.records {
		return nil, fmt.Errorf("%w: %d records listed, want %d", ErrTampered, len(leaves), u.head.records)
	}
	t, ok := newTree(leaves)
	if !ok || t.root() != u.head.setRoot {
		return nil, fmt.Errorf("%w: the list of records is not what was written", ErrTampered)
	}
	var rows uint64
	if err := v.write.conn.QueryRowContext(ctx, "SELECT count(*) FROM rec").Scan(&rows); err != nil {
		return nil, readError("counting records", err)
	}
	if rows != u.head.records {
		return nil, fmt.Errorf("%w: %d record rows, want %d", ErrTampered, rows, u.head.records)
	}
	var last uint64
	if err := v.write.conn.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM journal").Scan(&last); err != nil {
		return nil, readError("reading the journal's end", err)
	}
	if last != u.head.journal.Seq {
		return nil, fmt.Errorf("%w: the journal ends at entry %d, want %d", ErrTampered, last, u.head.journal.Seq)
	}
	u.tree = t
	if err := v.loadRotation(ctx, u); err != nil {
		return nil, err
	}
	if err := v.loadLastingKey(u); err != nil {
		return nil, err
	}
	if err := v.checkAnchor(ctx, u); err != nil {
		return nil, err
	}
	if v.schema < schemaVersion {
		if err := v.upgrade(u); err != nil {
			return nil, err
		}
	}
	u.publish()
	return u, nil
}

// openHead authenticates a head row and reads it.
func (k *keyring) openHead(body, mac []byte, storeID [16]byte) (head, error) {
	want, err := k.headMAC(body)
	if err != nil {
		return head{}, err
	}
	if !hmac.Equal(want[:], mac) {
		return head{}, fmt.Errorf("%w: head row doesn't authenticate", ErrTampered)
	}
	h, err := parseHead(body)
	if err == nil && (h.storeID != storeID || h.generation != k.generation) {
		err = fmt.Errorf("%w: head row belongs to another store or root key", ErrTampered)
	}
	return h, err
}

// loadLastingKey opens the record that all derived keys come from. A store of
// schema 1 derived them from its root key.
func (v *Vault) loadLastingKey(u *unsealed) error {
	if v.schema == 1 {
		lasting, err := u.keys.lastingOfV1()
		if err != nil {
			return err
		}
		defer clear(lasting)
		return u.keys.hold(lasting)
	}
	l, env, err := v.fetch(u, lastingKeyPlace)
	if errors.Is(err, ErrNotFound) || err == nil && l.typ != TypeLastingKey {
		return fmt.Errorf("%w: there is no lasting key", ErrTampered)
	}
	if err != nil {
		return fmt.Errorf("reading the lasting key: %w", err)
	}
	return openRecord(context.Background(), u, l, env, lastingKeyID, func(_ string, key []byte) error {
		if len(key) != 32 {
			return fmt.Errorf("%w: lasting key of %d bytes", ErrTampered, len(key))
		}
		return u.keys.hold(key)
	})
}

// readLeaves reads the list of records.
func readLeaves(ctx context.Context, q queryer, expect int) ([]leaf, error) {
	rows, err := q.QueryContext(ctx, "SELECT k, t, ver, h FROM leaf ORDER BY k")
	if err != nil {
		return nil, readError("reading the list of records", err)
	}
	defer func() { _ = rows.Close() }()
	leaves := make([]leaf, 0, expect)
	for rows.Next() {
		var k, h sql.RawBytes
		var t, version int64
		if err := rows.Scan(&k, &t, &version, &h); err != nil {
			return nil, readError("reading the list of records", err)
		}
		l := leaf{version: uint64(version), typ: Type(t)}
		if copy(l.key[:], k) != len(k) || len(k) != 32 || copy(l.hash[:], h) != len(h) || len(h) != 32 || !l.typ.known() || t != int64(l.typ) {
			return nil, fmt.Errorf("%w: a row of the list of records has an unknown form", ErrTampered)
		}
		leaves = append(leaves, l)
	}
	if err := rows.Err(); err != nil {
		return nil, readError("reading the list of records", err)
	}
	return leaves, nil
}
