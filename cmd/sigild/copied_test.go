package main

import (
	"context"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKernelSaysFork(t *testing.T) {
	for record, want := range map[string]bool{
		"5,843,188347735,-;random: crng reseeded due to virtual machine fork\n SUBSYSTEM=x\n": true,
		"6,1,2,-,caller=T1;random: crng reseeded due to virtual machine fork\n":               true,
		"13,843,188347735,-;random: crng reseeded due to virtual machine fork\n":              false, // a program's
		"5,843,188347735,-;random: crng init done\n":                                          false,
		"5,843,188347735,-;x random: crng reseeded due to virtual machine fork\n":             false,
		"-1,8,1,-;random: crng reseeded due to virtual machine fork\n":                        false,
		"random: crng reseeded due to virtual machine fork":                                   false,
		";": false, "": false,
	} {
		if got := saysFork([]byte(record)); got != want {
			t.Errorf("%q: %v, want %v", record, got, want)
		}
	}
}

// records are reads of a kernel's log.
type records struct {
	all []any
	end context.CancelFunc
}

func (r *records) Read(p []byte) (int, error) {
	if len(r.all) == 0 {
		r.end()
		return 0, os.ErrDeadlineExceeded
	}
	next := r.all[0]
	r.all = r.all[1:]
	if err, bad := next.(error); bad {
		return 0, err
	}
	return copy(p, next.(string)), nil
}

func TestForksAreWatchedFor(t *testing.T) {
	const fork = "5,9,1,-;random: crng reseeded due to virtual machine fork\n"
	ctx, end := context.WithCancel(t.Context())
	var told []string
	err := watchForks(ctx, &records{[]any{"6,1,1,-;eth0: up\n", fork, unix.EPIPE, "6,2,1,-;eth0: down\n", fork}, end}, func(by string) { told = append(told, by) })
	want := []string{"the kernel", "records of the kernel's log that were overwritten unread", "the kernel"}
	if err != nil || !slices.Equal(told, want) {
		t.Errorf("told by %q, %v; want %q", told, err, want)
	}
	ctx, end = context.WithCancel(t.Context())
	defer end()
	if err := watchForks(ctx, &records{[]any{unix.EIO}, end}, func(string) {}); err == nil {
		t.Error("a log that can't be read is read on")
	}
	// Anything but the device is left alone.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if log, err := kernelLog(int(r.Fd())); log != nil || err != nil {
		t.Errorf("a pipe is taken for the kernel's log: %v, %v", log, err)
	}
	if log, err := kernelLog(1 << 20); log != nil || err != nil {
		t.Errorf("a descriptor that is closed: %v, %v", log, err)
	}
}

func FuzzKernelRecord(f *testing.F) {
	f.Add([]byte("5,843,188347735,-;random: crng reseeded due to virtual machine fork\n"))
	f.Add([]byte("13,1,2,-;x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if saysFork(b) && (b[0] < '0' && b[0] != '+' || b[0] > '7' && b[0] != '+') {
			t.Errorf("%q is taken for the kernel's", b)
		}
	})
}
