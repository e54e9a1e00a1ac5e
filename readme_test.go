package sigild_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The session in README.md is pasted into a shell, as a stranger would, who is
// not root.
func TestREADMESession(t *testing.T) {
	script := fenced(t, string(read(t, "README.md")), "sh")
	dir, err := os.MkdirTemp("", "sigild-readme-") // the folder above t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "bin")+"/", "./cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu")
	cmd.Stdin = strings.NewReader(script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	// A group of its own, so that a daemon that is left behind ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		const scratch = 54321
		if err := os.Chown(dir, scratch, scratch); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: scratch, Gid: scratch}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the session failed: %v\n%s", err, out)
	}
	for _, want := range []string{"appliance", "quorum 1", "anchor"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the session doesn't show %q:\n%s", want, out)
		}
	}
}

// The caller in README.md is compiled: line for line it is in an example of client.
func TestREADMECaller(t *testing.T) {
	caller := fenced(t, string(read(t, "README.md")), "go")
	if n := strings.Count(caller, "\n"); n > 10 {
		t.Errorf("the caller has %d lines, at most 10 were promised", n)
	}
	const inside = "client/example_test.go"
	body := "\t" + strings.ReplaceAll(strings.TrimSuffix(caller, "\n"), "\n", "\n\t") + "\n"
	if !strings.Contains(string(read(t, inside)), " {\n"+body+"}\n") {
		t.Errorf("%s has no function with this body:\n%s", inside, body)
	}
}

// fenced returns the one block of text that begins with ```lang.
func fenced(t *testing.T, text, lang string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n```"+lang+"\n")
	block, rest, ended := strings.Cut(rest, "\n```\n")
	if !ok || !ended || strings.Contains(rest, "\n```"+lang+"\n") {
		t.Fatalf("want exactly one block of %s", lang)
	}
	return block + "\n"
}
