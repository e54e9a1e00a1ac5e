package testhsm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMakeGivesAWorkingToken(t *testing.T) {
	tok := New(t)
	if len(tok.Serial) != 16 {
		t.Errorf("serial is %q, want 16 hex digits", tok.Serial)
	}
	info, err := os.Stat(tok.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o400 {
		t.Errorf("PIN file has mode %o, want 0400", got)
	}
	out := tok.Run(t, "pkcs11-tool", "--module", tok.Module, "--token-label", tok.Label, "--login", "--pin", tok.PIN, "--list-objects")
	if strings.Contains(string(out), "Object;") {
		t.Errorf("a fresh token lists objects:\n%s", out)
	}
	if os.Getenv("SOFTHSM2_CONF") != "" {
		t.Error("SOFTHSM2_CONF is set in the test's own environment")
	}
	second, err := tok.Add(tok.Label)
	if err != nil {
		t.Fatal(err)
	}
	if second == tok.Serial {
		t.Errorf("two tokens have the serial %s", second)
	}
}

func TestMakeRefusesAUsedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := Make(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(dir); err == nil {
		t.Error("Make succeeded in a directory that holds a token")
	}
}
