package vault

// Envelope v1: one sealed record. Integers are big-endian.
//
//	core  "SGE1" | ver u8 | suite u8 | flags u16 | store id 16 | type u16 | key 32 | version u64 | created u64
//	wrap  kek id 16 | generation u32 | nonce 12 | wrapped key 48      AAD = core | kek id | generation
//	parts only with flag 1: see parts.go
//	body  commit 32 | nonce 12 | length u32 | ciphertext              AAD = core | commit | nonce | length
//
// The wrapped key is the DEK. With flag 1 it is our part of the DEK, which also needs
// a part of each device that the parts name, every time:
//
//	DEK = HKDF-SHA256(wrapped key | part of device 1 | …, salt = store id, info = infoParts | core)
//
// The wrap is outside the body's AAD, so a new root key rewrites 80 bytes of a
// record and never sees its plaintext. The DEK is new for each write; the
// commitment makes AES-GCM key-committing. Nothing unknown is ever skipped.

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/sigild/sigild/internal/secmem"
)

const (
	envelopeMagic   = "SGE1"
	envelopeVersion = 1
	suiteAESGCM     = 1      // AES-256-GCM, HKDF-SHA256
	flagParts       = 1 << 0 // the DEK also needs devices' parts

	coreLen    = 4 + 1 + 1 + 2 + 16 + 2 + 32 + 8 + 8
	kekIDLen   = 16
	nonceLen   = 12
	dekLen     = 32
	tagLen     = 16
	wrapLen    = kekIDLen + 4 + nonceLen + dekLen + tagLen
	bodyHead   = 32 + nonceLen + 4
	ctOffset   = coreLen + wrapLen + bodyHead
	payloadAAD = coreLen + bodyHead

	infoEncrypt = "sigild/vault/envelope/encrypt/v1"
	infoCommit  = "sigild/vault/envelope/commit/v1"
	infoParts   = "sigild/vault/envelope/parts/v1"
)

// MaxRecord is the largest record in bytes.
const MaxRecord = 1 << 20

// recordKey is a record's key in the database: HMAC-SHA256(k_index, type ‖ id).
type recordKey [32]byte

// recordMeta is what the reader must already know of a record; opening compares
// all of it but Created.
type recordMeta struct {
	StoreID    [16]byte
	Type       Type
	Key        recordKey
	Version    uint64 // the head's seq at which it was written; never reused
	Created    int64  // Unix seconds, for people
	Generation uint32 // of the root key that wraps the DEK
}

// envelope is a parsed envelope; its slices point into the bytes parsed.
type envelope struct {
	meta                                 recordMeta
	core, wrapHead, wrapNonce, wrapped   []byte
	parts                                []devicePart // whose parts the DEK also needs
	bodyHead                             []byte       // commit, nonce, length
	commit, nonce, bodyLength, encrypted []byte
}

// parseEnvelope reads the form only: it checks magic, version, suite, flags and
// lengths, and no cryptography.
func parseEnvelope(b []byte) (envelope, error) {
	var e envelope
	switch {
	case len(b) < ctOffset+tagLen:
		return e, fmt.Errorf("%w: envelope of %d bytes is cut off", ErrTampered, len(b))
	case string(b[:4]) != envelopeMagic:
		return e, fmt.Errorf("%w: not an envelope", ErrTampered)
	case b[4] != envelopeVersion:
		return e, fmt.Errorf("%w: envelope version %d is not known to this build", ErrTampered, b[4])
	case b[5] != suiteAESGCM:
		return e, fmt.Errorf("%w: envelope suite %d is not known to this build", ErrTampered, b[5])
	}
	flags := binary.BigEndian.Uint16(b[6:])
	if flags&^flagParts != 0 {
		return e, fmt.Errorf("%w: envelope flags %#04x are not known to this build", ErrTampered, flags)
	}
	copy(e.meta.StoreID[:], b[8:])
	e.meta.Type = Type(binary.BigEndian.Uint16(b[24:]))
	copy(e.meta.Key[:], b[26:])
	e.meta.Version = binary.BigEndian.Uint64(b[58:])
	e.meta.Created = int64(binary.BigEndian.Uint64(b[66:]))
	e.core, b = b[:coreLen], b[coreLen:]

	if [kekIDLen]byte(b) != [kekIDLen]byte{} {
		return e, fmt.Errorf("%w: envelope is wrapped by a key unknown to this build", ErrTampered)
	}
	e.meta.Generation = binary.BigEndian.Uint32(b[kekIDLen:])
	e.wrapHead, b = b[:kekIDLen+4], b[kekIDLen+4:]
	e.wrapNonce, b = b[:nonceLen], b[nonceLen:]
	e.wrapped, b = b[:dekLen+tagLen], b[dekLen+tagLen:]

	if flags&flagParts != 0 {
		var err error
		if e.parts, b, err = parseParts(b); err != nil {
			return e, err
		}
		if len(b) < bodyHead+tagLen {
			return e, fmt.Errorf("%w: envelope is cut off", ErrTampered)
		}
	}
	e.bodyHead = b[:bodyHead]
	e.commit, b = b[:32], b[32:]
	e.nonce, b = b[:nonceLen], b[nonceLen:]
	e.bodyLength, b = b[:4], b[4:]
	if uint64(binary.BigEndian.Uint32(e.bodyLength)) != uint64(len(b)) {
		return e, fmt.Errorf("%w: envelope's length doesn't fit its bytes", ErrTampered)
	}
	if len(b) > maxFramed+tagLen {
		return e, fmt.Errorf("%w: envelope is larger than any record", ErrTampered)
	}
	e.encrypted = b
	return e, nil
}

