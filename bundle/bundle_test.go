package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/sigild/sigild/credential"
)

func newKey(t testing.TB, a credential.Algorithm) *credential.PrivateKey {
	t.Helper()
	k, err := credential.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sample() *Bundle {
	return &Bundle{ApplianceID: "app_a", OrganizationID: "org_a", Version: 7, Documents: []Document{
		{"rules", "a", []byte(`{"policies":[]}`)}, {"rules", "b", []byte{}},
	}}
}

func encode(t testing.TB, b *Bundle) []byte {
	t.Helper()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBundleRoundTrip(t *testing.T) {
	b := sample()
	var keys []credential.PublicKey
	for _, a := range []credential.Algorithm{credential.Secp256k1, credential.P256, credential.Ed25519} {
		k := newKey(t, a)
		for range 2 { // signing twice is signing once
			if err := b.Sign(k); err != nil {
				t.Fatal(err)
			}
		}
		keys = append(keys, k.Public())
	}
	data := encode(t, b)
	got, err := Parse(data)
	if err != nil || !bytes.Equal(encode(t, got), data) || got.Version != 7 || !reflect.DeepEqual(got.Documents[0], b.Documents[0]) {
		t.Fatalf("read %+v, %v", got, err)
	}
	if signed, err := got.Verify(keys, 3); err != nil || len(signed) != 3 {
		t.Errorf("verified %v, %v", signed, err)
	}
	stranger := newKey(t, credential.Ed25519).Public()
	for what, c := range map[string]struct {
		keys   []credential.PublicKey
		quorum int
		is     error
	}{
		"one too few":        {keys, 4, ErrNotSigned},
		"no quorum":          {keys, 0, ErrNotSigned},
		"a key that doesn't": {keys[:2], 2, ErrNotSigned},
		"others' keys":       {[]credential.PublicKey{stranger}, 1, ErrNotSigned},
		"nobody's":           {nil, 1, ErrNotSigned},
	} {
		if _, err := got.Verify(c.keys, c.quorum); !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", what, err, c.is)
		}
	}
	// A signature over other bytes.
	for what, change := range map[string]func(b *Bundle){
		"version":      func(b *Bundle) { b.Version++ },
		"organization": func(b *Bundle) { b.OrganizationID = "org_b" },
		"appliance":    func(b *Bundle) { b.ApplianceID = "app_b" },
		"a document":   func(b *Bundle) { b.Documents[1].Content = []byte("x") },
		"one less":     func(b *Bundle) { b.Documents = b.Documents[:1] },
		"a name":       func(b *Bundle) { b.Documents[1].Name = "c" },
	} {
		other, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		change(other)
		if _, err := other.Verify(keys, 3); !errors.Is(err, credential.ErrSignature) {
			t.Errorf("another %s: %v, want ErrSignature", what, err)
		}
	}
}

func TestBundleRefusesOtherForms(t *testing.T) {
	k := newKey(t, credential.Ed25519)
	b := sample()
	if err := b.Sign(k); err != nil {
		t.Fatal(err)
	}
	data := encode(t, b)
	for n := range data {
		if _, err := Parse(data[:n]); err == nil {
			t.Errorf("cut to %d bytes: read", n)
		}
	}
	if _, err := Parse(append(bytes.Clone(data), 0)); err == nil {
		t.Error("a byte too many: read")
	}
	if _, err := Parse(make([]byte, MaxBytes+1)); err == nil {
		t.Error("too long: read")
	}
	later := bytes.Clone(data)
	later[4] = 2
	if _, err := Parse(later); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a later format: %v", err)
	}
	for what, change := range map[string]func(b *Bundle){
		"version 0":        func(b *Bundle) { b.Version = 0 },
		"a huge version":   func(b *Bundle) { b.Version = 1 << 63 },
		"no appliance":     func(b *Bundle) { b.ApplianceID = "" },
		"a spaced id":      func(b *Bundle) { b.OrganizationID = "org a" },
		"a long id":        func(b *Bundle) { b.OrganizationID = strings.Repeat("x", maxText+1) },
		"out of order":     func(b *Bundle) { b.Documents[0].Name = "c" },
		"twice":            func(b *Bundle) { b.Documents[0].Name = "b" },
		"a nameless one":   func(b *Bundle) { b.Documents[0].Name = "" },
		"no kind":          func(b *Bundle) { b.Documents[0].Kind = "" },
		"too many":         func(b *Bundle) { b.Documents = make([]Document, maxDocuments+1) },
		"too long":         func(b *Bundle) { b.Documents[1].Content = make([]byte, MaxBytes) },
		"signed twice":     func(b *Bundle) { b.Signatures = append(b.Signatures, b.Signatures[0]) },
		"signed too often": func(b *Bundle) { b.Signatures = make([]Signature, maxSignatures+1) },
	} {
		bad := sample()
		bad.Signatures = bytesOf(b)
		change(bad)
		if _, err := bad.Encode(); err == nil {
			t.Errorf("%s: written", what)
		}
		if strings.HasPrefix(what, "signed") || what == "too long" {
			continue
		}
		if err := bad.Sign(k); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
}

func bytesOf(b *Bundle) []Signature { return append([]Signature(nil), b.Signatures...) }

// The format is fixed: this body was written by hand, field by field.
func TestBundleFormatIsFixed(t *testing.T) {
	want, err := os.ReadFile("testdata/sample.hex")
	if err != nil {
		t.Fatal(err)
	}
	clean := strings.NewReplacer(" ", "", "\n", "").Replace(string(want))
	data := encode(t, sample())
	if hex.EncodeToString(data) != clean {
		t.Errorf("got  %x\nwant %s", data, clean)
	}
	if sum := sha256.Sum256(sample().statement()); len(sample().statement()) != 4+len(domain)+len(data)-2 {
		t.Errorf("statement has %d bytes, hash %x", len(sample().statement()), sum)
	}
}

func FuzzParse(f *testing.F) {
	b := sample()
	f.Add(encode(f, b))
	if err := b.Sign(newKey(f, credential.P256)); err != nil {
		f.Fatal(err)
	}
	f.Add(encode(f, b))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		if err != nil {
			return
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x\nwas written again as %x, %v", data, again, err)
		}
	})
}
