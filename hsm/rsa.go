package hsm

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/sigild/sigild/seal"
)

// This file is the provider's side of decryption keys: RSA keys of 2048 to 4096
// bits to which others encrypt. A key may be used in one way only, which was
// found out when it was made and is kept in its CKA_ALLOWED_MECHANISMS: OAEP with
// SHA-256 by the token, or, where the token can't, the bare RSA operation with
// the padding taken off in the worker (oaep.go). No message has a say in it.

// RSAKey describes a decryption key.
type RSAKey struct {
	Ref    seal.KeyRef
	Public *rsa.PublicKey
	// Imported: the key was once outside the token, so there may be copies.
	Imported bool
	// Native: the token does the whole of OAEP.
	Native bool
}

// makeTimeout bounds the making of an RSA key; 4096 bits can take a minute.
const makeTimeout = 5 * time.Minute

// GenerateRSA makes a key of 2048, 3072 or 4096 bits in the token, labelled
// "sigild-webhook", and tries it. It is in the token on return. Other calls go on
// meanwhile: a worker of its own makes it. With a context that ends early a key
// that nobody refers to may stay in the token.
func (p *Provider) GenerateRSA(ctx context.Context, bits int) (seal.KeyRef, error) {
	if bits != 2048 && bits != 3072 && bits != 4096 {
		return "", fmt.Errorf("making an RSA key: %d bits, want 2048, 3072 or 4096", bits)
	}
	ref, err := p.makeRSA(ctx, opGenerateRSA, binary.BigEndian.AppendUint16(nil, uint16(bits)))
	if err != nil {
		return "", fmt.Errorf("making an RSA key in the HSM: %w", err)
	}
	return ref, nil
}

// ImportRSA puts the private key, PKCS #8 in DER, into the token, labelled
// "sigild-webhook-imported", and tries it. The caller keeps pkcs8 and wipes it.
// A key that isn't RSA of 2048 to 4096 bits (a multiple of 8) with two primes and
// an exponent of at least 65537 is [seal.ErrPolicy].
func (p *Provider) ImportRSA(ctx context.Context, pkcs8 []byte) (seal.KeyRef, error) {
	if len(pkcs8) == 0 || len(pkcs8) > maxPKCS8 {
		return "", fmt.Errorf("importing an RSA key: %w: %d bytes of PKCS #8, want 1 to %d", seal.ErrPolicy, len(pkcs8), maxPKCS8)
	}
	ref, err := p.makeRSA(ctx, opImportRSA, pkcs8)
	if err != nil {
		return "", fmt.Errorf("importing an RSA key into the HSM: %w", err)
	}
	return ref, nil
}

