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

// Power cuts: everything that is written to the store's files is recorded beneath
// the file system (internal/testdisk), and what a disk may hold after a cut is put
// together from it: all that came before a file's last fsync, and of the rest any
// 512-byte sectors, in any order. It is harsher than a file system that keeps some
// order, and knows nothing of directories: files are made before the recording.

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

// afterCut is what the files hold when the power goes at operation at.
func (r *recorder) afterCut(base map[string][]byte, at int, rng *rand.Rand) map[string][]byte {
	files := maps.Clone(base)
	lastSync := map[string]int{}
	for i, op := range r.ops[:at] {
		if op.Sync {
			lastSync[op.File] = i
		}
	}
	for name := range files {
		files[name] = slices.Clone(files[name])
	}
	for i, op := range r.ops[:at] {
		synced, ever := lastSync[op.File]
		safe := ever && i < synced
		switch {
		case op.Sync:
		case op.Data == nil:
			if safe || rng.IntN(2) == 0 {
				files[op.File] = resized(files[op.File], op.Off)
			}
		case safe:
			files[op.File] = written(files[op.File], op.Off, op.Data)
		default:
			for from := int64(0); from < int64(len(op.Data)); {
				to := min((op.Off+from)/sector*sector+sector-op.Off, int64(len(op.Data)))
				if rng.IntN(2) == 0 {
					files[op.File] = written(files[op.File], op.Off+from, op.Data[from:to])
				}
				from = to
			}
		}
	}
	return files
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
	wallets map[string]uint64
	revoked []string
	root    uint32
}

func TestCampaignPowerCuts(t *testing.T) {
	dir, pin := closedStore(t)
	v, err := openUnsealed(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(t, v, TypeAPIKey, fmt.Sprint("k", i), "verifier")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	base, promises, r := recordRun(t, dir, pin)
	const seed = 8
	rng := rand.New(rand.NewPCG(seed, 0))
	cuts := times(t, 150, 2000)
	cut := func(at int) error {
		d := stateDir(t)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(d) }()
		for name, b := range r.afterCut(base, at, rng) {
			if err := os.WriteFile(filepath.Join(d, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		i := len(promises) - 1
		for i > 0 && promises[i].at > at {
			i--
		}
		return keeps(d, pin, promises[i])
	}
	for n := range cuts {
		at := rng.IntN(len(r.ops) + 1)
		if err := cut(at); err != nil {
			t.Fatalf("seed %d, cut %d at operation %d of %d: %v", seed, n, at, len(r.ops), err)
		}
	}
	t.Logf("%d power cuts in %d operations and %d acknowledged changes: nothing lost, all readable", cuts, len(r.ops), len(promises)-1)

	// The same disk with its fsyncs forgotten: a simulator that finds nothing there is blind.
	for i := range r.ops {
		if r.ops[i].Sync {
			r.ops[i] = testdisk.Op{File: r.ops[i].File, Off: 0, Data: []byte{}}
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

// keeps holds a store against what was acknowledged.
func keeps(dir string, pin Pin, p promise) error {
	v, err := openUnsealed(dir, pin)
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
	for _, id := range p.revoked {
		if _, err := get(v, TypeAPIKey, id); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("the revocation of %s was acknowledged: %v", id, err)
		}
	}
	if g := v.Info().Generation; g < p.root {
		return fmt.Errorf("root key %d, acknowledged was %d", g, p.root)
	}
	_, err = v.Rewrap(context.Background())
	return err
}

// recordRun writes, revokes, changes keyslots and rotates on a recorded disk.
func recordRun(t *testing.T, dir string, pin Pin) (base map[string][]byte, promises []promise, r *recorder) {
	t.Helper()
	mnt, _, f := testdisk.Mount(t)
	r = &recorder{}
	f.Record = r.add
	to := filepath.Join(mnt, "state")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(filepath.Join(dir, FileName), filepath.Join(to, FileName)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(to, FileName))
	if err != nil {
		t.Fatal(err)
	}
	base = map[string][]byte{FileName: b, FileName + "-wal": nil}
	r.switchOn(true)
	v, err := openUnsealed(to, pin)
	if err != nil {
		t.Fatal(err)
	}
	p := promise{wallets: map[string]uint64{}, root: 1}
	promises = append(promises, promise{root: 1})
	acked := func() {
		p.at = r.now()
		next := p
		next.wallets, next.revoked = maps.Clone(p.wallets), slices.Clone(p.revoked)
		promises = append(promises, next)
	}
	for n := range uint64(60) {
		id := fmt.Sprint("p", n%7)
		put(t, v, TypeWallet, id, strings.Repeat("x", int(n%5)*3000)+strconv.FormatUint(n, 10))
		p.wallets[id] = n
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
	return base, promises, r
}
