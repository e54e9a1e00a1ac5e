package tpm

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Challenge is a secret that only the TPM with both the endorsement key and the AK
// of some evidence can open (TPM2_ActivateCredential, Part 1 §24): who answers it with
// the secret has shown that the AK is in the TPM that the endorsement key names.
type Challenge struct {
	Credential []byte // what TPM2_ActivateCredential takes as credentialBlob
	Seed       []byte // and as secret
}

// challengeLen is the size of the secret in bytes.
const challengeLen = 32

// NewChallenge makes one. The caller keeps the secret to itself until the answer is
// there.
func NewChallenge(e Evidence) (c Challenge, secret []byte, err error) {
	if _, err := public(e.EK, tpm2.ECCEKTemplate); err != nil {
		return Challenge{}, nil, fmt.Errorf("%w: the endorsement key: %w", ErrEvidence, err)
	}
	if _, err := public(e.AK, attestTemplate); err != nil {
		return Challenge{}, nil, fmt.Errorf("%w: the attestation key: %w", ErrEvidence, err)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](e.EK)
	if err != nil {
		return Challenge{}, nil, fmt.Errorf("reading the endorsement key: %w", err)
	}
	ek, err := tpm2.ImportEncapsulationKey(area)
	if err != nil {
		return Challenge{}, nil, fmt.Errorf("reading the endorsement key: %w", err)
	}
	secret = make([]byte, challengeLen)
	rand.Read(secret) // never fails since Go 1.24
	c.Credential, c.Seed, err = tpm2.CreateCredential(rand.Reader, ek, nameOf(e.AK), secret)
	if err != nil {
		return Challenge{}, nil, fmt.Errorf("making a challenge: %w", err)
	}
	return c, secret, nil
}

// challengeFile is the JSON of a Challenge.
type challengeFile struct {
	Version    int    `json:"version"`
	Credential string `json:"credential"`
	Seed       string `json:"seed"`
}

// Encode is the file of c.
func (c Challenge) Encode() ([]byte, error) {
	return encodeFile(challengeFile{evidenceVersion, hex.EncodeToString(c.Credential), hex.EncodeToString(c.Seed)})
}

// ParseChallenge accepts only the bytes that [Challenge.Encode] gives.
func ParseChallenge(b []byte) (Challenge, error) {
	var f challengeFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version != evidenceVersion {
		return Challenge{}, fmt.Errorf("reading a challenge: not one of version %d", evidenceVersion)
	}
	credential, err := hex.DecodeString(f.Credential)
	seed, err2 := hex.DecodeString(f.Seed)
	c := Challenge{credential, seed}
	canonical, err3 := c.Encode()
	if err := errors.Join(err, err2, err3); err != nil || !bytes.Equal(canonical, b) || len(credential) > 256 || len(seed) > 256 {
		return Challenge{}, errors.New("reading a challenge: not in canonical form")
	}
	return c, nil
}
