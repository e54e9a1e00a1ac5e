package evm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
)

// EIP-712 from the raw JSON text. This file reads the types; typedvalue.go hashes
// values by them. Rules:
//   - exactly types, primaryType, domain and message, each once
//   - at most 64 types of at most 256 fields; every type a field names exists
//   - names are identifiers, so that none can put text into encodeType; struct
//     names may hold a ':' (Hyperliquid)
//   - EIP712Domain is declared: of name, version, chainId, verifyingContract and
//     salt some, in this order, with their types
//   - an object has exactly the fields of its struct

// TypedDataRoot is the root of typed data.
const TypedDataRoot = "eth.eip_712"

// TypedDataType lays out the root "eth.eip_712". A field that the domain does not
// declare is absent.
var TypedDataType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "primary_type", Type: typeString, Doc: "the struct that is signed"},
	{Name: "domain", Doc: "who it is for", Type: &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
		{Name: "name", Type: typeString, Doc: "name of the application or contract"},
		{Name: "version", Type: typeString, Doc: "its version"},
		{Name: "chain_id", Type: typeInt, Doc: "EIP-155 chain id; absent: valid on every chain"},
		{Name: "verifying_contract", Type: typeAddress, Doc: "the contract that checks the signature"},
		{Name: "salt", Type: typeHex, Doc: "32 bytes"},
	}}},
	{Name: "message", Type: typeMap, Doc: "fields by name: ints exact, bytes as hex, structs as maps, arrays as lists"},
}}

const (
	maxTypes  = 64
	maxFields = 256
	// maxEncodeType bounds the text that is hashed for the types of one payload.
	maxEncodeType = 1 << 20
	domainStruct  = "EIP712Domain"
)

// domainFields are what a domain may declare, in this order.
var domainFields = []string{"string name", "string version", "uint256 chainId", "address verifyingContract", "bytes32 salt"}

// valueKind is the shape of a type.
type valueKind uint8

const (
	kindUint valueKind = iota
	kindInt
	kindAddress
	kindBool
	kindFixedBytes
	kindBytes
	kindString
	kindArray // of any length
	kindFixedArray
	kindStruct
)

// typedType is the type of a field.
type typedType struct {
	kind valueKind
	size int // bits of an integer, bytes of bytesN, elements of a fixed array
	elem *typedType
	def  *structDef
}

// structDef is one declared struct.
type structDef struct {
	name   string
	fields []typedField
	names  []string       // of the fields, shared by all values
	index  map[string]int // by name, when there are many
	hash   [32]byte       // of encodeType
	hashed bool
}

type typedField struct {
	name, text string // text is the type as written
	typ        *typedType
}

