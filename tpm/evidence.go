package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// Evidence is what a host hands to whoever wants to know what it booted and where its
// keys are. It proves nothing before [Evidence.Verify], and that proves a TPM's word
// only once the AK is known to be in one: by a challenge, or pinned from an earlier
// one. As a file it is JSON of one form, as an [Approval] is.
type Evidence struct {
	Nonce         []byte // the verifier's
	EK            []byte // TPMT_PUBLIC of the endorsement key, of the TCG's P-256 template
	EKCertificate []byte // its maker's, X.509 DER; may be empty
	AK            []byte // TPMT_PUBLIC of the attestation key
	PCRs          PCRs
	Quote         Signed
	Keys          []CertifiedKey // the SRK first
}

// Signed is a TPMS_ATTEST and the AK's TPMT_SIGNATURE over it.
type Signed struct{ Statement, Signature []byte }

// CertifiedKey is a key's TPMT_PUBLIC, and the AK's word that it is in this TPM.
type CertifiedKey struct {
	Public []byte
	Signed
}

// ErrEvidence: evidence does not hold.
var ErrEvidence = errors.New("the evidence does not hold")

// errQuotedOthers: the quote is good, but not of the values beside it.
var errQuotedOthers = fmt.Errorf("%w: the quote is of other PCR values", ErrEvidence)

const (
	maxKeys    = 32
	attestText = "sigild/attest/v1"
)

// A Use is what a key of ours is for.
type Use string

// The uses, a closed list.
const (
	UseStorage    Use = "storage root"
	UseCheckpoint Use = "checkpoint"
	UseDelivery   Use = "delivery"
)

// uses gives the auth value of those that lie at persistent handles.
var uses = map[Use]role{UseCheckpoint: roleSign, UseDelivery: roleDecrypt}

// useOf tells by the whole of its public area what a key is for, "" if it is none of
// ours.
func useOf(public tpm2.TPMTPublic) Use {
	switch {
	case likeTemplate(public, tpm2.ECCSRKTemplate):
		return UseStorage
	case likeTemplate(public, checkpointTemplate):
		return UseCheckpoint
	case likeTemplate(public, decryptTemplate):
		return UseDelivery
	}
	return ""
}

func checkNonce(nonce []byte) error {
	if len(nonce) < 16 || len(nonce) > 64 {
		return fmt.Errorf("the nonce has %d bytes, want 16 to 64", len(nonce))
	}
	return nil
}

// qualifying is what the TPM signs beside its own words: nobody's nonce for another
// purpose fits here.
func qualifying(nonce []byte) []byte { return sum256(append([]byte(attestText), nonce...)) }

// A Statement is what evidence says once it holds.
type Statement struct {
	AKName, EKName []byte // TPM Names
	PCRs           PCRs
	// Clock is how long the TPM has been powered since it was cleared, Resets how often it was
	// powered on since, Restarts how often it was suspended.
	Clock            time.Duration
	Resets, Restarts uint32
	Firmware         uint64 // version, as its maker counts
	Keys             []StatedKey
}

// StatedKey is a key that is in the TPM and never was elsewhere.
type StatedKey struct {
	Use Use
	Ref seal.KeyRef
	// Public is an *ecdsa.PublicKey or an *rsa.PublicKey.
	Public any
}

// Verify checks all signatures and structures against the nonce that was asked for.
// It does not tell whose the AK is: see [Statement], [NewChallenge], [Evidence.VerifyEK].
// Errors wrap [ErrEvidence].
func (e Evidence) Verify(nonce []byte) (s Statement, err error) {
	defer func() {
		if v := recover(); v != nil { // go-tpm met bytes it was not written for
			s, err = Statement{}, fmt.Errorf("%w: it can't be read", ErrEvidence)
		}
	}()
	if subtle.ConstantTimeCompare(nonce, e.Nonce) != 1 {
		return Statement{}, fmt.Errorf("%w: it answers another nonce", ErrEvidence)
	}
	if _, err := public(e.EK, tpm2.ECCEKTemplate); err != nil {
		return Statement{}, fmt.Errorf("%w: the endorsement key: %w", ErrEvidence, err)
	}
	attest, err := e.checkQuote(nonce)
	if err != nil {
		return Statement{}, err
	}
	s = Statement{
		AKName: nameOf(e.AK), EKName: nameOf(e.EK), PCRs: e.PCRs, Clock: time.Duration(attest.ClockInfo.Clock) * time.Millisecond,
		Resets: attest.ClockInfo.ResetCount, Restarts: attest.ClockInfo.RestartCount, Firmware: attest.FirmwareVersion,
	}
	for i, k := range e.Keys {
		stated, err := e.checkKey(nonce, k)
		if err != nil {
			return Statement{}, fmt.Errorf("key %d: %w", i+1, err)
		}
		s.Keys = append(s.Keys, stated)
	}
	return s, nil
}

