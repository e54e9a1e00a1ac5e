package secmem

import (
	"crypto/sha256"
	"runtime"
)

// HKDF over SHA-256 (RFC 5869) as crypto/hkdf has it, with nothing left on the heap:
// the secrets pass through buffers that are cleared, and the keys lie in the caller's
// alone.

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

// short is the longest message that MAC takes without an allocation.
const short = 192

// MAC puts HMAC-SHA256(key, parts one after the other) into sum, as RFC 2104 has it:
// crypto/hmac keeps its key in objects on the heap, which would have to be scrubbed.
// The hash works on the stack, so that is made large enough before, and what was left on
// it is overwritten after: a stack that grows in between is left behind with all it holds.
func MAC(sum *[sha256.Size]byte, key []byte, parts ...[]byte) {
	overwriteStack()
	mac(sum, key, parts)
	overwriteStack()
}

//go:noinline
func mac(sum *[sha256.Size]byte, key []byte, parts [][]byte) {
	var inner [sha256.BlockSize + short]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	text := inner[:sha256.BlockSize]
	if n > short {
		text = make([]byte, sha256.BlockSize, sha256.BlockSize+n)
	}
	if len(key) > sha256.BlockSize {
		hashed := sha256.Sum256(key)
		key = hashed[:]
	}
	copy(text, key)
	copy(outer[:], key)
	for i := range sha256.BlockSize {
		text[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	for _, p := range parts {
		text = append(text, p...)
	}
	*sum = sha256.Sum256(text)
	clear(text)
	copy(outer[sha256.BlockSize:], sum[:])
	*sum = sha256.Sum256(outer[:])
}

// overwriteStack grows the goroutine's stack to what mac and all below it need, and
// clears that much of it.
//
//go:noinline
func overwriteStack() {
	var below [4 << 10]byte
	clear(below[:])
	runtime.KeepAlive(&below)
}
