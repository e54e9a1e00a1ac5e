package turnkey

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Header is the name of the header that a stamp travels in.
const Header = "X-Stamp"

const scheme = "SIGNATURE_SCHEME_TK_API_P256"

// stamp is the stamp's JSON; the members stand in the order of Turnkey's own stamper.
type stamp struct {
	PublicKey string `json:"publicKey"`
	Scheme    string `json:"scheme"`
	Signature string `json:"signature"`
}

// Stamp is the header's value: unpadded base64url of the stamp's JSON. publicKey is a
// P-256 point, compressed (33 bytes); signature is ECDSA over SHA-256 of the body, DER.
func Stamp(publicKey, signature []byte) (string, error) {
	text, err := json.Marshal(stamp{PublicKey: hex.EncodeToString(publicKey), Scheme: scheme, Signature: hex.EncodeToString(signature)})
	if err != nil {
		return "", fmt.Errorf("encoding a stamp: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(text), nil
}
