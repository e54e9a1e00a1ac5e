//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// This file makes, finds and rolls the KEK. What a KEK is depends on its wrapping:
// an AES key that encrypts, an AES key that wraps, or an RSA key with an HMAC key
// beside it. The wrapping is found by trying each on passing keys, when the KEK is
// made and never after; wrap.go seals and opens with it.

const kekLabel = "sigild-kek"

// kek is a KEK that was found and checked.
type kek struct {
	key
	wrap wrapping
	// Of OAEP:
	public *rsa.PublicKey
	mac    key
}

// kek is the KEK that r names.
func (t *token) kek(s pkcs11.SessionHandle, r keyRef) (kek, error) {
	if !r.wrap.known() {
		return kek{}, newFault(seal.ErrNotFound, "finding a KEK: the reference is of another kind of key")
	}
	k, err := t.recall(kindKEK, r, func() (k knownKey, err error) {
		k.kek, err = t.findKEK(s, r)
		return k, err
	})
	return k.kek, err
}

func (t *token) findKEK(s pkcs11.SessionHandle, r keyRef) (k kek, err error) {
	k.wrap = r.wrap
	if k.key, err = t.find(s, r, kekAttrs(r.wrap), bornInside); err != nil || r.wrap < wrapOAEP {
		return k, err
	}
	if k.mac, err = t.find(s, keyRef{id: macID(r.id), without: r.without}, macAttrs, bornInside); err != nil {
		return k, err
	}
	k.lacks |= k.mac.lacks
	k.public, err = t.rsaPublic(s, k.h)
	return k, err
}

// generateKEK makes the objects of a KEK from attrs, which are kekAttrs or passing.
func (t *token) generateKEK(s pkcs11.SessionHandle, r keyRef, pass bool, without protection) (made []pkcs11.ObjectHandle, err error) {
	attrs, mac := kekAttrs(r.wrap), macAttrs
	if pass {
		attrs, mac = passing(attrs), passing(mac)
	}
	if r.wrap < wrapOAEP {
		h, err := t.generateSecret(s, pkcs11.CKM_AES_KEY_GEN, template(attrs, r.id, kekLabel, without))
		return append(made, h...), err
	}
	h, err := t.generateRSAPair(s, 8*minModulus, r.id, template(attrs, r.id, kekLabel, without))
	if err != nil {
		return nil, err
	}
	made = append(made, h)
	more, err := t.generateSecret(s, pkcs11.CKM_GENERIC_SECRET_KEY_GEN, template(mac, macID(r.id), kekLabel, without))
	return append(made, more...), err
}

func (t *token) generateSecret(s pkcs11.SessionHandle, mechanism uint, tmpl []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	h, err := t.mod.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, tmpl)
	if err != nil {
		return nil, p11Fault("C_GenerateKey of the KEK", err)
	}
	return []pkcs11.ObjectHandle{h}, nil
}

// probeWrapping finds the first wrapping that this token can do, and what has to be
// left out of its template. What the token does not offer leads to the next one; an
// error of the device never does.
func (t *token) probeWrapping(s pkcs11.SessionHandle) (w wrapping, without protection, err error) {
	var no []string
	for w = wrapGCM; w.known(); w++ {
		without, err = t.tryWrapping(s, w)
		if err == nil {
			return w, without, nil
		}
		if !errors.Is(err, seal.ErrUnsupported) && !errors.Is(err, seal.ErrPolicy) {
			return wrapNone, 0, err
		}
		no = append(no, fmt.Sprintf("%s: %v", wrappingNames[w], err))
	}
	return wrapNone, 0, newFault(seal.ErrUnsupported, "choosing how to seal: the token can't do any of ours: %s", strings.Join(no, "; "))
}

// tryWrapping seals and opens with a passing key, and returns what had to be left
// out of its template.
func (t *token) tryWrapping(s pkcs11.SessionHandle, w wrapping) (without protection, err error) {
	r := keyRef{wrap: w, id: make([]byte, 16)}
	rand.Read(r.id)
	var made []pkcs11.ObjectHandle
	without, err = fit(func(without protection) (err error) {
		if err = t.destroy(s, made, nil); err != nil {
			return err
		}
		if made, err = t.generateKEK(s, r, true, without); err != nil {
			err, made = t.destroy(s, made, err), nil
		}
		return err
	})
	if err != nil {
		return 0, t.destroy(s, made, err)
	}
	k := kek{key: key{h: made[0], id: r.id}, wrap: w}
	if w >= wrapOAEP {
		k.mac = key{h: made[1]}
		if k.public, err = t.rsaPublic(s, k.h); err != nil {
			return 0, t.destroy(s, made, err)
		}
	}
	// On the work session, which may be given up after an error.
	return without, t.destroy(s, made, t.session(0, func(work pkcs11.SessionHandle) error { return t.canary(work, k) }))
}

