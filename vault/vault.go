// Package vault keeps sealed records in one SQLite database: shares, keys,
// wallets, delegations, and the journal's rows beside them, so that a change of
// state and the entry that tells of it are one durable transaction. It is for
// the rooms that own state (delegation, signing, journal); only cmd hands it
// the devices that seal.
//
// A hardware root seals the root key, the root key wraps a fresh key for each
// write of each record. The file lists no names. A head, authenticated under
// the root key, says which records there are in which version; the root key's
// generation is signed by a store key that is pinned outside.
//
// It refuses: a directory or file that others may enter, a second process, a
// store that is not the pinned one, a schema or format it doesn't know, and
// every record, keyslot or row that was changed, swapped, removed, added or
// replaced by an older one. After a commit whose outcome is unclear it refuses
// all further updates. A whole older copy of the file put back is noticed by a
// counter outside, where there is one (anchor.go).
//
// An attacker who runs code as the daemon while the vault is unsealed has the
// root key's use: it is in memory.
package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sigild/sigild/seal"
)

// Config says where the vault is.
type Config struct {
	// Dir is the state directory; mode 0700, owned by this process's user.
	Dir string
	// Log gets what an operator wants to know at night; nil is silent.
	Log *slog.Logger
	// Now is the clock for the dates on records and slots; nil is time.Now.
	Now func() time.Time
	// Anchor is for [Create] only; its device must be one of the key holders'.
	Anchor Anchor
	// Random fills b from a second source of random bytes, which Create adds to the
	// kernel's to make the root key; nil: the kernel's alone. Its failure fails Create.
	Random func(ctx context.Context, b []byte) error
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Vault is one open store, sealed or not. Its methods are safe for concurrent
// use. Closures given to [Vault.Update] run one at a time on one goroutine.
type Vault struct {
	cfg     Config
	storeID [16]byte
	schema  int64                       // of the file; the writer goroutine's
	groups  atomic.Pointer[[]slotGroup] // by id; swapped by the writer goroutine, never modified
	gens    map[uint32]statement        // verified against the pin at Open
	anchor  Anchor                      // the pin's
	lock    *os.File                    // holds the flock

	db      *sql.DB     // one connection, the writer's
	write   *writeStmts // used by the writer goroutine only
	readers *readerPool

	open     atomic.Pointer[unsealed] // nil while sealed; set and cleared by the writer goroutine
	poisoned atomic.Pointer[poison]   // set once, by the writer goroutine

	// commitMu is held by the writer from changing the tree until the commit is
	// decided; a reader that sees tree and file disagree waits for it.
	commitMu sync.RWMutex

	partRule  atomic.Pointer[PartRule] // nil: no record gets devices' parts
	resealing sync.Mutex               // one ResealParts at a time
	observer  atomic.Pointer[Observer]

	queue  chan *job     // unbuffered: a sender is in the batch or not at all
	held   *job          // the writer goroutine's: taken from queue, to run next and alone
	stop   chan struct{} // closed by Close
	done   chan struct{} // closed by the writer goroutine at its end
	closed sync.Once
	hooks  testHooks
}

// unsealed is what exists only while the root key is in memory.
type unsealed struct {
	keys *keyring
	tree *tree
	head head // the writer goroutine's
	body []byte
	info atomic.Pointer[Info]
	// counter is that of an anchor of kind nv; nil otherwise.
	counter seal.Counter
	// here are the devices, as given to Unseal and Connect; swapped, never modified.
	here atomic.Pointer[map[string]seal.Sealer]
}

// withRoot lends the root key.
func (u *unsealed) withRoot(use func(root []byte, generation uint32) error) error {
	root := make([]byte, 32)
	defer clear(root)
	var generation uint32
	err := u.keys.use(func(s *subkeys) error {
		copy(root, s.root)
		generation = u.keys.generation
		return nil
	})
	if err != nil {
		return err
	}
	return use(root, generation)
}

type poison struct{ cause error }

// Info is what `status` says of the vault.
type Info struct {
	StoreID    [16]byte
	Sealed     bool
	Unwritable bool // see ErrUnwritable
	Anchor     AnchorKind
	// The rest is zero while sealed.
	Generation uint32
	Rotating   bool // records still wait to be wrapped under the new root key
	Epoch      uint64
	Seq        uint64 // committed updates since creation
	Records    uint64
	JournalSeq uint64
}

// Open opens the store in cfg.Dir, sealed, and checks what can be checked
// without the root key: modes, schema, the database's own structure, keyslots,
// and the generation statements against pin. It holds a lock that refuses a
// second process until Close or the end of this one.
func Open(ctx context.Context, cfg Config, pin Pin) (*Vault, error) {
	cfg = cfg.withDefaults()
	path := filepath.Join(cfg.Dir, FileName)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s; hint: run sigilctl init", ErrMissing, path)
	}
	if err := checkModes(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	v, err := openPath(ctx, cfg, path, pin, lock)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return v, nil
}

// openPath opens and checks the file. On success the vault owns lock.
func openPath(ctx context.Context, cfg Config, path string, pin Pin, lock *os.File) (_ *Vault, err error) {
	db, err := openDB(path, "mode=rw&_pragma=journal_mode(WAL)", 1)
	if err != nil {
		return nil, err
	}
	v := &Vault{
		cfg: cfg, storeID: pin.StoreID, anchor: pin.Anchor, db: db, lock: lock, gens: make(map[uint32]statement),
		queue: make(chan *job), stop: make(chan struct{}), done: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.closeDB())
		}
	}()
	if err := v.loadPublic(ctx, pin); err != nil {
		return nil, err
	}
	if v.write, err = prepareWrites(ctx, db); err != nil {
		return nil, err
	}
	if v.readers, err = openReaders(ctx, path); err != nil {
		return nil, err
	}
	go v.runWriter()
	return v, nil
}

