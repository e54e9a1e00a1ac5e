package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sigild/sigild/internal/testdisk"
)

// Power cuts: everything that is written to the store's folder is recorded beneath
// the file system (testdisk), and what a disk may hold after a cut is put together
// from it: of each file all that came before its last fsync, and of the rest any
// 512-byte sectors, in any order; of the folder what came before its last fsync, and of
// the rest as much, in order, as one likes. It is harsher than a file system that keeps
// some order between files.

// recorder keeps what happened, in order.
type recorder struct {
	mu  sync.Mutex // guards all below
	on  bool
	ops []testdisk.Op
}

func (r *recorder) add(op testdisk.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on {
		r.ops = append(r.ops, op)
	}
}

// now is how much has happened; what was acknowledged before it is told of here.
func (r *recorder) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ops)
}

func (r *recorder) switchOn(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = on
}

const sector = 512

// disk is a folder: names, and what they name.
type disk struct {
	names map[string]int
	files [][]byte // by number
}

func (d *disk) read() map[string][]byte {
	out := map[string][]byte{}
	for name, n := range d.names {
		out[name] = d.files[n]
	}
	return out
}

// tell does what a folder was told.
func (d *disk) tell(op testdisk.Op, number int) {
	switch {
	case op.Made:
		d.names[op.File] = number
	case op.Renamed != "":
		d.names[op.Renamed] = d.names[op.File]
		delete(d.names, op.File)
	case op.Removed:
		delete(d.names, op.File)
	}
}

func ofFolder(op testdisk.Op) bool { return op.Made || op.Renamed != "" || op.Removed }

// afterCut is what the folder holds when the power goes at operation at.
func (r *recorder) afterCut(at int, rng *rand.Rand) map[string][]byte {
	// Which file each operation was on, by the names of that moment.
	live, of, files := &disk{names: map[string]int{}}, make([]int, at), 0
	lastSync, folderSync := map[int]int{}, -1
	for i, op := range r.ops[:at] {
		if op.File == "" {
			folderSync = i
			continue
		}
		if op.Made {
			files++
		}
		number, there := live.names[op.File]
		if op.Made {
			number, there = files-1, true
		}
		if of[i] = number; !there {
			of[i] = -1 // a handle on what was removed
		}
		live.tell(op, number)
		if op.Sync {
			lastSync[of[i]] = i
		}
	}
	out := &disk{names: map[string]int{}, files: make([][]byte, files)}
	told := false // something of the folder was lost: nothing after it is kept
	for i, op := range r.ops[:at] {
		n := of[i]
		synced, ever := lastSync[n]
		safe := ever && i < synced
		switch {
		case op.File == "" || op.Sync || n < 0:
		case ofFolder(op):
			if told = told || i > folderSync && rng.IntN(3) == 0; !told {
				out.tell(op, n)
			}
		case op.Data == nil:
			if safe || rng.IntN(2) == 0 {
				out.files[n] = resized(out.files[n], op.Off)
			}
		case safe:
			out.files[n] = written(out.files[n], op.Off, op.Data)
		default:
			for from := int64(0); from < int64(len(op.Data)); {
				to := min((op.Off+from)/sector*sector+sector-op.Off, int64(len(op.Data)))
				if rng.IntN(2) == 0 {
					out.files[n] = written(out.files[n], op.Off+from, op.Data[from:to])
				}
				from = to
			}
		}
	}
	return out.read()
}

