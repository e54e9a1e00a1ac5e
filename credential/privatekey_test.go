package credential

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyFileRoundTrip(t *testing.T) {
	for _, a := range algorithms {
		k := mustKey(t, a)
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := k.Save(path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %04o, want 0600", a, info.Mode().Perm())
		}
		if err := k.Save(path); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: saving over a file: got %v, want os.ErrExist", a, err)
		}
		loaded, err := LoadKey(path)
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if !loaded.Public().Equal(k.Public()) {
			t.Errorf("%s: loaded another key", a)
		}
		sig, err := loaded.Sign([]byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Public().Verify([]byte("m"), sig); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), "others may read") {
			t.Errorf("%s: group-readable file: got %v", a, err)
		}
	}
	if _, err := LoadKey(t.TempDir()); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("directory: got %v", err)
	}
	if _, err := LoadKey(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got %v", err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	p256 := testFile(t, "p256.pem")
	secp := testFile(t, "secp256k1.pem")
	block, _ := pem.Decode(secp)
	der := func(change func([]byte) []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: change(bytes.Clone(block.Bytes))})
	}
	zero := func(b []byte) []byte { clear(b[7:39]); return b }
	rows := []struct {
		name, want string
		text       []byte
	}{
		{"empty", "no PEM block", nil},
		{"text before", "more than one PEM block", append([]byte("hello\n"), p256...)},
		{"two blocks", "more than one PEM block", append(bytes.Clone(p256), p256...)},
		{"with headers", "more than one PEM block", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"A": "b"}, Bytes: block.Bytes})},
		{"other block", "is not read", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: block.Bytes})},
		{"not pkcs8", "not PKCS#8", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes})},
		{"not sec1", "not an ECPrivateKey", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1, 2}})},
		{"trailing", "not an ECPrivateKey", der(func(b []byte) []byte { return append(b, 0) })},
		{"zero scalar", "out of range", der(zero)},
		{"other public key", "public key beside it", der(func(b []byte) []byte { b[38] ^= 1; return b })},
		{"other curve", "must be of secp256k1", der(func(b []byte) []byte { b[47] = 11; return b })},
		{"too long", "more than", make([]byte, maxKeyFile+1)},
	}
	for _, row := range rows {
		if _, err := ParseKey(row.text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want error with %q", row.name, err, row.want)
		}
	}
	if _, err := GenerateKey("rsa"); err == nil || !strings.Contains(err.Error(), "unknown algorithm") {
		t.Errorf("generate rsa: got %v", err)
	}
	if _, err := newPrivateKey(P256, bytes.Repeat([]byte{0xff}, 32)); !errors.Is(err, errScalar) {
		t.Errorf("p256 scalar above the order: got %v", err)
	}
	if _, err := newPrivateKey(Ed25519, make([]byte, 31)); err == nil {
		t.Error("short seed was taken")
	}
}

func TestWipedKeyDoesNothing(t *testing.T) {
	for _, a := range algorithms {
		k := mustKey(t, a)
		raw := k.raw
		k.Wipe()
		if !bytes.Equal(raw, make([]byte, 32)) {
			t.Errorf("%s: the buffer still holds the key", a)
		}
		if _, err := k.Sign([]byte("m")); err == nil {
			t.Errorf("%s: a wiped key signs", a)
		}
		if err := k.Save(filepath.Join(t.TempDir(), "k")); err == nil {
			t.Errorf("%s: a wiped key is saved", a)
		}
		k.Wipe() // twice does nothing
	}
}

func TestPrivateKeyIsNeverPrinted(t *testing.T) {
	k := mustKey(t, Ed25519)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, arg := range []any{k, *k, struct{ K *PrivateKey }{k}} {
			if got := fmt.Sprintf(verb, arg); !strings.Contains(got, "[redacted]") && strings.Contains(got, fmt.Sprintf("%x", k.raw[:4])) {
				t.Errorf("%s of %T prints %q", verb, arg, got)
			}
		}
	}
	if got := fmt.Sprintf("%x", k); got != "[redacted]" {
		t.Errorf("%%x prints %q", got)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k)
	if !strings.Contains(log.String(), "[redacted]") {
		t.Errorf("log: %s", log.String())
	}
	if _, err := json.Marshal(k); err == nil {
		t.Error("JSON takes a private key")
	}
	if _, err := k.MarshalText(); err == nil {
		t.Error("text takes a private key")
	}
	if err := gob.NewEncoder(&log).Encode(k); err == nil {
		t.Error("gob takes a private key")
	}
}

func FuzzParseKey(f *testing.F) {
	for _, a := range algorithms {
		f.Add(testFile(f, string(a)+".pem"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		sig, err := k.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Public().Verify(text, sig); err != nil {
			t.Fatalf("a key that parses doesn't sign: %v", err)
		}
	})
}
