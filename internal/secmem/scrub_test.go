package secmem

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

func TestHKDFIsThatOfTheStandardLibrary(t *testing.T) {
	for _, n := range []int{1, 16, 31, 32} {
		secret, salt := make([]byte, 7*n), make([]byte, n)
		rand.Read(secret)
		rand.Read(salt)
		for _, s := range [][]byte{salt, nil} {
			want, err := hkdf.Key(sha256.New, secret, s, "info", n)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, n)
			if Derive(got, secret, s, "info"); !bytes.Equal(got, want) {
				t.Errorf("%d bytes: %x, want %x", n, got, want)
			}
		}
		want, err := hkdf.Expand(sha256.New, secret, "more", n)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if Expand(got, secret, "more"); !bytes.Equal(got, want) {
			t.Errorf("expanding to %d bytes: %x, want %x", n, got, want)
		}
	}
}

// The length of key and message decides where MAC puts them; the answer is HMAC's.
func TestMACIsThatOfTheStandardLibrary(t *testing.T) {
	for _, key := range []int{0, 31, 32, 64, 65, 200} {
		for _, n := range []int{0, 1, short - 1, short, short + 1, 600} {
			k, m := make([]byte, key), make([]byte, n)
			rand.Read(k)
			rand.Read(m)
			h := hmac.New(sha256.New, k)
			h.Write(m)
			want := h.Sum(nil)
			var got [sha256.Size]byte
			if MAC(&got, k, m[:n/3], m[n/3:]); !bytes.Equal(got[:], want) {
				t.Errorf("key of %d bytes, message of %d: %x, want %x", key, n, got, want)
			}
		}
	}
}

// What a cipher and a hash knew is gone: they give the answers of zero keys.
func TestScrubReachesCiphersAndHashes(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, 12)
	before := g.Seal(nil, nonce, []byte("text"), nil)
	Scrub(g)
	h := hmac.New(sha256.New, key)
	h.Write([]byte("pending"))
	sum := h.Sum(nil)
	Scrub(h)
	defer func() {
		// What was scrubbed may refuse to work at all.
		_ = recover()
	}()
	if bytes.Equal(g.Seal(nil, nonce, []byte("text"), nil), before) {
		t.Error("a scrubbed GCM still knows its key")
	}
	if bytes.Equal(h.Sum(nil), sum) {
		t.Error("a scrubbed HMAC still knows its key")
	}
}

// It finds numbers however they are kept, and leaves strings and nil alone.
func TestScrubOfAnObject(t *testing.T) {
	type inner struct{ words [3]uint32 }
	type object struct {
		name  string
		bytes []byte
		in    inner
		to    *inner
		none  *inner
		any   any
		list  []inner
		n     int
	}
	x := &object{name: "stays", bytes: append(make([]byte, 0, 8), 1, 2, 3), in: inner{[3]uint32{1, 2, 3}}, to: &inner{[3]uint32{4}}, none: nil, any: &inner{[3]uint32{5}}, list: []inner{{[3]uint32{6}}}, n: 9}
	b, to, boxed := x.bytes, x.to, x.any.(*inner)
	Scrub(x)
	if x.name != "stays" || !bytes.Equal(b, make([]byte, 3)) || x.in.words != [3]uint32{} || to.words != [3]uint32{} || boxed.words != [3]uint32{} || x.list[0].words != [3]uint32{} || x.n != 0 {
		t.Errorf("left %+v, %v, %v, %v", x, b, to, boxed)
	}
	Scrub(nil)
}
