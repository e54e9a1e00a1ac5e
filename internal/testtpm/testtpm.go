// Package testtpm runs real software TPMs (swtpm) for tests and for the demo: a
// fresh directory, a fresh TPM, a unix socket whose path fits tpm.Config. It
// holds no opinion about sealing and imports nothing of ours.
//
// It refuses to go on when swtpm is not installed, and says what to install. A
// TPM it started dies with its process, whatever ends that.
//
// A software TPM protects nothing: its seeds are in a file beside the socket. It
// serves one client at a time; a second one waits until the first hangs up.
package testtpm

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const install = "install the packages swtpm, swtpm-tools and tpm2-tools (Debian, Ubuntu, Fedora)"

// startTimeout bounds how long swtpm may take to listen.
const startTimeout = 10 * time.Second

// maxSocket is the longest path a unix socket may have.
const maxSocket = 107

// TPM is one software TPM in a directory of its own. Its methods are safe for
// concurrent use.
type TPM struct {
	Path   string // "unix:" and Socket: what tpm.Config.Path takes
	Socket string // absolute path of the command socket
	Dir    string // holds the sockets and, in state/, what the TPM remembers

	mu      sync.Mutex
	process *process // nil while it is off; guarded by mu
}

// process is one run of swtpm.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has ended and was waited for
	output bytes.Buffer  // what it printed; read only after ended
}

// New starts a TPM in a directory that is removed after t. A missing swtpm is
// fatal.
func New(t testing.TB) *TPM {
	t.Helper()
	dir, err := os.MkdirTemp(memory(), "testtpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	tpm, err := Make(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	})
	return tpm
}

// memory is a directory in memory, or "" for the usual place: a TPM writes its
// state often, and a busy disk would decide how long a test takes.
func memory() string {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || unix.Access(shm, unix.W_OK) != nil {
		return ""
	}
	return shm
}

// Make starts a TPM in dir, which it creates when needed and which must not
// already hold one. The caller calls Close, and removes dir.
func Make(dir string) (*TPM, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("locating the TPM directory: %w", err)
	}
	socket := filepath.Join(dir, "sock")
	if n := len(control(socket)); n > maxSocket {
		return nil, fmt.Errorf("making a TPM in %s: its control socket would have a path of %d bytes, at most %d work; use a shorter directory", dir, n, maxSocket)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the TPM directory: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		return nil, fmt.Errorf("making the TPM directory: %w", err)
	}
	t := &TPM{Path: "unix:" + socket, Socket: socket, Dir: dir}
	if err := t.Start(); err != nil {
		return nil, err
	}
	return t, nil
}

// control is the control socket that tpm2-tools look for beside socket.
func control(socket string) string { return socket + ".ctrl" }

// Start switches the TPM on, as after a power loss: what was loaded is gone,
// what was persistent is there. It returns when the TPM listens.
func (t *TPM) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.startLocked()
}

func (t *TPM) startLocked() error {
	if t.process != nil {
		select {
		case <-t.process.ended: // by itself
			t.process = nil
		default:
			return errors.New("starting swtpm: it runs already")
		}
	}
	path, err := find("swtpm")
	if err != nil {
		return err
	}
	// A socket file that an earlier run left would look as if this one listened.
	for _, s := range []string{t.Socket, control(t.Socket)} {
		if err := os.Remove(s); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing an old socket: %w", err)
		}
	}
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.Command(path, "socket", "--tpm2",
		"--tpmstate", "dir="+filepath.Join(t.Dir, "state"),
		"--server", "type=unixio,path="+t.Socket,
		"--ctrl", "type=unixio,path="+control(t.Socket),
		"--flags", "not-need-init,startup-clear")
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.run(); err != nil {
		return fmt.Errorf("starting swtpm: %w", err)
	}
	if err := p.listening(t.Socket); err != nil {
		_ = p.cmd.Process.Kill() // the error that counts is err
		<-p.ended
		return fmt.Errorf("starting swtpm: %w: %s", err, p.output.Bytes())
	}
	t.process = p
	return nil
}

// run starts the process and waits for it on a thread of its own: Linux sends
// the parent's death signal when the *thread* that started a child ends.
func (p *process) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(p.ended)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is ours: we killed it
		}
	}()
	return <-started
}

// listening waits until socket takes connections.
func (p *process) listening(socket string) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("unix", socket)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return errors.New("it ended at once")
		case <-timeout.C:
			return fmt.Errorf("it does not listen after %s: %w", startTimeout, err)
		case <-tick.C:
		}
	}
}

// Kill switches the TPM off without a warning: a power loss. It returns when
// the process is gone.
func (t *TPM) Kill() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.killLocked()
}

func (t *TPM) killLocked() error {
	if t.process == nil {
		return nil
	}
	if err := t.process.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing swtpm: %w", err)
	}
	<-t.process.ended
	t.process = nil
	return nil
}

// Restart is Kill and Start.
func (t *TPM) Restart() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.killLocked(); err != nil {
		return err
	}
	return t.startLocked()
}

// Stop freezes the TPM: it takes commands and answers none, until Cont.
func (t *TPM) Stop() error { return t.signal(unix.SIGSTOP) }

// Cont lets a frozen TPM go on; it answers what it took meanwhile.
func (t *TPM) Cont() error { return t.signal(unix.SIGCONT) }

func (t *TPM) signal(s os.Signal) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.process == nil {
		return fmt.Errorf("sending %s to swtpm: it does not run", s)
	}
	if err := t.process.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("sending %s to swtpm: %w", s, err)
	}
	return nil
}

// Reset resets the TPM while clients stay connected: it then wants TPM2_Startup.
func (t *TPM) Reset() error {
	_, err := t.run("swtpm_ioctl", "--unix", control(t.Socket), "-i")
	return err
}

// Halt makes the TPM answer TPM_RC_FAILURE to everything, until Restart.
func (t *TPM) Halt() error {
	_, err := t.run("swtpm_ioctl", "--unix", control(t.Socket), "--stop")
	return err
}

// Run runs a tool (tpm2_getcap, tpm2_clear, …) against the TPM and fails t when
// the tool fails. It waits for ever while another client is connected.
func (t *TPM) Run(tb testing.TB, name string, args ...string) []byte {
	tb.Helper()
	out, err := t.run(name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Try is Run for a tool that may fail.
func (t *TPM) Try(name string, args ...string) ([]byte, error) { return t.run(name, args...) }

func (t *TPM) run(name string, args ...string) ([]byte, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+t.Socket, "TSS2_LOG=all+ERROR")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running %s: %w: %s", name, err, out)
	}
	return out, nil
}

func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w; %s", name, err, install)
	}
	return path, nil
}

// Close ends the TPM; what it remembers stays in Dir. Idempotent.
func (t *TPM) Close() error { return t.Kill() }
