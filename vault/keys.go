package vault

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/sigild/sigild/internal/secmem"
)

// The infos of the root key's subkeys: HKDF-SHA256(root key, salt = store id,
// info). Those made by [Vault.Derive] have a prefix of their own.
const (
	infoWrap         = "sigild/vault/wrap/v1"
	infoHead         = "sigild/vault/head/v1"
	infoIndex        = "sigild/vault/index/v1"
	infoRootCommit   = "sigild/vault/root-commitment/v1"
	infoDerivePrefix = "sigild/vault/derive/v1/"
)

// MaxID is the longest record id in bytes.
const MaxID = 512

// maxFramed is the longest plaintext of an envelope: id length, id, record.
const maxFramed = 2 + MaxID + MaxRecord

// keyring holds the root key and the subkeys the vault itself uses, in one
// locked buffer. Nothing of it is ever copied to a longer life than one call.
type keyring struct {
	buf        *secmem.Buf // root 32 | wrap 32 | head 32 | index 32
	storeID    [16]byte
	generation uint32
}

// newKeyring copies root, 32 bytes, and wipes it.
func newKeyring(root []byte, storeID [16]byte, generation uint32) (*keyring, error) {
	defer clear(root)
	buf, err := secmem.New(4 * 32)
	if err != nil {
		return nil, fmt.Errorf("holding the root key: %w", err)
	}
	err = buf.Use(func(b []byte) error {
		copy(b, root)
		for i, info := range []string{infoWrap, infoHead, infoIndex} {
			sub, err := hkdf.Key(sha256.New, root, storeID[:], info, 32)
			if err != nil {
				return fmt.Errorf("deriving subkeys: %w", err)
			}
			copy(b[32*(i+1):], sub)
			clear(sub)
		}
		return nil
	})
	if err != nil {
		buf.Destroy()
		return nil, err
	}
	return &keyring{buf: buf, storeID: storeID, generation: generation}, nil
}

func (k *keyring) destroy() { k.buf.Destroy() }

// use lends all keys; after destroy it is [ErrSealed].
func (k *keyring) use(fn func(root, wrap, head, index []byte) error) error {
	err := k.buf.Use(func(b []byte) error { return fn(b[:32], b[32:64], b[64:96], b[96:128]) })
	if errors.Is(err, secmem.ErrDestroyed) {
		return ErrSealed
	}
	return err
}

// rootCommit is what slots and statements say of a root key without telling it.
func rootCommit(root []byte, storeID [16]byte) ([32]byte, error) {
	b, err := hkdf.Key(sha256.New, root, storeID[:], infoRootCommit, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("committing to the root key: %w", err)
	}
	return [32]byte(b), nil
}

// derive lends HKDF(root, purpose), 32 bytes.
func (k *keyring) derive(purpose string, fn func(key []byte) error) error {
	return k.use(func(root, _, _, _ []byte) error {
		b, err := hkdf.Key(sha256.New, root, k.storeID[:], infoDerivePrefix+purpose, 32)
		if err != nil {
			return fmt.Errorf("deriving the key for %s: %w", purpose, err)
		}
		defer clear(b)
		return fn(b)
	})
}

// recordKey is where the record is found: HMAC-SHA256(k_index, type ‖ id), so
// that the file doesn't list names.
func (k *keyring) recordKey(t Type, id string) (key recordKey, err error) {
	err = k.use(func(_, _, _, index []byte) error {
		h := hmac.New(sha256.New, index)
		var n [2]byte
		binary.BigEndian.PutUint16(n[:], uint16(t))
		h.Write(n[:])
		h.Write([]byte(id))
		h.Sum(key[:0])
		return nil
	})
	return key, err
}

// headMAC is HMAC-SHA256(k_head, body).
func (k *keyring) headMAC(body []byte) (mac [32]byte, err error) {
	err = k.use(func(_, _, head, _ []byte) error {
		h := hmac.New(sha256.New, head)
		h.Write(body)
		h.Sum(mac[:0])
		return nil
	})
	return mac, err
}

// seal frames id and payload and encrypts them as one envelope.
func (k *keyring) seal(m recordMeta, id string, payload []byte) (env []byte, err error) {
	framed := make([]byte, 0, 2+len(id)+len(payload))
	defer func() { clear(framed) }()
	framed = binary.BigEndian.AppendUint16(framed, uint16(len(id)))
	framed = append(framed, id...)
	framed = append(framed, payload...)
	m.StoreID, m.Generation = k.storeID, k.generation
	err = k.use(func(_, wrap, _, _ []byte) error {
		env, err = sealEnvelope(wrap, m, framed)
		return err
	})
	return env, err
}

// open decrypts env in place and lends id and payload, which it then wipes.
func (k *keyring) open(m recordMeta, env []byte, use func(id string, payload []byte) error) error {
	m.StoreID, m.Generation = k.storeID, k.generation
	var framed []byte
	err := k.use(func(_, wrap, _, _ []byte) (err error) {
		framed, err = openEnvelope(wrap, m, env)
		return err
	})
	if err != nil {
		return err
	}
	defer clear(framed)
	id, payload, err := splitFrame(framed)
	if err != nil {
		return err
	}
	return use(id, payload)
}

// splitFrame is the inside of every envelope: id length u16 | id | payload.
func splitFrame(b []byte) (id string, payload []byte, err error) {
	if len(b) < 2 {
		return "", nil, fmt.Errorf("%w: record without an id", ErrTampered)
	}
	n := int(binary.BigEndian.Uint16(b))
	if n == 0 || n > MaxID || n > len(b)-2 {
		return "", nil, fmt.Errorf("%w: record with an id of %d bytes", ErrTampered, n)
	}
	return string(b[2 : 2+n]), b[2+n:], nil
}

func checkID(t Type, id string) error {
	switch {
	case !t.known():
		return fmt.Errorf("naming a record: %s is not known", t)
	case id == "":
		return fmt.Errorf("naming a record: a %s needs an id", t)
	case len(id) > MaxID:
		return fmt.Errorf("naming a record: %w: id of %d bytes, at most %d", ErrTooLarge, len(id), MaxID)
	case !utf8.ValidString(id):
		return fmt.Errorf("naming a record: id of a %s is not UTF-8", t)
	}
	return nil
}

// newStoreID is 16 random bytes, not zero.
func newStoreID() (id [16]byte) {
	rand.Read(id[:])
	return id
}
