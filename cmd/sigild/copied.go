package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Two copies of this machine must not both use one presignature. That it was copied, or
// goes on from a snapshot, comes as SIGUSR1 (a udev rule's, or a person's), or from the
// kernel's own log, where the unit hands it over as standard input (vm-generation.conf).

// dropAtCopy drops presignatures at every SIGUSR1, until ctx ends.
func (k *keeper) dropAtCopy(ctx context.Context) error {
	copied := make(chan os.Signal, 1)
	signal.Notify(copied, syscall.SIGUSR1)
	defer signal.Stop(copied)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-copied:
			k.dropCopied("SIGUSR1")
		}
	}
}

func (k *keeper) dropCopied(told string) {
	k.mu.Lock()
	if k.open != nil {
		k.open.presignatures.Drop("the machine was copied or resumed")
	}
	k.mu.Unlock()
	k.log.Warn("told that this machine was copied or resumed from a snapshot", "by", told)
}

// dropAtFork reads the kernel's log, if that is our standard input, until ctx ends, and
// drops presignatures when the kernel says that the machine's generation has changed.
// What was overwritten before we read it may have said so.
func (k *keeper) dropAtFork(ctx context.Context) error {
	log, err := kernelLog(syscall.Stdin)
	if log == nil || err != nil {
		return err
	}
	defer log.Close()
	defer context.AfterFunc(ctx, func() { _ = log.SetReadDeadline(time.Unix(1, 0)) })()
	k.log.Info("watching the kernel's log for copies of this machine")
	return watchForks(ctx, log, k.dropCopied)
}

// kmsg is the device of the kernel's log, character 1:11.
var kmsg = unix.Mkdev(1, 11)

// kernelLog is a descriptor that is the kernel's log, at its end; nil for another.
func kernelLog(fd int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != kmsg {
		return nil, nil // closed, or anything else
	}
	if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("going to the end of the kernel's log: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that a wait for it can be ended
		return nil, fmt.Errorf("reading the kernel's log: %w", err)
	}
	return os.NewFile(uintptr(fd), "kernel log"), nil
}

// watchForks reads records, one a read, until ctx ends.
func watchForks(ctx context.Context, log io.Reader, drop func(told string)) error {
	record := make([]byte, 8<<10) // the kernel's longest, CONSOLE_EXT_LOG_MAX
	for {
		n, err := log.Read(record)
		switch {
		case ctx.Err() != nil, errors.Is(err, fs.ErrClosed), errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EPIPE):
			drop("records of the kernel's log that were overwritten unread")
		case err != nil:
			return fmt.Errorf("reading the kernel's log: %w", err)
		case saysFork(record[:n]):
			drop("the kernel")
		}
	}
}

// saysFork reads a record of /dev/kmsg: "level,number,time,flags;text". Others may write
// there, too, with a facility of theirs in the level; the kernel's is 0. The words are
// those of add_vmfork_randomness (Linux 5.18 and newer).
func saysFork(record []byte) bool {
	head, text, ok := bytes.Cut(record, []byte{';'})
	level, _, _ := bytes.Cut(head, []byte{','})
	n, err := strconv.Atoi(string(level))
	return ok && err == nil && n >= 0 && n < 8 && bytes.HasPrefix(text, []byte("random: crng reseeded due to virtual machine fork"))
}
