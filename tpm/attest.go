package tpm

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// This file is the TPM's side of attestation: it has the TPM say, in structures that
// only a TPM signs, what was booted and which of our keys are in it. evidence.go
// holds the verifier, which needs no TPM.

// attestTemplate is the attestation key (AK): a restricted signing key, which signs
// nothing but what the TPM itself made. It is a primary key of the endorsement
// hierarchy, so it is the same each time until the TPM gets another endorsement seed.
var attestTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
	},
	Parameters: checkpointTemplate.Parameters,
	Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
}

// ekCertificateAt is where the TPM's maker puts the certificate of the P-256
// endorsement key (TCG EK Credential Profile §2.2.1.5).
const ekCertificateAt tpm2.TPMHandle = 0x01c0000a

// maxEKCertificate bounds it, in bytes.
const maxEKCertificate = 4096

// loaded is an object that is loaded until the end of the attempt.
type loaded struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public []byte // TPMT_PUBLIC
}

func (l loaded) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: l.handle, Name: l.name, Auth: s}
}

// endorsed makes a primary key of the endorsement hierarchy.
func (t *turn) endorsed(template tpm2.TPMTPublic) (l loaded, err error) {
	err = t.session(nil, encryptBoth, func(_ storageKey, s tpm2.Session) error {
		rsp, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: s}, InPublic: tpm2.New2B(template),
		}.Execute(t)
		if aboutAuth(err) {
			return fmt.Errorf("%w: TPM2_CreatePrimary: %v; hint: the endorsement hierarchy has a password; empty it for the time of this command (tpm2_changeauth -c e)", seal.ErrPolicy, err)
		}
		if err != nil {
			return fmt.Errorf("TPM2_CreatePrimary: %w", err)
		}
		public := rsp.OutPublic.Bytes()
		l = loaded{rsp.ObjectHandle, tpm2.TPM2BName{Buffer: nameOf(public)}, public}
		return nil
	})
	if err == nil {
		t.keep(l.handle)
	}
	return l, err
}

// Attest gives evidence of this TPM: a quote of the registers, and a certificate of
// each key of ours in it, all signed by its AK over nonce (16 to 64 bytes, the
// verifier's).
func (p *Provider) Attest(ctx context.Context, nonce []byte, indexes []int) (e Evidence, err error) {
	if err := checkNonce(nonce); err != nil {
		return Evidence{}, err
	}
	if err := checkIndexes(indexes); err != nil {
		return Evidence{}, err
	}
	err = p.do(ctx, func(t *turn) error {
		e, err = t.attest(nonce, indexes)
		return err
	})
	if err != nil {
		return Evidence{}, fmt.Errorf("attesting with TPM %s: %w", p.id, err)
	}
	return e, nil
}

func (t *turn) attest(nonce []byte, indexes []int) (Evidence, error) {
	e := Evidence{Nonce: nonce}
	var err error
	if e.EKCertificate, err = t.ekCertificate(); err != nil {
		return Evidence{}, err
	}
	// One after the other: beside the SRK there is room for two.
	place := len(t.loaded)
	ek, err := t.endorsed(tpm2.ECCEKTemplate)
	if err != nil {
		return Evidence{}, err
	}
	t.flush(place)
	ak, err := t.endorsed(attestTemplate)
	if err != nil {
		return Evidence{}, err
	}
	e.EK, e.AK = ek.public, ak.public
	for range maxPCRTries {
		if e.PCRs, err = t.readPCRs(indexes); err != nil {
			return Evidence{}, err
		}
		if e.Quote, err = t.quote(ak, nonce, indexes); err != nil {
			return Evidence{}, err
		}
		if _, err = e.checkQuote(nonce); err == nil || !errors.Is(err, errQuotedOthers) {
			break // else a register changed in between
		}
	}
	if err != nil {
		return Evidence{}, err
	}
	e.Keys, err = t.certifyAll(ak, nonce)
	return e, err
}

