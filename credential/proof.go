package credential

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Purpose says what a credential is registered as; a proof made for one purpose
// is no proof for another.
type Purpose string

// The purposes, a closed list.
const (
	// ForOperator: operates the appliance.
	ForOperator Purpose = "operator"
	// ForOrganizationRoot: member of an organization's root.
	ForOrganizationRoot Purpose = "organization-root"
	// ForUser: an end user's credential.
	ForUser Purpose = "user"
	// ForDelegatedUser: a delegated user's credential, which signs and administers nothing.
	ForDelegatedUser Purpose = "delegated-user"
	// ForPolicyBundle: signs the bundles of an organization's policy authority.
	ForPolicyBundle Purpose = "policy-bundle"
	// ForPCRApproval: approves boot states of a host with a TPM.
	ForPCRApproval Purpose = "pcr-approval"
	// ForWitness says that a vendor gave a challenge out for a request (docs/formats.md).
	ForWitness Purpose = "witness"
)

func (p Purpose) check() error {
	switch p {
	case ForOperator, ForOrganizationRoot, ForUser, ForDelegatedUser, ForPolicyBundle, ForPCRApproval, ForWitness:
		return nil
	}
	return fmt.Errorf("unknown purpose %q", clip(string(p)))
}

// proofStatement is what a proof of possession signs. Each part follows its
// length as u32 big-endian.
func proofStatement(purpose Purpose, key PublicKey, name string) []byte {
	return lengthPrefixed([]byte("sigild/proof/v1"), []byte(purpose), []byte(key.Algorithm), key.Bytes, []byte(name))
}

// NewProof proves that signer holds the private half of its key, under the name
// and for the purpose given.
func NewProof(signer Signer, purpose Purpose, name string) ([]byte, error) {
	if err := purpose.check(); err != nil {
		return nil, fmt.Errorf("proving possession: %w", err)
	}
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("proving possession: %w", err)
	}
	proof, err := signer.Sign(proofStatement(purpose, signer.Public(), name))
	if err != nil {
		return nil, fmt.Errorf("proving possession of credential %s: %w", signer.Public().ID(), err)
	}
	return proof, nil
}

// VerifyProof checks a proof of possession. Errors: [ErrSignature], or what is
// wrong with purpose, name or key.
func VerifyProof(key PublicKey, purpose Purpose, name string, proof []byte) error {
	return VerifyProofAs(key, nil, purpose, name, proof)
}

// VerifyProofAs is VerifyProof for a key that may be of [WebAuthnP256]: the proof
// is then an encoded [Assertion] for its relying party.
func VerifyProofAs(key PublicKey, rp *RelyingParty, purpose Purpose, name string, proof []byte) error {
	if err := purpose.check(); err != nil {
		return fmt.Errorf("verifying proof of possession: %w", err)
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("verifying proof of possession: %w", err)
	}
	if err := key.VerifyAs(rp, proofStatement(purpose, key, name), proof); err != nil {
		return fmt.Errorf("verifying proof of possession of %q: %w", name, err)
	}
	return nil
}

// maxPublicFile is the largest public file that is read, in bytes.
const maxPublicFile = 16 << 10

// PublicFile is the file that a holder of a key hands over to be registered:
// `sigilctl init --operator FILE` takes it. It holds no secret.
type PublicFile struct {
	// Purpose it was made for.
	Purpose Purpose
	// Name for people, 1 to 64 printable ASCII characters.
	Name string
	// Key to be registered.
	Key PublicKey
	// Proof of possession, see [NewProof].
	Proof []byte
	// Party is what the credential was made for, of [WebAuthnP256]; nil for others.
	Party *RelyingParty
}

// NewPublicFile makes a public file with its proof.
func NewPublicFile(signer Signer, purpose Purpose, name string) (PublicFile, error) {
	proof, err := NewProof(signer, purpose, name)
	if err != nil {
		return PublicFile{}, err
	}
	return PublicFile{Purpose: purpose, Name: name, Key: signer.Public(), Proof: proof}, nil
}

