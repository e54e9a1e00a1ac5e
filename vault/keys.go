package vault

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/sigild/sigild/internal/secmem"
)

// The infos of the root key's subkeys: HKDF-SHA256(root key, salt = store id,
// info). They change with the root key.
const (
	infoWrap       = "sigild/vault/wrap/v1"
	infoHead       = "sigild/vault/head/v1"
	infoRotation   = "sigild/vault/rotation/v1"
	infoRootCommit = "sigild/vault/root-commitment/v1"
)

// The infos of the lasting key's subkeys: HKDF-Expand(lasting key, info). They
// stay when the root key changes. Those made by [Vault.Derive] have a prefix of
// their own.
const (
	infoIndex        = "sigild/vault/index/v1"
	infoDerivePrefix = "sigild/vault/derive/v1/"
)

// MaxID is the longest record id in bytes.
const MaxID = 512

// maxFramed is the longest plaintext of an envelope: id length, id, record.
const maxFramed = 2 + MaxID + MaxRecord

// keyring holds the root key, the lasting key and the subkeys the vault itself
// uses, in one locked buffer. Nothing of it is ever copied to a longer life than
// one call.
type keyring struct {
	storeID [16]byte
	mu      sync.RWMutex // guards all below, and what is in buf
	buf     *secmem.Buf  // as subkeys has it
	// generation is that of root; previous that of oldWrap, 0 when no new root key
	// is being brought in.
	generation, previous uint32
	// derivedAt says where in subkeys.derived the key for a purpose is.
	derivedAt map[string]int
}

// subkeys are the parts of a keyring's buffer, 32 bytes each, lent for one call.
type subkeys struct {
	root, wrap, head, rotation []byte // of the root key
	lasting, index             []byte
	oldWrap                    []byte // of the root key before, while its envelopes are wrapped anew
	derived                    []byte // by Derive, so that it is cheap: maxDerived keys
}

// maxDerived is for how many purposes keys are kept; each more is derived every time.
const maxDerived = 8

const keyringLen = (7 + maxDerived) * 32

func divide(b []byte) *subkeys {
	part := func(i int) []byte { return b[32*i : 32*i+32 : 32*i+32] }
	return &subkeys{root: part(0), wrap: part(1), head: part(2), rotation: part(3), lasting: part(4), index: part(5), oldWrap: part(6), derived: b[7*32:]}
}

// newKeyring copies root, 32 bytes, and wipes it. Until hold is called it knows
// no lasting key.
func newKeyring(root []byte, storeID [16]byte, generation uint32) (*keyring, error) {
	defer clear(root)
	buf, err := secmem.New(keyringLen)
	if err != nil {
		return nil, fmt.Errorf("holding the root key: %w", err)
	}
	err = buf.Use(func(b []byte) error { divide(b).derive(root, storeID); return nil })
	if err != nil {
		buf.Destroy()
		return nil, err
	}
	return &keyring{buf: buf, storeID: storeID, generation: generation}, nil
}

// derive fills in root and what depends on it.
func (s *subkeys) derive(root []byte, storeID [16]byte) {
	copy(s.root, root)
	for out, info := range map[*[]byte]string{&s.wrap: infoWrap, &s.head: infoHead, &s.rotation: infoRotation} {
		secmem.Derive(*out, root, storeID[:], info)
	}
}

// hold copies the lasting key, 32 bytes, and derives from it.
func (k *keyring) hold(lasting []byte) error {
	return k.change(func(s *subkeys) error {
		copy(s.lasting, lasting)
		k.derivedAt = map[string]int{}
		secmem.Expand(s.index, lasting, infoIndex)
		return nil
	})
}

// advance makes root, 32 bytes, the root key of the next generation and keeps
// what opens the envelopes of the one before, until settle.
func (k *keyring) advance(root []byte, generation uint32) error {
	return k.change(func(s *subkeys) error {
		copy(s.oldWrap, s.wrap)
		s.derive(root, k.storeID)
		k.generation, k.previous = generation, k.generation
		return nil
	})
}

// remember takes the root key before this one, 32 bytes, in whose envelopes
// records may still be.
func (k *keyring) remember(root []byte, generation uint32) error {
	return k.change(func(s *subkeys) error {
		secmem.Derive(s.oldWrap, root, k.storeID[:], infoWrap)
		k.previous = generation
		return nil
	})
}

// settle forgets the root key before this one.
func (k *keyring) settle() error {
	return k.change(func(s *subkeys) error {
		clear(s.oldWrap)
		k.previous = 0
		return nil
	})
}

// generations are those of the root key and of the one that rotation leaves
// behind, 0 when there is none.
func (k *keyring) generations() (now, previous uint32) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.generation, k.previous
}

func (k *keyring) destroy() { k.buf.Destroy() }

// use lends all keys; after destroy it is [ErrSealed]. fn must not call use.
func (k *keyring) use(fn func(s *subkeys) error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.lend(fn)
}

// change is use for a change of the keys.
func (k *keyring) change(fn func(s *subkeys) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lend(fn)
}

