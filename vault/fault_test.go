package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A file system that fails on demand: a loopback over FUSE, because SQLite in pure
// Go has no other place where a disk could be made to lie. It counts what changes a
// file (write, truncate, fsync) and lets one of these fail.

type faultKind string

const (
	faultEIO        faultKind = "EIO"
	faultENOSPC     faultKind = "ENOSPC"
	faultShortWrite faultKind = "short write"
	faultFsync      faultKind = "failed fsync"
	faultDead       faultKind = "EIO from then on"
)

// faults decides; one for a mount.
type faults struct {
	mu    sync.Mutex // guards all below
	kind  faultKind
	at    int // the number of the operation that fails, from 1; 0: none
	seen  int
	fired bool

	record *recorder // what happens is told to it; nil: nobody
}

// arm lets operation at fail from now on.
func (f *faults) arm(kind faultKind, at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.at, f.seen, f.fired = kind, at, 0, false
}

func (f *faults) has() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// next counts an operation of n bytes and says how many of them are written, and
// what the answer is.
func (f *faults) next(fsync bool, n int) (int, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == 0 || fsync != (f.kind == faultFsync) && f.kind != faultDead && f.kind != faultEIO {
		return n, 0
	}
	if f.seen++; f.seen != f.at && (f.kind != faultDead || f.seen < f.at) {
		return n, 0
	}
	f.fired = true
	switch f.kind {
	case faultENOSPC:
		return 0, syscall.ENOSPC
	case faultShortWrite:
		return n / 2, 0
	}
	return 0, syscall.EIO
}

type faultNode struct {
	*fs.LoopbackNode
	faults *faults
}

// WrapChild makes every file below one of ours.
func (n *faultNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &faultNode{ops.(*fs.LoopbackNode), n.faults}
}

func (n *faultNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, ff, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(h, n.Path(n.Root())), ff, errno
}

func (n *faultNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, h, ff, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return child, n.wrap(h, name), ff, errno
}

// wrap leaves SQLite's shared index alone: it is mapped, not written, and no state.
func (n *faultNode) wrap(h fs.FileHandle, name string) fs.FileHandle {
	f, ok := h.(*fs.LoopbackFile)
	if !ok || strings.HasSuffix(name, "-shm") {
		return h
	}
	return &faultFile{f, n.faults, filepath.Base(name)}
}

type faultFile struct {
	*fs.LoopbackFile
	faults *faults
	name   string
}

// done tells the recorder what reached the disk.
func (f *faultFile) done(errno syscall.Errno, op diskOp) syscall.Errno {
	if r := f.faults.record; r != nil && errno == 0 {
		op.file = f.name
		r.add(op)
	}
	return errno
}

func (f *faultFile) PassthroughFd() (int, bool) { return 0, false }

func (f *faultFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	n, errno := f.faults.next(false, len(data))
	if errno != 0 {
		return 0, errno
	}
	wrote, errno := f.LoopbackFile.Write(ctx, data[:n], off)
	return wrote, f.done(errno, diskOp{off: off, data: bytes.Clone(data[:wrote])})
}

func (f *faultFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if _, errno := f.faults.next(true, 0); errno != 0 {
		return errno
	}
	return f.done(f.LoopbackFile.Fsync(ctx, flags), diskOp{sync: true})
}

func (f *faultFile) Setattr(ctx context.Context, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	size, truncates := in.GetSize()
	if !truncates {
		return f.LoopbackFile.Setattr(ctx, in, out)
	}
	if _, errno := f.faults.next(false, 0); errno != 0 {
		return errno
	}
	return f.done(f.LoopbackFile.Setattr(ctx, in, out), diskOp{off: int64(size)})
}

// mountFaults mounts the file system; backing is what it really holds.
func mountFaults(t *testing.T) (mnt, backing string, f *faults) {
	t.Helper()
	mnt, backing, f = t.TempDir(), t.TempDir(), &faults{}
	root := &fs.LoopbackRoot{Path: backing}
	root.RootNode = &faultNode{&fs.LoopbackNode{RootData: root}, f}
	server, err := fs.Mount(mnt, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "faults"}})
	if err != nil {
		t.Fatalf("mounting over FUSE (tests run as root, and need /dev/fuse): %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return mnt, backing, f
}

// Every write, truncation and fsync of a run of updates fails once, in every way:
// what was acknowledged is there afterwards, and after a failed fsync nothing more is
// acknowledged.
func TestCampaignFaultsOfTheDisk(t *testing.T) {
	dir, pin := closedStore(t)
	mnt, backing, f := mountFaults(t)
	step := times(t, 7, 1)
	runs, refused := 0, 0
	for _, kind := range []faultKind{faultEIO, faultENOSPC, faultShortWrite, faultFsync, faultDead} {
		for at := 1; ; at += step {
			name := fmt.Sprintf("%d", runs)
			to := filepath.Join(mnt, name)
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := copyFile(filepath.Join(dir, FileName), filepath.Join(to, FileName)); err != nil {
				t.Fatal(err)
			}
			f.arm(kind, at)
			acked, failed := underFaults(t, to, pin, f, kind)
			fired := f.has()
			f.arm(kind, 0)
			if failed {
				refused++
			}
			// What the disk really holds, read without the file system between.
			v, err := openUnsealed(filepath.Join(backing, name), pin)
			if err != nil {
				t.Fatalf("%s at operation %d: opening again: %v", kind, at, err)
			}
			for id, want := range acked {
				if got, err := get(v, TypeWallet, id); err != nil || got != want {
					t.Errorf("%s at operation %d: acknowledged %s = %d bytes, %v", kind, at, id, len(got), err)
				}
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(backing, name)); err != nil {
				t.Fatal(err)
			}
			if runs++; !fired {
				break
			}
		}
	}
	t.Logf("%d runs, in %d of them an update was refused; every acknowledged one is there", runs, refused)
}

// underFaults opens the store and writes, and says what was acknowledged.
func underFaults(t *testing.T, dir string, pin Pin, f *faults, kind faultKind) (acked map[string]string, failed bool) {
	acked = map[string]string{}
	v, err := openUnsealed(dir, pin)
	if err != nil {
		return acked, true // the fault came while it was being opened
	}
	for i := range 8 {
		id, text := fmt.Sprint("new", i), strings.Repeat("x", 100+9000*(i%3))
		before := f.has()
		err := v.Update(context.Background(), func(tx *Tx) error {
			if err := benchRow(tx); err != nil {
				return err
			}
			return tx.Put(TypeWallet, id, []byte(text))
		})
		switch {
		case err == nil && failed && kind == faultFsync:
			t.Errorf("%s: update %d was acknowledged after one had failed", kind, i)
		case err == nil && !before && f.has() && kind == faultFsync:
			t.Errorf("%s: update %d was acknowledged though its fsync failed", kind, i)
		case err == nil:
			acked[id] = text
		default:
			failed = true
			if !errors.Is(err, ErrUnwritable) && !errors.Is(err, ErrStoreFull) && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrTampered) {
				t.Errorf("%s: update %d: %v", kind, i, err)
			}
			if kind == faultFsync && !errors.Is(err, ErrUnwritable) {
				t.Errorf("%s: update %d: %v, want ErrUnwritable", kind, i, err)
			}
		}
	}
	_ = v.Close() // its last checkpoint may meet the fault
	return acked, failed
}
