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
		var x [32]byte
		x, vs[i] = t.value(typ.elem, depth)
		_, _ = h.Write(x[:]) // a hash takes everything
	})
	if t.j.err == nil {
		sum(h, &w)
	}
	return w, chains.ListValue(vs...)
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
		var x [32]byte
		x, vs[i] = t.value(d.fields[i].typ, depth)
		t.pending = append(t.pending, word{i, x})
	})
	own := t.pending[base:]
	t.pending = t.pending[:base]
	typeHash := t.typeHash(d)
	if t.j.err != nil {
		return w, v
	}
	var order [maxFields]int16
	for i := range own {
		order[own[i].field] = int16(i)
	}
	t.hash.Reset()
	_, _ = t.hash.Write(typeHash[:])
	for i := range own {
		_, _ = t.hash.Write(own[order[i]].value[:])
	}
	sum(t.hash, &w)
	return w, chains.MapValue(d.names, vs)
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

func (t *typedData) keccak(b []byte) (w [32]byte) {
	t.hash.Reset()
	_, _ = t.hash.Write(b)
	sum(t.hash, &w)
	return w
}

// sum takes the hash out; reading a Keccak state never fails.
func sum(h crypto.KeccakState, w *[32]byte) { _, _ = h.Read(w[:]) }
