//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"math/big"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// This file is the worker's side of decryption keys; rsa.go has the rules.

const (
	webhookLabel  = "sigild-webhook"
	importedLabel = "sigild-webhook-imported"
)

// rsaPublicAttrs is the public half. It is a session object: modulus and
// exponent are read from the private one.
var rsaPublicAttrs = []attr{
	must("CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
	must("CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
	must("CKA_TOKEN", pkcs11.CKA_TOKEN, false),
	must("CKA_ENCRYPT", pkcs11.CKA_ENCRYPT, true),
	must("CKA_PUBLIC_EXPONENT", pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
}

func (s scheme) mechanism() []*pkcs11.Mechanism {
	if s == schemeRaw {
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_X_509, nil)}
	}
	params := pkcs11.NewOAEPParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, pkcs11.CKZ_DATA_SPECIFIED, nil)
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, params)}
}

// decryptionKey is a key that was found once and has the attributes we insist on.
type decryptionKey struct {
	key
	scheme   scheme
	public   *rsa.PublicKey
	imported bool
}

// generateRSA is opGenerateRSA.
func (t *token) generateRSA(bits int) ([]byte, error) {
	return t.makeRSA(func(s pkcs11.SessionHandle, id []byte, how scheme) (pkcs11.ObjectHandle, error) {
		private := append(template(rsaAttrs, id, webhookLabel, 0), pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, how.allowed().value))
		return t.generateRSAPair(s, bits, id, private)
	})
}

func (t *token) generateRSAPair(s pkcs11.SessionHandle, bits int, id []byte, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	public := append(template(rsaPublicAttrs, id, webhookLabel, 0), pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits))
	gen := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}
	_, h, err := t.mod.GenerateKeyPair(s, gen, public, private)
	if err != nil {
		return 0, p11Fault("C_GenerateKeyPair of an RSA key", err)
	}
	return h, nil
}

// importRSA is opImportRSA. The numbers of the private key are copied by the
// parser, and by the bindings, to where they can't be wiped: the worker ends
// after this request.
func (t *token) importRSA(pkcs8 []byte) ([]byte, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		// Not err: it may quote what it read.
		return nil, newFault(seal.ErrPolicy, "reading the private key: not PKCS #8 in DER, or an unusable key")
	}
	k, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, newFault(seal.ErrPolicy, "reading the private key: it is no RSA key")
	}
	if bits := k.N.BitLen(); bits < 8*minModulus || bits > 8*maxModulus || bits%8 != 0 || k.E < 65537 || len(k.Primes) != 2 {
		return nil, newFault(seal.ErrPolicy, "reading the private key: %d bits, exponent %d, %d primes; want 2048 to 4096 bits, at least 65537, 2", k.N.BitLen(), k.E, len(k.Primes))
	}
	k.Precompute()
	return t.makeRSA(func(s pkcs11.SessionHandle, id []byte, how scheme) (pkcs11.ObjectHandle, error) {
		tmpl := append(template(rsaAttrs, id, importedLabel, 0), pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, how.allowed().value),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(k.E)).Bytes()))
		for _, part := range []struct {
			typ   uint
			value *big.Int
		}{
			{pkcs11.CKA_MODULUS, k.N}, {pkcs11.CKA_PRIVATE_EXPONENT, k.D},
			{pkcs11.CKA_PRIME_1, k.Primes[0]}, {pkcs11.CKA_PRIME_2, k.Primes[1]},
			{pkcs11.CKA_EXPONENT_1, k.Precomputed.Dp}, {pkcs11.CKA_EXPONENT_2, k.Precomputed.Dq}, {pkcs11.CKA_COEFFICIENT, k.Precomputed.Qinv},
		} {
			b := part.value.Bytes()
			defer clear(b)
			tmpl = append(tmpl, pkcs11.NewAttribute(part.typ, b))
		}
		h, err := t.mod.CreateObject(s, tmpl)
		if err != nil {
			return 0, p11Fault("C_CreateObject of an RSA key", err)
		}
		return h, nil
	})
}

