package hsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workerArg is argv[1] of a worker.
const workerArg = "hsm-worker"

// reapTimeout is how long we wait for a killed worker to be gone. One that hangs
// in the kernel is left to its reaper.
const reapTimeout = 2 * time.Second

// envNames are the variables of our own environment that a worker may see: they
// tell vendors' modules where their configuration is. A name that ends in _ is a
// prefix.
var envNames = []string{"SOFTHSM2_CONF", "ChrystokiConfigurationPath", "CKNFAST_", "YUBIHSM_PKCS11_CONF"}

// child is one worker process and our end of its socket. Who has the supervisor's
// turn alone exchanges.
type child struct {
	cmd      *exec.Cmd
	conn     net.Conn
	stderr   *tail
	exited   chan struct{} // closed by the reaper when the process is gone
	seq      uint32
	asked    op        // sent last
	deadline time.Time // for its answer
	in       inbox
	served   int // replies since it started
}

// startChild starts a worker that has loaded nothing yet.
func startChild(cfg Config) (*child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making the worker's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "hsm-worker"), os.NewFile(uintptr(fds[1]), "sigild")
	defer theirs.Close()
	conn, err := net.FileConn(ours) // a duplicate
	if err := errors.Join(err, ours.Close()); err != nil {
		return nil, fmt.Errorf("making the worker's socket: %w", err)
	}

	c := &child{conn: conn, stderr: &tail{}, exited: make(chan struct{})}
	argv := cfg.Worker
	if len(argv) == 0 {
		argv = []string{"/proc/self/exe", workerArg}
	}
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Env = workerEnv(os.Environ(), cfg.EnvAllow)
	c.cmd.ExtraFiles = []*os.File{theirs} // fd 3
	c.cmd.Stderr = c.stderr
	c.cmd.WaitDelay = time.Second
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	started := make(chan error, 1)
	go c.reap(started)
	if err := <-started; err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting the HSM worker %s: %w", argv[0], err)
	}
	return c, nil
}

// reap starts the process and waits for it, on one OS thread of its own that
// ends with it: PDEATHSIG follows the thread that forked, not the process, and
// no-new-privs, which the worker inherits, can't be taken back from a thread.
func (c *child) reap(started chan<- error) {
	runtime.LockOSThread() // never unlocked
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		close(c.exited)
		started <- fmt.Errorf("setting no-new-privs: %w", err)
		return
	}
	err := c.cmd.Start()
	started <- err
	if err == nil {
		_ = c.cmd.Wait() // how it ended is in ProcessState
	}
	close(c.exited)
}

// workerEnv picks from environ what the allow-list and extra name. An entry of
// extra that holds "=" is set as it is.
func workerEnv(environ, extra []string) []string {
	allowed := append([]string{}, envNames...)
	env := []string{} // not nil: nil would pass everything
	for _, e := range extra {
		if strings.Contains(e, "=") {
			env = append(env, e)
		} else {
			allowed = append(allowed, e)
		}
	}
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		for _, a := range allowed {
			if name == a || strings.HasSuffix(a, "_") && strings.HasPrefix(name, a) {
				// First, so that a value in extra wins.
				env = append([]string{e}, env...)
				break
			}
		}
	}
	return env
}

// errInterrupted means that the caller's context ended before the answer came. The
// answer is still to be taken, with resume.
var errInterrupted = errors.New("the caller gave up")

// exchange sends a frame that encodeRequest made and returns the reply: a message to
// be wiped by the caller, or a *fault, or errInterrupted, or any other error when the
// worker died, hung past deadline or talked nonsense and must be killed.
func (c *child) exchange(ctx context.Context, frame []byte, deadline time.Time) (message, error) {
	c.seq++
	setSeq(frame, c.seq)
	c.asked, c.deadline = op(frame[5]), deadline
	if err := c.conn.SetDeadline(deadline); err != nil {
		return message{}, err
	}
	if _, err := c.conn.Write(frame); err != nil {
		return message{}, err
	}
	return c.answer(ctx)
}

// resume waits again for an answer that somebody gave up waiting for.
func (c *child) resume(ctx context.Context) (message, error) {
	if err := c.conn.SetDeadline(c.deadline); err != nil {
		return message{}, err
	}
	return c.answer(ctx)
}

// answer reads the reply to what was sent last.
func (c *child) answer(ctx context.Context) (message, error) {
	if ctx.Err() != nil {
		return message{}, errInterrupted
	}
	var mu sync.Mutex
	reading := true // guarded by mu
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if reading {
			_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // ends the read
		}
	})
	c.awaitBriefly(ctx)
	body, err := c.in.read(c.conn)
	if !stop() {
		mu.Lock()
		reading = false
		mu.Unlock()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return message{}, errInterrupted
	}
	if err != nil {
		return message{}, err
	}
	m, err := decodeReply(body)
	if err != nil {
		clear(body)
		return message{}, err
	}
	if m.op != c.asked || m.seq != c.seq {
		err := fmt.Errorf("got the reply of %s #%d to %s #%d: %w", m.op, m.seq, c.asked, c.seq, errProtocol)
		m.wipe()
		return message{}, err
	}
	c.served++
	if m.status != classOK {
		defer m.wipe()
		return message{}, &fault{class: m.status, code: binary.BigEndian.Uint32(m.fields[0]), text: printable(m.fields[1])}
	}
	return m, nil
}

// briefly is how long an answer is looked for before we sleep for it: most come
// within, and to be woken costs as much again where the processor was idle.
const briefly = 150 * time.Microsecond

// awaitBriefly returns when an answer has come, ctx ends, or after [briefly]; at once
// where the only processor is the one the worker needs. Errors are the read's to find.
func (c *child) awaitBriefly(ctx context.Context) {
	if runtime.NumCPU() == 1 {
		return
	}
	raw, err := c.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for start := time.Now(); time.Since(start) < briefly && ctx.Err() == nil; {
			if n, err := unix.Poll(ready, 0); n != 0 || err != nil {
				return
			}
		}
	})
}

// alive says that the process has not ended.
func (c *child) alive() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// kill ends the worker, also a stopped one, and waits a little for its end.
func (c *child) kill() {
	c.conn.Close()
	clear(c.in.body)         // half an answer
	_ = c.cmd.Process.Kill() // already gone is as good
	c.await(reapTimeout)
}

// await waits for the end of the process, at most d.
func (c *child) await(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true
	case <-timer.C:
		return false
	}
}

// tail keeps the last bytes that a worker wrote to stderr, for the log.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

const tailLen = 2 << 10

// Write keeps the end of p; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if cut := len(t.b) - tailLen; cut > 0 {
		t.b = append(t.b[:0], t.b[cut:]...)
	}
	return len(p), nil
}

// String is what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
