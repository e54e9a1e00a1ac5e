package tpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// persistentSRK is where the TCG's provisioning guidance puts the SRK.
const persistentSRK tpm2.TPMHandle = 0x81000001

// storageKey is the SRK as the TPM has it loaded.
type storageKey struct {
	gen    uint64 // generation of the link in which handle is good; 0: none
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

// transient says whether the TPM forgets it.
func (k storageKey) transient() bool { return tpm2.TPMHT(k.handle>>24) == tpm2.TPMHTTransient }

// root gives the SRK: the persistent one if its Name is the pinned one, else the
// primary key of the TCG's template, which is the same each time it is made, until
// the TPM is cleared.
func (t *turn) root() (storageKey, error) {
	if t.p.root.gen == t.gen {
		return t.p.root, nil
	}
	k, found, err := t.persistentRoot()
	if err != nil {
		return storageKey{}, err
	}
	if !found {
		if k, err = t.primaryRoot(); err != nil {
			return storageKey{}, err
		}
	}
	k.gen = t.gen
	t.p.root = k
	return k, nil
}

func (t *turn) persistentRoot() (k storageKey, found bool, err error) {
	if len(t.p.srk) == 0 {
		return storageKey{}, false, nil // we would not know whose it is
	}
	public, name, err := t.readPublic(persistentSRK)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return storageKey{}, false, nil // nothing there
	}
	if err != nil {
		return storageKey{}, false, err
	}
	if !bytes.Equal(name, t.p.srk) {
		return storageKey{}, false, nil // another's
	}
	if !likeTemplate(public, tpm2.ECCSRKTemplate) {
		return storageKey{}, false, errNoSRK
	}
	return storageKey{handle: persistentSRK, name: tpm2.TPM2BName{Buffer: name}, public: public}, true, nil
}

// errNoSRK: what was pinned, or what the TPM made, is no SRK.
var errNoSRK = fmt.Errorf("%w: the SRK is not an ECC P-256 storage key of the TCG's template", seal.ErrPolicy)

func (t *turn) primaryRoot() (storageKey, error) {
	// The one command in a session that is not salted: there is no SRK yet. It holds
	// no secret, and its answer is checked against the pin.
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(t)
	if aboutAuth(err) {
		return storageKey{}, fmt.Errorf("%w: TPM2_CreatePrimary: %v; hint: the owner hierarchy has a password; make the TCG's ECC SRK persistent at %#x with it (tpm2_createprimary, tpm2_evictcontrol) and pin its Name",
			seal.ErrPolicy, err, uint32(persistentSRK))
	}
	if err != nil {
		return storageKey{}, fmt.Errorf("TPM2_CreatePrimary: %w", err)
	}
	place := t.keep(rsp.ObjectHandle)
	public, name, err := decodePublic(rsp.OutPublic)
	if err != nil {
		return storageKey{}, fmt.Errorf("TPM2_CreatePrimary: %w", err)
	}
	if len(t.p.srk) != 0 && !bytes.Equal(name, t.p.srk) {
		return storageKey{}, fmt.Errorf("%w: this TPM's SRK is %x, pinned is %x; hint: it is another TPM, or it was cleared", seal.ErrNotFound, name, t.p.srk)
	}
	if !likeTemplate(public, tpm2.ECCSRKTemplate) {
		return storageKey{}, errNoSRK
	}
	t.loaded = t.loaded[:place] // it stays loaded, until Close or the end of the link
	return storageKey{handle: rsp.ObjectHandle, name: tpm2.TPM2BName{Buffer: name}, public: public}, nil
}

// unloadRoot flushes an SRK that is loaded in this turn's generation.
func (t *turn) unloadRoot() {
	k := t.p.root
	t.p.root = storageKey{}
	if k.gen != t.gen || !k.transient() || t.p.link.conn == nil {
		return
	}
	t.keep(k.handle)
	t.flush(0)
}

// sameRoot asks the TPM whether the SRK that is loaded is still the pinned one.
func (t *turn) sameRoot() error {
	root, err := t.root()
	if err != nil {
		return err
	}
	_, name, err := t.readPublic(root.handle)
	if err != nil {
		return err
	}
	if !bytes.Equal(name, t.p.srk) {
		return fmt.Errorf("%w: the TPM's SRK is now %x, pinned is %x; hint: it is another TPM, or it was cleared", seal.ErrNotFound, name, t.p.srk)
	}
	return nil
}

// readPublic reads the public area at h and computes its Name.
func (t *turn) readPublic(h tpm2.TPMHandle) (tpm2.TPMTPublic, []byte, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(t)
	if err != nil {
		return tpm2.TPMTPublic{}, nil, fmt.Errorf("TPM2_ReadPublic: %w", err)
	}
	public, name, err := decodePublic(rsp.OutPublic)
	if err != nil {
		return tpm2.TPMTPublic{}, nil, fmt.Errorf("TPM2_ReadPublic: %w", err)
	}
	return public, name, nil
}

// decodePublic parses a public area and computes its Name (Part 1 §16) from the
// bytes that came: the Name that the TPM sends beside them proves nothing.
func decodePublic(b tpm2.TPM2BPublic) (tpm2.TPMTPublic, []byte, error) {
	public, err := b.Contents()
	if err != nil {
		return tpm2.TPMTPublic{}, nil, fmt.Errorf("reading a public area: %w", err)
	}
	return *public, nameOf(b.Bytes()), nil
}

// nameOf is the Name, over SHA-256, of a public area. One whose nameAlg is another
// gets a Name that nothing has.
func nameOf(public []byte) []byte {
	return append([]byte{byte(tpm2.TPMAlgSHA256 >> 8), byte(tpm2.TPMAlgSHA256)}, sum256(public)...)
}

func sum256(b []byte) []byte {
	d := sha256.Sum256(b)
	return d[:]
}

// likeTemplate says whether public is template with another public key.
func likeTemplate(public, template tpm2.TPMTPublic) bool {
	if public.Type != template.Type { // Unique would not be of its kind
		return false
	}
	public.Unique = template.Unique
	return bytes.Equal(tpm2.Marshal(public), tpm2.Marshal(template))
}
