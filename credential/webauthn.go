package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// WebAuthn (Level 3, section 7.2) as this appliance takes it: a passkey or a
// security key signs an assertion whose challenge is SHA-256 of what would be
// signed by any other credential. What is checked, all of it, every time:
//
//   - clientDataJSON: type webauthn.get, the challenge, an origin of the list,
//     not from inside a frame of another origin;
//   - authenticatorData: the hash of the relying party's id, user present and user
//     verified, no attested key, no extensions, a backup state that can be;
//   - the signature, ECDSA over authenticatorData ‖ SHA-256(clientDataJSON).
//
// The sign counter is given back; whoever keeps the last one refuses what does not
// grow. Algorithms but ES256 are not taken: it is what every authenticator has.

// Bounds of what is read.
const (
	maxClientData     = 1024
	maxAssertion      = 4096
	authenticatorSize = 37 // rpIdHash ‖ flags ‖ counter; we take no extensions
	// MaxOrigins of one credential.
	MaxOrigins      = 8
	maxCredentialID = 1023
)

// RelyingParty is what a WebAuthn credential was made for.
type RelyingParty struct {
	// CredentialID is the authenticator's name for the credential, 1 to 1023 bytes.
	CredentialID []byte `json:"credential_id"`
	// ID is the relying party's id, a domain name in lower case: "wallet.example".
	ID string `json:"rp_id"`
	// Origins are those a page may have that asks for an assertion, 1 to [MaxOrigins]:
	// "https://wallet.example". Compared byte by byte.
	Origins []string `json:"origins"`
}

// Check refuses a relying party that no browser would have.
func (rp RelyingParty) Check() error {
	if n := len(rp.CredentialID); n < 1 || n > maxCredentialID {
		return fmt.Errorf("credential id has %d bytes, want 1 to %d", n, maxCredentialID)
	}
	if !domain(rp.ID) {
		return fmt.Errorf("relying party id %q is no domain name in lower case", clip(rp.ID))
	}
	if n := len(rp.Origins); n < 1 || n > MaxOrigins {
		return fmt.Errorf("%d origins, want 1 to %d", n, MaxOrigins)
	}
	for _, o := range rp.Origins {
		u, err := url.Parse(o)
		if err != nil || u.Scheme+"://"+u.Host != o || u.Scheme != "https" && u.Hostname() != "localhost" {
			return fmt.Errorf("origin %q is not https:// and a host", clip(o))
		}
		if h := u.Hostname(); h != rp.ID && !strings.HasSuffix(h, "."+rp.ID) {
			return fmt.Errorf("origin %q does not belong to relying party %q", clip(o), clip(rp.ID))
		}
	}
	return nil
}

func domain(s string) bool {
	bad := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' }
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, bad) && s[0] != '.' && s[len(s)-1] != '.'
}

// Assertion is what an authenticator answers.
type Assertion struct {
	AuthenticatorData, ClientDataJSON []byte
	// Signature is DER.
	Signature []byte
}

type assertionJSON struct {
	AuthenticatorData string `json:"authenticatorData"`
	ClientDataJSON    string `json:"clientDataJson"`
	Signature         string `json:"signature"`
}

// Encode is the form of an assertion where another credential has a signature: JSON
// with three members in lower-case hex.
func (a Assertion) Encode() ([]byte, error) {
	b, err := json.Marshal(assertionJSON{hex.EncodeToString(a.AuthenticatorData), hex.EncodeToString(a.ClientDataJSON), hex.EncodeToString(a.Signature)})
	if err != nil {
		return nil, fmt.Errorf("encoding assertion: %w", err)
	}
	return b, nil
}

// ParseAssertion reads what Encode makes.
func ParseAssertion(data []byte) (a Assertion, err error) {
	f, err := readFlat(data, maxAssertion, "authenticatorData", "clientDataJson", "signature")
	if err == nil {
		a.AuthenticatorData, err = f.hexBytes("authenticatorData")
	}
	if err == nil {
		a.ClientDataJSON, err = f.hexBytes("clientDataJson")
	}
	if err == nil {
		a.Signature, err = f.hexBytes("signature")
	}
	if err != nil {
		return Assertion{}, fmt.Errorf("reading assertion: %w", err)
	}
	return a, nil
}

// Flags of authenticatorData (WebAuthn section 6.1).
const (
	flagUserPresent    = 1 << 0
	flagUserVerified   = 1 << 2
	flagBackupEligible = 1 << 3
	flagBackedUp       = 1 << 4
	flagsTaken         = flagUserPresent | flagUserVerified | flagBackupEligible | flagBackedUp
)

