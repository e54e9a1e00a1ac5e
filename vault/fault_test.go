package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/internal/testdisk"
)

// The store on a disk that fails.

// Every write, truncation and fsync of a run of updates fails once, in every way:
// what was acknowledged is there afterwards, and after a failed fsync nothing more is
// acknowledged.
func TestCampaignFaultsOfTheDisk(t *testing.T) {
	dir, pin := closedStore(t)
	mnt, backing, f := testdisk.Mount(t)
	step := times(t, 7, 1)
	runs, refused := 0, 0
	for _, kind := range []testdisk.Fault{testdisk.EIO, testdisk.ENOSPC, testdisk.ShortWrite, testdisk.Fsync, testdisk.Dead} {
		for at := 1; ; at += step {
			name := fmt.Sprintf("%d", runs)
			to := filepath.Join(mnt, name)
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := copyFile(filepath.Join(dir, FileName), filepath.Join(to, FileName)); err != nil {
				t.Fatal(err)
			}
			f.Arm(kind, at, nil)
			acked, failed := underFaults(t, to, pin, f, kind)
			fired := f.Fired()
			f.Arm(kind, 0, nil)
			if failed {
				refused++
			}
			// What the disk really holds, read without the file system between.
			v, err := openUnsealed(filepath.Join(backing, name), pin)
			if err != nil {
				t.Fatalf("%s at operation %d: opening again: %v", kind, at, err)
			}
			for id, want := range acked {
				if got, err := get(v, TypeWallet, id); err != nil || got != want {
					t.Errorf("%s at operation %d: acknowledged %s = %d bytes, %v", kind, at, id, len(got), err)
				}
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(backing, name)); err != nil {
				t.Fatal(err)
			}
			if runs++; !fired {
				break
			}
		}
	}
	t.Logf("%d runs, in %d of them an update was refused; every acknowledged one is there", runs, refused)
}

// underFaults opens the store and writes, and says what was acknowledged.
func underFaults(t *testing.T, dir string, pin Pin, f *testdisk.Disk, kind testdisk.Fault) (acked map[string]string, failed bool) {
	acked = map[string]string{}
	v, err := openUnsealed(dir, pin)
	if err != nil {
		return acked, true // the fault came while it was being opened
	}
	for i := range 8 {
		id, text := fmt.Sprint("new", i), strings.Repeat("x", 100+9000*(i%3))
		before := f.Fired()
		err := v.Update(context.Background(), func(tx *Tx) error {
			if err := benchRow(tx); err != nil {
				return err
			}
			return tx.Put(TypeWallet, id, []byte(text))
		})
		switch {
		case err == nil && failed && kind == testdisk.Fsync:
			t.Errorf("%s: update %d was acknowledged after one had failed", kind, i)
		case err == nil && !before && f.Fired() && kind == testdisk.Fsync:
			t.Errorf("%s: update %d was acknowledged though its fsync failed", kind, i)
		case err == nil:
			acked[id] = text
		default:
			failed = true
			if !errors.Is(err, ErrUnwritable) && !errors.Is(err, ErrStoreFull) && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrTampered) {
				t.Errorf("%s: update %d: %v", kind, i, err)
			}
			if kind == testdisk.Fsync && !errors.Is(err, ErrUnwritable) {
				t.Errorf("%s: update %d: %v, want ErrUnwritable", kind, i, err)
			}
		}
	}
	_ = v.Close() // its last checkpoint may meet the fault
	return acked, failed
}
