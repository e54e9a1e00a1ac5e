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
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

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

	maxDocuments  = 256
	maxSignatures = 16
	maxText       = 128
)

// Document is one named text; docs/policy.md says what kinds there are.
type Document struct {
	Kind, Name string
	Content    []byte
}

func (d Document) path() string { return d.Kind + "/" + d.Name }

// Signature is one key's over the body.
type Signature struct {
	Key   credential.PublicKey
	Bytes []byte
}

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

// ErrNotSigned: too few of the keys that count have signed.
var ErrNotSigned = errors.New("the bundle is not signed by enough of the keys that count")

// check refuses what no bundle can hold. It sorts nothing.
func (b *Bundle) check() error {
	for _, id := range []string{b.ApplianceID, b.OrganizationID} {
		if id == "" || len(id) > maxText || strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
			return fmt.Errorf("id %.40q is not 1 to %d printable ASCII characters", id, maxText)
		}
	}
	if b.Version == 0 || b.Version > math.MaxInt64 {
		return fmt.Errorf("version %d is not 1 to 2^63-1", b.Version)
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
	if len(b.Signatures) > maxSignatures {
		return fmt.Errorf("%d signatures, at most %d", len(b.Signatures), maxSignatures)
	}
	for i, s := range b.Signatures {
		if i > 0 && compareKeys(b.Signatures[i-1].Key, s.Key) >= 0 {
			return fmt.Errorf("signature %d is out of order, or of a key that signed before", i)
		}
	}
	return nil
}

func compareKeys(a, b credential.PublicKey) int {
	if c := strings.Compare(string(a.Algorithm), string(b.Algorithm)); c != 0 {
		return c
	}
	return bytes.Compare(a.Bytes, b.Bytes)
}

// body is what is signed: everything but the signatures.
func (b *Bundle) body() []byte {
	out := append([]byte(magic), version)
	out = put(put(out, []byte(b.ApplianceID)), []byte(b.OrganizationID))
	out = binary.BigEndian.AppendUint64(out, b.Version)
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

func put(to, field []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(field))), field...)
}

// Encode writes the one form of the bundle, at most [MaxBytes].
func (b *Bundle) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("writing bundle: %w", err)
	}
	out := binary.BigEndian.AppendUint16(b.body(), uint16(len(b.Signatures)))
	for _, s := range b.Signatures {
		out = put(put(put(out, []byte(s.Key.Algorithm)), s.Key.Bytes), s.Bytes)
	}
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
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), MaxBytes)
	}
	if len(data) < 5 || string(data[:4]) != magic {
		return nil, errors.New("not a policy bundle")
	}
	if data[4] != version {
		return nil, fmt.Errorf("version %d of the format is not known to this build", data[4])
	}
	r := &reader{rest: data[5:]}
	b := &Bundle{ApplianceID: string(r.field()), OrganizationID: string(r.field()), Version: r.number(8)}
	for n := r.number(2); n > 0 && !r.short; n-- {
		b.Documents = append(b.Documents, Document{Kind: string(r.field()), Name: string(r.field()), Content: r.field()})
	}
	for n := r.number(2); n > 0 && !r.short; n-- {
		algorithm, public, signature := r.field(), r.field(), r.field()
		if r.short {
			break
		}
		key, err := credential.ParsePublicKey(credential.Algorithm(algorithm), public)
		if err != nil {
			return nil, fmt.Errorf("key of signature %d: %w", len(b.Signatures), err)
		}
		b.Signatures = append(b.Signatures, Signature{key, signature})
	}
	if r.short || len(r.rest) > 0 {
		return nil, errors.New("cut, or longer than it says")
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// reader takes fields off the front; short is set when there were too few bytes.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.short, r.rest = true, nil
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) number(bytes int) (n uint64) {
	for _, c := range r.take(uint64(bytes)) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *reader) field() []byte { return bytes.Clone(r.take(r.number(4))) }

// Sign adds the signer's signature, in place of an earlier one of its key.
func (b *Bundle) Sign(signer credential.Signer) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("signing bundle: %w", err)
	}
	signature, err := signer.Sign(b.statement())
	if err != nil {
		return fmt.Errorf("signing bundle: %w", err)
	}
	key := signer.Public()
	b.Signatures = slices.DeleteFunc(b.Signatures, func(s Signature) bool { return s.Key.Equal(key) })
	b.Signatures = append(b.Signatures, Signature{key, signature})
	slices.SortFunc(b.Signatures, func(x, y Signature) int { return compareKeys(x.Key, y.Key) })
	return nil
}

// Verify demands good signatures of at least quorum of the keys, and returns those
// keys. A signature that does not verify refuses the bundle, and so does one of a
// key that does not count: nobody shall believe that it did. The error wraps
// [ErrNotSigned] when signatures are missing, credential.ErrSignature when one is wrong.
func (b *Bundle) Verify(keys []credential.PublicKey, quorum int) ([]credential.PublicKey, error) {
	statement := b.statement()
	var signed []credential.PublicKey
	for _, s := range b.Signatures {
		if !slices.ContainsFunc(keys, s.Key.Equal) {
			return nil, fmt.Errorf("verifying bundle: key %s does not count here: %w", s.Key.ID(), ErrNotSigned)
		}
		if err := s.Key.Verify(statement, s.Bytes); err != nil {
			return nil, fmt.Errorf("verifying bundle: signature of key %s: %w", s.Key.ID(), err)
		}
		signed = append(signed, s.Key)
	}
	if quorum < 1 || len(signed) < quorum {
		return nil, fmt.Errorf("verifying bundle: %d of %d signatures: %w", len(signed), quorum, ErrNotSigned)
	}
	return signed, nil
}
