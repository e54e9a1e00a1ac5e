package credential

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Signer signs with a credential's private half, wherever it lives. Sign gets
// the whole statement (it hashes itself, as the algorithm wants), returns a
// signature in the form of the package comment and must not keep message.
type Signer interface {
	Public() PublicKey
	Sign(message []byte) ([]byte, error)
}

// PrivateKey is a credential's private half in memory, a [Signer] for tools,
// tests and programs without a device. Sign is safe for concurrent use; Wipe
// must come after the last Sign.
//
// Go's own P-256 type makes copies of the scalar that nobody can wipe; an
// operator who minds keeps the key in a device.
type PrivateKey struct {
	public PublicKey
	raw    []byte // 32 bytes: scalar, big-endian, or Ed25519 seed
}

// GenerateKey makes a new private key from the system's randomness.
func GenerateKey(algorithm Algorithm) (*PrivateKey, error) {
	for {
		raw := make([]byte, 32)
		if _, err := rand.Read(raw); err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		key, err := newPrivateKey(algorithm, raw)
		if errors.Is(err, errScalar) {
			continue // zero or above the group's order: one in 2^32 or fewer
		}
		return key, err
	}
}

var errScalar = errors.New("private scalar out of range")

// newPrivateKey takes raw over: it belongs to the key, or is wiped on error.
func newPrivateKey(algorithm Algorithm, raw []byte) (_ *PrivateKey, err error) {
	defer func() {
		if err != nil {
			clear(raw)
		}
	}()
	if len(raw) != 32 {
		return nil, fmt.Errorf("reading private key: %d bytes, want 32", len(raw))
	}
	var public []byte
	switch algorithm {
	case P256:
		priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			return nil, fmt.Errorf("reading p256 private key: %w", errScalar)
		}
		point, err := priv.PublicKey.Bytes() // 4 || X || Y
		if err != nil {
			return nil, fmt.Errorf("reading p256 private key: %w", err)
		}
		public = append([]byte{2 + point[64]&1}, point[1:33]...)
	case Ed25519:
		priv := ed25519.NewKeyFromSeed(raw)
		public = append(public, priv[32:]...)
		clear(priv)
	case Secp256k1:
		var scalar secp256k1.ModNScalar
		defer scalar.Zero()
		if overflow := scalar.SetByteSlice(raw); overflow || scalar.IsZero() {
			return nil, fmt.Errorf("reading secp256k1 private key: %w", errScalar)
		}
		priv := secp256k1.NewPrivateKey(&scalar)
		defer priv.Zero()
		public = priv.PubKey().SerializeCompressed()
	default:
		return nil, fmt.Errorf("reading private key: unknown algorithm %q", clip(string(algorithm)))
	}
	key, err := ParsePublicKey(algorithm, public)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{public: key, raw: raw}, nil
}

// Public returns the public half.
func (k *PrivateKey) Public() PublicKey { return k.public }

// Sign signs message in the form of the package comment.
func (k *PrivateKey) Sign(message []byte) ([]byte, error) {
	if len(k.raw) == 0 {
		return nil, errors.New("signing: the private key was wiped")
	}
	switch k.public.Algorithm {
	case P256:
		priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), k.raw)
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		digest := sha256.Sum256(message)
		signature, err := ecdsa.SignASN1(rand.Reader, priv, digest[:])
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return signature, nil
	case Ed25519:
		priv := ed25519.NewKeyFromSeed(k.raw)
		defer clear(priv)
		return ed25519.Sign(priv, message), nil
	default: // the constructor let only three pass
		priv := secp256k1.PrivKeyFromBytes(k.raw)
		defer priv.Zero()
		digest := sha256.Sum256(message)
		return secpecdsa.Sign(priv, digest[:]).Serialize(), nil // RFC 6979, low s
	}
}

// Wipe zeroes the private half; Sign fails from then on.
func (k *PrivateKey) Wipe() {
	clear(k.raw)
	k.raw = nil
}

const redacted = "[redacted]"

var errSecret = errors.New("a private key is not encoded this way; use Save")

var (
	_ fmt.Formatter  = PrivateKey{}
	_ slog.LogValuer = PrivateKey{}
	_ json.Marshaler = PrivateKey{}
	_ gob.GobEncoder = PrivateKey{}
	_ Signer         = (*PrivateKey)(nil)
)

// Format prints [redacted] for every verb.
func (k PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue logs [redacted].
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON refuses.
func (k PrivateKey) MarshalJSON() ([]byte, error) { return nil, errSecret }

// MarshalText refuses.
func (k PrivateKey) MarshalText() ([]byte, error) { return nil, errSecret }

// GobEncode refuses.
func (k PrivateKey) GobEncode() ([]byte, error) { return nil, errSecret }
