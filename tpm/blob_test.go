package tpm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

// blobOf puts a blob together again after change.
func blobOf(o object, box []byte, change func(*object)) []byte {
	o = object{bytes.Clone(o.public), bytes.Clone(o.private)}
	change(&o)
	return append(o.header(), box...)
}

// The suite flips one bit of each byte; here is what it can't know.
func TestChangedBlobs(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "x")
	o, header, box, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	other, _, otherBox, err := decodeBlob(r.sealed(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string][]byte{
		"another public area":  blobOf(o, box, func(o *object) { o.public = other.public }),
		"another private area": blobOf(o, box, func(o *object) { o.private = other.private }),
		"another object":       blobOf(other, box, func(*object) {}),
		"another box":          blobOf(o, otherBox, func(*object) {}),
		"with a policy":        blobOf(o, box, func(o *object) { o.public[6] |= 0x80 }), // adminWithPolicy
		"no fixedTPM":          blobOf(o, box, func(o *object) { o.public[7] &^= 2 }),
		"empty private area":   blobOf(o, box, func(o *object) { o.private = nil }),
		"huge private area":    blobOf(o, box, func(o *object) { o.private = make([]byte, maxPrivate+1) }),
		"short private area":   blobOf(o, box, func(o *object) { o.private = o.private[:len(o.private)-1] }),
		"long private area":    blobOf(o, box, func(o *object) { o.private = append(o.private, 0) }),
		"no box":               header,
		"only a tag":           append(bytes.Clone(header), box[:boxTag]...),
		"version 2":            append([]byte{2}, blob[1:]...),
	} {
		if err := r.refused(t, changed); !errors.Is(err, seal.ErrTampered) || errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrTampered", name, err)
		}
	}
	r.opened(t, blob, "x")
}

// An object that the TPM did seal, but that holds no key of ours.
func TestObjectOfAnotherSizeIsRefused(t *testing.T) {
	r := newRig(t)
	var o object
	err := r.do(t.Context(), func(turn *turn) error {
		return r.auth.lend(roleSeal, func(auth []byte) (err error) {
			o, err = turn.create(auth, make([]byte, sealedLen-1))
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	blob, err := closeBox(o, make([]byte, sealedLen-1), r.srk, []byte("x"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrTampered) || !strings.Contains(err.Error(), "31 bytes") {
		t.Errorf("unsealing: %v, want ErrTampered and the size", err)
	}
}

// A blob of version 1, taken apart by hand: the format is kept for ever.
func TestBlobFormat(t *testing.T) {
	const public = "0008000b00000452000000100020" // keyedHash, SHA-256, attributes, no policy, no scheme
	if got := hex.EncodeToString(sealedPublic(form{})); got != public {
		t.Errorf("every public area begins with %s, want %s", got, public)
	}
	o := object{append(bytes.Clone(sealedPublic(form{})), bytes.Repeat([]byte{0xaa}, 32)...), bytes.Repeat([]byte{0xbb}, 64)}
	got, err := closeBox(o, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 34), []byte("plain"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	want := "01" + "002e" + public + strings.Repeat("aa", 32) + "0040" + strings.Repeat("bb", 64) + goldenBox
	if hex.EncodeToString(got) != want {
		t.Errorf("the blob is\n%x, want\n%s", got, want)
	}
}

// goldenBox is HKDF and AES-256-GCM as Python's cryptography
// (OpenSSL) computes them, not this package.
const goldenBox = "5cf65f2ac05b63ce42f61c0e20740cf33e0e3f718e"

func FuzzDecodeBlob(f *testing.F) {
	good := object{append(bytes.Clone(sealedPublic(form{})), make([]byte, 32)...), make([]byte, minPrivate)}
	f.Add(append(good.header(), make([]byte, boxTag+1)...))
	f.Add(append(object{good.public, make([]byte, maxPrivate)}.header(), make([]byte, boxTag+seal.MaxSealed)...))
	f.Add(good.header())
	f.Add([]byte{blobPlain, 0xff, 0xff})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, header, box, err := decodeBlob(b)
		if err != nil {
			if !errors.Is(err, seal.ErrTampered) {
				t.Errorf("decoding: %v, want ErrTampered", err)
			}
			return
		}
		if again := append(o.header(), box...); !bytes.Equal(again, b) || !bytes.Equal(o.header(), header) {
			t.Errorf("%x is encoded again as %x", b, again)
		}
	})
}
