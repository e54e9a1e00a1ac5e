package vault

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
)

// readConns is how many reads run at once beside the writer.
const readConns = 4

// reader is one read-only connection with its prepared statements.
type reader struct {
	conn            *sql.Conn
	record, journal *sql.Stmt
}

// readerPool lends readers; free holds those not in use.
type readerPool struct {
	db   *sql.DB
	free chan *reader
	all  []*reader
}

func openReaders(ctx context.Context, path string) (*readerPool, error) {
	db, err := openDB(path, "mode=ro", readConns)
	if err != nil {
		return nil, err
	}
	p := &readerPool{db: db, free: make(chan *reader, readConns)}
	for range readConns {
		r, err := openReader(ctx, db)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.all = append(p.all, r)
		p.free <- r
	}
	return p, nil
}

func openReader(ctx context.Context, db *sql.DB) (*reader, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, readError("opening the vault for reading", err)
	}
	r := &reader{conn: conn}
	if r.record, err = conn.PrepareContext(ctx, "SELECT v FROM rec WHERE k = ?"); err == nil {
		r.journal, err = conn.PrepareContext(ctx, journalQuery)
	}
	if err != nil {
		return nil, errors.Join(readError("opening the vault for reading", err), r.close())
	}
	return r, nil
}

func (r *reader) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{r.record, r.journal} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, r.conn.Close())...)
}

// lend takes a reader, which give puts back; after close it is [ErrSealed].
func (p *readerPool) lend() (*reader, error) {
	r, ok := <-p.free
	if !ok {
		return nil, ErrSealed
	}
	return r, nil
}

func (p *readerPool) give(r *reader) { p.free <- r }

// close waits for readers that are lent.
func (p *readerPool) close() error {
	var errs []error
	for range p.all {
		r := <-p.free
		errs = append(errs, r.close())
	}
	p.all = nil
	close(p.free)
	return errors.Join(append(errs, p.db.Close())...)
}

// record reads one envelope; the bytes are the caller's. No context: a read of
// one row takes microseconds and is not worth a goroutine that could cancel it.
func (p *readerPool) record(k recordKey) ([]byte, error) {
	r, err := p.lend()
	if err != nil {
		return nil, err
	}
	defer p.give(r)
	var env []byte
	if err := r.record.QueryRow(k[:]).Scan(&env); err != nil {
		return nil, readError("reading a record", err)
	}
	return env, nil
}

// keysAfter lists the keys of the next records, by key, after from.
func (p *readerPool) keysAfter(from []byte, n int) ([]recordKey, error) {
	r, err := p.lend()
	if err != nil {
		return nil, err
	}
	defer p.give(r)
	rows, err := r.conn.QueryContext(context.Background(), "SELECT k FROM rec WHERE k > ? ORDER BY k LIMIT ?", from, n)
	if err != nil {
		return nil, readError("listing records", err)
	}
	defer func() { _ = rows.Close() }()
	var out []recordKey
	for rows.Next() {
		var k sql.RawBytes
		if err := rows.Scan(&k); err != nil {
			return nil, readError("listing records", err)
		}
		if len(k) != 32 {
			return nil, fmt.Errorf("%w: record key of %d bytes", ErrTampered, len(k))
		}
		out = append(out, recordKey(k))
	}
	if err := rows.Err(); err != nil {
		return nil, readError("listing records", err)
	}
	return out, nil
}

