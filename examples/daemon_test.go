package examples_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/internal/testhsm"
)

// sigild refuses root, and CI runs as root: the daemon gets an uid of its own,
// without an entry in /etc/passwd. Started as somebody else, it stays that.
const daemonUID = 54321

// daemon is a running sigild with a SoftHSM token; all of it lies in dir. The one
// who runs the tests is application and operator.
type daemon struct {
	dir     string
	app     string // socket
	admin   string // socket
	process *exec.Cmd
	log     *bytes.Buffer
}

// start builds sigild and sigilctl, initialises an appliance with the operator
// alice, whose key is alice.key, and returns when the daemon is ready.
func start(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{dir: scratch(t), log: &bytes.Buffer{}}
	d.app, d.admin = d.path("app.sock"), d.path("admin.sock")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", d.path("bin")+"/", "../cmd/sigild", "../cmd/sigilctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	token, err := testhsm.Make(d.path("token"))
	if err != nil {
		t.Fatal(err)
	}
	// No pre-parameters: they would keep a core busy, and an Ed25519 wallet needs none.
	config := fmt.Appendf(nil, `state_dir: %[1]s/state
pin_file: %[1]s/store.pin
sockets:
  app: {path: %[1]s/app.sock, mode: "0666"}
  admin: {path: %[1]s/admin.sock, mode: "0666"}
roles:
  app: {uids: [%[2]d]}
  operator: {uids: [%[2]d]}
provider:
  pkcs11:
    module: %[3]s
    token_label: %[4]s
    pin_file: %[5]s
    env: {SOFTHSM2_CONF: %[6]s/softhsm2.conf}
pre_parameters: {target: 0}
`, d.dir, os.Geteuid(), token.Module, token.Label, token.PINFile, token.Dir)
	if err := os.WriteFile(d.path("sigild.yaml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.giveAway(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"credential", "create", "--purpose", "operator", "--name", "alice", "--out", d.path("alice")},
		{"--config", d.path("sigild.yaml"), "init", "--operator", d.path("alice.json"), "--quorum", "1"},
	} {
		if out, err := d.command("sigilctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("sigilctl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	d.run(t)
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// scratch is a directory that other uids can walk into, with room for the path of a socket.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// giveAway makes the daemon's user the owner of all there is.
func (d *daemon) giveAway() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(d.dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, daemonUID, daemonUID))
	})
}

// command is one of our programs as the daemon's user.
func (d *daemon) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(d.path("bin/"+name), args...)
	c.Dir = d.dir
	c.Env = []string{"PATH=/usr/bin:/bin"}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: daemonUID, Gid: daemonUID}
	}
	return c
}

// run starts the daemon and waits for its READY=1; it is stopped after t, by
// SIGTERM, and must then have ended well.
func (d *daemon) run(t *testing.T) {
	t.Helper()
	notify := d.path("notify.sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(notify, 0o666); err != nil {
		t.Fatal(err)
	}
	d.process = d.command("sigild", "--config", d.path("sigild.yaml"))
	d.process.Env = append(d.process.Env, "NOTIFY_SOCKET="+notify)
	d.process.Stdout, d.process.Stderr = d.log, d.log
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, ended := context.WithCancel(context.Background())
	var exit error
	go func() { exit = d.process.Wait(); l.Close(); ended() }()
	t.Cleanup(func() {
		if ctx.Err() == nil {
			_ = d.process.Process.Signal(syscall.SIGTERM) // it may end by itself just now
		}
		select {
		case <-ctx.Done():
		case <-time.After(30 * time.Second):
			_ = d.process.Process.Kill() // likewise
			<-ctx.Done()
			t.Error("sigild did not stop within 30 s")
		}
		if exit != nil || t.Failed() {
			t.Errorf("sigild: %v; its log:\n%s", exit, d.log)
		}
	})
	if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for message := make([]byte, 4096); ; {
		n, err := l.Read(message)
		if err != nil {
			t.Fatalf("waiting for READY=1: %v", err)
		}
		if bytes.Contains(message[:n], []byte("READY=1")) {
			return
		}
	}
}
