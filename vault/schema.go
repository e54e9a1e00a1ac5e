package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is the on-disk version of all tables together. A store of
// schema 1 is upgraded when it is unsealed (upgrade.go); a newer one is refused.
const schemaVersion = 2

// FileName is the database's name within the state directory.
const FileName = "vault.db"

const (
	// LockName is the file that the daemon holds a flock on, beside it.
	LockName = "vault.lock"
	newName  = "vault.db.new"
)

// table is one table's name and the text that made it.
type table struct {
	name, sql string
	since     int64 // the schema that brought it; 0: the first
}

// tables is the whole schema, by name. Opening compares it with the file's, text by
// text: a trigger or view that someone added is refused, not run.
var tables = []table{
	{name: "generation", sql: "CREATE TABLE generation (gen INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"},
	{name: "head", sql: "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL, mac BLOB NOT NULL) STRICT"},
	{name: "journal", sql: "CREATE TABLE journal (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL, mac BLOB NOT NULL) STRICT"},
	{name: "leaf", sql: "CREATE TABLE leaf (k BLOB PRIMARY KEY NOT NULL, t INTEGER NOT NULL, ver INTEGER NOT NULL, h BLOB NOT NULL) STRICT, WITHOUT ROWID"},
	{name: "meta", sql: "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), schema INTEGER NOT NULL, store_id BLOB NOT NULL) STRICT"},
	{name: "rec", sql: "CREATE TABLE rec (k BLOB PRIMARY KEY NOT NULL, v BLOB NOT NULL) STRICT"},
	{name: "rotation", sql: "CREATE TABLE rotation (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL) STRICT", since: 2},
	{name: "slot", sql: "CREATE TABLE slot (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"},
	{name: "slot_group", sql: "CREATE TABLE slot_group (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"},
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

// checkSchema compares the file's tables with those of its schema version and
// returns that and the store id.
func checkSchema(ctx context.Context, q queryer) (storeID [16]byte, version int64, err error) {
	found, err := readTables(ctx, q)
	if err != nil {
		return storeID, 0, err
	}
	// Without our table meta it is nothing of ours; its text is compared below.
	if !slices.ContainsFunc(found, func(t table) bool { return t.name == "meta" }) {
		return storeID, 0, fmt.Errorf("%w: there is no table \"meta\"", ErrSchema)
	}
	var id []byte
	if err := q.QueryRowContext(ctx, "SELECT schema, store_id FROM meta").Scan(&version, &id); err != nil {
		return storeID, 0, readError("reading the schema version", err)
	}
	if version < 1 || version > schemaVersion {
		return storeID, 0, fmt.Errorf("%w: version %d, this build knows 1 to %d; hint: a newer sigild made it", ErrSchema, version, schemaVersion)
	}
	want := tablesOf(version)
	for i, t := range found {
		if i >= len(want) || t.name != want[i].name || t.sql != want[i].sql {
			return storeID, 0, fmt.Errorf("%w: %q is not a table that schema %d has", ErrSchema, t.name, version)
		}
	}
	if len(found) != len(want) {
		return storeID, 0, fmt.Errorf("%w: %d tables, want %d", ErrSchema, len(found), len(want))
	}
	if len(id) != len(storeID) {
		return storeID, 0, fmt.Errorf("%w: store id of %d bytes", ErrTampered, len(id))
	}
	return [16]byte(id), version, nil
}

// tablesOf is the schema of a version, by name.
func tablesOf(version int64) []table {
	var out []table
	for _, t := range tables {
		if t.since <= version {
			out = append(out, t)
		}
	}
	return out
}

// readTables lists tables, indexes, views and triggers by name.
func readTables(ctx context.Context, q queryer) ([]table, error) {
	rows, err := q.QueryContext(ctx, "SELECT name, sql FROM sqlite_schema WHERE NOT (type = 'index' AND sql IS NULL) ORDER BY name")
	if err != nil {
		return nil, readError("reading the schema", err)
	}
	defer func() { _ = rows.Close() }()
	var found []table
	for rows.Next() {
		var name, text sql.NullString
		if err := rows.Scan(&name, &text); err != nil {
			return nil, readError("reading the schema", err)
		}
		found = append(found, table{name: name.String, sql: text.String})
	}
	if err := rows.Err(); err != nil {
		return nil, readError("reading the schema", err)
	}
	return found, nil
}

// readError names what was read; a file that SQLite calls damaged, a row that is
// missing, or a column of another type than the schema's is [ErrTampered].
func readError(doing string, err error) error {
	var se *sqlite.Error
	// database/sql has no type for a column that can't be converted.
	odd := strings.HasPrefix(err.Error(), "sql: Scan error")
	if odd || errors.Is(err, sql.ErrNoRows) || errors.As(err, &se) && damaged(se.Code()) {
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
	for _, name := range []string{FileName, FileName + "-wal", FileName + "-shm", LockName} {
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
	path := filepath.Join(dir, LockName)
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
