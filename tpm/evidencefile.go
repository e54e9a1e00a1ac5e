package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const (
	evidenceVersion = 1
	maxEvidence     = 128 << 10 // bytes of a file
)

// evidenceFile and keyFile are the JSON.
type evidenceFile struct {
	Version        int               `json:"version"`
	Nonce          string            `json:"nonce"`
	EK             string            `json:"ek_public"`
	EKCertificate  string            `json:"ek_certificate"`
	AK             string            `json:"ak_public"`
	PCRs           map[string]string `json:"pcrs"`
	Quote          string            `json:"quote"`
	QuoteSignature string            `json:"quote_signature"`
	Keys           []keyFile         `json:"keys"`
}

type keyFile struct {
	Public    string `json:"public"`
	Certify   string `json:"certify"`
	Signature string `json:"signature"`
}

// Encode is the file of e.
func (e Evidence) Encode() ([]byte, error) {
	f := evidenceFile{
		Version: evidenceVersion, Nonce: hex.EncodeToString(e.Nonce), EK: hex.EncodeToString(e.EK), EKCertificate: hex.EncodeToString(e.EKCertificate),
		AK: hex.EncodeToString(e.AK), PCRs: e.PCRs.text(), Quote: hex.EncodeToString(e.Quote.Statement), QuoteSignature: hex.EncodeToString(e.Quote.Signature),
		Keys: []keyFile{},
	}
	for _, k := range e.Keys {
		f.Keys = append(f.Keys, keyFile{hex.EncodeToString(k.Public), hex.EncodeToString(k.Statement), hex.EncodeToString(k.Signature)})
	}
	return encodeFile(f)
}

// encodeFile is the one form of our JSON files.
func encodeFile(f any) ([]byte, error) {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding %T: %w", f, err)
	}
	return append(b, '\n'), nil
}

// text is how registers lie in a file.
func (p PCRs) text() map[string]string {
	out := map[string]string{}
	for n, v := range p {
		out[strconv.Itoa(n)] = hex.EncodeToString(v[:])
	}
	return out
}

// parsePCRs reads what text wrote; it leaves the form to whoever compares the file.
func parsePCRs(text map[string]string) (PCRs, error) {
	out := PCRs{}
	for index, value := range text {
		n, err := strconv.Atoi(index)
		if err != nil {
			return nil, fmt.Errorf("pcrs: %w", err)
		}
		v, err := hex.DecodeString(value)
		if err != nil || len(v) != sha256.Size {
			return nil, fmt.Errorf("pcrs: the value of %d is not the hex of %d bytes", n, sha256.Size)
		}
		out[n] = [sha256.Size]byte(v)
	}
	return out, nil
}

// ParseEvidence accepts only the bytes that [Evidence.Encode] gives. It checks no
// signature.
func ParseEvidence(b []byte) (Evidence, error) {
	e, err := parseEvidence(b)
	if err != nil {
		return Evidence{}, fmt.Errorf("%w: reading it: %w", ErrEvidence, err)
	}
	return e, nil
}

func parseEvidence(b []byte) (e Evidence, err error) {
	if len(b) > maxEvidence {
		return Evidence{}, fmt.Errorf("more than %d bytes", maxEvidence)
	}
	var f evidenceFile
	if err := json.Unmarshal(b, &f); err != nil {
		return Evidence{}, err
	}
	if f.Version != evidenceVersion {
		return Evidence{}, fmt.Errorf("version %d, want %d", f.Version, evidenceVersion)
	}
	if len(f.Keys) > maxKeys {
		return Evidence{}, fmt.Errorf("%d keys, at most %d are read", len(f.Keys), maxKeys)
	}
	read := func(text string) (out []byte) {
		out, e := hex.DecodeString(text)
		err = errors.Join(err, e)
		return out
	}
	e = Evidence{
		Nonce: read(f.Nonce), EK: read(f.EK), EKCertificate: read(f.EKCertificate), AK: read(f.AK),
		Quote: Signed{read(f.Quote), read(f.QuoteSignature)},
	}
	for _, k := range f.Keys {
		e.Keys = append(e.Keys, CertifiedKey{read(k.Public), Signed{read(k.Certify), read(k.Signature)}})
	}
	if err != nil {
		return Evidence{}, err
	}
	if e.PCRs, err = parsePCRs(f.PCRs); err != nil {
		return Evidence{}, err
	}
	canonical, err := e.Encode()
	if err != nil {
		return Evidence{}, err
	}
	if !bytes.Equal(canonical, b) {
		return Evidence{}, errors.New("not in canonical form")
	}
	return e, nil
}
