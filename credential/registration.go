package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// How a passkey or a security key becomes a credential (WebAuthn Level 3, sections 5.1
// and 7.1). A page asks its authenticator for a key (navigator.credentials.create) and
// then, with that key, for an assertion over the proof of possession
// (navigator.credentials.get). Both answers come as the JSON that a browser makes of them.
//
// The registration says which key it is; that somebody holds it, under which name and for
// what, the assertion proves. So the registration's own challenge proves nothing that the
// proof doesn't, and it is checked only for whoever asked with one. Attestation, the
// maker's word on the device, is not looked at: whoever registers a key vouches for it.

// maxResponse is the largest answer of a browser that is read, in bytes.
const maxResponse = 64 << 10

// Registration is what an authenticator answers when it has made a key.
type Registration struct {
	// ID is its name for the key.
	ID                                []byte
	ClientDataJSON, AttestationObject []byte
}

// base64url is text of base64url without padding, as browsers write bytes.
type base64url []byte

func (b *base64url) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return errors.New("bytes are text of base64url")
	}
	out, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return errors.New("bytes are text of base64url, without padding")
	}
	*b = out
	return nil
}

// ParseRegistration reads a RegistrationResponseJSON, at most 64 KiB: what
// PublicKeyCredential.toJSON() gives. Members that are not looked at may be there.
func ParseRegistration(data []byte) (Registration, error) {
	var r struct {
		Type     string    `json:"type"`
		RawID    base64url `json:"rawId"`
		Response struct {
			ClientDataJSON    base64url `json:"clientDataJSON"`
			AttestationObject base64url `json:"attestationObject"`
		} `json:"response"`
	}
	if err := readResponse(data, &r); err != nil {
		return Registration{}, fmt.Errorf("reading registration: %w", err)
	}
	if r.Type != "public-key" || len(r.RawID) == 0 || len(r.Response.ClientDataJSON) == 0 || len(r.Response.AttestationObject) == 0 {
		return Registration{}, errors.New("reading registration: not of a public key, or a member is missing: rawId, response.clientDataJSON, response.attestationObject")
	}
	return Registration{r.RawID, r.Response.ClientDataJSON, r.Response.AttestationObject}, nil
}

// ParseAssertionResponse reads an AuthenticationResponseJSON, at most 64 KiB, and gives
// the name of the key that answered besides.
func ParseAssertionResponse(data []byte) (id []byte, a Assertion, err error) {
	var r struct {
		Type     string    `json:"type"`
		RawID    base64url `json:"rawId"`
		Response struct {
			ClientDataJSON    base64url `json:"clientDataJSON"`
			AuthenticatorData base64url `json:"authenticatorData"`
			Signature         base64url `json:"signature"`
		} `json:"response"`
	}
	if err := readResponse(data, &r); err != nil {
		return nil, Assertion{}, fmt.Errorf("reading assertion: %w", err)
	}
	if r.Type != "public-key" || len(r.RawID) == 0 || len(r.Response.ClientDataJSON) == 0 || len(r.Response.AuthenticatorData) == 0 || len(r.Response.Signature) == 0 {
		return nil, Assertion{}, errors.New("reading assertion: not of a public key, or a member is missing: rawId, response.clientDataJSON, response.authenticatorData, response.signature")
	}
	return r.RawID, Assertion{r.Response.AuthenticatorData, r.Response.ClientDataJSON, r.Response.Signature}, nil
}

func readResponse(data []byte, into any) error {
	if len(data) > maxResponse {
		return fmt.Errorf("%d bytes, at most %d are read", len(data), maxResponse)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("not the JSON of a browser's answer: %v", err)
	}
	if d.More() {
		return errors.New("something follows the JSON object")
	}
	return nil
}

const (
	flagAttested = 1 << 6
	// attestedHead is authenticatorData up to the key's name: 37 bytes, the AAGUID, a length.
	attestedHead = authenticatorSize + 16 + 2
)

// strictCBOR reads what authenticators write: CTAP2 canonical form has no more.
var strictCBOR = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8: cbor.UTF8RejectInvalid, MaxNestedLevels: 8, MaxArrayElements: 64, MaxMapPairs: 64,
	}.DecMode()
	if err != nil {
		panic(err) // of our own options, when the program starts
	}
	return mode
}()

