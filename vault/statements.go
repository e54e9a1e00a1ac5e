package vault

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// manyRows is how many journal rows one statement inserts when there are so many.
const manyRows = 16

// writeStmts is the writer's one connection and its prepared statements. They
// take no context: a write is never interrupted half way.
type writeStmts struct {
	conn                                   *sql.Conn
	begin, commitTx, rollbackTx            *sql.Stmt
	putRec, putLeaf, dropRec, dropLeaf     *sql.Stmt
	putHead, readHead, addRow, addManyRows *sql.Stmt
	pruneRows                              *sql.Stmt

	args [4 * manyRows]any // scratch, so that a batch allocates little
}

func prepareWrites(ctx context.Context, db *sql.DB) (*writeStmts, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the vault for writing: %w", err)
	}
	w := &writeStmts{conn: conn}
	for stmt, text := range map[**sql.Stmt]string{
		&w.begin:       "BEGIN IMMEDIATE",
		&w.commitTx:    "COMMIT",
		&w.rollbackTx:  "ROLLBACK",
		&w.putRec:      "INSERT INTO rec VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
		&w.putLeaf:     "INSERT INTO leaf VALUES (?, ?, ?, ?) ON CONFLICT (k) DO UPDATE SET t = excluded.t, ver = excluded.ver, h = excluded.h",
		&w.dropRec:     "DELETE FROM rec WHERE k = ?",
		&w.dropLeaf:    "DELETE FROM leaf WHERE k = ?",
		&w.putHead:     "UPDATE head SET body = ?, mac = ? WHERE id = 1",
		&w.readHead:    "SELECT body FROM head",
		&w.pruneRows:   "DELETE FROM journal WHERE seq > 1 AND seq <= ?",
		&w.addRow:      "INSERT INTO journal VALUES (?, ?, ?, ?)",
		&w.addManyRows: "INSERT INTO journal VALUES (?, ?, ?, ?)" + strings.Repeat(", (?, ?, ?, ?)", manyRows-1),
	} {
		if *stmt, err = conn.PrepareContext(ctx, text); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the vault for writing: %w", err), w.close())
		}
	}
	return w, nil
}

func (w *writeStmts) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{
		w.begin, w.commitTx, w.rollbackTx, w.putRec, w.putLeaf, w.dropRec, w.dropLeaf, w.putHead, w.readHead, w.addRow, w.addManyRows, w.pruneRows,
	} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// run writes the batch in one transaction; after an error the transaction may
// still be open.
func (w *writeStmts) run(b *batch, head, mac []byte, hooks testHooks) error {
	if _, err := w.begin.Exec(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	for k, c := range b.changes {
		if err := w.writeRecord(k, c); err != nil {
			return fmt.Errorf("writing a record: %w", err)
		}
	}
	if err := w.writeRows(b.rows); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if err := w.writeExtra(b.extra); err != nil {
		return fmt.Errorf("writing the keyslots: %w", err)
	}
	if b.pruned > 0 {
		if _, err := w.pruneRows.Exec(int64(b.pruned)); err != nil {
			return fmt.Errorf("pruning the journal: %w", err)
		}
	}
	if _, err := w.putHead.Exec(head, mac); err != nil {
		return fmt.Errorf("writing the head: %w", err)
	}
	if hooks.beforeCommit != nil {
		if err := hooks.beforeCommit(); err != nil {
			return fmt.Errorf("writing the head: %w", err)
		}
	}
	if _, err := w.commitTx.Exec(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	if hooks.afterCommit != nil {
		if err := hooks.afterCommit(); err != nil {
			return fmt.Errorf("committing: %w", err)
		}
	}
	return nil
}

func (w *writeStmts) writeExtra(e extra) error {
	if e.groups != nil {
		if err := w.writeKeyslots(e.groups); err != nil {
			return err
		}
	}
	if e.newRoot != nil {
		return e.newRoot.write(w)
	}
	if e.settle {
		return w.exec("DELETE FROM rotation")
	}
	return nil
}

// exec runs a statement that is too rare to be prepared.
func (w *writeStmts) exec(text string, args ...any) error {
	_, err := w.conn.ExecContext(context.Background(), text, args...)
	return err
}

func (w *writeStmts) writeRecord(k recordKey, c *change) error {
	if c.remove {
		if _, err := w.dropRec.Exec(k[:]); err != nil {
			return err
		}
		_, err := w.dropLeaf.Exec(k[:])
		return err
	}
	if _, err := w.putRec.Exec(k[:], c.env); err != nil {
		return err
	}
	_, err := w.putLeaf.Exec(k[:], int64(c.leaf.typ), int64(c.leaf.version), c.leaf.hash[:])
	return err
}

func (w *writeStmts) writeRows(rows []JournalRow) error {
	defer clear(w.args[:])
	for len(rows) > 0 {
		n, stmt := 1, w.addRow
		if len(rows) >= manyRows {
			n, stmt = manyRows, w.addManyRows
		}
		for i := range rows[:n] {
			r := &rows[i]
			a := w.args[4*i:]
			a[0], a[1], a[2], a[3] = int64(r.Seq), r.Body, r.Hash[:], r.MAC[:]
		}
		if _, err := stmt.Exec(w.args[:4*n]...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// rollback ends the transaction if SQLite hasn't done so itself.
func (w *writeStmts) rollback() error {
	_, err := w.rollbackTx.Exec()
	var se *sqlite.Error
	if errors.As(err, &se) && se.Code() == sqlite3.SQLITE_ERROR {
		return nil // no transaction is active
	}
	return err
}

// headIs says whether the file's head is body.
func (w *writeStmts) headIs(body []byte) bool {
	var got []byte
	return w.readHead.QueryRow().Scan(&got) == nil && bytes.Equal(got, body)
}
