package dfns

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/sigild/sigild/stamping/body"
)

// maxChallenge bounds a challenge, in bytes; Dfns' have 86.
const maxChallenge = 512

// ClientData is what a credential signs for a challenge: the JSON text that Dfns' own
// key signer makes. The challenge must be base64url, so that it needs no escapes.
func ClientData(challenge string) ([]byte, error) {
	if len(challenge) < 16 || len(challenge) > maxChallenge {
		return nil, body.Refuse(body.Malformed, "challenge", "it has %d characters, 16 to %d are read", len(challenge), maxChallenge)
	}
	for _, c := range []byte(challenge) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return nil, body.Refuse(body.Malformed, "challenge", "it is not base64url without padding")
		}
	}
	return fmt.Appendf(nil, `{"type":"key.get","challenge":"%s"}`, challenge), nil
}

type assertion struct {
	CredID     string `json:"credId"`
	ClientData string `json:"clientData"`
	Signature  string `json:"signature"`
}

type factor struct {
	Kind                string    `json:"kind"`
	CredentialAssertion assertion `json:"credentialAssertion"`
}

// Assertion is the firstFactor of POST /auth/action, as JSON. credential is Dfns' id
// of the public key; signature is ECDSA over SHA-256 of the client data, DER.
func Assertion(credential string, clientData, signature []byte) ([]byte, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	text, err := json.Marshal(factor{Kind: "Key", CredentialAssertion: assertion{CredID: credential, ClientData: b64(clientData), Signature: b64(signature)}})
	if err != nil {
		return nil, fmt.Errorf("encoding a user action: %w", err)
	}
	return text, nil
}

// Statement is what a witness signs: that Dfns itself gave the challenge out for this
// very request. credential is the vendor credential's id here. Each part follows its
// length as four bytes, big-endian.
func Statement(credential string, r Request) []byte {
	sum := sha256.Sum256(r.Body)
	var out []byte
	for _, part := range [...][]byte{[]byte("sigild/dfns-challenge/v1"), []byte(credential), []byte(r.Method), []byte(r.Path), sum[:], []byte(r.Challenge)} {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(part))), part...)
	}
	return out
}
