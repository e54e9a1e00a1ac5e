package secmem

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HardenProcess makes this process unreadable to others of its user (ptrace,
// /proc/<pid>/mem) and forbids core dumps. Call it first in main, before any
// secret is read.
func HardenProcess() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: 0}); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	return nil
}