// encodeCore is the core of a new envelope; parts says whether devices' parts follow.
func (m recordMeta) encodeCore(parts bool) []byte {
	b := make([]byte, coreLen)
	copy(b, envelopeMagic)
	b[4], b[5] = envelopeVersion, suiteAESGCM
	if parts {
		binary.BigEndian.PutUint16(b[6:], flagParts)
	}
	copy(b[8:], m.StoreID[:])
	binary.BigEndian.PutUint16(b[24:], uint16(m.Type))
	copy(b[26:], m.Key[:])
	binary.BigEndian.PutUint64(b[58:], m.Version)
	binary.BigEndian.PutUint64(b[66:], uint64(m.Created))
	return b
}

// sealEnvelope encrypts plaintext under a fresh DEK. What is wrapped by wrapKey (32
// bytes) is the DEK, or our part of it; parts are the devices', nil for none.
func sealEnvelope(wrapKey []byte, m recordMeta, parts *newParts, plaintext []byte) ([]byte, error) {
	core := m.encodeCore(parts != nil)
	b := make([]byte, coreLen+wrapLen, ctOffset+parts.size()+len(plaintext)+tagLen)
	copy(b, core)
	var wrapped [dekLen]byte
	defer clear(wrapped[:])
	rand.Read(wrapped[:])
	if err := wrapDEK(wrapKey, core, b[coreLen:], m.Generation, wrapped[:]); err != nil {
		return nil, err
	}
	dek := wrapped[:]
	if parts != nil {
		b = append(b, parts.section...)
		joined := joinDEK(wrapped[:], parts.secret, core)
		defer clear(joined)
		dek = joined
	}
	enc, commit := dekKeys(dek)
	defer clear(enc)
	head := len(b)
	b = append(b, commit...)
	b = append(b, make([]byte, nonceLen)...)
	nonce := b[head+32:]
	rand.Read(nonce)
	b = binary.BigEndian.AppendUint32(b, uint32(len(plaintext)+tagLen))
	g, err := newGCM(enc)
	if err != nil {
		return nil, err
	}
	defer secmem.Scrub(g)
	return g.Seal(b, nonce, plaintext, bodyAAD(core, b[head:])), nil
}

// joinDEK derives a DEK of which the devices hold parts; the caller wipes it.
func joinDEK(wrapped, parts, core []byte) []byte {
	all := append(append(make([]byte, 0, len(wrapped)+len(parts)), wrapped...), parts...)
	defer clear(all)
	dek := make([]byte, dekLen)
	secmem.Derive(dek, all, core[8:24], infoParts+string(core))
	return dek
}

// wrapDEK fills wrap (wrapLen bytes) with dek encrypted under wrapKey. Rotation
// of the root key calls it again over the same core.
func wrapDEK(wrapKey, core, wrap []byte, generation uint32, dek []byte) error {
	g, err := newGCM(wrapKey)
	if err != nil {
		return err
	}
	defer secmem.Scrub(g)
	clear(wrap[:kekIDLen])
	binary.BigEndian.PutUint32(wrap[kekIDLen:], generation)
	nonce := wrap[kekIDLen+4 : kekIDLen+4+nonceLen]
	rand.Read(nonce)
	g.Seal(wrap[:kekIDLen+4+nonceLen], nonce, dek, wrapAAD(core, wrap[:kekIDLen+4]))
	return nil
}

