package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The commands of docs/quickstart-share.md run as they stand, in an empty folder.
func TestSharePageRunsAsWritten(t *testing.T) {
	becomeScratch(t)
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.killPids(t) }) // of a page that failed in its middle
	out := runPage(t, "quickstart-share.md", p, "PORT="+port)
	for what, times := range map[string]int{
		"written to first.answer":  1,
		"written to second.answer": 1,
		"written to third.answer":  1,
		"LIMIT_EXCEEDED":           1,
		"no policy allows it":      1,
		"PAUSED":                   1,
		"payouts: may sign when":   1,
		"left of":                  1,
		"2 signed, 1 not":          1,
		"destroyed":                1,
		"status      revoked":      1,
		"asked by":                 1,
		"This proves that the daemon removed what is named": 1,
		"journal of appliance":                              2,
	} {
		if got := strings.Count(out, what); got < times {
			t.Errorf("%q is there %d times, want %d or more", what, got, times)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// killPids ends what the pid files of a page name, where it still is what the page began.
func (p place) killPids(t *testing.T) {
	files, err := filepath.Glob(p.path("*pid"))
	if err != nil {
		t.Error(err)
	}
	more, err := filepath.Glob(p.path("*/pid"))
	if err != nil {
		t.Error(err)
	}
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd == p.dir {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
