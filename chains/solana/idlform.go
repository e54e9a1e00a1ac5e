package solana

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// The JSON of an Anchor IDL, as far as it is read here. What else it says (docs,
// events, errors, constants) is kept and means nothing.

type idlForm struct {
	// 0.30 and later have address and metadata.name, older ones name.
	Address      string
	Name         string
	Metadata     struct{ Name string }
	Instructions []instructionForm
	Types        []typeForm
	// Accounts are types too in the older form.
	Accounts []typeForm
}

type instructionForm struct {
	Name          string
	Discriminator []byteForm
	Accounts      []accountForm
	Args          []fieldForm
}

// byteForm is a number from 0 to 255.
type byteForm uint8

type accountForm struct {
	Name string
	// Accounts makes it a group.
	Accounts []accountForm
}

type fieldForm struct {
	Name string
	Type json.RawMessage
}

type typeForm struct {
	Name          string
	Serialization json.RawMessage
	Generics      json.RawMessage
	Type          *bodyForm
}

type bodyForm struct {
	Kind     string
	Fields   json.RawMessage
	Variants []variantForm
	Alias    json.RawMessage
	Value    json.RawMessage
}

type variantForm struct {
	Name   string
	Fields json.RawMessage
}

// idlField is one named argument or member.
type idlField struct {
	name string
	typ  *idlType
}

// definitions are the types that an IDL defines, compiled when they are used.
type definitions struct {
	forms map[string]*typeForm
	done  map[string]*idlType
}

func (f *idlForm) definitions() (*definitions, error) {
	d := &definitions{forms: map[string]*typeForm{}, done: map[string]*idlType{}}
	if len(f.Types)+len(f.Accounts) > maxIDLTypes {
		return nil, fmt.Errorf("%d types, at most %d", len(f.Types)+len(f.Accounts), maxIDLTypes)
	}
	for i := range f.Types {
		t := &f.Types[i]
		if !idlName(t.Name) || d.forms[t.Name] != nil {
			return nil, fmt.Errorf("type %.40q has no name of its own", t.Name)
		}
		d.forms[t.Name] = t
	}
	for i := range f.Accounts {
		if a := &f.Accounts[i]; a.Type != nil && d.forms[a.Name] == nil {
			d.forms[a.Name] = a
		}
	}
	return d, nil
}

// compile checks an instruction and resolves its types.
func (f *instructionForm) compile(types *definitions) (*idlInstruction, error) {
	if !idlName(f.Name) {
		return nil, errors.New("its name is no identifier")
	}
	in := &idlInstruction{name: f.Name}
	if err := in.addAccounts("", f.Accounts, 0); err != nil {
		return nil, err
	}
	if len(f.Args) > maxIDLArgs {
		return nil, fmt.Errorf("%d arguments, at most %d", len(f.Args), maxIDLArgs)
	}
	var err error
	if in.args, err = types.fields(f.Args); err != nil {
		return nil, err
	}
	for _, a := range in.args {
		in.argNames = append(in.argNames, a.name)
	}
	switch n := len(f.Discriminator); {
	case f.Discriminator == nil: // the older form
		sum := sha256.Sum256([]byte("global:" + snakeCase(f.Name)))
		in.discriminator = sum[:8]
	case n == 0 || n > 32:
		return nil, fmt.Errorf("a discriminator of %d bytes", n)
	default:
		for _, b := range f.Discriminator {
			in.discriminator = append(in.discriminator, byte(b))
		}
	}
	return in, nil
}

// addAccounts flattens groups of accounts.
func (in *idlInstruction) addAccounts(group string, list []accountForm, depth int) error {
	if depth > 8 {
		return errors.New("groups of accounts nested too deep")
	}
	for _, a := range list {
		if !idlName(a.Name) {
			return errors.New("an account's name is no identifier")
		}
		name := group + a.Name
		if a.Accounts != nil {
			if err := in.addAccounts(name+".", a.Accounts, depth+1); err != nil {
				return err
			}
			continue
		}
		for _, o := range in.accounts {
			if o == name {
				return fmt.Errorf("two accounts are named %s", name)
			}
		}
		in.accounts = append(in.accounts, name)
	}
	if len(in.accounts) > maxIDLAccounts {
		return fmt.Errorf("%d accounts, at most %d", len(in.accounts), maxIDLAccounts)
	}
	return nil
}

