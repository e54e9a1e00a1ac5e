// Package testhsm makes real SoftHSM tokens for tests and for the demo: a fresh
// directory, a fresh token, a PIN file. It holds no opinion about signing and
// imports nothing of ours; what it returns fits hsm.Config field by field.
//
// It never touches the environment of its own process: SoftHSM finds its
// configuration through [Token.Env], which goes to the worker alone. It refuses
// to go on when SoftHSM is not installed, and says what to install.
//
// SoftHSM does not fsync. Draw no conclusion about power loss from it.
package testhsm

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// modules are the places where distributions put SoftHSM's module.
var modules = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
}

const install = "install the packages softhsm2 (Debian, Ubuntu) or softhsm (Fedora)"

// Token is one SoftHSM token in a directory of its own.
type Token struct {
	Module  string   // absolute path of libsofthsm2.so
	Label   string   // token label, unique per Make
	Serial  string   // token serial, 16 hex digits
	PINFile string   // mode 0400, the user PIN and a newline
	Env     []string // "SOFTHSM2_CONF=…": for hsm.Config.EnvAllow, or the env of a tool
	Dir     string   // holds all of the above
	PIN     string   // the user PIN in clear; a test's secret only
	SOPIN   string   // the security officer's PIN in clear
}

// New makes a token in a directory that is removed after t. A missing SoftHSM is
// fatal.
func New(t testing.TB) Token {
	t.Helper()
	dir, err := os.MkdirTemp(memory(), "testhsm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	tok, err := Make(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// memory is a directory in memory, or "" for the usual place. SoftHSM writes
// many small files, and on a busy disk one of them can take seconds: longer than
// the deadlines that tests of hsm set.
func memory() string {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || unix.Access(shm, unix.W_OK) != nil {
		return ""
	}
	return shm
}

// Make makes a token in dir, which it creates when needed and which must not
// already hold one. The caller removes dir.
func Make(dir string) (Token, error) {
	module, err := Module()
	if err != nil {
		return Token{}, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return Token{}, fmt.Errorf("locating the token directory: %w", err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Token{}, fmt.Errorf("making the token directory: %w", err)
	}
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return Token{}, fmt.Errorf("making the token directory: %w", err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	if err := writeNew(conf, text, 0o600); err != nil {
		return Token{}, err
	}
	tok := Token{
		Module:  module,
		Label:   "sigild-" + random(4),
		PINFile: filepath.Join(dir, "pin"),
		Env:     []string{"SOFTHSM2_CONF=" + conf},
		Dir:     dir,
		PIN:     random(8),
		SOPIN:   random(8),
	}
	if err := writeNew(tok.PINFile, tok.PIN+"\n", 0o400); err != nil {
		return Token{}, err
	}
	if tok.Serial, err = tok.Add(tok.Label); err != nil {
		return Token{}, err
	}
	return tok, nil
}

// Module is the path of SoftHSM's PKCS#11 module on this machine.
func Module() (string, error) {
	for _, m := range modules {
		if info, err := os.Stat(m); err == nil && info.Mode().IsRegular() {
			return m, nil
		}
	}
	return "", fmt.Errorf("finding libsofthsm2.so in %s: %w; %s", strings.Join(modules, ", "), fs.ErrNotExist, install)
}

// Add makes one more token with this label (which may be taken) and the same
// PINs beside the first, and returns its serial.
func (tok Token) Add(label string) (serial string, err error) {
	out, err := tok.run("softhsm2-util", "--module", tok.Module, "--init-token", "--free",
		"--label", label, "--so-pin", tok.SOPIN, "--pin", tok.PIN)
	if err != nil {
		return "", err
	}
	// The tool says only which slot it took: "… reassigned to slot 1234". In
	// SoftHSM the slot number is the last 31 bits of the serial, so ask for it.
	m := regexp.MustCompile(`reassigned to slot (\d+)`).FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("initialising token %q: softhsm2-util printed %q, no slot in it", label, out)
	}
	slots, err := tok.run("softhsm2-util", "--module", tok.Module, "--show-slots")
	if err != nil {
		return "", err
	}
	_, after, _ := bytes.Cut(slots, append([]byte("Slot "), append(m[1], '\n')...))
	s := regexp.MustCompile(`Serial number:\s+([0-9a-f]+)`).FindSubmatch(after)
	if s == nil {
		return "", fmt.Errorf("finding the serial of token %q: softhsm2-util --show-slots printed %q", label, slots)
	}
	return string(s[1]), nil
}

// Run runs a tool (pkcs11-tool, softhsm2-util) against the token's directory
// and fails t when the tool fails. The PIN is on its command line: tests only.
func (tok Token) Run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	out, err := tok.run(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (tok Token) run(name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("finding %s: %w; %s and opensc", name, err, install)
	}
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", name, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), tok.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running %s %s: %w: %s", name, args[0], err, out)
	}
	return out, nil
}

func writeNew(path, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing a token's file: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// random returns n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}
