//go:build cgo

package hsm

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// This file is the worker's side of evidence (evidence.go): it reads and judges
// nothing.

// describe is opDescribe: a line "CKA_… value" for each attribute of a key. It is found
// anew each time.
func (t *token) describe(kind byte, r keyRef) (text []byte, err error) {
	switch kind {
	case kindKEK, kindMAC, kindCheckpoint, kindRSA:
	default:
		return nil, newFault(errRefused, "describing a key of kind %d", kind)
	}
	ours, told := described(kind, r.wrap)
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		found, err := t.search(s, 2, pkcs11.NewAttribute(ours[0].typ, ours[0].value), pkcs11.NewAttribute(pkcs11.CKA_ID, r.id))
		if err != nil {
			return err
		}
		switch len(found) {
		case 0:
			return newFault(seal.ErrNotFound, "finding the key with CKA_ID %s", hex.EncodeToString(r.id))
		case 1:
		default:
			return newFault(seal.ErrAmbiguous, "finding the key with CKA_ID %s", hex.EncodeToString(r.id))
		}
		text = nil
		all := slices.Concat(ours, told)
		have, err := t.read(s, found[0], all)
		if err != nil {
			return err
		}
		for i, a := range all {
			text = append(text, a.name+" "+a.say(have[i])+"\n"...)
		}
		return nil
	})
	return text, err
}

// module is opModule: C_GetInfo.
func (t *token) module() ([][]byte, error) {
	info, err := t.mod.GetInfo()
	if err != nil {
		return nil, p11Fault("C_GetInfo", err)
	}
	version := strconv.Itoa(int(info.LibraryVersion.Major)) + "." + strconv.Itoa(int(info.LibraryVersion.Minor))
	return [][]byte{
		bytes.TrimRight([]byte(info.ManufacturerID), " \x00"), bytes.TrimRight([]byte(info.LibraryDescription), " \x00"), []byte(version),
	}, nil
}
