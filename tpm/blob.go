package tpm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// A blob is
//
//	version   1 byte, 1 or 2
//	public    2-byte length (46, with a policy 78) and a TPMT_PUBLIC: the TPM object
//	private   2-byte length (64 to 512) and its private area, encrypted by the SRK
//	box       AES-256-GCM ciphertext of the plaintext (1 to 128 bytes) and its 16-byte tag
//
// Lengths are big-endian, so public and private are a TPM2B_PUBLIC and a
// TPM2B_PRIVATE as tpm2-tools write them. The box's key is
// HKDF-SHA256(object's 32 bytes, salt SRK Name, info boxInfo); it is used once, so
// the nonce is zero. The box authenticates all that stands before it and the aad.
//
// What is public varies in its last 32 bytes and by its form only, so it is compared
// and not parsed. Version 1 is an object without policy and PIN, version 2 one with the
// 32 bytes of a policy, or with a PIN (not noDA), or both.
const (
	blobPlain   = 1
	blobGuarded = 2
	boxInfo     = "sigild/tpm/box/v1"
	boxTag      = 16
	sealedLen   = 32 // bytes in the object

	minPrivate = 64
	maxPrivate = 512
	maxAAD     = 4096
)

// form is how objects are opened; the zero form is by the auth value alone, which may
// be empty.
type form struct {
	policy []byte // 32 bytes; nil: no policy
	pin    bool   // the auth value holds a PIN, so wrong tries are counted
}

// sealedTemplate is the object: only in this TPM, only under this SRK, opened by
// its auth value, or, when there is one, by nothing but its policy. noDA: without a
// PIN its auth value can't be guessed, and a power loss after its use must not count
// as a wrong try.
func sealedTemplate(f form) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgKeyedHash,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: f.policy == nil, NoDA: !f.pin},
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: f.policy},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash,
			&tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull}}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: make([]byte, sha256.Size)}),
	}
}

// sealedPublic is the public area of every object of this form, but for its last 32
// bytes.
func sealedPublic(f form) []byte {
	return bytes.TrimSuffix(tpm2.Marshal(sealedTemplate(f)), make([]byte, sha256.Size))
}

// Where a public area has its attributes (behind type and Name algorithm) and its
// policy (behind those and a length).
const (
	attributesAt = 2 + 2
	policyAt     = attributesAt + 4 + 2
	noDA         = 1 << 10 // TPMA_OBJECT (Part 2 §8.3)
)

// object is the TPM's part of a blob.
type object struct {
	public  []byte // TPMT_PUBLIC: sealedPublic and 32 bytes
	private []byte // contents of a TPM2B_PRIVATE
}

// form is that of the object; check says whether it is one of ours at all.
func (o object) form() (f form) {
	if len(o.public) < policyAt {
		return form{}
	}
	if len(o.public) > policyAt+2*sha256.Size {
		f.policy = o.public[policyAt : policyAt+sha256.Size]
	}
	f.pin = binary.BigEndian.Uint32(o.public[attributesAt:])&noDA == 0
	return f
}

// check holds o against what we make.
func (o object) check() error {
	want := sealedPublic(o.form())
	if len(o.public) != len(want)+sha256.Size || !bytes.HasPrefix(o.public, want) {
		return fmt.Errorf("the public area is not one of ours")
	}
	if len(o.private) < minPrivate || len(o.private) > maxPrivate {
		return fmt.Errorf("the private area has %d bytes, want %d to %d", len(o.private), minPrivate, maxPrivate)
	}
	return nil
}

// name is the TPM Name of o.
func (o object) name() tpm2.TPM2BName { return tpm2.TPM2BName{Buffer: nameOf(o.public)} }

// version is that of the blob with o.
func (o object) version() byte {
	if f := o.form(); f.policy == nil && !f.pin {
		return blobPlain
	}
	return blobGuarded
}

// header is o as the beginning of a blob.
func (o object) header() []byte {
	h := []byte{o.version()}
	h = append(binary.BigEndian.AppendUint16(h, uint16(len(o.public))), o.public...)
	return append(binary.BigEndian.AppendUint16(h, uint16(len(o.private))), o.private...)
}

// decodeBlob takes b apart. What it returns are parts of b.
func decodeBlob(b []byte) (o object, header, box []byte, err error) {
	if len(b) == 0 || b[0] != blobPlain && b[0] != blobGuarded {
		return object{}, nil, nil, fmt.Errorf("%w: no blob of ours begins so", seal.ErrTampered)
	}
	rest := b[1:]
	for _, part := range []*[]byte{&o.public, &o.private} {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return object{}, nil, nil, fmt.Errorf("%w: it is cut short", seal.ErrTampered)
		}
		n := int(binary.BigEndian.Uint16(rest))
		*part, rest = rest[2:2+n:2+n], rest[2+n:]
	}
	if err := o.check(); err != nil {
		return object{}, nil, nil, fmt.Errorf("%w: %w", seal.ErrTampered, err)
	}
	if b[0] != o.version() {
		return object{}, nil, nil, fmt.Errorf("%w: its version is not that of its object", seal.ErrTampered)
	}
	if len(rest) <= boxTag || len(rest) > seal.MaxSealed+boxTag {
		return object{}, nil, nil, fmt.Errorf("%w: its box has %d bytes", seal.ErrTampered, len(rest))
	}
	return o, b[:len(b)-len(rest)], rest, nil
}

// box is the AEAD under the key in an object. key stays the caller's.
func box(key, srkName []byte) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, key, srkName, boxInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the box key: %w", err)
	}
	defer clear(k)
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("making the box: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making the box: %w", err)
	}
	return aead, nil
}

// closeBox returns the whole blob of o and plaintext.
func closeBox(o object, key, srkName, plaintext, aad []byte) ([]byte, error) {
	aead, err := box(key, srkName)
	if err != nil {
		return nil, err
	}
	header := o.header()
	return aead.Seal(header, make([]byte, aead.NonceSize()), plaintext, bound(header, aad)), nil
}

// openBox gives the plaintext in fresh memory, for the caller to wipe.
func openBox(header, sealed, key, srkName, aad []byte) ([]byte, error) {
	aead, err := box(key, srkName)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, bound(header, aad))
	if err != nil {
		return nil, fmt.Errorf("%w: the blob or its aad was changed", seal.ErrTampered)
	}
	return plain, nil
}

// bound is what the box authenticates. A header says where it ends.
func bound(header, aad []byte) []byte {
	return append(header[:len(header):len(header)], aad...)
}
