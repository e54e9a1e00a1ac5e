// Package testdisk is a file system that fails on demand, for tests: a loopback over
// FUSE, because SQLite in pure Go has no other place where a disk could be made to
// lie. It counts what changes a file (write, truncate, fsync) and lets one of these
// fail, or tells somebody just before. Tests run as root and need /dev/fuse.
package testdisk

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Fault is how an operation fails.
type Fault string

// The faults. EIO and Dead hit any operation, Fsync only those, the others no fsync.
const (
	EIO        Fault = "EIO"
	ENOSPC     Fault = "ENOSPC"
	ShortWrite Fault = "short write"
	Fsync      Fault = "failed fsync"
	Dead       Fault = "EIO from then on"
	// Tell does nothing but call what was armed, before the operation is done. Any
	// operation counts.
	Tell Fault = "told"
)

// Op is what reached the disk, of a file, which is named without its folder: a write, a
// truncation (Data nil, to size Off), an fsync, or what a folder was told: that the file
// is made, renamed or removed, or with no file the folder's own fsync.
type Op struct {
	File    string
	Off     int64
	Data    []byte
	Sync    bool
	Made    bool
	Renamed string // its new name
	Removed bool
}

// Disk is one mount. Its zero value fails nothing.
type Disk struct {
	mu    sync.Mutex // guards all below
	hear  func(Op)
	kind  Fault
	at    int // the number of the operation that fails, from 1; 0: none
	seen  int
	fired bool
	tell  func()
}

// Arm lets operation at fail from now on, 0 none. tell (nil: nobody) is called once,
// before that operation, which waits for it.
func (d *Disk) Arm(kind Fault, at int, tell func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kind, d.at, d.seen, d.fired, d.tell = kind, at, 0, false, tell
}

// Fired says whether what was armed has happened.
func (d *Disk) Fired() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fired
}

// next counts an operation of n bytes and says how many of them are written, and
// what the answer is.
func (d *Disk) next(fsync bool, n int) (int, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	any := d.kind == Dead || d.kind == EIO || d.kind == Tell
	if d.at == 0 || fsync != (d.kind == Fsync) && !any {
		return n, 0
	}
	if d.seen++; d.seen != d.at && (d.kind != Dead || d.seen < d.at) {
		return n, 0
	}
	if d.tell != nil && !d.fired {
		d.tell()
	}
	d.fired = true
	switch d.kind {
	case Tell:
		return n, 0
	case ENOSPC:
		return 0, syscall.ENOSPC
	case ShortWrite:
		return n / 2, 0
	}
	return 0, syscall.EIO
}

type node struct {
	*fs.LoopbackNode
	disk *Disk
}

// WrapChild makes every file below one of ours.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{ops.(*fs.LoopbackNode), n.disk}
}

// Open implements fs.NodeOpener.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, ff, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(h, n.Path(n.Root())), ff, errno
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, h, ff, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	n.told(errno, Op{File: name, Made: true})
	return child, n.wrap(h, name), ff, errno
}

// Rename implements fs.NodeRenamer.
func (n *node) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to := newParent
	if wrapped, ok := newParent.(*node); ok {
		to = wrapped.LoopbackNode
	}
	return n.told(n.LoopbackNode.Rename(ctx, name, to, newName, flags), Op{File: name, Renamed: newName})
}

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.told(n.LoopbackNode.Unlink(ctx, name), Op{File: name, Removed: true})
}

// folder is an open folder.
type folder struct {
	handle
	n *node
}

// handle is what go-fuse's loopback gives for an open folder.
type handle interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
	fs.FileFsyncdirer
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, ff, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if inner, ok := h.(handle); ok && errno == 0 {
		return &folder{inner, n}, ff, errno
	}
	return h, ff, errno
}

// Fsyncdir implements fs.FileFsyncdirer.
func (f *folder) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return f.n.told(f.handle.Fsyncdir(ctx, flags), Op{Sync: true})
}

// Record has hear told of each operation that succeeds from now on.
func (d *Disk) Record(hear func(Op)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hear = hear
}

func (d *Disk) recorder() func(Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hear
}

// told tells the recorder what a folder was told.
func (n *node) told(errno syscall.Errno, op Op) syscall.Errno {
	if hear := n.disk.recorder(); hear != nil && errno == 0 {
		hear(op)
	}
	return errno
}

// wrap leaves SQLite's shared index alone: it is mapped, not written, and no state.
func (n *node) wrap(h fs.FileHandle, name string) fs.FileHandle {
	f, ok := h.(*fs.LoopbackFile)
	if !ok || strings.HasSuffix(name, "-shm") {
		return h
	}
	return &file{f, n.disk, filepath.Base(name)}
}

type file struct {
	*fs.LoopbackFile
	disk *Disk
	name string
}

// done tells the recorder what reached the disk.
func (f *file) done(errno syscall.Errno, op Op) syscall.Errno {
	if hear := f.disk.recorder(); hear != nil && errno == 0 {
		op.File = f.name
		hear(op)
	}
	return errno
}

// PassthroughFd keeps the kernel from going around us.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

// Write implements fs.FileWriter.
func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	n, errno := f.disk.next(false, len(data))
	if errno != 0 {
		return 0, errno
	}
	wrote, errno := f.LoopbackFile.Write(ctx, data[:n], off)
	return wrote, f.done(errno, Op{Off: off, Data: bytes.Clone(data[:wrote])})
}

// Fsync implements fs.FileFsyncer.
func (f *file) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if _, errno := f.disk.next(true, 0); errno != 0 {
		return errno
	}
	return f.done(f.LoopbackFile.Fsync(ctx, flags), Op{Sync: true})
}

// Setattr implements fs.FileSetattrer; a truncation is an operation.
func (f *file) Setattr(ctx context.Context, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	size, truncates := in.GetSize()
	if !truncates {
		return f.LoopbackFile.Setattr(ctx, in, out)
	}
	if _, errno := f.disk.next(false, 0); errno != 0 {
		return errno
	}
	return f.done(f.LoopbackFile.Setattr(ctx, in, out), Op{Off: int64(size)})
}

// Mount mounts the file system for a test; backing is what it really holds.
func Mount(t testing.TB) (mnt, backing string, d *Disk) {
	t.Helper()
	mnt, backing, d = t.TempDir(), t.TempDir(), &Disk{}
	root := &fs.LoopbackRoot{Path: backing}
	root.RootNode = &node{&fs.LoopbackNode{RootData: root}, d}
	server, err := fs.Mount(mnt, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "testdisk"}})
	if err != nil {
		t.Fatalf("mounting over FUSE (tests run as root, and need /dev/fuse): %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return mnt, backing, d
}
