package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"
)

// This file is evidence of a token, its file and its verifier, which needs no token.
// attest.go makes it.
//
// It is a statement of the module and of our worker about the keys, under a signature
// of the token's checkpoint key. It is no attestation of the token's maker: whoever
// may use that key can sign another statement, and a module can lie about attributes.

// ErrEvidence: evidence does not hold.
var ErrEvidence = errors.New("the evidence does not hold")

const (
	evidenceVersion = 1
	evidenceDevice  = "pkcs11"
	evidenceDomain  = "sigild/attest/pkcs11/v1"
	maxEvidence     = 512 << 10 // bytes of a file
	// maxEvidenceKeys is all that a token may hold for us.
	maxEvidenceKeys = maxRSAKeys + 64
)

// What a key in evidence is for.
const (
	UseKEK        = "kek"
	UseKEKMAC     = "kek-mac" // beside a KEK that is an RSA key
	UseCheckpoint = "checkpoint"
	UseDelivery   = "delivery"
)

// kinds are the kinds of opDescribe.
var kinds = map[string]byte{UseKEK: kindKEK, UseKEKMAC: kindMAC, UseCheckpoint: kindCheckpoint, UseDelivery: kindRSA}

// Evidence is what a token and its module say of themselves and of our keys.
type Evidence struct {
	Nonce     []byte // the verifier's, 16 to 64 bytes
	Token     Info   // C_GetTokenInfo; PINCountLow is not part of it
	Module    Module
	Keys      []DescribedKey
	Signature []byte // r ‖ s, 64 bytes, over message
}

// Module is what C_GetInfo says.
type Module struct{ Manufacturer, Description, Version string }

// DescribedKey is a key with its attributes as they were read from the token.
type DescribedKey struct {
	Use string
	// Wrapping is how a KEK seals, as in its reference: "gcm", "kwp", …; else empty.
	Wrapping string
	ID       []byte // CKA_ID
	// Attributes by name. Booleans are "true" or "false", numbers decimal, mechanisms
	// a list of hex numbers, other bytes hex; "unknown" where the token knows none.
	Attributes map[string]string
}

// StatedKey is a described key that was judged.
type StatedKey struct {
	DescribedKey
	// Lacks are the protections that it has not got, of those that the verifier let be
	// lacking.
	Lacks []string
	// Imported: it was once outside the token, so there may be copies.
	Imported bool
}

// evidenceFile and describedFile are the JSON.
type evidenceFile struct {
	Version      int             `json:"version"`
	Device       string          `json:"device"`
	Nonce        string          `json:"nonce"`
	Label        string          `json:"label"`
	Serial       string          `json:"serial"`
	Manufacturer string          `json:"manufacturer"`
	Model        string          `json:"model"`
	Firmware     string          `json:"firmware"`
	Library      libraryFile     `json:"library"`
	Keys         []describedFile `json:"keys"`
	Signature    string          `json:"signature"`
}

