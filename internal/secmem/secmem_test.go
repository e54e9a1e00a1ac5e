package secmem

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv tells the test binary to be one of the children below.
const childEnv = "SECMEM_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "tiny-memlock":
		os.Exit(childTinyMemlock())
	case "harden":
		os.Exit(childHarden())
	}
	os.Exit(m.Run())
}

// runChild runs this binary as the named child and returns what it printed.
func runChild(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child %s: %v\n%s", name, err, out)
	}
	return string(out)
}

// childTinyMemlock drops CAP_IPC_LOCK, which would lift the limit, and asks for
// memory under a limit of zero.
func childTinyMemlock() int {
	runtime.LockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		fmt.Println("capset:", err)
		return 1
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		fmt.Println("setrlimit:", err)
		return 1
	}
	secret := []byte("a secret")
	_, err := From(secret)
	fmt.Printf("err=%v wiped=%v\n", err, bytes.Equal(secret, make([]byte, len(secret))))
	return 0
}

func childHarden() int {
	if err := HardenProcess(); err != nil {
		fmt.Println(err)
		return 1
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Printf("dumpable=%d core=%d/%d\n", dumpable, core.Cur, core.Max)
	return 0
}

func TestNewRefusesAMemlockLimitOfZero(t *testing.T) {
	out := runChild(t, "tiny-memlock")
	for _, want := range []string{"RLIMIT_MEMLOCK is 0 bytes", "hint: raise LimitMEMLOCK=", "wiped=true"} {
		if !strings.Contains(out, want) {
			t.Errorf("child printed %q, want it to say %q", out, want)
		}
	}
}

func TestHardenProcess(t *testing.T) {
	if got, want := runChild(t, "harden"), "dumpable=0 core=0/0\n"; got != want {
		t.Errorf("child printed %q, want %q", got, want)
	}
}

func TestNewRefusesBadSizes(t *testing.T) {
	for _, n := range []int{0, -1, 1 << 40} {
		if _, err := New(n); err == nil {
			t.Errorf("New(%d) succeeded, want an error", n)
		}
	}
}

func TestFromCopiesAndClears(t *testing.T) {
	b := []byte("thirty-two bytes of root key ...")
	want := bytes.Clone(b)
	buf, err := From(b)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Destroy()
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Errorf("From left the source as %q, want zeros", b)
	}
	if buf.Len() != len(want) {
		t.Errorf("Len = %d, want %d", buf.Len(), len(want))
	}
	err = buf.Use(func(got []byte) error {
		if !bytes.Equal(got, want) || cap(got) != len(want) {
			t.Errorf("Use lent %q (cap %d), want %q", got, cap(got), want)
		}
		return io.EOF
	})
	if err != io.EOF {
		t.Errorf("Use returned %v, want the error of the closure", err)
	}
}

// markerAt is the marker's byte i. No whole marker lies anywhere but where
// plantMarker wrote it: looking for it compares byte by byte.
func markerAt(i int) byte { return byte(i*7+13) ^ 0x5a }

const markerLen = 64

// markers counts the markers in b.
func markers(b []byte) (found int) {
	for ; len(b) >= markerLen; b = b[1:] {
		i := 0
		for i < markerLen && b[i] == markerAt(i) {
			i++
		}
		if i == markerLen {
			found++
		}
	}
	return found
}

// mapped counts the markers in the writable memory of this process.
func mapped(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	found := 0
	chunk := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if !strings.HasPrefix(f[1], "rw") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		lo, err1 := strconv.ParseInt(from, 16, 64)
		hi, err2 := strconv.ParseInt(to, 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		for ; lo < hi; lo += int64(len(chunk)) {
			n, err := mem.ReadAt(chunk[:min(int64(len(chunk)), hi-lo)], lo)
			if err != nil && n == 0 {
				break
			}
			found += markers(chunk[:n])
			clear(chunk[:n]) // or the chunk itself would be found
		}
	}
	return found
}

