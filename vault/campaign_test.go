package vault

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/seal"
)

// The long campaigns, a sample of each in make test, all of it with CAMPAIGN=1
// (make campaign-vault). A seed is printed where there is one.

// times is the size of a campaign.
func times(t *testing.T, sample, all int) int {
	if os.Getenv("CAMPAIGN") == "" {
		return sample
	}
	t.Logf("the whole campaign: %d", all)
	return all
}

const rotateEnv = "SIGILD_VAULT_ROTATE_CHILD"

// rotateChild writes, adds and removes keyslots, and rotates the root key until it
// is killed, and says what was acknowledged.
func rotateChild(dir string) error {
	ctx := context.Background()
	v, err := openChild(dir)
	if err != nil {
		return err
	}
	done := make(chan error)
	from := v.Info().Seq
	go func() {
		for n := from; ; n++ {
			err := v.Update(ctx, func(tx *Tx) error {
				return tx.Put(TypeWallet, fmt.Sprint("w", n%300), []byte(strconv.FormatUint(n, 10)))
			})
			if err != nil {
				done <- err
				return
			}
			fmt.Printf("put %d %d\n", n%300, n)
		}
	}()
	go func() {
		for {
			if err := changeKeys(ctx, v); err != nil {
				done <- err
				return
			}
		}
	}()
	return <-done
}

// changeKeys is one round of what operators do.
func changeKeys(ctx context.Context, v *Vault) error {
	if _, err := v.Rewrap(ctx); err != nil {
		return err
	}
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		return err
	}
	g, err := v.PrepareGroup(ctx, people.Holder())
	if err != nil {
		return err
	}
	if err := v.UpdateAlone(ctx, func(tx *Tx) error { return tx.AddGroup(g) }); err != nil {
		return err
	}
	fmt.Printf("groups %d\n", len(v.Slots()))
	if slots := v.Slots(); len(slots) > 4 {
		if err := v.UpdateAlone(ctx, func(tx *Tx) error { return tx.RemoveGroup(slots[1].Group) }); err != nil {
			return err
		}
		fmt.Printf("removed %d\n", slots[1].Group)
	}
	n, err := v.PrepareRoot(ctx)
	if err != nil {
		return err
	}
	defer n.Discard()
	if err := v.UpdateAlone(ctx, func(tx *Tx) error { return tx.RotateRoot(n) }); err != nil {
		return err
	}
	fmt.Printf("root %d\n", n.Generation())
	_, err = v.Rewrap(ctx)
	return err
}

// openChild opens the store whose pin lies beside its folder.
func openChild(dir string) (*Vault, error) {
	text, err := os.ReadFile(dir + ".pin")
	if err != nil {
		return nil, err
	}
	pin, err := ParsePin(text)
	if err != nil {
		return nil, err
	}
	return openUnsealed(dir, pin)
}