type libraryFile struct {
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`
}

type describedFile struct {
	Use        string            `json:"use"`
	Wrapping   string            `json:"wrapping"`
	ID         string            `json:"id"`
	Attributes map[string]string `json:"attributes"`
}

// Encode is the file of e.
func (e Evidence) Encode() ([]byte, error) {
	f := evidenceFile{
		Version: evidenceVersion, Device: evidenceDevice, Nonce: hex.EncodeToString(e.Nonce),
		Label: e.Token.Label, Serial: e.Token.Serial, Manufacturer: e.Token.Manufacturer, Model: e.Token.Model, Firmware: e.Token.Firmware,
		Library: libraryFile(e.Module), Keys: []describedFile{}, Signature: hex.EncodeToString(e.Signature),
	}
	for _, k := range e.Keys {
		f.Keys = append(f.Keys, describedFile{k.Use, k.Wrapping, hex.EncodeToString(k.ID), k.Attributes})
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding evidence: %w", err)
	}
	return append(b, '\n'), nil
}

// digest is what the checkpoint key signs: the domain and the file without signature.
func (e Evidence) digest() (digest [32]byte, err error) {
	e.Signature = nil
	b, err := e.Encode()
	if err != nil {
		return digest, err
	}
	return sha256.Sum256(append([]byte(evidenceDomain), b...)), nil
}

// ParseEvidence accepts only the bytes that [Evidence.Encode] gives. It checks no
// signature. Errors wrap [ErrEvidence].
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
	if f.Version != evidenceVersion || f.Device != evidenceDevice {
		return Evidence{}, fmt.Errorf("version %d of device %q, want %d of %q", f.Version, f.Device, evidenceVersion, evidenceDevice)
	}
	if len(f.Keys) > maxEvidenceKeys {
		return Evidence{}, fmt.Errorf("%d keys, at most %d are read", len(f.Keys), maxEvidenceKeys)
	}
	read := func(text string) (out []byte) {
		out, e := hex.DecodeString(text)
		err = errors.Join(err, e)
		return out
	}
	e = Evidence{
		Nonce: read(f.Nonce), Token: Info{Label: f.Label, Serial: f.Serial, Manufacturer: f.Manufacturer, Model: f.Model, Firmware: f.Firmware},
		Module: Module(f.Library), Signature: read(f.Signature),
	}
	for _, k := range f.Keys {
		e.Keys = append(e.Keys, DescribedKey{k.Use, k.Wrapping, read(k.ID), k.Attributes})
	}
	if err != nil {
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

// checkNonce bounds what a verifier may ask for.
func checkNonce(nonce []byte) error {
	if len(nonce) < 16 || len(nonce) > 64 {
		return fmt.Errorf("the nonce has %d bytes, want 16 to 64", len(nonce))
	}
	return nil
}

// Verify checks the signature under the checkpoint key that the verifier knows, that
// the nonce is the verifier's, and that each key is what we make. mayLack names the
// protections (such as "CKA_COPYABLE") that a key may lack because the token does not
// know or keep them; nothing excuses a key that can leave the token. Errors wrap
// [ErrEvidence].
func (e Evidence) Verify(nonce []byte, checkpoint *ecdsa.PublicKey, mayLack []string) ([]StatedKey, error) {
	lackable, err := protections(mayLack)
	if err != nil {
		return nil, err
	}
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	// Step 1: whose it is, and what for.
	if checkpoint == nil || checkpoint.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the checkpoint key to verify it with is not of P-256", ErrEvidence)
	}
	digest, err := e.digest()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if len(e.Signature) != 64 || !ecdsa.Verify(checkpoint, digest[:], new(big.Int).SetBytes(e.Signature[:32]), new(big.Int).SetBytes(e.Signature[32:])) {
		return nil, fmt.Errorf("%w: its signature is not that checkpoint key's", ErrEvidence)
	}
	if subtle.ConstantTimeCompare(e.Nonce, nonce) != 1 {
		return nil, fmt.Errorf("%w: it answers another nonce", ErrEvidence)
	}
	// Step 2: every key is one of ours, and none is weaker.
	count := map[string]int{} // by use
	seen := map[string]bool{} // by use and id
	var out []StatedKey
	for _, k := range e.Keys {
		stated, err := k.judge(lackable)
		if err != nil {
			return nil, fmt.Errorf("%w: the %.20q key with CKA_ID %x: %w", ErrEvidence, k.Use, k.ID, err)
		}
		name := k.Use + string(k.ID)
		if seen[name] {
			return nil, fmt.Errorf("%w: it tells of the %s key with CKA_ID %x twice", ErrEvidence, k.Use, k.ID)
		}
		seen[name] = true
		count[k.Use]++
		out = append(out, stated)
	}
	// Step 3: none is missing that must be there.
	if count[UseKEK] == 0 || count[UseCheckpoint] != 1 {
		return nil, fmt.Errorf("%w: it tells of %d sealing and %d checkpoint keys, want at least one and one", ErrEvidence, count[UseKEK], count[UseCheckpoint])
	}
	for _, k := range e.Keys {
		if w, _ := wrappingNamed(k.Wrapping); k.Use == UseKEK && w >= wrapOAEP && !seen[UseKEKMAC+string(macID(k.ID))] {
			return nil, fmt.Errorf("%w: the HMAC key beside the sealing key with CKA_ID %x is missing", ErrEvidence, k.ID)
		}
	}
	return out, nil
}

// judge holds a key against the template of its use, as insist does in the worker.
func (k DescribedKey) judge(lackable protection) (StatedKey, error) {
	kind, ok := kinds[k.Use]
	if !ok || len(k.ID) < 1 || len(k.ID) > maxID {
		return StatedKey{}, errors.New("it is no key of ours")
	}
	wrap, ok := wrappingNamed(k.Wrapping)
	if k.Use == UseKEK && !ok || k.Use != UseKEK && k.Wrapping != "" {
		return StatedKey{}, fmt.Errorf("it has the unknown wrapping %.20q", k.Wrapping)
	}
	ours, told := described(kind, wrap)
	if len(k.Attributes) != len(ours)+len(told) {
		return StatedKey{}, fmt.Errorf("it has %d attributes, want %d", len(k.Attributes), len(ours)+len(told))
	}
	out := StatedKey{DescribedKey: k}
	var lacks protection
	var wrong []string
	for _, a := range ours {
		got, there := k.Attributes[a.name]
		want := a.saySelf()
		switch {
		case there && got == want:
		case there && a.lack&lackable != 0 && (got == sayUnknown || a.soft || a.lack&bornLacks != 0):
			lacks |= a.lack
		case !there:
			wrong = append(wrong, a.name+" is missing")
		default:
			wrong = append(wrong, fmt.Sprintf("%s is %.80q, want %s", a.name, got, want))
		}
	}
	for _, a := range told {
		if _, there := k.Attributes[a.name]; !there {
			wrong = append(wrong, a.name+" is missing")
		}
	}
	if curve := k.Attributes["CKA_EC_PARAMS"]; kind == kindCheckpoint && curve != sayUnknown && curve != "0x"+hex.EncodeToString(p256) {
		wrong = append(wrong, fmt.Sprintf("CKA_EC_PARAMS is %.80q, want P-256", curve)) // the signature shows it, too
	}
	if kind == kindRSA {
		allowed := k.Attributes["CKA_ALLOWED_MECHANISMS"]
		if allowed != schemeNative.allowed().saySelf() && allowed != schemeRaw.allowed().saySelf() {
			wrong = append(wrong, fmt.Sprintf("CKA_ALLOWED_MECHANISMS is %.80q, want one mechanism of ours", allowed))
		}
		out.Imported = k.Attributes["CKA_LOCAL"] != "true"
	}
	if modulus := k.Attributes["CKA_MODULUS"]; kind == kindRSA || wrap >= wrapOAEP {
		if n, err := hex.DecodeString(strings.TrimPrefix(modulus, "0x")); err != nil || len(n) < minModulus || len(n) > maxModulus || n[0] == 0 {
			wrong = append(wrong, fmt.Sprintf("CKA_MODULUS is %.20q…, want 2048 to 4096 bits", modulus))
		}
	}
	if lacks&lackLocal != 0 {
		out.Imported = true
	}
	out.Lacks = lacks.names()
	if len(wrong) > 0 {
		return StatedKey{}, errors.New(strings.Join(wrong, "; "))
	}
	return out, nil
}

// Kind is the key's type and size, as the token tells them: "AES, 256 bits".
func (k DescribedKey) Kind() string {
	number := func(name string) int { n, _ := strconv.Atoi(k.Attributes[name]); return n }
	switch number("CKA_KEY_TYPE") {
	case pkcs11.CKK_AES:
		return fmt.Sprintf("AES, %d bits", 8*number("CKA_VALUE_LEN"))
	case pkcs11.CKK_GENERIC_SECRET:
		return fmt.Sprintf("HMAC, %d bits", 8*number("CKA_VALUE_LEN"))
	case pkcs11.CKK_RSA:
		n, _ := hex.DecodeString(strings.TrimPrefix(k.Attributes["CKA_MODULUS"], "0x"))
		return fmt.Sprintf("RSA, %d bits", new(big.Int).SetBytes(n).BitLen())
	case pkcs11.CKK_EC:
		return "EC, P-256"
	}
	return "of a kind unknown"
}

// protections reads names such as "CKA_COPYABLE".
func protections(names []string) (p protection, err error) {
	for _, name := range names {
		i := slices.Index(protectionNames[:], name)
		if i < 0 {
			return 0, fmt.Errorf("%.40q is no protection that a key may lack; those are %s", name, strings.Join(protectionNames[:], ", "))
		}
		p |= 1 << i
	}
	return p, nil
}

// wrappingNamed is the inverse of wrappingNames.
func wrappingNamed(name string) (wrapping, bool) {
	i := slices.Index(wrappingNames[:], name)
	return wrapping(max(i, 0)), i > 0
}
