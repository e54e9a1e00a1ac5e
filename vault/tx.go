package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sigild/sigild/seal"
)

// errEnded is what a Tx answers that outlived its closure.
var errEnded = errors.New("using an update after its closure returned")

// Tx is one closure's part of an update. It sees its own changes and those of
// the closures before it. Nothing reaches the file before the closure has
// returned nil; if it fails, its changes are dropped and its OnRollback hooks
// run. It is valid until the closure returns and must stay on its goroutine.
type Tx struct{ b *batch }

// batch collects what one commit will write: the changes of up to maxBatch
// closures. It lives on the writer goroutine.
type batch struct {
	v       *Vault
	u       *unsealed
	changes map[recordKey]*change
	log     []logged // how to take changes back, oldest first
	rows    []JournalRow
	journal JournalHead
	pruned  uint64   // rows 2 to this one go; 0: none
	commits []func() // OnCommit hooks of closures that succeeded
	undos   []func() // OnRollback hooks likewise
	version uint64   // the head's seq after this commit
	created int64
	extra   extra
	untold  []Change // of the running closure, for the observer
}

// extra is what an update changes beside records and rows.
type extra struct {
	groups  []slotGroup // the keyslots from now on; nil: as they are
	newRoot *NewRoot    // the root key from now on; nil: as it is
	settle  bool        // the rotation has ended
	advance bool        // the anchor moves before anybody is answered
	roll    bool        // every device that can replaces its sealing key
	rolls   rolls       // the keys that are kept; filled in while committing
	epoch   uint64      // the head's from now on; 0: as it follows
}

// change is the new state of one record.
type change struct {
	leaf   leaf
	env    []byte
	remove bool
}

// logged is what changes[key] was before.
type logged struct {
	key    recordKey
	before *change
}

// JournalRow is one row of the journal's table; package journal gives it its
// meaning, the vault keeps the sequence without gaps and binds the last row
// into the head.
type JournalRow struct {
	Seq       uint64
	Body      []byte
	Hash, MAC [32]byte
}

