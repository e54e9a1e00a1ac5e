package tpm

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
)

func TestConfigIsChecked(t *testing.T) {
	name := append([]byte{0, 0x0b}, bytes.Repeat([]byte{1}, 32)...)
	for _, row := range []struct {
		cfg  Config
		text string // empty: accepted
	}{
		{Config{}, ""},
		{Config{Path: "/dev/tpmrm0", SRKName: name, SecretFile: "/s"}, ""},
		{Config{Path: "unix:/run/tpm/sock"}, ""},
		{Config{Path: "tpmrm0"}, "absolute"},
		{Config{Path: "unix:sock"}, "absolute"},
		{Config{Path: "unix:"}, "absolute"},
		{Config{Path: "/dev/tpm0"}, "/dev/tpmrm0"},
		{Config{Path: "/dev/tpm12"}, "/dev/tpmrm12"},
		{Config{CommandTimeout: -time.Second}, "negative"},
		{Config{SRKName: name[:33]}, "34"},
		{Config{SRKName: append(name, 0)}, "34"},
		{Config{SRKName: append([]byte{0, 0x0c}, name[2:]...)}, "000b"},
		{Config{SecretFile: "secret"}, "absolute"},
	} {
		got, err := row.cfg.complete()
		if row.text != "" {
			if _, err := Open(t.Context(), row.cfg); err == nil {
				t.Errorf("%+v was opened", row.cfg)
			}
			if err == nil || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%+v: %v, want an error with %q", row.cfg, err, row.text)
			}
			continue
		}
		if err != nil || got.Path == "" || got.CommandTimeout <= 0 || got.Log == nil {
			t.Errorf("%+v: %+v, %v, want it complete", row.cfg, got, err)
		}
	}
}

func TestRefsAreStrict(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for ref, want := range map[string]bool{
		"000b" + good: true, "000B" + good: false, "000b" + strings.ToUpper(good): false, "000c" + good: false,
		good: false, "000b" + good + "00": false, "": false, " 000b" + good: false,
	} {
		if _, err := parseRef(seal.KeyRef(ref)); (err == nil) != want {
			t.Errorf("%q: %v, want accepted %v", ref, err, want)
		}
	}
}

// The provider is pure Go: it works in a daemon that is built without cgo.
func TestBuildsWithoutCgo(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", os.DevNull, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("building without cgo: %v\n%s", err, out)
	}
}
