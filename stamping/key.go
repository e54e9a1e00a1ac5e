package stamping

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Keys are P-256 (FIPS 186-5), 32 bytes big-endian in their records. Go's own type
// makes copies of the scalar that nobody can wipe, as for credential.PrivateKey; they
// last for the call.

// scalarSize is the length of a private key in bytes.
const scalarSize = 32

// errScalar says that 32 bytes are no private key of the curve.
var errScalar = errors.New("the private key is not a P-256 scalar")

// makeKey lends a new private key to use and wipes it.
func makeKey(use func(raw []byte) error) error {
	raw := make([]byte, scalarSize)
	defer clear(raw)
	for {
		if _, err := rand.Read(raw); err != nil {
			return fmt.Errorf("making a vendor key: %w", err)
		}
		if _, err := publicOf(raw); err == nil {
			return use(raw)
		} // zero or above the group's order: one in 2^32
	}
}

// publicOf is the public half, compressed.
func publicOf(raw []byte) ([]byte, error) {
	priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, errScalar
	}
	point, err := priv.PublicKey.Bytes() // 4 ‖ x ‖ y
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	return append([]byte{2 + point[64]&1}, point[1:33]...), nil
}

// sign is ECDSA over SHA-256 of message, DER, with s in the lower half. It is
// deterministic (RFC 6979): the same body has the same stamp, also after a crash.
func sign(raw, message []byte) ([]byte, error) {
	priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, errScalar
	}
	digest := sha256.Sum256(message)
	der, err := priv.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing for a vendor: %w", err)
	}
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("reading our own signature: %w", err)
	}
	n := elliptic.P256().Params().N
	if sig.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		sig.S.Sub(n, sig.S)
	}
	return asn1.Marshal(sig)
}
