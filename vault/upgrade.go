package vault

import "fmt"

// upgrade makes a store of schema 1 one of schema 2, in one transaction: the keys
// that outlive the root key get a record of their own, the head covers the
// keyslots, and there is a table for the rotation of the root key. It runs on the
// writer goroutine while the store is being unsealed; after a crash the store is
// of the one schema or the other.
func (v *Vault) upgrade(u *unsealed) (err error) {
	lasting, err := u.keys.lastingOfV1()
	if err != nil {
		return err
	}
	defer clear(lasting)
	next := u.head
	next.seq++
	m := recordMeta{Type: TypeLastingKey, Key: lastingKeyPlace, Version: next.seq, Created: v.cfg.Now().Unix()}
	env, err := u.keys.seal(m, nil, lastingKeyID, lasting)
	if err != nil {
		return fmt.Errorf("upgrading the vault: %w", err)
	}
	l := leafOf(m, env)
	undo := u.tree.apply([]leafChange{{leaf: l}})
	next.version, next.keyslots = headVersion, hashKeyslots(*v.groups.Load())
	next.records, next.setRoot = u.tree.count, u.tree.root()
	body := next.encode()
	mac, err := u.keys.headMAC(body)
	if err != nil {
		return err
	}
	if err := v.write.upgrade(l, env, body, mac[:]); err != nil {
		u.tree.apply(undo)
		_ = v.write.rollback() // the caller closes or tries anew; nothing was kept
		return fmt.Errorf("upgrading the vault: %w", err)
	}
	u.head, u.body, v.schema = next, body, schemaVersion
	v.cfg.Log.Info("upgraded the store", "schema", schemaVersion)
	return nil
}

// upgrade writes what a store of schema 1 lacks.
func (w *writeStmts) upgrade(l leaf, env, head, mac []byte) error {
	if _, err := w.begin.Exec(); err != nil {
		return err
	}
	for _, t := range tables {
		if t.since == schemaVersion {
			if err := w.exec(t.sql); err != nil {
				return err
			}
		}
	}
	if err := w.writeRecord(l.key, &change{leaf: l, env: env}); err != nil {
		return err
	}
	if err := w.exec("UPDATE meta SET schema = ?", schemaVersion); err != nil {
		return err
	}
	if _, err := w.putHead.Exec(head, mac); err != nil {
		return err
	}
	_, err := w.commitTx.Exec()
	return err
}