// Killed anywhere in writing, keyslot changes and rotations the store opens, by the
// device and by the custodians, with all that was acknowledged.
func TestCampaignKillsWhileKeysChange(t *testing.T) {
	v, pin := create(t, stateDir(t))
	dir := v.cfg.Dir
	for i := range 300 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), "0")
	}
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
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 0))
	acked := map[string]uint64{}
	root, rotations := uint64(1), 0
	kills := times(t, 12, 500)
	for round := range kills {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), rotateEnv+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := 5 + rng.IntN(250)
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			var w string
			var x uint64
			switch line := sc.Text(); {
			case strings.HasPrefix(line, "put "):
				if _, err := fmt.Sscanf(line, "put %s %d", &w, &x); err != nil {
					t.Fatalf("child said %q", line)
				}
				acked["w"+w] = x
			case strings.HasPrefix(line, "root "):
				if _, err := fmt.Sscanf(line, "root %d", &root); err != nil {
					t.Fatalf("child said %q", line)
				}
				rotations++
			}
			if n == after {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed by us
		if stderr.Len() > 0 {
			t.Fatalf("seed %d, kill %d: child failed: %s", seed, round, stderr.String())
		}
		v, err := openUnsealed(dir, pin)
		if err != nil {
			t.Fatalf("seed %d: opening after kill %d: %v", seed, round, err)
		}
		if i := v.Info(); uint64(i.Generation) < root {
			t.Errorf("after kill %d: root key %d, acknowledged was %d", round, i.Generation, root)
		}
		for w, x := range acked {
			got, err := get(v, TypeWallet, w)
			n, _ := strconv.ParseUint(got, 10, 64)
			if err != nil || n < x {
				t.Errorf("after kill %d: %s = %q, %v; acknowledged was %d", round, w, got, err, x)
			}
		}
		if len(v.Slots()) > 1 {
			v.Seal()
			people := map[string]seal.Sealer{RecoveryProvider: PresentCustodians(custodianIdentities(t, 0, 1)...)}
			if err := v.Unseal(context.Background(), people); err != nil {
				t.Errorf("after kill %d: custodians: %v", round, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d records acknowledged, %d rotations acknowledged, root key %d", kills, len(acked), rotations, root)
}

// A backup and a restoration that are killed leave a store that opens, or none, and
// the next try succeeds.
func TestCampaignKillsOfBackupAndRestore(t *testing.T) {
	v, pin := create(t, stateDir(t))
	dir := v.cfg.Dir
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		t.Fatal(err)
	}
	addGroup(t, v, people.Holder())
	for i := range 300 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), strings.Repeat("x", 2000))
	}
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
	rng := rand.New(rand.NewPCG(6, 0))
	backups, restored := 0, 0
	for range times(t, 12, 500) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), restoreEnv+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.IntN(250)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed by us, or done
		backup, to := dir+".backup", dir+".restored"
		if _, err := os.Stat(backup); err == nil {
			if _, err := VerifyFile(context.Background(), backup, pin); err == nil {
				backups++
			} else if !errors.Is(err, ErrTampered) && !errors.Is(err, ErrSchema) {
				t.Errorf("a backup that was cut off: %v", err)
			}
		}
		v, err := Open(context.Background(), Config{Dir: to}, pin)
		switch {
		case err == nil:
			if err := v.Unseal(context.Background(), softSealers); err != nil {
				t.Errorf("restored: %v", err)
			} else {
				wantRecord(t, v, TypeWallet, "w299", strings.Repeat("x", 2000))
			}
			_ = v.Close()
			restored++
		case !errors.Is(err, ErrMissing):
			t.Errorf("a restoration that was cut off: %v", err)
		}
		for _, path := range []string{backup, to} {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
		for _, stray := range []string{"-wal", "-shm", "-journal"} {
			_ = os.Remove(backup + stray)
		}
	}
	t.Logf("%d backups and %d restorations were done when they were killed", backups, restored)
}

const restoreEnv = "SIGILD_VAULT_RESTORE_CHILD"

// restoreChild backs the store up and restores the backup elsewhere.
func restoreChild(dir string) error {
	text, err := os.ReadFile(dir + ".pin")
	if err != nil {
		return err
	}
	pin, err := ParsePin(text)
	if err != nil {
		return err
	}
	if _, err := BackUp(context.Background(), filepath.Join(dir, FileName), dir+".backup", pin); err != nil {
		return err
	}
	var ids []age.Identity
	for _, k := range custodianKeys[:2] {
		id, err := age.ParseX25519Identity(k)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	return restoreInto(dir+".restored", dir+".backup", pin, softSealers[softID], PresentCustodians(ids...))
}

// Bits, pages, ends: a file that a bad disk changed is refused, or whole.
func TestCampaignDamagedFiles(t *testing.T) {
	dir, pin := closedStore(t)
	want, err := readAll(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	const page, seed = 4096, 7
	rng := rand.New(rand.NewPCG(seed, 0))
	refused, n := 0, times(t, 100, 1000)
	for i := range n {
		b := bytes.Clone(whole)
		at := rng.IntN(len(b))
		switch i % 6 {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			clear(b[at/page*page : at/page*page+page])
		case 2:
			other := rng.IntN(len(b)) / page * page
			copy(b[at/page*page:], whole[other:other+page])
		case 3:
			b = b[:at]
		case 4:
			for range 20 {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
		case 5: // a torn page: its second half is another's
			other := rng.IntN(len(b)) / page * page
			copy(b[at/page*page+page/2:at/page*page+page], whole[other+page/2:other+page])
		}
		d := stateDir(t)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, FileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(d, pin)
		if err != nil {
			refused++
		} else {
			for id, text := range want {
				if got[id] != text {
					t.Errorf("seed %d, damage %d: %s = %q, want %q or an error", seed, i, id, got[id], text)
				}
			}
		}
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d damaged files refused, the others whole", refused, n)
}
