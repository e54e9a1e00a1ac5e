// Package journal is the appliance's one memory of what happened: an
// append-only chain of entries in the vault's database, each written in the
// transaction of the change it tells of. Requests, charges and replay keys are
// folds of that chain, kept in memory and rebuilt when it is opened. It is for
// signing and delegation, which append, and for auditors, who verify it without
// the daemon and without a secret.
//
// Every entry is hashed over the one before it and authenticated under a key of
// the vault; the last one is bound into the vault's head; a P-256 key in the
// sealing device signs the chain at short intervals.
//
// It refuses: to open a chain that is cut, changed or of another store; entries
// of an unknown kind or form; a request id used for another message; another
// digest under a replay key; a refund after an attempt of unknown outcome. When
// it can't be written, the update fails, and with it what the entry tells of.
package journal

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Config names what the journal needs beside the vault.
type Config struct {
	// Signer and CheckpointKey sign checkpoints; P-256, in the device.
	Signer        seal.Signer
	CheckpointKey seal.KeyRef
	// CheckpointEntries and CheckpointAfter bound what is unsigned: a checkpoint is
	// made when that many entries wait or the oldest waited that long. 0: 256 and 10 s.
	CheckpointEntries uint64
	CheckpointAfter   time.Duration
	// UnsignedEntries and UnsignedAfter bound what may be unsigned while the device
	// fails: past either, nothing is approved ([ErrUnsigned]). 0: 65,536 and 5 min.
	UnsignedEntries uint64
	UnsignedAfter   time.Duration
	// SnapshotEntries is after how many entries the folds are written into the vault;
	// a start reads what came since. 0: 8192.
	SnapshotEntries uint64
	// FullFold makes Open read the whole chain and check every snapshot; for looking
	// after a doubt. It fails on a journal that was pruned.
	FullFold bool
	// Archive says where segments go; the zero value keeps none.
	Archive Archive
	// Leasing says how far spending goes before the vault's anchor moves.
	Leasing Leasing
	// Keep says what may leave the store; the zero value: nothing.
	Keep Keep
	// Refusals are told in an entry every RefusalsEvery at most; nil: none are.
	// 0: one minute.
	Refusals      *Refusals
	RefusalsEvery time.Duration
	// Log gets what an operator wants to know at night; nil is silent.
	Log *slog.Logger
	// Now is the clock of entries; nil is time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.CheckpointEntries == 0 {
		c.CheckpointEntries = 256
	}
	if c.CheckpointAfter == 0 {
		c.CheckpointAfter = 10 * time.Second
	}
	if c.UnsignedEntries == 0 {
		c.UnsignedEntries = 65_536
	}
	if c.UnsignedAfter == 0 {
		c.UnsignedAfter = 5 * time.Minute
	}
	if c.RefusalsEvery == 0 {
		c.RefusalsEvery = time.Minute
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 8192
	}
	c.Archive, c.Leasing = c.Archive.withDefaults(), c.Leasing.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// ErrNoGenesis: the vault has no journal yet.
var ErrNoGenesis = errors.New("journal has no first entry")

// ErrHasGenesis: the vault has a journal already.
var ErrHasGenesis = errors.New("journal has a first entry already")

// Journal is the open journal of one vault. Its methods are safe for concurrent
// use, except that those which take a Tx belong to the closure that got it.
type Journal struct {
	v       *vault.Vault
	cfg     Config
	genesis Genesis
	// anchored: older copies of the vault are noticed, so leases are worth something.
	anchored bool
	// leaseSizes is how much a new lease has, for accounts that limits asked for since
	// the start; the vault's writer goroutine's.
	leaseSizes map[accountKey]allowance

	mu       sync.RWMutex  // guards all below
	proj     *projections  // includes what is about to be committed
	lastMS   int64         // likewise; written by the vault's writer goroutine only
	durable  uint64        // the last entry that is on disk
	stateLen uint64        // bytes of the newest snapshot's state
	snapped  uint64        // the entry up to which the newest snapshot reaches; 0: none
	settled  chan struct{} // closed and renewed when a commit or rollback settles something
	// unsigned and unarchived count what is on disk.
	unsigned   unsigned
	unarchived unarchived

	checkpointing sync.Mutex    // held while a checkpoint is made
	wake          chan struct{} // capacity 1; tells Run that something is unsigned
}

