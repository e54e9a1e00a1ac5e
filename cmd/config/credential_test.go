package config

import (
	"log/slog"
	"strings"
	"testing"
)

func TestPINFromACredential(t *testing.T) {
	c, err := Parse([]byte(strings.Replace(small, "/etc/sigild/hsm-pin", "credential:hsm-pin", 1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/sigild.service")
	if got := c.HSM(slog.Default()).PINFile; got != "/run/credentials/sigild.service/hsm-pin" {
		t.Errorf("the PIN is sought in %s", got)
	}
	// The unit brought none: no file has that name, and the error shows it.
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if got := c.HSM(slog.Default()).PINFile; got != "credential:hsm-pin" {
		t.Errorf("without credentials the PIN is sought in %s", got)
	}
	// A path is a path, whatever the unit brought.
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/sigild.service")
	c, err = Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.HSM(slog.Default()).PINFile; got != "/etc/sigild/hsm-pin" {
		t.Errorf("the PIN is sought in %s", got)
	}
}

func TestPINFromACredentialRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../store.pin", "a/b", "-x", `"a b"`, "ü", strings.Repeat("n", 65)} {
		_, err := Parse([]byte(strings.Replace(small, "/etc/sigild/hsm-pin", "'credential:"+name+"'", 1)))
		if err == nil || !strings.Contains(err.Error(), "can't be the name of a systemd credential") {
			t.Errorf("credential:%s: %v", name, err)
		}
	}
}
