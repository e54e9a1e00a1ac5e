package tpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
)

// newDevice serves tpm on a character device: a pseudo terminal, raw, whose read
// gives 0 bytes while there is nothing, as the kernel's TPM device does.
func newDevice(t testing.TB, tpm *testtpm.TPM) *bus {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd()) // blocking from here on
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave := os.NewFile(peer, "pts")
	if err := unix.IoctlSetTermios(int(peer), unix.TCSETS, &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.B38400}); err != nil {
		t.Fatal(err) // all flags off: raw; VMIN and VTIME 0
	}
	b := &bus{tpm: tpm, path: fmt.Sprintf("/proc/self/fd/%d", peer)} // wherever its file system is mounted
	var served sync.WaitGroup
	served.Go(func() { b.serve(pieces{master}) })
	t.Cleanup(func() {
		slave.Close() // the last one: the master's read then fails
		served.Wait()
	})
	return b
}

// pieces writes a few bytes at a time, so that answers come in pieces.
type pieces struct{ *os.File }

func (p pieces) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = p.File.Write(b[n:min(n+7, len(b))])
		n += m
	}
	return n, err
}

// The way to /dev/tpmrm0, over a device with its manners.
func TestDevice(t *testing.T) {
	tpm := testtpm.New(t)
	b := newDevice(t, tpm)
	r := &rig{cfg: Config{Path: b.path, SecretFile: secretFile(t)}}
	r.Provider = mustOpen(t, r.cfg)
	var err error
	if r.keys, err = r.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	blob := r.sealed(t, "x")
	r.worked(t)

	underSignals(t, func() { r.opened(t, blob, "x") })
	if r.link.gen != 1 {
		t.Errorf("the connection was lost %d times", r.link.gen-1)
	}

	// An answer that does not come in time is dropped with its connection. (The
	// kernel would flush what was loaded; here the SRK of before stays behind.)
	b.set(nil, changing(tpm2.TPMCCGetRandom, func([]byte) []byte { return nil }))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Health(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("Health of a device that hangs: %v, want DeadlineExceeded", err)
	}
	b.set(nil, nil)
	r.opened(t, blob, "x")
	r.worked(t)
	if r.link.gen != 2 {
		t.Errorf("there were %d connections, want 2", r.link.gen)
	}
}

// closing is a connection that hangs, and whose Close waits for the command, as
// closing /dev/tpmrm0 does.
type closing struct{ done chan struct{} }

func (closing) roundTrip([]byte) ([]byte, error) { return nil, os.ErrDeadlineExceeded }
func (closing) SetDeadline(time.Time) error      { return nil }
func (c closing) Close() error                   { <-c.done; return nil }

func TestDeviceThatIsStillBusyIsNotOpenedAgain(t *testing.T) {
	first := closing{make(chan struct{})}
	answers := [][]byte{refusal(0)}
	dials := 0
	l := newLink(Config{Path: "/dev/tpmrm0", CommandTimeout: 20 * time.Millisecond})
	l.dial = func(context.Context) (conn, error) {
		if dials++; dials == 1 {
			return first, nil
		}
		return replay{&answers}, nil
	}
	for _, text := range []string{"no answer within 20ms", "still waits for an earlier command"} {
		if _, err := l.exchange(t.Context(), refusal(0), l.timeout); !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want ErrUnavailable and %q", err, text)
		}
	}
	if dials != 1 {
		t.Errorf("the device was opened %d times while it was busy", dials)
	}
	close(first.done)
	if _, err := l.exchange(t.Context(), refusal(0), l.timeout); err != nil || dials != 2 {
		t.Errorf("afterwards: %v, opened %d times, want success on a second connection", err, dials)
	}
}
