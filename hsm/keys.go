//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// This file is what all keys have in common: a template that we ask for, a check
// that insists on it, and what is done with tokens that don't know all of it. It
// also has the checkpoint key.

const checkpointLabel = "sigild-checkpoint"

// template is attrs with an id and a label, for making a key without some.
func template(attrs []attr, id []byte, label string, without protection) []*pkcs11.Attribute {
	t := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
	for _, a := range attrs {
		if a.lack&without == 0 {
			t = append(t, pkcs11.NewAttribute(a.typ, a.value))
		}
	}
	return t
}

// passing is attrs for a key that ends with its session.
func passing(attrs []attr) []attr {
	attrs = slices.Clone(attrs)
	for i := range attrs {
		if attrs[i].typ == pkcs11.CKA_TOKEN {
			attrs[i].value = false
		}
	}
	return attrs
}

// fit finds out what a token does not take in a template: make makes passing keys
// without some attributes. It returns the fewest that must be left out, trying
// them one by one: the token tells only that something was wrong.
func fit(make func(without protection) error) (protection, error) {
	first := make(0)
	if first == nil || !refusedTemplate(first) {
		return 0, first
	}
	without := lackAll
	if make(without) != nil {
		return 0, first
	}
	for bit := protection(1); bit <= lackAll; bit <<= 1 {
		if err := make(without &^ bit); err == nil {
			without &^= bit
		} else if !refusedTemplate(err) {
			return 0, err
		}
	}
	return without, nil
}

// refusedTemplate says that an error is about an attribute.
func refusedTemplate(err error) bool {
	var f *fault
	if !errors.As(err, &f) {
		return false
	}
	switch f.code {
	case pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_TEMPLATE_INCONSISTENT:
		return true
	}
	return false
}

// key is an object that was found once and has the attributes we insist on.
type key struct {
	h  pkcs11.ObjectHandle
	id []byte
	// lacks is what the key has not got, of what its reference says it may lack.
	lacks protection
}

// find returns the only object with this id and the class in attrs[0].
func (t *token) find(s pkcs11.SessionHandle, r keyRef, attrs, more []attr) (key, error) {
	found, err := t.search(s, 2, pkcs11.NewAttribute(attrs[0].typ, attrs[0].value), pkcs11.NewAttribute(pkcs11.CKA_ID, r.id))
	if err != nil {
		return key{}, err
	}
	switch len(found) {
	case 0:
		return key{}, newFault(seal.ErrNotFound, "finding the key with CKA_ID %s; hint: the token was replaced, or sigilctl init was never run on it", hex.EncodeToString(r.id))
	case 1:
	default:
		return key{}, newFault(seal.ErrAmbiguous, "finding the key with CKA_ID %s; hint: destroy the copies that are not ours", hex.EncodeToString(r.id))
	}
	k := key{h: found[0], id: r.id}
	k.lacks, err = t.insist(s, k, r.without, attrs, more)
	return k, err
}

// search returns at most n objects that match.
func (t *token) search(s pkcs11.SessionHandle, n int, match ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := t.mod.FindObjectsInit(s, match); err != nil {
		return nil, p11Fault("C_FindObjectsInit", err)
	}
	found, _, err := t.mod.FindObjects(s, n)
	if err != nil {
		return nil, p11Fault("C_FindObjects", err)
	}
	if err := t.mod.FindObjectsFinal(s); err != nil {
		return nil, p11Fault("C_FindObjectsFinal", err)
	}
	return found, nil
}

// insist refuses a key that is not what we would make, and returns what it lacks of
// what it may lack.
func (t *token) insist(s pkcs11.SessionHandle, k key, without protection, lists ...[]attr) (lacks protection, err error) {
	attrs := slices.Concat(lists...)
	have, err := t.read(s, k.h, attrs)
	if err != nil {
		return 0, err
	}
	var wrong []string
	for i, a := range attrs {
		want, got := pkcs11.NewAttribute(a.typ, a.value).Value, have[i]
		if _, isBool := a.value.(bool); isBool && len(got) == 1 && got[0] != 0 {
			got = []byte{1} // CK_TRUE is 1, but some write 0xFF
		}
		switch {
		case got != nil && bytes.Equal(got, want):
		case a.lack&without != 0 && (got == nil || a.soft):
			lacks |= a.lack
		case a.lack&bornLacks != 0 && got != nil && t.allowImported:
			lacks |= a.lack
		case got == nil:
			wrong = append(wrong, fmt.Sprintf("%s is not known to the token, want %x", a.name, want))
		default:
			wrong = append(wrong, fmt.Sprintf("%s is %x, want %x", a.name, have[i], want))
		}
	}
	if len(wrong) > 0 {
		return 0, newFault(seal.ErrPolicy, "checking the key with CKA_ID %s: %s", hex.EncodeToString(k.id), strings.Join(wrong, "; "))
	}
	return lacks, nil
}

// read returns the values of attrs; nil for one that the token does not know.
func (t *token) read(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, attrs []attr) ([][]byte, error) {
	ask := make([]*pkcs11.Attribute, len(attrs))
	for i, a := range attrs {
		ask[i] = pkcs11.NewAttribute(a.typ, nil)
	}
	values := make([][]byte, len(attrs))
	got, err := t.mod.GetAttributeValue(s, h, ask)
	if err == nil {
		for i := range got {
			values[i] = append([]byte{}, got[i].Value...) // empty is not unknown
		}
		return values, nil
	}
	if !unknownAttribute(err) {
		return nil, p11Fault("C_GetAttributeValue", err)
	}
	// The bindings give nothing when one is unknown: ask one by one.
	for i, a := range attrs {
		one, err := t.mod.GetAttributeValue(s, h, ask[i:i+1])
		switch {
		case err == nil:
			values[i] = append([]byte{}, one[0].Value...)
		case !unknownAttribute(err) || a.lack == 0:
			return nil, p11Fault("C_GetAttributeValue of "+a.name, err)
		}
	}
	return values, nil
}

