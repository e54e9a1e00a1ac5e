package evm

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// Calldata by an ABI (Solidity specification, "Contract ABI"). The decoder takes
// only the one encoding that every compiler writes: each offset points to where
// the parts before it ended, padding is zero, nothing follows. What a contract
// would take beside that can be read in more than one way.

// abiType is a type of an argument. A tuple has fields, an array elem.
type abiType struct {
	kind    valueKind // kindStruct is a tuple
	size    int       // bits, bytes, or elements of a fixed array
	elem    *abiType
	fields  []abiField
	dynamic bool
	head    int // bytes in the head of what holds it
}

type abiField struct {
	name string
	typ  *abiType
}

// Bounds of a type: what no contract has, and what could cost much.
const (
	maxABIHead  = 1 << 20 // bytes of a static type
	maxABIDepth = 16
)

// abiFunction is one function of a contract.
type abiFunction struct {
	name      string
	signature string // "transfer(address,uint256)"
	selector  [4]byte
	inputs    abiType // a tuple
}

// abiValue is a decoded argument; slices alias the calldata. data is the 32-byte
// word of a static value, or the contents of bytes and string; list are the parts
// of arrays and tuples.
type abiValue struct {
	data []byte
	list []abiValue
}

// finish computes what follows from the parts, and reports a type that cannot be.
func (t *abiType) finish() bool {
	t.head = 32
	switch t.kind {
	case kindBytes, kindString, kindArray:
		t.dynamic = true
	case kindFixedArray:
		t.dynamic = t.elem.dynamic
		if t.size < 1 || t.size > maxABIHead/32 {
			return false
		}
		if !t.dynamic {
			t.head = t.size * t.elem.head
		}
	case kindStruct:
		if len(t.fields) == 0 {
			return false
		}
		total := t.headOfParts()
		for i := range t.fields {
			t.dynamic = t.dynamic || t.fields[i].typ.dynamic
		}
		if !t.dynamic {
			t.head = total
		}
	}
	return t.head <= maxABIHead
}

// headOfParts is the length of a tuple's own head.
func (t *abiType) headOfParts() (n int) {
	for i := range t.fields {
		n += t.fields[i].typ.head
	}
	return n
}

// decodeArguments reads the calldata after the selector. ok is false unless it is
// the canonical encoding. It takes one step for each value and at most one value
// for 32 bytes of data.
func (f *abiFunction) decodeArguments(data []byte) (args []abiValue, ok bool) {
	if len(f.inputs.fields) == 0 {
		return nil, len(data) == 0
	}
	return decodeParts(&f.inputs, data)
}

// decodeParts reads data as exactly the canonical encoding of a tuple's parts.
func decodeParts(t *abiType, data []byte) ([]abiValue, bool) {
	d := abiDecoder{b: data}
	head := t.headOfParts()
	if head > len(data) {
		return nil, false
	}
	tail := head
	list := d.fields(t, 0, &tail)
	return list, !d.bad && tail == len(data)
}

// abiDecoder reads one buffer from front to back. bad sticks.
type abiDecoder struct {
	b   []byte
	bad bool
}

func (d *abiDecoder) word(at int) []byte {
	if d.bad || at < 0 || at > len(d.b)-32 {
		d.bad = true
		return nil
	}
	return d.b[at : at+32 : at+32]
}

// length reads a number that cannot be more than what is left of the buffer.
func (d *abiDecoder) length(at int) int {
	w := d.word(at)
	if d.bad {
		return 0
	}
	n := 0
	for i, c := range w {
		if i < 28 && c != 0 {
			d.bad = true
			return 0
		}
		n = n<<8 | int(c)
	}
	if n < 0 || n > len(d.b) {
		d.bad = true
		return 0
	}
	return n
}

// fields reads the parts of a tuple whose head begins at base; *tail is where the
// next dynamic part must begin, and moves behind it.
func (d *abiDecoder) fields(t *abiType, base int, tail *int) []abiValue {
	list := make([]abiValue, len(t.fields))
	at := base
	for i := range t.fields {
		list[i] = d.part(t.fields[i].typ, at, base, tail)
		if d.bad {
			return nil
		}
		at += t.fields[i].typ.head
	}
	return list
}