// Create writes the genesis, the first entry, into a fresh vault, and in the
// same transaction what also writes (nil: nothing). It fills in the store's id
// and the checkpoint key. Errors: [ErrHasGenesis], those of the device, those
// of [vault.Vault.Update].
func Create(ctx context.Context, v *vault.Vault, cfg Config, g Genesis, also func(*vault.Tx) error) (*Journal, error) {
	cfg = cfg.withDefaults()
	if h, err := v.JournalHead(); err != nil {
		return nil, fmt.Errorf("creating the journal: %w", err)
	} else if h.Seq != 0 {
		return nil, fmt.Errorf("creating the journal: %w", ErrHasGenesis)
	}
	pub, err := cfg.Signer.PublicP256(ctx, cfg.CheckpointKey)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint key: %w", err)
	}
	g.StoreID, g.CheckpointKey = v.StoreID(), pub
	e, err := g.entry()
	if err != nil {
		return nil, err
	}
	j := newJournal(v, cfg)
	v.Observe(observer{j})
	err = v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		if _, err := j.Append(tx, e); err != nil {
			return err
		}
		if also != nil {
			return also(tx)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("creating the journal: %w", err)
	}
	j.genesis = g
	return j, nil
}

func newJournal(v *vault.Vault, cfg Config) *Journal {
	j := &Journal{
		v: v, cfg: cfg, anchored: v.Info().Anchor != vault.AnchorNone, leaseSizes: make(map[accountKey]allowance),
		settled: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	j.proj = newProjections(j.reader(nil))
	return j
}

// Open verifies the chain of an unsealed vault from the newest snapshot on, with its
// MACs and checkpoints (with FullFold all of it), folds it, and appends an outcome_unknown for each approval that
// a crash left without an end, and a charge of leases that it left. Errors: [ErrNoGenesis], [*VerifyError] naming
// the entry, those of the device and of the vault.
func Open(ctx context.Context, v *vault.Vault, cfg Config) (*Journal, error) {
	return open(ctx, v, cfg, nil)
}

// open is Open; more, if any, runs behind the last row and may go on from there.
func open(ctx context.Context, v *vault.Vault, cfg Config, more func(*Journal, *walker) error) (*Journal, error) {
	cfg = cfg.withDefaults()
	head, err := v.JournalHead()
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	if head.Seq == 0 {
		return nil, fmt.Errorf("opening the journal: %w; hint: run sigilctl init", ErrNoGenesis)
	}
	pub, err := cfg.Signer.PublicP256(ctx, cfg.CheckpointKey)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint key: %w", err)
	}
	j := newJournal(v, cfg)
	w := &walker{storeID: v.StoreID(), pub: pub}
	err = v.Derive(macPurpose, func(key []byte) error {
		w.mac = hmac.New(sha256.New, key)
		if err := j.load(ctx, head, w); err != nil || more == nil {
			return err
		}
		return more(j, w)
	})
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	j.proj.read = j.reader(nil)
	j.genesis, j.durable = w.genesis, w.last.Seq
	v.Observe(observer{j})
	if err := j.settleCrash(ctx); err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	return j, nil
}

// settleCrash journals what a crash left open: approvals, and leases.
func (j *Journal) settleCrash(ctx context.Context) error {
	open := j.proj.flying()
	if len(open) == 0 && j.proj.approvals == nil {
		return nil
	}
	if len(open) > 0 {
		j.cfg.Log.WarnContext(ctx, "approved requests without an outcome; their charges stand", "count", len(open))
	}
	return j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		for _, seq := range open {
			if _, err := j.Append(tx, Entry{Kind: KindOutcomeUnknown, ApprovedSeq: seq}); err != nil {
				return err
			}
		}
		return j.chargeLeases(ctx, tx)
	})
}

// Append adds e to the chain as part of tx; it is durable when the update
// returns nil, and takes part in the update's failure. It assigns Seq and
// TimeMS and keeps e's slices and maps. An act takes along what the closure has
// changed of records so far. The projections change at once, for
// this update and those behind it in the batch. Errors say why the entry
// doesn't fit: [*RequestReusedError], [*ReplayError], [ErrRequestExists],
// [ErrNotApproved], [ErrNoRefund]; then nothing was appended.
func (j *Journal) Append(tx *vault.Tx, e Entry) (seq uint64, err error) {
	if e.Kind != KindAct {
		return j.append(tx, e, nil)
	}
	mine, rest := actChanges(tx)
	e.Destroyed = destroyedBy(mine, rest)
	if seq, err = j.append(tx, e, mine); err != nil || rest == nil {
		return seq, err
	}
	return seq, observer{j}.Changed(tx, rest)
}

