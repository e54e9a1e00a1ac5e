package evm

import (
	"encoding/hex"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Values of typed data: each is read once, in the order of the text, and becomes
// the 32 bytes that EIP-712 hashes and the node that a policy reads.

// value reads one value of the given type. Arrays nest as deep as the JSON may.
func (t *typedData) value(typ *typedType, depth int) (w [32]byte, v chains.Value) {
	j := t.j
	at := j.pos
	switch typ.kind {
	case kindStruct:
		return t.structure(typ.def, depth+1)
	case kindArray, kindFixedArray:
		return t.list(typ, depth+1)
	case kindUint, kindInt:
		n, negative := j.integer()
		if j.err == nil && !inRange(&n, negative, typ) {
			j.fail(at, "an integer outside of its type")
		}
		v = chains.IntValue(&n)
		v.Neg = negative
		if negative {
			n.Neg(&n)
		}
		return n.Bytes32(), v
	case kindAddress:
		a := j.address()
		copy(w[12:], a[:])
		return w, chains.AddressValue(a)
	case kindBool:
		b := j.bool()
		if b {
			w[31] = 1
		}
		return w, chains.BoolValue(b)
	case kindString:
		s := string(j.stringBytes())
		return t.keccak([]byte(s)), chains.StringValue(s)
	}
	b := j.hex()
	v = chains.HexValue("0x" + hex.EncodeToString(b))
	if typ.kind == kindBytes {
		return t.keccak(b), v
	}
	if j.err == nil && len(b) != typ.size {
		j.fail(at, "the wrong number of bytes")
	}
	copy(w[:], b)
	return w, v
}

// inRange reports whether n, negated if so said, is a value of the integer type.
func inRange(n *uint256.Int, negative bool, typ *typedType) bool {
	if typ.kind == kindUint {
		return !negative && n.BitLen() <= typ.size
	}
	if !negative {
		return n.BitLen() < typ.size
	}
	var least uint256.Int
	least.Lsh(uint256.NewInt(1), uint(typ.size-1))
	return !n.Gt(&least)
}

func (j *jsonReader) bool() bool {
	switch j.peek() {
	case 't':
		j.pos += 4
		return true
	case 'f':
		j.pos += 5
		return false
	}
	j.fail(j.pos, "true or false is expected here")
	return false
}

// list reads an array: keccak over its elements.
func (t *typedData) list(typ *typedType, depth int) (w [32]byte, v chains.Value) {
	if typ.elem.single() {
		return t.words(typ, depth)
	}
	var vs []chains.Value
	h := t.nested(depth)
	at := t.j.pos
	t.j.array(func(n int) {
		if typ.kind == kindFixedArray && n != typ.size {
			t.j.fail(at, "the wrong number of elements")
			return
		}
		vs = make([]chains.Value, n)
	}, func(i int) {
		// Written from t, which is on the heap already: a local one would go there.
		t.element, vs[i] = t.value(typ.elem, depth)
		_, _ = h.Write(t.element[:]) // a hash takes everything
	})
	if t.j.err == nil {
		w = t.sum(h)
	}
	return w, chains.ListValue(vs...)
}

// single: a value is its word, and "0," may be all of its text.
func (typ *typedType) single() bool {
	switch typ.kind {
	case kindUint, kindInt, kindAddress, kindBool, kindFixedBytes:
		return true
	}
	return false
}

// words reads an array of single words, and keeps no more of it than them.
func (t *typedData) words(typ *typedType, depth int) (w [32]byte, v chains.Value) {
	seq := wordSeq{typ: typ.elem}
	h := t.nested(depth)
	at := t.j.pos
	t.j.array(func(n int) {
		if typ.kind == kindFixedArray && n != typ.size {
			t.j.fail(at, "the wrong number of elements")
			return
		}
		seq.words = make([][32]byte, n)
	}, func(i int) {
		seq.words[i], _ = t.value(typ.elem, depth)
		_, _ = h.Write(seq.words[i][:])
	})
	if t.j.err == nil {
		w = t.sum(h)
	}
	return w, chains.SeqValue(seq)
}

// wordSeq is the elements of such an array.
type wordSeq struct {
	typ   *typedType
	words [][32]byte
}

func (s wordSeq) Len() int { return len(s.words) }

func (s wordSeq) At(i int) chains.Value {
	w := s.words[i]
	var n uint256.Int
	n.SetBytes32(w[:])
	switch s.typ.kind {
	case kindAddress:
		return chains.AddressValue([20]byte(w[12:]))
	case kindBool:
		return chains.BoolValue(!n.IsZero())
	case kindFixedBytes:
		return chains.HexValue(hexText(w[:s.typ.size]))
	}
	negative := s.typ.kind == kindInt && n.Sign() < 0
	if negative {
		n.Neg(&n)
	}
	v := chains.IntValue(&n)
	v.Neg = negative
	return v
}

// structure reads an object of exactly the struct's fields: keccak over the hash of
// its type and its fields as declared.
func (t *typedData) structure(d *structDef, depth int) (w [32]byte, v chains.Value) {
	base := len(t.pending)
	var vs []chains.Value
	t.j.fields(len(d.fields), d.find, func(i int) {
		if vs == nil { // only now it is known that there are as many as declared
			vs = make([]chains.Value, len(d.fields))
		}
		w, v := t.value(d.fields[i].typ, depth)
		vs[i] = v
		t.pending = append(t.pending, word{i, w})
	})
	own := t.pending[base:]
	t.pending = t.pending[:base]
	t.element = t.typeHash(d)
	if t.j.err != nil {
		return w, v
	}
	var order [maxFields]int16
	for i := range own {
		order[own[i].field] = int16(i)
	}
	t.hash.Reset()
	_, _ = t.hash.Write(t.element[:])
	for i := range own {
		_, _ = t.hash.Write(own[order[i]].value[:])
	}
	return t.sum(t.hash), chains.MapValue(d.names, vs)
}

// nested is the hash of arrays at a depth; deeper ones have their own.
func (t *typedData) nested(depth int) crypto.KeccakState {
	for len(t.nesting) <= depth {
		t.nesting = append(t.nesting, nil)
	}
	if t.nesting[depth] == nil {
		t.nesting[depth] = crypto.NewKeccakState()
	}
	t.nesting[depth].Reset()
	return t.nesting[depth]
}

func (t *typedData) keccak(b []byte) [32]byte {
	t.hash.Reset()
	_, _ = t.hash.Write(b)
	return t.sum(t.hash)
}

// sum takes the hash out; reading a Keccak state never fails.
func (t *typedData) sum(h crypto.KeccakState) [32]byte {
	_, _ = h.Read(t.element[:])
	return t.element
}
