package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

// softSealer seals in software, for this package's tests: the format and the
// store are under test here, the devices have tests of their own.
type softSealer struct {
	key   [32]byte
	fault error // answered instead of working
	calls int
}

func newSoftSealer(fill byte) *softSealer {
	s := &softSealer{}
	for i := range s.key {
		s.key[i] = fill
	}
	return s
}

func (s *softSealer) Seal(_ context.Context, ref seal.KeyRef, plaintext, aad []byte) ([]byte, error) {
	s.calls++
	if s.fault != nil {
		return nil, s.fault
	}
	g, err := newGCM(s.key[:])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceLen)
	rand.Read(nonce)
	return g.Seal(nonce, nonce, plaintext, append([]byte(ref), aad...)), nil
}

func (s *softSealer) Unseal(_ context.Context, ref seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	s.calls++
	if s.fault != nil {
		return s.fault
	}
	if len(blob) < nonceLen {
		return seal.ErrTampered
	}
	g, err := newGCM(s.key[:])
	if err != nil {
		return err
	}
	pt, err := g.Open(nil, blob[:nonceLen], blob[nonceLen:], append([]byte(ref), aad...))
	if err != nil {
		return seal.ErrTampered
	}
	defer clear(pt)
	return use(pt)
}

const softID = "soft:1"

var softSealers = map[string]seal.Sealer{softID: newSoftSealer(7)}

func softHolder() KeyHolder { return KeyHolder{Sealer: softSealers[softID], ID: softID, Ref: "0102"} }

// stateDir is a private directory.
func stateDir(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "state")
}

// create makes a vault and closes it with the test.
func create(t testing.TB, dir string) (*Vault, Pin) {
	t.Helper()
	v, pin, err := Create(context.Background(), Config{Dir: dir}, softHolder())
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v, pin
}

// reopen closes v and opens its store again, unsealed.
func reopen(t testing.TB, v *Vault, pin Pin) *Vault {
	t.Helper()
	if err := v.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	v2, err := openUnsealed(v.cfg.Dir, pin)
	if err != nil {
		t.Fatalf("opening again: %v", err)
	}
	t.Cleanup(func() { _ = v2.Close() })
	return v2
}

func openUnsealed(dir string, pin Pin) (*Vault, error) {
	v, err := Open(context.Background(), Config{Dir: dir}, pin)
	if err != nil {
		return nil, err
	}
	if err := v.Unseal(context.Background(), softSealers); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func put(t testing.TB, v *Vault, typ Type, id, text string) {
	t.Helper()
	err := v.Update(context.Background(), func(tx *Tx) error { return tx.Put(typ, id, []byte(text)) })
	if err != nil {
		t.Fatalf("Put %s %q: %v", typ, id, err)
	}
}

func get(v *Vault, typ Type, id string) (string, error) {
	var got string
	err := v.With(context.Background(), typ, id, func(p []byte) error { got = string(p); return nil })
	return got, err
}

func wantRecord(t testing.TB, v *Vault, typ Type, id, want string) {
	t.Helper()
	if got, err := get(v, typ, id); err != nil || got != want {
		t.Errorf("%s %q = %q, %v; want %q", typ, id, got, err, want)
	}
}

func wantIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestRecordsOutliveARestart(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeWallet, "w1", "first")
	put(t, v, TypeWallet, "w1", "second")
	put(t, v, TypeShare, "w1", "a share with the same id")
	put(t, v, TypeWallet, "w2", "")
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeWallet, "w1", "second")
	wantRecord(t, v, TypeShare, "w1", "a share with the same id")
	wantRecord(t, v, TypeWallet, "w2", "")
	_, err := get(v, TypeUser, "w1")
	wantIs(t, err, ErrNotFound)

	seen := map[string]string{}
	err = v.Each(context.Background(), TypeWallet, func(id string, p []byte) error { seen[id] = string(p); return nil })
	if err != nil || len(seen) != 2 || seen["w1"] != "second" {
		t.Errorf("Each gave %v, %v; want the two wallets", seen, err)
	}
	if i := v.Info(); i.Records != 5 || i.Sealed || i.Seq != 5 || i.Generation != 1 {
		t.Errorf("Info = %+v; want 5 records (two are the vault's own), seq 5, generation 1", i)
	}
}

