package credential

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of a stamp.
const (
	// MaxStampBytes is the largest encoded stamp that is read.
	MaxStampBytes = 2048
	// StampLife is how long after its making a stamp is taken.
	StampLife = 120 * time.Second
	// StampLead is how far a stamp may be ahead of the reader's clock.
	StampLead = 30 * time.Second
)

// ErrStampTime: the stamp is older than [StampLife] or more than [StampLead] ahead.
var ErrStampTime = errors.New("stamp is outside its time")

// Scheme names of stamps; they are ours, so that no other system's stamp is taken for one.
const (
	schemeP256      = "SIGILD_P256_SHA256"
	schemeEd25519   = "SIGILD_ED25519"
	schemeSecp256k1 = "SIGILD_SECP256K1_SHA256"
	schemeWebAuthn  = "SIGILD_WEBAUTHN_P256"
)

var schemeOf = map[Algorithm]string{P256: schemeP256, Ed25519: schemeEd25519, Secp256k1: schemeSecp256k1, WebAuthnP256: schemeWebAuthn}
var algorithmOf = map[string]Algorithm{schemeP256: P256, schemeEd25519: Ed25519, schemeSecp256k1: Secp256k1, schemeWebAuthn: WebAuthnP256}

// Act is what a stamp is made over: one call, to one appliance, for one
// organization, at one time.
type Act struct {
	// ApplianceID is the appliance's id, as `sigilctl status` shows it.
	ApplianceID string
	// OrganizationID is the organization acted for; empty for acts of the
	// operators on the appliance itself.
	OrganizationID string
	// Method is the full gRPC method, "/sigil.v1.WalletService/GetWallet".
	Method string
	// IssuedAt is when the stamp was made, in whole milliseconds.
	IssuedAt time.Time
	// MessageHash is SHA-256 of the request message's bytes, without the gRPC frame's five.
	MessageHash [32]byte
}

// Statement returns the bytes that are signed. Each part follows its length as
// u32 big-endian: "sigild/stamp/v1", appliance id, organization id, method,
// issued at (milliseconds since 1970 as 8 bytes, big-endian), message hash.
func (a Act) Statement() []byte {
	var issued [8]byte
	binary.BigEndian.PutUint64(issued[:], uint64(a.IssuedAt.UnixMilli()))
	return lengthPrefixed([]byte("sigild/stamp/v1"), []byte(a.ApplianceID), []byte(a.OrganizationID),
		[]byte(a.Method), issued[:], a.MessageHash[:])
}

// Stamp is a credential's signature over an [Act], with what a verifier needs
// to rebuild the statement and doesn't know otherwise.
type Stamp struct {
	// PublicKey is the credential that signed.
	PublicKey PublicKey
	// Signature is in the form of the package comment; of an assertion it is that of
	// the authenticator.
	Signature []byte
	// IssuedAt is when it was made, in whole milliseconds.
	IssuedAt time.Time
	// OrganizationID is the organization acted for; empty for an operator.
	OrganizationID string
	// AuthenticatorData and ClientDataJSON are of [WebAuthnP256] alone.
	AuthenticatorData, ClientDataJSON []byte
}

// NewStamp signs act with signer. An act without appliance id, method or time is refused.
func NewStamp(signer Signer, act Act) (Stamp, error) {
	switch {
	case act.ApplianceID == "":
		return Stamp{}, errors.New("stamping: no appliance id; a stamp binds to one appliance")
	case !strings.HasPrefix(act.Method, "/"):
		return Stamp{}, errors.New("stamping: the method must be the full gRPC method, such as /sigil.v1.WalletService/GetWallet")
	case act.IssuedAt.UnixMilli() < 1:
		return Stamp{}, errors.New("stamping: no time of issue")
	}
	if err := checkOrganizationID(act.OrganizationID); err != nil {
		return Stamp{}, fmt.Errorf("stamping: %w", err)
	}
	signature, err := signer.Sign(act.Statement())
	if err != nil {
		return Stamp{}, fmt.Errorf("stamping with credential %s: %w", signer.Public().ID(), err)
	}
	return Stamp{
		PublicKey:      signer.Public(),
		Signature:      signature,
		IssuedAt:       time.UnixMilli(act.IssuedAt.UnixMilli()),
		OrganizationID: act.OrganizationID,
	}, nil
}

// stampJSON is the encoded form; the order of members is free when reading.
type stampJSON struct {
	PublicKey      string `json:"publicKey"`
	Scheme         string `json:"scheme"`
	Signature      string `json:"signature"`
	IssuedAt       int64  `json:"issuedAt"`
	OrganizationID string `json:"organizationId"`
	// Of an assertion alone; hex.
	AuthenticatorData string `json:"authenticatorData,omitempty"`
	ClientDataJSON    string `json:"clientDataJson,omitempty"`
}

