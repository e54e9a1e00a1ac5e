package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"sync"
	"testing"
)

// padding is a 2048-bit key whose bare power the tests take, as a token would.
var padding = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// encoded is the EM that crypto/rsa made for message under label.
func encoded(t testing.TB, message, label []byte) []byte {
	t.Helper()
	k := padding()
	ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.PublicKey, message, label)
	if err != nil {
		t.Fatal(err)
	}
	return new(big.Int).Exp(new(big.Int).SetBytes(ct), k.D, k.N).FillBytes(make([]byte, k.Size()))
}

// pad makes an EM of n bytes with the given parts; db has n-33 bytes.
func pad(first byte, seed [32]byte, db []byte) []byte {
	em := append([]byte{first}, seed[:]...)
	em = append(em, db...)
	s, d := em[1:33], em[33:]
	maskMGF1(d, s)
	maskMGF1(s, d)
	return em
}

// block is a data block: label hash, zeros, a one, message.
func block(n int, message []byte) []byte {
	db := append(bytes.Clone(emptyLabel[:]), make([]byte, n-33-32-1-len(message))...)
	return append(append(db, 1), message...)
}

func TestUnpadAgreesWithCryptoRSA(t *testing.T) {
	for _, n := range []int{0, 1, 31, 32, 33, 100, 189, 190} {
		message := bytes.Repeat([]byte{byte(n)}, n)
		for range 20 {
			got, ok := unpadOAEP(encoded(t, message, nil))
			if !ok || !bytes.Equal(got, message) {
				t.Fatalf("%d bytes: got %x, %v", n, got, ok)
			}
		}
	}
	// A message of zeros and ones, where the end of the padding is hard to see.
	for _, message := range [][]byte{{0}, {1}, {0, 0, 1, 0}, {1, 1, 1}, bytes.Repeat([]byte{0}, 190)} {
		if got, ok := unpadOAEP(encoded(t, message, nil)); !ok || !bytes.Equal(got, message) {
			t.Errorf("%x: got %x, %v", message, got, ok)
		}
	}
}

func TestUnpadRefusesMalformed(t *testing.T) {
	const n = 256
	seed := sha256.Sum256([]byte("seed"))
	change := func(f func(db []byte)) []byte {
		db := block(n, []byte("message"))
		f(db)
		return db
	}
	if got, ok := unpadOAEP(pad(0, seed, block(n, []byte("message")))); !ok || string(got) != "message" {
		t.Fatalf("the well-formed one: %q, %v", got, ok)
	}
	rows := map[string][]byte{
		"empty":            {},
		"too short":        make([]byte, oaepExtra-1),
		"all zero":         make([]byte, n),
		"first byte one":   pad(1, seed, block(n, []byte("message"))),
		"first byte ff":    pad(0xff, seed, block(n, []byte("message"))),
		"label hash":       pad(0, seed, change(func(db []byte) { db[0] ^= 1 })),
		"label hash's end": pad(0, seed, change(func(db []byte) { db[31] ^= 0x80 })),
		"two in padding":   pad(0, seed, change(func(db []byte) { db[32] = 2 })),
		"ff before one":    pad(0, seed, change(func(db []byte) { db[len(db)-9] = 0xff })),
		"no one":           pad(0, seed, change(func(db []byte) { clear(db[32:]) })),
		"two, not one":     pad(0, seed, change(func(db []byte) { db[len(db)-8] = 2 })),
		"another label":    encoded(t, []byte("message"), []byte("label")),
	}
	for name, em := range rows {
		if got, ok := unpadOAEP(em); ok || got != nil {
			t.Errorf("%s: got %x, %v", name, got, ok)
		}
	}
	if got, ok := unpadOAEP(pad(0, seed, change(func(db []byte) { db[32] = 1 }))); !ok || len(got) != n-oaepExtra {
		t.Errorf("the longest message: %d bytes, %v", len(got), ok)
	}
}

// FuzzUnpadOAEP: what is accepted is, padded again with its seed, the same bytes.
func FuzzUnpadOAEP(f *testing.F) {
	seed := sha256.Sum256([]byte("seed"))
	f.Add(pad(0, seed, block(256, []byte("message"))))
	f.Add(pad(0, seed, block(256, nil)))
	f.Add(pad(1, seed, block(384, []byte{0, 1})))
	f.Add(make([]byte, oaepExtra))
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, em []byte) {
		work := bytes.Clone(em)
		message, ok := unpadOAEP(work)
		if !ok {
			if message != nil {
				t.Errorf("refused, and gave %x", message)
			}
			return
		}
		if again := pad(0, [32]byte(work[1:33]), block(len(em), message)); !bytes.Equal(again, em) {
			t.Errorf("%x was taken; padded again it is %x", em, again)
		}
	})
}
