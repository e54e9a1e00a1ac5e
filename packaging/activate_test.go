package packaging

import (
	"bytes"
	"fmt"
	"io/fs"
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

// daemonUID is who the daemon runs as when the tests run as root; it has no name.
const daemonUID = 54321

// appliance is an initialised store beside a real token, for the packaged binaries.
type appliance struct {
	t    *testing.T
	tree string
	dir  string
	user *syscall.Credential // nil: ourselves
}

func newAppliance(t *testing.T) *appliance {
	t.Helper()
	a := &appliance{t: t, tree: built(t).Tree, dir: t.TempDir()}
	uid := os.Geteuid()
	if uid == 0 {
		uid = daemonUID
		a.user = &syscall.Credential{Uid: daemonUID, Gid: daemonUID}
		// The folder is private to root until here.
		for dir := a.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	token, err := testhsm.Make(filepath.Join(a.dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	a.write("sigild.yaml", fmt.Sprintf(`state_dir: %[1]s/state
pin_file: %[1]s/store.pin
sockets:
  app: {path: %[1]s/app.sock}
  admin: {path: %[1]s/admin.sock}
roles:
  app: {uids: [%[2]d, %[3]d]}
provider:
  pkcs11:
    module: %[4]s
    token_label: %[5]s
    pin_file: credential:pin
    env: {SOFTHSM2_CONF: %[1]s/token/softhsm2.conf}
pre_parameters: {target: 0}
`, a.dir, uid, os.Geteuid(), token.Module, token.Label))
	if err := filepath.WalkDir(a.dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && a.user != nil {
			err = os.Lchown(p, daemonUID, daemonUID)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"credential", "create", "--purpose", "operator", "--name", "alice", "--out", "alice"},
		{"--config", "sigild.yaml", "init", "--operator", "alice.json", "--quorum", "1"},
	} {
		cmd := a.command(filepath.Join(a.tree, toolPath), args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sigilctl %s: %v\n%s", args, err, out)
		}
	}
	return a
}

func (a *appliance) write(name, text string) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// command runs a program as the daemon's user; its credentials are the token's folder.
func (a *appliance) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = a.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CREDENTIALS_DIRECTORY=" + filepath.Join(a.dir, "token")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.user, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// activate starts the daemon as its unit would: at the first caller, with sockets
// of these paths and names, and a service manager that listens.
func (a *appliance) activate(app, admin, names string, env ...string) (*exec.Cmd, *bytes.Buffer) {
	a.t.Helper()
	args := []string{"--listen=" + filepath.Join(a.dir, app), "--listen=" + filepath.Join(a.dir, admin), "--fdname=" + names}
	for _, e := range append(env, "CREDENTIALS_DIRECTORY="+filepath.Join(a.dir, "token")) {
		args = append(args, "--setenv="+e)
	}
	cmd := a.command("systemd-socket-activate", append(args, filepath.Join(a.tree, daemonPath), "--config", filepath.Join(a.dir, "sigild.yaml"))...)
	log := new(bytes.Buffer)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	return cmd, log
}

// knockUntil connects to a socket that is about to be there.
func (a *appliance) knockUntil(name string) {
	a.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("unix", filepath.Join(a.dir, name))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatal(err)
		}
	}
}

func TestActivationReadinessAndWatchdog(t *testing.T) {
	a := newAppliance(t)
	path := filepath.Join(a.dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	told := func() string {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	cmd, log := a.activate("app.sock", "admin.sock", "app:admin", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
	a.knockUntil("app.sock")
	var said []string
	for len(said) == 0 || !strings.HasPrefix(said[len(said)-1], "READY=1") {
		said = append(said, told())
	}
	if ready := said[len(said)-1]; ready != "READY=1\nSTATUS=unsealed" {
		t.Errorf("readiness is %q, after %q", ready, said)
	}
	if got := call(filepath.Join(a.dir, "app.sock")); got.Error != "" || got.Sealed || got.Version != "0.1.0" {
		t.Errorf("status: %+v", got)
	}
	for range 3 {
		if ping := told(); ping != "WATCHDOG=1" {
			t.Errorf("told %q, want WATCHDOG=1", ping)
		}
	}
	// The answers are to its own knocking: nothing was refused, no role was needed.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	last := told()
	for last == "WATCHDOG=1" {
		last = told()
	}
	if last != "STOPPING=1" {
		t.Errorf("at the end it told %q, want STOPPING=1", last)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v:\n%s", err, log)
	}
	if text := log.String(); strings.Contains(text, "refused") || strings.Contains(text, "not alive") {
		t.Errorf("the daemon said:\n%s", text)
	}
	for _, name := range []string{"app.sock", "admin.sock"} {
		if _, err := os.Lstat(filepath.Join(a.dir, name)); err != nil {
			t.Errorf("a socket that is systemd's was removed: %v", err)
		}
	}
}

// Units that don't fit the configuration, or have lost their names, are refused
// with what to do.
func TestActivationRefusesOtherSockets(t *testing.T) {
	a := newAppliance(t)
	for _, tc := range []struct{ app, admin, names, want string }{
		{"app.sock", "elsewhere.sock", "app:admin", "elsewhere.sock where the configuration says " + a.dir + "/admin.sock\nhint: change ListenStream= or path"},
		{"app.sock", "admin.sock", "admin:app", "where the configuration says"},
		{"app.sock", "admin.sock", "app:telemetry", `a socket is named "telemetry"`},
		{"app.sock", "admin.sock", "app:app", `two sockets are named "app"`},
	} {
		cmd, log := a.activate(tc.app, tc.admin, tc.names)
		a.knockUntil(tc.app)
		if err := cmd.Wait(); err == nil || !strings.Contains(log.String(), tc.want) {
			t.Errorf("%+v: %v, it said:\n%s", tc, err, log)
		}
		for _, name := range []string{tc.app, tc.admin} {
			if err := os.Remove(filepath.Join(a.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
