package vault

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/hsm"
)

// mountTmpfs mounts a small file system of its own; tests run as root.
func mountTmpfs(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Fatalf("mounting a small tmpfs (tests run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

func remountReadOnly(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("remounting read-only: %v", err)
	}
}

func TestFullDiskIsToldAndSurvived(t *testing.T) {
	mnt := mountTmpfs(t, "2m")
	v, pin := create(t, filepath.Join(mnt, "state"))
	put(t, v, TypeWallet, "before", "text")
	big := make([]byte, 200<<10)
	undone := 0
	var err error
	n := 0
	for ; n < 50 && err == nil; n++ {
		err = v.Update(context.Background(), func(tx *Tx) error {
			tx.OnRollback(func() { undone++ })
			return tx.Put(TypeWallet, fmt.Sprint("big", n), big)
		})
	}
	if !errors.Is(err, ErrStoreFull) {
		t.Fatalf("after %d writes of 200 KiB into 2 MiB: %v, want ErrStoreFull", n, err)
	}
	if undone != 1 {
		t.Errorf("%d undo hooks ran, want 1", undone)
	}
	failed := fmt.Sprint("big", n-1)
	if _, err := get(v, TypeWallet, failed); !errors.Is(err, ErrNotFound) {
		t.Errorf("the record that didn't fit: %v, want ErrNotFound", err)
	}
	wantRecord(t, v, TypeWallet, "before", "text")
	if v.Info().Unwritable {
		t.Error("a full disk made the vault unwritable for good")
	}

	// With room again, it goes on.
	if err := unix.Mount("tmpfs", mnt, "tmpfs", unix.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	put(t, v, TypeWallet, failed, "fits now")
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeWallet, "before", "text")
	wantRecord(t, v, TypeWallet, failed, "fits now")
	for i := range n - 1 {
		if got, err := get(v, TypeWallet, fmt.Sprint("big", i)); err != nil || len(got) != len(big) {
			t.Errorf("big%d = %d bytes, %v", i, len(got), err)
		}
	}
}

func TestPageLimitIsToldAsFull(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeWallet, "before", "text")
	ctx := context.Background()
	if _, err := v.write.conn.ExecContext(ctx, "PRAGMA max_page_count = 40"); err != nil {
		t.Fatal(err)
	}
	err := v.Update(ctx, func(tx *Tx) error { return tx.Put(TypeWallet, "big", make([]byte, 500<<10)) })
	wantIs(t, err, ErrStoreFull)
	put(t, v, TypeWallet, "small", "still fits")
	if _, err := v.write.conn.ExecContext(ctx, "PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	put(t, v, TypeWallet, "big", strings.Repeat("x", 500<<10))
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeWallet, "small", "still fits")
}

const crashEnv = "SIGILD_VAULT_CRASH_CHILD"

// TestMain lets the test binary be the child that is killed, and an HSM's worker.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	for env, child := range map[string]func(string) error{crashEnv: crashChild, rotateEnv: rotateChild, restoreEnv: restoreChild} {
		if dir := os.Getenv(env); dir != "" {
			if err := child(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// crashChild writes until it is killed: each update bumps one of ten counters,
// adds a journal row, and is reported on stdout once it is acknowledged.
func crashChild(dir string) error {
	text, err := os.ReadFile(dir + ".pin")
	if err != nil {
		return err
	}
	pin, err := ParsePin(text)
	if err != nil {
		return err
	}
	v, err := openUnsealed(dir, pin)
	if err != nil {
		return err
	}
	start := v.Info().Seq
	done := make(chan error)
	for w := range 10 {
		go func() {
			for n := start; ; n++ {
				err := v.Update(context.Background(), func(tx *Tx) error {
					if err := benchRow(tx); err != nil {
						return err
					}
					return tx.Put(TypeWallet, fmt.Sprint("w", w), []byte(strconv.FormatUint(n, 10)))
				})
				if err != nil {
					done <- err
					return
				}
				fmt.Printf("%d %d\n", w, n) // one write(2), so a line is whole or absent
			}
		}()
	}
	return <-done
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	v, pin := create(t, stateDir(t))
	dir := v.cfg.Dir
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := pin.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+".pin", text, 0o600); err != nil {
		t.Fatal(err)
	}
	acked := make(map[int]uint64)
	total, rows := 0, uint64(0)
	for round := range 20 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			var w int
			var x uint64
			if _, err := fmt.Sscanf(sc.Text(), "%d %d", &w, &x); err != nil {
				t.Fatalf("child said %q", sc.Text())
			}
			acked[w] = x
			total++
			if n == 20+round*7 {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL, in the middle of its writing
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed by us
		if stderr.Len() > 0 {
			t.Fatalf("child failed: %s", stderr.String())
		}
		v, err := openUnsealed(dir, pin)
		if err != nil {
			t.Fatalf("opening after kill %d: %v", round, err)
		}
		for w, x := range acked {
			got, err := get(v, TypeWallet, fmt.Sprint("w", w))
			n, _ := strconv.ParseUint(got, 10, 64)
			if err != nil || n < x {
				t.Errorf("after kill %d: w%d = %q, %v; acknowledged was %d", round, w, got, err, x)
			}
		}
		i := v.Info()
		if i.JournalSeq < uint64(total) || i.JournalSeq < rows {
			t.Errorf("after kill %d: %d journal rows, acknowledged were %d", round, i.JournalSeq, total)
		}
		rows = i.JournalSeq
		if err := v.JournalRows(context.Background(), 1, 0, func(JournalRow) error { return nil }); err != nil {
			t.Errorf("after kill %d: %v", round, err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("20 kills, %d acknowledged updates, none lost", total)
}
