//go:build cgo

package hsm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// cc compiles C source into a shared object. A missing compiler is fatal: cgo
// needs it as well.
func cc(t testing.TB, out, source string, flags ...string) {
	t.Helper()
	args := append([]string{"-shared", "-fPIC", "-o", out, source}, flags...)
	if msg, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compiling %s (install gcc or clang): %v\n%s", source, err, msg)
	}
	if err := os.Chmod(out, 0o755); err != nil {
		t.Fatal(err)
	}
}

// buildShim and buildOAEP compile a module of testdata once.
var (
	buildShim = sync.OnceValues(func() ([]byte, error) { return buildModule("testdata/shim.c") })
	buildOAEP = sync.OnceValues(func() ([]byte, error) { return buildModule("testdata/oaep.c") })
)

// buildModule compiles a module. The headers are those of the bindings.
func buildModule(source string) ([]byte, error) {
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "shim.so")
	cmd := exec.Command("cc", "-shared", "-fPIC", "-I", strings.TrimSpace(string(headers)), "-o", out, source)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// shim is a module that misbehaves on order.
type shim struct{ module, control, log string }

// shimmed puts a shim before the module of a Config.
func shimmed(t testing.TB) (*shim, func(*Config)) {
	t.Helper()
	so, err := buildShim()
	if err != nil {
		t.Fatalf("building testdata/shim.c: %v", err)
	}
	dir := t.TempDir()
	s := &shim{filepath.Join(dir, "shim.so"), filepath.Join(dir, "control"), filepath.Join(dir, "log")}
	if err := os.WriteFile(s.module, so, 0o755); err != nil {
		t.Fatal(err)
	}
	return s, func(c *Config) {
		c.EnvAllow = append(c.EnvAllow, "SHIM_MODULE="+c.Module, "SHIM_CONTROL="+s.control, "SHIM_LOG="+s.log)
		c.Module = s.module
	}
}

// order tells the shim what to do from now on: "C_Encrypt rv 30".
func (s *shim) order(t testing.TB, lines ...string) {
	t.Helper()
	tmp := s.control + ".new"
	if err := os.WriteFile(tmp, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, s.control); err != nil {
		t.Fatal(err)
	}
}

// behave takes the order back.
func (s *shim) behave(t testing.TB) {
	t.Helper()
	if err := os.Remove(s.control); err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}

// calls counts the calls of a function, in all workers.
func (s *shim) calls(t testing.TB, function string) int {
	t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if line == function+"\n" {
			n++
		}
	}
	return n
}
