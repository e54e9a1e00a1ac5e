package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// An Approval says that this TPM may unseal while its PCRs have these values, until
// it is revoked. It is made on the host without a signature and signed elsewhere,
// with a key that the host never sees. As a file it is JSON of one form: indented by
// two spaces, keys in this order, hex in lower case, one newline at the end.
type Approval struct {
	// SRKName names the TPM: an approval is good for one host.
	SRKName []byte
	// Counter names the counter that revokes: once its value is above Sequence the
	// approval is void for ever.
	Counter  seal.KeyRef
	Sequence uint64
	PCRs     PCRs
	// Signature of the approver over [Approval.Message]: ECDSA on P-256 with SHA-256,
	// ASN.1 DER. Empty: a request.
	Signature []byte
}

const (
	approvalVersion = 1
	maxApproval     = 8 << 10 // bytes of a file
	// maxApprovals bounds a folder.
	maxApprovals   = 64
	approvalSuffix = ".json"
)

// approvalRefText is the start of what binds an approval to one TPM.
const approvalRefText = "sigild/tpm/pcr-approval/v1"

// approvalRef is the policyRef of TPM2_PolicyAuthorize: an approval for another
// host's TPM does not fit into this one's policy.
func approvalRef(srkName []byte) []byte {
	d := sha256.Sum256(append([]byte(approvalRefText), srkName...))
	return d[:]
}

// Message is the 64 bytes that the approver signs: the policy digest of PolicyPCR
// and PolicyNV (counter at most Sequence), and the policyRef of this TPM
// (Part 3 §23.16). Their SHA-256 is what TPM2_VerifySignature sees.
func (a Approval) Message() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	policy, err := a.policy()
	if err != nil {
		return nil, err
	}
	return append(policy, approvalRef(a.SRKName)...), nil
}

// check holds the fields to their ranges.
func (a Approval) check() error {
	if _, err := parseRef(a.Counter); err != nil || !isName(a.SRKName) {
		return errors.New("it names no TPM and counter")
	}
	return checkIndexes(a.PCRs.Indexes())
}

// operand is what PolicyNV compares the counter with.
func (a Approval) operand() tpm2.TPM2BOperand {
	return tpm2.TPM2BOperand{Buffer: binary.BigEndian.AppendUint64(nil, a.Sequence)}
}

// policy is the digest that a session has after PolicyPCR and PolicyNV.
func (a Approval) policy() ([]byte, error) {
	name, err := parseRef(a.Counter)
	if err != nil {
		return nil, err
	}
	pc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	pcr := tpm2.PolicyPCR{Pcrs: selection(a.PCRs.Indexes()), PcrDigest: tpm2.TPM2BDigest{Buffer: a.PCRs.digest()}}
	if err := pcr.Update(pc); err != nil {
		return nil, err
	}
	nv := tpm2.PolicyNV{NVIndex: tpm2.NamedHandle{Name: tpm2.TPM2BName{Buffer: name}}, OperandB: a.operand(), Operation: tpm2.TPMEOUnsignedLE}
	if err := nv.Update(pc); err != nil {
		return nil, err
	}
	return pc.Hash().Digest, nil
}

// Verify checks the signature. The error is a [seal.ErrPolicy].
func (a Approval) Verify(approver *ecdsa.PublicKey) error {
	if len(a.Signature) == 0 {
		return fmt.Errorf("%w: it is a request and not signed; hint: sigilctl pcr approve, where the approver's key is", seal.ErrPolicy)
	}
	message, err := a.Message()
	if err != nil {
		return fmt.Errorf("%w: %w", seal.ErrPolicy, err)
	}
	digest := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(approver, digest[:], a.Signature) {
		return fmt.Errorf("%w: its signature is not the approver's", seal.ErrPolicy)
	}
	return nil
}

// halves are r and s of the signature, 32 bytes each.
func (a Approval) halves() (r, s []byte, err error) {
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(a.Signature, &sig)
	if err != nil || len(rest) != 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 256 || sig.S.BitLen() > 256 {
		return nil, nil, fmt.Errorf("%w: its signature is not the approver's", seal.ErrPolicy)
	}
	return sig.R.FillBytes(make([]byte, 32)), sig.S.FillBytes(make([]byte, 32)), nil
}

// approvalFile is the JSON.
type approvalFile struct {
	Version   int               `json:"version"`
	SRKName   string            `json:"srk_name"`
	Counter   string            `json:"counter"`
	Sequence  uint64            `json:"sequence"`
	PCRs      map[string]string `json:"pcrs"`
	Signature string            `json:"signature"`
}

// Encode is the file of a.
func (a Approval) Encode() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("encoding an approval: %w", err)
	}
	f := approvalFile{
		Version: approvalVersion, SRKName: hex.EncodeToString(a.SRKName), Counter: string(a.Counter), Sequence: a.Sequence,
		PCRs: a.PCRs.text(), Signature: hex.EncodeToString(a.Signature),
	}
	return encodeFile(f)
}

// ParseApproval accepts only the bytes that [Approval.Encode] gives. The signature,
// if any, is not checked.
func ParseApproval(b []byte) (Approval, error) {
	a, err := parseApproval(b)
	if err != nil {
		return Approval{}, fmt.Errorf("reading an approval: %w", err)
	}
	return a, nil
}

func parseApproval(b []byte) (Approval, error) {
	if len(b) > maxApproval {
		return Approval{}, fmt.Errorf("more than %d bytes", maxApproval)
	}
	var f approvalFile
	if err := json.Unmarshal(b, &f); err != nil {
		return Approval{}, err
	}
	if f.Version != approvalVersion {
		return Approval{}, fmt.Errorf("version %d, want %d", f.Version, approvalVersion)
	}
	a := Approval{Counter: seal.KeyRef(f.Counter), Sequence: f.Sequence}
	var err error
	if a.SRKName, err = hex.DecodeString(f.SRKName); err != nil {
		return Approval{}, fmt.Errorf("srk_name: %w", err)
	}
	if a.Signature, err = hex.DecodeString(f.Signature); err != nil {
		return Approval{}, fmt.Errorf("signature: %w", err)
	}
	if a.PCRs, err = parsePCRs(f.PCRs); err != nil {
		return Approval{}, err
	}
	canonical, err := a.Encode()
	if err != nil {
		return Approval{}, err
	}
	if !bytes.Equal(canonical, b) {
		return Approval{}, errors.New("not in canonical form")
	}
	return a, nil
}

// A NamedApproval is an approval and the name of its file.
type NamedApproval struct {
	Name string
	Approval
}

// ReadApprovals reads all files of dir whose names end in .json, by name. A file
// that is no approval is an error: whoever put it there should know.
func ReadApprovals(dir string) ([]NamedApproval, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the PCR approvals: %w: %w", seal.ErrPolicy, err)
	}
	var out []NamedApproval
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), approvalSuffix) {
			continue
		}
		if len(out) == maxApprovals {
			return nil, fmt.Errorf("reading the PCR approvals: %w: more than %d in %s; hint: remove those that are revoked", seal.ErrPolicy, maxApprovals, dir)
		}
		a, err := ReadApproval(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the PCR approval %s: %w: %w", e.Name(), seal.ErrPolicy, err)
		}
		out = append(out, NamedApproval{e.Name(), a})
	}
	return out, nil
}

// ReadApproval reads one file; see [ParseApproval].
func ReadApproval(path string) (Approval, error) {
	f, err := os.Open(path)
	if err != nil {
		return Approval{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return Approval{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxApproval+1))
	if err != nil {
		return Approval{}, err
	}
	return parseApproval(b)
}
