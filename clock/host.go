package clock

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is the time of this machine.
type Host struct{}

// Wall is CLOCK_REALTIME.
func (Host) Wall() time.Time { return time.Now().Round(0) } // without Go's monotonic part

// SinceBoot is CLOCK_BOOTTIME (clock_gettime(2)), which counts sleep and can't be set.
func (Host) SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // there is no Linux on which that happens; as if booted this moment
	}
	return time.Duration(t.Nano())
}

// Bits of adjtimex(2).
const (
	staUnsync = 0x40
	timeError = 5
)

// Synced asks the kernel (adjtimex(2), which changes nothing so). Whoever steps the
// clock clears the state until NTP has set it again. Where a sandbox keeps us from
// asking it is no.
func (Host) Synced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != timeError && t.Status&staUnsync == 0
}

// BootEnv names this boot where /proc/sys is hidden: our unit sets it to %b.
const BootEnv = "SIGILD_BOOT_ID"

// BootID is the kernel's (random(4)), as 32 hexadecimal digits.
func (Host) BootID() string {
	id := os.Getenv(BootEnv)
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		id = string(b)
	}
	id = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(id), "-", ""))
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}