type publicFileJSON struct {
	Version   int       `json:"version"`
	Purpose   Purpose   `json:"purpose"`
	Name      string    `json:"name"`
	Algorithm Algorithm `json:"algorithm"`
	PublicKey string    `json:"public_key"`
	Proof     string    `json:"proof"`
	// Of version 2, which WebAuthn's have; Origins with a space between two.
	CredentialID string `json:"credential_id,omitempty"`
	RelyingParty string `json:"rp_id,omitempty"`
	Origins      string `json:"origins,omitempty"`
}

// Encode returns the file's content: JSON of version 1, of WebAuthn's version 2, indented,
// with a final newline; public_key, proof and credential_id are lower-case hex.
func (f PublicFile) Encode() ([]byte, error) {
	form := publicFileJSON{
		Version:   1,
		Purpose:   f.Purpose,
		Name:      f.Name,
		Algorithm: f.Key.Algorithm,
		PublicKey: hex.EncodeToString(f.Key.Bytes),
		Proof:     hex.EncodeToString(f.Proof),
	}
	if f.Party != nil {
		form.Version, form.CredentialID, form.RelyingParty, form.Origins = 2, hex.EncodeToString(f.Party.CredentialID), f.Party.ID, strings.Join(f.Party.Origins, " ")
	}
	data, err := json.MarshalIndent(form, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding public file: %w", err)
	}
	return append(data, '\n'), nil
}

// ParsePublicFile reads a public file strictly and verifies its proof. The
// caller must still compare Purpose with what it registers.
func ParsePublicFile(data []byte) (PublicFile, error) {
	fields, err := readMembers(data, maxPublicFile, []string{"version", "purpose", "name", "algorithm", "public_key", "proof"}, partyMembers)
	if err != nil {
		return PublicFile{}, fmt.Errorf("reading public file: %w", err)
	}
	f, err := fields.publicFile()
	if err != nil {
		return PublicFile{}, fmt.Errorf("reading public file: %w", err)
	}
	if err := VerifyProofAs(f.Key, f.Party, f.Purpose, f.Name, f.Proof); err != nil {
		return PublicFile{}, fmt.Errorf("reading public file: %w", err)
	}
	return f, nil
}

func (f flat) publicFile() (PublicFile, error) {
	version, err := f.natural("version")
	if err != nil {
		return PublicFile{}, err
	}
	if version != 1 && version != 2 {
		return PublicFile{}, fmt.Errorf("version %d is not known here, want 1 or 2", version)
	}
	purpose, err := f.text("purpose")
	if err != nil {
		return PublicFile{}, err
	}
	name, err := f.text("name")
	if err != nil {
		return PublicFile{}, err
	}
	algorithm, err := f.text("algorithm")
	if err != nil {
		return PublicFile{}, err
	}
	raw, err := f.hexBytes("public_key")
	if err != nil {
		return PublicFile{}, err
	}
	key, err := ParsePublicKey(Algorithm(algorithm), raw)
	if err != nil {
		return PublicFile{}, err
	}
	proof, err := f.hexBytes("proof")
	if err != nil {
		return PublicFile{}, err
	}
	party, err := f.party(version, key.Algorithm)
	return PublicFile{Purpose: Purpose(purpose), Name: name, Key: key, Proof: proof, Party: party}, err
}

// partyMembers are those of version 2, all of them or none.
var partyMembers = []string{"credential_id", "rp_id", "origins"}

// party reads the relying party, which files of WebAuthn have and no others.
func (f flat) party(version int64, algorithm Algorithm) (*RelyingParty, error) {
	have := 0
	for _, name := range partyMembers {
		if _, ok := f[name]; ok {
			have++
		}
	}
	webauthn := algorithm == WebAuthnP256
	if webauthn != (version == 2) || webauthn && have < len(partyMembers) || !webauthn && have > 0 {
		return nil, errors.New("files of WebAuthn credentials are of version 2 with credential_id, rp_id and origins, and no others are")
	}
	if !webauthn {
		return nil, nil
	}
	id, err := f.hexBytes("credential_id")
	if err != nil {
		return nil, err
	}
	rp, err := f.text("rp_id")
	if err != nil {
		return nil, err
	}
	origins, err := f.text("origins")
	if err != nil {
		return nil, err
	}
	party := &RelyingParty{CredentialID: id, ID: rp, Origins: strings.Split(origins, " ")}
	return party, party.Check()
}
