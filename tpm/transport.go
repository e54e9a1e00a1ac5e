package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/seal"
)

// conn is one open way to the TPM. After an error it is only good for Close:
// what comes late must never be taken for the answer to another command.
type conn interface {
	// roundTrip sends one command and reads one whole response.
	roundTrip(command []byte) ([]byte, error)
	SetDeadline(t time.Time) error
	Close() error
}

// socket is an emulator's command socket.
type socket struct{ net.Conn }

func (s socket) roundTrip(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	var in inbox
	for {
		m, err := s.Read(in.room())
		whole, bad := in.took(m)
		switch {
		case bad != nil:
			return nil, bad
		case whole:
			return in.frame(), nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

// device is /dev/tpmrm0, opened O_NONBLOCK and watched by Go's poller. The kernel
// (drivers/char/tpm/tpm-dev-common.c) then queues a written command, wakes the
// poller when the answer is there, and answers an early read with 0 bytes, which
// an os.File takes for the end. So the raw file it is. The command is written
// from inside the wait: the poller's state is reset when the wait begins, and an
// answer that came between write and wait would be missed.
type device struct {
	*os.File
	raw syscall.RawConn
}

func (d device) roundTrip(command []byte) ([]byte, error) {
	var in inbox
	var failed error
	sent := false
	err := d.raw.Read(func(fd uintptr) (done bool) {
		if !sent {
			sent = true
			n, err := unbroken(unix.Write, int(fd), command)
			if err == nil && n != len(command) {
				err = io.ErrShortWrite
			}
			failed = err
			return err != nil
		}
		for {
			n, err := unbroken(unix.Read, int(fd), in.room())
			if err == unix.EAGAIN || err == nil && n == 0 {
				return false // not there yet
			}
			if err != nil {
				failed = err
				return true
			}
			whole, bad := in.took(n)
			if whole || bad != nil {
				failed = bad
				return true
			}
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	return in.frame(), nil
}

// unbroken repeats call when a signal broke into it.
func unbroken(call func(fd int, b []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		n, err := call(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// linkError means that the TPM could not be asked, or its answer not be read. It
// is a [seal.ErrUnavailable].
type linkError struct {
	err error
	// lost: there was a connection, and the other end gave it up. A fresh one may
	// work at once.
	lost bool
}

func (e *linkError) Error() string   { return seal.ErrUnavailable.Error() + ": " + e.err.Error() }
func (e *linkError) Unwrap() []error { return []error{seal.ErrUnavailable, e.err} }

// link is the way to one TPM: it connects when needed, gives every command a
// deadline, and drops the connection after any error. Whoever holds the
// Provider's turn owns it.
type link struct {
	path     string
	emulator bool
	timeout  time.Duration
	log      *slog.Logger
	dial     func(ctx context.Context) (conn, error)

	conn conn // nil: not connected
	// gen counts connections. What was loaded in one is gone with it.
	gen uint64
	// closing is closed when a dropped device is closed; nil: none is being closed.
	closing chan struct{}
}

func newLink(c Config) *link {
	l := &link{path: c.Path, emulator: c.emulator(), timeout: c.CommandTimeout, log: c.Log}
	l.dial = l.open
	return l
}

// How long a TPM that says "later" is left alone before it is asked again.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// exchange sends one command and returns the response, whatever its code. It
// returns by timeout and by the end of ctx. A TPM that says "later"
// (Part 2 §6.6.3: RETRY, YIELDED, TESTING) did not begin, so the same bytes are
// sent again.
func (l *link) exchange(ctx context.Context, command []byte, timeout time.Duration) ([]byte, error) {
	silent := fmt.Errorf("%s gave no answer within %s%s", l.path, timeout, l.hint())
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, silent)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		response, err := l.once(ctx, command)
		if err != nil {
			return nil, err
		}
		switch code(response) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
		default:
			return response, nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return response, nil // its code says what is wrong
		}
	}
}

func (l *link) hint() string {
	if l.emulator {
		return "; hint: an emulator serves one client at a time"
	}
	return ""
}

func (l *link) once(ctx context.Context, command []byte) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, &linkError{err: context.Cause(ctx)}
	}
	if err := l.connect(ctx); err != nil {
		return nil, &linkError{err: err}
	}
	c := l.conn
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		l.drop()
		return nil, &linkError{err: err, lost: true}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
	response, err := c.roundTrip(command)
	if !stop() || err != nil { // once begun, AfterFunc might cut the next command short
		l.drop()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done() // the same deadline
		return nil, &linkError{err: context.Cause(ctx)}
	}
	if err != nil {
		return nil, &linkError{err: fmt.Errorf("losing %s: %w", l.path, err), lost: true}
	}
	return response, nil
}

// connect opens a connection when there is none.
func (l *link) connect(ctx context.Context) error {
	if l.conn != nil {
		return nil
	}
	if l.closing != nil {
		select {
		case <-l.closing:
			l.closing = nil
		case <-ctx.Done():
			return fmt.Errorf("opening %s: the kernel still waits for an earlier command: %w", l.path, context.Cause(ctx))
		}
	}
	c, err := l.dial(ctx)
	if err != nil {
		return err
	}
	l.conn = c
	l.gen++
	return nil
}

// open is the dial of a real link.
func (l *link) open(ctx context.Context) (conn, error) {
	if path, ok := strings.CutPrefix(l.path, emulatorPrefix); ok {
		c, err := dialSocket(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("connecting to the TPM emulator: %w", err)
		}
		return socket{c}, nil
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening the TPM: %w; hint: no TPM, or it is switched off in the firmware", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("opening the TPM: %w; hint: the group tss may use it; sigild's unit needs the drop-in for a TPM", err)
	case err != nil:
		return nil, fmt.Errorf("opening the TPM: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&os.ModeCharDevice == 0 {
		err = fmt.Errorf("it is no character device (mode %s)", info.Mode())
	}
	if err == nil {
		err = f.SetDeadline(time.Time{}) // fails when it can't be polled
	}
	var raw syscall.RawConn
	if err == nil {
		raw, err = f.SyscallConn()
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("opening the TPM %s: %w", l.path, err)
	}
	return device{f, raw}, nil
}

// dialSocket connects to an emulator. swtpm lets one client wait behind the one it
// serves, and Linux answers EAGAIN to the next.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if !errors.Is(err, unix.EAGAIN) {
			return c, err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, fmt.Errorf("%w; hint: an emulator serves one client at a time", err)
		}
	}
}

// drop gives up the connection, and with it all that was loaded: the kernel
// flushes it, and for an emulator the next connection does. Closing a device waits
// for the command it works on, however long that takes, so it is done aside; the
// next connect waits for it.
func (l *link) drop() {
	if l.conn == nil {
		return
	}
	c := l.conn
	l.conn = nil
	if l.emulator {
		_ = c.Close() // nothing is buffered
		return
	}
	closing := make(chan struct{})
	l.closing = closing
	go func() {
		_ = c.Close()
		close(closing)
	}()
}