func (k *keyring) lend(fn func(s *subkeys) error) error {
	err := k.buf.Use(func(b []byte) (err error) {
		secmem.Do(func() { err = fn(divide(b)) })
		return err
	})
	if errors.Is(err, secmem.ErrDestroyed) {
		return ErrSealed
	}
	return err
}

// The lasting key is one record at a place that needs no key to find.
const lastingKeyID = "lasting"

var lastingKeyPlace = recordKey(sha256.Sum256([]byte("sigild/vault/lasting-key/v1")))

// rootCommit is what slots and statements say of a root key without telling it.
func rootCommit(root []byte, storeID [16]byte) (commit [32]byte) {
	secmem.Derive(commit[:], root, storeID[:], infoRootCommit)
	return commit
}

// derive lends HKDF-Expand(lasting key, purpose), 32 bytes.
func (k *keyring) derive(purpose string, fn func(key []byte) error) error {
	key := make([]byte, 32)
	defer clear(key)
	known, full := false, false
	err := k.use(func(s *subkeys) error {
		at, ok := k.derivedAt[purpose]
		if known = ok; ok {
			copy(key, s.derived[32*at:])
		} else if full = len(k.derivedAt) >= maxDerived; full {
			secmem.Expand(key, s.lasting, infoDerivePrefix+purpose)
		}
		return nil
	})
	if err == nil && !known && !full {
		err = k.change(func(s *subkeys) error {
			secmem.Expand(key, s.lasting, infoDerivePrefix+purpose)
			_, ok := k.derivedAt[purpose]
			if !ok && k.derivedAt != nil && len(k.derivedAt) < maxDerived {
				at := len(k.derivedAt)
				k.derivedAt[purpose] = at
				copy(s.derived[32*at:32*at+32], key)
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("deriving the key for %s: %w", purpose, err)
	}
	return fn(key)
}

// lastingOfV1 is what took the lasting key's part in stores of schema 1: derived
// keys stay as they are. The caller wipes it.
func (k *keyring) lastingOfV1() (lasting []byte, err error) {
	var prk [32]byte
	defer clear(prk[:])
	err = k.use(func(s *subkeys) error {
		secmem.Extract(&prk, s.root, k.storeID[:])
		return nil
	})
	return bytes.Clone(prk[:]), err
}

// recordKey is where the record is found: HMAC-SHA256(k_index, type ‖ id), so
// that the file doesn't list names. The lasting key's own place is known to all.
func (k *keyring) recordKey(t Type, id string) (key recordKey, err error) {
	if t == TypeLastingKey {
		return lastingKeyPlace, nil
	}
	err = k.use(func(s *subkeys) error {
		key = s.recordKey(t, id)
		return nil
	})
	return key, err
}

func (s *subkeys) recordKey(t Type, id string) (key recordKey) {
	if t == TypeLastingKey {
		return lastingKeyPlace
	}
	secmem.MAC((*[32]byte)(&key), s.index, binary.BigEndian.AppendUint16(nil, uint16(t)), []byte(id))
	return key
}

// headMAC is HMAC-SHA256(k_head, body).
func (k *keyring) headMAC(body []byte) (mac [32]byte, err error) {
	err = k.use(func(s *subkeys) error {
		mac = macOf(s.head, body)
		return nil
	})
	return mac, err
}

func macOf(key, body []byte) (mac [32]byte) {
	secmem.MAC(&mac, key, body)
	return mac
}

// seal frames id and payload and encrypts them as one envelope; parts are devices'
// parts of its key, nil for none.
func (k *keyring) seal(m recordMeta, parts *newParts, id string, payload []byte) (env []byte, err error) {
	framed := make([]byte, 0, 2+len(id)+len(payload))
	defer func() { clear(framed) }()
	framed = binary.BigEndian.AppendUint16(framed, uint16(len(id)))
	framed = append(framed, id...)
	framed = append(framed, payload...)
	err = k.use(func(s *subkeys) error {
		m.StoreID, m.Generation = k.storeID, k.generation
		env, err = sealEnvelope(s.wrap, m, parts, framed)
		return err
	})
	return env, err
}

// open decrypts env in place and lends id and payload, which it then wipes. parts are
// the devices' of its key, nil for none.
func (k *keyring) open(m recordMeta, parts, env []byte, use func(id string, payload []byte) error) error {
	var framed []byte
	err := k.use(func(s *subkeys) (err error) {
		o := opener{keys: k, lent: s}
		defer o.forget()
		framed, err = o.open(m, parts, env)
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

// rewrap wraps the DEK of env anew, in place, under the root key of today. It
// never sees the plaintext. It says false for an envelope that needs nothing.
func (k *keyring) rewrap(env []byte) (changed bool, err error) {
	err = k.use(func(s *subkeys) error {
		g, ok := generationOf(env)
		if ok && g == k.generation {
			return nil
		}
		if !ok || k.previous == 0 || g != k.previous {
			return fmt.Errorf("%w: envelope is wrapped by root key %d, which is neither this nor the last", ErrTampered, g)
		}
		changed = true
		return rewrapEnvelope(s.oldWrap, s.wrap, k.generation, env)
	})
	return changed, err
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
