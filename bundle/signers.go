package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/credential"
)

// Signers is the file by which those who sign an organization's bundles name others in
// their place: a quorum of the old ones signs the new ones. It takes a version of the
// same counter as bundles do, so none of either kind can come back.
type Signers struct {
	// ApplianceID and OrganizationID say where it counts, and nowhere else.
	ApplianceID, OrganizationID string
	// Version must be above that of the organization when it is applied; 1 or more.
	Version uint64
	// Quorum is how many of Keys sign a bundle from then on, 1 to their number.
	Quorum int
	// Keys are all that count from then on, 1 to 16, ordered by key.
	Keys []Signer
	// Signatures are the old keys', ordered by key.
	Signatures []Signature
}

// Signer is a new key with its proof of possession, for purpose policy-bundle.
type Signer struct {
	Name  string
	Key   credential.PublicKey
	Proof []byte
}

const (
	signersMagic  = "SGPK"
	signersDomain = "sigild/policy-signers/v1"
)

// IsSigners tells the two kinds of files apart.
func IsSigners(data []byte) bool { return len(data) >= 4 && string(data[:4]) == signersMagic }

func (s *Signers) check() error {
	if err := checkHead(s.ApplianceID, s.OrganizationID, s.Version); err != nil {
		return err
	}
	if len(s.Keys) == 0 || len(s.Keys) > maxSignatures || s.Quorum < 1 || s.Quorum > len(s.Keys) {
		return fmt.Errorf("%d keys and a quorum of %d: 1 to %d keys, and a quorum of 1 to their number", len(s.Keys), s.Quorum, maxSignatures)
	}
	for i, k := range s.Keys {
		if k.Name == "" || len(k.Name) > maxText || len(k.Proof) == 0 || len(k.Proof) > maxText {
			return fmt.Errorf("key %d: name and proof have 1 to %d bytes", i, maxText)
		}
		if i > 0 && compareKeys(s.Keys[i-1].Key, k.Key) >= 0 {
			return fmt.Errorf("key %d is out of order, or there twice", i)
		}
	}
	return checkSignatures(s.Signatures)
}

// Sort puts the keys in their one order.
func (s *Signers) Sort() {
	slices.SortFunc(s.Keys, func(x, y Signer) int { return compareKeys(x.Key, y.Key) })
}

// body is what is signed: everything but the signatures.
func (s *Signers) body() []byte {
	out := putHead(signersMagic, s.ApplianceID, s.OrganizationID, s.Version)
	out = binary.BigEndian.AppendUint16(out, uint16(s.Quorum))
	out = binary.BigEndian.AppendUint16(out, uint16(len(s.Keys)))
	for _, k := range s.Keys {
		out = put(put(put(put(out, []byte(k.Name)), []byte(k.Key.Algorithm)), k.Key.Bytes), k.Proof)
	}
	return out
}

func (s *Signers) statement() []byte { return append(put(nil, []byte(signersDomain)), s.body()...) }

// Encode writes the one form of the file.
func (s *Signers) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("writing signers: %w", err)
	}
	return putSignatures(s.body(), s.Signatures), nil
}

// ParseSigners reads exactly what Encode writes. It verifies no signature or proof.
func ParseSigners(data []byte) (*Signers, error) {
	s, err := parseSigners(data)
	if err != nil {
		return nil, fmt.Errorf("reading signers: %w", err)
	}
	return s, nil
}

func parseSigners(data []byte) (*Signers, error) {
	r, err := readHead(signersMagic, data)
	if err != nil {
		return nil, err
	}
	s := &Signers{ApplianceID: string(r.field()), OrganizationID: string(r.field()), Version: r.number(8), Quorum: int(r.number(2))}
	for n := r.number(2); n > 0 && !r.short; n-- {
		name, algorithm, public, proof := string(r.field()), r.field(), r.field(), r.field()
		if r.short {
			break
		}
		key, err := credential.ParsePublicKey(credential.Algorithm(algorithm), public)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(s.Keys), err)
		}
		s.Keys = append(s.Keys, Signer{name, key, proof})
	}
	if s.Signatures, err = r.signatures(); err != nil {
		return nil, err
	}
	if r.short || len(r.rest) > 0 {
		return nil, errors.New("cut, or longer than it says")
	}
	return s, s.check()
}

// Sign adds an old key's signature, in place of an earlier one of it.
func (s *Signers) Sign(signer credential.Signer) error {
	err := s.check()
	if err == nil {
		s.Signatures, err = sign(s.Signatures, s.statement(), signer)
	}
	if err != nil {
		return fmt.Errorf("signing signers: %w", err)
	}
	return nil
}

// Verify is [Bundle.Verify] for the old keys.
func (s *Signers) Verify(keys []credential.PublicKey, quorum int) ([]credential.PublicKey, error) {
	signed, err := verify(s.Signatures, s.statement(), keys, quorum)
	if err != nil {
		return nil, fmt.Errorf("verifying signers: %w", err)
	}
	return signed, nil
}
