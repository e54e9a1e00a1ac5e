package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// The owner's NV handles that we take from, the first free one first: inside what
// the TCG's registry of reserved handles leaves to the owner (01800000 to
// 01BFFFFF). An index is known by its Name, never by its handle.
const (
	firstNV tpm2.TPMHandle = 0x01820000
	lastNV  tpm2.TPMHandle = 0x0182ffff
)

// counterLen is the size of a counter's value in bytes.
const counterLen = 8

// counterPublic is the public area of a counter of ours at h, once it counted: it
// is durable at each increment (not orderly), read and counted by who knows its auth
// value, and wrong tries are not counted. Its owner can remove it, and a counter
// that is made anew begins above every value that a counter of this TPM ever had
// (Part 1 §37.2.4).
func counterPublic(h tpm2.TPMHandle) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex:    h,
		NameAlg:    tpm2.TPMAlgSHA256,
		Attributes: tpm2.TPMANV{NT: tpm2.TPMNTCounter, AuthRead: true, AuthWrite: true, NoDA: true, Written: true},
		DataSize:   counterLen,
	}
}

// nvIndex is an NV index of ours. Its Name covers type, attributes and policy, so
// an ordinary index in a counter's place has another one.
type nvIndex struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
}

func (x nvIndex) named() tpm2.NamedHandle { return tpm2.NamedHandle{Handle: x.handle, Name: x.name} }

func (x nvIndex) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: x.handle, Name: x.name, Auth: s}
}

// counterAt is the counter of ours at h, as its Name must be.
func counterAt(h tpm2.TPMHandle) nvIndex {
	return nvIndex{h, tpm2.TPM2BName{Buffer: nameOf(tpm2.Marshal(counterPublic(h)))}}
}

// counter finds the counter whose Name is ref. Our template has no freedom but the
// handle, so the Name is computed, and then held against what the TPM has there.
func (t *turn) counter(ref seal.KeyRef) (nvIndex, error) {
	handles, err := t.handles(tpm2.TPMHTNVIndex)
	if err != nil {
		return nvIndex{}, err
	}
	for _, h := range handles {
		if h < firstNV || h > lastNV {
			continue
		}
		x := counterAt(h)
		if makeRef(x.name.Buffer) != ref {
			continue
		}
		name, err := t.nvName(h)
		if err != nil {
			return nvIndex{}, err
		}
		if makeRef(name) != ref {
			return nvIndex{}, fmt.Errorf("%w: NV index %#x is not the counter it was (its Name is %x); hint: somebody removed it and put another in its place", seal.ErrPolicy, uint32(h), name)
		}
		return x, nil
	}
	return nvIndex{}, fmt.Errorf("%w: no NV index at the handles %#x to %#x is the counter %s; hint: tpm2_getcap handles-nv-index lists them; the TPM may be another one, or was cleared",
		seal.ErrNotFound, uint32(firstNV), uint32(lastNV), ref)
}

// nvName reads the public area at h and computes its Name.
func (t *turn) nvName(h tpm2.TPMHandle) ([]byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: h}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("TPM2_NV_ReadPublic: %w", err)
	}
	return nameOf(rsp.NVPublic.Bytes()), nil
}

// readCounter reads the value in a session that proves the counter's auth value.
func (t *turn) readCounter(x nvIndex, s tpm2.Session) (uint64, error) {
	rsp, err := tpm2.NVRead{AuthHandle: x.auth(s), NVIndex: x.named(), Size: counterLen}.Execute(t)
	if err != nil {
		return 0, counterError("TPM2_NV_Read", err)
	}
	if len(rsp.Data.Buffer) != counterLen {
		return 0, fmt.Errorf("TPM2_NV_Read: %d bytes, want %d", len(rsp.Data.Buffer), counterLen)
	}
	return binary.BigEndian.Uint64(rsp.Data.Buffer), nil
}

// increment counts one on. The value is in the TPM's non-volatile memory when it
// answers (Part 3 §31.8).
func (t *turn) increment(x nvIndex, s tpm2.Session) error {
	if _, err := (tpm2.NVIncrement{AuthHandle: x.auth(s), NVIndex: x.named()}).Execute(t); err != nil {
		return counterError("TPM2_NV_Increment", err)
	}
	return nil
}

// counterError names the command. A counter that refuses our auth value is not, or
// no longer, ours.
func counterError(command string, err error) error {
	if aboutAuth(err) {
		return fmt.Errorf("%w: %s: %v; hint: the outside secret (secret_file) is another one, or somebody removed the counter and made it anew", seal.ErrAuth, command, err)
	}
	return fmt.Errorf("%s: %w", command, err)
}

// define makes a counter at the first free handle; it has no value yet.
func (t *turn) define(auth []byte) (h tpm2.TPMHandle, err error) {
	taken, err := t.handles(tpm2.TPMHTNVIndex)
	if err != nil {
		return 0, err
	}
	h, ok := firstFree(taken, firstNV, lastNV)
	if !ok {
		return 0, fmt.Errorf("TPM2_NV_DefineSpace: %w", tpm2.TPMRCNVSpace)
	}
	public := counterPublic(h)
	public.Attributes.Written = false
	return h, t.asOwner("TPM2_NV_DefineSpace", encryptIn, func(owner tpm2.AuthHandle) error {
		_, err := tpm2.NVDefineSpace{AuthHandle: owner, Auth: tpm2.TPM2BAuth{Buffer: auth}, PublicInfo: tpm2.New2B(public)}.Execute(t)
		return err
	})
}

// undefine removes the index at h; there being none is no error.
func (t *turn) undefine(h tpm2.TPMHandle) error {
	name, err := t.nvName(h)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		return err
	}
	return t.asOwner("TPM2_NV_UndefineSpace", encryptNone, func(owner tpm2.AuthHandle) error {
		_, err := tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: h, Name: tpm2.TPM2BName{Buffer: name}}}.Execute(t)
		return err
	})
}

// asOwner lends use the owner hierarchy, which must have no password.
func (t *turn) asOwner(command string, encryption tpm2.AuthOption, use func(owner tpm2.AuthHandle) error) error {
	return t.session(nil, encryption, func(_ storageKey, s tpm2.Session) error {
		err := use(tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: s})
		if aboutAuth(err) {
			return fmt.Errorf("%w: %s: %v; hint: the owner hierarchy has a password; empty it for the time of this command (tpm2_changeauth -c o)", seal.ErrPolicy, command, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		return nil
	})
}
