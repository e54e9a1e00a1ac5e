// Package decode is what `sigilctl decode` does: it shows people, and programs,
// what a payload says and what would be signed, off-line, with the decoders that
// the daemon signs by. It holds no key and asks nobody.
//
// Rows in, rows out ([Lines]): one JSON object a line, answered by one JSON
// object a line, in order; a bad row is answered, never the end. A kind is added
// by putting a [Kind] into the list of its chain's file (evm.go, solana.go).
package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/chains"
)

// Kind is one form of payload that can be looked at.
type Kind struct {
	Name chains.Kind
	// Members says which members of a row are read, for the manual.
	Members string
	// Decode reads one row. Errors are *chains.DecodeError.
	Decode func(Row) (*chains.Decoded, error)
	// Bare makes a row of a payload that stands alone on stdin (hex, base64, typed
	// data), trimmed. nil: only rows are read.
	Bare func(text []byte) (Row, error)
	// Roots are the roots that a view of this kind can have, with their layout.
	Roots map[string]*chains.Type
}

// Kinds returns all kinds, ordered by name.
func Kinds() []Kind {
	all := append(evmKinds(), solanaKinds()...)
	slices.SortFunc(all, func(a, b Kind) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}

// Find returns the kind of that name.
func Find(name string) (Kind, error) {
	var names []string
	for _, k := range Kinds() {
		if string(k.Name) == name {
			return k, nil
		}
		names = append(names, string(k.Name))
	}
	return Kind{}, fmt.Errorf("unknown kind %q; kinds are %s", name, strings.Join(names, ", "))
}

// Row is one JSON object: its members, each the exact text that was given.
type Row map[string]json.RawMessage

// ParseRow reads one JSON object. A member given twice is refused: two readers
// could take different ones.
func ParseRow(text []byte) (Row, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, Malformed(-1, "a row is one JSON object")
	}
	row := Row{}
	var twice string
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return row, Malformed(int(d.InputOffset()), "a row is one JSON object")
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return row, Malformed(int(d.InputOffset()), "the row is no JSON")
		}
		if _, dup := row[name]; dup {
			twice = name
			continue
		}
		row[name] = v
	}
	if _, err := d.Token(); err != nil || len(bytes.TrimSpace(text[d.InputOffset():])) != 0 {
		return row, Malformed(int(d.InputOffset()), "the row is no JSON object, or is followed by something")
	}
	if twice != "" {
		return row, Malformed(-1, "member %q is there twice", twice)
	}
	return row, nil
}

// Text reads the first of the named members that the row has, which must be a string.
func (r Row) Text(names ...string) (string, error) {
	for _, name := range names {
		v, ok := r[name]
		if !ok {
			continue
		}
		var s *string
		if err := json.Unmarshal(v, &s); err != nil || s == nil {
			return "", Malformed(-1, "member %q is no string", name)
		}
		return *s, nil
	}
	return "", Malformed(-1, "the row has no member %q", strings.Join(names, `" or "`))
}

// Object writes the named members as one JSON object again, each as its own text;
// what the row does not have is left out, for the decoder to complain about.
func (r Row) Object(names ...string) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, name := range names {
		v, ok := r[name]
		if !ok {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", name, v)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// Hex reads "0x" and an even number of hexadecimal digits, nothing else.
func Hex(s string) ([]byte, error) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok {
		return nil, Malformed(0, "hexadecimal text starts with 0x")
	}
	if len(digits)%2 != 0 {
		return nil, Malformed(len(s), "an odd number of hexadecimal digits")
	}
	out := make([]byte, len(digits)/2)
	for i := range len(digits) {
		n := strings.IndexByte("0123456789abcdefABCDEF", digits[i])
		if n < 0 {
			return nil, Malformed(2+i, "not a hexadecimal digit")
		}
		if n >= 16 {
			n -= 6
		}
		out[i/2] = out[i/2]<<4 | byte(n)
	}
	return out, nil
}

// Malformed is the error of a row that is not written as it should be.
func Malformed(offset int, format string, args ...any) error {
	return &chains.DecodeError{Code: chains.CodeForm, Message: fmt.Sprintf(format, args...), Offset: offset}
}

// Run decodes one row; a decoder that panics is a bug, and costs only its row.
func (k Kind) Run(row Row) (d *chains.Decoded, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, &chains.DecodeError{Code: "internal", Message: "the decoder failed; please report this payload", Offset: -1}
		}
	}()
	return k.Decode(row)
}

// Summary decodes what stands alone on stdin, a row or the bare payload, and says
// in a few lines what it would do and what would be signed.
func (k Kind) Summary(text []byte) (string, error) {
	text = bytes.TrimSpace(text)
	row, err := ParseRow(text)
	if k.Bare != nil && (err != nil || !k.reads(row)) {
		if row, err = k.Bare(text); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	d, err := k.Run(row)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintln(&b, d.Summary)
	if d.Opaque {
		fmt.Fprintln(&b, "warning: not everything in it is understood; its amounts cannot be trusted")
	}
	for _, g := range d.Guards {
		fmt.Fprintf(&b, "warning: only a policy that reads %s allows it\n", g)
	}
	name, signed := signed(d)
	fmt.Fprintf(&b, "%s: %s\n", strings.ReplaceAll(name, "_", " "), signed)
	return b.String(), nil
}

// reads reports whether the row has a member that the kind is read from.
func (k Kind) reads(row Row) bool {
	for _, m := range strings.Fields(strings.NewReplacer(",", " ", "[", "", "]", "").Replace(k.Members)) {
		if _, ok := row[m]; ok {
			return true
		}
	}
	return false
}

// signed names and spells what the signature is made over.
func signed(d *chains.Decoded) (name, value string) {
	if d.Sign.Scheme == chains.EdDSAEd25519 {
		return "signing_bytes", fmt.Sprintf("0x%x", d.Sign.Message)
	}
	return "signing_hash", fmt.Sprintf("0x%x", d.Sign.Digest)
}

// AsError makes one of any error, for the one form that errors have here.
func AsError(err error) *chains.DecodeError {
	var de *chains.DecodeError
	if errors.As(err, &de) {
		return de
	}
	return &chains.DecodeError{Code: "internal", Message: err.Error(), Offset: -1}
}
