//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

const (
	kekLabel        = "sigild-kek"
	checkpointLabel = "sigild-checkpoint"
)

// attr is an attribute with the value that we give it and insist on.
type attr struct {
	name  string
	typ   uint
	value any
}

// p256 is CKA_EC_PARAMS of P-256: the DER of OID 1.2.840.10045.3.1.7.
var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// kekAttrs is the KEK, facts/sealing.md §1.2. WRAP=0, because wrap-then-decrypt
// gives keys in clear. MODIFIABLE=0, or WRAP could be set later.
// ALLOWED_MECHANISMS, or ECB under the KEK gives the hash key of GCM.
var kekAttrs = []attr{
	{"CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY},
	{"CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES},
	{"CKA_VALUE_LEN", pkcs11.CKA_VALUE_LEN, 32},
	{"CKA_TOKEN", pkcs11.CKA_TOKEN, true},
	{"CKA_PRIVATE", pkcs11.CKA_PRIVATE, true},
	{"CKA_SENSITIVE", pkcs11.CKA_SENSITIVE, true},
	{"CKA_EXTRACTABLE", pkcs11.CKA_EXTRACTABLE, false},
	{"CKA_ENCRYPT", pkcs11.CKA_ENCRYPT, true},
	{"CKA_DECRYPT", pkcs11.CKA_DECRYPT, true},
	{"CKA_WRAP", pkcs11.CKA_WRAP, false},
	{"CKA_UNWRAP", pkcs11.CKA_UNWRAP, false},
	{"CKA_SIGN", pkcs11.CKA_SIGN, false},
	{"CKA_DERIVE", pkcs11.CKA_DERIVE, false},
	{"CKA_MODIFIABLE", pkcs11.CKA_MODIFIABLE, false},
	{"CKA_COPYABLE", pkcs11.CKA_COPYABLE, false},
	{"CKA_ALLOWED_MECHANISMS", pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms(pkcs11.CKM_AES_GCM)},
}

// checkpointAttrs is the private half of the checkpoint key.
var checkpointAttrs = []attr{
	{"CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY},
	{"CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC},
	{"CKA_TOKEN", pkcs11.CKA_TOKEN, true},
	{"CKA_PRIVATE", pkcs11.CKA_PRIVATE, true},
	{"CKA_SENSITIVE", pkcs11.CKA_SENSITIVE, true},
	{"CKA_EXTRACTABLE", pkcs11.CKA_EXTRACTABLE, false},
	{"CKA_SIGN", pkcs11.CKA_SIGN, true},
	{"CKA_DECRYPT", pkcs11.CKA_DECRYPT, false},
	{"CKA_UNWRAP", pkcs11.CKA_UNWRAP, false},
	{"CKA_DERIVE", pkcs11.CKA_DERIVE, false},
	{"CKA_MODIFIABLE", pkcs11.CKA_MODIFIABLE, false},
	{"CKA_COPYABLE", pkcs11.CKA_COPYABLE, false},
	{"CKA_ALLOWED_MECHANISMS", pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms(pkcs11.CKM_ECDSA)},
}

// publicAttrs is its public half.
var publicAttrs = []attr{
	{"CKA_CLASS", pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY},
	{"CKA_KEY_TYPE", pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC},
	{"CKA_TOKEN", pkcs11.CKA_TOKEN, true},
	{"CKA_VERIFY", pkcs11.CKA_VERIFY, true},
	{"CKA_MODIFIABLE", pkcs11.CKA_MODIFIABLE, false},
	{"CKA_EC_PARAMS", pkcs11.CKA_EC_PARAMS, p256},
}

// bornInside is what the token says of a secret that was never elsewhere. It
// can't be asked for, only read.
var bornInside = []attr{
	{"CKA_ALWAYS_SENSITIVE", pkcs11.CKA_ALWAYS_SENSITIVE, true},
	{"CKA_NEVER_EXTRACTABLE", pkcs11.CKA_NEVER_EXTRACTABLE, true},
	{"CKA_LOCAL", pkcs11.CKA_LOCAL, true},
}

// mechanisms is the value of CKA_ALLOWED_MECHANISMS: an array of CK_ULONG.
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

// template is attrs with an id and a label, for making a key.
func template(attrs []attr, id []byte, label string) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
	for _, a := range attrs {
		t = append(t, pkcs11.NewAttribute(a.typ, a.value))
	}
	return t
}

// key is an object that was found once and has the attributes we insist on.
type key struct {
	h  pkcs11.ObjectHandle
	id []byte
}

// kek is the KEK with this id.
func (t *token) kek(s pkcs11.SessionHandle, id []byte) (key, error) {
	k, err := t.recall(kindKEK, id, func() (k knownKey, err error) {
		k.key, err = t.find(s, id, kekAttrs, bornInside)
		return k, err
	})
	return k.key, err
}

// checkpoint is the private half of a checkpoint key, and its point: 65 bytes.
func (t *token) checkpoint(s pkcs11.SessionHandle, id []byte) (key, []byte, error) {
	k, err := t.recall(kindCheckpoint, id, func() (k knownKey, err error) {
		if k.key, err = t.find(s, id, checkpointAttrs, bornInside); err != nil {
			return k, err
		}
		k.point, err = t.point(s, id)
		return k, err
	})
	return k.key, k.point, err
}

// find returns the only object with this id and the class in attrs[0].
func (t *token) find(s pkcs11.SessionHandle, id []byte, attrs, more []attr) (key, error) {
	err := t.mod.FindObjectsInit(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(attrs[0].typ, attrs[0].value),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	})
	if err != nil {
		return key{}, p11Fault("C_FindObjectsInit", err)
	}
	found, _, err := t.mod.FindObjects(s, 2)
	if err != nil {
		return key{}, p11Fault("C_FindObjects", err)
	}
	if err := t.mod.FindObjectsFinal(s); err != nil {
		return key{}, p11Fault("C_FindObjectsFinal", err)
	}
	switch len(found) {
	case 0:
		return key{}, newFault(seal.ErrNotFound, "finding the key with CKA_ID %s; hint: the token was replaced, or sigilctl init was never run on it", hex.EncodeToString(id))
	case 1:
	default:
		return key{}, newFault(seal.ErrAmbiguous, "finding the key with CKA_ID %s; hint: destroy the copies that are not ours", hex.EncodeToString(id))
	}
	k := key{h: found[0], id: id}
	return k, t.insist(s, k, attrs, more)
}

// insist refuses a key that is not what we would make.
func (t *token) insist(s pkcs11.SessionHandle, k key, lists ...[]attr) error {
	attrs := slices.Concat(lists...)
	ask := make([]*pkcs11.Attribute, len(attrs))
	for i, a := range attrs {
		ask[i] = pkcs11.NewAttribute(a.typ, nil)
	}
	got, err := t.mod.GetAttributeValue(s, k.h, ask)
	if err != nil {
		return p11Fault("C_GetAttributeValue", err)
	}
	var wrong []string
	for i, a := range attrs {
		want := pkcs11.NewAttribute(a.typ, a.value).Value
		have := got[i].Value
		if _, isBool := a.value.(bool); isBool && len(have) == 1 && have[0] != 0 {
			have = []byte{1} // CK_TRUE is 1, but some write 0xFF
		}
		if !bytes.Equal(have, want) {
			wrong = append(wrong, fmt.Sprintf("%s is %x, want %x", a.name, got[i].Value, want))
		}
	}
	if len(wrong) > 0 {
		return newFault(seal.ErrPolicy, "checking the key with CKA_ID %s: %s", hex.EncodeToString(k.id), strings.Join(wrong, "; "))
	}
	return nil
}

// provision makes both keys, or neither.
func (t *token) provision() (ids [][]byte, err error) {
	kekID, cpID := make([]byte, 16), make([]byte, 16)
	rand.Read(kekID) // never fails since Go 1.24
	rand.Read(cpID)
	err = t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		var made []pkcs11.ObjectHandle
		err := t.makeKeys(s, kekID, cpID, &made)
		if err == nil {
			return nil
		}
		for _, h := range made {
			if derr := t.mod.DestroyObject(s, h); derr != nil {
				return newFault(seal.ErrUnavailable, "%v; and a key made before it can't be destroyed: %v", err, derr)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return [][]byte{kekID, cpID}, nil
}

// makeKeys appends to made what it has made, also on an error.
func (t *token) makeKeys(s pkcs11.SessionHandle, kekID, cpID []byte, made *[]pkcs11.ObjectHandle) error {
	gen := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}
	h, err := t.mod.GenerateKey(s, gen, template(kekAttrs, kekID, kekLabel))
	if err != nil {
		return p11Fault("C_GenerateKey of the KEK", err)
	}
	*made = append(*made, h)
	gen = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
	pub, priv, err := t.mod.GenerateKeyPair(s, gen, template(publicAttrs, cpID, checkpointLabel), template(checkpointAttrs, cpID, checkpointLabel))
	if err != nil {
		return p11Fault("C_GenerateKeyPair of the checkpoint key", err)
	}
	*made = append(*made, pub, priv)
	// A token may take a template and not keep to it: look, and try.
	if err := t.health(kekID); err != nil {
		return err
	}
	digest := make([]byte, 32)
	rand.Read(digest)
	_, err = t.sign(cpID, digest)
	return err
}

// check is opCheckKey.
func (t *token) check(kind byte, id []byte) error {
	return t.session(0, func(s pkcs11.SessionHandle) error {
		t.forget(id)
		switch kind {
		case kindKEK:
			_, err := t.kek(s, id)
			return err
		case kindCheckpoint:
			_, _, err := t.checkpoint(s, id)
			return err
		}
		return newFault(errRefused, "checking a key of kind %d", kind)
	})
}

// public is opPublicP256. The private half must be there and in order.
func (t *token) public(id []byte) (point []byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		_, known, err := t.checkpoint(s, id)
		point = bytes.Clone(known) // the reply is wiped
		return err
	})
	return point, err
}

// point reads the uncompressed point, 65 bytes, of the public half.
func (t *token) point(s pkcs11.SessionHandle, id []byte) ([]byte, error) {
	k, err := t.find(s, id, publicAttrs, nil)
	if err != nil {
		return nil, err
	}
	got, err := t.mod.GetAttributeValue(s, k.h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, p11Fault("C_GetAttributeValue of CKA_EC_POINT", err)
	}
	point := got[0].Value
	// PKCS#11 v2.40 §2.3.3 wraps the point in a DER OCTET STRING; some tokens
	// give it bare.
	if len(point) != 65 {
		var inner []byte
		if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) != 0 || len(inner) != 65 {
			return nil, newFault(seal.ErrPolicy, "reading CKA_EC_POINT: %d bytes that are no P-256 point", len(point))
		}
		point = inner
	}
	return point, nil
}
