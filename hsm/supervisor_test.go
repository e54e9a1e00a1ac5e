//go:build cgo

package hsm

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
)

// fakeClock is the supervisor's clock for waiting between starts.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// openWatched opens with a fake clock, no jitter, and a count of starts.
func openWatched(t testing.TB, cfg Config) (*Provider, *fakeClock, *atomic.Int64) {
	t.Helper()
	clock, starts := &fakeClock{now: time.Unix(1_800_000_000, 0)}, &atomic.Int64{}
	p, err := open(t.Context(), cfg, func(s *supervisor) {
		s.now = clock.Now
		s.jitter = func(d time.Duration) time.Duration { return d }
		s.onStart = func() { starts.Add(1) }
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, clock, starts
}

func TestKilledWorkerIsReplaced(t *testing.T) {
	r := newRig(t)
	for range 3 {
		old := r.pid(t)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.worked(t)
		if now := r.pid(t); now == old {
			t.Errorf("the worker is still %d", old)
		}
	}
	if log := r.log.String(); !strings.Contains(log, "hsm worker lost") || !strings.Contains(log, "hsm worker started") {
		t.Errorf("the log does not tell of the loss:\n%s", log)
	}
}

func TestKilledWorkerUnderLoad(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 10 {
				r.worked(t)
			}
		})
	}
	if err := syscall.Kill(r.pid(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestStoppedWorkerFailsByTheDeadlineAndRecovers(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.CallTimeout = hangTimeout })
	old := r.pid(t)
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	within(t, 2*hangTimeout, func() {
		if _, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("sealing with a stopped worker: %v, want ErrUnavailable", err)
		}
	})
	r.worked(t)
	if r.pid(t) == old {
		t.Error("the stopped worker was not replaced")
	}
}

func TestCallerThatGivesUpLeavesTheWorkerAlive(t *testing.T) {
	r := newRig(t)
	old := r.pid(t)
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, func() {
		err := r.Health(timeoutContext(t, 50*time.Millisecond))
		if !errors.Is(err, seal.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Health past its context: %v, want ErrUnavailable and DeadlineExceeded", err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	within(t, time.Second, func() {
		if err := r.Health(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Health with a cancelled context: %v, want Canceled", err)
		}
	})
	if err := syscall.Kill(old, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.worked(t)
	if now := r.pid(t); now != old {
		t.Errorf("the worker changed from %d to %d, want it kept", old, now)
	}
}

func TestHangingModuleIsReplaced(t *testing.T) {
	t.Parallel()
	s, through := shimmed(t)
	r := newRig(t, through, func(c *Config) { c.CallTimeout = hangTimeout })
	s.order(t, "C_Encrypt hang 0")
	within(t, 2*hangTimeout, func() {
		if _, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("sealing with a hanging module: %v, want ErrUnavailable", err)
		}
	})
	s.behave(t)
	r.worked(t)
}

func TestRequestThatKillsTwoWorkersIsGivenUp(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	p, clock, starts := openWatched(t, r.cfg)
	s.order(t, "C_Encrypt crash 0")
	_, err := p.Seal(t.Context(), r.keys.KEK, []byte("x"), nil)
	if !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "two HSM workers") {
		t.Errorf("sealing with a crashing module: %v, want ErrUnavailable after two workers", err)
	}
	if got := starts.Load(); got != 2 {
		t.Errorf("%d workers were started, want 2", got)
	}

	// Now it waits: calls fail at once and start nothing.
	s.behave(t)
	within(t, 200*time.Millisecond, func() {
		err := p.Health(t.Context())
		if !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "waiting 1s") {
			t.Errorf("Health while waiting: %v, want ErrUnavailable and how long", err)
		}
	})
	if got := starts.Load(); got != 2 {
		t.Errorf("%d workers were started while waiting, want still 2", got)
	}
	clock.advance(time.Second)
	if err := p.Health(t.Context()); err != nil {
		t.Errorf("Health after waiting: %v", err)
	}
	if got := starts.Load(); got != 3 {
		t.Errorf("%d workers were started, want 3", got)
	}

	// The request that did it is not tried again, though the module would now
	// behave; others are, and after a while so is that one.
	if _, err := p.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, ErrPoisoned) || !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("sealing what ended two workers: %v, want ErrPoisoned", err)
	}
	if _, err := p.Seal(t.Context(), r.keys.KEK, []byte("y"), nil); err != nil {
		t.Errorf("sealing something else: %v", err)
	}
	clock.advance(poisonFor)
	if _, err := p.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); err != nil {
		t.Errorf("sealing it after %v: %v", poisonFor, err)
	}
}