func unknownAttribute(err error) bool {
	return errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)) || errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE))
}

// destroy destroys what was made before err, which it returns.
func (t *token) destroy(s pkcs11.SessionHandle, made []pkcs11.ObjectHandle, err error) error {
	for _, h := range made {
		if derr := t.mod.DestroyObject(s, h); derr != nil {
			return newFault(seal.ErrUnavailable, "%v; and a key made before it can't be destroyed: %v", err, derr)
		}
	}
	return err
}

// provision makes both keys, or neither.
func (t *token) provision() (refs [][]byte, err error) {
	first, second := keyRef{id: make([]byte, 16)}, keyRef{id: make([]byte, 16)}
	rand.Read(first.id) // never fails since Go 1.24
	rand.Read(second.id)
	err = t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		wrap, without, err := t.probeWrapping(s)
		if err != nil {
			return err
		}
		first.wrap = wrap
		made, err := t.makeKEK(s, &first, without)
		if err == nil {
			var more []pkcs11.ObjectHandle
			more, err = t.makeCheckpoint(s, &second)
			made = append(made, more...)
		}
		if err != nil {
			return t.destroy(s, made, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return [][]byte{first.wire(), second.wire()}, nil
}

// makeCheckpoint makes and tries the checkpoint key r.id and writes into r what it
// lacks. It returns what it has made, also on an error.
func (t *token) makeCheckpoint(s pkcs11.SessionHandle, r *keyRef) (made []pkcs11.ObjectHandle, err error) {
	generate := func(private, public []attr, without protection) ([]pkcs11.ObjectHandle, error) {
		gen := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
		pub, priv, err := t.mod.GenerateKeyPair(s, gen, template(public, r.id, checkpointLabel, without), template(private, r.id, checkpointLabel, without))
		if err != nil {
			return nil, p11Fault("C_GenerateKeyPair of the checkpoint key", err)
		}
		return []pkcs11.ObjectHandle{pub, priv}, nil
	}
	without, err := fit(func(without protection) error {
		made, err := generate(passing(checkpointAttrs), passing(publicAttrs), without)
		return t.destroy(s, made, err)
	})
	if err != nil {
		return nil, err
	}
	if made, err = generate(checkpointAttrs, publicAttrs, without); err != nil {
		return made, err
	}
	// A token may take a template and not keep to it: look, and try.
	if err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, _, err := t.checkpoint(s, keyRef{id: r.id, without: lackAll})
		r.without = k.lacks
		return err
	}); err != nil {
		return made, err
	}
	digest := make([]byte, 32)
	rand.Read(digest)
	_, err = t.sign(*r, digest)
	return made, err
}

// checkpoint is the private half of a checkpoint key, and its point: 65 bytes.
func (t *token) checkpoint(s pkcs11.SessionHandle, r keyRef) (key, []byte, error) {
	k, err := t.recall(kindCheckpoint, r, func() (k knownKey, err error) {
		if k.key, err = t.find(s, r, checkpointAttrs, bornInside); err != nil {
			return k, err
		}
		var lacks protection
		k.point, lacks, err = t.point(s, r)
		k.key.lacks |= lacks
		return k, err
	})
	return k.key, k.point, err
}

// check is opCheckKey: what the key lacks, u16.
func (t *token) check(kind byte, r keyRef) (lacks []byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		t.forget(r.id)
		var k key
		var err error
		switch kind {
		case kindKEK:
			var found kek
			found, err = t.kek(s, r)
			k = found.key
		case kindCheckpoint:
			k, _, err = t.checkpoint(s, r)
		default:
			err = newFault(errRefused, "checking a key of kind %d", kind)
		}
		lacks = binary.BigEndian.AppendUint16(nil, uint16(k.lacks))
		return err
	})
	return lacks, err
}

// public is opPublicP256. The private half must be there and in order.
func (t *token) public(r keyRef) (point []byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		_, known, err := t.checkpoint(s, r)
		point = bytes.Clone(known) // the reply is wiped
		return err
	})
	return point, err
}

// point reads the uncompressed point, 65 bytes, of the public half.
func (t *token) point(s pkcs11.SessionHandle, r keyRef) ([]byte, protection, error) {
	k, err := t.find(s, r, publicAttrs, nil)
	if err != nil {
		return nil, 0, err
	}
	got, err := t.mod.GetAttributeValue(s, k.h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, 0, p11Fault("C_GetAttributeValue of CKA_EC_POINT", err)
	}
	point := got[0].Value
	// PKCS#11 v2.40 §2.3.3 wraps the point in a DER OCTET STRING; some tokens
	// give it bare.
	if len(point) != 65 {
		var inner []byte
		if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) != 0 || len(inner) != 65 {
			return nil, 0, newFault(seal.ErrPolicy, "reading CKA_EC_POINT: %d bytes that are no P-256 point", len(point))
		}
		point = inner
	}
	return point, k.lacks, nil
}
