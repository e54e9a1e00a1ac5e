package sealtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

// This file tests the optional capability seal.Decrypter.

func encrypt(ctx context.Context, t testing.TB, f Fixture, ref seal.KeyRef, plain []byte) []byte {
	t.Helper()
	pub, err := f.Decrypter.PublicRSA(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ct
}

// wantDecrypt decrypts with f.RSA and compares.
func wantDecrypt(ctx context.Context, t testing.TB, f Fixture, ct, want []byte) {
	t.Helper()
	called := 0
	err := f.Decrypter.DecryptOAEPSHA256(ctx, f.RSA, ct, func(got []byte) error {
		called++
		if !bytes.Equal(got, want) {
			t.Errorf("decrypted %d bytes that are not what was encrypted", len(got))
		}
		return nil
	})
	if err != nil || called != 1 {
		t.Errorf("decrypting: err %v, closure called %d times, want no error and once", err, called)
	}
}

func decrypter(ctx context.Context, t *testing.T, f Fixture) {
	pub, err := f.Decrypter.PublicRSA(ctx, f.RSA)
	if err != nil {
		t.Fatal(err)
	}
	if bits := pub.N.BitLen(); bits < 2048 || bits > 4096 || pub.E < 65537 {
		t.Errorf("the key has %d bits and exponent %d, want 2048 to 4096 and at least 65537", bits, pub.E)
	}
	for _, n := range []int{0, 1, 16, 32, pub.Size() - 66} {
		wantDecrypt(ctx, t, f, encrypt(ctx, t, f, f.RSA, pattern(n)), pattern(n))
	}
	ct := encrypt(ctx, t, f, f.RSA, pattern(32))
	var kept []byte
	mine := errors.New("the closure's own error")
	err = f.Decrypter.DecryptOAEPSHA256(ctx, f.RSA, ct, func(p []byte) error {
		kept = p
		return mine
	})
	if err != mine {
		t.Errorf("decrypting returned %v, want the closure's error as it is", err)
	}
	if !bytes.Equal(kept, make([]byte, len(kept))) {
		t.Error("the lent plaintext was not wiped")
	}
	// A key does its own work and no other.
	if f.Signer != nil {
		if _, err := f.Signer.SignP256(ctx, f.RSA, [32]byte{1}); err == nil {
			t.Error("the decryption key signed")
		}
	}
	if _, err := f.Sealer.Seal(ctx, f.RSA, pattern(32), nil); err == nil {
		t.Error("the decryption key sealed")
	}
}

func decrypterRefuses(ctx context.Context, t *testing.T, f Fixture) {
	pub, err := f.Decrypter.PublicRSA(ctx, f.RSA)
	if err != nil {
		t.Fatal(err)
	}
	k := pub.Size()
	good := encrypt(ctx, t, f, f.RSA, pattern(32))
	flipped := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	number := func(n *big.Int) []byte { return n.FillBytes(make([]byte, k)) }
	withLabel, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, pattern(32), []byte("a label"))
	if err != nil {
		t.Fatal(err)
	}
	// PKCS #1 v1.5 by hand: 00 02, no zeros, a zero, the message.
	block := append(append([]byte{0, 2}, bytes.Repeat([]byte{0xff}, k-35)...), append([]byte{0}, pattern(32)...)...)
	bare := number(new(big.Int).Exp(new(big.Int).SetBytes(block), big.NewInt(int64(pub.E)), pub.N))
	one := big.NewInt(1)
	rows := map[string][]byte{
		"empty": nil, "one byte": {1}, "cut": good[:k-1], "extended": append(bytes.Clone(good), 0), "huge": make([]byte, 1<<20),
		"first bit": flipped(0), "middle bit": flipped(k / 2), "last bit": flipped(k - 1),
		"zero": number(new(big.Int)), "one": number(one), "modulus less one": number(new(big.Int).Sub(pub.N, one)),
		"modulus": number(pub.N), "all ones": bytes.Repeat([]byte{0xff}, k),
		"another label": withLabel, "PKCS #1 v1.5": bare,
		"another key": encrypt(ctx, t, f, f.OtherRSA, pattern(32)),
	}
	text := ""
	for name, ct := range rows {
		err := f.Decrypter.DecryptOAEPSHA256(ctx, f.RSA, ct, func([]byte) error {
			t.Errorf("%s: the closure was called", name)
			return nil
		})
		if !errors.Is(err, seal.ErrTampered) || errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrTampered", name, err)
			continue
		}
		if text == "" {
			text = err.Error()
		}
		if err.Error() != text {
			t.Errorf("%s: the text is %q, for another row it was %q", name, err, text)
		}
	}
	wantDecrypt(ctx, t, f, good, pattern(32))
	for _, ref := range []seal.KeyRef{f.Missing, "", "not hex", seal.KeyRef(strings.Repeat("ab", 4096)), f.KEK} {
		if _, err := f.Decrypter.PublicRSA(ctx, ref); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("reading public key %.20q: %v, want ErrNotFound", ref, err)
		}
		err := f.Decrypter.DecryptOAEPSHA256(ctx, ref, good, func([]byte) error { return nil })
		if !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("decrypting with %.20q: %v, want ErrNotFound", ref, err)
		}
	}
	if f.Checkpoint != "" {
		if _, err := f.Decrypter.PublicRSA(ctx, f.Checkpoint); err == nil {
			t.Error("the signing key was taken for a decryption key")
		}
	}
}