func TestAnUpdateSeesItsOwnChanges(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeUser, "old", "old text")
	err := v.UpdateAlone(context.Background(), func(tx *Tx) error {
		if err := tx.Put(TypeUser, "new", []byte("new text")); err != nil {
			return err
		}
		for id, want := range map[string]string{"old": "old text", "new": "new text"} {
			for range 2 { // reading must not spoil what will be written
				err := tx.With(TypeUser, id, func(p []byte) error {
					if string(p) != want {
						return fmt.Errorf("%s = %q", id, p)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
		if err := tx.Delete(TypeUser, "old"); err != nil {
			return err
		}
		if has, err := tx.Has(TypeUser, "old"); has || err != nil {
			return fmt.Errorf("Has after Delete = %v, %v", has, err)
		}
		if err := tx.With(TypeUser, "old", func([]byte) error { return nil }); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("With after Delete: %v", err)
		}
		if err := tx.Delete(TypeUser, "old"); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("second Delete: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "new", "new text")
	_, err = get(v, TypeUser, "old")
	wantIs(t, err, ErrNotFound)
}

func TestSealedVaultAnswersNothing(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeUser, "u", "text")
	v.Seal()
	v.Seal()
	ctx := context.Background()
	sealedErrors := func() map[string]error {
		_, headErr := v.JournalHead()
		return map[string]error{
			"Update":      v.Update(ctx, func(*Tx) error { return nil }),
			"UpdateAlone": v.UpdateAlone(ctx, func(*Tx) error { return nil }),
			"With":        v.With(ctx, TypeUser, "u", func([]byte) error { return nil }),
			"Each":        v.Each(ctx, TypeUser, func(string, []byte) error { return nil }),
			"Derive":      v.Derive("x", func([]byte) error { return nil }),
			"JournalRows": v.JournalRows(ctx, 1, 0, func(JournalRow) error { return nil }),
			"JournalHead": headErr,
		}
	}
	for what, err := range sealedErrors() {
		if !errors.Is(err, ErrSealed) {
			t.Errorf("%s on a sealed vault: %v, want ErrSealed", what, err)
		}
	}
	if !v.Sealed() || !v.Info().Sealed {
		t.Error("a sealed vault doesn't say so")
	}
	if err := v.Unseal(ctx, softSealers); err != nil {
		t.Fatalf("unsealing again: %v", err)
	}
	wantRecord(t, v, TypeUser, "u", "text")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range sealedErrors() {
		if !errors.Is(err, ErrSealed) {
			t.Errorf("%s on a closed vault: %v, want ErrSealed", what, err)
		}
	}
	_ = pin
}

func TestDeriveIsStableAndSeparated(t *testing.T) {
	v, pin := create(t, stateDir(t))
	derive := func(purpose string) (out []byte) {
		t.Helper()
		var lent []byte
		err := v.Derive(purpose, func(k []byte) error { out, lent = bytes.Clone(k), k; return nil })
		if err != nil || len(out) != 32 {
			t.Fatalf("Derive(%q) = %d bytes, %v", purpose, len(out), err)
		}
		if !bytes.Equal(lent, make([]byte, 32)) {
			t.Errorf("Derive(%q) left the key in memory", purpose)
		}
		return out
	}
	a, b := derive("a"), derive("b")
	if bytes.Equal(a, b) {
		t.Error("two purposes give the same key")
	}
	v = reopen(t, v, pin)
	if !bytes.Equal(a, derive("a")) {
		t.Error("the same purpose gives another key after a restart")
	}
}

func TestLentPlaintextIsWiped(t *testing.T) {
	v, _ := create(t, stateDir(t))
	put(t, v, TypeShare, "s", "marker")
	var kept []byte
	if err := v.With(context.Background(), TypeShare, "s", func(p []byte) error { kept = p; return nil }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, make([]byte, len("marker"))) {
		t.Errorf("lent bytes are %q after the call, want zeros", kept)
	}
}

func TestTheFileListsNothing(t *testing.T) {
	v, _ := create(t, stateDir(t))
	put(t, v, TypeWallet, "wallet-marker-id", "wallet-marker-text")
	for _, name := range []string{FileName, FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(v.cfg.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("wallet-marker")) {
			t.Errorf("%s holds an id or a text in clear", name)
		}
	}
}

func TestRecordNamesAndSizesAreBounded(t *testing.T) {
	v, _ := create(t, stateDir(t))
	try := func(typ Type, id string, p []byte) error {
		return v.Update(context.Background(), func(tx *Tx) error { return tx.Put(typ, id, p) })
	}
	wantIs(t, try(TypeUser, strings.Repeat("x", MaxID+1), nil), ErrTooLarge)
	wantIs(t, try(TypeUser, "u", make([]byte, MaxRecord+1)), ErrTooLarge)
	if err := try(TypeUser, strings.Repeat("x", MaxID), make([]byte, MaxRecord)); err != nil {
		t.Errorf("a record of the largest size: %v", err)
	}
	for name, err := range map[string]error{
		"empty id": try(TypeUser, "", nil), "not UTF-8": try(TypeUser, "\xff", nil),
		"type 0": try(0, "u", nil), "no such type": try(Type(len(typeNames)), "u", nil),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