// checkQuote checks the quote and that it is of the values beside it.
func (e Evidence) checkQuote(nonce []byte) (*tpm2.TPMSAttest, error) {
	if err := checkIndexes(e.PCRs.Indexes()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	attest, err := e.checkSigned(e.Quote, nonce)
	if err != nil {
		return nil, fmt.Errorf("the quote: %w", err)
	}
	q, err := attest.Attested.Quote()
	if attest.Type != tpm2.TPMSTAttestQuote || err != nil {
		return nil, fmt.Errorf("%w: what is signed is no quote", ErrEvidence)
	}
	if len(q.PCRSelect.PCRSelections) != 1 || !slices.Equal(selected(q.PCRSelect), e.PCRs.Indexes()) {
		return nil, fmt.Errorf("%w: the quote is of other PCRs", ErrEvidence)
	}
	if !bytes.Equal(q.PCRDigest.Buffer, e.PCRs.digest()) {
		return nil, errQuotedOthers
	}
	return attest, nil
}

// checkKey checks the AK's word for a key, and what the key is.
func (e Evidence) checkKey(nonce []byte, k CertifiedKey) (StatedKey, error) {
	attest, err := e.checkSigned(k.Signed, nonce)
	if err != nil {
		return StatedKey{}, err
	}
	c, err := attest.Attested.Certify()
	if attest.Type != tpm2.TPMSTAttestCertify || err != nil {
		return StatedKey{}, fmt.Errorf("%w: what is signed is no certificate", ErrEvidence)
	}
	if !bytes.Equal(c.Name.Buffer, nameOf(k.Public)) {
		return StatedKey{}, fmt.Errorf("%w: the certificate is another key's", ErrEvidence)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](k.Public)
	if err != nil || !bytes.Equal(tpm2.Marshal(*area), k.Public) {
		return StatedKey{}, fmt.Errorf("%w: its public area can't be read", ErrEvidence)
	}
	out := StatedKey{Use: useOf(*area), Ref: makeRef(nameOf(k.Public))}
	switch out.Use {
	case UseStorage, UseCheckpoint:
		out.Public, err = point(*area)
	case UseDelivery:
		out.Public, err = modulus(*area)
	default:
		err = errors.New("it is not a key as sigild makes them")
	}
	if err != nil {
		return StatedKey{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	return out, nil
}

// public reads a public area that must be of a template.
func public(b []byte, template tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil || !bytes.Equal(tpm2.Marshal(*area), b) {
		return nil, errors.New("its public area can't be read")
	}
	if !likeTemplate(*area, template) {
		return nil, errors.New("it has not the form that it must have")
	}
	return point(*area)
}

// checkSigned checks the AK's form, its signature, and that the TPM made what it
// signed, for this nonce.
func (e Evidence) checkSigned(s Signed, nonce []byte) (*tpm2.TPMSAttest, error) {
	ak, err := public(e.AK, attestTemplate)
	if err != nil {
		return nil, fmt.Errorf("%w: the attestation key: %w", ErrEvidence, err)
	}
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](s.Signature)
	if err != nil || !bytes.Equal(tpm2.Marshal(*sig), s.Signature) {
		return nil, fmt.Errorf("%w: its signature can't be read", ErrEvidence)
	}
	ecc, err := sig.Signature.ECDSA()
	if err != nil || sig.SigAlg != tpm2.TPMAlgECDSA || ecc.Hash != tpm2.TPMAlgSHA256 {
		return nil, fmt.Errorf("%w: its signature is not ECDSA with SHA-256", ErrEvidence)
	}
	if !ecdsa.Verify(ak, sum256(s.Statement), new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)) {
		return nil, fmt.Errorf("%w: its signature is not the attestation key's", ErrEvidence)
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](s.Statement)
	if err != nil || !bytes.Equal(tpm2.Marshal(*attest), s.Statement) {
		return nil, fmt.Errorf("%w: what is signed can't be read", ErrEvidence)
	}
	if attest.Magic != tpm2.TPMGeneratedValue {
		return nil, fmt.Errorf("%w: what is signed was not made by the TPM", ErrEvidence)
	}
	if !bytes.Equal(attest.ExtraData.Buffer, qualifying(nonce)) {
		return nil, fmt.Errorf("%w: what is signed answers another nonce", ErrEvidence)
	}
	return attest, nil
}

// oidSubjectAltName is critical in the certificates of endorsement keys, whose
// subject is empty, and of a form that crypto/x509 leaves to its caller.
var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// VerifyEK checks that a maker under roots made the TPM: its certificate is of this
// endorsement key. Errors wrap [ErrEvidence].
func (e Evidence) VerifyEK(roots *x509.CertPool, now time.Time) error {
	if len(e.EKCertificate) == 0 {
		return fmt.Errorf("%w: the TPM has no certificate of its endorsement key", ErrEvidence)
	}
	cert, err := x509.ParseCertificate(e.EKCertificate)
	if err != nil {
		return fmt.Errorf("%w: the certificate of the endorsement key: %w", ErrEvidence, err)
	}
	ek, err := public(e.EK, tpm2.ECCEKTemplate)
	if err != nil {
		return fmt.Errorf("%w: the endorsement key: %w", ErrEvidence, err)
	}
	if !ek.Equal(cert.PublicKey) {
		return fmt.Errorf("%w: the certificate is another endorsement key's", ErrEvidence)
	}
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, oidSubjectAltName.Equal)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("%w: the certificate of the endorsement key: %w", ErrEvidence, err)
	}
	return nil
}
