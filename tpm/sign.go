package tpm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// ecdsaP256 are the parameters of a key that signs SHA-256 digests with ECDSA on
// P-256 and does nothing else: ours here, and the approver's elsewhere.
func ecdsaP256() tpm2.TPMUPublicParms {
	return tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
		KDF:     tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	})
}

// checkpointTemplate is the checkpoint key: P-256, ECDSA with SHA-256 and nothing
// else, made in this TPM and only there, opened by its auth value.
var checkpointTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
	},
	Parameters: ecdsaP256(),
	Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
}

// PublicP256 implements [seal.Signer]. The key reference is a digest of the public
// key, so the answer can't be another key's.
func (p *Provider) PublicP256(ctx context.Context, ref seal.KeyRef) (*ecdsa.PublicKey, error) {
	if _, err := parseRef(ref); err != nil {
		return nil, err
	}
	var pub *ecdsa.PublicKey
	err := p.do(ctx, func(t *turn) error {
		k, err := t.find(ref, checkpointTemplate)
		if err != nil {
			return err
		}
		pub, err = point(k.public)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading public key %s from TPM %s: %w", ref, p.id, err)
	}
	return pub, nil
}

// SignP256 implements [seal.Signer].
func (p *Provider) SignP256(ctx context.Context, ref seal.KeyRef, digest [32]byte) ([]byte, error) {
	if _, err := parseRef(ref); err != nil {
		return nil, err
	}
	var sig []byte
	err := p.do(ctx, func(t *turn) error {
		k, err := t.find(ref, checkpointTemplate)
		if err != nil {
			return err
		}
		return p.auth.lend(roleSign, func(auth []byte) error {
			sig, err = t.sign(auth, k, digest)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("signing with key %s of TPM %s: %w", ref, p.id, err)
	}
	return sig, nil
}

func (t *turn) sign(auth []byte, k key, digest [32]byte) (sig []byte, err error) {
	pub, err := point(k.public)
	if err != nil {
		return nil, err
	}
	err = t.session(auth, encryptIn, func(_ storageKey, s tpm2.Session) error {
		rsp, err := tpm2.Sign{
			KeyHandle:  k.auth(s),
			Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the key's own
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("TPM2_Sign: %w", err)
		}
		ecc, err := rsp.Signature.Signature.ECDSA()
		if err != nil {
			return fmt.Errorf("TPM2_Sign: %w", err)
		}
		r, s2 := new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)
		if !ecdsa.Verify(pub, digest[:], r, s2) { // so both are below the curve's order
			return errors.New("TPM2_Sign: the signature does not verify")
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		s2.FillBytes(sig[32:])
		return nil
	})
	return sig, err
}

// point is the public key in a public area of type ECC.
func point(public tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	p, err := public.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("reading a public key: %w", err)
	}
	const size = 32
	if len(p.X.Buffer) > size || len(p.Y.Buffer) > size {
		return nil, fmt.Errorf("%w: the TPM's public key is too long", seal.ErrPolicy)
	}
	b := make([]byte, 1+2*size)
	b[0] = 4 // uncompressed
	copy(b[1+size-len(p.X.Buffer):], p.X.Buffer)
	copy(b[1+2*size-len(p.Y.Buffer):], p.Y.Buffer)
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
	if err != nil {
		return nil, fmt.Errorf("%w: the TPM's public key: %w", seal.ErrPolicy, err)
	}
	return pub, nil
}