// Register checks a registration for a relying party, whose CredentialID it fills in: the
// page's origin, and challenge unless that is nil; the user present and verified; a key of
// ES256 and no extensions. It returns the key and the relying party to register it with.
func (rp RelyingParty) Register(r Registration, challenge []byte) (PublicKey, RelyingParty, error) {
	rp.CredentialID = r.ID
	fail := func(err error) (PublicKey, RelyingParty, error) {
		return PublicKey{}, RelyingParty{}, fmt.Errorf("verifying registration: %w", err)
	}
	if err := rp.Check(); err != nil {
		return fail(err)
	}
	page, err := readClientData(r.ClientDataJSON)
	if err != nil {
		return fail(err)
	}
	if page.kind != "webauthn.create" {
		return fail(errors.New("clientDataJSON is of no registration"))
	}
	if challenge != nil && page.challenge != base64.RawURLEncoding.EncodeToString(challenge) {
		return fail(errors.New("it answers another challenge"))
	}
	if err := rp.asked(page); err != nil {
		return fail(err)
	}
	var object struct {
		Format    string          `cbor:"fmt"`
		Statement cbor.RawMessage `cbor:"attStmt"`
		Data      []byte          `cbor:"authData"`
	}
	if err := strictCBOR.Unmarshal(r.AttestationObject, &object); err != nil {
		return fail(fmt.Errorf("attestationObject: %v", err))
	}
	key, id, err := rp.attested(object.Data)
	if err != nil {
		return fail(err)
	}
	if !bytes.Equal(id, r.ID) {
		return fail(errors.New("rawId is not the name of the key in authenticatorData"))
	}
	return key, rp, nil
}

// attested reads the key and its name out of authenticatorData (section 6.1).
func (rp RelyingParty) attested(data []byte) (key PublicKey, id []byte, err error) {
	if len(data) < attestedHead {
		return PublicKey{}, nil, fmt.Errorf("authenticatorData has %d bytes and no key", len(data))
	}
	if want := sha256.Sum256([]byte(rp.ID)); !bytes.Equal(want[:], data[:32]) {
		return PublicKey{}, nil, errors.New("it is for another relying party")
	}
	flags := data[32]
	if flags&flagAttested == 0 {
		return PublicKey{}, nil, errors.New("authenticatorData has no key")
	}
	if err := checkFlags(flags &^ flagAttested); err != nil {
		return PublicKey{}, nil, err
	}
	n := int(binary.BigEndian.Uint16(data[attestedHead-2:]))
	if n == 0 || n > maxCredentialID || len(data) < attestedHead+n {
		return PublicKey{}, nil, errors.New("authenticatorData has no name of its key")
	}
	id = data[attestedHead : attestedHead+n]
	// A COSE key (RFC 9052, section 7; RFC 9053, sections 2.1 and 7.1).
	var cose struct {
		Type      int    `cbor:"1,keyasint"`
		Algorithm int    `cbor:"3,keyasint"`
		Curve     int    `cbor:"-1,keyasint"`
		X         []byte `cbor:"-2,keyasint"`
		Y         []byte `cbor:"-3,keyasint"`
	}
	if err := strictCBOR.Unmarshal(data[attestedHead+n:], &cose); err != nil {
		return PublicKey{}, nil, fmt.Errorf("the key, of ES256 alone, and no extensions behind it: %v", err)
	}
	if cose.Type != 2 || cose.Algorithm != -7 || cose.Curve != 1 || len(cose.X) != 32 || len(cose.Y) != 32 {
		return PublicKey{}, nil, errors.New("the key is not of ES256 on P-256: ask with pubKeyCredParams [{type: \"public-key\", alg: -7}]")
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, cose.X, cose.Y)); err != nil {
		return PublicKey{}, nil, errors.New("the key is no point of P-256")
	}
	// Compressed: the first byte says whether y is odd (SEC 1, section 2.3.3).
	key, err = ParsePublicKey(WebAuthnP256, slices.Concat([]byte{2 + cose.Y[31]&1}, cose.X))
	return key, id, err
}

// ProofChallenge is the challenge to ask an authenticator with for the proof of possession
// of its key, under the name and for the purpose given: SHA-256 of the proof's statement.
func ProofChallenge(key PublicKey, purpose Purpose, name string) ([]byte, error) {
	if err := purpose.check(); err != nil {
		return nil, fmt.Errorf("proving possession: %w", err)
	}
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("proving possession: %w", err)
	}
	sum := sha256.Sum256(proofStatement(purpose, key, name))
	return sum[:], nil
}
