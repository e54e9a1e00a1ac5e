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
	"fmt"
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
	if !d.Still {
		d.Counter++
	}
	id, sum := sha256.Sum256([]byte(d.ID)), sha256.Sum256(message)
	a := credential.Assertion{
		ClientDataJSON:    fmt.Appendf(nil, d.Page, base64.RawURLEncoding.EncodeToString(sum[:])),
		AuthenticatorData: append(binary.BigEndian.AppendUint32(append(id[:], d.Flags), d.Counter), d.Extra...),
	}
	client := sha256.Sum256(a.ClientDataJSON)
	digest := sha256.Sum256(append(append([]byte{}, a.AuthenticatorData...), client[:]...))
	var err error
	a.Signature, err = ecdsa.SignASN1(rand.Reader, d.key, digest[:])
	return a, err
}

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
