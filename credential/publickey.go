// Package credential holds what proves who asks: public keys, the stamps made
// with them, and the proofs that somebody holds the private half. The client
// stamps with it, the server and delegation verify with it; it is pure and
// knows neither gRPC nor protobuf, so that tools in other places can use it.
//
// It refuses what has two spellings: an uncompressed or off-curve point, an
// Ed25519 key that isn't canonical or has small order (every message verifies
// under it), a signature that isn't strict DER, JSON with unknown, missing or
// repeated members, hex in capitals.
//
// The algorithms, chosen by what the holders of keys have at hand:
//
//	p256       ECDSA, SHA-256 of the statement, DER (SEC 1 C.5); s may be in
//	           either half, as secure elements and WebCrypto make it
//	ed25519    RFC 8032 over the statement itself, 64 bytes
//	secp256k1  ECDSA, SHA-256 of the statement, DER with s in the lower half
//	webauthn-p256  what an authenticator signs (webauthn.go): its challenge is
//	           SHA-256 of the statement, its signature ECDSA in DER over P-256
//
// A signature's bytes are never used as an identity, so the two halves of P-256
// do no harm.
package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Algorithm names a kind of public key; the words are those of files and statements.
type Algorithm string

// The algorithms, a closed list.
const (
	P256      Algorithm = "p256"
	Ed25519   Algorithm = "ed25519"
	Secp256k1 Algorithm = "secp256k1"
	// WebAuthnP256 is ES256 inside an assertion ([RelyingParty]), never by itself.
	WebAuthnP256 Algorithm = "webauthn-p256"
)

// ErrSignature: the signature isn't the key's signature over the message, or
// isn't in the one form its algorithm has here.
var ErrSignature = errors.New("signature does not verify")

// PublicKey is a credential's public half. Make one with [ParsePublicKey]; a
// value made otherwise is checked again at every use.
type PublicKey struct {
	// Algorithm says how Bytes is read.
	Algorithm Algorithm
	// Bytes is SEC 1 compressed, 33 bytes, for the ECDSA curves, and the 32
	// bytes of RFC 8032 for Ed25519.
	Bytes []byte
}

// ParsePublicKey checks that b is the one encoding of a usable point and copies it.
func ParsePublicKey(algorithm Algorithm, b []byte) (PublicKey, error) {
	k := PublicKey{Algorithm: algorithm, Bytes: bytes.Clone(b)}
	if err := k.check(); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

func (k PublicKey) check() error {
	var err error
	switch k.Algorithm {
	case P256:
		_, err = k.P256()
	case Ed25519:
		err = checkEd25519(k.Bytes)
	case Secp256k1:
		_, err = k.secp256k1()
	case WebAuthnP256:
		_, err = pointOfP256(k.Bytes)
	default:
		err = fmt.Errorf("reading public key: unknown algorithm %q", clip(string(k.Algorithm)))
	}
	return err
}

// P256 is the key as crypto/ecdsa has it; an error for another algorithm.
func (k PublicKey) P256() (*ecdsa.PublicKey, error) {
	if k.Algorithm != P256 {
		return nil, fmt.Errorf("reading p256 public key: it is of algorithm %q", clip(string(k.Algorithm)))
	}
	return pointOfP256(k.Bytes)
}

func pointOfP256(b []byte) (*ecdsa.PublicKey, error) {
	if len(b) != 33 {
		return nil, fmt.Errorf("reading p256 public key: %d bytes, want 33 (SEC 1 compressed)", len(b))
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), b)
	if x == nil {
		return nil, errors.New("reading p256 public key: not a point of the curve")
	}
	var point [65]byte
	point[0] = 4
	x.FillBytes(point[1:33])
	y.FillBytes(point[33:])
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point[:])
}

func (k PublicKey) secp256k1() (*secp256k1.PublicKey, error) {
	if len(k.Bytes) != secp256k1.PubKeyBytesLenCompressed {
		return nil, fmt.Errorf("reading secp256k1 public key: %d bytes, want 33 (SEC 1 compressed)", len(k.Bytes))
	}
	pub, err := secp256k1.ParsePubKey(k.Bytes)
	if err != nil {
		return nil, errors.New("reading secp256k1 public key: not a point of the curve")
	}
	return pub, nil
}

// Equal reports whether both are the same key of the same algorithm.
func (k PublicKey) Equal(other PublicKey) bool {
	return k.Algorithm == other.Algorithm && bytes.Equal(k.Bytes, other.Bytes)
}