// each lends every row of the records' table, in no meaningful order.
func (p *readerPool) each(ctx context.Context, use func(k recordKey, env []byte) error) error {
	r, err := p.lend()
	if err != nil {
		return err
	}
	defer p.give(r)
	rows, err := r.conn.QueryContext(ctx, "SELECT k, v FROM rec")
	if err != nil {
		return readError("reading records", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var k, env sql.RawBytes
		if err := rows.Scan(&k, &env); err != nil {
			return readError("reading records", err)
		}
		if len(k) != 32 {
			return fmt.Errorf("%w: record key of %d bytes", ErrTampered, len(k))
		}
		if err := use(recordKey(k), env); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return readError("reading records", err)
	}
	return nil
}

// wrappedBy counts the records that are wrapped by a root key.
func (p *readerPool) wrappedBy(generation uint32) (n int, err error) {
	r, err := p.lend()
	if err != nil {
		return 0, err
	}
	defer p.give(r)
	err = r.conn.QueryRowContext(context.Background(), "SELECT count(*) FROM rec WHERE substr(v, ?, 4) = ?",
		coreLen+kekIDLen+1, binary.BigEndian.AppendUint32(nil, generation)).Scan(&n)
	if err != nil {
		return 0, readError("counting records", err)
	}
	return n, nil
}

// With lends the record's plaintext to use and wipes it when use returns; use
// must not keep it. The error of use is returned as it is. Errors:
// [ErrNotFound], [ErrSealed], [ErrTampered]. It reads what is committed; inside
// an update use [Tx.With].
func (v *Vault) With(ctx context.Context, t Type, id string, use func(plaintext []byte) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := v.open.Load()
	if u == nil {
		return ErrSealed
	}
	if err := checkID(t, id); err != nil {
		return err
	}
	k, err := u.keys.recordKey(t, id)
	if err != nil {
		return err
	}
	l, env, err := v.fetch(u, k)
	if err == nil && l.typ != t {
		err = fmt.Errorf("%w: listed as a %s", ErrTampered, l.typ)
	}
	if err != nil {
		return fmt.Errorf("reading %s %q: %w", t, id, err)
	}
	return openRecord(ctx, u, l, env, id, func(_ string, plaintext []byte) error { return use(plaintext) })
}

// Has says whether the record exists; it is not opened.
func (v *Vault) Has(t Type, id string) (bool, error) {
	u := v.open.Load()
	if u == nil {
		return false, ErrSealed
	}
	if err := checkID(t, id); err != nil {
		return false, err
	}
	k, err := u.keys.recordKey(t, id)
	if err != nil {
		return false, err
	}
	l, ok := u.tree.lookup(k)
	return ok && l.typ == t, nil
}

// Count is how many records of a type there are.
func (v *Vault) Count(t Type) (int, error) {
	u := v.open.Load()
	if u == nil {
		return 0, ErrSealed
	}
	of, _ := u.tree.ofTypes(t)
	return len(of), nil
}

// WithAll lends several records of one type at once, in the order of ids, each as
// [Vault.With] does. use is not called unless all of them open.
func (v *Vault) WithAll(ctx context.Context, t Type, ids []string, use func(plaintexts [][]byte) error) error {
	var lend func(got [][]byte) error
	lend = func(got [][]byte) error {
		if len(got) == len(ids) {
			return use(got)
		}
		return v.With(ctx, t, ids[len(got)], func(plaintext []byte) error { return lend(append(got, plaintext)) })
	}
	return lend(make([][]byte, 0, len(ids)))
}

// fetch reads an envelope and compares it with the tree. When they disagree a
// commit may be under way: it is awaited, and then they must agree.
func (v *Vault) fetch(u *unsealed, k recordKey) (leaf, []byte, error) {
	if l, ok := u.tree.lookup(k); ok {
		if env, err := v.readers.record(k); err == nil && sha256.Sum256(env) == l.hash {
			return l, env, nil
		}
	}
	v.commitMu.RLock()
	defer v.commitMu.RUnlock()
	l, ok := u.tree.lookup(k)
	if !ok {
		return l, nil, ErrNotFound
	}
	env, err := v.readers.record(k)
	if err == nil && sha256.Sum256(env) != l.hash {
		err = fmt.Errorf("%w: not the version that the head lists", ErrTampered)
	}
	if err != nil && v.poisoned.Load() != nil {
		err = fmt.Errorf("%w: the last commit's outcome is unclear: %w", ErrUnwritable, err)
	}
	return l, env, err
}

// openRecord decrypts env, with the devices whose parts it needs, checks that it is
// the record asked for, and lends it. wantID "" takes any id whose key is the leaf's.
func openRecord(ctx context.Context, u *unsealed, l leaf, env []byte, wantID string, use func(id string, plaintext []byte) error) error {
	var useErr error
	m := recordMeta{Type: l.typ, Key: l.key, Version: l.version}
	check := func(id string, payload []byte) error {
		if wantID == "" {
			k, err := u.keys.recordKey(l.typ, id)
			if err != nil {
				return err
			}
			if k != l.key {
				return errFiledElsewhere
			}
		} else if id != wantID {
			return fmt.Errorf("%w: record names another id", ErrTampered)
		}
		useErr = use(id, payload)
		return nil
	}
	err := u.withParts(ctx, env, func(parts []byte) error { return u.keys.open(m, parts, env, check) })
	if err != nil {
		return fmt.Errorf("opening a %s: %w", l.typ, err)
	}
	return useErr
}

var errFiledElsewhere = fmt.Errorf("%w: record is filed under another id", ErrTampered)

// leafOf is what the tree will know of a fresh envelope.
func leafOf(m recordMeta, env []byte) leaf {
	return leaf{key: m.Key, version: m.Version, hash: sha256.Sum256(env), typ: m.Type}
}

// Derive lends a subkey of the lasting key, 32 bytes, and wipes it when use
// returns: HKDF-Expand-SHA256(lasting key, info = a fixed prefix and purpose). The
// same purpose gives the same key for the life of the store.
// use must not call Update, Seal or Close: sealing waits for it.
func (v *Vault) Derive(purpose string, use func(key []byte) error) error {
	u := v.open.Load()
	if u == nil {
		return ErrSealed
	}
	return u.keys.derive(purpose, use)
}
