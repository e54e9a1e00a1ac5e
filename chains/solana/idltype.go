package solana

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Borsh, as Anchor writes arguments: little-endian integers, lengths of 4 bytes,
// options of one byte, variants of one byte. What is read must be just what a
// writer writes: true is 1, texts are UTF-8, nothing is left over.

type idlKind uint8

const (
	idlUint idlKind = iota // of n bytes
	idlInt                 // of n bytes
	idlBool
	idlFloat // of n bytes
	idlBytes
	idlString
	idlPubkey
	idlOption
	idlCOption // a u32 in place of the byte, and room for the value even when there is none
	idlVec
	idlArray // of n elements
	idlStruct
	idlEnum
	idlAlias
)

type idlType struct {
	kind     idlKind
	n        int
	elem     *idlType
	fields   []idlField
	tuple    bool
	names    []string // of fields
	variants []idlVariant
}

type idlVariant struct {
	name   string
	fields []idlField
	tuple  bool
	names  []string
}

// idlWords are the types that have a name.
var idlWords = func() map[string]*idlType {
	out := map[string]*idlType{
		"bool": {kind: idlBool}, "bytes": {kind: idlBytes}, "string": {kind: idlString},
		"pubkey": {kind: idlPubkey}, "publicKey": {kind: idlPubkey},
		"f32": {kind: idlFloat, n: 4}, "f64": {kind: idlFloat, n: 8},
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		bits := strconv.Itoa(8 * n)
		out["u"+bits], out["i"+bits] = &idlType{kind: idlUint, n: n}, &idlType{kind: idlInt, n: n}
	}
	return out
}()

func (t *idlType) prepare() {
	names := func(fields []idlField) (out []string) {
		for _, f := range fields {
			out = append(out, f.name)
		}
		return out
	}
	t.names = names(t.fields)
	for i := range t.variants {
		t.variants[i].names = names(t.variants[i].fields)
	}
}

// isByte: a list of it is read as bytes, not as nodes.
func (t *idlType) isByte() bool { return t.kind == idlUint && t.n == 1 }

// idlReader reads arguments. nodes bounds how many values they may become.
type idlReader struct {
	b      []byte
	nodes  int
	failed bool
}

func (r *idlReader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.b) {
		r.failed = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *idlReader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// length reads a length of 4 bytes, which can't exceed what is left.
func (r *idlReader) length() int {
	b := r.take(4)
	if b == nil {
		return 0
	}
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(r.b)) { // no element takes less than a byte
		r.failed = true
		return 0
	}
	return int(n)
}

// flag reads an option's byte, or its u32.
func (r *idlReader) flag(wide bool) bool {
	n := uint32(r.u8())
	if wide {
		if b := r.take(3); b != nil {
			n |= uint32(b[0])<<8 | uint32(b[1])<<16 | uint32(b[2])<<24
		}
	}
	if n > 1 {
		r.failed = true
	}
	return n == 1
}

// skip passes over one value and checks it.
func (t *idlType) skip(r *idlReader, depth int) {
	if r.nodes--; r.nodes < 0 || depth > maxIDLDepth {
		r.failed = true
	}
	if r.failed {
		return
	}
	switch t.kind {
	case idlUint, idlInt, idlFloat:
		r.take(t.n)
	case idlBool:
		if r.u8() > 1 {
			r.failed = true
		}
	case idlBytes:
		r.take(r.length())
	case idlString:
		if !utf8.Valid(r.take(r.length())) {
			r.failed = true
		}
	case idlPubkey:
		r.take(32)
	case idlOption, idlCOption:
		if set := r.flag(t.kind == idlCOption); set || t.kind == idlCOption {
			t.elem.skip(r, depth+1)
		}
	case idlVec, idlArray:
		n := t.n
		if t.kind == idlVec {
			n = r.length()
		}
		if t.elem.isByte() {
			r.take(n)
			return
		}
		for range n {
			if t.elem.skip(r, depth+1); r.failed {
				return
			}
		}
	case idlStruct:
		for _, f := range t.fields {
			f.typ.skip(r, depth+1)
		}
	case idlEnum:
		v := int(r.u8())
		if v >= len(t.variants) {
			r.failed = true
			return
		}
		for _, f := range t.variants[v].fields {
			f.typ.skip(r, depth+1)
		}
	case idlAlias:
		t.elem.skip(r, depth+1)
	}
}

