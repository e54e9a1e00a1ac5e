package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Sockets are inherited by fd number from the process before us, so a child is needed.
const asHeir = "SIGILD_TEST_AS_HEIR"

func TestMain(m *testing.M) {
	if os.Getenv(asHeir) != "" {
		os.Exit(heir())
	}
	os.Exit(m.Run())
}

// heir takes its sockets and says one byte to a caller of each.
func heir() int {
	got, err := Listeners()
	app, admin := got.App, got.Admin
	switch {
	case err != nil:
		fmt.Println("refused:", err)
		return 0
	case app == nil && admin == nil:
		fmt.Println("none")
		return 0
	}
	if again, err := Listeners(); again.App != nil || err != nil || os.Getenv("LISTEN_FDS") != "" {
		fmt.Println("they were given twice")
		return 1
	}
	for _, door := range []struct {
		l    *net.UnixListener
		word string
	}{{app, "app"}, {admin, "admin"}} {
		conn, err := door.l.Accept()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if _, err := conn.Write([]byte(door.word)); err != nil {
			fmt.Println(err)
			return 1
		}
		conn.Close()
	}
	if got.Peer != nil {
		fmt.Println("with", got.Peer.Addr())
	}
	if got.Metrics != nil {
		fmt.Println("with", got.Metrics.Addr())
	}
	if err := errors.Join(app.Close(), admin.Close()); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("served", app.Addr(), admin.Addr())
	return 0
}

// inherit starts the heir with files and names as the service manager would.
func inherit(t *testing.T, names string, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec /proc/`+fmt.Sprint(os.Getpid())+`/exe`)
	cmd.Env = []string{asHeir + "=1", "LISTEN_FDNAMES=" + names, fmt.Sprintf("LISTEN_FDS=%d", len(files))}
	cmd.ExtraFiles = files
	return cmd
}

func listen(t *testing.T, network, address string) *os.File {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestListenersByName(t *testing.T) {
	t.Run("two", func(t *testing.T) { byName(t, "") })
	t.Run("with metrics", func(t *testing.T) { byName(t, "metrics") })
	t.Run("with peer", func(t *testing.T) { byName(t, "peer") })
}

func byName(t *testing.T, further string) {
	dir := t.TempDir()
	app, admin := filepath.Join(dir, "a.sock"), filepath.Join(dir, "b.sock")
	names, files, with := "admin:app", []*os.File{listen(t, "unix", admin), listen(t, "unix", app)}, "" // the order says nothing
	if further != "" {
		path := filepath.Join(dir, further)
		names, files, with = names+":"+further, append(files, listen(t, "unix", path)), "with "+path+"\n"
	}
	cmd := inherit(t, names, files...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, door := range []struct{ path, word string }{{app, "app"}, {admin, "admin"}} {
		conn, err := net.Dial("unix", door.path)
		if err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 16)
		n, err := conn.Read(word)
		if err != nil || string(word[:n]) != door.word {
			t.Errorf("%s said %q (%v), want %q", door.path, word[:n], err, door.word)
		}
		conn.Close()
	}
	if err := cmd.Wait(); err != nil || out.String() != with+fmt.Sprintf("served %s %s\n", app, admin) {
		t.Errorf("the heir said %q (%v)", out.String(), err)
	}
	for _, path := range []string{app, admin} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the socket's file is not ours to remove: %v", err)
		}
	}
}

func TestListenersRefused(t *testing.T) {
	dir := t.TempDir()
	sock := func(name string) *os.File { return listen(t, "unix", filepath.Join(dir, name)) }
	plain, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "p"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	datagram, err := packets.File()
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	for _, tc := range []struct {
		name  string
		names string
		files []*os.File
		want  string
	}{
		{"none", "", nil, "none"},
		{"an unknown name", "app:admin:debug", []*os.File{sock("1"), sock("2"), sock("3")}, `a socket is named "debug"`},
		{"no names", "", []*os.File{sock("4"), sock("5")}, `a socket is named "LISTEN_FD_3"`},
		{"one is missing", "app", []*os.File{sock("6")}, `no socket is named "admin"; hint: FileDescriptorName=admin`},
		{"twice the same", "app:app", []*os.File{sock("7"), sock("8")}, `two sockets are named "app"`},
		{"TCP", "app:admin", []*os.File{sock("9"), listen(t, "tcp", "127.0.0.1:0")}, `socket "admin" is tcp, want a unix stream socket`},
		{"datagrams", "app:admin", []*os.File{datagram, sock("10")}, `socket "app" is unixgram, want a unix stream socket`},
		{"no socket at all", "app:admin", []*os.File{sock("11"), plain}, `socket "admin": `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := inherit(t, tc.names, tc.files...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tc.want) {
				t.Errorf("the heir said %q (%v), want %q", out, err, tc.want)
			}
		})
	}
}

// The variables of another process are not ours (sd_listen_fds(3)).
func TestListenersOfAnotherProcess(t *testing.T) {
	cmd := inherit(t, "app:admin", listen(t, "unix", filepath.Join(t.TempDir(), "s")))
	cmd.Args = []string{"sh", "-c", `LISTEN_PID=1 exec /proc/` + fmt.Sprint(os.Getpid()) + `/exe`}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "none\n" {
		t.Errorf("the heir said %q (%v), want none", out, err)
	}
}
