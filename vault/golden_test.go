package vault

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
)

// testdata/v1 and v2 are kept for ever: what was written once must be readable by every
// later build. The flag makes it where it's missing and never overwrites.
var makeGolden = flag.Bool("make-golden", false, "write missing golden files")

func golden(t *testing.T, version, name string, fresh func() []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", version, name)
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) && *makeGolden {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		b = fresh()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenHex(t *testing.T, name string, fresh func() []byte) []byte {
	t.Helper()
	text := golden(t, "v1", name, func() []byte { return []byte(hex.EncodeToString(fresh()) + "\n") })
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestGoldenEnvelope(t *testing.T) {
	k := fixedKeyring(t)
	m := fixedMeta(t, k)
	if want := "df6ac4"; hex.EncodeToString(m.Key[:3]) != want {
		t.Errorf("record key starts %x, want %s", m.Key[:3], want)
	}
	env := goldenHex(t, "envelope.hex", func() []byte {
		return must[[]byte](t)(k.seal(m, nil, "wallet-1", []byte("golden plaintext")))
	})
	if got, err := openText(k, m, env); err != nil || got != "wallet-1=golden plaintext" {
		t.Errorf("golden envelope = %q, %v", got, err)
	}
}

func TestGoldenDerivation(t *testing.T) {
	k := fixedKeyring(t)
	got := fmt.Appendf(nil, "")
	err := k.use(func(s *subkeys) error {
		got = fmt.Appendf(got, "wrap %x\nhead %x\nindex %x\n", s.wrap, s.head, s.index)
		commit := rootCommit(s.root, fixedStoreID)
		got = fmt.Appendf(got, "commitment %x\n", commit)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.derive("journal/mac", func(key []byte) error { got = fmt.Appendf(got, "journal/mac %x\n", key); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := golden(t, "v1", "derivation.txt", func() []byte { return got }); !bytes.Equal(got, want) {
		t.Errorf("subkeys are\n%swant\n%s", got, want)
	}
}

// goldenStore puts a golden store into a directory of its own.
func goldenStore(t *testing.T, version string, make func(dir string) Pin) (dir string, pin Pin) {
	t.Helper()
	var pinText []byte
	file := golden(t, version, FileName, func() []byte {
		dir := stateDir(t)
		pinText = must[[]byte](t)(make(dir).MarshalText())
		return must[[]byte](t)(os.ReadFile(filepath.Join(dir, FileName)))
	})
	pin, err := ParsePin(golden(t, version, "store.pin", func() []byte { return pinText }))
	if err != nil {
		t.Fatal(err)
	}
	dir = stateDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, pin
}

// A store of schema 1, as 0.1.0-dev made it in November 2026: it is upgraded in
// one transaction, and what was derived from its root key stays.
func TestGoldenStoreOfSchema1IsUpgraded(t *testing.T) {
	dir, pin := goldenStore(t, "v1", func(string) Pin {
		t.Fatal("no build makes schema 1 any more")
		return Pin{}
	})
	for round := range 2 {
		v, err := openUnsealed(dir, pin)
		if err != nil {
			t.Fatal(err)
		}
		wantRecord(t, v, TypeWallet, "w1", "second")
		wantRecord(t, v, TypeShare, "s1", "share")
		if i := v.Info(); i.Records != 4 || i.Seq != 6 || i.JournalSeq != 1 || i.Epoch != 1 {
			t.Errorf("round %d: Info = %+v", round, i)
		}
		s := v.Slots()[0]
		if s.Provider != softID || s.Ref != seal.KeyRef("0102") || s.Created.Unix() != 1_772_366_400 {
			t.Errorf("slot = %+v", s)
		}
		if v.schema != schemaVersion {
			t.Errorf("schema %d, want %d", v.schema, schemaVersion)
		}
		lasting := must[[]byte](t)(v.open.Load().keys.lastingOfV1())
		want := must[[]byte](t)(hkdf.Expand(sha256.New, lasting, infoDerivePrefix+"journal/mac", 32))
		err = v.Derive("journal/mac", func(key []byte) error {
			if !bytes.Equal(key, want) {
				t.Error("the upgrade changed a derived key")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A failed upgrade leaves the store as it was.
func TestAFailedUpgradeChangesNothing(t *testing.T) {
	dir, pin := goldenStore(t, "v1", nil)
	v := must[*Vault](t)(Open(context.Background(), Config{Dir: dir}, pin))
	if err := v.write.exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	if err := v.Unseal(context.Background(), softSealers); err == nil {
		t.Fatal("upgraded what can't be written")
	}
	if !v.Sealed() {
		t.Error("unsealed without the upgrade")
	}
	if err := v.write.exec("PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	if err := v.Unseal(context.Background(), softSealers); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, v, TypeWallet, "w1", "second")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenStoreOfSchema2(t *testing.T) {
	dir, pin := goldenStore(t, "v2", func(dir string) Pin {
		v, pin, err := Create(context.Background(), Config{Dir: dir, Now: func() time.Time { return time.Unix(1_795_000_000, 0) }}, softHolder())
		if err != nil {
			t.Fatal(err)
		}
		put(t, v, TypeWallet, "w1", "first")
		put(t, v, TypeWallet, "w1", "second")
		put(t, v, TypeShare, "s1", "share")
		if err := v.Update(context.Background(), benchRow); err != nil {
			t.Fatal(err)
		}
		people := must[*Custodians](t)(NewCustodians(2, custodianNames))
		group := must[*NewGroup](t)(v.PrepareGroup(context.Background(), people.Holder()))
		if err := v.UpdateAlone(context.Background(), func(tx *Tx) error { return tx.AddGroup(group) }); err != nil {
			t.Fatal(err)
		}
		rotate(t, v)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		return pin
	})
	v := must[*Vault](t)(openUnsealed(dir, pin))
	wantRecord(t, v, TypeWallet, "w1", "second")
	wantRecord(t, v, TypeShare, "s1", "share")
	if i := v.Info(); i.Records != 4 || i.JournalSeq != 1 || i.Generation != 2 {
		t.Errorf("Info = %+v", i)
	}
	v.Seal()
	people := PresentCustodians(custodianIdentities(t, 0, 2)...)
	if err := v.Unseal(context.Background(), map[string]seal.Sealer{RecoveryProvider: people}); err != nil {
		t.Errorf("two of three custodians: %v", err)
	}
	wantRecord(t, v, TypeShare, "s1", "share")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
