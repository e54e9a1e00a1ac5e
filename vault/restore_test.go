package vault

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/seal"
)

// backedUp makes an anchored store with a recovery group, backs it up while it is
// open, and goes on with a revocation.
func backedUp(t *testing.T) (v *Vault, pin Pin, c *softCounter, devices map[string]seal.Sealer, backup string) {
	t.Helper()
	v, pin, c, devices = anchored(t)
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		t.Fatal(err)
	}
	addGroup(t, v, people.Holder())
	for i := range 20 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), fmt.Sprint("text ", i))
	}
	put(t, v, TypeAPIKey, "k", "verifier")
	if err := v.Update(context.Background(), benchRow); err != nil {
		t.Fatal(err)
	}
	backup = filepath.Join(t.TempDir(), "backup.db")
	info, err := BackUp(context.Background(), filepath.Join(v.cfg.Dir, FileName), backup, pin)
	if err != nil {
		t.Fatal(err)
	}
	if now := v.Info(); info.Seq != now.Seq || info.Records != now.Records || info.Epoch != now.Epoch || !info.Recoverable() || len(info.Slots) != 2 {
		t.Errorf("backup is %+v, the store %+v", info, now)
	}
	if err := revoke(v, "k"); err != nil {
		t.Fatal(err)
	}
	return v, pin, c, devices, backup
}

func restoreInto(dir, backup string, pin Pin, c seal.Sealer, people *Custodians) error {
	ctx := context.Background()
	r, err := BeginRestore(ctx, Config{Dir: dir}, backup, pin, people)
	if err != nil {
		return err
	}
	if _, err := r.ReadAll(ctx); err != nil {
		return errors.Join(err, r.Abandon())
	}
	g, err := r.Prepare(ctx, KeyHolder{Sealer: c, ID: softID, Ref: "0102"})
	if err == nil {
		err = r.Vault().UpdateAlone(ctx, func(tx *Tx) error {
			if err := tx.Put(TypeOrganization, "o", []byte("quarantine")); err != nil {
				return err
			}
			return r.Restore(tx, g)
		})
	}
	if err != nil {
		return errors.Join(err, r.Abandon())
	}
	return r.Finish(ctx, c)
}

