package vault

import (
	"bytes"
	"context"
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

// testdata/v1 is kept for ever: what was written once must be readable by every
// later build. The flag makes it where it's missing and never overwrites.
var makeGolden = flag.Bool("make-golden", false, "write missing golden files")

func golden(t *testing.T, name string, fresh func() []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "v1", name)
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
	text := golden(t, name, func() []byte { return []byte(hex.EncodeToString(fresh()) + "\n") })
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
		return must[[]byte](t)(k.seal(m, "wallet-1", []byte("golden plaintext")))
	})
	if got, err := openText(k, m, env); err != nil || got != "wallet-1=golden plaintext" {
		t.Errorf("golden envelope = %q, %v", got, err)
	}
}

func TestGoldenDerivation(t *testing.T) {
	k := fixedKeyring(t)
	got := fmt.Appendf(nil, "")
	err := k.use(func(root, wrap, head, index []byte) error {
		got = fmt.Appendf(got, "wrap %x\nhead %x\nindex %x\n", wrap, head, index)
		commit, err := rootCommit(root, fixedStoreID)
		got = fmt.Appendf(got, "commitment %x\n", commit)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.derive("journal/mac", func(key []byte) error { got = fmt.Appendf(got, "journal/mac %x\n", key); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := golden(t, "derivation.txt", func() []byte { return got }); !bytes.Equal(got, want) {
		t.Errorf("subkeys are\n%swant\n%s", got, want)
	}
}

func TestGoldenStore(t *testing.T) {
	var pinText []byte
	file := golden(t, FileName, func() []byte {
		dir := stateDir(t)
		v, pin, err := Create(context.Background(), Config{Dir: dir, Now: func() time.Time { return time.Unix(1_772_366_400, 0) }}, softHolder())
		if err != nil {
			t.Fatal(err)
		}
		put(t, v, TypeWallet, "w1", "first")
		put(t, v, TypeWallet, "w1", "second")
		put(t, v, TypeShare, "s1", "share")
		if err := v.Update(context.Background(), benchRow); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		pinText = must[[]byte](t)(pin.MarshalText())
		return must[[]byte](t)(os.ReadFile(filepath.Join(dir, FileName)))
	})
	pin, err := ParsePin(golden(t, "store.pin", func() []byte { return pinText }))
	if err != nil {
		t.Fatal(err)
	}
	dir := stateDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := openUnsealed(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	wantRecord(t, v, TypeWallet, "w1", "second")
	wantRecord(t, v, TypeShare, "s1", "share")
	if i := v.Info(); i.Records != 3 || i.Seq != 5 || i.JournalSeq != 1 || i.Epoch != 1 {
		t.Errorf("Info = %+v", i)
	}
	s := v.Slots()[0]
	if s.Provider != softID || s.Ref != seal.KeyRef("0102") || s.Created.Unix() != 1_772_366_400 {
		t.Errorf("slot = %+v", s)
	}
}
