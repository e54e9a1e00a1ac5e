package main_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// sigild refuses root, and CI runs as root: the tests become an unprivileged
// user without an entry in /etc/passwd. Whoever starts them unprivileged stays
// who they are, and the few steps that need root fail and say so.
const scratchUID = 54321

// becomeScratch makes this process, and so all it starts, the scratch user until
// the end of t. The saved uid stays 0, for the way back and for asRoot.
func becomeScratch(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	groups, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		syscall.Setgroups(nil),
		syscall.Setresgid(scratchUID, scratchUID, 0),
		syscall.Setresuid(scratchUID, scratchUID, 0),
	); err != nil {
		t.Fatalf("becoming uid %d: %v", scratchUID, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(syscall.Setresuid(0, 0, 0), syscall.Setresgid(0, 0, 0), syscall.Setgroups(groups)); err != nil {
			t.Errorf("becoming root again: %v", err)
		}
	})
}

// asRoot runs f, and the processes that f starts, as root, while the rest of
// this process stays the scratch user: on Linux a thread has its own ids.
func asRoot(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		for _, call := range []uintptr{unix.SYS_SETRESUID, unix.SYS_SETRESGID} {
			if _, _, errno := unix.RawSyscall(call, 0, 0, 0); errno != 0 {
				done <- fmt.Errorf("becoming root: %w: run this test as root, as CI does", errno)
				return
			}
		}
		done <- f()
	}()
	return <-done
}