// makeRSA decides how the key will be used, makes it and tries it, or leaves
// nothing behind.
func (t *token) makeRSA(create func(pkcs11.SessionHandle, []byte, scheme) (pkcs11.ObjectHandle, error)) (id []byte, err error) {
	how, err := t.probeRSA()
	if err != nil {
		return nil, err
	}
	id = make([]byte, 16)
	rand.Read(id)
	err = t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		h, err := create(s, id, how)
		if err != nil {
			return err
		}
		// A token may take a template and not keep to it: look, and try.
		err = t.session(0, func(s pkcs11.SessionHandle) error {
			k, err := t.decryptionKey(s, id)
			if err != nil {
				return err
			}
			return t.tryRSA(k)
		})
		if err == nil {
			return nil
		}
		if derr := t.mod.DestroyObject(s, h); derr != nil {
			return newFault(seal.ErrUnavailable, "%v; and the key can't be destroyed: %v", err, derr)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return id, nil
}

// probeRSA finds out on a passing key whether the token does OAEP with SHA-256.
// A token may list the mechanism and do SHA-1 only, so it is tried. Any failure
// means no: the key made then is tried again, in its own way.
func (t *token) probeRSA() (scheme, error) {
	how := schemeRaw
	err := t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		private := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		}
		id := []byte("sigild-probe")
		h, err := t.generateRSAPair(s, 8*minModulus, id, private)
		if err != nil {
			return err
		}
		public, err := t.rsaPublic(s, h)
		if err != nil {
			return err
		}
		if t.tryRSA(decryptionKey{key: key{h: h, id: id}, scheme: schemeNative, public: public}) == nil {
			how = schemeNative
		}
		return nil
	})
	return how, err
}

// tryRSA encrypts a random text to the key and opens it again.
func (t *token) tryRSA(k decryptionKey) error {
	text := make([]byte, 32)
	rand.Read(text)
	ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, k.public, text, nil)
	if err != nil {
		return newFault(seal.ErrPolicy, "encrypting to the token's RSA key: %v", err)
	}
	return t.session(0, func(s pkcs11.SessionHandle) error {
		plain, _, err := t.openOAEP(s, k, ct)
		if err != nil {
			return err
		}
		defer clear(plain)
		if subtle.ConstantTimeCompare(plain, text) != 1 {
			return newFault(seal.ErrUnavailable, "trying the RSA key: the plaintext is another")
		}
		return nil
	})
}

// decryptionKey is the key with this id.
func (t *token) decryptionKey(s pkcs11.SessionHandle, id []byte) (decryptionKey, error) {
	k, err := t.recall(kindRSA, keyRef{id: id}, func() (k knownKey, err error) {
		k.rsa, err = t.findRSA(s, id)
		return k, err
	})
	return k.rsa, err
}

// findRSA finds and checks a decryption key.
func (t *token) findRSA(s pkcs11.SessionHandle, id []byte) (decryptionKey, error) {
	found, err := t.find(s, keyRef{id: id}, rsaAttrs, nil)
	if err != nil {
		return decryptionKey{}, err
	}
	k := decryptionKey{key: found}
	got, err := t.mod.GetAttributeValue(s, k.h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, nil), pkcs11.NewAttribute(pkcs11.CKA_LOCAL, nil),
	})
	if err != nil {
		return decryptionKey{}, p11Fault("C_GetAttributeValue", err)
	}
	for _, how := range []scheme{schemeNative, schemeRaw} {
		if bytes.Equal(got[0].Value, mechanisms(uint(how))) {
			k.scheme = how
		}
	}
	if k.scheme == 0 {
		return decryptionKey{}, newFault(seal.ErrPolicy, "checking the key with CKA_ID %x: CKA_ALLOWED_MECHANISMS is %x, want one mechanism of ours", id, got[0].Value)
	}
	k.imported = len(got[1].Value) != 1 || got[1].Value[0] == 0
	k.public, err = t.rsaPublic(s, k.h)
	return k, err
}

// rsaPublic reads modulus and exponent of a private key.
func (t *token) rsaPublic(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	got, err := t.mod.GetAttributeValue(s, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil),
	})
	if err != nil {
		return nil, p11Fault("C_GetAttributeValue of an RSA key", err)
	}
	n, e := new(big.Int).SetBytes(got[0].Value), new(big.Int).SetBytes(got[1].Value)
	if n.BitLen() < 8*minModulus || n.BitLen() > 8*maxModulus || n.BitLen()%8 != 0 || e.BitLen() > 31 || e.Int64() < 65537 {
		return nil, newFault(seal.ErrPolicy, "reading an RSA key: %d bits, exponent of %d bits", n.BitLen(), e.BitLen())
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// publicRSA is opPublicRSA: modulus, exponent, flags.
func (t *token) publicRSA(id []byte) (reply [][]byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, err := t.decryptionKey(s, id)
		if err != nil {
			return err
		}
		var flags byte
		if k.imported {
			flags |= flagImported
		}
		if k.scheme == schemeNative {
			flags |= flagNative
		}
		reply = [][]byte{k.public.N.Bytes(), big.NewInt(int64(k.public.E)).Bytes(), {flags}}
		return nil
	})
	return reply, err
}

