package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Endpoint says where a socket is. Either systemd made it (Listener) or we do (Path).
type Endpoint struct {
	// Listener is an inherited socket; it wins over Path. Its file belongs to whoever made it.
	Listener *net.UnixListener
	// Path is where the socket is made: absolute, at most 107 bytes (sun_path, unix(7)).
	Path string
	// Mode of the socket file; 0 means 0660. The mode lets in, the access table decides.
	Mode fs.FileMode
	// Group that owns the socket file, a name or a number; empty leaves our own.
	Group string
}

// ErrAnswered: another process answers on the socket's path.
var ErrAnswered = errors.New("another process answers on this socket")

const maxSunPath = 107 // 108 with the final zero

// Listen opens the endpoint for a server that is not of this package; remove takes away
// what it made.
func (e Endpoint) Listen() (l *net.UnixListener, remove func(), err error) { return e.listen() }

// listen opens the endpoint and returns a function that removes what it made.
func (e Endpoint) listen() (*net.UnixListener, func(), error) {
	if e.Listener != nil {
		e.Listener.SetUnlinkOnClose(false)
		return e.Listener, func() {}, nil
	}
	if !filepath.IsAbs(e.Path) {
		return nil, nil, fmt.Errorf("opening socket: path %q is not absolute", e.Path)
	}
	if len(e.Path) > maxSunPath {
		return nil, nil, fmt.Errorf("opening socket: path has %d bytes, the kernel takes at most %d: %s", len(e.Path), maxSunPath, e.Path)
	}
	mode := e.Mode
	if mode == 0 {
		mode = 0o660
	}
	gid := -1
	if e.Group != "" {
		var err error
		if gid, err = lookupGroup(e.Group); err != nil {
			return nil, nil, fmt.Errorf("opening socket %s: %w", e.Path, err)
		}
	}
	if err := removeStale(e.Path); err != nil {
		return nil, nil, fmt.Errorf("opening socket: %w", err)
	}
	// Linux gives the socket file the mode of the descriptor, so a mode of 0 before
	// bind(2) leaves no moment in which the wrong caller could connect. (A umask
	// would be the portable way, but it is the whole process's.)
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), 0) })
		return errors.Join(err, chmodErr)
	}}
	l, err := lc.Listen(context.Background(), "unix", e.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening socket: %w", err)
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // by then the path may be another daemon's
	// The open file keeps the inode's number from being given to another daemon's socket.
	made, err := os.OpenFile(e.Path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err == nil && gid >= 0 {
		err = os.Lchown(e.Path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(e.Path, mode.Perm())
	}
	if err != nil {
		ul.Close()
		made.Close()
		_ = os.Remove(e.Path)
		return nil, nil, fmt.Errorf("opening socket: %w", err)
	}
	return ul, func() { removeIfSame(e.Path, made) }, nil
}

// removeIfSame removes path if it is still the file that made holds open.
func removeIfSame(path string, made *os.File) {
	defer made.Close()
	now, err := os.Lstat(path)
	if err != nil {
		return
	}
	if ours, err := made.Stat(); err == nil && os.SameFile(ours, now) {
		_ = os.Remove(path)
	}
}

// removeStale removes a socket that a killed daemon left. The store's lock, taken
// before, keeps two daemons from doing this to each other.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; hint: move it away", path)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("%s is a socket of uid %d, not of ours (%d); hint: remove it if nothing uses it", path, owner, os.Geteuid())
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w; hint: is sigild running already?", path, ErrAnswered)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s exists and can't be told stale: %w", path, err)
	}
	return os.Remove(path)
}