// makeKEK makes and tries the KEK r.id, leaving some attributes out, and writes into
// r what it lacks then. It returns what it has made, also on an error.
func (t *token) makeKEK(s pkcs11.SessionHandle, r *keyRef, without protection) (made []pkcs11.ObjectHandle, err error) {
	if made, err = t.generateKEK(s, *r, false, without); err != nil {
		return made, err
	}
	// A token may take a template and not keep to it: look, and try.
	if err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, err := t.findKEK(s, keyRef{wrap: r.wrap, without: lackAll, id: r.id})
		r.without = k.lacks
		return err
	}); err != nil {
		return made, err
	}
	return made, t.health(*r)
}

// makeAnotherKEK is opMakeKEK: a KEK of a lineage of its own, made and tried, or none.
func (t *token) makeAnotherKEK() (ref []byte, err error) {
	r := keyRef{id: make([]byte, 2*lineageLen)}
	rand.Read(r.id)
	err = t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		wrap, without, err := t.probeWrapping(s)
		if err != nil {
			return err
		}
		r.wrap = wrap
		if made, err := t.makeKEK(s, &r, without); err != nil {
			return t.destroy(s, made, err)
		}
		ref = r.wire()
		return nil
	})
	return ref, err
}

// canaryText is what health seals and opens.
var canaryText = []byte("sigild canary: no secret, 32 B..")

// canary seals and opens a text that is no secret.
func (t *token) canary(s pkcs11.SessionHandle, k kek) error {
	blob, err := t.seal(s, k, canaryText, k.id)
	if err != nil {
		return err
	}
	plain, refused, err := t.unseal(s, k, blob, k.id)
	if refused || errors.Is(err, seal.ErrTampered) {
		return newFault(seal.ErrUnavailable, "opening the canary: %v", err)
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(plain, canaryText) {
		return newFault(seal.ErrUnavailable, "opening the canary: the plaintext is another")
	}
	return nil
}

// A roll replaces the KEK by a new one of the same lineage: the first half of the
// CKA_ID stays, the second is new. Two lineages never mix, so that appliances can
// share a token.

const lineageLen = 8

// beginRoll is opBeginRoll: a new KEK beside r, which must be there and alone.
func (t *token) beginRoll(r keyRef) (next []byte, err error) {
	if len(r.id) != 2*lineageLen {
		return nil, newFault(seal.ErrUnsupported, "rolling the KEK: its CKA_ID has %d bytes, want %d", len(r.id), 2*lineageLen)
	}
	err = t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		if err := t.health(r); err != nil {
			return err
		}
		others, err := t.lineage(s, r)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return newFault(seal.ErrAmbiguous, "rolling the KEK: there is already another of its lineage; hint: an earlier roll was not ended")
		}
		n := keyRef{wrap: r.wrap, id: append(bytes.Clone(r.id[:lineageLen]), make([]byte, lineageLen)...)}
		rand.Read(n.id[lineageLen:])
		without, err := t.tryWrapping(s, n.wrap)
		if err != nil {
			return err
		}
		made, err := t.makeKEK(s, &n, without)
		if err != nil {
			return t.destroy(s, made, err)
		}
		next = n.wire()
		return nil
	})
	return next, err
}

// endRoll is opEndRoll: it destroys every other KEK of the lineage of keep, which
// must be there and work. It returns how many, u32.
func (t *token) endRoll(keep keyRef) (destroyed []byte, err error) {
	n := uint32(0)
	err = t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		if err := t.health(keep); err != nil {
			return err
		}
		others, err := t.lineage(s, keep)
		if err != nil {
			return err
		}
		for _, id := range others {
			t.forget(id)
			// The HMAC key first: while the RSA key is there, the next try finds both.
			for _, id := range [][]byte{macID(id), id} {
				found, err := t.search(s, 8, pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, kekLabel))
				if err != nil {
					return err
				}
				for _, h := range found {
					if err := t.mod.DestroyObject(s, h); err != nil {
						return p11Fault("C_DestroyObject of a KEK that was rolled", err)
					}
				}
			}
			n++
		}
		return nil
	})
	return binary.BigEndian.AppendUint32(nil, n), err
}

// lineage returns the CKA_IDs of the other KEKs of r's lineage.
func (t *token) lineage(s pkcs11.SessionHandle, r keyRef) (others [][]byte, err error) {
	if len(r.id) != 2*lineageLen {
		return nil, nil // not one that we could have rolled
	}
	const most = 1024
	class := kekAttrs(r.wrap)[0]
	found, err := t.search(s, most, pkcs11.NewAttribute(class.typ, class.value), pkcs11.NewAttribute(pkcs11.CKA_LABEL, kekLabel))
	if err != nil {
		return nil, err
	}
	if len(found) == most {
		return nil, newFault(seal.ErrAmbiguous, "looking for KEKs: the token has %d or more", most)
	}
	for _, h := range found {
		got, err := t.mod.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
		if err != nil {
			return nil, p11Fault("C_GetAttributeValue of CKA_ID", err)
		}
		id := got[0].Value
		if len(id) == len(r.id) && bytes.Equal(id[:lineageLen], r.id[:lineageLen]) && !bytes.Equal(id, r.id) {
			others = append(others, bytes.Clone(id))
		}
	}
	return others, nil
}
