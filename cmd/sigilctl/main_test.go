package main_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testvendor"
)

// The tests of this folder run sigild and sigilctl as people do: built binaries,
// real processes, a real SoftHSM token, an unprivileged user. testdata/script
// has the stories; the Go files beside it send what no tool of ours would send.

// base holds what all tests share: bin/, and work/, the scratch user's.
var base string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "bot" {
		os.Exit(botMain(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" { // of a test that opens a token itself
		os.Exit(hsm.WorkerMain())
	}
	if filepath.Base(os.Args[0]) == "vendor" {
		os.Exit(testvendor.Main(os.Args[1:]))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if base, err = os.MkdirTemp("", "sigild-cmd-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(base)
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(base, "bin")+"/", "../sigild", ".")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building the commands: %w\n%s", err, out)
	}
	// The scratch user can't look into the places that go test works in.
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"bot", "vendor"} {
		if err := copyFile(self, filepath.Join(base, "bin", name)); err != nil {
			return 0, err
		}
	}
	work := filepath.Join(base, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return 0, err
	}
	if err := os.Chmod(base, 0o711); err != nil {
		return 0, err
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(work, scratchUID, scratchUID); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// command is one of the built programs, with an environment of its own.
func command(dir, name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(base, "bin", name), args...)
	c.Dir = dir
	c.Env = []string{"PATH=/usr/bin:/bin"}
	return c
}

// copyTree copies files and folders with their modes.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(at, 0o700)
		}
		return copyFile(path, at)
	})
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, st.Mode().Perm())
}