// ekCertificate is the maker's certificate, nil when there is none.
func (t *turn) ekCertificate() ([]byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: ekCertificateAt}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_NV_ReadPublic: %w", err)
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("TPM2_NV_ReadPublic: %w", err)
	}
	if public.DataSize > maxEKCertificate {
		return nil, fmt.Errorf("%w: the certificate of the endorsement key has %d bytes", seal.ErrUnsupported, public.DataSize)
	}
	x := nvIndex{ekCertificateAt, tpm2.TPM2BName{Buffer: nameOf(rsp.NVPublic.Bytes())}}
	var all []byte
	err = t.session(nil, encryptOut, func(_ storageKey, s tpm2.Session) error {
		const most = 512 // at a time; every TPM takes it
		for len(all) < int(public.DataSize) {
			n := min(most, int(public.DataSize)-len(all))
			part, err := tpm2.NVRead{AuthHandle: x.auth(s), NVIndex: x.named(), Size: uint16(n), Offset: uint16(len(all))}.Execute(t)
			if err != nil {
				return fmt.Errorf("TPM2_NV_Read: %w", err)
			}
			if len(part.Data.Buffer) != n {
				return fmt.Errorf("TPM2_NV_Read: %d bytes, want %d", len(part.Data.Buffer), n)
			}
			all = append(all, part.Data.Buffer...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var der asn1.RawValue // makers fill up the index behind it
	if _, err := asn1.Unmarshal(all, &der); err != nil {
		return nil, fmt.Errorf("%w: the certificate of the endorsement key is no DER", seal.ErrUnsupported)
	}
	return der.FullBytes, nil
}

func (t *turn) quote(ak loaded, nonce []byte, indexes []int) (q Signed, err error) {
	err = t.session(nil, encryptBoth, func(_ storageKey, s tpm2.Session) error {
		rsp, err := tpm2.Quote{
			SignHandle: ak.auth(s), QualifyingData: tpm2.TPM2BData{Buffer: qualifying(nonce)},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: selection(indexes),
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("TPM2_Quote: %w", err)
		}
		q = Signed{rsp.Quoted.Bytes(), tpm2.Marshal(rsp.Signature)}
		return nil
	})
	return q, err
}

// certifyAll certifies the SRK and what lies in our range of persistent handles.
func (t *turn) certifyAll(ak loaded, nonce []byte) (all []CertifiedKey, err error) {
	root, err := t.root()
	if err != nil {
		return nil, err
	}
	c, err := t.certify(ak, nonce, loaded{root.handle, root.name, tpm2.Marshal(root.public)}, nil)
	if err != nil {
		return nil, err
	}
	all = append(all, c)
	handles, err := t.handles(tpm2.TPMHTPersistent)
	if err != nil {
		return nil, err
	}
	for _, h := range handles {
		if h < firstPersistent || h > lastPersistent || len(all) == maxKeys {
			continue
		}
		public, name, err := t.readPublic(h)
		if err != nil {
			return nil, err
		}
		use := useOf(public)
		if use == "" {
			continue
		}
		k := loaded{h, tpm2.TPM2BName{Buffer: name}, tpm2.Marshal(public)}
		err = t.p.auth.lend(uses[use], func(auth []byte) (err error) {
			c, err = t.certify(ak, nonce, k, auth)
			return err
		})
		if aboutAuth(err) {
			continue // made with another secret: of no use here
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (t *turn) certify(ak loaded, nonce []byte, k loaded, auth []byte) (c CertifiedKey, err error) {
	err = t.session(auth, encryptBoth, func(_ storageKey, s tpm2.Session) error {
		return t.session(nil, encryptNone, func(_ storageKey, aks tpm2.Session) error {
			rsp, err := tpm2.Certify{
				ObjectHandle: k.auth(s), SignHandle: ak.auth(aks), QualifyingData: tpm2.TPM2BData{Buffer: qualifying(nonce)},
				InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			}.Execute(t)
			if err != nil {
				return fmt.Errorf("TPM2_Certify: %w", err)
			}
			c = CertifiedKey{Public: k.public, Signed: Signed{rsp.CertifyInfo.Bytes(), tpm2.Marshal(rsp.Signature)}}
			return nil
		})
	})
	return c, err
}

// Answer opens a challenge: only the TPM that holds both the endorsement key and the
// AK it was made for can ([seal.ErrNotFound] otherwise). What is in it goes to
// whoever made it.
func (p *Provider) Answer(ctx context.Context, c Challenge) (secret []byte, err error) {
	err = p.do(ctx, func(t *turn) error {
		secret, err = t.answer(c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("answering a challenge with TPM %s: %w", p.id, err)
	}
	return secret, nil
}

func (t *turn) answer(c Challenge) (secret []byte, err error) {
	ak, err := t.endorsed(attestTemplate)
	if err != nil {
		return nil, err
	}
	ek, err := t.endorsed(tpm2.ECCEKTemplate)
	if err != nil {
		return nil, err
	}
	root, err := t.root()
	if err != nil {
		return nil, err
	}
	policy, _, err := tpm2.PolicySession(t, tpm2.TPMAlgSHA256, nonceLen, tpm2.Salted(root.handle, root.public))
	if err != nil {
		return nil, fmt.Errorf("TPM2_StartAuthSession: %w", err)
	}
	t.keep(policy.Handle())
	err = t.session(nil, encryptNone, func(_ storageKey, s tpm2.Session) error {
		_, err := tpm2.PolicySecret{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: s}, PolicySession: policy.Handle(), NonceTPM: policy.NonceTPM(),
		}.Execute(t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("TPM2_PolicySecret: %w", err)
	}
	err = t.session(nil, encryptBoth, func(_ storageKey, s tpm2.Session) error {
		rsp, err := tpm2.ActivateCredential{
			ActivateHandle: ak.auth(s), KeyHandle: ek.auth(policy),
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Credential}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: c.Seed},
		}.Execute(t)
		if aboutParameter(err) {
			return fmt.Errorf("%w: TPM2_ActivateCredential: %v; hint: the challenge is for another TPM", seal.ErrNotFound, err)
		}
		if err != nil {
			return fmt.Errorf("TPM2_ActivateCredential: %w", err)
		}
		secret = rsp.CertInfo.Buffer
		return nil
	})
	return secret, err
}
