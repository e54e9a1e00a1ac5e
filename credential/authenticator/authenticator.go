// Package authenticator is a WebAuthn authenticator in software, with the page
// around it, for tests of what verifies assertions. It refuses nothing: tests
// spoil what it would do right. Nothing that ships imports it.
package authenticator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sigild/sigild/credential"
)

// Device holds one credential.
type Device struct {
	credential.RelyingParty
	key *ecdsa.PrivateKey
	// Counter is the last; it grows by one with each assertion, unless Still.
	Counter uint32
	Still   bool
	// Flags of authenticatorData: user present and verified.
	Flags byte
	// Page is the clientDataJSON around the challenge: %s.
	Page string
	// Extra follows the 37 bytes of authenticatorData.
	Extra []byte
}

// New makes a device with a credential for https://wallet.example.
func New() (*Device, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Device{
		RelyingParty: credential.RelyingParty{CredentialID: []byte("a credential"), ID: "wallet.example", Origins: []string{"https://wallet.example"}},
		key:          key, Flags: 5,
		Page: `{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example","crossOrigin":false}`,
	}, nil
}

// Public is the credential's key.
func (d *Device) Public() credential.PublicKey {
	return credential.PublicKey{Algorithm: credential.WebAuthnP256, Bytes: elliptic.MarshalCompressed(elliptic.P256(), d.key.X, d.key.Y)}
}

// Assert answers the challenge SHA-256(message).
func (d *Device) Assert(message []byte) (credential.Assertion, error) {
	sum := sha256.Sum256(message)
	return d.sign(sum[:])
}

func (d *Device) sign(challenge []byte) (credential.Assertion, error) {
	if !d.Still {
		d.Counter++
	}
	id := sha256.Sum256([]byte(d.ID))
	a := credential.Assertion{
		ClientDataJSON:    fmt.Appendf(nil, d.Page, base64url(challenge)),
		AuthenticatorData: append(binary.BigEndian.AppendUint32(append(id[:], d.Flags), d.Counter), d.Extra...),
	}
	client := sha256.Sum256(a.ClientDataJSON)
	digest := sha256.Sum256(append(append([]byte{}, a.AuthenticatorData...), client[:]...))
	var err error
	a.Signature, err = ecdsa.SignASN1(rand.Reader, d.key, digest[:])
	return a, err
}

// Register answers navigator.credentials.create as a browser's JSON, with attestation
// "none". The page is the device's, of type webauthn.create.
func (d *Device) Register(challenge []byte) ([]byte, error) {
	id := sha256.Sum256([]byte(d.ID))
	data := binary.BigEndian.AppendUint32(append(id[:], d.Flags|1<<6), d.Counter)
	data = binary.BigEndian.AppendUint16(append(data, make([]byte, 16)...), uint16(len(d.CredentialID)))
	data = append(data, d.CredentialID...)
	x, y := d.key.X.FillBytes(make([]byte, 32)), d.key.Y.FillBytes(make([]byte, 32))
	data = append(data, 0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32) // {1: 2, 3: -7, -1: 1, -2: x, -3: y}
	data = append(append(append(data, x...), 0x22, 0x58, 32), y...)
	data = append(data, d.Extra...)
	object := []byte("\xa3cfmtdnonegattStmt\xa0hauthData\x59")
	object = append(binary.BigEndian.AppendUint16(object, uint16(len(data))), data...)
	page := strings.Replace(d.Page, "webauthn.get", "webauthn.create", 1)
	return d.answer(map[string]any{
		"clientDataJSON": base64url(fmt.Appendf(nil, page, base64url(challenge))), "attestationObject": base64url(object), "transports": []string{"internal"},
	})
}

// AssertResponse answers navigator.credentials.get as a browser's JSON.
func (d *Device) AssertResponse(challenge []byte) ([]byte, error) {
	a, err := d.sign(challenge)
	if err != nil {
		return nil, err
	}
	return d.answer(map[string]any{
		"clientDataJSON": base64url(a.ClientDataJSON), "authenticatorData": base64url(a.AuthenticatorData), "signature": base64url(a.Signature), "userHandle": "",
	})
}

func (d *Device) answer(response map[string]any) ([]byte, error) {
	id := base64url(d.CredentialID)
	return json.Marshal(map[string]any{"id": id, "rawId": id, "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{}, "response": response})
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Sign implements credential.Signer: the encoded assertion, as proofs carry it.
func (d *Device) Sign(message []byte) ([]byte, error) {
	a, err := d.Assert(message)
	if err != nil {
		return nil, err
	}
	return a.Encode()
}

// Stamp stamps a message.
func (d *Device) Stamp(appliance, organization, method string, message []byte, at time.Time) (credential.Stamp, error) {
	act := credential.Act{ApplianceID: appliance, OrganizationID: organization, Method: method, IssuedAt: at, MessageHash: sha256.Sum256(message)}
	a, err := d.Assert(act.Statement())
	return credential.Stamp{
		PublicKey: d.Public(), IssuedAt: time.UnixMilli(at.UnixMilli()), OrganizationID: organization,
		Signature: a.Signature, AuthenticatorData: a.AuthenticatorData, ClientDataJSON: a.ClientDataJSON,
	}, err
}