func lookupGroup(name string) (int, error) {
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("looking up group %q: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// limitListener knows every connection's caller before gRPC reads a byte, and
// closes at once what is above the limits. Each socket counts for itself, so
// that applications can't keep operators out.
//
// It also lets a server stop without dropping a caller. A stopping gRPC server
// closes what Accept just gave it, before the first byte. So drain takes nobody
// more, and waits for those taken to be greeted; who connects meanwhile waits in
// the kernel's backlog, which outlives us where the socket is systemd's.
type limitListener struct {
	*net.UnixListener
	limits Limits
	log    *slog.Logger
	name   string

	units *units

	// mu guards total, perUID, ungreeted and left.
	mu     sync.Mutex
	total  int
	perUID map[uint32]int
	// ungreeted counts connections taken, neither written to nor closed yet.
	ungreeted int
	// left: nobody is in Accept, and nobody will be.
	left bool

	// draining is set before the past deadline that wakes Accept.
	draining atomic.Bool
	// drained is closed once left and ungreeted is 0.
	drained chan struct{}
	// closed is closed with the socket.
	closed     chan struct{}
	markClosed func()

	testOnlyTaken func()
}

// newLimitListener takes a cfg whose limits and log are set.
func newLimitListener(l *net.UnixListener, name string, cfg Config) *limitListener {
	ll := &limitListener{UnixListener: l, limits: cfg.Limits, log: cfg.Log, name: name, perUID: map[uint32]int{},
		drained: make(chan struct{}), closed: make(chan struct{}), testOnlyTaken: cfg.testOnlyTaken, units: cfg.units}
	ll.markClosed = sync.OnceFunc(func() { close(ll.closed) })
	return ll
}

// Accept returns the next connection within the limits. While drain is on it
// returns nothing, then the error of a closed socket.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if l.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			l.leaveAccept()
			<-l.closed
			return nil, net.ErrClosed
		}
		if err != nil {
			return nil, err
		}
		caller, err := readCaller(conn)
		if err != nil {
			l.log.Warn("connection closed", "socket", l.name, "err", err)
			conn.Close()
			continue
		}
		caller.units = l.units
		if full := l.admit(caller.UID); full != "" {
			l.log.Warn("connection closed", "socket", l.name, "uid", caller.UID, "pid", caller.PID, "err", full)
			conn.Close()
			continue
		}
		if l.testOnlyTaken != nil {
			l.testOnlyTaken()
		}
		return &callerConn{UnixConn: conn, caller: caller, greeted: sync.OnceFunc(l.greeted),
			release: sync.OnceFunc(func() { l.leave(caller.UID) })}, nil
	}
}

// drain takes no more connections and returns once all that were taken have been
// greeted or closed, or when ctx ends. The socket stays open.
func (l *limitListener) drain(ctx context.Context) {
	l.draining.Store(true)
	if err := l.SetDeadline(time.Unix(1, 0)); err != nil {
		return // closed: nobody is taken any more
	}
	select {
	case <-l.drained:
	case <-ctx.Done():
		l.log.Warn("stopping with connections that were not greeted", "socket", l.name)
	}
}

// leaveAccept says that nobody is in Accept any more. Called once or more often.
func (l *limitListener) leaveAccept() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.left && l.ungreeted == 0 {
		close(l.drained)
	}
	l.left = true
}

// greeted counts a connection out that was written to or closed.
func (l *limitListener) greeted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ungreeted--; l.left && l.ungreeted == 0 {
		close(l.drained)
	}
}

// Close closes the socket, once or more often.
func (l *limitListener) Close() error {
	defer l.markClosed()
	return l.UnixListener.Close()
}

func (l *limitListener) admit(uid uint32) (full string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.total >= l.limits.Connections:
		return "too many connections on this socket"
	case l.perUID[uid] >= l.limits.ConnectionsPerUID:
		return "too many connections of this uid"
	}
	l.total++
	l.perUID[uid]++
	l.ungreeted++
	return ""
}

func (l *limitListener) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.perUID[uid]--; l.perUID[uid] == 0 {
		delete(l.perUID, uid)
	}
}

// callerConn is a connection whose caller is known; closing it gives its place back.
type callerConn struct {
	*net.UnixConn
	caller  Caller
	greeted func()
	release func()
}

// Write writes to the caller. The first write is the server's SETTINGS: from then
// on a stopping server says GOAWAY instead of hanging up (RFC 9113 §3.4, §6.8).
func (c *callerConn) Write(p []byte) (int, error) {
	n, err := c.UnixConn.Write(p)
	c.greeted()
	return n, err
}

// Close closes the connection, once or more often.
func (c *callerConn) Close() error {
	defer c.release()
	defer c.greeted()
	return c.UnixConn.Close()
}
