package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

const journalQuery = "SELECT seq, body, hash, mac FROM journal WHERE seq >= ? ORDER BY seq LIMIT ?"

// rowsAtOnce bounds how long one read keeps SQLite from reusing its log.
const rowsAtOnce = 512

// JournalRows lends the committed rows from number from on, at most limit of them
// (0: all), in order. The row's bytes are use's to keep. It fails on a gap
// ([ErrTampered]); what the rows say is package journal's to check.
func (v *Vault) JournalRows(ctx context.Context, from uint64, limit int, use func(JournalRow) error) error {
	if v.open.Load() == nil {
		return ErrSealed
	}
	return eachRow(ctx, from, limit, use, func(from uint64, n int) ([]JournalRow, error) {
		r, err := v.readers.lend()
		if err != nil {
			return nil, err
		}
		defer v.readers.give(r)
		return queryRows(r.journal, from, n)
	})
}

// JournalHead is the journal's last committed row.
func (v *Vault) JournalHead() (JournalHead, error) {
	v.commitMu.RLock()
	defer v.commitMu.RUnlock()
	u := v.open.Load()
	if u == nil {
		return JournalHead{}, ErrSealed
	}
	return u.head.journal, nil
}

func eachRow(ctx context.Context, from uint64, limit int, use func(JournalRow) error, read func(from uint64, n int) ([]JournalRow, error)) error {
	if from == 0 {
		from = 1
	}
	if from > math.MaxInt64 {
		return nil
	}
	for left := limit; limit == 0 || left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := rowsAtOnce
		if limit != 0 {
			n = min(n, left)
		}
		rows, readErr := read(from, n) // what was read before the error counts
		for _, r := range rows {
			if r.Seq != from {
				return fmt.Errorf("%w: journal row %d is missing", ErrTampered, from)
			}
			if err := use(r); err != nil {
				return err
			}
			from++
		}
		if left -= len(rows); readErr != nil || len(rows) < n {
			return readErr
		}
	}
	return nil
}

func queryRows(s *sql.Stmt, from uint64, n int) ([]JournalRow, error) {
	rows, err := s.Query(int64(from), n)
	if err != nil {
		return nil, readError("reading the journal", err)
	}
	defer func() { _ = rows.Close() }()
	var out []JournalRow
	for rows.Next() {
		var r JournalRow
		var seq int64
		var hash, mac sql.RawBytes
		if err := rows.Scan(&seq, &r.Body, &hash, &mac); err != nil {
			return out, readError("reading the journal", err)
		}
		if len(hash) != 32 || len(mac) != 32 {
			return out, fmt.Errorf("%w: journal row %d has an unknown form", ErrTampered, seq)
		}
		r.Seq, r.Hash, r.MAC = uint64(seq), [32]byte(hash), [32]byte(mac)
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return out, readError("reading the journal", err)
	}
	return out, nil
}

// File is a store's database opened for reading the journal only: no key, no
// lock, no daemon. It works beside a running daemon and on a copy, also one on
// a read-only medium. Nothing it returns is authenticated; that is the reader's
// work (package journal).
type File struct {
	db      *sql.DB
	r       *reader
	storeID [16]byte
	head    JournalHead
	epoch   uint64
	began   bool
}

// OpenFile opens the database at path. All that it returns is of one moment.
// Errors: [ErrMissing], [ErrSchema], [ErrTampered] when it is no database.
func OpenFile(ctx context.Context, path string) (*File, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrMissing, path)
	}
	f, err := openFile(ctx, path, "mode=ro")
	if err == nil || errors.Is(err, ErrSchema) || errors.Is(err, ErrTampered) {
		return f, err
	}
	// SQLite wants to write its log index beside the file. Where it can't, the
	// file alone is read as it is, unless a log holds newer changes.
	if st, statErr := os.Stat(path + "-wal"); statErr == nil && st.Size() > 0 {
		return nil, fmt.Errorf("opening %s: %w; hint: copy it together with its -wal file to a directory you can write", filepath.Base(path), err)
	}
	return openFile(ctx, path, "mode=ro&immutable=1")
}

func openFile(ctx context.Context, path, params string) (_ *File, err error) {
	db, err := openDB(path, params, 1)
	if err != nil {
		return nil, err
	}
	f := &File{db: db}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.r, err = openReader(ctx, db); err != nil {
		return nil, err
	}
	// One read transaction gives one moment, however long the reading takes.
	if _, err := f.r.conn.ExecContext(ctx, "BEGIN"); err != nil {
		return nil, readError("reading the vault", err)
	}
	f.began = true
	if f.storeID, _, err = checkSchema(ctx, f.r.conn); err != nil {
		return nil, err
	}
	var body []byte
	if err := f.r.conn.QueryRowContext(ctx, "SELECT body FROM head").Scan(&body); err != nil {
		return nil, readError("reading the head", err)
	}
	h, err := parseHead(body)
	if err != nil {
		return nil, err
	}
	if h.storeID != f.storeID {
		return nil, fmt.Errorf("%w: head row belongs to another store", ErrTampered)
	}
	f.head, f.epoch = h.journal, h.epoch
	return f, nil
}

// StoreID is what the file says of itself.
func (f *File) StoreID() [16]byte { return f.storeID }

// JournalHead is what the file's head row says of the journal's end.
func (f *File) JournalHead() JournalHead { return f.head }

// JournalRows is [Vault.JournalRows] of this file.
func (f *File) JournalRows(ctx context.Context, from uint64, limit int, use func(JournalRow) error) error {
	return eachRow(ctx, from, limit, use, func(from uint64, n int) ([]JournalRow, error) { return queryRows(f.r.journal, from, n) })
}

// JournalStart is the number of the first row behind row 1, which is never pruned;
// 0 when there is none.
func (f *File) JournalStart(ctx context.Context) (uint64, error) {
	var seq int64
	err := f.r.conn.QueryRowContext(ctx, "SELECT coalesce(min(seq), 0) FROM journal WHERE seq > 1").Scan(&seq)
	if err != nil {
		return 0, readError("reading the journal", err)
	}
	return uint64(max(seq, 0)), nil
}

// Close ends the reading.
func (f *File) Close() error {
	var errs []error
	if f.began {
		_, err := f.r.conn.ExecContext(context.Background(), "ROLLBACK")
		errs = append(errs, err)
	}
	if f.r != nil {
		errs = append(errs, f.r.close())
	}
	return errors.Join(append(errs, f.db.Close())...)
}
