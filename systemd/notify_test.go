package systemd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager listens as the service manager does.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return l
}

// told waits for the next message.
func told(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	l := manager(t)
	for _, tc := range []struct {
		say  func() error
		want string
	}{
		{func() error { return Ready("unsealed") }, "READY=1\nSTATUS=unsealed"},
		{func() error { return Status("sealed: no token\nREADY=0\r\nX=1") }, "STATUS=sealed: no token; READY=0; X=1"},
		{Stopping, "STOPPING=1"},
	} {
		if err := tc.say(); err != nil {
			t.Fatal(err)
		}
		if got := told(t, l); got != tc.want {
			t.Errorf("said %q, want %q", got, tc.want)
		}
	}
}

func TestNotifyWithoutAManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("unsealed"); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := Ready("unsealed"); err == nil || !strings.Contains(err.Error(), "notifying systemd") {
		t.Errorf("with nobody at the socket: %v, want an error", err)
	}
}

func TestWatchdogPingsOnlyWhileAlive(t *testing.T) {
	l := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const dead = 3
	var asked atomic.Int32
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		done <- Watchdog(ctx, func(ctx context.Context) error {
			if _, bounded := ctx.Deadline(); !bounded {
				return errors.New("asked without a deadline")
			}
			if asked.Add(1) <= dead {
				return errors.New("not alive")
			}
			return nil
		})
	}()
	if got := told(t, l); got != "WATCHDOG=1" {
		t.Errorf("said %q, want WATCHDOG=1", got)
	}
	if n, took := asked.Load(), time.Since(began); n <= dead || took < dead*20*time.Millisecond {
		t.Errorf("pinged after %d questions and %v, while not alive", n, took)
	}
	if got := told(t, l); got != "WATCHDOG=1" {
		t.Errorf("said %q, want WATCHDOG=1 again", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v, want nil", err)
	}
}

func TestWatchdogNotWanted(t *testing.T) {
	alive := func(context.Context) error { return errors.New("asked for nothing") }
	for _, tc := range []struct{ usec, pid, want string }{
		{"", "", ""},
		{"1000000", "1", ""}, // another process's
		{"0", "", "reading the watchdog's interval"},
		{"soon", "", "reading the watchdog's interval"},
	} {
		t.Setenv("WATCHDOG_USEC", tc.usec)
		t.Setenv("WATCHDOG_PID", tc.pid)
		err := Watchdog(t.Context(), alive)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %q", tc.usec, tc.pid, err, tc.want)
		}
	}
}

// A ping that can't be sent is tried again at the next beat, and told at the end.
func TestWatchdogTellsOfALostManager(t *testing.T) {
	l := manager(t)
	l.Close()
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	beats := 0
	err := Watchdog(ctx, func(context.Context) error {
		if beats++; beats == 3 {
			cancel()
		}
		return nil
	})
	if err == nil || beats < 3 {
		t.Errorf("%v after %d beats, want an error after 3", err, beats)
	}
}

func TestCredentialsDirectory(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/sigild.service")
	if got := CredentialsDirectory(); got != "/run/credentials/sigild.service" {
		t.Errorf("CredentialsDirectory() = %q", got)
	}
}