// list is opListRSA and opListP256: the ids of the private keys labelled as ours.
func (t *token) list(labels ...string) (list []byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		for _, label := range labels {
			found, err := t.search(s, maxRSAKeys+1, pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
			if err != nil {
				return err
			}
			for _, h := range found {
				got, err := t.mod.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
				if err != nil {
					return p11Fault("C_GetAttributeValue of CKA_ID", err)
				}
				if id := got[0].Value; len(id) >= 1 && len(id) <= maxID {
					list = append(append(list, byte(len(id))), id...)
				}
			}
			if len(found) > maxRSAKeys || len(list) > shapes[opListRSA].reply[0].max {
				return newFault(seal.ErrPolicy, "listing keys: more than %d", maxRSAKeys)
			}
		}
		return nil
	})
	return list, err
}

// destroyRSA is opDestroyRSA. Only a key labelled as ours is destroyed.
func (t *token) destroyRSA(id []byte) error {
	t.forget(id)
	return t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		if _, err := t.findRSA(s, id); err != nil {
			return err
		}
		found, err := t.search(s, 2, pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, id))
		if err != nil {
			return err
		}
		for _, h := range found {
			got, err := t.mod.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
			if err != nil {
				return p11Fault("C_GetAttributeValue of CKA_LABEL", err)
			}
			if label := string(got[0].Value); len(found) != 1 || label != webhookLabel && label != importedLabel {
				return newFault(seal.ErrPolicy, "destroying the key with CKA_ID %x: it is labelled %q, not by us", id, label)
			}
			if err := t.mod.DestroyObject(s, h); err != nil {
				return p11Fault("C_DestroyObject", err)
			}
		}
		return nil
	})
}

// errUnopened is every fault of a ciphertext, whichever step found it.
func errUnopened() error { return newFault(seal.ErrTampered, "opening an OAEP ciphertext") }

// decryptOAEP is opDecryptOAEP. A C_Decrypt that fails is the ciphertext's fault
// only when the token can still open one of our own, and fails again after that.
func (t *token) decryptOAEP(id, ciphertext []byte) (plain []byte, err error) {
	var k decryptionKey
	try := func() (refused bool, err error) {
		err = t.session(0, func(s pkcs11.SessionHandle) error {
			if k, err = t.decryptionKey(s, id); err != nil {
				return err
			}
			// What is no number below the modulus is never shown to the token.
			if len(ciphertext) != k.public.Size() || new(big.Int).SetBytes(ciphertext).Cmp(k.public.N) >= 0 {
				return errUnopened()
			}
			plain, refused, err = t.openOAEP(s, k, ciphertext)
			return err
		})
		return refused, err
	}
	err = blame(try, func() error { return t.tryRSA(k) })
	if errors.Is(err, seal.ErrTampered) {
		return nil, errUnopened()
	}
	return plain, err
}

// openOAEP opens a ciphertext in the key's own way. failed says that C_Decrypt
// itself said no.
func (t *token) openOAEP(s pkcs11.SessionHandle, k decryptionKey, ciphertext []byte) (plain []byte, failed bool, err error) {
	if err := t.mod.DecryptInit(s, k.scheme.mechanism(), k.h); err != nil {
		f := p11Fault("C_DecryptInit", err)
		if k.scheme == schemeNative && f.code == pkcs11.CKR_ARGUMENTS_BAD { // SoftHSM, which takes SHA-1 only
			f.class = classUnsupported
		}
		return nil, false, f
	}
	out, err := t.mod.Decrypt(s, ciphertext)
	if err != nil {
		f := p11Fault("C_Decrypt", err)
		return nil, f.blamesInput(), f
	}
	size := k.public.Size()
	if k.scheme == schemeNative {
		if len(out) > size-oaepExtra {
			clear(out)
			return nil, false, newFault(seal.ErrUnavailable, "C_Decrypt gave %d bytes, more than OAEP holds", len(out))
		}
		return out, false, nil
	}
	defer clear(out)
	if len(out) > size {
		return nil, false, newFault(seal.ErrUnavailable, "C_Decrypt gave %d bytes for a modulus of %d", len(out), size)
	}
	em := make([]byte, size) // some tokens drop zeros at the front
	defer clear(em)
	copy(em[size-len(out):], out)
	message, ok := unpadOAEP(em)
	if !ok {
		return nil, false, errUnopened()
	}
	return bytes.Clone(message), false, nil
}
