package sealtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

// This file tests the optional capability seal.Signer.

func wantSignature(ctx context.Context, t testing.TB, f Fixture, digest [32]byte) {
	t.Helper()
	pub, err := f.Signer.PublicP256(ctx, f.Checkpoint)
	if err != nil {
		t.Errorf("reading the public key: %v", err)
		return
	}
	sig, err := f.Signer.SignP256(ctx, f.Checkpoint, digest)
	if err != nil {
		t.Errorf("signing: %v", err)
		return
	}
	if len(sig) != 64 {
		t.Errorf("signature has %d bytes, want 64", len(sig))
		return
	}
	if !ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Error("the signature does not verify")
	}
}

func signer(ctx context.Context, t *testing.T, f Fixture) {
	pub, err := f.Signer.PublicP256(ctx, f.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if pub.Curve != elliptic.P256() {
		t.Errorf("the key is on %s, want P-256", pub.Params().Name)
	}
	for range 2 {
		again, err := f.Signer.PublicP256(ctx, f.Checkpoint)
		if err != nil || !again.Equal(pub) {
			t.Errorf("reading the public key again: %v, %v, want the same", again, err)
		}
	}
	for _, digest := range [][32]byte{{}, sha256.Sum256(nil), [32]byte(bytes.Repeat([]byte{0xff}, 32))} {
		wantSignature(ctx, t, f, digest)
	}
}

func signerRefuses(ctx context.Context, t *testing.T, f Fixture) {
	var digest [32]byte
	rand.Read(digest[:])
	for _, ref := range []seal.KeyRef{f.Missing, "", "xyz", seal.KeyRef(strings.Repeat("ab", 4096))} {
		if _, err := f.Signer.SignP256(ctx, ref, digest); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("signing with %.20q: %v, want ErrNotFound", ref, err)
		}
		if _, err := f.Signer.PublicP256(ctx, ref); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("reading public key %.20q: %v, want ErrNotFound", ref, err)
		}
	}
	// A key does its own work and no other.
	if _, err := f.Signer.SignP256(ctx, f.KEK, digest); err == nil {
		t.Error("the sealing key signed")
	}
	if _, err := f.Sealer.Seal(ctx, f.Checkpoint, pattern(32), nil); err == nil {
		t.Error("the signing key sealed")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if sig, err := f.Signer.SignP256(gone, f.Checkpoint, digest); !errors.Is(err, context.Canceled) || sig != nil {
		t.Errorf("signing with a cancelled context: %x, %v, want context.Canceled", sig, err)
	}
	wantSignature(ctx, t, f, digest)
}
