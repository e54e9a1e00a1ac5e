package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The programs of these tests are shell scripts, run by the real unit: this binary,
// started again for each connection. A whole vendor is in cmd/sigilctl.

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve-one" {
		os.Exit(serveOne(os.Args[2]))
	}
	os.Exit(m.Run())
}

// serveOne is the unit's process; dir has program and, as its name, its hash.
func serveOne(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "sum"))
	if err != nil {
		return 1
	}
	sum, err := hex.DecodeString(string(b))
	if err != nil {
		return 1
	}
	f, err := net.FileConn(os.NewFile(3, "connection"))
	if err != nil {
		return 1
	}
	p := &Program{Path: filepath.Join(dir, "program"), SHA256: [32]byte(sum), Timeout: 2 * time.Second, Callers: []uint32{uint32(os.Geteuid())},
		Env: map[string]string{"PATH": "/usr/bin:/bin", "DIR": dir}}
	if _, err := os.Stat(filepath.Join(dir, "stranger")); err == nil {
		p.Callers = []uint32{uint32(os.Geteuid()) + 1}
	}
	if err := p.ServeOne(context.Background(), f.(*net.UnixConn)); err != nil {
		_ = os.WriteFile(filepath.Join(dir, "log"), []byte(err.Error()), 0o600)
		return 1
	}
	return 0
}

// unit is a running one.
type unit struct {
	t   *testing.T
	dir string
}

func newUnit(t *testing.T, script string) *unit {
	t.Helper()
	u := &unit{t, t.TempDir()}
	u.program(script)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(u.dir, "sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Listen(ctx, l, slog.New(slog.DiscardHandler), "serve-one", u.dir) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return u
}

func (u *unit) program(script string) {
	u.t.Helper()
	text := []byte("#!/bin/sh\n" + script + "\n")
	sum := sha256.Sum256(text)
	for name, b := range map[string][]byte{"program": text, "sum": []byte(hex.EncodeToString(sum[:]))} {
		if err := os.WriteFile(filepath.Join(u.dir, name), b, 0o700); err != nil {
			u.t.Fatal(err)
		}
	}
}

func (u *unit) sign(ctx context.Context) ([]byte, error) {
	u.t.Helper()
	c := &Client{Socket: filepath.Join(u.dir, "sock"), Timeout: 10 * time.Second}
	run, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	return run.Sign(ctx, []byte(`{"v":1}`), []byte("the share"), []byte("the API key"), nil)
}

var signature = strings.Repeat("ab", 64)

func TestProgramGetsItsPartsAndSigns(t *testing.T) {
	u := newUnit(t, `cat >"$DIR/got"; echo secret >&2; [ $# = 0 ] && env | sort >"$DIR/env"; echo '{"v":1,"signature":"`+signature+`"}'`)
	got, err := u.sign(t.Context())
	if err != nil || hex.EncodeToString(got) != signature {
		t.Fatalf("%x, %v", got, err)
	}
	parts, err := os.ReadFile(filepath.Join(u.dir, "got"))
	if want := "\x00\x00\x00\x07{\"v\":1}\x00\x00\x00\x09the share\x00\x00\x00\x0bthe API key\x00\x00\x00\x00"; err != nil || string(parts) != want {
		t.Errorf("it got %q, %v; want %q", parts, err, want)
	}
	env, err := os.ReadFile(filepath.Join(u.dir, "env"))
	if err != nil || strings.Contains(string(env), "HOME=") || !strings.Contains(string(env), "DIR="+u.dir) {
		t.Errorf("its environment is %q, %v", env, err)
	}
}

// Whatever goes wrong, the caller hears that there is no signature, the program and
// all that it started are gone, and nothing that it said is repeated.
func TestProgramsThatFail(t *testing.T) {
	for name, script := range map[string]string{
		"another exit code": `echo '{"v":1,"signature":"` + signature + `"}'; exit 3`,
		"no answer":         `:`,
		"no JSON":           `echo leak-the-share`,
		"another version":   `echo '{"v":2,"signature":"` + signature + `"}'`,
		"a member more":     `echo '{"v":1,"signature":"` + signature + `","x":1}'`,
		"two answers":       `echo '{"v":1,"signature":"` + signature + `"}'; echo '{}'`,
		"a short signature": `echo '{"v":1,"signature":"abcd"}'`,
		"no hex":            `echo '{"v":1,"signature":"` + strings.Repeat("zz", 64) + `"}'`,
		"too much":          `yes leak-the-share | head -c 100000`,
		"it hangs":          `sleep 1000`,
		"it hides":          `setsid sh -c 'echo $$ >"$DIR/pid"; sleep 1000' & sleep 1000`,
		"a child holds on":  `sleep 1000 & echo '{"v":1,"signature":"` + signature + `"}'`,
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnit(t, script)
			got, err := u.sign(t.Context())
			if name == "a child holds on" {
				if err != nil && !errors.Is(err, ErrFailed) {
					t.Fatal(err)
				}
			} else if !errors.Is(err, ErrFailed) || strings.Contains(err.Error(), "leak") {
				t.Fatalf("%x, %v; want ErrFailed", got, err)
			}
			if pid, err := os.ReadFile(filepath.Join(u.dir, "pid")); err == nil {
				if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
					t.Error("what it hid is still running")
				}
			}
		})
	}
}

