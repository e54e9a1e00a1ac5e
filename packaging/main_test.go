package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// base holds what all tests share; readable by other users, who install from it.
var base string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ToolexecArg {
		os.Exit(Toolexec(os.Args[2:]))
	}
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:])) // in the container this binary is a caller or a probe
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if base, err = os.MkdirTemp("", "sigild-packaging-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// releaseDate is that of the packages in the tests.
var releaseDate = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

// config builds fast: gzip, no signature.
func config(t testing.TB, out string) Config {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	nfpm := filepath.Join(root, "bin/nfpm")
	if _, err := os.Stat(nfpm); err != nil {
		t.Fatalf("%v; hint: make tools", err)
	}
	return Config{Root: root, Out: filepath.Join(base, out), Nfpm: nfpm, Version: "0.1.0", Date: releaseDate, Compression: "gzip"}
}

var (
	buildOnce sync.Once
	builtOnce Built
	errOnce   error
)

// built makes the packages once for all tests.
func built(t testing.TB) Built {
	t.Helper()
	c := config(t, "once")
	buildOnce.Do(func() {
		if builtOnce, errOnce = Build(t.Context(), c); errOnce != nil {
			return
		}
		var moved = filepath.Join(base, "tree")
		if errOnce = os.Rename(builtOnce.Tree, moved); errOnce == nil {
			builtOnce.Tree = moved
			errOnce = os.Chmod(moved, 0o755)
		}
	})
	if errOnce != nil {
		t.Fatal(errOnce)
	}
	return builtOnce
}

// command runs a program that the tests need and returns what it prints.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	c := Config{Date: releaseDate}
	out, err := c.run(t.Context(), "/", name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// combined is command for what may fail: all that it prints, and how it ended.
func combined(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}