// plantMarker writes bytes that were nowhere else: they are computed in place.
func plantMarker(t *testing.T, buf *Buf) {
	t.Helper()
	err := buf.Use(func(b []byte) error {
		for i := range b {
			b[i] = markerAt(i)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDestroyLeavesNoMarker(t *testing.T) {
	buf, err := New(markerLen)
	if err != nil {
		t.Fatal(err)
	}
	if n := mapped(t); n != 0 {
		t.Fatalf("marker found %d times before it was planted", n)
	}
	plantMarker(t, buf)
	if n := mapped(t); n != 1 {
		t.Fatalf("marker found %d times after it was planted, want once", n)
	}
	buf.Destroy()
	if n := mapped(t); n != 0 {
		t.Errorf("marker found %d times after Destroy", n)
	}
}

func TestPagesAreLockedAndNotDumped(t *testing.T) {
	buf, err := New(100)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Destroy()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprintf("%p", buf.region.pages)
	start = strings.TrimPrefix(start, "0x")
	_, rest, ok := strings.Cut(string(smaps), start+"-")
	if !ok {
		t.Fatalf("no mapping starts at %s", start)
	}
	_, flags, _ := strings.Cut(rest, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	for _, want := range []string{"lo", "dd", "wf"} { // locked, no dump, wipe on fork
		if !strings.Contains(flags+" ", " "+want+" ") {
			t.Errorf("VmFlags are %q, want %s among them", flags, want)
		}
	}
}

func TestUseAfterDestroy(t *testing.T) {
	buf, err := New(8)
	if err != nil {
		t.Fatal(err)
	}
	buf.Destroy()
	buf.Destroy()
	for name, b := range map[string]*Buf{"destroyed": buf, "zero": {}} {
		err := b.Use(func([]byte) error { t.Errorf("%s: closure was called", name); return nil })
		if !errors.Is(err, ErrDestroyed) {
			t.Errorf("%s: Use returned %v, want ErrDestroyed", name, err)
		}
	}
	(&Buf{}).Destroy()
}

func TestDestroyWaitsForUsers(t *testing.T) {
	buf, err := From([]byte("in use"))
	if err != nil {
		t.Fatal(err)
	}
	inside, destroyed := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = buf.Use(func(b []byte) error {
			close(inside)
			// Nested use while Destroy waits is refused, not a deadlock.
			for buf.Use(func([]byte) error { return nil }) == nil {
				runtime.Gosched()
			}
			select {
			case <-destroyed:
				t.Error("Destroy returned while the secret was lent")
			default:
			}
			if string(b) != "in use" {
				t.Errorf("secret changed to %q under its user", b)
			}
			return nil
		})
	})
	<-inside
	buf.Destroy()
	close(destroyed)
	wg.Wait()
}

func TestPanicInUseReleases(t *testing.T) {
	buf, err := New(4)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = buf.Use(func([]byte) error { panic("boom") })
	}()
	buf.Destroy() // would wait for ever if the user were still counted
}

func TestConcurrentUseAndDestroy(t *testing.T) {
	buf, err := From([]byte("shared"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				err := buf.Use(func(b []byte) error {
					if string(b) != "shared" {
						t.Errorf("read %q", b)
					}
					return nil
				})
				if err != nil {
					if !errors.Is(err, ErrDestroyed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	wg.Go(buf.Destroy)
	wg.Go(buf.Destroy)
	wg.Wait()
}

func TestRedaction(t *testing.T) {
	buf, err := From([]byte("MARKERMARKER"))
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Destroy()
	type holder struct {
		Public  *Buf
		private *Buf
		value   Buf
	}
	h := holder{buf, buf, *buf}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "buf", buf, "holder", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "buf", buf, "value", *buf)
	printed := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
		for _, v := range []any{buf, *buf} {
			if got := fmt.Sprintf(verb, v); got != Redacted {
				t.Errorf("%s of %T printed %q, want %q", verb, v, got, Redacted)
			}
		}
		printed = append(printed, fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h))
	}
	printed = append(printed, buf.String(), buf.GoString())
	for _, p := range printed {
		for _, leak := range []string{"MARKER", "4d41524b", "4D41524B", "77 65 82 75"} {
			if strings.Contains(p, leak) {
				t.Errorf("printed %.200q, which holds the secret", p)
			}
		}
	}
	if !strings.Contains(log.String(), "buf="+Redacted) {
		t.Errorf("log is %q, want buf=%s", log.String(), Redacted)
	}
}

func TestEncodersAreRefused(t *testing.T) {
	buf, err := From([]byte("MARKER"))
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Destroy()
	if out, err := json.Marshal(struct{ B *Buf }{buf}); err == nil {
		t.Errorf("json encoded it as %s", out)
	}
	if out, err := json.Marshal(map[Buf]int{*buf: 1}); err == nil {
		t.Errorf("json encoded it as a map key: %s", out)
	}
	if err := gob.NewEncoder(io.Discard).Encode(buf); err == nil {
		t.Error("gob encoded it")
	}
	if _, err := buf.MarshalText(); err == nil {
		t.Error("text encoding succeeded")
	}
	if _, err := buf.MarshalBinary(); err == nil {
		t.Error("binary encoding succeeded")
	}
	if _, err := buf.MarshalYAML(); err == nil {
		t.Error("yaml encoding succeeded")
	}
}