func TestABackupIsRestoredByItsCustodians(t *testing.T) {
	v, pin, c, devices, backup := backedUp(t)
	ctx := context.Background()
	if _, err := BackUp(ctx, filepath.Join(v.cfg.Dir, FileName), backup, pin); !errors.Is(err, ErrExists) {
		t.Errorf("over a backup: %v, want ErrExists", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	two := PresentCustodians(custodianIdentities(t, 0, 1)...)
	// A store that is there is not touched, and one custodian is not enough.
	wantIs(t, restoreInto(v.cfg.Dir, backup, pin, c, two), ErrExists)
	dir := stateDir(t)
	wantIs(t, restoreInto(dir, backup, pin, c, PresentCustodians(custodianIdentities(t, 1)...)), ErrCustodians)
	other := pin
	other.StoreID[0]++
	wantIs(t, restoreInto(dir, backup, other, c, two), ErrPinMismatch)
	if entries, err := os.ReadDir(dir); err == nil {
		for _, e := range entries {
			if e.Name() != LockName {
				t.Errorf("a restoration that failed left %s", e.Name())
			}
		}
	}

	// As it is the backup is an older copy; restored it is the store, and what was
	// the store is an older copy.
	asItIs := stateDir(t)
	if err := os.Mkdir(asItIs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(backup, filepath.Join(asItIs, FileName)); err != nil {
		t.Fatal(err)
	}
	_, err := openCopy(t, asItIs, pin, devices)
	wantIs(t, err, ErrRollback)
	if err := restoreInto(dir, backup, pin, c, two); err != nil {
		t.Fatal(err)
	}
	restored, err := openCopy(t, dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, restored, TypeWallet, "w7", "text 7")
	wantRecord(t, restored, TypeOrganization, "o", "quarantine")
	if got := restored.Slots(); len(got) != 2 || got[0].Provider != RecoveryProvider || got[1].Provider != softID {
		t.Errorf("slots = %+v", got)
	}
	_, err = openCopy(t, v.cfg.Dir, pin, devices)
	wantIs(t, err, ErrRollback)
}

// A restoration that dies at any step leaves nothing that opens, and is repeated.
func TestARestorationThatDiesIsRepeated(t *testing.T) {
	v, pin, c, devices, backup := backedUp(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	dir := stateDir(t)
	two := PresentCustodians(custodianIdentities(t, 2, 1)...)
	r, err := BeginRestore(ctx, Config{Dir: dir}, backup, pin, two)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.v.Close(), r.lock.Close()); err != nil { // no Abandon: it died
		t.Fatal(err)
	}
	_, err = Open(ctx, Config{Dir: dir}, pin)
	wantIs(t, err, ErrMissing)
	// The counter moved, but the name was not given.
	c.value++
	if err := restoreInto(dir, backup, pin, c, two); err != nil {
		t.Fatal(err)
	}
	restored, err := openCopy(t, dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, restored, TypeWallet, "w3", "text 3")
}

// Where keys are rolled the backup as it is opens no more once it was restored.
func TestARestoredBackupIsShutByAKEKRoll(t *testing.T) {
	v, pin, r, devices := rolled(t, Anchor{Provider: "r"})
	ctx := context.Background()
	people, err := NewCustodians(1, custodianNames)
	if err != nil {
		t.Fatal(err)
	}
	addGroup(t, v, people.Holder())
	put(t, v, TypeWallet, "w", "text")
	backup := filepath.Join(t.TempDir(), "backup.db")
	if _, err := BackUp(ctx, filepath.Join(v.cfg.Dir, FileName), backup, pin); err != nil {
		t.Fatal(err)
	}
	ref := v.Slots()[0].Ref
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	dir := stateDir(t)
	n, err := BeginRestore(ctx, Config{Dir: dir}, backup, pin, PresentCustodians(custodianIdentities(t, 1)...))
	if err != nil {
		t.Fatal(err)
	}
	g, err := n.Prepare(ctx, KeyHolder{Sealer: r, ID: "r", Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Vault().UpdateAlone(ctx, func(tx *Tx) error { return n.Restore(tx, g) }); err != nil {
		t.Fatal(err)
	}
	if err := n.Finish(ctx, r); err != nil {
		t.Fatal(err)
	}
	restored, err := openCopy(t, dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, restored, TypeWallet, "w", "text")
	_, err = openCopy(t, v.cfg.Dir, pin, devices)
	wantIs(t, err, ErrRollback)
}

// Whatever is changed in a backup is found without a key, but for the head's MAC
// and what only a key can tell, which the restoration finds.
func TestAChangedBackupIsFound(t *testing.T) {
	v, pin, _, _, backup := backedUp(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for name, q := range map[string]string{
		"a record deleted":   "DELETE FROM rec WHERE k = (SELECT k FROM leaf WHERE t = 6 LIMIT 1)",
		"a record exchanged": "UPDATE rec SET v = (SELECT v FROM rec r WHERE r.k <> rec.k LIMIT 1) WHERE k = (SELECT k FROM leaf WHERE t = 6 LIMIT 1)",
		"a leaf changed":     "UPDATE leaf SET ver = ver + 1 WHERE t = 16",
		"a journal row":      "DELETE FROM journal",
		"a keyslot":          "DELETE FROM slot WHERE id = 2",
		"a group":            "DELETE FROM slot_group WHERE id = 1",
		"the head":           "UPDATE head SET body = zeroblob(157)",
		"a statement":        "UPDATE generation SET body = zeroblob(129)",
	} {
		path := filepath.Join(t.TempDir(), "b.db")
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := openDB(path, "mode=rw", 1)
		if err != nil {
			t.Fatal(err)
		}
		func(db *sql.DB) { sqlExec(t, db, q) }(db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyFile(ctx, path, pin); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrPinMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "cut": whole[:len(whole)/2], "noise": bytes.Repeat([]byte("noise"), 9000)} {
		path := filepath.Join(t.TempDir(), "b.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyFile(ctx, path, pin); err == nil {
			t.Errorf("%s was believed", name)
		}
	}
	if _, err := VerifyFile(ctx, backup, pin); err != nil {
		t.Error(err)
	}
}
