package sigild_test

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// machine makes a PATH that holds a few real commands and the given scripts: a
// machine that lacks the rest. apt-get there writes down how it was called.
func machine(t *testing.T, scripts map[string]string) (path, aptLog string) {
	t.Helper()
	dir := t.TempDir()
	aptLog = filepath.Join(dir, "apt.log")
	for _, name := range []string{"sh", "sort", "head", "env", "uname", "mktemp", "mkdir", "mv", "rm", "cat"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, body := range scripts {
		body = "#!/bin/sh\n" + strings.ReplaceAll(body, "LOG", aptLog) + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir, aptLog
}

// The prelude is a program a stranger runs as root: it must say what it does,
// do no more, and stop with advice where it can't.
func TestPrelude(t *testing.T) {
	const (
		goodGo  = "echo go1.26.8"
		apt     = `echo "$*" >>LOG`
		root    = "echo 0"
		mortal  = "echo 1000"
		sudo    = `echo "sudo $1" >>LOG; exec "$@"`
		present = "exit 0"
	)
	// ready is a machine that lacks nothing of `make test`, but for what differs.
	ready := func(differs map[string]string) map[string]string {
		m := map[string]string{"go": goodGo, "gcc": present, "softhsm2-util": present, "swtpm": present, "swtpm_ioctl": present, "tpm2_getcap": present, "pkcs11-tool": present,
			"node": "echo v20.18.0", "npm": present, "python3": present, "protoc": present, "apt-get": apt, "id": root,
			"systemd-nspawn": present, "mmdebstrap": present, "lintian": present, "rpm": present, "man": present, "ssh-keygen": present, "age-keygen": present, "openssl": present, "promtool": present}
		maps.Copy(m, differs)
		maps.DeleteFunc(m, func(_, body string) bool { return body == "" })
		return m
	}
	for _, tc := range []struct {
		name    string
		target  string
		scripts map[string]string
		ok      bool
		says    string
		apt     string // all that apt-get was asked, "" for nothing
	}{
		{"nothing lacks", "run", map[string]string{"go": goodGo, "gcc": present, "softhsm2-util": present}, true, "", ""},
		{"newest node", "test", ready(nil), true, "", ""},
		{"no container", "test", ready(map[string]string{"systemd-nspawn": "", "mmdebstrap": "", "lintian": "", "rpm": "", "man": "", "ssh-keygen": ""}), true, "lacks:\n  systemd-nspawn",
			"update -q\ninstall -q -y --no-install-recommends systemd-container mmdebstrap lintian rpm man-db openssh-client\n"},
		{"no TPM", "test", ready(map[string]string{"swtpm": "", "swtpm_ioctl": "", "tpm2_getcap": "", "pkcs11-tool": ""}), true, "lacks:\n  swtpm",
			"update -q\ninstall -q -y --no-install-recommends swtpm swtpm-tools tpm2-tools opensc\n"},
		{"no Python parts", "test", ready(map[string]string{"python3": "exit 1", "protoc": ""}), true, "lacks:\n  grpc, protobuf",
			"update -q\ninstall -q -y --no-install-recommends python3-grpcio python3-protobuf python3-cryptography protobuf-compiler libprotobuf-dev\n"},
		{"a fresh machine", "run", map[string]string{"go": goodGo, "apt-get": apt, "id": root}, true, "this machine lacks:\n  gcc",
			"update -q\ninstall -q -y --no-install-recommends gcc libc6-dev softhsm2\n"},
		{"as a user", "run", map[string]string{"go": goodGo, "gcc": present, "apt-get": apt, "id": mortal, "sudo": sudo}, true, "now running: sudo apt-get install --no-install-recommends softhsm2",
			"sudo apt-get\nupdate -q\nsudo env\ninstall -q -y --no-install-recommends softhsm2\n"},
		{"as a user without sudo", "run", map[string]string{"go": goodGo, "gcc": present, "apt-get": apt, "id": mortal}, false, "as root, run: apt-get install softhsm2", ""},
		{"not a Debian", "run", map[string]string{"go": goodGo, "id": root}, false, "install by hand what Debian calls gcc libc6-dev softhsm2", ""},
		{"no Go", "run", map[string]string{}, false, "go is missing", ""},
		{"an old Go", "run", map[string]string{"go": "echo go1.19.8"}, false, "go1.19.8 is too old", ""},
		{"an old node", "test", ready(map[string]string{"node": "echo v18.20.4", "npm": `echo "npm $*" >>LOG`}), true, "node v18.20.4 is too old",
			"npm install --prefix bin/node --no-save --no-audit --no-fund node-linux-" + map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH] + "@22.23.3\n"},
		{"no promtool", "test", ready(map[string]string{"promtool": "", "apt-get": `echo "$*" >>LOG; echo deb >prometheus_1.deb`, "dpkg-deb": `cat "$2"`,
			"tar": `read -r deb && [ "$deb" = deb ] && mkdir -p usr/bin && echo tool >"$3"`}), true, "lacks promtool", "download -q prometheus\n"},
		{"apt-get fails", "run", map[string]string{"go": goodGo, "gcc": present, "apt-get": "echo E: no network >&2; exit 100", "id": root}, false, "E: no network", ""},
		{"a target it doesn't know", "all", map[string]string{}, false, "usage", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, aptLog := machine(t, tc.scripts)
			script, err := filepath.Abs("scripts/prelude.sh")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(script, tc.target)
			cmd.Dir = t.TempDir()                                // without a bin/ of its own
			cmd.Env = []string{"PATH=" + path, "PYTHON=python3"} // not /usr/bin/python3, which may be there
			out, err := cmd.CombinedOutput()
			if (err == nil) != tc.ok || !strings.Contains(string(out), tc.says) {
				t.Errorf("error %v, want ok %v and %q in:\n%s", err, tc.ok, tc.says, out)
			}
			asked, err := os.ReadFile(aptLog)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if string(asked) != tc.apt {
				t.Errorf("apt-get was asked %q, want %q", asked, tc.apt)
			}
		})
	}
}
