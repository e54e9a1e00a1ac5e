package vault

// A backup is a copy of the database as of one moment, by SQLite's VACUUM INTO,
// beside a running daemon. It is ciphertext, as the store is. What opens it are its
// own keyslots: the device, until its sealing key is rolled, and the custodians of a
// recovery group, whose parts are in it. It forgets whatever happened after it.

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// BackupInfo is what a file says of itself; see [VerifyFile] for how far that goes.
type BackupInfo struct {
	StoreID    [16]byte
	Schema     int64
	Generation uint32
	Epoch      uint64
	Seq        uint64
	Records    uint64
	Journal    JournalHead
	Slots      []SlotInfo
}

// Recoverable says whether custodians could open it without the device.
func (i BackupInfo) Recoverable() bool {
	return slices.ContainsFunc(i.Slots, func(s SlotInfo) bool { return len(s.Custodians) > 0 })
}

// BackUp copies the store at from, open or not, to the file to, which must not
// exist, and verifies the copy. The copy is durable on return, mode 0600; after an
// error there is none. Errors: [ErrMissing], [ErrExists], [ErrTampered],
// [ErrSchema], [ErrPinMismatch].
func BackUp(ctx context.Context, from, to string, pin Pin) (_ BackupInfo, err error) {
	f, err := OpenFile(ctx, from)
	if err != nil {
		return BackupInfo{}, err
	}
	_ = f.Close()
	// SQLite fills an empty file; made here, it is nobody else's for a moment neither.
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return BackupInfo{}, fmt.Errorf("%w: %s; hint: a backup overwrites nothing", ErrExists, to)
	}
	if err != nil {
		return BackupInfo{}, fmt.Errorf("backing up the vault: %w", err)
	}
	defer func() {
		if e := out.Close(); err == nil && e != nil {
			err = fmt.Errorf("backing up the vault: %w", e)
		}
		if err != nil {
			_ = os.Remove(to)
		}
	}()
	if err := copyDatabase(ctx, from, to); err != nil {
		return BackupInfo{}, err
	}
	if err := out.Sync(); err != nil {
		return BackupInfo{}, fmt.Errorf("backing up the vault: %w", err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return BackupInfo{}, err
	}
	return VerifyFile(ctx, to, pin)
}

func copyDatabase(ctx context.Context, from, to string) (err error) {
	db, err := openDB(from, "mode=ro", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return readError("backing up the vault", err)
	}
	return nil
}

// VerifyFile checks a closed copy of the store without any key: the database's
// structure, the root key's statements against the pin, the keyslots, every
// record's bytes against the list and the list against the head, the journal's
// numbers. It can't tell whether the head is genuine, nor what is in the records;
// that takes the root key ([Restoration.ReadAll]), and for the journal's contents
// package journal. Errors as those of [Open].
func VerifyFile(ctx context.Context, path string, pin Pin) (info BackupInfo, err error) {
	if st, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return info, fmt.Errorf("%w: %s", ErrMissing, path)
	} else if err == nil && st.Size() == 0 {
		return info, fmt.Errorf("%w: %s is empty", ErrTampered, path)
	}
	if st, err := os.Stat(path + "-wal"); err == nil && st.Size() > 0 {
		return info, fmt.Errorf("verifying a copy: %s has a log beside it with changes of its own; hint: make the copy with sigilctl backup create", filepath.Base(path))
	}
	pin.Anchor = Anchor{} // older it may be
	v := &Vault{cfg: Config{}.withDefaults(), storeID: pin.StoreID, gens: make(map[uint32]statement)}
	if v.db, err = openDB(path, "mode=ro&immutable=1", 1); err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, v.db.Close()) }()
	if err := v.loadPublic(ctx, pin); err != nil {
		return info, err
	}
	var body []byte
	if err := v.db.QueryRowContext(ctx, "SELECT body FROM head").Scan(&body); err != nil {
		return info, readError("reading the head", err)
	}
	h, err := parseHead(body)
	if err != nil {
		return info, err
	}
	if h.storeID != v.storeID || h.version > 1 && h.keyslots != hashKeyslots(*v.groups.Load()) {
		return info, fmt.Errorf("%w: the head is of another store, or of other keyslots", ErrTampered)
	}
	if err := v.verifyRecords(ctx, h); err != nil {
		return info, err
	}
	var rows uint64
	err = v.db.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM journal").Scan(&rows)
	if err != nil {
		return info, readError("reading the journal's end", err)
	}
	if rows != h.journal.Seq {
		return info, fmt.Errorf("%w: the journal ends at entry %d, want %d", ErrTampered, rows, h.journal.Seq)
	}
	return BackupInfo{
		StoreID: h.storeID, Schema: v.schema, Generation: h.generation, Epoch: h.epoch, Seq: h.seq,
		Records: h.records, Journal: h.journal, Slots: v.Slots(),
	}, nil
}

// verifyRecords holds every record's bytes against the list, and that against the head.
func (v *Vault) verifyRecords(ctx context.Context, h head) error {
	leaves, err := readLeaves(ctx, v.db, 0)
	if err != nil {
		return err
	}
	t, ok := newTree(leaves)
	if !ok || t.root() != h.setRoot || uint64(len(leaves)) != h.records {
		return fmt.Errorf("%w: the list of records is not what was written", ErrTampered)
	}
	rows, err := v.db.QueryContext(ctx, "SELECT k, v FROM rec")
	if err != nil {
		return readError("reading records", err)
	}
	defer func() { _ = rows.Close() }()
	n := uint64(0)
	for ; rows.Next(); n++ {
		var k, env []byte
		if err := rows.Scan(&k, &env); err != nil {
			return readError("reading records", err)
		}
		if len(k) != 32 {
			return fmt.Errorf("%w: record key of %d bytes", ErrTampered, len(k))
		}
		l, ok := t.lookup(recordKey(k))
		if !ok || sha256.Sum256(env) != l.hash {
			return fmt.Errorf("%w: a record is not the one that is listed", ErrTampered)
		}
		e, err := parseEnvelope(env)
		if err != nil {
			return err
		}
		if e.meta.StoreID != v.storeID || e.meta.Key != l.key || e.meta.Type != l.typ || e.meta.Version != l.version {
			return fmt.Errorf("%w: envelope belongs to another record, version or store", ErrTampered)
		}
	}
	if err := rows.Err(); err != nil {
		return readError("reading records", err)
	}
	if n != h.records {
		return fmt.Errorf("%w: %d record rows, want %d", ErrTampered, n, h.records)
	}
	return nil
}
