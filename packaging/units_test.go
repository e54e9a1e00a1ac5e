package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// installed unpacks the package as it would be installed.
func installed(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	command(t, "dpkg-deb", "--extract", built(t).Deb, root)
	return root
}

// Every unit, alone and with each of the examples, is what systemd understands.
func TestUnitsAreUnderstood(t *testing.T) {
	root := installed(t)
	units := filepath.Join(root, "usr/lib/systemd/system")
	// Units that ours name come from this machine's systemd.
	for _, name := range []string{"local-fs.target", "sockets.target", "network-online.target", "multi-user.target", "basic.target", "sysinit.target", "shutdown.target", "-.mount", "-.slice", "system.slice", "systemd-journald.socket"} {
		body, err := os.ReadFile("/usr/lib/systemd/system/" + name)
		if err != nil {
			continue // generated
		}
		if err := os.WriteFile(filepath.Join(units, name), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	examples, err := filepath.Glob(filepath.Join(root, docPath, "examples/*.conf"))
	if err != nil || len(examples) != 7 {
		t.Fatalf("%d examples (%v)", len(examples), err)
	}
	for _, example := range append([]string{""}, examples...) {
		dropin := filepath.Join(units, "sigild.service.d")
		if err := os.RemoveAll(dropin); err != nil {
			t.Fatal(err)
		}
		if example != "" {
			if err := os.Mkdir(dropin, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dropin, "example.conf"), read(t, example), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := []string{"verify", "--root=" + root, "--man=no", "sigild.service", "sigild.socket", "sigild-admin.socket", "sigild-peer.socket", "sigild-link.service", "sigild-receive.service", "sigild-deliver.service", "sigild-helper.socket", "sigild-helper@1.service"}
		out, err := combined(t, "systemd-analyze", cmd...)
		newer := filepath.Base(example) == "debian13.conf" // what an older systemd doesn't know it says and ignores
		for line := range strings.Lines(out) {
			if strings.Contains(line, "sigild") && !(newer && strings.Contains(line, "ignoring")) {
				t.Errorf("with %q: %s", filepath.Base(example), line)
			}
		}
		if err != nil {
			t.Errorf("with %q: %v\n%s", filepath.Base(example), err, out)
		}
	}
}

// ceilings are the figures of systemd-analyze on Debian 12; 0 is the best, and nothing
// that Debian 12 packages has less than 1. What is left of the daemon's is AF_UNIX, the
// host's root folder, its users, and that it may ask the kernel whether NTP keeps the
// clock; setting it takes a capability. The units beside it have the network (1.0), and
// a vendor's program may be of any kind (0.3).
var ceilings = map[string]string{"sigild.service": "0.7", "sigild-link.service": "1.1", "sigild-deliver.service": "1.1", "sigild-receive.service": "1.1", "sigild-helper@.service": "1.4"}

func TestExposure(t *testing.T) {
	root := installed(t)
	units := filepath.Join(root, "usr/lib/systemd/system")
	services, err := filepath.Glob(filepath.Join(units, "*.service"))
	if err != nil || len(services) != len(ceilings) {
		t.Errorf("%d services (%v), and %d have a ceiling", len(services), err, len(ceilings))
	}
	for name, ceiling := range ceilings {
		out := command(t, "systemd-analyze", "security", "--offline=yes", "--no-pager", filepath.Join(units, name))
		_, figure, _ := strings.Cut(out, "Overall exposure level for ")
		_, figure, _ = strings.Cut(figure, ": ")
		if figure = strings.Fields(figure + " nothing")[0]; figure > ceiling {
			t.Errorf("exposure of %s is %s, at most %s is wanted:\n%s", name, figure, ceiling, out)
		}
	}
	unit := filepath.Join(units, "sigild.service")
	// A unit without its sandbox is seen.
	weak := strings.ReplaceAll(string(read(t, unit)), "PrivateNetwork=yes", "PrivateNetwork=no")
	if err := os.WriteFile(unit, []byte(weak), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := combined(t, "systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=5", unit); err == nil {
		t.Errorf("a unit with the network passes: %s", out)
	}
}
