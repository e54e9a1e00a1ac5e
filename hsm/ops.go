//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// canaryText is what health encrypts and decrypts.
var canaryText = []byte("sigild canary: no secret, 32 B..")

// wrap is opWrap.
func (t *token) wrap(id, plain, aad []byte) (blob []byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, err := t.kek(s, id)
		if err != nil {
			return err
		}
		blob, err = t.encrypt(s, k, plain, aad)
		return err
	})
	return blob, err
}

// unwrap is opUnwrap. A decryption that fails is the blob's fault only when the
// token can still decrypt the canary; otherwise it is the token's.
func (t *token) unwrap(id, blob, aad []byte) (plain []byte, err error) {
	failed := false
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, err := t.kek(s, id)
		if err != nil {
			return err
		}
		plain, failed, err = t.decrypt(s, k, blob, aad)
		return err
	})
	if !failed {
		return plain, err
	}
	if cerr := t.health(id); cerr != nil {
		return nil, newFault(seal.ErrUnavailable, "%v; and so does the canary: %v", err, cerr)
	}
	return nil, newFault(seal.ErrTampered, "%v, while the canary is good", err)
}

// encrypt makes a blob: version ‖ iv ‖ ciphertext ‖ tag.
func (t *token) encrypt(s pkcs11.SessionHandle, k key, plain, aad []byte) ([]byte, error) {
	iv := make([]byte, ivLen)
	rand.Read(iv)
	params := pkcs11.NewGCMParams(iv, aad, tagLen*8)
	defer params.Free()
	if err := t.mod.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k.h); err != nil {
		return nil, p11Fault("C_EncryptInit", err)
	}
	ct, err := t.mod.Encrypt(s, plain)
	if err != nil {
		return nil, p11Fault("C_Encrypt", err)
	}
	if iv = params.IV(); len(iv) != ivLen { // AWS CloudHSM writes its own
		return nil, newFault(seal.ErrUnavailable, "C_Encrypt left an IV of %d bytes, want %d", len(iv), ivLen)
	}
	if len(ct) != len(plain)+tagLen {
		return nil, newFault(seal.ErrUnavailable, "C_Encrypt gave %d bytes for %d", len(ct), len(plain))
	}
	blob := make([]byte, 0, blobOverhead+len(plain))
	blob = append(blob, blobVersion)
	blob = append(blob, iv...)
	return append(blob, ct...), nil
}

// decrypt opens a blob whose length the codec has checked. failed says that
// C_Decrypt itself said no.
func (t *token) decrypt(s pkcs11.SessionHandle, k key, blob, aad []byte) (plain []byte, failed bool, err error) {
	if blob[0] != blobVersion {
		return nil, false, newFault(seal.ErrTampered, "opening a blob of version %d, want %d", blob[0], blobVersion)
	}
	iv, ct := blob[1:1+ivLen], blob[1+ivLen:]
	params := pkcs11.NewGCMParams(iv, aad, tagLen*8)
	defer params.Free()
	if err := t.mod.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k.h); err != nil {
		return nil, false, p11Fault("C_DecryptInit", err)
	}
	plain, err = t.mod.Decrypt(s, ct)
	if err != nil {
		return nil, true, p11Fault("C_Decrypt", err)
	}
	if len(plain) != len(ct)-tagLen {
		clear(plain)
		return nil, false, newFault(seal.ErrUnavailable, "C_Decrypt gave %d bytes for %d", len(plain), len(ct))
	}
	return plain, false, nil
}

// health is opHealth: a session, and the canary through the KEK if one is named.
func (t *token) health(id []byte) error {
	return t.session(0, func(s pkcs11.SessionHandle) error {
		if len(id) == 0 {
			if _, err := t.mod.GetTokenInfo(t.slot); err != nil {
				return p11Fault("C_GetTokenInfo", err)
			}
			if _, err := t.mod.GenerateRandom(s, 16); err != nil {
				return p11Fault("C_GenerateRandom", err)
			}
			return nil
		}
		t.forget(id)
		k, err := t.kek(s, id)
		if err != nil {
			return err
		}
		blob, err := t.encrypt(s, k, canaryText, id)
		if err != nil {
			return err
		}
		plain, _, err := t.decrypt(s, k, blob, id)
		if err != nil {
			return newFault(seal.ErrUnavailable, "opening the canary: %v", err)
		}
		if !bytes.Equal(plain, canaryText) {
			return newFault(seal.ErrUnavailable, "opening the canary: the plaintext is another")
		}
		return nil
	})
}

// sign is opSignP256: r ‖ s over a digest, and the public key to verify it with.
func (t *token) sign(id, digest []byte) (reply [][]byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, point, err := t.checkpoint(s, id)
		if err != nil {
			return err
		}
		if err := t.mod.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, k.h); err != nil {
			return p11Fault("C_SignInit", err)
		}
		sig, err := t.mod.Sign(s, digest)
		if err != nil {
			return p11Fault("C_Sign", err)
		}
		if len(sig) != 64 {
			return newFault(seal.ErrUnavailable, "C_Sign gave %d bytes, want 64", len(sig))
		}
		reply = [][]byte{sig, bytes.Clone(point)} // the reply is wiped
		return nil
	})
	return reply, err
}

// random is opRandom.
func (t *token) random(n int) (b []byte, err error) {
	if n < 1 || n > maxRandom {
		return nil, newFault(errRefused, "asking for %d random bytes, want 1 to %d", n, maxRandom)
	}
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		if b, err = t.mod.GenerateRandom(s, n); err != nil {
			return p11Fault("C_GenerateRandom", err)
		}
		return nil
	})
	return b, err
}