func (d *definitions) fields(list []fieldForm) ([]idlField, error) {
	out := make([]idlField, 0, len(list))
	seen := map[string]bool{}
	for _, f := range list {
		if !idlName(f.Name) || seen[f.Name] {
			return nil, fmt.Errorf("argument or member %.40q has no name of its own", f.Name)
		}
		seen[f.Name] = true
		t, err := d.resolve(f.Type, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		out = append(out, idlField{f.Name, t})
	}
	return out, nil
}

// resolve reads a type: a word, or an object with one member.
func (d *definitions) resolve(text json.RawMessage, depth int) (*idlType, error) {
	if depth > maxIDLDepth {
		return nil, errors.New("a type nested too deep")
	}
	var word string
	if json.Unmarshal(text, &word) == nil {
		if t := idlWords[word]; t != nil {
			return t, nil
		}
		return nil, fmt.Errorf("unknown type %.40q", word)
	}
	var form struct {
		Option, COption, Vec, Array, Defined json.RawMessage
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return nil, errors.New("a type that is no type")
	}
	of := func(kind idlKind, inner json.RawMessage) (*idlType, error) {
		elem, err := d.resolve(inner, depth+1)
		if err != nil {
			return nil, err
		}
		return &idlType{kind: kind, elem: elem}, nil
	}
	switch {
	case form.Option != nil:
		return of(idlOption, form.Option)
	case form.COption != nil:
		return of(idlCOption, form.COption)
	case form.Vec != nil:
		return of(idlVec, form.Vec)
	case form.Array != nil:
		var pair []json.RawMessage
		var n uint16
		if json.Unmarshal(form.Array, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[1], &n) != nil {
			return nil, errors.New("an array has a type and a length up to 65535")
		}
		t, err := of(idlArray, pair[0])
		if err == nil {
			t.n = int(n)
		}
		return t, err
	case form.Defined != nil:
		var named struct {
			Name     string
			Generics []json.RawMessage
		}
		if json.Unmarshal(form.Defined, &word) != nil {
			if err := json.Unmarshal(form.Defined, &named); err != nil || len(named.Generics) > 0 {
				return nil, errors.New("generic types are not supported")
			}
			word = named.Name
		}
		return d.defined(word, depth+1)
	}
	return nil, errors.New("an unknown form of type")
}

// defined compiles a type of the IDL. It may contain itself.
func (d *definitions) defined(name string, depth int) (*idlType, error) {
	if t := d.done[name]; t != nil {
		return t, nil
	}
	f := d.forms[name]
	switch {
	case f == nil || f.Type == nil:
		return nil, fmt.Errorf("type %.40q is not defined", name)
	case len(f.Generics) > 0 && string(f.Generics) != "[]" && string(f.Generics) != "null":
		return nil, fmt.Errorf("type %s is generic, which is not supported", name)
	case len(f.Serialization) > 0 && string(f.Serialization) != `"borsh"` && string(f.Serialization) != "null":
		return nil, fmt.Errorf("type %s is not written by Borsh", name)
	}
	t := &idlType{}
	d.done[name] = t
	var err error
	switch body := f.Type; body.Kind {
	case "struct":
		t.kind = idlStruct
		t.fields, t.tuple, err = d.members(body.Fields, depth)
	case "enum":
		t.kind = idlEnum
		if len(body.Variants) == 0 || len(body.Variants) > 256 {
			return nil, fmt.Errorf("type %s has %d variants", name, len(body.Variants))
		}
		for _, v := range body.Variants {
			if !idlName(v.Name) {
				return nil, fmt.Errorf("a variant of type %s has no name", name)
			}
			one := idlVariant{name: v.Name}
			if one.fields, one.tuple, err = d.members(v.Fields, depth); err != nil {
				break
			}
			t.variants = append(t.variants, one)
		}
	case "type", "alias":
		alias := body.Alias
		if alias == nil {
			alias = body.Value
		}
		var of *idlType
		if of, err = d.resolve(alias, depth+1); err == nil {
			t.kind, t.elem = idlAlias, of
		}
	default:
		err = fmt.Errorf("type %s is of unknown kind %.40q", name, body.Kind)
	}
	if err != nil {
		return nil, err
	}
	t.prepare()
	return t, nil
}

// members reads the fields of a struct or variant: named, or types alone.
func (d *definitions) members(text json.RawMessage, depth int) (fields []idlField, tuple bool, err error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, false, nil
	}
	if depth > maxIDLDepth {
		return nil, false, errors.New("a type nested too deep")
	}
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, false, errors.New("members are a list")
	}
	named := make([]fieldForm, len(list))
	for i, m := range list {
		if json.Unmarshal(m, &named[i]) != nil || named[i].Type == nil || named[i].Name == "" {
			tuple = true
		}
	}
	if !tuple {
		fields, err = d.fields(named)
		return fields, false, err
	}
	for _, m := range list {
		t, err := d.resolve(m, depth+1)
		if err != nil {
			return nil, true, err
		}
		fields = append(fields, idlField{typ: t})
	}
	return fields, true, nil
}

// snakeCase is how Anchor spells a name before it hashes it: swapV2 is swap_v2.
func snakeCase(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) {
			before := i > 0 && s[i-1] != '_'
			if before && (!unicode.IsUpper(rune(s[i-1])) || i+1 < len(s) && unicode.IsLower(rune(s[i+1]))) {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
