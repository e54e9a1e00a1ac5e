//go:build cgo

package hsm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Without cgo the package is another, with tests of its own: nocgo_test.go. With the
// whole matrix the daemon is built so, too.
func TestCampaignWithoutCgo(t *testing.T) {
	without := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s without cgo: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := without("test", "-count=1", "-v", "-run", "^TestWithoutCgoNothingOpens$", "."); !strings.Contains(out, "--- PASS: TestWithoutCgoNothingOpens") {
		t.Errorf("the test did not run:\n%s", out)
	}
	if campaign() {
		daemon := filepath.Join(t.TempDir(), "sigild")
		without("build", "-o", daemon, "../cmd/sigild")
		out, err := exec.Command(daemon, workerArg).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "built without cgo: no PKCS#11") {
			t.Errorf("its worker says %v, %q, want why it can't work", err, out)
		}
	}
}