func resized(b []byte, size int64) []byte {
	if int64(len(b)) >= size {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func written(b []byte, off int64, data []byte) []byte {
	b = resized(b, max(int64(len(b)), off+int64(len(data))))
	copy(b[off:], data)
	return b
}

// promise is what was acknowledged at a moment.
type promise struct {
	at      int // operations before it
	made    bool
	wallets map[string]uint64
	rows    uint64 // of the journal: signatures
	revoked []string
	root    uint32
	backups []string
}

func TestCampaignPowerCuts(t *testing.T) {
	pin, promises, r := recordRun(t)
	const seed = 8
	rng := rand.New(rand.NewPCG(seed, 0))
	cuts := times(t, 120, 2400)
	cut := func(at int) error {
		d := stateDir(t)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(d) }()
		for name, b := range r.afterCut(at, rng) {
			if err := os.WriteFile(filepath.Join(d, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		i := len(promises) - 1
		for i > 0 && promises[i].at > at {
			i--
		}
		return promises[i].holds(d, pin)
	}
	first := promises[1].at // what init takes: cut densely
	for n := range cuts {
		at := rng.IntN(len(r.ops) + 1)
		if n%6 == 0 {
			at = rng.IntN(first + 1)
		}
		if err := cut(at); err != nil {
			t.Fatalf("seed %d, cut %d at operation %d of %d: %v", seed, n, at, len(r.ops), err)
		}
	}
	t.Logf("%d power cuts in %d operations and %d acknowledged changes: nothing lost, all readable", cuts, len(r.ops), len(promises)-1)

	// The same disk with its fsyncs forgotten: a simulator that finds nothing there is blind.
	for i := range r.ops {
		if r.ops[i].Sync {
			r.ops[i] = testdisk.Op{File: FileName + "-shm", Off: 0, Data: []byte{}}
		}
	}
	found := 0
	for range 20 {
		if cut(len(r.ops)/2+rng.IntN(len(r.ops)/2)) != nil {
			found++
		}
	}
	if found < 10 {
		t.Errorf("without fsyncs only %d of 20 cuts lost something", found)
	}
}

// holds looks whether a store has what was acknowledged.
func (p *promise) holds(dir string, pin Pin) error {
	v, err := openUnsealed(dir, pin)
	if !p.made && (errors.Is(err, ErrMissing) || errors.Is(err, ErrPinMismatch)) {
		return initAgain(dir) // init was not acknowledged, and can be repeated
	}
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	defer func() { _ = v.Close() }()
	for id, want := range p.wallets {
		got, err := get(v, TypeWallet, id)
		if err != nil {
			return fmt.Errorf("reading %s: %w", id, err)
		}
		if n, _ := strconv.ParseUint(strings.TrimLeft(got, "x"), 10, 64); n < want {
			return fmt.Errorf("%s is %d, acknowledged was %d", id, n, want)
		}
	}
	if n := v.Info().JournalSeq; n < p.rows {
		return fmt.Errorf("the journal ends with row %d, acknowledged was %d", n, p.rows)
	}
	for _, id := range p.revoked {
		if _, err := get(v, TypeAPIKey, id); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("the revocation of %s was acknowledged: %v", id, err)
		}
	}
	if g := v.Info().Generation; g < p.root {
		return fmt.Errorf("root key %d, acknowledged was %d", g, p.root)
	}
	if _, err := v.Rewrap(context.Background()); err != nil {
		return err
	}
	return p.backedUp(dir, pin)
}

// backedUp looks whether acknowledged backups are whole, and others refused or whole.
func (p *promise) backedUp(dir string, pin Pin) error {
	files, err := filepath.Glob(filepath.Join(dir, "backup-*.db"))
	if err != nil {
		return err
	}
	whole := map[string]bool{}
	for _, f := range files {
		_, err := VerifyFile(context.Background(), f, pin)
		if whole[filepath.Base(f)] = err == nil; err != nil && !errors.Is(err, ErrTampered) && !errors.Is(err, ErrSchema) {
			return fmt.Errorf("a backup that was cut off: %w", err)
		}
	}
	for _, name := range p.backups {
		if !whole[name] {
			return fmt.Errorf("backup %s was acknowledged and is not whole", name)
		}
	}
	return nil
}

// initAgain makes a store where one was not finished.
func initAgain(dir string) error {
	if err := os.Rename(filepath.Join(dir, FileName), filepath.Join(dir, "half")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	v, _, err := Create(context.Background(), Config{Dir: dir}, softHolder())
	if err != nil {
		return fmt.Errorf("init once more: %w", err)
	}
	return v.Close()
}

// recordRun makes a store on a recorded disk, and writes, signs, revokes, changes
// keyslots, rotates and backs up.
func recordRun(t *testing.T) (pin Pin, promises []promise, r *recorder) {
	t.Helper()
	mnt, _, f := testdisk.Mount(t)
	r = &recorder{}
	f.Record(r.add)
	dir := filepath.Join(mnt, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.switchOn(true)
	p := promise{wallets: map[string]uint64{}}
	promises = append(promises, promise{})
	acked := func() {
		p.at = r.now()
		next := p
		next.wallets, next.revoked, next.backups = maps.Clone(p.wallets), slices.Clone(p.revoked), slices.Clone(p.backups)
		promises = append(promises, next)
	}
	v, pin, err := Create(context.Background(), Config{Dir: dir}, softHolder())
	if err != nil {
		t.Fatal(err)
	}
	p.made, p.root = true, 1
	acked()
	for i := range 10 {
		put(t, v, TypeAPIKey, fmt.Sprint("k", i), "verifier")
	}
	for n := range uint64(60) {
		id := fmt.Sprint("p", n%7)
		put(t, v, TypeWallet, id, strings.Repeat("x", int(n%5)*3000)+strconv.FormatUint(n, 10))
		p.wallets[id] = n
		acked()
		sign(t, v)
		p.rows++
		acked()
		switch n % 12 {
		case 3:
			k := fmt.Sprint("k", n/12)
			if err := revoke(v, k); err != nil {
				t.Fatal(err)
			}
			p.revoked = append(p.revoked, k)
			acked()
		case 7:
			addGroup(t, v, KeyHolder{Sealer: softSealers[softID], ID: softID, Ref: "0102"})
		case 9:
			name := fmt.Sprintf("backup-%d.db", n)
			if _, err := BackUp(context.Background(), filepath.Join(dir, FileName), filepath.Join(dir, name), pin); err != nil {
				t.Fatal(err)
			}
			p.backups = append(p.backups, name)
			acked()
		case 11:
			rotate(t, v)
			p.root++
			acked()
		}
	}
	r.switchOn(false)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return pin, promises, r
}

// sign appends a row, as the approval of a signature does.
func sign(t *testing.T, v *Vault) {
	t.Helper()
	err := v.Update(context.Background(), func(tx *Tx) error {
		head, err := tx.JournalHead()
		if err != nil {
			return err
		}
		return tx.AppendJournal(JournalRow{Seq: head.Seq + 1, Body: []byte(strings.Repeat("approved ", 90)), Hash: [32]byte{byte(head.Seq)}})
	})
	if err != nil {
		t.Fatal(err)
	}
}
