package solana

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxIDL is the largest IDL that is taken, in bytes of JSON.
const MaxIDL = 400_000

// Bounds of what an IDL may say.
const (
	maxIDLDepth        = 64
	maxIDLInstructions = 1024
	maxIDLArgs         = 128
	maxIDLAccounts     = 255
	maxIDLTypes        = 4096
	maxIDLName         = 128
)

// IDL says what the instructions of one program are called, by an Anchor
// interface description: the form of 0.30 and later, with discriminators, or the
// older one, whose discriminators follow from the names. It tells names and
// arguments, never what happens to balances. It is immutable.
type IDL struct {
	program      [32]byte
	name         string
	instructions []*idlInstruction
}

type idlInstruction struct {
	name          string
	discriminator []byte
	// accounts are names, those of groups in the form group.account.
	accounts []string
	args     []idlField
	argNames []string
}

// NewIDL reads an IDL for program: JSON of at most 400 kB. It refuses an IDL of
// a program that is built in, of another program, with members given twice, with
// discriminators that can't be told apart, and with arguments of a type that can't be read.
func NewIDL(program [32]byte, text []byte) (*IDL, error) {
	d, err := newIDL(program, text)
	if err != nil {
		return nil, fmt.Errorf("reading IDL of program %s: %w", Address(program), err)
	}
	return d, nil
}

func newIDL(program [32]byte, text []byte) (*IDL, error) {
	if p := programs[program]; p != nil {
		return nil, fmt.Errorf("%s is built in", p.name)
	}
	if len(text) > MaxIDL {
		return nil, fmt.Errorf("%d bytes, at most %d", len(text), MaxIDL)
	}
	var form idlForm
	if err := strictJSON(text, &form); err != nil {
		return nil, err
	}
	if form.Address != "" {
		if own, err := ParseAddress(form.Address); err != nil || own != program {
			return nil, fmt.Errorf("it is for program %.44q", form.Address)
		}
	}
	d := &IDL{program: program, name: form.Name}
	if form.Metadata.Name != "" {
		d.name = form.Metadata.Name
	}
	if d.name != "" && !idlName(d.name) {
		return nil, errors.New("its name is no identifier")
	}
	if n := len(form.Instructions); n == 0 || n > maxIDLInstructions {
		return nil, fmt.Errorf("%d instructions, want 1 to %d", n, maxIDLInstructions)
	}
	types, err := form.definitions()
	if err != nil {
		return nil, err
	}
	for i := range form.Instructions {
		in, err := form.Instructions[i].compile(types)
		if err != nil {
			return nil, fmt.Errorf("instruction %.40q: %w", form.Instructions[i].Name, err)
		}
		for _, o := range d.instructions {
			if bytes.HasPrefix(o.discriminator, in.discriminator) || bytes.HasPrefix(in.discriminator, o.discriminator) {
				return nil, fmt.Errorf("instructions %s and %s start with the same bytes", o.name, in.name)
			}
			if o.name == in.name {
				return nil, fmt.Errorf("two instructions are named %s", in.name)
			}
		}
		d.instructions = append(d.instructions, in)
	}
	return d, nil
}

// Program is the program the IDL is for.
func (d *IDL) Program() [32]byte { return d.program }

// Name is the program's name, as the IDL has it.
func (d *IDL) Name() string { return d.name }

// match finds the instruction that data is, in whole; nil when there is none. With
// too few accounts it fails on the chain; with more, programs read the rest themselves.
func (d *IDL) match(data []byte) *idlInstruction {
	for _, in := range d.instructions {
		if !bytes.HasPrefix(data, in.discriminator) {
			continue
		}
		r := &idlReader{b: data[len(in.discriminator):]}
		r.nodes = 64 + len(r.b)/2
		for _, a := range in.args {
			a.typ.skip(r, 0)
		}
		if r.failed || len(r.b) != 0 {
			return nil
		}
		return in
	}
	return nil
}

// strictJSON decodes text into v. It refuses members given twice (in whatever
// case, since encoding/json does not tell cases apart), deep nesting, what is no
// UTF-8, and what follows.
func strictJSON(text []byte, v any) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := walkJSON(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON")
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("not an IDL: %w", err)
	}
	return nil
}

// walkJSON passes over one value.
func walkJSON(d *json.Decoder, depth int) error {
	if depth > maxIDLDepth {
		return errors.New("nested too deep")
	}
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("no JSON: %w", err)
	}
	if t != json.Delim('{') && t != json.Delim('[') {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if t == json.Delim('{') {
			k, err := d.Token()
			if err != nil {
				return fmt.Errorf("no JSON: %w", err)
			}
			name := fold(fmt.Sprint(k))
			if seen[name] {
				return fmt.Errorf("member %.40q is given twice", k)
			}
			seen[name] = true
		}
		if err := walkJSON(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// fold is the same for names that differ in case only, as encoding/json sees it.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}

// idlName reports whether s is an identifier, possibly of several parts.
func idlName(s string) bool {
	if s == "" || len(s) > maxIDLName {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == ':')
	}) < 0
}
