//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// This file seals and opens with a KEK, in the one way that its reference says. A
// blob begins with that way's number:
//
//	GCM    1 ‖ iv 12 ‖ ciphertext ‖ tag 16                      aad in the mechanism
//	KWP    2 or 3 ‖ wrapped(nonce 16 ‖ SHA-256(aad) ‖ length u8 ‖ plaintext ‖ zeros to a multiple of 8)
//	OAEP   4 or 5 ‖ ciphertext, as long as the modulus ‖ HMAC-SHA256 32
//
// Key wrapping (RFC 5649) authenticates and takes no aad, so the aad's hash is
// wrapped along; a nonce, because it is deterministic; and the length, because some
// modules give the padding back (SoftHSM 2.6). OAEP does not tell who
// made a ciphertext, so a key of the token signs it with the aad.

// seal makes a blob.
func (t *token) seal(s pkcs11.SessionHandle, k kek, plain, aad []byte) ([]byte, error) {
	switch k.wrap {
	case wrapGCM:
		return t.sealGCM(s, k, plain, aad)
	case wrapKWP, wrapPad:
		return t.sealKWP(s, k, plain, aad)
	default:
		return t.sealOAEP(s, k, plain, aad)
	}
}

// unseal opens a blob whose length was checked. refused says that the module itself
// said no to the blob: then a canary decides whose fault it is.
func (t *token) unseal(s pkcs11.SessionHandle, k kek, blob, aad []byte) (plain []byte, refused bool, err error) {
	if blob[0] != byte(k.wrap) {
		return nil, false, newFault(seal.ErrTampered, "opening a blob of version %d, want %d", blob[0], k.wrap)
	}
	switch k.wrap {
	case wrapGCM:
		return t.openGCM(s, k, blob[1:], aad)
	case wrapKWP, wrapPad:
		return t.openKWP(s, k, blob[1:], aad)
	default:
		return t.openSealedOAEP(s, k, blob, aad)
	}
}

// sealGCM fixes what modules leave open: an IV of 12 bytes and a tag of 128 bits.
func (t *token) sealGCM(s pkcs11.SessionHandle, k kek, plain, aad []byte) ([]byte, error) {
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
	blob = append(blob, byte(wrapGCM))
	blob = append(blob, iv...)
	return append(blob, ct...), nil
}

func (t *token) openGCM(s pkcs11.SessionHandle, k kek, body, aad []byte) (plain []byte, refused bool, err error) {
	iv, ct := body[:ivLen], body[ivLen:]
	params := pkcs11.NewGCMParams(iv, aad, tagLen*8)
	defer params.Free()
	if err := t.mod.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k.h); err != nil {
		return nil, false, p11Fault("C_DecryptInit", err)
	}
	plain, err = t.mod.Decrypt(s, ct)
	if err != nil {
		f := p11Fault("C_Decrypt", err)
		return nil, f.blamesInput(), f
	}
	if len(plain) != len(ct)-tagLen {
		clear(plain)
		return nil, false, newFault(seal.ErrUnavailable, "C_Decrypt gave %d bytes for %d", len(plain), len(ct))
	}
	return plain, false, nil
}

func keyWrap(w wrapping) []*pkcs11.Mechanism {
	if w == wrapPad {
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}
	}
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmAESKeyWrapKWP, nil)}
}

// carrier is a session object that holds bytes for a moment, so that they can be
// wrapped, or read after they were unwrapped.
func carrier(more ...*pkcs11.Attribute) []*pkcs11.Attribute {
	return append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
	}, more...)
}

func (t *token) sealKWP(s pkcs11.SessionHandle, k kek, plain, aad []byte) ([]byte, error) {
	inner := make([]byte, (kwpPrefix+len(plain)+7)/8*8)
	defer clear(inner)
	rand.Read(inner[:16])
	bound := sha256.Sum256(aad)
	copy(inner[16:], bound[:])
	inner[kwpPrefix-1] = byte(len(plain))
	copy(inner[kwpPrefix:], plain)
	h, err := t.mod.CreateObject(s, carrier(pkcs11.NewAttribute(pkcs11.CKA_VALUE, inner)))
	if err != nil {
		return nil, p11Fault("C_CreateObject", err)
	}
	wrapped, err := t.mod.WrapKey(s, keyWrap(k.wrap), k.h, h)
	if derr := t.mod.DestroyObject(s, h); derr != nil && err == nil {
		return nil, p11Fault("C_DestroyObject", derr)
	}
	if err != nil {
		return nil, p11Fault("C_WrapKey", err)
	}
	blob := append([]byte{byte(k.wrap)}, wrapped...)
	if least, most := k.wrap.blobLen(len(plain)); len(blob) < least || len(blob) > most {
		return nil, newFault(seal.ErrUnavailable, "C_WrapKey gave %d bytes for %d", len(wrapped), len(inner))
	}
	return blob, nil
}

