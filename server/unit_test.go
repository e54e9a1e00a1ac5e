package server

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUnitOfGroup(t *testing.T) {
	for path, want := range map[string]string{
		"/system.slice/bot.service":                                            "bot.service",
		"/system.slice/system-getty.slice/getty@tty1.service":                  "getty@tty1.service",
		"/system.slice/bot.service/inner/x.service":                            "bot.service",
		"/user.slice/user-1000.slice/session-3.scope":                          "session-3.scope",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/fake.service": "user@1000.service",
		"/system.slice/docker-0123.scope/init.scope":                           "docker-0123.scope",
		"/init.scope":                        "init.scope",
		"/system.slice/_cgroup.evil.service": "cgroup.evil.service",
		"/":                                  "",
		"":                                   "",
		"/system.slice":                      "",
		"/machine/bot.service":               "",
		"/system.slice/nobody/bot.service":   "",
	} {
		if got := unitOfGroup(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

// A folder of our own stands for the control groups: only paths and inodes are read.
func TestUnitsAreFoundByNumber(t *testing.T) {
	root := t.TempDir()
	bot, other := filepath.Join(root, "system.slice", "bot.service"), filepath.Join(root, "system.slice", "other.service")
	if err := os.MkdirAll(bot, 0o755); err != nil {
		t.Fatal(err)
	}
	u := &units{root: root}
	group := inode(bot)
	if got := u.name(group); got != "bot.service" {
		t.Errorf("got %q", got)
	}
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	u.walked = time.Now().Add(time.Hour) // as if somebody had just asked
	if got := u.seen(inode(other)); got != "" {
		t.Errorf("without waiting: got %q", got)
	}
	if got := u.seen(group); got != "bot.service" {
		t.Errorf("a known one, without waiting: got %q", got)
	}
	u.walked = time.Now()
	if got := u.name(inode(other)); got != "other.service" {
		t.Errorf("after waiting: got %q", got)
	}
	// A group that is gone is nobody's, whatever has its place in the list.
	if err := os.Rename(bot, filepath.Join(root, "system.slice", "renamed.service")); err != nil {
		t.Fatal(err)
	}
	if got := u.name(group); got != "renamed.service" {
		t.Errorf("moved: got %q", got)
	}
	if err := os.Remove(filepath.Join(root, "system.slice", "renamed.service")); err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]string{"gone": u.name(group), "no number": u.name(0), "no control groups": (&units{}).name(group), "a caller nobody asked about": Caller{}.Unit()} {
		if got != "" {
			t.Errorf("%s: got %q", what, got)
		}
	}
}

// The kernel says which control group a caller is in, by the connection.
func TestCallersGroupIsOurs(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	caller, err := readCaller(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	again, err := readCaller(conn.(*net.UnixConn))
	if err != nil || again.group != caller.group {
		t.Errorf("got groups %d and %d, %v", caller.group, again.group, err)
	}
	t.Logf("group %d, unit %q", caller.group, (&units{root: newUnits().root}).name(caller.group))
}