// find returns the number of a field, -1 for none.
func (d *structDef) find(name []byte) int {
	if d.index != nil {
		if i, ok := d.index[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := range d.names {
		if d.names[i] == string(name) {
			return i
		}
	}
	return -1
}

// typedData is a payload under way.
type typedData struct {
	j       *jsonReader
	types   map[string]*structDef
	ordered []*structDef
	budget  int // bytes of encodeType that may still be hashed

	hash    crypto.KeccakState   // for one value at a time
	nesting []crypto.KeccakState // for arrays, by depth
	pending []word               // fields of the structs under way
	element [32]byte             // what goes into a hash, or comes out, now
}

type word struct {
	field int
	value [32]byte
}

// parsedTypedData is what the rest of the package needs of it.
type parsedTypedData struct {
	digest  [32]byte
	view    chains.Value // TypedDataRoot
	domain  chains.Value // its domain
	message *chains.Members
	form    string // encodeType of the primary type
}

// parseTypedData reads and hashes EIP-712 typed data.
func parseTypedData(raw []byte) (*parsedTypedData, error) {
	t := &typedData{j: newJSON(raw), types: map[string]*structDef{}, budget: maxEncodeType, hash: crypto.NewKeccakState()}
	j := t.j
	// Step 1: where the four members are; their order means nothing.
	type place struct{ at, container int }
	var typesAt, domainAt, messageAt place
	var primary string
	find := func(p *place) func() { return func() { p.at, p.container = j.skip() } }
	primaryAt := 0
	j.object([]member{
		{"types", find(&typesAt)},
		{"primaryType", func() { primaryAt = j.pos; primary = string(j.stringBytes()) }},
		{"domain", find(&domainAt)},
		{"message", find(&messageAt)},
	})
	if err := j.end(); err != nil {
		return nil, err
	}
	// Step 2: the types.
	j.at(typesAt.at, typesAt.container)
	t.readTypes()
	t.resolve(typesAt.at)
	def := t.types[primary]
	if j.err == nil && (def == nil || primary == domainStruct) {
		j.fail(primaryAt, "primaryType is not a declared struct, or is the domain")
	}
	if j.err != nil {
		return nil, j.err
	}
	// Step 3: the values.
	out := &parsedTypedData{}
	j.at(domainAt.at, domainAt.container)
	separator, domain := t.structure(t.types[domainStruct], 0)
	j.at(messageAt.at, messageAt.container)
	message, value := t.structure(def, 0)
	if j.err != nil {
		return nil, j.err
	}
	out.digest = crypto.Keccak256Hash([]byte{0x19, 0x01}, separator[:], message[:])
	out.message = value.Map
	out.domain = domainView(domain.Map)
	out.view = chains.StructValue(chains.StringValue(primary), out.domain, value)
	out.form = t.encodeType(def)
	return out, nil
}

func domainView(m *chains.Members) chains.Value {
	field := func(name string) chains.Value {
		if v := m.Get(name); v != nil {
			return *v
		}
		return chains.Value{}
	}
	return chains.StructValue(field("name"), field("version"), field("chainId"), field("verifyingContract"), field("salt"))
}

// readTypes reads {"Name":[{"name":…,"type":…},…],…}.
func (t *typedData) readTypes() {
	j := t.j
	if j.peek() != '{' {
		j.fail(j.pos, "types is an object")
		return
	}
	at, n := j.pos, j.open()
	if n > maxTypes {
		j.fail(at, "more than 64 types")
		return
	}
	for range n {
		j.peek()
		at := j.pos
		name := string(j.stringBytes())
		switch {
		case !identifier(name, true) || elementary(name):
			j.fail(at, "not a name for a struct")
		case t.types[name] != nil:
			j.fail(at, "a type is declared twice")
		}
		j.take(':', "':' is missing after a member's name")
		if j.err != nil {
			return
		}
		d := &structDef{name: name}
		t.readFields(d)
		t.types[name] = d
		t.ordered = append(t.ordered, d)
		j.separator()
	}
	j.close()
}

func (t *typedData) readFields(d *structDef) {
	j := t.j
	begin := func(n int) {
		if n > maxFields {
			j.fail(j.pos, "more than 256 fields")
			return
		}
		d.fields, d.names = make([]typedField, n), make([]string, n)
		if n > 16 {
			d.index = make(map[string]int, n)
		}
	}
	j.array(begin, func(i int) {
		if j.err != nil {
			return
		}
		f := &d.fields[i]
		at := j.pos
		j.object([]member{
			{"name", func() { f.name = string(j.stringBytes()) }},
			{"type", func() { f.text = string(j.stringBytes()) }},
		})
		switch {
		case j.err != nil:
		case !identifier(f.name, false):
			j.fail(at, "not a name for a field")
		case slices.Contains(d.names[:i], f.name):
			j.fail(at, "a field is declared twice")
		}
		d.names[i] = f.name
		if d.index != nil {
			d.index[f.name] = i
		}
	})
}

// resolve turns the types of all fields from text into what they are.
func (t *typedData) resolve(at int) {
	if t.j.err != nil {
		return
	}
	for _, d := range t.ordered {
		for i := range d.fields {
			f := &d.fields[i]
			if f.typ = t.typeOf(f.text); f.typ == nil {
				t.j.fail(at, fmt.Sprintf("field %s of %s has an unknown type", f.name, d.name))
				return
			}
		}
	}
	domain := t.types[domainStruct]
	if domain == nil {
		t.j.fail(at, "EIP712Domain is not declared")
		return
	}
	next := 0
	for _, f := range domain.fields {
		for next < len(domainFields) && domainFields[next] != f.text+" "+f.name {
			next++
		}
		if next == len(domainFields) {
			t.j.fail(at, fmt.Sprintf("EIP712Domain has a field %s that is not known, or out of order", f.name))
			return
		}
		next++
	}
}

// typeOf reads a type as written, nil when it is none.
func (t *typedData) typeOf(text string) *typedType {
	if base, ok := strings.CutSuffix(text, "]"); ok {
		open := strings.LastIndexByte(base, '[')
		if open < 0 || strings.Count(text, "[") > maxJSONDepth {
			return nil
		}
		elem := t.typeOf(base[:open])
		digits := base[open+1:]
		switch {
		case elem == nil:
			return nil
		case digits == "":
			return &typedType{kind: kindArray, elem: elem}
		case len(digits) > 5 || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0':
			return nil
		}
		return &typedType{kind: kindFixedArray, size: number(digits), elem: elem}
	}
	if d := t.types[text]; d != nil {
		if d.name == domainStruct {
			return nil
		}
		return &typedType{kind: kindStruct, def: d}
	}
	kind, size, ok := atomic(text)
	if !ok {
		return nil
	}
	return &typedType{kind: kind, size: size}
}

// atomic reads the name of a type that is neither array nor struct. Integers
// without a size have 256 bits.
func atomic(text string) (kind valueKind, size int, ok bool) {
	switch text {
	case "address":
		return kindAddress, 0, true
	case "bool":
		return kindBool, 0, true
	case "bytes":
		return kindBytes, 0, true
	case "string":
		return kindString, 0, true
	}
	for _, p := range [...]struct {
		prefix string
		kind   valueKind
	}{{"uint", kindUint}, {"int", kindInt}, {"bytes", kindFixedBytes}} {
		digits, is := strings.CutPrefix(text, p.prefix)
		if !is {
			continue
		}
		if digits == "" {
			return p.kind, 256, true
		}
		if len(digits) > 3 || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
			return 0, 0, false
		}
		n := number(digits)
		if p.kind == kindFixedBytes {
			return p.kind, n, n <= 32
		}
		return p.kind, n, n%8 == 0 && n <= 256
	}
	return 0, 0, false
}

// number reads up to five digits.
func number(digits string) (n int) {
	for _, d := range []byte(digits) {
		n = 10*n + int(d-'0')
	}
	return n
}

// elementary reports names that look like a built-in type, whether it exists or not.
func elementary(name string) bool {
	switch base := strings.TrimRight(name, "0123456789x"); base {
	case "address", "bool", "string", "bytes", "uint", "int", "fixed", "ufixed", "function":
		return true
	}
	return false
}

// identifier reports [A-Za-z_$][A-Za-z0-9_$]*, with colons inside if they may be.
func identifier(s string, colons bool) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '_', c == '$', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || colons && c == ':'):
		default:
			return false
		}
	}
	return s != ""
}

