package tpm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// The owner's persistent handles that we take from, the first free one first. They
// lie outside what the TCG's registry of reserved handles keeps for storage roots
// (81000000 to 810000FF) and endorsement keys (81010000 to 810100FF). A key is known
// by its Name, never by its handle.
const (
	firstPersistent tpm2.TPMHandle = 0x81020000
	lastPersistent  tpm2.TPMHandle = 0x8102ffff
)

// checkpointTemplate is the checkpoint key: P-256, ECDSA with SHA-256 and nothing
// else, made in this TPM and only there, opened by its auth value.
var checkpointTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
		KDF:     tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
}

// checkpointKey is a persistent signing key of ours.
type checkpointKey struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public *ecdsa.PublicKey
}

// Provision makes a checkpoint key, puts it at a persistent handle of the owner
// hierarchy, and tries it and the SRK. The SRK itself is not made persistent: it
// needs no room. The key is in the TPM on return; after an error it is not, unless
// the TPM no longer answers.
func (p *Provider) Provision(ctx context.Context) (Keys, error) {
	o, err := p.makeCheckpointKey(ctx)
	if err != nil {
		return Keys{}, fmt.Errorf("making keys in TPM %s: %w", p.id, err)
	}
	keys := Keys{KEK: makeRef(p.srk), Checkpoint: makeRef(o.name().Buffer)}
	if err := p.persist(ctx, o); err != nil {
		return Keys{}, fmt.Errorf("making keys in TPM %s: %w", p.id, err)
	}
	if err := p.try(ctx, keys); err != nil {
		if e := p.remove(context.WithoutCancel(ctx), keys.Checkpoint); e != nil {
			err = fmt.Errorf("%w; removing the new checkpoint key %s: %v", err, keys.Checkpoint, e)
		}
		return Keys{}, fmt.Errorf("trying the new keys: %w", err)
	}
	return keys, nil
}

// try uses both keys once.
func (p *Provider) try(ctx context.Context, keys Keys) error {
	if _, err := p.SignP256(ctx, keys.Checkpoint, [32]byte{}); err != nil {
		return err
	}
	canary, aad := []byte("canary"), []byte("provision")
	blob, err := p.Seal(ctx, keys.KEK, canary, aad)
	if err != nil {
		return err
	}
	return p.Unseal(ctx, keys.KEK, blob, aad, func(b []byte) error {
		if !bytes.Equal(b, canary) {
			return fmt.Errorf("%w: the TPM unsealed something else", seal.ErrUnavailable)
		}
		return nil
	})
}

// makeCheckpointKey makes the key under the SRK; the TPM keeps nothing of it.
func (p *Provider) makeCheckpointKey(ctx context.Context) (o object, err error) {
	err = p.do(ctx, func(t *turn) error {
		return p.auth.lend(roleSign, func(auth []byte) error {
			return t.session(nil, encryptBoth, func(root storageKey, s tpm2.Session) error {
				o, err = t.createUnder(root, s, checkpointTemplate, tpm2.TPMSSensitiveCreate{
					UserAuth: tpm2.TPM2BAuth{Buffer: auth},
					Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{}),
				})
				return err
			})
		})
	})
	return o, err
}

// persist puts the key at the first free handle, unless it is at one already.
func (p *Provider) persist(ctx context.Context, o object) error {
	return p.do(ctx, func(t *turn) error {
		t.p.keys = nil
		_, err := t.checkpoint(makeRef(o.name().Buffer))
		if !errors.Is(err, seal.ErrNotFound) {
			return err
		}
		taken, err := t.handles(tpm2.TPMHTPersistent)
		if err != nil {
			return err
		}
		free := firstPersistent
		for slices.Contains(taken, free) {
			free++
		}
		if free > lastPersistent {
			return fmt.Errorf("TPM2_EvictControl: %w", tpm2.TPMRCNVSpace)
		}
		h, err := t.load(o)
		if err != nil {
			return err
		}
		t.p.keys = nil
		return t.evict(h, o.name(), free)
	})
}

