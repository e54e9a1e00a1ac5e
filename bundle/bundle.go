// Package bundle is the file in which the owners of an organization whose policy
// authority is "bundle" sign what judges it: all its documents, a version, and the
// signatures of m of the n keys that were named when the organization was made. It
// is for the daemon, which applies bundles, and for sigilctl, which makes, signs
// and verifies them on machines that know no daemon.
//
// It refuses what has two spellings: documents or signatures out of order or
// twice, bytes after the end, another version. Whether the documents mean anything
// is delegation's to judge, and whose signatures count the organization's record.
package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sigild/sigild/credential"
)

// MaxBytes is the longest bundle, signatures included: it travels in one request.
const MaxBytes = 1000 << 10

const (
	magic   = "SGPB"
	version = 1
	// domain is signed before the body, after its length as u32: every statement that
	// sigild's keys sign begins so, and no two kinds of statements alike.
	domain = "sigild/policy-bundle/v1"

	maxDocuments = 256
	maxText      = 128
)

// Document is one named text; docs/policy.md says what kinds there are.
type Document struct {
	Kind, Name string
	Content    []byte
}

func (d Document) path() string { return d.Kind + "/" + d.Name }

// Bundle is a file read, or one to be written.
type Bundle struct {
	// ApplianceID and OrganizationID say where it counts, and nowhere else.
	ApplianceID, OrganizationID string
	// Version must be above that of the organization when it is applied; 1 or more.
	Version uint64
	// Documents are all of the organization's from then on, ordered by kind and name.
	Documents []Document
	// Signatures are ordered by key.
	Signatures []Signature
}

// check refuses what no bundle can hold. It sorts nothing.
func (b *Bundle) check() error {
	if err := checkHead(b.ApplianceID, b.OrganizationID, b.Version); err != nil {
		return err
	}
	if len(b.Documents) > maxDocuments {
		return fmt.Errorf("%d documents, at most %d", len(b.Documents), maxDocuments)
	}
	for i, d := range b.Documents {
		if d.Kind == "" || d.Name == "" || len(d.Kind) > maxText || len(d.Name) > maxText {
			return fmt.Errorf("document %d: kind and name have 1 to %d bytes", i, maxText)
		}
		if i > 0 && b.Documents[i-1].path() >= d.path() {
			return fmt.Errorf("document %.80q is out of order, or there twice", d.path())
		}
	}
	return checkSignatures(b.Signatures)
}

// body is what is signed: everything but the signatures.
func (b *Bundle) body() []byte {
	out := putHead(magic, b.ApplianceID, b.OrganizationID, b.Version)
	out = binary.BigEndian.AppendUint16(out, uint16(len(b.Documents)))
	for _, d := range b.Documents {
		out = put(put(put(out, []byte(d.Kind)), []byte(d.Name)), d.Content)
	}
	return out
}

// statement is what a key signs.
func (b *Bundle) statement() []byte {
	return append(put(nil, []byte(domain)), b.body()...)
}

// Encode writes the one form of the bundle, at most [MaxBytes].
func (b *Bundle) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("writing bundle: %w", err)
	}
	out := putSignatures(b.body(), b.Signatures)
	if len(out) > MaxBytes {
		return nil, fmt.Errorf("writing bundle: %d bytes, at most %d", len(out), MaxBytes)
	}
	return out, nil
}

// Parse reads exactly what Encode writes. It verifies no signature.
func Parse(data []byte) (*Bundle, error) {
	b, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading bundle: %w", err)
	}
	return b, nil
}

func parse(data []byte) (*Bundle, error) {
	r, err := readHead(magic, data)
	if err != nil {
		return nil, err
	}
	b := &Bundle{ApplianceID: string(r.field()), OrganizationID: string(r.field()), Version: r.number(8)}
	for n := r.number(2); n > 0 && !r.short; n-- {
		b.Documents = append(b.Documents, Document{Kind: string(r.field()), Name: string(r.field()), Content: r.field()})
	}
	if b.Signatures, err = r.signatures(); err != nil {
		return nil, err
	}
	if r.short || len(r.rest) > 0 {
		return nil, errors.New("cut, or longer than it says")
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// Sign adds the signer's signature, in place of an earlier one of its key.
func (b *Bundle) Sign(signer credential.Signer) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("signing bundle: %w", err)
	}
	var err error
	if b.Signatures, err = sign(b.Signatures, b.statement(), signer); err != nil {
		return fmt.Errorf("signing bundle: %w", err)
	}
	return nil
}

// Verify demands good signatures of at least quorum of the keys, and returns those
// keys. A signature that does not verify refuses the bundle, and so does one of a
// key that does not count: nobody shall believe that it did. The error wraps
// [ErrNotSigned] when signatures are missing, credential.ErrSignature when one is wrong.
func (b *Bundle) Verify(keys []credential.PublicKey, quorum int) ([]credential.PublicKey, error) {
	signed, err := verify(b.Signatures, b.statement(), keys, quorum)
	if err != nil {
		return nil, fmt.Errorf("verifying bundle: %w", err)
	}
	return signed, nil
}