// encodeType is the struct and, sorted by name, every struct it leads to.
func (t *typedData) encodeType(d *structDef) string {
	reached := map[*structDef]bool{}
	var walk func(*structDef)
	walk = func(d *structDef) {
		if reached[d] {
			return
		}
		reached[d] = true
		for _, f := range d.fields {
			typ := f.typ
			for typ.elem != nil {
				typ = typ.elem
			}
			if typ.def != nil {
				walk(typ.def)
			}
		}
	}
	walk(d)
	delete(reached, d)
	all := make([]*structDef, 0, len(reached)+1)
	for d := range reached {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *structDef) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	for _, d := range append([]*structDef{d}, all...) {
		b.WriteString(d.name)
		for i, f := range d.fields {
			b.WriteByte("(,"[min(i, 1)])
			b.WriteString(f.text)
			b.WriteByte(' ')
			b.WriteString(f.name)
		}
		if len(d.fields) == 0 {
			b.WriteByte('(')
		}
		b.WriteByte(')')
	}
	return b.String()
}

// typeHash is keccak(encodeType), computed once for each struct that has a value.
func (t *typedData) typeHash(d *structDef) [32]byte {
	if !d.hashed {
		text := t.encodeType(d)
		if t.budget -= len(text); t.budget < 0 {
			t.j.fail(t.j.pos, "the types are too large")
			return d.hash
		}
		d.hash, d.hashed = crypto.Keccak256Hash([]byte(text)), true
	}
	return d.hash
}