// Verify checks an assertion over message with a key of [WebAuthnP256] and returns
// the authenticator's sign counter; 0 is that of one which does not count. Errors:
// [ErrSignature], or what is wrong with the rest.
func (rp RelyingParty) Verify(key PublicKey, message []byte, a Assertion) (counter uint32, err error) {
	if key.Algorithm != WebAuthnP256 {
		return 0, fmt.Errorf("verifying assertion: the key is of algorithm %q", clip(string(key.Algorithm)))
	}
	pub, err := pointOfP256(key.Bytes)
	if err != nil {
		return 0, err
	}
	want := sha256.Sum256(message)
	if err := rp.checkClientData(a.ClientDataJSON, base64.RawURLEncoding.EncodeToString(want[:])); err != nil {
		return 0, fmt.Errorf("verifying assertion: %w", err)
	}
	data := a.AuthenticatorData
	if len(data) != authenticatorSize {
		return 0, fmt.Errorf("verifying assertion: authenticatorData has %d bytes, want %d: no extensions are taken", len(data), authenticatorSize)
	}
	if id := sha256.Sum256([]byte(rp.ID)); !bytes.Equal(id[:], data[:32]) {
		return 0, errors.New("verifying assertion: it is for another relying party")
	}
	if err := checkFlags(data[32]); err != nil {
		return 0, fmt.Errorf("verifying assertion: %w", err)
	}
	sum := sha256.Sum256(a.ClientDataJSON)
	digest := sha256.Sum256(append(bytes.Clone(data), sum[:]...))
	if !ecdsa.VerifyASN1(pub, digest[:], a.Signature) {
		return 0, ErrSignature
	}
	return binary.BigEndian.Uint32(data[33:]), nil
}

// checkFlags refuses what an answer of ours never says.
func checkFlags(flags byte) error {
	switch {
	case flags&flagUserPresent == 0:
		return errors.New("the user was not present")
	case flags&flagUserVerified == 0:
		return errors.New("the user was not verified")
	case flags&^flagsTaken != 0:
		return errors.New("a flag that no answer of ours has")
	case flags&flagBackedUp != 0 && flags&flagBackupEligible == 0:
		return errors.New("backed up without being eligible")
	}
	return nil
}

func (rp RelyingParty) checkClientData(data []byte, challenge string) error {
	page, err := readClientData(data)
	switch {
	case err != nil:
		return err
	case page.kind != "webauthn.get":
		return errors.New("clientDataJSON is of no assertion")
	case page.challenge != challenge:
		return ErrSignature // made over something else
	}
	return rp.asked(page)
}

// asked refuses a page that this credential was not made for.
func (rp RelyingParty) asked(page clientData) error {
	switch {
	case !slices.Contains(rp.Origins, page.origin):
		return fmt.Errorf("origin %q is not of this credential", clip(page.origin))
	case page.crossOrigin != "" && page.crossOrigin != "false":
		return errors.New("it was asked for from inside a frame of another origin")
	case page.topOrigin:
		return errors.New("it was asked for from inside a frame")
	}
	return nil
}

// clientData are the members of clientDataJSON that count.
type clientData struct {
	kind, challenge, origin string
	// crossOrigin is its JSON, "" when it is not there.
	crossOrigin string
	topOrigin   bool
}

// readClientData reads the members that count, each at most once. Others may be
// there: browsers add some to keep readers from comparing texts.
func readClientData(data []byte) (clientData, error) {
	var none clientData
	if len(data) > maxClientData || !utf8.Valid(data) || !json.Valid(data) {
		return none, fmt.Errorf("clientDataJSON is not JSON in UTF-8 of at most %d bytes", maxClientData)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return none, errors.New("clientDataJSON is no object")
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return none, errors.New("clientDataJSON is no object")
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return none, errors.New("clientDataJSON is no object")
		}
		if _, twice := members[name]; twice {
			return none, fmt.Errorf("clientDataJSON has member %q twice", clip(name))
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return none, errors.New("clientDataJSON is no object")
	}
	if _, err := dec.Token(); err != io.EOF {
		return none, errors.New("something follows clientDataJSON")
	}
	text := func(name string) string {
		var s string
		if json.Unmarshal(members[name], &s) != nil {
			return ""
		}
		return s
	}
	return clientData{
		kind: text("type"), challenge: text("challenge"), origin: text("origin"),
		crossOrigin: string(members["crossOrigin"]), topOrigin: members["topOrigin"] != nil,
	}, nil
}

// VerifyAs checks a signature over message in the form that the key's algorithm
// has: an encoded [Assertion] for [WebAuthnP256], with its relying party.
func (k PublicKey) VerifyAs(rp *RelyingParty, message, signature []byte) error {
	if k.Algorithm != WebAuthnP256 {
		return k.Verify(message, signature)
	}
	if rp == nil {
		return errors.New("verifying assertion: no relying party")
	}
	if err := rp.Check(); err != nil {
		return fmt.Errorf("verifying assertion: %w", err)
	}
	a, err := ParseAssertion(signature)
	if err != nil {
		return err
	}
	_, err = rp.Verify(k, message, a)
	return err
}
