package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is what the unit runs.
type Program struct {
	// Path and SHA256 name the executable and its bytes.
	Path   string
	SHA256 [32]byte
	// Files are others that it reads, by path: a script, a library.
	Files map[string][32]byte
	Args  []string
	// Env is all of its environment.
	Env map[string]string
	// Timeout ends a run, whatever the daemon asked for.
	Timeout time.Duration
	// Callers are the uids whose connections are taken.
	Callers []uint32
}

// requestWithin is how long a caller may take to hand its request over.
const requestWithin = 5 * time.Second

// ServeOne takes one request from conn, runs the program, answers, and returns when
// the program and all that it started are gone. The process must be its own for this
// one call: every child of it is killed. The error is for the log.
func (p *Program) ServeOne(ctx context.Context, conn *net.UnixConn) error {
	defer conn.Close()
	if err := p.admit(conn); err != nil {
		return err
	}
	// What the program leaves behind becomes our child, however it hides.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the reaper of the program's children: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(requestWithin)); err != nil {
		return err
	}
	within, parts, err := readRequest(conn)
	defer wipe(parts)
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, min(within, p.Timeout))
	defer cancel()
	go func() { // a daemon that hangs up has ended the run
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	signature, err := p.run(ctx, parts)
	if err != nil {
		why := err.Error()
		return errors.Join(err, writeAnswer(conn, ranFailed, []byte(why[:min(len(why), maxReason)])))
	}
	return writeAnswer(conn, ranSigned, signature)
}

// admit refuses callers that are not the daemon.
func (p *Program) admit(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("asking who calls: %w", credErr)
	}
	if !slices.Contains(p.Callers, cred.Uid) {
		return fmt.Errorf("refusing uid %d: only the daemon may call", cred.Uid)
	}
	return nil
}

// run runs the program once. Errors say what happened to it, never what it said.
func (p *Program) run(ctx context.Context, parts [4][]byte) ([]byte, error) {
	program, err := p.pinned()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	answer := &bounded{most: maxAnswer}
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3", p.Args...)
	cmd.Args[0] = p.Path
	cmd.ExtraFiles = []*os.File{program} // descriptor 3: what was hashed is what runs
	cmd.Dir, cmd.Env = "/", p.environment()
	cmd.Stdout = answer // and standard error goes to /dev/null
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.Path, err)
	}
	// It may answer without reading all of it.
	written := writeParts(in, parts)
	_ = in.Close()
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if left := killChildren(); left != nil {
		return nil, left
	}
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("it was killed at the deadline")
	case err != nil:
		return nil, fmt.Errorf("it ended with %v", cmd.ProcessState)
	case answer.over:
		return nil, errors.New("it said too much")
	case written != nil && !errors.Is(written, syscall.EPIPE):
		return nil, fmt.Errorf("handing the request over: %w", written)
	}
	return parseAnswer(answer.b.Bytes())
}

// Check holds the program and its files to their hashes, as each run does, and starts
// nothing.
func (p *Program) Check() error {
	f, err := p.pinned()
	if err != nil {
		return err
	}
	return f.Close()
}

// pinned opens the program, and holds it and its files to their hashes.
func (p *Program) pinned() (*os.File, error) {
	for path, sum := range p.Files {
		f, err := openPinned(path, sum)
		if err != nil {
			return nil, err
		}
		_ = f.Close()
	}
	return openPinned(p.Path, p.SHA256)
}

func openPinned(path string, want [32]byte) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	h := sha256.New()
	if err == nil {
		_, err = io.Copy(h, f)
	}
	switch {
	case err != nil:
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0:
		err = fmt.Errorf("%s is no regular file that its owner alone may write", path)
	case subtle.ConstantTimeCompare(h.Sum(nil), want[:]) != 1:
		err = fmt.Errorf("%s is not the pinned one", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (p *Program) environment() []string {
	out := []string{}
	for name, value := range p.Env {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// killChildren kills and reaps until this process has no child. The control group
// of the unit does the same once more when the process ends.
func killChildren() error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.ECHILD) {
				return nil
			}
			if pid <= 0 {
				break
			}
		}
		if time.Now().After(end) {
			return errors.New("something that the program started can't be killed")
		}
	}
}

// children lists this process's own, which the kernel keeps by thread.
func children() (pids []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range tasks {
		list, _ := os.ReadFile(path)
		for _, text := range strings.Fields(string(list)) {
			if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// bounded keeps so many bytes and drops the rest.
type bounded struct {
	b    bytes.Buffer
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if keep := b.most - b.b.Len(); len(p) > keep {
		b.over = true
		b.b.Write(p[:keep])
	} else {
		b.b.Write(p)
	}
	return len(p), nil
}

// parseAnswer reads what the program wrote. It quotes nothing of it.
func parseAnswer(b []byte) ([]byte, error) {
	var a struct {
		V         int    `json:"v"`
		Signature string `json:"signature"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil || a.V != 1 {
		return nil, errors.New("its answer is malformed")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its answer")
	}
	sig, err := hex.DecodeString(strings.TrimPrefix(a.Signature, "0x"))
	if err != nil || len(sig) != 64 && len(sig) != 65 {
		return nil, errors.New("its signature is no hex of 64 or 65 bytes")
	}
	return sig, nil
}
