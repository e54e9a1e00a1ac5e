package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The example files of the processes beside the daemon are what those read.
func TestExamplesOfTheProcessesBeside(t *testing.T) {
	dir := t.TempDir()
	example := func(name string, change ...string) string {
		t.Helper()
		b, err := os.ReadFile("../../packaging/" + name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.NewReplacer(change...).Replace(string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p, err := LoadHelper(example("helper.yaml"))
	if err != nil || p.Path != "/usr/lib/vendor/sign" || len(p.Callers) != 1 {
		t.Errorf("helper.yaml: %+v, %v", p, err)
	}
	r, certificate, err := LoadReceive(example("receive.yaml", "/etc/sigild/receive.pem", `""`, "/etc/sigild/receive.key", `""`))
	if err != nil || certificate != nil || r.Listen != "[::]:8443" {
		t.Errorf("receive.yaml: %+v, %v", r, err)
	}
	if _, _, err := LoadReceive(example("receive.yaml")); err == nil {
		t.Error("a receiver without its certificate starts")
	}
	d, roots, err := LoadDeliver(example("deliver.yaml"))
	if err != nil || roots != nil || d.Daemon != "/run/sigild/sigild.sock" {
		t.Errorf("deliver.yaml: %+v, %v", d, err)
	}
	for what, change := range map[string][2]string{
		"a relative program": {"/usr/lib/vendor/sign", "sign"},
		"a short hash":       {"0000000000000000000000000000000000000000000000000000000000000000", "00"},
		"no caller":          {"[998]", "[]"},
		"an hour":            {"15s", "1h"},
		"an unknown key":     {"timeout:", "time_out:"},
	} {
		if _, err := LoadHelper(example("helper.yaml", change[0], change[1])); err == nil {
			t.Errorf("%s: it is read", what)
		}
	}
}
