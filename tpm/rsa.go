package tpm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// rsaBits is the one size that every TPM 2.0 makes; many make no other.
const rsaBits = 2048

// makeRSATimeout bounds the making of an RSA key. A TPM that is a chip of its own
// looks for primes for half a minute at times, and does nothing else meanwhile.
const makeRSATimeout = 3 * time.Minute

// decryptTemplate is a decryption key: RSA with 2048 bits, OAEP with SHA-256 and
// nothing else, made in this TPM and only there, opened by its auth value. The
// scheme is the key's own, so no message and no caller has a say in it.
var decryptTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgRSA,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Decrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
		Scheme: tpm2.TPMTRSAScheme{
			Scheme:  tpm2.TPMAlgOAEP,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgOAEP, &tpm2.TPMSEncSchemeOAEP{HashAlg: tpm2.TPMAlgSHA256}),
		},
		KeyBits: rsaBits,
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, rsaBits/8)}),
}

// GenerateRSA makes a decryption key of 2048 bits, the only size taken
// ([seal.ErrUnsupported]), puts it at a persistent handle, and tries it. It is in
// the TPM on return. It takes up to a minute on slow TPMs, and other calls wait.
func (p *Provider) GenerateRSA(ctx context.Context, bits int) (seal.KeyRef, error) {
	if bits != rsaBits {
		return "", fmt.Errorf("making an RSA key in TPM %s: %w: %d bits; hint: ask for %d, which every TPM has", p.id, seal.ErrUnsupported, bits, rsaBits)
	}
	o, err := p.makeKey(ctx, decryptTemplate, roleDecrypt)
	if err == nil {
		err = p.persist(ctx, o, decryptTemplate)
	}
	if err != nil {
		return "", fmt.Errorf("making an RSA key in TPM %s: %w", p.id, err)
	}
	ref := makeRef(o.name().Buffer)
	if err := p.tryRSA(ctx, ref); err != nil {
		if e := p.remove(context.WithoutCancel(ctx), ref, decryptTemplate); e != nil {
			err = fmt.Errorf("%w; removing the new key %s: %v", err, ref, e)
		}
		return "", fmt.Errorf("trying the new RSA key: %w", err)
	}
	return ref, nil
}

