package packaging

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is a Debian in a container with a real systemd as its first process.
// It begins as the same tree each time: what it writes is gone with it.
type machine struct {
	t      testing.TB
	nspawn *exec.Cmd
	leader string // pid of its first process, as we see it
	share  string // our folder that it sees as /share
}

// packages of the tree, besides the essential ones.
const packages = "systemd,systemd-sysv,dbus,init-system-helpers,softhsm2,man-db"

// suiteVariable names another Debian than this machine's, not an older one.
const suiteVariable = "SIGILD_TEST_DEBIAN"

// bootScript runs systemd-nspawn in mount and control group namespaces of its own, so
// that nothing is left on the host. Without the extra capabilities and calls
// nspawn itself would forbid what the unit is to be seen to forbid.
const bootScript = `
umount -R -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$2"
echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
exec systemd-nspawn --quiet --directory="$1" --machine="$2" --register=no --keep-unit --boot --console=pipe \
	--notify-ready=yes --kill-signal=SIGRTMIN+3 --private-network --volatile=overlay --bind-ro="$3:/share" \
	--capability=CAP_IPC_LOCK,CAP_BPF,CAP_NET_ADMIN \
	--system-call-filter="@memlock bpf memfd_secret @keyring keyctl add_key request_key perf_event_open"`

// startMachine boots one and waits until its systemd says that it is up.
func startMachine(t *testing.T, share string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a container needs root; hint: sudo make test")
	}
	tree := debianTree(t, packages)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	m := &machine{t: t, share: share}
	name := fmt.Sprintf("sigild-test-%d", os.Getpid())
	m.nspawn = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-euc", bootScript, "sh", tree, name, share)
	m.nspawn.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.LocalAddr().String())
	console := new(bytes.Buffer)
	m.nspawn.Stdout, m.nspawn.Stderr = console, console
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			t.Logf("console:\n%s", console)
		}
		removeGroup(t, name)
	})
	if err := ready.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for up := false; !up; {
		b := make([]byte, 4096)
		n, err := ready.Read(b)
		if err != nil {
			t.Fatalf("waiting for the container: %v\n%s", err, console)
		}
		for line := range strings.Lines(string(b[:n])) {
			if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "X_NSPAWN_LEADER_PID="); ok {
				m.leader = pid
			}
			up = up || strings.TrimSpace(line) == "READY=1"
		}
	}
	return m
}

// stop powers the machine off, or pulls the plug.
func (m *machine) stop() {
	done := make(chan error, 1)
	go func() { done <- m.nspawn.Wait() }()
	if m.leader != "" {
		if out, err := m.enter(context.Background(), "systemctl", "poweroff").CombinedOutput(); err != nil {
			m.t.Logf("powering off: %v: %s", err, out)
		}
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		m.t.Error("the container doesn't power off")
		m.nspawn.Process.Kill()
		<-done
	}
}

// removeGroup removes the control groups that the machine left; they're empty.
func removeGroup(t testing.TB, name string) {
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var groups []string
		filepath.WalkDir(filepath.Join(root, name), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, p)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- {
			if err := os.Remove(groups[i]); err != nil {
				t.Logf("removing a control group: %v", err)
			}
		}
	}
}

// enter makes a command that runs inside, as root.
func (m *machine) enter(ctx context.Context, args ...string) *exec.Cmd {
	inside := []string{"-t", m.leader, "-m", "-u", "-i", "-n", "-p", "-C", "--root", "--wd=/", "--",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"}
	cmd := exec.CommandContext(ctx, "nsenter", append(inside, args...)...)
	cmd.Dir = "/"
	return cmd
}

// try runs a command inside and returns all that it says.
func (m *machine) try(args ...string) (string, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	out, err := m.enter(ctx, args...).CombinedOutput()
	return string(out), err
}

// run is try for what must work.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		journal, _ := m.try("journalctl", "--no-pager", "-n", "60", "-o", "short-precise")
		m.t.Fatalf("%s: %v\n%s\njournal:\n%s", strings.Join(args, " "), err, out, journal)
	}
	return out
}

// shell runs a script inside, which ends at the first failure; "no" is for what
// must fail, since ! would be no failure to sh.
func (m *machine) shell(script string) string {
	m.t.Helper()
	return m.run("sh", "-euxc", `no() { if "$@"; then echo "this should fail: $*"; exit 1; fi; }
`+script)
}

// as plays a role of this binary inside; prefix is what it is run by.
func as[T any](m *machine, prefix []string, role string, args ...string) (out T) {
	m.t.Helper()
	argv := append(append([]string{}, prefix...), "env", roleVariable+"="+role, "/share/roles")
	text := m.run(append(argv, args...)...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		m.t.Fatalf("%s said %q: %v", role, text, err)
	}
	return out
}

// hammering starts a hammer inside; the returned function ends it.
func (m *machine) hammering(socket string) (stop func() tally) {
	m.t.Helper()
	cmd := m.enter(m.t.Context(), "env", roleVariable+"=hammer", "/share/roles", socket)
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	first := make([]byte, 3)
	if _, err := io.ReadFull(out, first); err != nil || string(first) != "go\n" {
		m.t.Fatalf("the hammer said %q (%v)", first, err)
	}
	return func() (counted tally) {
		m.t.Helper()
		in.Close()
		if err := json.NewDecoder(out).Decode(&counted); err != nil {
			m.t.Fatalf("reading what the hammer counted: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			m.t.Fatal(err)
		}
		return counted
	}
}

// debianTree returns an installed Debian of this machine's own release with these
// packages, so that what is built here runs there. It is made once, in the user's cache.
func debianTree(t testing.TB, packages string) string {
	t.Helper()
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(release)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = strings.Trim(value, `"`)
	}
	suite := values["VERSION_CODENAME"]
	if values["ID"] != "debian" {
		suite = ""
	}
	if suite = cmp.Or(os.Getenv(suiteVariable), suite); suite == "" {
		t.Fatalf("the container is made from this machine's Debian, but this is %q; hint: %s=bookworm", values["PRETTY_NAME"], suiteVariable)
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(home, ".cache")
	}
	sum := sha256.Sum256([]byte(suite + packages))
	tree := filepath.Join(cache, "sigild", fmt.Sprintf("debian-%s-%x", suite, sum[:4]))
	if err := os.MkdirAll(filepath.Dir(tree), 0o755); err != nil {
		t.Fatal(err)
	}
	// One process makes it, others wait.
	lock, err := os.OpenFile(tree+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	began := time.Now()
	part := tree + ".part"
	if err := os.RemoveAll(part); err != nil {
		t.Fatal(err)
	}
	command(t, "mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", "--include="+packages, suite, part)
	if err := os.Rename(part, tree); err != nil {
		t.Fatal(err)
	}
	t.Logf("made %s in %.0f s", tree, time.Since(began).Seconds())
	return tree
}
