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
type limitListener struct {
	*net.UnixListener
	limits Limits
	log    *slog.Logger
	name   string

	// mu guards total and perUID.
	mu     sync.Mutex
	total  int
	perUID map[uint32]int
}

func newLimitListener(l *net.UnixListener, name string, limits Limits, log *slog.Logger) *limitListener {
	return &limitListener{UnixListener: l, limits: limits, log: log, name: name, perUID: map[uint32]int{}}
}

// Accept returns the next connection within the limits.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		caller, err := readCaller(conn)
		if err != nil {
			l.log.Warn("connection closed", "socket", l.name, "err", err)
			conn.Close()
			continue
		}
		if full := l.admit(caller.UID); full != "" {
			l.log.Warn("connection closed", "socket", l.name, "uid", caller.UID, "pid", caller.PID, "err", full)
			conn.Close()
			continue
		}
		return &callerConn{UnixConn: conn, caller: caller, release: sync.OnceFunc(func() { l.leave(caller.UID) })}, nil
	}
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
	release func()
}

// Close closes the connection, once or more often.
func (c *callerConn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}
