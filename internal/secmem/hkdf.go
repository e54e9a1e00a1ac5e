package secmem

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
)

// HKDF over SHA-256 (RFC 5869) as crypto/hkdf has it, with nothing left on the heap:
// the secrets pass through hashes that are scrubbed, and the keys lie in the caller's
// buffers alone.

// Extract puts HKDF-Extract(salt, secret) into prk.
func Extract(prk *[sha256.Size]byte, secret, salt []byte) {
	if len(salt) == 0 {
		salt = make([]byte, sha256.Size)
	}
	MAC(prk, salt, secret)
}

// Expand fills key, at most 32 bytes, with HKDF-Expand(prk, info).
func Expand(key, prk []byte, info string) {
	if len(key) > sha256.Size {
		panic("secmem: expanding to more than one block")
	}
	var out [sha256.Size]byte
	defer clear(out[:])
	MAC(&out, prk, []byte(info), []byte{1})
	copy(key, out[:])
}

// Derive fills key, at most 32 bytes, with HKDF(secret, salt, info).
func Derive(key, secret, salt []byte, info string) {
	var prk [sha256.Size]byte
	defer clear(prk[:])
	Extract(&prk, secret, salt)
	Expand(key, prk[:], info)
}

// MAC puts HMAC-SHA256(key, parts one after the other) into sum.
func MAC(sum *[sha256.Size]byte, key []byte, parts ...[]byte) {
	h := hmac.New(func() hash.Hash { return sha256.New() }, key)
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	Scrub(h)
}