func TestWhatIsNotPinnedIsNotRun(t *testing.T) {
	u := newUnit(t, `touch "$DIR/ran"`)
	if err := os.WriteFile(filepath.Join(u.dir, "program"), []byte("#!/bin/sh\ntouch \"$DIR/ran\"; echo other\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := u.sign(t.Context()); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "not the pinned one") {
		t.Errorf("another program: %v", err)
	}
	u.program(`touch "$DIR/ran"`)
	if err := os.Chmod(filepath.Join(u.dir, "program"), 0o722); err != nil {
		t.Fatal(err)
	}
	if _, err := u.sign(t.Context()); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "its owner alone") {
		t.Errorf("a program that others may write: %v", err)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "ran")); err == nil {
		t.Error("it ran")
	}
}

func TestOnlyTheDaemonMayCall(t *testing.T) {
	u := newUnit(t, `touch "$DIR/ran"`)
	if err := os.WriteFile(filepath.Join(u.dir, "stranger"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := u.sign(t.Context()); !errors.Is(err, ErrFailed) {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "ran")); err == nil {
		t.Error("it ran")
	}
}

// A caller that hangs up ends the run.
func TestHangingUpEndsTheRun(t *testing.T) {
	u := newUnit(t, `echo $$ >"$DIR/pid"; exec sleep 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := u.sign(ctx)
		gone <- err
	}()
	var pid string
	waitFor(t, func() bool {
		b, _ := os.ReadFile(filepath.Join(u.dir, "pid"))
		pid = strings.TrimSpace(string(b))
		return pid != ""
	})
	cancel()
	if err := <-gone; !errors.Is(err, ErrFailed) || !errors.Is(err, context.Canceled) {
		t.Errorf("the caller hears %v", err)
	}
	waitFor(t, func() bool { _, err := os.Stat("/proc/" + pid); return err != nil })
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// A request says how long a run may take; where no time is left that is none, not
// the longest that fits its field, and more than is ever given is refused.
func TestTimeOfARequest(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, time.Second: time.Second, 1 << 62: longest * time.Millisecond,
	} {
		var b bytes.Buffer
		if err := writeRequest(&b, given, [4][]byte{}); err != nil {
			t.Fatal(err)
		}
		if got, _, err := readRequest(bytes.NewReader(b.Bytes())); err != nil || got != want {
			t.Errorf("%v reads as %v, %v, want %v", given, got, err, want)
		}
		more := b.Bytes()
		more[5], more[6] = 0xff, 0xff
		if _, _, err := readRequest(bytes.NewReader(more)); err == nil {
			t.Error("more time than is given was taken")
		}
	}
}

func FuzzRequest(f *testing.F) {
	var good bytes.Buffer
	if err := writeRequest(&good, time.Second, [4][]byte{[]byte("{}"), []byte("share"), []byte("key"), nil}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte("SGVH\x01\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		within, parts, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeRequest(&again, within, parts); err != nil || !bytes.HasPrefix(b, again.Bytes()) {
			t.Errorf("%x reads as %v %q, written %x, %v", b, within, parts, again.Bytes(), err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"v":1,"signature":"` + signature + `"}`))
	f.Add([]byte(`{"v":1,"signature":"0xab"}`))
	f.Add([]byte{0, 0, 65})
	f.Fuzz(func(t *testing.T, b []byte) {
		if sig, err := parseAnswer(b); err == nil && len(sig) != 64 && len(sig) != 65 {
			t.Errorf("%q is a signature of %d bytes", b, len(sig))
		}
		if body, err := readAnswer(bytes.NewReader(b)); err == nil && len(body) > maxSignature {
			t.Errorf("%x is an answer of %d bytes", b, len(body))
		}
	})
}