// value reads one value that skip has checked.
func (t *idlType) value(r *idlReader) chains.Value {
	switch t.kind {
	case idlUint, idlInt:
		return integer(r.take(t.n), t.kind == idlInt)
	case idlFloat:
		b := r.take(t.n)
		if t.n == 4 {
			return chains.StringValue(strconv.FormatFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 'g', -1, 32))
		}
		return chains.StringValue(strconv.FormatFloat(math.Float64frombits(binary.LittleEndian.Uint64(b)), 'g', -1, 64))
	case idlBool:
		return chains.BoolValue(r.u8() == 1)
	case idlBytes:
		return chains.HexValue("0x" + hex.EncodeToString(r.take(r.length())))
	case idlString:
		return chains.StringValue(string(r.take(r.length())))
	case idlPubkey:
		return chains.Value{Kind: chains.KindPubkey, Raw: r.take(32)}
	case idlOption:
		if r.flag(false) {
			return t.elem.value(r)
		}
		return chains.Value{}
	case idlCOption:
		set := r.flag(true)
		if v := t.elem.value(r); set {
			return v
		}
		return chains.Value{}
	case idlVec, idlArray:
		n := t.n
		if t.kind == idlVec {
			n = r.length()
		}
		if t.elem.isByte() {
			return chains.SeqValue(byteSeq(r.take(n)))
		}
		list := make([]chains.Value, n)
		for i := range list {
			list[i] = t.elem.value(r)
		}
		return chains.ListValue(list...)
	case idlStruct:
		return membersValue(r, t.fields, t.tuple, t.names)
	case idlEnum:
		v := &t.variants[r.u8()]
		if len(v.fields) == 0 {
			return chains.StringValue(v.name)
		}
		return chains.MapValue([]string{v.name}, []chains.Value{membersValue(r, v.fields, v.tuple, v.names)})
	}
	return t.elem.value(r)
}

// membersValue is a map of named members, or a list of others.
func membersValue(r *idlReader, fields []idlField, tuple bool, names []string) chains.Value {
	values := make([]chains.Value, len(fields))
	for i, f := range fields {
		values[i] = f.typ.value(r)
	}
	if tuple {
		return chains.ListValue(values...)
	}
	return chains.MapValue(names, values)
}

// integer reads little-endian bytes, of two's complement when signed.
func integer(b []byte, signed bool) chains.Value {
	var big [32]byte
	for i, c := range b {
		big[31-i] = c
	}
	v := chains.Value{Kind: chains.KindInt}
	if v.Neg = signed && b[len(b)-1] >= 0x80; v.Neg {
		for i := range 32 - len(b) {
			big[i] = 0xff
		}
	}
	v.Int.SetBytes(big[:])
	if v.Neg {
		v.Int.Sub(new(uint256.Int), &v.Int)
	}
	return v
}

// value is the parsed instruction that match has found.
func (x *idlInstruction) value(m *message, accounts, data []byte) chains.Value {
	named := make([]chains.Value, min(len(x.accounts), len(accounts)))
	for i := range named {
		named[i] = m.account(int(accounts[i]))
	}
	r := &idlReader{b: data[len(x.discriminator):]}
	args := make([]chains.Value, len(x.args))
	for i, a := range x.args {
		args[i] = a.typ.value(r)
	}
	return chains.StructValue(chains.StringValue(x.name), chains.StringValue(hex.EncodeToString(x.discriminator)),
		chains.MapValue(x.accounts[:len(named)], named), chains.MapValue(x.argNames, args))
}

// say writes the arguments that are simple values, as far as there is room.
func (x *idlInstruction) say(w *writer, data []byte) {
	r, end := &idlReader{b: data[len(x.discriminator):], nodes: len(data) + 64}, w.Len()+maxShown
	for i, a := range x.args {
		if i > 0 {
			w.WriteString(", ")
		}
		if w.Len() > end {
			w.WriteString("and more")
			return
		}
		w.WriteString(a.name)
		w.WriteByte(' ')
		if !a.typ.simple() {
			a.typ.skip(r, 0)
			w.WriteString("...")
			continue
		}
		switch v := a.typ.value(r); v.Kind {
		case chains.KindInt:
			if v.Neg {
				w.WriteByte('-')
			}
			w.WriteString(v.Int.Dec())
		case chains.KindBool:
			w.WriteString(strconv.FormatBool(!v.Int.IsZero()))
		case chains.KindString, chains.KindHex:
			w.quote([]byte(v.Str))
		case chains.KindPubkey:
			w.address((*[32]byte)(v.Raw))
		default:
			w.WriteString("none")
		}
	}
}

// simple reports whether a summary writes the values of a type.
func (t *idlType) simple() bool {
	switch t.kind {
	case idlOption, idlCOption, idlAlias:
		return t.elem.simple()
	}
	return t.kind <= idlPubkey
}
