package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
)

func withTimeout(d time.Duration) func(*Config) {
	return func(c *Config) { c.CommandTimeout = d }
}

// within fails t when use takes longer than d.
func within(t testing.TB, d time.Duration, use func()) {
	t.Helper()
	began := time.Now()
	use()
	if took := time.Since(began); took > d {
		t.Errorf("took %v, want at most %v", took, d)
	}
}

func TestPowerLossBetweenSealAndUnseal(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "over a power loss")
	for range 3 {
		if err := r.tpm.Restart(); err != nil {
			t.Fatal(err)
		}
		r.opened(t, blob, "over a power loss")
		r.worked(t)
	}
	if !strings.Contains(r.log.String(), "starting over") {
		t.Errorf("the lost connection was not logged: %s", r.log)
	}
}

func TestTPMThatIsOff(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "x")
	if err := r.tpm.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrUnavailable) || errors.Is(err, seal.ErrTampered) {
		t.Errorf("unsealing with a TPM that is off: %v, want ErrUnavailable", err)
	}
	if err := r.Health(t.Context()); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("Health of a TPM that is off: %v, want ErrUnavailable", err)
	}
	if _, err := Open(t.Context(), r.cfg); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("opening a TPM that is off: %v, want ErrUnavailable", err)
	}
	if err := r.tpm.Start(); err != nil {
		t.Fatal(err)
	}
	r.opened(t, blob, "x")
}

func TestResetUnderAnOpenConnection(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "over a reset")
	if err := r.tpm.Reset(); err != nil {
		t.Fatal(err)
	}
	r.opened(t, blob, "over a reset") // 0x100, TPM2_Startup, SRK and key again
	r.worked(t)
}

func TestHangEndsByTheDeadline(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "after a hang")
	r.reopen(t, withTimeout(100*time.Millisecond))
	if err := r.tpm.Stop(); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, func() {
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 100ms") {
			t.Errorf("unsealing with a TPM that hangs: %v, want ErrUnavailable and how long", err)
		}
		// A second call finds no connection, and nobody to make one with.
		if err := r.Health(t.Context()); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("Health of a TPM that hangs: %v, want ErrUnavailable", err)
		}
	})
	if err := r.tpm.Cont(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r.cfg.CommandTimeout = 0
	r.Provider = mustOpen(t, r.cfg)
	r.opened(t, blob, "after a hang")
	r.worked(t)
}

func TestContextEndsARunningCommand(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "x")
	ctx, cancel := context.WithCancel(t.Context())
	b.set(nil, changing(tpm2.TPMCCUnseal, func([]byte) []byte { // the answer is lost, and the caller leaves
		cancel()
		return nil
	}))
	within(t, 3*time.Second, func() {
		err := r.Unseal(ctx, r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
		if !errors.Is(err, context.Canceled) || !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("unsealing while the caller leaves: %v, want context.Canceled", err)
		}
	})
	b.set(nil, nil)
	r.opened(t, blob, "x")

	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	b.set(nil, changing(tpm2.TPMCCUnseal, func([]byte) []byte { return nil }))
	err := r.Unseal(soon, r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unsealing past the caller's deadline: %v, want DeadlineExceeded", err)
	}
}

func TestWaitingForATurnEndsWithTheContext(t *testing.T) {
	r, b := busRig(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	b.set(nil, changing(tpm2.TPMCCGetRandom, func(a []byte) []byte {
		close(entered)
		<-leave
		return a
	}))
	var first sync.WaitGroup
	first.Go(func() {
		if err := r.Health(t.Context()); err != nil {
			t.Errorf("Health: %v", err)
		}
	})
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Health(ctx); !errors.Is(err, seal.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Health while another call has the TPM: %v, want DeadlineExceeded", err)
	}
	close(leave)
	first.Wait()
}

func TestCloseEndsARunningCall(t *testing.T) {
	r, b := busRig(t)
	entered := make(chan struct{})
	b.set(nil, changing(tpm2.TPMCCGetRandom, func([]byte) []byte {
		close(entered)
		return nil
	}))
	var call sync.WaitGroup
	call.Go(func() {
		if err := r.Health(t.Context()); !errors.Is(err, errClosed) || !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("a call during Close: %v, want errClosed", err)
		}
	})
	<-entered
	within(t, 3*closePatience, func() { r.Close() })
	call.Wait()
}

// A TPM may ask to be asked again; the same bytes are.
func TestBusyTPMIsAskedAgain(t *testing.T) {
	r, b := busRig(t)
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting} {
		var seen [][]byte
		b.set(only(tpm2.TPMCCCreate, func(command []byte) []byte {
			seen = append(seen, command)
			if len(seen) < 4 {
				return refusal(rc)
			}
			return nil
		}), nil)
		r.sealed(t, "x")
		if len(seen) != 4 {
			t.Fatalf("%v: the command was sent %d times, want 4", rc, len(seen))
		}
		for _, s := range seen[1:] {
			if !bytes.Equal(s, seen[0]) {
				t.Errorf("%v: the command was sent again with other bytes", rc)
			}
		}
	}
	r.Close()
	b.set(nil, nil)
	r.reopen(t, withTimeout(200*time.Millisecond))
	b.set(only(tpm2.TPMCCCreate, func([]byte) []byte { return refusal(tpm2.TPMRCRetry) }), nil)
	if _, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "TPM_RC_RETRY") {
		t.Errorf("sealing with a TPM that stays busy: %v, want ErrUnavailable and its code", err)
	}
}

