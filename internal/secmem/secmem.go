// Package secmem keeps secrets out of swap, core dumps and log lines. It is for
// every room that holds a key longer than one call: the vault's root key, the
// PIN in the HSM worker, a share during a ceremony.
//
// It refuses to hold a secret in memory that could be swapped out: when the
// kernel won't lock the page, [New] fails. It refuses to be printed or encoded:
// every formatting verb gives [redacted], every encoder an error. It is for
// Linux only, as the daemon is.
package secmem

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrDestroyed is what [Buf.Use] answers after [Buf.Destroy].
var ErrDestroyed = errors.New("secret memory already destroyed")

// Buf is a fixed number of secret bytes in pages of their own: locked into RAM,
// left out of core dumps, zero in a forked child. Make it with [New] or [From];
// the zero Buf holds nothing and answers [ErrDestroyed]. A copy of a Buf is the
// same secret. Its methods are safe for concurrent use.
//
// Each Buf takes whole pages (4 KiB or more) of RLIMIT_MEMLOCK: keep many small
// secrets in one Buf.
type Buf struct{ region *region }

// region is one mapping and who is using it. It knows the mapping by its bare
// address: fmt follows pointers and slices in unexported fields, where it can't
// call our methods (try %s of a struct that holds a *Buf), but not an
// unsafe.Pointer.
type region struct {
	mu     sync.Mutex
	idle   sync.Cond      // signalled when users falls to 0; its lock is mu
	users  int            // calls of Use that are running; guarded by mu
	dead   bool           // Destroy was called; guarded by mu
	pages  unsafe.Pointer // start of the mapping; nil once unmapped; guarded by mu
	length uintptr        // bytes mapped, whole pages; never changes
	size   int            // secret bytes at the start of the mapping; never changes
}

// New returns a Buf of n zero bytes, n ≥ 1. When RLIMIT_MEMLOCK does not allow
// the lock it fails, and the error says how to raise the limit.
func New(n int) (*Buf, error) {
	page := os.Getpagesize()
	if n < 1 || n > math.MaxInt32-page {
		return nil, fmt.Errorf("allocating secret memory: %d bytes asked, want 1 to %d", n, math.MaxInt32-page)
	}
	length := uintptr((n + page - 1) / page * page)
	pages, err := unix.MmapPtr(-1, 0, nil, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes of secret memory: %w", length, err)
	}
	r := &region{pages: pages, length: length, size: n}
	if err := protect(r.mapping()); err != nil {
		_ = unix.MunmapPtr(pages, length) // nothing secret in it yet
		return nil, err
	}
	r.idle.L = &r.mu
	return &Buf{region: r}, nil
}

// From returns a Buf with a copy of b and clears b, also when it fails.
func From(b []byte) (*Buf, error) {
	defer clear(b)
	buf, err := New(len(b))
	if err != nil {
		return nil, err
	}
	copy(buf.region.mapping(), b)
	return buf, nil
}

// mapping is the whole mapping as bytes. The caller knows that it's mapped.
func (r *region) mapping() []byte { return unsafe.Slice((*byte)(r.pages), r.length) }

// protect locks pages and keeps them out of dumps and forked children.
func protect(pages []byte) error {
	err := unix.Mlock(pages)
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("locking %d bytes of secret memory (%s): %w; hint: raise LimitMEMLOCK= in the systemd unit, or ulimit -l in a shell",
			len(pages), lockLimit(), err)
	}
	if err != nil {
		return fmt.Errorf("locking %d bytes of secret memory: %w", len(pages), err)
	}
	if err := unix.Madvise(pages, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("keeping secret memory out of core dumps: %w", err)
	}
	// Since Linux 4.14; an older kernel answers EINVAL and we lose only a second
	// line of defence: nothing here forks without exec.
	if err := unix.Madvise(pages, unix.MADV_WIPEONFORK); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("keeping secret memory out of forked children: %w", err)
	}
	return nil
}

// lockLimit says what RLIMIT_MEMLOCK is, for the error text.
func lockLimit() string {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return "RLIMIT_MEMLOCK unknown"
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return "RLIMIT_MEMLOCK is unlimited"
	}
	return fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes", limit.Cur)
}

// Use lends the secret to use, which must not keep it. Writes stay in the Buf.
// Several calls may run at once; they order their own writes. The error of use
// is returned as it is; after Destroy the answer is [ErrDestroyed] and use is
// not called.
func (b Buf) Use(use func(secret []byte) error) error {
	r := b.region
	if r == nil {
		return ErrDestroyed
	}
	r.mu.Lock()
	if r.dead {
		r.mu.Unlock()
		return ErrDestroyed
	}
	r.users++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.users--; r.users == 0 {
			r.idle.Broadcast()
		}
	}()
	return use(r.mapping()[:r.size:r.size])
}

// Len is the number of secret bytes, also after Destroy.
func (b Buf) Len() int {
	if b.region == nil {
		return 0
	}
	return b.region.size
}

// Destroy lets no new user in, waits for those inside, wipes the bytes and
// gives the pages back. Calling it again does nothing. Calling it inside Use on
// the same Buf waits for ever.
func (b Buf) Destroy() {
	r := b.region
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	for r.users > 0 {
		r.idle.Wait()
	}
	if r.pages == nil {
		return
	}
	clear(r.mapping())
	// Unmapping also unlocks. It can't fail on a mapping of our own; if it ever
	// does, the bytes are already zero.
	_ = unix.MunmapPtr(r.pages, r.length)
	r.pages = nil
}