// Put seals plaintext (≤ [MaxRecord] bytes, kept by the caller) as the new
// version of the record. id is 1 to [MaxID] bytes of UTF-8. The change of a record
// that says who may do what moves the anchor, as [Tx.Advance] does. A record that the
// rule of [Vault.UseParts] names waits for its devices, and everybody with it.
func (tx *Tx) Put(t Type, id string, plaintext []byte) error {
	if len(plaintext) > MaxRecord {
		return fmt.Errorf("writing %s %q: %w: %d bytes, at most %d", t, id, ErrTooLarge, len(plaintext), MaxRecord)
	}
	b, k, err := tx.locate(t, id)
	if err != nil {
		return err
	}
	m := recordMeta{Type: t, Key: k, Version: b.version, Created: b.created}
	devices := b.v.devicesFor(t, id)
	var refs map[string]seal.KeyRef
	if len(devices) > 0 {
		if refs, err = tx.partRefs(); err != nil {
			return fmt.Errorf("writing %s %q: %w", t, id, err)
		}
	}
	var env []byte
	err = b.u.makeParts(context.Background(), m, devices, refs, func(parts *newParts) error {
		env, err = b.u.keys.seal(m, parts, id, plaintext)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing %s %q: %w", t, id, err)
	}
	there := b.has(k)
	b.set(k, &change{leaf: leafOf(m, env), env: env})
	b.extra.advance = b.extra.advance || there && t.standing()
	b.note(t, id, plaintext, false, there)
	return nil
}

// Delete removes the record; [ErrNotFound] if there is none. The destruction of a
// secret moves the anchor, as [Tx.Advance] does.
func (tx *Tx) Delete(t Type, id string) error {
	b, k, err := tx.locate(t, id)
	if err != nil {
		return err
	}
	if !b.has(k) {
		return fmt.Errorf("deleting %s %q: %w", t, id, ErrNotFound)
	}
	b.set(k, &change{leaf: leaf{key: k}, remove: true})
	b.extra.advance = b.extra.advance || t.final() || t.standing()
	b.note(t, id, nil, true, true)
	return nil
}

// Has says whether the record exists.
func (tx *Tx) Has(t Type, id string) (bool, error) {
	b, k, err := tx.locate(t, id)
	if err != nil {
		return false, err
	}
	return b.has(k), nil
}

// With is [Vault.With] as this update sees the record.
func (tx *Tx) With(t Type, id string, use func(plaintext []byte) error) error {
	b, k, err := tx.locate(t, id)
	if err != nil {
		return err
	}
	var l leaf
	var env []byte
	if c := b.changes[k]; c != nil && !c.remove {
		l, env = c.leaf, bytes.Clone(c.env) // opening decrypts in place
	} else if c != nil {
		err = ErrNotFound
	} else {
		l, env, err = b.v.fetch(b.u, k)
	}
	if err != nil {
		return fmt.Errorf("reading %s %q: %w", t, id, err)
	}
	return openRecord(context.Background(), b.u, l, env, id, func(_ string, plaintext []byte) error { return use(plaintext) })
}

// OnCommit runs f on the writer goroutine after the change is durable, before
// any caller of the batch is answered and before the next batch; in order of
// registration. f must not fail.
func (tx *Tx) OnCommit(f func()) {
	if tx.b != nil {
		tx.b.commits = append(tx.b.commits, f)
	}
}

// OnRollback runs f on the writer goroutine if this closure or the batch's
// commit fails, in reverse order of registration. f must not fail.
func (tx *Tx) OnRollback(f func()) {
	if tx.b != nil {
		tx.b.undos = append(tx.b.undos, f)
	}
}

// JournalHead is the journal's last row as this update sees it.
func (tx *Tx) JournalHead() (JournalHead, error) {
	if tx.b == nil {
		return JournalHead{}, errEnded
	}
	return tx.b.journal, nil
}

// AppendJournal adds the journal's next row; Seq must be one more than the
// head's. It keeps row.Body.
func (tx *Tx) AppendJournal(row JournalRow) error {
	if tx.b == nil {
		return errEnded
	}
	if row.Seq != tx.b.journal.Seq+1 {
		return fmt.Errorf("appending journal row %d: the last one is %d", row.Seq, tx.b.journal.Seq)
	}
	tx.b.rows = append(tx.b.rows, row)
	tx.b.journal = JournalHead{Seq: row.Seq, Hash: row.Hash}
	return nil
}

// PruneJournal removes the rows from 2 to through, which must not be the last. The
// first row stays: it says whose journal it is.
func (tx *Tx) PruneJournal(through uint64) error {
	if tx.b == nil {
		return errEnded
	}
	if through >= tx.b.journal.Seq {
		return fmt.Errorf("pruning the journal up to row %d: the last one is %d", through, tx.b.journal.Seq)
	}
	tx.b.pruned = max(tx.b.pruned, through)
	return nil
}

func (tx *Tx) locate(t Type, id string) (*batch, recordKey, error) {
	if tx.b == nil {
		return nil, recordKey{}, errEnded
	}
	if err := checkID(t, id); err != nil {
		return nil, recordKey{}, err
	}
	k, err := tx.b.u.keys.recordKey(t, id)
	return tx.b, k, err
}

func (b *batch) has(k recordKey) bool {
	if c := b.changes[k]; c != nil {
		return !c.remove
	}
	_, ok := b.u.tree.lookup(k)
	return ok
}

func (b *batch) set(k recordKey, c *change) {
	if b.changes == nil {
		b.changes = make(map[recordKey]*change)
	}
	b.log = append(b.log, logged{k, b.changes[k]})
	b.changes[k] = c
}

// mark is the state of a batch between two closures.
type mark struct {
	log, rows, commits, undos int
	journal                   JournalHead
	extra                     extra
	pruned                    uint64
}

func (b *batch) mark() mark {
	return mark{len(b.log), len(b.rows), len(b.commits), len(b.undos), b.journal, b.extra, b.pruned}
}

// revert takes back everything after m, undo hooks first, newest first.
func (b *batch) revert(m mark) {
	b.undo(m.undos)
	for i := len(b.log) - 1; i >= m.log; i-- {
		if l := b.log[i]; l.before == nil {
			delete(b.changes, l.key)
		} else {
			b.changes[l.key] = l.before
		}
	}
	b.log, b.rows, b.commits, b.journal, b.extra = b.log[:m.log], b.rows[:m.rows], b.commits[:m.commits], m.journal, m.extra
	b.pruned = m.pruned
}

// undo runs the OnRollback hooks from the newest back to number from.
func (b *batch) undo(from int) {
	for i := len(b.undos) - 1; i >= from; i-- {
		b.v.runHook("undoing an update", b.undos[i])
	}
	b.undos = b.undos[:from]
}

func (b *batch) changed() bool {
	e := b.extra
	return len(b.changes) > 0 || len(b.rows) > 0 || e.groups != nil || e.settle || e.advance || b.pruned > 0
}