// makeRSA runs a slow operation in a worker of its own, which ends with it and
// takes along what copies of a private key it made.
func (p *Provider) makeRSA(ctx context.Context, o op, field []byte) (ref seal.KeyRef, err error) {
	if p.sup.closing() {
		return "", errClosed
	}
	cfg := p.sup.cfg
	cfg.CallTimeout = makeTimeout
	cfg.TokenLabel, cfg.TokenSerial, cfg.URI = "", strings.TrimPrefix(p.id, "pkcs11:"), ""
	side, err := Open(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer side.Close()
	err = side.sup.call(ctx, o, func(f [][]byte) error {
		ref = keyRef{id: f[0]}.text()
		return nil
	}, field)
	return ref, err
}

// RSAKey looks a decryption key up: [seal.ErrNotFound], [seal.ErrPolicy] when it
// is weaker than those we make.
func (p *Provider) RSAKey(ctx context.Context, ref seal.KeyRef) (RSAKey, error) {
	id, err := plainID(ref)
	if err != nil {
		return RSAKey{}, err
	}
	out := RSAKey{Ref: ref}
	err = p.sup.call(ctx, opPublicRSA, func(f [][]byte) error {
		pub, err := p.pinRSA(ref, f[0], f[1])
		out.Public = pub
		out.Imported, out.Native = f[2][0]&flagImported != 0, f[2][0]&flagNative != 0
		return err
	}, id)
	if err != nil {
		return RSAKey{}, fmt.Errorf("reading RSA key %s from the HSM: %w", ref, err)
	}
	return out, nil
}

// ListRSA returns the decryption keys that were made or imported here, in no order;
// those that are not what we make are left out and counted.
func (p *Provider) ListRSA(ctx context.Context) (keys []RSAKey, others int, err error) {
	ids, err := p.ids(ctx, opListRSA)
	if err != nil {
		return nil, 0, fmt.Errorf("listing the RSA keys of the HSM: %w", err)
	}
	for _, id := range ids {
		k, err := p.RSAKey(ctx, keyRef{id: id}.text())
		switch {
		case errors.Is(err, seal.ErrPolicy), errors.Is(err, seal.ErrAmbiguous):
			others++
		case err != nil:
			return nil, 0, err
		default:
			keys = append(keys, k)
		}
	}
	return keys, others, nil
}

// ids is what opListRSA or opListP256 answers.
func (p *Provider) ids(ctx context.Context, o op) (ids [][]byte, err error) {
	err = p.sup.call(ctx, o, func(f [][]byte) error {
		for b := f[0]; len(b) > 0; {
			n := int(b[0])
			if n < 1 || n > maxID || n >= len(b) {
				return fmt.Errorf("%w: the list of keys has the wrong form", seal.ErrUnavailable)
			}
			ids = append(ids, bytes.Clone(b[1:1+n])) // the reply is wiped
			b = b[1+n:]
		}
		return nil
	})
	return ids, err
}

// DestroyRSA destroys a decryption key in the token, for good. What is encrypted to
// it can't be opened any more. [seal.ErrNotFound], and [seal.ErrPolicy] for a key
// that was neither made nor imported here.
func (p *Provider) DestroyRSA(ctx context.Context, ref seal.KeyRef) error {
	id, err := plainID(ref)
	if err != nil {
		return err
	}
	if err := p.sup.call(ctx, opDestroyRSA, noFields, id); err != nil {
		return fmt.Errorf("destroying RSA key %s in the HSM: %w", ref, err)
	}
	return nil
}

// The flags of opPublicRSA.
const (
	flagImported = 1 << iota
	flagNative
)

// PublicRSA implements [seal.Decrypter]. Only the first answer for a key is
// believed: another one later is [seal.ErrPolicy].
func (p *Provider) PublicRSA(ctx context.Context, ref seal.KeyRef) (*rsa.PublicKey, error) {
	key, err := p.RSAKey(ctx, ref)
	return key.Public, err
}

// ImportedRSA says whether the key was once outside the token.
func (p *Provider) ImportedRSA(ctx context.Context, ref seal.KeyRef) (bool, error) {
	key, err := p.RSAKey(ctx, ref)
	return key.Imported, err
}

// DecryptOAEPSHA256 implements [seal.Decrypter].
func (p *Provider) DecryptOAEPSHA256(ctx context.Context, ref seal.KeyRef, ciphertext []byte, use func(plaintext []byte) error) error {
	id, err := plainID(ref)
	if err != nil {
		return err
	}
	refused := fmt.Errorf("decrypting with HSM key %s: %w", ref, seal.ErrTampered)
	if len(ciphertext) < minModulus || len(ciphertext) > maxModulus {
		return refused
	}
	var useErr error
	err = p.sup.call(ctx, opDecryptOAEP, func(f [][]byte) error {
		useErr = use(f[0])
		return nil
	}, id, ciphertext)
	if errors.Is(err, seal.ErrTampered) {
		return refused // not err: whatever was wrong, it is told in the same words
	}
	if err != nil {
		return fmt.Errorf("decrypting with HSM key %s: %w", ref, err)
	}
	return useErr
}

// pinRSA reads a public key and holds it against the one seen before.
func (p *Provider) pinRSA(ref seal.KeyRef, modulus, exponent []byte) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if n.BitLen() != 8*len(modulus) || n.Bit(0) == 0 || !e.IsInt64() || e.Int64() < 65537 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
		return nil, fmt.Errorf("%w: the token's RSA public key has %d bits and an exponent of %d", seal.ErrPolicy, n.BitLen(), e.BitLen())
	}
	pub := &rsa.PublicKey{N: n, E: int(e.Int64())}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.rsa[ref]; ok && !old.Equal(pub) {
		return nil, fmt.Errorf("%w: the token's RSA public key changed", seal.ErrPolicy)
	}
	p.rsa[ref] = pub
	return pub, nil
}
