// Package seal holds the nouns of sealing: what a hardware provider can do for
// the vault and the journal, and the errors it may answer with. The two
// providers (hsm, tpm) implement it; only cmd introduces a provider to the
// vault, so nothing above this package knows which device is beneath.
//
// A provider refuses what it can't do with [ErrUnsupported]; it never falls
// back to software.
package seal

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
)

// KeyRef names a key or a counter inside a provider for ever: for PKCS#11 the
// lower-case hex of its CKA_ID, for a TPM the hex of its Name. Never a slot or
// handle number.
type KeyRef string

// MaxSealed is the largest plaintext, in bytes, that every provider seals. It
// is the TPM's limit for one sealed object (facts: 128 bytes).
const MaxSealed = 128

// Provider is one device. Its methods are safe for concurrent use.
type Provider interface {
	// ID is stable over restarts and names the device: "pkcs11:<token serial>".
	ID() string
	// Health runs the provider's canary; nil means the next call is likely to work.
	// Errors wrap one of the sentinels below.
	Health(ctx context.Context) error
	// Close ends sessions and helpers. Idempotent.
	Close() error
}

// Sealer encrypts at most [MaxSealed] bytes under a key that never leaves the
// device. Errors: [ErrTampered] when the blob or the aad is not what was
// sealed, [ErrNotFound], [ErrUnavailable] and the other sentinels.
type Sealer interface {
	// Seal returns a blob only the same device can open, bound to aad. The
	// caller keeps plaintext and wipes it.
	Seal(ctx context.Context, ref KeyRef, plaintext, aad []byte) (blob []byte, err error)
	// Unseal lends the plaintext to use and wipes it when use returns; use must
	// not keep it. The error of use is returned as it is.
	Unseal(ctx context.Context, ref KeyRef, blob, aad []byte, use func(plaintext []byte) error) error
}

// Signer signs with a P-256 key that never leaves the device; the journal's
// checkpoints use it.
type Signer interface {
	PublicP256(ctx context.Context, ref KeyRef) (*ecdsa.PublicKey, error)
	// SignP256 signs a SHA-256 digest and returns r ‖ s, 64 bytes, big-endian
	// (PKCS#11 v3.1 §6.3.1), already verified against the public key.
	SignP256(ctx context.Context, ref KeyRef, digest [32]byte) ([]byte, error)
}

// Decrypter opens what others encrypted to an RSA key of 2048 to 4096 bits that
// never leaves the device: RSAES-OAEP (RFC 8017 §7.1) with SHA-256, MGF1 with
// SHA-256 and an empty label. How the device does it was decided when the key was
// made and never depends on a message.
type Decrypter interface {
	PublicRSA(ctx context.Context, ref KeyRef) (*rsa.PublicKey, error)
	// DecryptOAEPSHA256 lends the plaintext (at most the key's bytes less 66) to use
	// and wipes it when use returns; use must not keep it. Whatever is wrong with
	// ciphertext, the answer is the same [ErrTampered] with the same text. The error
	// of use is returned as it is.
	DecryptOAEPSHA256(ctx context.Context, ref KeyRef, ciphertext []byte, use func(plaintext []byte) error) error
}

// Counter is a number in the device that only ever grows by one and that nothing
// puts back, neither a restored disk nor whoever owns the device: what is bound
// to its value can't be rolled back unnoticed. Several counters of one device are
// independent, but a counter made anew may begin above 1.
type Counter interface {
	// ReadCounter returns the value of the counter.
	ReadCounter(ctx context.Context, ref KeyRef) (uint64, error)
	// Increment makes the counter from+1 and returns that; it is durable in the device
	// on return. [ErrCounterMoved]: the value was not from, and nothing changed. After
	// any other error the caller reads: the value is from or from+1.
	Increment(ctx context.Context, ref KeyRef, from uint64) (uint64, error)
}

// KEKMaker makes further sealing keys, which roll by themselves.
type KEKMaker interface {
	// MakeKEK makes a sealing key and tries it; it is in the device on return. A device
	// that has but one gives that.
	MakeKEK(ctx context.Context) (KeyRef, error)
}

// Counting is a device that counts what it was asked.
type Counting interface {
	// Calls says how often the device was called since it was opened, by what for; a
	// device that does not tell them apart has one entry.
	Calls() map[string]uint64
}

// Roller replaces a sealing key by a new one and destroys the old: whatever was
// sealed under the old can then be opened by nobody, also not from a copy. The order
// is BeginRoll, seal everything anew under the new key, make that durable, EndRoll of
// the new one. Who dies in between calls EndRoll with whichever key its durable state
// names, which finishes the roll or undoes it. Errors: the sentinels.
type Roller interface {
	// BeginRoll makes a successor to ref, which stays usable; the successor is in the
	// device on return. [ErrAmbiguous] when there is one already.
	BeginRoll(ctx context.Context, ref KeyRef) (next KeyRef, err error)
	// EndRoll destroys all predecessors and successors of keep, for good, and says
	// how many. It destroys nothing unless keep is there and works. Repeating it is
	// harmless.
	EndRoll(ctx context.Context, keep KeyRef) (destroyed int, err error)
}

// The sentinels every provider maps its own codes to. Callers decide with
// errors.Is; the text of the wrapped error says what to do.
var (
	// ErrTampered: the blob was changed, cut, or belongs to another key or aad.
	ErrTampered = errors.New("sealed blob does not authenticate")
	// ErrUnavailable: the device or its module doesn't answer. Retrying later may help.
	ErrUnavailable = errors.New("sealing device unavailable")
	// ErrAuth: the device refused the PIN, or a TPM the outside secret. A PIN is never
	// retried and latched; a wrong secret costs nothing.
	ErrAuth = errors.New("sealing device refused the PIN or secret")
	// ErrLatched: an earlier wrong PIN is latched; nothing is tried until it is cleared.
	ErrLatched = errors.New("a wrong PIN is latched")
	// ErrLocked: the device itself locked the PIN.
	ErrLocked = errors.New("sealing device has locked the PIN")
	// ErrNotFound: no such token or key.
	ErrNotFound = errors.New("no such token or key")
	// ErrAmbiguous: more than one token or key matches; nothing is guessed.
	ErrAmbiguous = errors.New("more than one token or key matches")
	// ErrPolicy: a key exists but lacks the attributes we insist on, or a TPM policy failed.
	ErrPolicy = errors.New("key or device state violates the sealing policy")
	// ErrCounterMoved: a counter has another value than its caller counts on.
	ErrCounterMoved = errors.New("the counter has another value")
	// ErrUnsupported: this device or build can't do it.
	ErrUnsupported = errors.New("not supported by this provider or build")
)