func (t *token) openKWP(s pkcs11.SessionHandle, k kek, body, aad []byte) (plain []byte, refused bool, err error) {
	h, err := t.mod.UnwrapKey(s, keyWrap(k.wrap), k.h, body, carrier())
	if err != nil {
		f := p11Fault("C_UnwrapKey", err)
		return nil, f.blamesInput(), f
	}
	got, err := t.mod.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if derr := t.mod.DestroyObject(s, h); derr != nil && err == nil {
		clear(got[0].Value)
		return nil, false, p11Fault("C_DestroyObject", derr)
	}
	if err != nil {
		return nil, false, p11Fault("C_GetAttributeValue of an unwrapped value", err)
	}
	inner := got[0].Value
	defer clear(inner)
	bound := sha256.Sum256(aad)
	n := 0
	if len(inner) > kwpPrefix {
		n = int(inner[kwpPrefix-1])
	}
	if n < 1 || n > maxPlain || len(inner) != (kwpPrefix+n+7)/8*8 {
		return nil, false, newFault(seal.ErrUnavailable, "C_UnwrapKey gave %d bytes for %d", len(inner), len(body))
	}
	if subtle.ConstantTimeCompare(inner[16:kwpPrefix-1], bound[:]) != 1 {
		return nil, false, newFault(seal.ErrTampered, "opening a wrapped value: its aad is another")
	}
	return bytes.Clone(inner[kwpPrefix : kwpPrefix+n]), false, nil
}

// macDomain begins what an OAEP blob's HMAC is over.
const macDomain = "sigild/hsm/oaep-blob/v1"

// mac is the token's HMAC over the ciphertext and the aad. It is given a hash: some
// tokens take little data.
func (t *token) mac(s pkcs11.SessionHandle, k kek, ct, aad []byte) ([]byte, error) {
	h := sha256.New()
	h.Write([]byte(macDomain))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(aad))))
	h.Write(aad)
	h.Write(ct)
	if err := t.mod.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256_HMAC, nil)}, k.mac.h); err != nil {
		return nil, p11Fault("C_SignInit", err)
	}
	sum, err := t.mod.Sign(s, h.Sum(nil))
	if err != nil {
		return nil, p11Fault("C_Sign", err)
	}
	if len(sum) != macLen {
		return nil, newFault(seal.ErrUnavailable, "C_Sign gave an HMAC of %d bytes, want %d", len(sum), macLen)
	}
	return sum, nil
}

func (t *token) sealOAEP(s pkcs11.SessionHandle, k kek, plain, aad []byte) ([]byte, error) {
	ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, k.public, plain, nil)
	if err != nil {
		return nil, newFault(seal.ErrPolicy, "encrypting to the token's RSA key: %v", err)
	}
	blob := append([]byte{byte(k.wrap)}, ct...)
	sum, err := t.mac(s, k, blob, aad)
	if err != nil {
		return nil, err
	}
	return append(blob, sum...), nil
}

// openSealedOAEP decrypts only what the token's own HMAC key has signed.
func (t *token) openSealedOAEP(s pkcs11.SessionHandle, k kek, blob, aad []byte) (plain []byte, refused bool, err error) {
	signed := len(blob) - macLen
	if signed != 1+k.public.Size() {
		return nil, false, newFault(seal.ErrTampered, "opening a blob of %d bytes with a key of %d", len(blob), k.public.Size())
	}
	sum, err := t.mac(s, k, blob[:signed], aad)
	if err != nil {
		return nil, false, err
	}
	if subtle.ConstantTimeCompare(sum, blob[signed:]) != 1 {
		// Ours, or a module whose HMAC is wrong today: the canary decides.
		return nil, true, newFault(seal.ErrTampered, "opening a blob: the token's HMAC is another")
	}
	how := schemeNative
	if k.wrap == wrapRawOAEP {
		how = schemeRaw
	}
	return t.openOAEP(s, decryptionKey{key: k.key, scheme: how, public: k.public}, blob[1:signed])
}
