//go:build cgo

package hsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"

	"golang.org/x/sys/unix"
)

// pidfd is a descriptor of the process that stays its own.
func pidfd(t testing.TB, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// ended waits for the end of the process.
func ended(t testing.TB, fd int, d time.Duration) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(d.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	}
}

// openAndWaitArg makes this binary a parent that can be killed.
const openAndWaitArg = "open-and-wait"

func openAndWaitMain(module, label, pinFile, latch string) int {
	p, err := Open(context.Background(), Config{Module: module, TokenLabel: label, PINFile: pinFile, LatchFile: latch})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(p.sup.current.Load().cmd.Process.Pid)
	select {}
}

func TestWorkerDiesWithItsParent(t *testing.T) {
	cfg := config(testhsm.New(t))
	cmd := exec.Command("/proc/self/exe", openAndWaitArg, cfg.Module, cfg.TokenLabel, cfg.PINFile, cfg.LatchFile)
	cmd.Env = append(os.Environ(), cfg.EnvAllow...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the parent printed %q", line)
	}
	fd := pidfd(t, pid)
	// Stopped, it can't see the end of its socket: only PDEATHSIG ends it.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if !ended(t, fd, 5*time.Second) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Error("the worker outlived its parent")
	}
}

func TestWorkerIsConfined(t *testing.T) {
	t.Setenv("SIGILD_TEST_SECRET", "must not reach the worker")
	r := newRig(t)
	proc := fmt.Sprintf("/proc/%d/", r.pid(t))
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
		t.Error("no-new-privs is not set in the worker")
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (f[4] != "0" || f[5] != "0") {
			t.Errorf("the worker may dump core: %s", line)
		}
	}
	// A process that can't be dumped belongs to root in /proc, and its
	// environment and memory are closed to its own user.
	if os.Getuid() == 0 {
		env, err := os.ReadFile(proc + "environ")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimRight(string(env), "\x00"); got != r.tok.Env[0] {
			t.Errorf("the worker's environment is %q, want %q alone", got, r.tok.Env[0])
		}
	} else if f, err := os.Open(proc + "mem"); err == nil {
		f.Close()
		t.Error("the worker's memory can be opened by its own user")
	}
	// It ignores what ends a process group.
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := syscall.Kill(r.pid(t), sig); err != nil {
			t.Fatal(err)
		}
	}
	old := r.pid(t)
	r.worked(t)
	if r.pid(t) != old {
		t.Error("a signal for the process group ended the worker")
	}
}

func TestWorkerEnv(t *testing.T) {
	got := workerEnv(
		[]string{"PATH=/bin", "SOFTHSM2_CONF=/a", "CKNFAST_LOADSHARING=1", "CKNFAST=no", "LD_PRELOAD=x", "MINE=1", "VENDOR_A=2", "VENDORB=3"},
		[]string{"MINE", "VENDOR_", "SET=for the worker", "SOFTHSM2_CONF=/b"})
	// exec keeps the last of two values, so those of extra come last.
	want := []string{"VENDOR_A=2", "MINE=1", "CKNFAST_LOADSHARING=1", "SOFTHSM2_CONF=/a", "SET=for the worker", "SOFTHSM2_CONF=/b"}
	if !slices.Equal(got, want) {
		t.Errorf("environment is %q, want %q", got, want)
	}
	if got := workerEnv([]string{"PATH=/bin"}, nil); got == nil || len(got) != 0 {
		t.Errorf("environment is %#v, want empty and not nil", got)
	}
}

func TestWorkerByHandRefuses(t *testing.T) {
	out, err := exec.Command("/proc/self/exe", workerArg).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "sigild starts this process by itself") {
		t.Errorf("a worker started by hand: %v, %q; want exit code 2 and why", err, out)
	}
}

func TestWorkerThatIsNoWorker(t *testing.T) {
	cfg := config(testhsm.New(t))
	cfg.Worker = []string{"/bin/false"}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("opening with /bin/false for a worker: %v, want ErrUnavailable", err)
	}
	cfg.Worker = []string{"/nonexistent"}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("opening with no worker binary: %v, want ErrUnavailable", err)
	}
}