// ListRSA lists the decryption keys in the TPM, by handle.
func (p *Provider) ListRSA(ctx context.Context) (refs []seal.KeyRef, err error) {
	err = p.do(ctx, func(t *turn) error {
		refs = nil
		handles, err := t.handles(tpm2.TPMHTPersistent)
		if err != nil {
			return err
		}
		for _, h := range handles {
			if h < firstPersistent || h > lastPersistent {
				continue
			}
			public, name, err := t.readPublic(h)
			if err != nil {
				return err
			}
			if likeTemplate(public, decryptTemplate) {
				refs = append(refs, makeRef(name))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing RSA keys of TPM %s: %w", p.id, err)
	}
	return refs, nil
}

// DestroyRSA removes a decryption key from the TPM, for good on return; its place is
// free again. [seal.ErrNotFound] when there is none.
func (p *Provider) DestroyRSA(ctx context.Context, ref seal.KeyRef) error {
	if _, err := p.PublicRSA(ctx, ref); err != nil {
		return err
	}
	if err := p.remove(ctx, ref, decryptTemplate); err != nil {
		return fmt.Errorf("destroying RSA key %s in TPM %s: %w", ref, p.id, err)
	}
	return nil
}

// tryRSA encrypts to the key as a sender would, and has the TPM open it.
func (p *Provider) tryRSA(ctx context.Context, ref seal.KeyRef) error {
	pub, err := p.PublicRSA(ctx, ref)
	if err != nil {
		return err
	}
	canary := []byte("canary")
	ciphertext, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, canary, nil)
	if err != nil {
		return fmt.Errorf("encrypting to the new key: %w", err)
	}
	return p.DecryptOAEPSHA256(ctx, ref, ciphertext, func(b []byte) error {
		if !bytes.Equal(b, canary) {
			return fmt.Errorf("%w: the TPM decrypted something else", seal.ErrUnavailable)
		}
		return nil
	})
}

// PublicRSA implements [seal.Decrypter]. The key reference is a digest of the
// public key, so the answer can't be another key's.
func (p *Provider) PublicRSA(ctx context.Context, ref seal.KeyRef) (pub *rsa.PublicKey, err error) {
	if _, err := parseRef(ref); err != nil {
		return nil, err
	}
	err = p.do(ctx, func(t *turn) error {
		k, err := t.find(ref, decryptTemplate)
		if err != nil {
			return err
		}
		pub, err = modulus(k.public)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading public key %s from TPM %s: %w", ref, p.id, err)
	}
	return pub, nil
}

// ImportedRSA says that a decryption key was never outside: its attributes, which
// its Name covers, forbid it.
func (p *Provider) ImportedRSA(ctx context.Context, ref seal.KeyRef) (bool, error) {
	_, err := p.PublicRSA(ctx, ref)
	return false, err
}

// DecryptOAEPSHA256 implements [seal.Decrypter]; the TPM does the whole of OAEP.
func (p *Provider) DecryptOAEPSHA256(ctx context.Context, ref seal.KeyRef, ciphertext []byte, use func(plaintext []byte) error) error {
	if _, err := parseRef(ref); err != nil {
		return err
	}
	var plain []byte
	defer func() { clear(plain) }()
	err := p.do(ctx, func(t *turn) error {
		k, err := t.find(ref, decryptTemplate)
		if err != nil {
			return err
		}
		return p.auth.lend(roleDecrypt, func(auth []byte) (err error) {
			plain, err = t.decrypt(auth, k, ciphertext)
			return err
		})
	})
	if errors.Is(err, seal.ErrTampered) {
		// Not err: whatever was wrong, it is told in the same words.
		return fmt.Errorf("decrypting with TPM key %s: %w", ref, seal.ErrTampered)
	}
	if err != nil {
		return fmt.Errorf("decrypting with key %s of TPM %s: %w", ref, p.id, err)
	}
	return use(plain)
}

// decrypt gives the plaintext, for the caller to wipe. What the TPM says to a bad
// ciphertext differs by maker and by what is wrong with it, and may be
// TPM_RC_FAILURE; so after every complaint but those about handle, session and
// room it is asked whether it works, which takes the same time whatever was wrong.
func (t *turn) decrypt(auth []byte, k key, ciphertext []byte) (plain []byte, err error) {
	pub, err := modulus(k.public)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) != pub.Size() || new(big.Int).SetBytes(ciphertext).Cmp(pub.N) >= 0 {
		return nil, seal.ErrTampered // public knowledge: nothing is told by the time it takes
	}
	err = t.session(auth, encryptOut, func(_ storageKey, s tpm2.Session) error {
		rsp, err := tpm2.RSADecrypt{
			KeyHandle:  k.auth(s),
			CipherText: tpm2.TPM2BPublicKeyRSA{Buffer: ciphertext},
			InScheme:   tpm2.TPMTRSADecrypt{Scheme: tpm2.TPMAlgNull}, // the key's own
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("TPM2_RSA_Decrypt: %w", err)
		}
		plain = rsp.Message.Buffer
		return nil
	})
	if aboutParameter(err) || errors.Is(err, tpm2.TPMRCFailure) || errors.Is(err, tpm2.TPMRCValue) {
		if _, e := (tpm2.GetRandom{BytesRequested: 1}).Execute(t); e != nil {
			return nil, fmt.Errorf("TPM2_GetRandom: %w", e)
		}
		return nil, seal.ErrTampered
	}
	return plain, err
}

// modulus is the public key in a public area of type RSA.
func modulus(public tpm2.TPMTPublic) (*rsa.PublicKey, error) {
	n, err := public.Unique.RSA()
	if err != nil {
		return nil, fmt.Errorf("reading a public key: %w", err)
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n.Buffer), E: 65537} // 0 in the template (Part 2 §12.2.3.5)
	if pub.N.BitLen() != rsaBits || pub.N.Bit(0) == 0 {
		return nil, fmt.Errorf("%w: the TPM's RSA public key has %d bits", seal.ErrPolicy, pub.N.BitLen())
	}
	return pub, nil
}
