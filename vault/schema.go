package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is the on-disk version of all tables together.
const schemaVersion = 1

// FileName is the database's name within the state directory.
const FileName = "vault.db"

const (
	lockName = "vault.lock"
	newName  = "vault.db.new"
)

// tables is the whole schema. Opening compares it with the file's, text by
// text: a trigger or view that someone added is refused, not run.
var tables = []struct{ name, sql string }{
	{"generation", "CREATE TABLE generation (gen INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"},
	{"head", "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL, mac BLOB NOT NULL) STRICT"},
	{"journal", "CREATE TABLE journal (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL, mac BLOB NOT NULL) STRICT"},
	{"leaf", "CREATE TABLE leaf (k BLOB PRIMARY KEY NOT NULL, t INTEGER NOT NULL, ver INTEGER NOT NULL, h BLOB NOT NULL) STRICT, WITHOUT ROWID"},
	{"meta", "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), schema INTEGER NOT NULL, store_id BLOB NOT NULL) STRICT"},
	{"rec", "CREATE TABLE rec (k BLOB PRIMARY KEY NOT NULL, v BLOB NOT NULL) STRICT"},
	{"slot", "CREATE TABLE slot (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"},
	{"slot_group", "CREATE TABLE slot_group (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"},
}

// openDB opens path with at most conns connections; params are SQLite URI
// parameters such as mode=ro.
func openDB(path, params string, conns int) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	u := url.URL{Scheme: "file", Path: abs}
	const pragmas = "_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)&_pragma=secure_delete(1)" +
		"&_pragma=cell_size_check(1)&_pragma=trusted_schema(0)&_pragma=foreign_keys(0)"
	db, err := sql.Open("sqlite", u.String()+"?"+params+"&"+pragmas)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// createTables makes an empty database at path, which must not exist, mode 0600.
func createTables(ctx context.Context, path string, storeID [16]byte, fill func(*sql.Tx) error) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("creating the vault: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("creating the vault: %w", err)
	}
	db, err := openDB(path, "mode=rw&_pragma=journal_mode(WAL)", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("creating the vault: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after a commit
	for _, t := range tables {
		if _, err := tx.Exec(t.sql); err != nil {
			return fmt.Errorf("creating table %s: %w", t.name, err)
		}
	}
	if _, err := tx.Exec("INSERT INTO meta VALUES (1, ?, ?)", schemaVersion, storeID[:]); err != nil {
		return fmt.Errorf("creating the vault: %w", err)
	}
	if err := fill(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("creating the vault: %w", err)
	}
	return nil
}

// queryer is a connection, pool or transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// checkSchema compares the file's tables with ours and returns the store id.
func checkSchema(ctx context.Context, q queryer) (storeID [16]byte, err error) {
	rows, err := q.QueryContext(ctx, "SELECT name, sql FROM sqlite_schema WHERE NOT (type = 'index' AND sql IS NULL) ORDER BY name")
	if err != nil {
		return storeID, readError("reading the schema", err)
	}
	defer func() { _ = rows.Close() }()
	n := 0
	for ; rows.Next(); n++ {
		var name, text sql.NullString
		if err := rows.Scan(&name, &text); err != nil {
			return storeID, readError("reading the schema", err)
		}
		if n >= len(tables) || name.String != tables[n].name || text.String != tables[n].sql {
			return storeID, fmt.Errorf("%w: %q is not a table this build made; hint: it may be a vault of another sigild version", ErrSchema, name.String)
		}
	}
	if err := rows.Err(); err != nil {
		return storeID, readError("reading the schema", err)
	}
	if n != len(tables) {
		return storeID, fmt.Errorf("%w: %d tables, want %d", ErrSchema, n, len(tables))
	}
	var version int64
	var id []byte
	if err := q.QueryRowContext(ctx, "SELECT schema, store_id FROM meta").Scan(&version, &id); err != nil {
		return storeID, readError("reading the schema version", err)
	}
	if version != schemaVersion {
		return storeID, fmt.Errorf("%w: version %d, this build knows %d", ErrSchema, version, schemaVersion)
	}
	if len(id) != len(storeID) {
		return storeID, fmt.Errorf("%w: store id of %d bytes", ErrTampered, len(id))
	}
	return [16]byte(id), nil
}

// readError names what was read; a file that SQLite calls damaged, or a row
// that is missing, is [ErrTampered].
func readError(doing string, err error) error {
	var se *sqlite.Error
	if errors.Is(err, sql.ErrNoRows) || errors.As(err, &se) && damaged(se.Code()) {
		return fmt.Errorf("%s: %w: %w", doing, ErrTampered, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func damaged(code int) bool {
	return code&0xff == sqlite3.SQLITE_CORRUPT || code&0xff == sqlite3.SQLITE_NOTADB
}

// noSpace says whether a failed statement means a full disk. The WAL index
// reports it as a failed resize.
func noSpace(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && (se.Code()&0xff == sqlite3.SQLITE_FULL || se.Code() == sqlite3.SQLITE_IOERR_SHMSIZE) ||
		errors.Is(err, unix.ENOSPC)
}

// busy says whether another program kept the database locked past the timeout.
func busy(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && (se.Code()&0xff == sqlite3.SQLITE_BUSY || se.Code()&0xff == sqlite3.SQLITE_LOCKED)
}

// checkModes insists that dir and the vault's files in it are ours alone.
func checkModes(dir string) error {
	if err := checkPrivate(dir, os.ModeDir); err != nil {
		return err
	}
	for _, name := range []string{FileName, FileName + "-wal", FileName + "-shm", lockName} {
		err := checkPrivate(filepath.Join(dir, name), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkPrivate insists on the type of file, on our ownership, and on no
// permission for others. Symbolic links are refused.
func checkPrivate(path string, kind os.FileMode) error {
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("looking at the vault: %w", err)
	}
	want := "0600"
	if kind == os.ModeDir {
		want = "0700"
	}
	if st.Mode().Type() != kind {
		return fmt.Errorf("%w: %s is a %s; hint: the vault wants a plain directory and plain files, no links", ErrModes, path, st.Mode().Type())
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %#o; hint: chmod %s %s", ErrModes, path, st.Mode().Perm(), want, path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to another user than uid %d; hint: run as its owner, or chown it", ErrModes, path, os.Geteuid())
	}
	return nil
}

// lockDir takes the flock that keeps a second process out. It is held until the
// file is closed, by the kernel also when the process dies.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the vault: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is locked; hint: is another sigild running on this state?", ErrInUse, path)
		}
		return nil, fmt.Errorf("locking the vault: %w", err)
	}
	return f, nil
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return d.Close()
}
