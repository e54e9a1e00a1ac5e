package body

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Rules of this reader (RFC 8259, stricter):
//   - one value in UTF-8, nothing after it, nested 16 deep at most
//   - an object has each member once, by its name as it reads without escapes
//   - a caller names the members that an object must and may have; there are no others
//   - no half of a surrogate pair, which readers replace by different things
//   - names are compared letter by letter; encoding/json alone would fold their case

const maxDepth = 16

// Object is a JSON object that was read.
type Object struct {
	names   []string
	members map[string]Value
}

// Value is a member or an element. Its text is that of a string, or of a number as
// it was written.
type Value struct {
	kind   byte // '"', '0', 't' (a truth), 'n', '[', '{'
	text   string
	truth  bool
	object *Object
	list   []Value
	// raw is the value's own text.
	raw []byte
}

// Read reads a body that is one JSON object.
func Read(text []byte) (*Object, error) {
	if len(text) > MaxBytes {
		return nil, Refuse(Malformed, "", "%d bytes, at most %d are read", len(text), MaxBytes)
	}
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, Refuse(Malformed, "", "it is not JSON in UTF-8")
	}
	r := &reader{text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	r.dec.UseNumber()
	v, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.dec.Token(); err != io.EOF {
		return nil, Refuse(Malformed, "", "something follows the JSON object")
	}
	if v.object == nil {
		return nil, Refuse(Malformed, "", "it is no JSON object")
	}
	return v.object, nil
}

type reader struct {
	text []byte
	dec  *json.Decoder
}

func (r *reader) value(depth int) (Value, error) {
	token, err := r.dec.Token()
	if err != nil {
		return Value{}, Refuse(Malformed, "", "it is not JSON in UTF-8")
	}
	if depth > maxDepth {
		return Value{}, Refuse(Malformed, "", "it is nested more than %d deep", maxDepth)
	}
	end := r.dec.InputOffset()
	switch t := token.(type) {
	case string:
		return Value{kind: '"', text: t}, whole(t)
	case json.Number:
		return Value{kind: '0', text: t.String(), raw: r.text[end-int64(len(t)) : end]}, nil
	case bool:
		return Value{kind: 't', truth: t}, nil
	case json.Delim:
		v := Value{kind: byte(t)}
		if t == '[' {
			err = r.list(&v, depth)
		} else {
			err = r.object(&v, depth)
		}
		v.raw = r.text[end-1 : r.dec.InputOffset()]
		return v, err
	}
	return Value{kind: 'n'}, nil
}

func (r *reader) list(v *Value, depth int) error {
	for r.dec.More() {
		one, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		v.list = append(v.list, one)
	}
	_, err := r.dec.Token()
	return err
}

func (r *reader) object(v *Value, depth int) error {
	v.object = &Object{members: map[string]Value{}}
	for r.dec.More() {
		key, err := r.dec.Token()
		if err != nil {
			return Refuse(Malformed, "", "it is not JSON in UTF-8")
		}
		name, _ := key.(string)
		if err := whole(name); err != nil {
			return err
		}
		if _, twice := v.object.members[name]; twice {
			return Refuse(Malformed, clip(name), "the member comes twice")
		}
		one, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		v.object.names = append(v.object.names, name)
		v.object.members[name] = one
	}
	_, err := r.dec.Token()
	return err
}

// whole refuses text in which a reader had to put something in the place of what
// was there.
func whole(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return Refuse(Malformed, "", "a text has half of a surrogate pair, or U+FFFD")
	}
	return nil
}

// clip is a name as errors may show it.
func clip(name string) string {
	out := []byte(name[:min(len(name), 64)])
	for i, c := range out {
		if c < 0x20 || c > 0x7e {
			out[i] = '?'
		}
	}
	return string(out)
}

// Only refuses an object that lacks a member of must, or has one that is neither of
// must nor of may.
func (o *Object) Only(must []string, may ...string) error {
	for _, name := range o.names {
		if !slices.Contains(must, name) && !slices.Contains(may, name) {
			return Refuse(Malformed, clip(name), "the member is not known here")
		}
	}
	for _, name := range must {
		if _, ok := o.members[name]; !ok {
			return Refuse(Malformed, name, "the member is missing")
		}
	}
	return nil
}

// Has reports whether the object has a member.
func (o *Object) Has(name string) bool {
	_, ok := o.members[name]
	return ok
}

// Names are the object's members in their order.
func (o *Object) Names() []string { return o.names }

// Text is a member that is a string, of 1 to max bytes.
func (o *Object) Text(name string, max int) (string, error) {
	v, ok := o.members[name]
	switch {
	case !ok:
		return "", Refuse(Malformed, name, "the member is missing")
	case v.kind != '"':
		return "", Refuse(Malformed, name, "the member is not a string")
	case v.text == "" || len(v.text) > max:
		return "", Refuse(Malformed, name, "the text has %d bytes, 1 to %d are read", len(v.text), max)
	}
	return v.text, nil
}

// Truth is a member that is true or false; false where it is missing.
func (o *Object) Truth(name string) (bool, error) {
	v, ok := o.members[name]
	if ok && v.kind != 't' {
		return false, Refuse(Malformed, name, "the member is neither true nor false")
	}
	return v.truth, nil
}

// Object is a member that is an object.
func (o *Object) Object(name string) (*Object, error) {
	v, ok := o.members[name]
	if !ok || v.object == nil {
		return nil, Refuse(Malformed, name, "there is no such object")
	}
	return v.object, nil
}

// Raw is the text of a member that is an object, a list or a number, as it stands in
// the body; nil for others.
func (o *Object) Raw(name string) []byte { return o.members[name].raw }

// Objects is a member that is a list of objects.
func (o *Object) Objects(name string) ([]*Object, error) {
	v, ok := o.members[name]
	if !ok || v.kind != '[' {
		return nil, Refuse(Malformed, clip(name), "there is no such list")
	}
	out := make([]*Object, len(v.list))
	for i, one := range v.list {
		if one.object == nil {
			return nil, Refuse(Malformed, clip(name), "an element is no object")
		}
		out[i] = one.object
	}
	return out, nil
}