// unwrapDEK is the inverse; wrap is the cipher under the wrapping key. The caller wipes
// what it returns.
func (e *envelope) unwrapDEK(wrap cipher.AEAD) ([]byte, error) {
	dek, err := wrap.Open(nil, e.wrapNonce, e.wrapped, wrapAAD(e.core, e.wrapHead))
	if err != nil {
		return nil, fmt.Errorf("%w: wrapped key doesn't authenticate", ErrTampered)
	}
	return dek, nil
}

// generationOf says which root key wraps b, without any check.
func generationOf(b []byte) (uint32, bool) {
	if len(b) < ctOffset {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[coreLen+kekIDLen:]), true
}

// rewrapEnvelope replaces the wrap in b, 80 bytes, by one under another key. The
// record's own bytes stay.
func rewrapEnvelope(oldKey, newKey []byte, generation uint32, b []byte) error {
	e, err := parseEnvelope(b)
	if err != nil {
		return err
	}
	g, err := newGCM(oldKey)
	if err != nil {
		return err
	}
	defer secmem.Scrub(g)
	dek, err := e.unwrapDEK(g)
	if err != nil {
		return err
	}
	defer clear(dek)
	return wrapDEK(newKey, b[:coreLen], b[coreLen:coreLen+wrapLen], generation, dek)
}

// openEnvelope decrypts b in place and returns the plaintext, which the caller
// wipes. wrap is the cipher under the wrapping key; parts are what the devices gave for
// it, 32 bytes each, in their order. want
// is what the caller asked for: an envelope that decrypts but is another record,
// version or generation is [ErrTampered] all the same.
func openEnvelope(wrap cipher.AEAD, parts []byte, want recordMeta, b []byte) ([]byte, error) {
	e, err := parseEnvelope(b)
	if err != nil {
		return nil, err
	}
	e.meta.Created = want.Created
	if e.meta != want {
		return nil, fmt.Errorf("%w: envelope belongs to another record, version or store", ErrTampered)
	}
	dek, err := e.unwrapDEK(wrap)
	if err != nil {
		return nil, err
	}
	defer clear(dek)
	if len(parts) != dekPartLen*len(e.parts) {
		return nil, fmt.Errorf("%w: envelope needs %d devices' parts, and %d bytes of them are here", ErrTampered, len(e.parts), len(parts))
	}
	if len(e.parts) > 0 {
		joined := joinDEK(dek, parts, e.core)
		defer clear(joined)
		dek = joined
	}
	enc, commit := dekKeys(dek)
	defer clear(enc)
	if subtle.ConstantTimeCompare(commit, e.commit) != 1 {
		return nil, fmt.Errorf("%w: key commitment differs", ErrTampered)
	}
	g, err := newGCM(enc)
	if err != nil {
		return nil, err
	}
	defer secmem.Scrub(g)
	plaintext, err := g.Open(e.encrypted[:0], e.nonce, e.encrypted, bodyAAD(e.core, e.bodyHead))
	if err != nil {
		return nil, fmt.Errorf("%w: record doesn't authenticate", ErrTampered)
	}
	return plaintext, nil
}

func bodyAAD(core, bodyHead []byte) []byte {
	aad := make([]byte, 0, payloadAAD)
	return append(append(aad, core...), bodyHead...)
}

func wrapAAD(core, wrapHead []byte) []byte {
	aad := make([]byte, 0, coreLen+kekIDLen+4)
	return append(append(aad, core...), wrapHead...)
}

// dekKeys derives the payload key and the commitment from a DEK.
func dekKeys(dek []byte) (enc, commit []byte) {
	var prk [32]byte
	defer clear(prk[:])
	secmem.Extract(&prk, dek, nil)
	enc, commit = make([]byte, 32), make([]byte, 32)
	secmem.Expand(enc, prk[:], infoEncrypt)
	secmem.Expand(commit, prk[:], infoCommit)
	return enc, commit
}

// newGCM is AES-256-GCM with 12-byte nonces and 16-byte tags. It holds the key on the
// heap: the caller scrubs it after use.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	defer secmem.Scrub(block) // g has a copy
	g, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return g, nil
}