// elements reads n elements of an array whose head begins at base.
func (d *abiDecoder) elements(elem *abiType, n, base int, tail *int) []abiValue {
	if n > (len(d.b)-base)/elem.head { // before anything is allocated for them
		d.bad = true
		return nil
	}
	list := make([]abiValue, n)
	for i := range list {
		if list[i] = d.part(elem, base+i*elem.head, base, tail); d.bad {
			return nil
		}
	}
	return list
}

// part reads one value whose head is at `at`, in a sequence that begins at base.
func (d *abiDecoder) part(t *abiType, at, base int, tail *int) abiValue {
	if !t.dynamic {
		return d.static(t, at)
	}
	if offset := d.length(at); d.bad || base+offset != *tail {
		d.bad = true
		return abiValue{}
	}
	return d.dynamic(t, tail)
}

// dynamic reads a value at *tail and moves it behind the value.
func (d *abiDecoder) dynamic(t *abiType, tail *int) (v abiValue) {
	at := *tail
	switch t.kind {
	case kindBytes, kindString:
		n := d.length(at)
		padded := (n + 31) &^ 31
		if d.bad || padded > len(d.b)-at-32 || !zero(d.b[at+32+n:at+32+padded]) {
			d.bad = true
			return v
		}
		v.data = d.b[at+32 : at+32+n : at+32+n]
		d.bad = d.bad || t.kind == kindString && !utf8.Valid(v.data)
		*tail = at + 32 + padded
	case kindArray:
		n := d.length(at)
		if d.bad || n > (len(d.b)-at-32)/t.elem.head {
			d.bad = true
			return v
		}
		base := at + 32
		*tail = base + n*t.elem.head
		v.list = d.elements(t.elem, n, base, tail)
	case kindFixedArray:
		if t.size > (len(d.b)-at)/t.elem.head {
			d.bad = true
			return v
		}
		*tail = at + t.size*t.elem.head
		v.list = d.elements(t.elem, t.size, at, tail)
	case kindStruct:
		*tail = at + t.headOfParts()
		if *tail > len(d.b) {
			d.bad = true
			return v
		}
		v.list = d.fields(t, at, tail)
	}
	return v
}

// static reads a value that is all head.
func (d *abiDecoder) static(t *abiType, at int) (v abiValue) {
	none := -1 // nothing static has a tail
	switch t.kind {
	case kindFixedArray:
		v.list = d.elements(t.elem, t.size, at, &none)
	case kindStruct:
		v.list = d.fields(t, at, &none)
	default:
		v.data = d.word(at)
		d.bad = d.bad || !canonicalWord(t, v.data)
	}
	return v
}

// canonicalWord reports whether the padding of a word is what its type says.
func canonicalWord(t *abiType, w []byte) bool {
	switch t.kind {
	case kindUint:
		return zero(w[:32-t.size/8])
	case kindInt:
		fill := byte(0)
		if w[32-t.size/8]&0x80 != 0 {
			fill = 0xff
		}
		return bytes.Count(w[:32-t.size/8], []byte{fill}) == 32-t.size/8
	case kindAddress:
		return zero(w[:12])
	case kindBool:
		return zero(w[:31]) && w[31] <= 1
	}
	return zero(w[t.size:]) // bytesN
}

func zero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}

// parseABIType reads a type as JSON ABIs and signatures write it: the base, which
// parts makes when it is a tuple, and dimensions.
func parseABIType(text string, parts []abiField, depth int) (*abiType, bool) {
	if depth > maxABIDepth {
		return nil, false
	}
	t := &abiType{}
	if base, ok := strings.CutSuffix(text, "]"); ok {
		open := strings.LastIndexByte(base, '[')
		if open < 0 {
			return nil, false
		}
		digits := base[open+1:]
		elem, ok := parseABIType(base[:open], parts, depth+1)
		if !ok || len(digits) > 5 || strings.Trim(digits, "0123456789") != "" || len(digits) > 0 && digits[0] == '0' {
			return nil, false
		}
		t.kind, t.elem = kindArray, elem
		if digits != "" {
			t.kind, t.size = kindFixedArray, number(digits)
		}
		return t, t.finish()
	}
	switch text {
	case "tuple":
		t.kind, t.fields = kindStruct, parts
	case "function": // an address and a selector
		t.kind, t.size = kindFixedBytes, 24
	case "uint", "int": // an ABI says uint256
		return nil, false
	default:
		var ok bool
		if t.kind, t.size, ok = atomic(text); !ok {
			return nil, false
		}
	}
	return t, t.finish()
}