func (k PublicKey) digest() [32]byte {
	return sha256.Sum256(lengthPrefixed([]byte("sigild/credential/v1"), []byte(k.Algorithm), k.Bytes))
}

// Fingerprint is the lower-case hex of SHA-256 over algorithm and key, 64
// characters. The same bytes under two algorithms have two fingerprints.
func (k PublicKey) Fingerprint() string {
	d := k.digest()
	return hex.EncodeToString(d[:])
}

// lowerBase32 is RFC 4648 base32 in lower case, as in every id of the API.
var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID is the credential's short id: "crd_" and 26 base32 characters, the first
// 128 bits of the fingerprint.
func (k PublicKey) ID() string {
	d := k.digest()
	return "crd_" + lowerBase32.EncodeToString(d[:16])
}

// String is the id; a public key holds no secret.
func (k PublicKey) String() string { return k.ID() }

// Verify checks a signature over message in the form of the package comment.
// The error is [ErrSignature] or says why the key itself is refused.
func (k PublicKey) Verify(message, signature []byte) error {
	ok := false
	switch k.Algorithm {
	case P256:
		pub, err := k.P256()
		if err != nil {
			return err
		}
		digest := sha256.Sum256(message)
		ok = ecdsa.VerifyASN1(pub, digest[:], signature) // refuses any DER but the shortest
	case Ed25519:
		if err := checkEd25519(k.Bytes); err != nil {
			return err
		}
		ok = len(signature) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(k.Bytes), message, signature)
	case Secp256k1:
		pub, err := k.secp256k1()
		if err != nil {
			return err
		}
		sig, err := secpecdsa.ParseDERSignature(signature)
		if err != nil {
			return ErrSignature
		}
		s := sig.S()
		digest := sha256.Sum256(message)
		ok = !s.IsOverHalfOrder() && sig.Verify(digest[:], pub)
	case WebAuthnP256: // it signs nothing but assertions
		return ErrSignature
	default:
		return k.check()
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// The field of Curve25519 and the d of edwards25519 (RFC 8032 section 5.1).
var (
	fieldP, _ = new(big.Int).SetString("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed", 16)
	curveD, _ = new(big.Int).SetString("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3", 16)
)

// checkEd25519 refuses what crypto/ed25519 lets pass: y not below p, a y that is
// on no point, and the eight points of small order. Public data: no need for
// constant time.
func checkEd25519(b []byte) error {
	if len(b) != ed25519.PublicKeySize {
		return fmt.Errorf("reading ed25519 public key: %d bytes, want 32", len(b))
	}
	var big32 [32]byte
	for i := range b {
		big32[31-i] = b[i]
	}
	big32[0] &= 0x7f
	y := new(big.Int).SetBytes(big32[:])
	if y.Cmp(fieldP) >= 0 {
		return errors.New("reading ed25519 public key: not canonical")
	}
	one := big.NewInt(1)
	y2 := new(big.Int).Mul(y, y)
	u := new(big.Int).Sub(y2, one) // x^2 = u / v
	v := new(big.Int).Mul(curveD, y2)
	v.Add(v, one).Mod(v, fieldP)
	uv := u.Mul(u, v)
	uv.Mod(uv, fieldP)
	if big.Jacobi(uv, fieldP) < 0 { // u/v is a square exactly when u*v is
		return errors.New("reading ed25519 public key: not a point of the curve")
	}
	if smallOrder(y, y2) {
		return errors.New("reading ed25519 public key: point of small order")
	}
	return nil
}

// smallOrder knows the points of order 1, 2, 4 and 8 by their y: 1, -1, 0, and
// the roots of d*y^4 + 2*y^2 - 1, where 2P has y = 0.
func smallOrder(y, y2 *big.Int) bool {
	one := big.NewInt(1)
	minusOne := new(big.Int).Sub(fieldP, one)
	if y.Sign() == 0 || y.Cmp(one) == 0 || y.Cmp(minusOne) == 0 {
		return true
	}
	t := new(big.Int).Mul(y2, y2)
	t.Mul(t, curveD).Add(t, y2).Add(t, y2).Sub(t, one).Mod(t, fieldP)
	return t.Sign() == 0
}

// clip keeps a caller's text short enough for an error.
func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "..."
	}
	return s
}