// What an interposer can do to an answer: nothing but break it.
func TestChangedAnswersAreNotBelieved(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "a secret")
	size := 0
	b.set(nil, changing(tpm2.TPMCCUnseal, func(a []byte) []byte { size = len(a); return a }))
	r.opened(t, blob, "a secret")
	for i := range size {
		if i >= 2 && i < 6 {
			continue // the length: the frame would never end
		}
		once := true
		b.set(nil, changing(tpm2.TPMCCUnseal, func(a []byte) []byte {
			if once {
				a[i] ^= 1
			}
			once = false
			return a
		}))
		err := r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func(p []byte) error {
			if string(p) != "a secret" {
				t.Errorf("byte %d: a wrong plaintext was believed", i)
			}
			return nil
		})
		if i >= headerLen && err != nil { // asked again, and then it was right
			t.Errorf("byte %d: %v, want the second answer", i, err)
		}
		if errors.Is(err, seal.ErrTampered) {
			t.Errorf("byte %d: %v: the blob was blamed", i, err)
		}
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut":       func(a []byte) []byte { return refit(a[:len(a)-1]) },
		"extended":  func(a []byte) []byte { return refit(append(a, 0)) },
		"tag":       func(a []byte) []byte { a[0] = 0x7f; return a },
		"size 0":    func(a []byte) []byte { copy(a[2:6], []byte{0, 0, 0, 0}); return a },
		"size huge": func(a []byte) []byte { copy(a[2:6], []byte{0xff, 0xff, 0xff, 0xff}); return a },
		"two":       func(a []byte) []byte { return append(bytes.Clone(a), a...) },
		"an HMAC":   func(a []byte) []byte { a[len(a)-1] ^= 1; return a },
		"nothing":   func([]byte) []byte { return refusal(tpm2.TPMRCSuccess) },
	} {
		b.set(nil, changing(tpm2.TPMCCUnseal, change))
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrUnavailable) || errors.Is(err, seal.ErrTampered) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
	b.set(nil, nil)
	r.opened(t, blob, "a secret")
}

// refit writes the length of a frame into it.
func refit(frame []byte) []byte {
	frame = bytes.Clone(frame)
	binary.BigEndian.PutUint32(frame[2:], uint32(len(frame)))
	return frame
}

// underSignals runs use often while signals come in.
func underSignals(t *testing.T, use func()) {
	hup := make(chan os.Signal, 1)
	// Never stopped: a signal still on its way would end the test binary.
	signal.Notify(hup, syscall.SIGHUP)
	stop := make(chan struct{})
	var storm sync.WaitGroup
	storm.Go(func() {
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer storm.Wait()
	defer close(stop) // also when use gives up
	for range 50 {
		use()
	}
}

func TestSignalsDoNotBreakACommand(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "x")
	before := r.link.gen
	underSignals(t, func() { r.opened(t, blob, "x") })
	if r.link.gen != before {
		t.Errorf("the connection was lost %d times", r.link.gen-before)
	}
}

func TestPathsThatAreNoTPM(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path string
		want error
		text string
	}{
		{filepath.Join(dir, "none"), fs.ErrNotExist, "firmware"},
		{file, seal.ErrUnavailable, "no character device"},
		{"/dev/null", seal.ErrUnavailable, ""},
		{"unix:" + filepath.Join(dir, "none"), fs.ErrNotExist, "emulator"},
	} {
		_, err := Open(t.Context(), Config{Path: row.path})
		if !errors.Is(err, row.want) || !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("opening %s: %v, want %v and %q", row.path, err, row.want, row.text)
		}
	}
}

// An emulator serves one client; the second is told so.
func TestEmulatorInUse(t *testing.T) {
	tpm := testtpm.New(t)
	c, err := net.Dial("unix", tpm.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (socket{c}).roundTrip([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8}); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Path: tpm.Path, CommandTimeout: 100 * time.Millisecond}
	refused := func() {
		t.Helper()
		if _, err := Open(t.Context(), cfg); !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "one client") {
			t.Errorf("opening an emulator that is in use: %v, want ErrUnavailable and why", err)
		}
	}
	refused()
	var waiting []net.Conn // until no more may wait
	for {
		w, err := net.Dial("unix", tpm.Socket)
		if err != nil {
			break
		}
		waiting = append(waiting, w)
	}
	refused()
	c.Close()
	for _, w := range waiting {
		w.Close()
	}
	cfg.CommandTimeout = 0
	mustOpen(t, cfg)
}