// append is Append with what the update changed of records, to be sealed into the entry.
func (j *Journal) append(tx *vault.Tx, e Entry, changes []vault.Change) (seq uint64, err error) {
	head, err := tx.JournalHead()
	if err != nil {
		return 0, err
	}
	// Closures run one at a time, so lastMS can't move meanwhile.
	before := j.lastMS
	e.Seq, e.TimeMS = head.Seq+1, j.nowLocked()
	e.Records = nil
	if len(changes) > 0 {
		if e.Records, err = sealChanges(j.v, e.Seq, changes); err != nil {
			return 0, err
		}
	}
	if err := e.check(); err != nil {
		return 0, fmt.Errorf("appending to the journal: %w", err)
	}
	body, err := e.encode()
	if err != nil {
		return 0, err
	}
	row, err := makeRow(j.v, head, body)
	if err != nil {
		return 0, fmt.Errorf("appending to the journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Kind == KindApproved {
		if err := j.mayApproveLocked(); err != nil {
			return 0, fmt.Errorf("appending to the journal: %w", err)
		}
	}
	undo, err := j.proj.apply(&e)
	if err != nil {
		return 0, fmt.Errorf("appending to the journal: %w", err)
	}
	if err := tx.AppendJournal(row); err != nil {
		if undo != nil {
			undo()
		}
		return 0, fmt.Errorf("appending to the journal: %w", err)
	}
	j.lastMS = e.TimeMS
	tx.OnRollback(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if undo != nil {
			undo()
		}
		j.lastMS = before
		j.settleLocked()
	})
	tx.OnCommit(func() { j.committed(&e) })
	return e.Seq, nil
}

// committed runs on the writer goroutine when e is on disk.
func (j *Journal) committed(e *Entry) {
	j.mu.Lock()
	j.durable = e.Seq
	j.settleLocked()
	wake := j.noteLocked(e)
	j.mu.Unlock()
	if wake {
		j.wakeUp()
	}
}

// settleLocked wakes those who wait for a commit.
func (j *Journal) settleLocked() {
	close(j.settled)
	j.settled = make(chan struct{})
}

// nowLocked is the time an entry appended now has: the clock, but never before
// the last entry. It needs mu, or the writer goroutine.
func (j *Journal) nowLocked() int64 { return max(j.cfg.Now().UnixMilli(), j.lastMS) }

// Genesis is what the first entry told.
func (j *Journal) Genesis() Genesis { return j.genesis }

// Request looks a request id up, as it is on disk: if its last entry is being
// committed, that is awaited. Don't call it within an update; see [Journal.At].
// The error is of reading an old request's rows.
func (j *Journal) Request(organization, requestID string) (RequestState, bool, error) {
	for {
		j.mu.RLock()
		proj, durable, settled := j.proj, j.durable, j.settled
		s := proj.requests[requestKey{organization, requestID}]
		over := proj.over
		j.mu.RUnlock()
		if s == nil && over.find(requestKey{organization, requestID}.index()) == nil {
			return RequestState{}, false, nil
		}
		if s == nil {
			return View{j}.Request(organization, requestID)
		}
		if s.EntrySeq <= durable {
			return s.copy(), true, nil
		}
		<-settled
	}
}

// Spent sums the charges that count in the window that began at since (zero
// time: ever): those in flight, and those that ended after it. what is [AllCharges]
// or [ButFees]. It may include what is about to be committed.
func (j *Journal) Spent(s Scope, asset, what string, since time.Time) Spent {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.proj.spent(s, asset, what, since)
}

// ReplayKey gives the digest approved under key. It may include what is about
// to be committed.
func (j *Journal) ReplayKey(key string) (digest string, ok bool) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	digest = j.proj.holder(key).digest
	return digest, digest != ""
}

// View reads the projections within an update: with the entries that this
// update and those before it in the batch have appended.
type View struct{ j *Journal }

// At is the view of a running update. What it says holds until the closure
// returns, because closures run one at a time.
func (j *Journal) At(*vault.Tx) View { return View{j} }

// Request is [Journal.Request] within the update.
func (v View) Request(organization, requestID string) (RequestState, bool, error) {
	v.j.mu.RLock()
	defer v.j.mu.RUnlock()
	s, err := v.j.proj.lookup(requestKey{organization, requestID})
	if s == nil || err != nil {
		return RequestState{}, false, err
	}
	return s.copy(), true, nil
}

// Spent is [Journal.Spent] within the update.
func (v View) Spent(s Scope, asset, what string, since time.Time) Spent {
	return v.j.Spent(s, asset, what, since)
}

// ReplayKey is [Journal.ReplayKey] within the update.
func (v View) ReplayKey(key string) (digest string, ok bool) { return v.j.ReplayKey(key) }

// Now is the time that an entry appended now would bear: windows end here.
func (v View) Now() time.Time { return v.j.Now() }

// Now is the clock's time, or that of the last entry if it is later.
func (j *Journal) Now() time.Time {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return time.UnixMilli(j.nowLocked()).UTC()
}

// Entries reads committed entries from number from on, at most limit of them.
func (j *Journal) Entries(ctx context.Context, from uint64, limit int) ([]Entry, error) {
	if limit <= 0 {
		return nil, nil
	}
	var out []Entry
	err := j.v.JournalRows(ctx, from, limit, func(row vault.JournalRow) error {
		e, err := decodeEntry(row.Body)
		if err != nil {
			return &VerifyError{Seq: row.Seq, Reason: err.Error()}
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing entries: %w", err)
	}
	return out, nil
}
