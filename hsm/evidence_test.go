package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"testing"
)

var nonce = []byte("a nonce of the verifier's")

// vector is evidence that a SoftHSM gave, with one key of each use.
func vector(t testing.TB) (Evidence, *ecdsa.PublicKey) {
	t.Helper()
	text, err := os.ReadFile("testdata/evidence.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("testdata/evidence.pem holds no PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseEvidence(vectorFile(t))
	if err != nil {
		t.Fatal(err)
	}
	return e, pub.(*ecdsa.PublicKey)
}

func vectorFile(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/evidence.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testKey(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &k.PublicKey
}

func TestEvidenceOfAnotherKeyOrNonceIsRefused(t *testing.T) {
	e, pub := vector(t)
	if keys, err := e.Verify(nonce, pub, nil); err != nil || len(keys) != 3 {
		t.Fatalf("verifying: %+v, %v, want three keys", keys, err)
	}
	other := bytes.Clone(nonce)
	other[0] ^= 1
	for name, verify := range map[string]func() ([]StatedKey, error){
		"another key":   func() ([]StatedKey, error) { return e.Verify(nonce, testKey(t), nil) },
		"no key":        func() ([]StatedKey, error) { return e.Verify(nonce, nil, nil) },
		"another nonce": func() ([]StatedKey, error) { return e.Verify(other, pub, nil) },
		"a longer one":  func() ([]StatedKey, error) { return e.Verify(append(bytes.Clone(nonce), 0), pub, nil) },
		"no signature":  func() ([]StatedKey, error) { c := e; c.Signature = nil; return c.Verify(nonce, pub, nil) },
		"no evidence":   func() ([]StatedKey, error) { return Evidence{}.Verify(nonce, pub, nil) },
	} {
		if keys, err := verify(); !errors.Is(err, ErrEvidence) || keys != nil {
			t.Errorf("%s: %+v, %v, want ErrEvidence", name, keys, err)
		}
	}
	if _, err := e.Verify(nonce[:15], pub, nil); err == nil {
		t.Error("a nonce of 15 bytes was taken")
	}
	if _, err := e.Verify(nonce, pub, []string{"CKA_EXTRACTABLE"}); err == nil {
		t.Error("CKA_EXTRACTABLE may be lacking")
	}
}

func TestEvidenceWithAnyByteChangedIsRefused(t *testing.T) {
	_, pub := vector(t)
	file := vectorFile(t)
	for i := range file {
		for _, bit := range []byte{0x01, 0x20} {
			changed := bytes.Clone(file)
			changed[i] ^= bit
			e, err := ParseEvidence(changed)
			if err == nil {
				_, err = e.Verify(nonce, pub, nil)
			}
			if !errors.Is(err, ErrEvidence) {
				t.Fatalf("byte %d, bit %#x: %v, want ErrEvidence", i, bit, err)
			}
		}
	}
	for n := range file {
		if _, err := ParseEvidence(file[:n]); !errors.Is(err, ErrEvidence) {
			t.Fatalf("cut to %d bytes: %v, want ErrEvidence", n, err)
		}
	}
	for _, more := range []string{"\n", " ", "{}"} {
		if _, err := ParseEvidence(append(bytes.Clone(file), more...)); !errors.Is(err, ErrEvidence) {
			t.Errorf("with %q behind it: %v, want ErrEvidence", more, err)
		}
	}
}

// What the token did sign can still be nothing that we make.
func TestKeysAreJudged(t *testing.T) {
	e, _ := vector(t)
	for name, change := range map[string]func(k *DescribedKey){
		"extractable":      func(k *DescribedKey) { k.Attributes["CKA_EXTRACTABLE"] = "true" },
		"not sensitive":    func(k *DescribedKey) { k.Attributes["CKA_SENSITIVE"] = "false" },
		"said in capitals": func(k *DescribedKey) { k.Attributes["CKA_SENSITIVE"] = "TRUE" },
		"unknown":          func(k *DescribedKey) { k.Attributes["CKA_SENSITIVE"] = "unknown" },
		"one less":         func(k *DescribedKey) { delete(k.Attributes, "CKA_MODIFIABLE") },
		"one more":         func(k *DescribedKey) { k.Attributes["CKA_MORE"] = "true" },
		"one for another": func(k *DescribedKey) {
			delete(k.Attributes, "CKA_LOCAL")
			k.Attributes["CKA_MORE"] = "true"
		},
		"no id":            func(k *DescribedKey) { k.ID = nil },
		"another use":      func(k *DescribedKey) { k.Use = "storage" },
		"another wrapping": func(k *DescribedKey) { k.Wrapping = "ecb" },
	} {
		for i := range e.Keys {
			k, err := ParseEvidence(vectorFile(t))
			if err != nil {
				t.Fatal(err)
			}
			change(&k.Keys[i])
			if _, err := k.Keys[i].judge(0); err == nil {
				t.Errorf("the %s key, %s: taken", e.Keys[i].Use, name)
			}
		}
	}
}

func FuzzParseEvidence(f *testing.F) {
	e, pub := vector(f)
	f.Add(vectorFile(f))
	b, err := Evidence{}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	e.Keys = e.Keys[:1]
	if b, err = e.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err != nil {
			if !errors.Is(err, ErrEvidence) {
				t.Errorf("reading %q: %v, want ErrEvidence", b, err)
			}
			return
		}
		again, err := e.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is written again as %q, %v", b, again, err)
		}
		for _, k := range e.Keys {
			_, _ = k.judge(lackAll) // whatever it is, it does not panic
			_ = k.Kind()
		}
		if _, err := e.Verify(nonce, pub, nil); err == nil && !bytes.Equal(b, vectorFile(t)) {
			t.Errorf("%q verifies, and the token did not sign it", b)
		}
	})
}