// Encode returns the stamp as it travels in metadata "sigild-stamp-bin": JSON
// with the members publicKey and signature (lower-case hex), scheme, issuedAt
// (milliseconds since 1970) and organizationId (may be empty).
func (s Stamp) Encode() ([]byte, error) {
	scheme, ok := schemeOf[s.PublicKey.Algorithm]
	if !ok {
		return nil, fmt.Errorf("encoding stamp: unknown algorithm %q", clip(string(s.PublicKey.Algorithm)))
	}
	data, err := json.Marshal(stampJSON{
		PublicKey:      hex.EncodeToString(s.PublicKey.Bytes),
		Scheme:         scheme,
		Signature:      hex.EncodeToString(s.Signature),
		IssuedAt:       s.IssuedAt.UnixMilli(),
		OrganizationID: s.OrganizationID,

		AuthenticatorData: hex.EncodeToString(s.AuthenticatorData),
		ClientDataJSON:    hex.EncodeToString(s.ClientDataJSON),
	})
	if err != nil {
		return nil, fmt.Errorf("encoding stamp: %w", err)
	}
	if len(data) > MaxStampBytes {
		return nil, fmt.Errorf("encoding stamp: %d bytes, at most %d are read", len(data), MaxStampBytes)
	}
	return data, nil
}

// ParseStamp reads an encoded stamp. Every member must be there once, and no
// other: authenticatorData and clientDataJson in that of an assertion, and only
// there. The signature is not checked here.
func ParseStamp(data []byte) (Stamp, error) {
	fields, err := readMembers(data, MaxStampBytes, []string{"publicKey", "scheme", "signature", "issuedAt", "organizationId"},
		[]string{"authenticatorData", "clientDataJson"})
	if err != nil {
		return Stamp{}, fmt.Errorf("reading stamp: %w", err)
	}
	s, err := fields.stamp()
	if err != nil {
		return Stamp{}, fmt.Errorf("reading stamp: %w", err)
	}
	return s, nil
}

func (f flat) stamp() (Stamp, error) {
	scheme, err := f.text("scheme")
	if err != nil {
		return Stamp{}, err
	}
	algorithm, ok := algorithmOf[scheme]
	if !ok {
		return Stamp{}, fmt.Errorf("unknown scheme %q", clip(scheme))
	}
	raw, err := f.hexBytes("publicKey")
	if err != nil {
		return Stamp{}, err
	}
	public, err := ParsePublicKey(algorithm, raw)
	if err != nil {
		return Stamp{}, err
	}
	signature, err := f.hexBytes("signature")
	if err != nil {
		return Stamp{}, err
	}
	if len(signature) == 0 || len(signature) > 72 {
		return Stamp{}, fmt.Errorf("signature has %d bytes, want 1 to 72", len(signature))
	}
	issued, err := f.natural("issuedAt")
	if err != nil {
		return Stamp{}, err
	}
	organization, err := f.text("organizationId")
	if err != nil {
		return Stamp{}, err
	}
	if err := checkOrganizationID(organization); err != nil {
		return Stamp{}, err
	}
	out := Stamp{PublicKey: public, Signature: signature, IssuedAt: time.UnixMilli(issued), OrganizationID: organization}
	for name, to := range map[string]*[]byte{"authenticatorData": &out.AuthenticatorData, "clientDataJson": &out.ClientDataJSON} {
		if _, there := f[name]; there != (algorithm == WebAuthnP256) {
			return Stamp{}, fmt.Errorf("member %q belongs to stamps of scheme %s, and to no others", name, schemeWebAuthn)
		}
		if algorithm != WebAuthnP256 {
			continue
		}
		if *to, err = f.hexBytes(name); err != nil {
			return Stamp{}, err
		}
	}
	return out, nil
}

// checkOrganizationID accepts an id of the appliance's making, or none.
func checkOrganizationID(id string) error {
	if len(id) > 64 {
		return fmt.Errorf("organization id has %d characters, at most 64", len(id))
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return errors.New("organization id has a character outside a-z, 0-9 and _")
		}
	}
	return nil
}

// Fresh says whether the stamp may be taken at now; the error is [ErrStampTime].
func (s Stamp) Fresh(now time.Time) error {
	age := now.Sub(s.IssuedAt)
	switch {
	case age > StampLife:
		return fmt.Errorf("%w: made %d s ago, at most %d s", ErrStampTime, int64(age/time.Second), int64(StampLife/time.Second))
	case age < -StampLead:
		return fmt.Errorf("%w: %d s ahead of this clock, at most %d s", ErrStampTime, int64(-age/time.Second), int64(StampLead/time.Second))
	}
	return nil
}

// Verify checks that the stamp was made for this appliance and method over
// exactly these message bytes. It doesn't judge time ([Stamp.Fresh]) nor whether
// the credential is anybody's. Errors: [ErrSignature] or a key that is refused; a
// stamp of [WebAuthnP256] needs [Stamp.VerifyAs].
func (s Stamp) Verify(applianceID, method string, message []byte) error {
	_, err := s.VerifyAs(nil, applianceID, method, message)
	return err
}

// VerifyAs is Verify for a credential whose relying party is rp, nil for one that
// has none. counter is what an authenticator of [WebAuthnP256] counted.
func (s Stamp) VerifyAs(rp *RelyingParty, applianceID, method string, message []byte) (counter uint32, err error) {
	statement := Act{
		ApplianceID:    applianceID,
		OrganizationID: s.OrganizationID,
		Method:         method,
		IssuedAt:       s.IssuedAt,
		MessageHash:    sha256.Sum256(message),
	}.Statement()
	if s.PublicKey.Algorithm != WebAuthnP256 {
		return 0, s.PublicKey.Verify(statement, s.Signature)
	}
	if rp == nil {
		return 0, ErrSignature
	}
	return rp.Verify(s.PublicKey, statement, Assertion{s.AuthenticatorData, s.ClientDataJSON, s.Signature})
}