// remove takes a checkpoint key out of the TPM.
func (p *Provider) remove(ctx context.Context, ref seal.KeyRef) error {
	return p.do(ctx, func(t *turn) error {
		k, err := t.checkpoint(ref)
		if errors.Is(err, seal.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		t.p.keys = nil
		return t.evict(k.handle, k.name, k.handle)
	})
}

// evict makes a loaded object persistent, or a persistent one no more (Part 3 §28.5).
func (t *turn) evict(h tpm2.TPMHandle, name tpm2.TPM2BName, at tpm2.TPMHandle) error {
	return t.session(nil, encryptNone, func(_ storageKey, s tpm2.Session) error {
		_, err := tpm2.EvictControl{
			Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: s},
			ObjectHandle:     tpm2.NamedHandle{Handle: h, Name: name},
			PersistentHandle: at,
		}.Execute(t)
		if aboutAuth(err) {
			return fmt.Errorf("%w: TPM2_EvictControl: %v; hint: the owner hierarchy has a password; empty it for the time of sigilctl init (tpm2_changeauth -c o)", seal.ErrPolicy, err)
		}
		if err != nil {
			return fmt.Errorf("TPM2_EvictControl: %w", err)
		}
		return nil
	})
}

// PublicP256 implements [seal.Signer]. The key reference is a digest of the public
// key, so the answer can't be another key's.
func (p *Provider) PublicP256(ctx context.Context, ref seal.KeyRef) (*ecdsa.PublicKey, error) {
	if _, err := parseRef(ref); err != nil {
		return nil, err
	}
	var pub *ecdsa.PublicKey
	err := p.do(ctx, func(t *turn) error {
		k, err := t.checkpoint(ref)
		pub = k.public
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
		k, err := t.checkpoint(ref)
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

func (t *turn) sign(auth []byte, k checkpointKey, digest [32]byte) (sig []byte, err error) {
	err = t.session(auth, encryptIn, func(_ storageKey, s tpm2.Session) error {
		rsp, err := tpm2.Sign{
			KeyHandle:  tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: s},
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
		if !ecdsa.Verify(k.public, digest[:], r, s2) { // so both are below the curve's order
			return errors.New("TPM2_Sign: the signature does not verify")
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		s2.FillBytes(sig[32:])
		return nil
	})
	return sig, err
}

// checkpoint finds the key whose Name is ref among the persistent objects of our
// range.
func (t *turn) checkpoint(ref seal.KeyRef) (checkpointKey, error) {
	if t.p.keysGen != t.gen || t.p.keys == nil {
		t.p.keys, t.p.keysGen = map[seal.KeyRef]checkpointKey{}, t.gen
	}
	if k, ok := t.p.keys[ref]; ok {
		return k, nil
	}
	persistent, err := t.handles(tpm2.TPMHTPersistent)
	if err != nil {
		return checkpointKey{}, err
	}
	for _, h := range persistent {
		if h < firstPersistent || h > lastPersistent {
			continue
		}
		public, name, err := t.readPublic(h)
		if err != nil {
			return checkpointKey{}, err
		}
		if makeRef(name) != ref {
			continue
		}
		if !likeTemplate(public, checkpointTemplate) {
			return checkpointKey{}, fmt.Errorf("%w: object %#x is not a checkpoint key as we make them", seal.ErrPolicy, uint32(h))
		}
		pub, err := point(public)
		if err != nil {
			return checkpointKey{}, err
		}
		k := checkpointKey{handle: h, name: tpm2.TPM2BName{Buffer: name}, public: pub}
		t.p.keys[ref] = k
		return k, nil
	}
	return checkpointKey{}, fmt.Errorf("%w: no object at the persistent handles %#x to %#x has the Name %s; hint: tpm2_getcap handles-persistent lists them; the TPM may be another one, or was cleared",
		seal.ErrNotFound, uint32(firstPersistent), uint32(lastPersistent), ref)
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