// StoreID names the store for ever; it's public.
func (v *Vault) StoreID() [16]byte { return v.storeID }

// Sealed says whether the root key is absent.
func (v *Vault) Sealed() bool { return v.open.Load() == nil }

// Info is a consistent picture as of the last commit.
func (v *Vault) Info() Info {
	i := Info{StoreID: v.storeID, Sealed: true}
	if u := v.open.Load(); u != nil {
		i = *u.info.Load()
	}
	i.Unwritable, i.Anchor = v.poisoned.Load() != nil, v.anchor.Kind()
	return i
}

// Slots lists the keyslots by id.
func (v *Vault) Slots() []SlotInfo {
	var infos []SlotInfo
	for _, g := range *v.groups.Load() {
		for _, s := range g.slots {
			infos = append(infos, s.info)
		}
	}
	slices.SortFunc(infos, func(a, b SlotInfo) int { return int(int64(a.ID) - int64(b.ID)) })
	return infos
}

// Unseal asks the devices for the root key and checks the head and the set of
// records with it, then the epoch with the anchor. sealers are all devices by
// provider id, also one that is needed for its counter only; they are kept until
// Seal. The first keyslot
// group whose members are all there and which opens is taken. Errors:
// [ErrNoKeyslot], [ErrNoAnchor], what the devices answer (package seal),
// [ErrTampered], [ErrPinMismatch], [ErrRollback], [ErrCounterReplaced]. An
// unsealed vault stays as it is. A store of an older schema is upgraded.
func (v *Vault) Unseal(ctx context.Context, sealers map[string]seal.Sealer) error {
	return v.submit(ctx, &job{internal: func() error {
		if !v.Sealed() {
			return nil
		}
		u, err := v.unseal(ctx, sealers)
		if err != nil {
			return err
		}
		v.open.Store(u)
		return nil
	}})
}

func (u *unsealed) publish() {
	u.info.Store(&Info{
		StoreID: u.head.storeID, Generation: u.head.generation, Rotating: u.head.previous != 0, Epoch: u.head.epoch,
		Seq: u.head.seq, Records: u.head.records, JournalSeq: u.head.journal.Seq,
	})
}

// Seal waits for the running batch of updates and wipes the keys. Whatever is
// lent at that moment is wiped by its own lender. Idempotent.
func (v *Vault) Seal() {
	// The writer goroutine does it between two batches; after Close there is
	// nothing left to do.
	_ = v.submit(context.Background(), &job{internal: func() error { v.wipe(); return nil }})
}

// wipe runs on the writer goroutine, or after it ended.
func (v *Vault) wipe() {
	if u := v.open.Swap(nil); u != nil {
		u.keys.destroy()
	}
}

// Close seals, closes the database and releases the lock. Idempotent.
func (v *Vault) Close() error {
	var err error
	v.closed.Do(func() {
		close(v.stop)
		<-v.done
		v.wipe()
		err = v.closeDB()
		if v.lock != nil {
			err = errors.Join(err, v.lock.Close())
		}
	})
	return err
}

func (v *Vault) closeDB() error {
	var errs []error
	if v.readers != nil {
		errs = append(errs, v.readers.close())
	}
	if v.write != nil {
		errs = append(errs, v.write.close())
	}
	if err := errors.Join(append(errs, v.db.Close())...); err != nil {
		return fmt.Errorf("closing the vault: %w", err)
	}
	return nil
}
