package hsm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"
)

// This file says what each kind of key must be: the templates that keys are made
// with in the worker, found keys are held against, and evidence (evidence.go) is
// judged by, where there may be no module.

// attr is an attribute with the value that we give it and insist on.
type attr struct {
	name  string
	typ   uint
	value any
	// lack is set for an attribute that some tokens don't know or don't take in a
	// template; the key is then made without it and its reference says so. Zero: no
	// key is made, or used, without it.
	lack protection
	// soft: a key that lacks it may even have the other value. Otherwise a token may
	// not know the attribute, but a key that has the wrong value is refused.
	soft bool
}

func must(name string, typ uint, value any) attr { return attr{name, typ, value, 0, false} }

func should(name string, typ uint, value any, lack protection) attr {
	return attr{name, typ, value, lack, false}
}

// p256 is CKA_EC_PARAMS of P-256: the DER of OID 1.2.840.10045.3.1.7.
var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

var (
	unmodifiable = attr{"CKA_MODIFIABLE", pkcs11.CKA_MODIFIABLE, false, lackModifiable, true}
	uncopyable   = attr{"CKA_COPYABLE", pkcs11.CKA_COPYABLE, false, lackCopyable, true}
)

// only is CKA_ALLOWED_MECHANISMS: an array of CK_ULONG, here of one.
func only(mechanism uint) attr {
	return attr{"CKA_ALLOWED_MECHANISMS", pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms(mechanism), lackMechanisms, true}
}