func TestLadderIsClimbedInOrder(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	p, _, starts := openWatched(t, r.cfg)
	climber := &rig{Provider: p, keys: r.keys}
	climber.worked(t) // a session is open and the key is known
	before := map[string]int{}
	for _, fn := range []string{"C_EncryptInit", "C_OpenSession", "C_FindObjectsInit", "C_Initialize"} {
		before[fn] = s.calls(t, fn)
	}
	s.order(t, "C_EncryptInit rv 32")
	if _, err := p.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("sealing on a device that is gone: %v, want ErrUnavailable", err)
	}
	for fn, want := range map[string]int{
		"C_EncryptInit":     4, // as it is; fresh session; key found again; new worker
		"C_OpenSession":     4, // two fresh ones; the new worker's login and its work
		"C_FindObjectsInit": 2,
		"C_Initialize":      1,
	} {
		if got := s.calls(t, fn) - before[fn]; got != want {
			t.Errorf("%s was called %d times, want %d", fn, got, want)
		}
	}
	if got := starts.Load(); got != 2 {
		t.Errorf("%d workers were started, want 2", got)
	}

	// A session that was lost costs no worker.
	s.behave(t)
	p.Close()
	p, _, starts = openWatched(t, r.cfg)
	climber.Provider = p
	climber.worked(t)
	s.order(t, "C_EncryptInit once B3")
	climber.worked(t)
	s.order(t, "C_EncryptInit once 82")
	climber.worked(t)
	if got := starts.Load(); got != 1 {
		t.Errorf("%d workers were started for a lost session and a lost handle, want 1", got)
	}
}

func TestProvisionIsNotRepeated(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	before := s.calls(t, "C_GenerateKeyPair")
	s.order(t, "C_GenerateKeyPair crash 1")
	if _, err := r.Provision(t.Context()); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("provisioning with a crashing module: %v, want ErrUnavailable", err)
	}
	if got := s.calls(t, "C_GenerateKeyPair") - before; got != 1 {
		t.Errorf("C_GenerateKeyPair was called %d times, want once", got)
	}
	r.worked(t)
}

func TestWaitsGrowToAMinute(t *testing.T) {
	clock := &fakeClock{now: time.Unix(0, 0)}
	cfg, err := Config{Module: "/m", TokenLabel: "l", PINFile: "p", LatchFile: "l"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	s := newSupervisor(cfg)
	s.now = clock.Now
	jitter := s.jitter
	s.jitter = func(d time.Duration) time.Duration { return d }
	var got []time.Duration
	for range 70 {
		s.lose(seal.ErrUnavailable)
		got = append(got, s.retryAt.Sub(clock.now))
	}
	want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60}
	for i, w := range want {
		if got[i] != w*time.Second {
			t.Errorf("wait after loss %d is %v, want %v", i+1, got[i], w*time.Second)
		}
	}
	if last := got[len(got)-1]; last != time.Minute {
		t.Errorf("wait after %d losses is %v, want 1m", len(got), last)
	}
	for range 1000 {
		if d := jitter(8 * time.Second); d < 6*time.Second || d > 10*time.Second {
			t.Fatalf("jitter makes 8s %v, want 6s to 10s", d)
		}
	}
}

func TestCloseDoesNotWaitForAHang(t *testing.T) {
	t.Parallel()
	s, through := shimmed(t)
	r := newRig(t, through)
	before := s.calls(t, "C_Encrypt")
	s.order(t, "C_Encrypt hang 0")
	waiting := make(chan error)
	go func() {
		_, err := r.Seal(context.Background(), r.keys.KEK, []byte("x"), nil)
		waiting <- err
	}()
	for s.calls(t, "C_Encrypt") == before { // until the module is inside the call
		runtime.Gosched()
	}
	within(t, 2500*time.Millisecond, func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("the call that hung answered %v, want ErrUnavailable", err)
		}
	})
}

func TestCloseEndsTheWorker(t *testing.T) {
	r := newRig(t)
	fd := pidfd(t, r.pid(t))
	r.Close()
	if !ended(t, fd, 0) {
		t.Error("the worker is alive after Close")
	}
}