// checkpointAttrs is the private half of the checkpoint key.
var checkpointAttrs = []attr{
	must("CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
	must("CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
	must("CKA_TOKEN", pkcs11.CKA_TOKEN, true),
	must("CKA_PRIVATE", pkcs11.CKA_PRIVATE, true),
	must("CKA_SENSITIVE", pkcs11.CKA_SENSITIVE, true),
	must("CKA_EXTRACTABLE", pkcs11.CKA_EXTRACTABLE, false),
	must("CKA_SIGN", pkcs11.CKA_SIGN, true),
	should("CKA_DECRYPT", pkcs11.CKA_DECRYPT, false, lackDecrypt),
	should("CKA_UNWRAP", pkcs11.CKA_UNWRAP, false, lackUnwrap),
	should("CKA_DERIVE", pkcs11.CKA_DERIVE, false, lackDerive),
	unmodifiable, uncopyable, only(pkcs11.CKM_ECDSA),
}

// publicAttrs is its public half.
var publicAttrs = []attr{
	must("CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
	must("CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
	must("CKA_TOKEN", pkcs11.CKA_TOKEN, true),
	must("CKA_VERIFY", pkcs11.CKA_VERIFY, true),
	unmodifiable,
	must("CKA_EC_PARAMS", pkcs11.CKA_EC_PARAMS, p256),
}

// bornInside is what the token says of a secret that was never elsewhere. It
// can't be asked for, only read.
var bornInside = []attr{
	should("CKA_ALWAYS_SENSITIVE", pkcs11.CKA_ALWAYS_SENSITIVE, true, lackAlwaysSensitive),
	should("CKA_NEVER_EXTRACTABLE", pkcs11.CKA_NEVER_EXTRACTABLE, true, lackNeverExtractable),
	should("CKA_LOCAL", pkcs11.CKA_LOCAL, true, lackLocal),
}

// mechanisms is an array of CK_ULONG.
func mechanisms(list ...uint) []byte {
	var b []byte
	for _, m := range list {
		if strconv.IntSize == 64 {
			b = binary.NativeEndian.AppendUint64(b, uint64(m))
		} else {
			b = binary.NativeEndian.AppendUint32(b, uint32(m))
		}
	}
	return b
}

// bornLacks are the bits of bornInside.
const bornLacks = lackAlwaysSensitive | lackNeverExtractable | lackLocal

// secretAttrs begins every AES and HMAC key of ours.
func secretAttrs(keyType uint, more ...attr) []attr {
	return append([]attr{
		must("CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		must("CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, keyType),
		must("CKA_VALUE_LEN", pkcs11.CKA_VALUE_LEN, 32),
		must("CKA_TOKEN", pkcs11.CKA_TOKEN, true),
		must("CKA_PRIVATE", pkcs11.CKA_PRIVATE, true),
		must("CKA_SENSITIVE", pkcs11.CKA_SENSITIVE, true),
		must("CKA_EXTRACTABLE", pkcs11.CKA_EXTRACTABLE, false),
		should("CKA_DERIVE", pkcs11.CKA_DERIVE, false, lackDerive),
		unmodifiable, uncopyable,
	}, more...)
}

// gcmAttrs is the KEK that encrypts. WRAP=0, because wrap-then-decrypt gives keys in
// clear. MODIFIABLE=0, or WRAP could be set later. ALLOWED_MECHANISMS, or ECB under
// the KEK gives the hash key of GCM.
var gcmAttrs = secretAttrs(pkcs11.CKK_AES,
	must("CKA_ENCRYPT", pkcs11.CKA_ENCRYPT, true),
	must("CKA_DECRYPT", pkcs11.CKA_DECRYPT, true),
	should("CKA_WRAP", pkcs11.CKA_WRAP, false, lackWrap),
	should("CKA_UNWRAP", pkcs11.CKA_UNWRAP, false, lackUnwrap),
	should("CKA_SIGN", pkcs11.CKA_SIGN, false, lackSign),
	only(pkcs11.CKM_AES_GCM),
)

// keyWrapAttrs is the KEK that wraps. DECRYPT=0 for the reason above.
func keyWrapAttrs(mechanism uint) []attr {
	return secretAttrs(pkcs11.CKK_AES,
		should("CKA_ENCRYPT", pkcs11.CKA_ENCRYPT, false, lackEncrypt),
		should("CKA_DECRYPT", pkcs11.CKA_DECRYPT, false, lackDecrypt),
		must("CKA_WRAP", pkcs11.CKA_WRAP, true),
		must("CKA_UNWRAP", pkcs11.CKA_UNWRAP, true),
		should("CKA_SIGN", pkcs11.CKA_SIGN, false, lackSign),
		only(mechanism),
	)
}

// macAttrs is the key that says who made an OAEP blob: everybody has the public key.
var macAttrs = secretAttrs(pkcs11.CKK_GENERIC_SECRET,
	must("CKA_SIGN", pkcs11.CKA_SIGN, true),
	should("CKA_ENCRYPT", pkcs11.CKA_ENCRYPT, false, lackEncrypt),
	should("CKA_DECRYPT", pkcs11.CKA_DECRYPT, false, lackDecrypt),
	should("CKA_WRAP", pkcs11.CKA_WRAP, false, lackWrap),
	should("CKA_UNWRAP", pkcs11.CKA_UNWRAP, false, lackUnwrap),
	only(pkcs11.CKM_SHA256_HMAC),
)

// macID is the CKA_ID of the HMAC key beside the RSA key id.
func macID(id []byte) []byte {
	sum := sha256.Sum256(append([]byte("sigild/hsm/mac-key/v1"), id...))
	return sum[:16]
}

// kekAttrs is the key that a reference with this wrapping names.
func kekAttrs(w wrapping) []attr {
	switch w {
	case wrapKWP:
		return keyWrapAttrs(ckmAESKeyWrapKWP)
	case wrapPad:
		return keyWrapAttrs(pkcs11.CKM_AES_KEY_WRAP_PAD)
	case wrapOAEP:
		return append(slices.Clone(rsaAttrs), only(pkcs11.CKM_RSA_PKCS_OAEP))
	case wrapRawOAEP:
		return append(slices.Clone(rsaAttrs), only(pkcs11.CKM_RSA_X_509))
	default:
		return gcmAttrs
	}
}

// ckmAESKeyWrapKWP is of PKCS#11 v3.0; the bindings don't have it.
const ckmAESKeyWrapKWP = 0x210B

// rsaAttrs is the private half of a decryption key. UNWRAP=0: a key that both
// decrypts and unwraps would unwrap what is wrapped to it into a weaker one.
// CKA_ALLOWED_MECHANISMS comes from the probe.
var rsaAttrs = []attr{
	must("CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
	must("CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
	must("CKA_TOKEN", pkcs11.CKA_TOKEN, true),
	must("CKA_PRIVATE", pkcs11.CKA_PRIVATE, true),
	must("CKA_SENSITIVE", pkcs11.CKA_SENSITIVE, true),
	must("CKA_EXTRACTABLE", pkcs11.CKA_EXTRACTABLE, false),
	must("CKA_DECRYPT", pkcs11.CKA_DECRYPT, true),
	should("CKA_SIGN", pkcs11.CKA_SIGN, false, lackSign),
	should("CKA_UNWRAP", pkcs11.CKA_UNWRAP, false, lackUnwrap),
	should("CKA_DERIVE", pkcs11.CKA_DERIVE, false, lackDerive),
	unmodifiable, uncopyable,
}

// scheme is the one mechanism that a decryption key allows.
type scheme uint

const (
	schemeNative scheme = pkcs11.CKM_RSA_PKCS_OAEP // the token does it all
	schemeRaw    scheme = pkcs11.CKM_RSA_X_509     // the token does the power, oaep.go the padding
)

func (s scheme) allowed() attr { return only(uint(s)) }

// described is what evidence tells of a kind of key: what it is judged by, and what is
// told beside that. A delivery key may have been imported, and has one of two schemes.
func described(kind byte, w wrapping) (ours, told []attr) {
	switch kind {
	case kindKEK:
		if w >= wrapOAEP {
			told = rsaNumbers
		}
		return slices.Concat(kekAttrs(w), bornInside), told
	case kindMAC:
		return slices.Concat(macAttrs, bornInside), nil
	case kindCheckpoint:
		return slices.Concat(checkpointAttrs, bornInside), []attr{tell("CKA_EC_PARAMS", pkcs11.CKA_EC_PARAMS, p256)}
	default:
		return rsaAttrs, slices.Concat([]attr{only(pkcs11.CKM_RSA_X_509)}, bornInside, rsaNumbers)
	}
}

// rsaNumbers say how large an RSA key is, and which.
var rsaNumbers = []attr{
	tell("CKA_MODULUS", pkcs11.CKA_MODULUS, []byte{}),
	tell("CKA_PUBLIC_EXPONENT", pkcs11.CKA_PUBLIC_EXPONENT, []byte{}),
}

// tell is an attribute that is told and not judged.
func tell(name string, typ uint, like []byte) attr { return attr{name, typ, like, lackAll, true} }

// sayUnknown is what is said of an attribute that a token does not know.
const sayUnknown = "unknown"

// say is value, as the token gave it, in the words of evidence; nil is unknown.
func (a attr) say(value []byte) string {
	if value == nil {
		return sayUnknown
	}
	size := strconv.IntSize / 8
	_, isBytes := a.value.([]byte)
	_, isBool := a.value.(bool)
	switch {
	case isBool && len(value) == 1:
		return strconv.FormatBool(value[0] != 0) // CK_TRUE is 1, but some write 0xFF
	case !isBytes && !isBool && len(value) == size:
		return strconv.FormatUint(number(value), 10)
	case a.typ == pkcs11.CKA_ALLOWED_MECHANISMS && len(value)%size == 0:
		list := []string{}
		for b := range slices.Chunk(value, size) {
			list = append(list, "0x"+strconv.FormatUint(number(b), 16))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	return "0x" + hex.EncodeToString(value)
}

// saySelf is what is said of a key that has the value that a insists on.
func (a attr) saySelf() string { return a.say(native(a.value)) }

// native is a value of an attr as a token of this machine gives it.
func native(value any) []byte {
	switch v := value.(type) {
	case bool:
		if v {
			return []byte{1}
		}
		return []byte{0}
	case int:
		return mechanisms(uint(v))
	case uint:
		return mechanisms(v)
	case []byte:
		return v
	}
	return nil // none of ours has another type; a test holds them all equal to the bindings'
}

// number is one CK_ULONG.
func number(b []byte) uint64 {
	if len(b) == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return uint64(binary.NativeEndian.Uint32(b))
}
