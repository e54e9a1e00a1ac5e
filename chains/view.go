package chains

import (
	"bytes"
	"fmt"

	"github.com/holiman/uint256"
)

// A View is what a policy reads of a payload: for each root the payload has
// ("eth.tx", "solana.tx") a struct value laid out by the root's [Type]. The
// policy checker resolves names to field numbers once, at compile time; the
// evaluator then only indexes.
type View map[string]Value

// TypeKind is the shape of a [Type] or [Value].
type TypeKind uint8

// The kinds of values. KindAbsent is the zero value: the field does not exist
// in this payload, and reading it is an evaluation error.
const (
	KindAbsent  TypeKind = iota
	KindBool             // Value.Int is 0 or 1
	KindInt              // Value.Int, Value.Neg
	KindString           // Value.Str
	KindAddress          // Value.Raw, 20 bytes (EVM); text form is EIP-55 or lower-case hex
	KindPubkey           // Value.Raw, 32 bytes (Solana); text form is base58; see [UnresolvedPubkey]
	KindHex              // Value.Str, "0x" and lower-case hex, or "" for none
	KindList             // Value.List, elements of Type.Elem
	KindStruct           // Value.List, one value per Type.Fields
	KindMap              // Value.Map, members of any kind
	KindSeq              // Value.Seq: a list whose elements are made when they are read; its type is a list's
)

// Type describes values statically, for the policy checker and for documentation.
type Type struct {
	Kind   TypeKind
	Elem   *Type
	Fields []Field
}

// Field is one named member of a struct type.
type Field struct {
	Name string
	Type *Type
	// Doc says unit and source in a few words; docs/policy.md is made from it.
	Doc string
}

// Value is one immutable node of a view. Which members are set follows Kind.
type Value struct {
	Kind TypeKind
	Neg  bool
	// Partial: the list may lack elements, because something in the payload was
	// not understood. A rule over all of its elements proves nothing.
	Partial bool
	Int     uint256.Int
	Str     string
	Raw     []byte
	List    []Value
	Map     *Members
	Seq     Sequence
}

// Sequence is the elements of a KindSeq list. A payload of one byte an element
// would take a hundred bytes for each as a []Value. Len and At are pure and safe
// for concurrent use; At is called with 0 <= i < Len().
type Sequence interface {
	Len() int
	At(i int) Value
}

// SeqValue builds a list node whose elements are made when they are read.
func SeqValue(s Sequence) Value { return Value{Kind: KindSeq, Seq: s} }

// IsList reports whether v is a list, of either form.
func (v *Value) IsList() bool { return v.Kind == KindList || v.Kind == KindSeq }

// Len is the number of elements of a list.
func (v *Value) Len() int {
	if v.Kind == KindSeq {
		return v.Seq.Len()
	}
	return len(v.List)
}

// At returns element i of a list, 0 <= i < Len(). Where the element has to be
// made it is made in at, which the caller lends.
func (v *Value) At(i int, at *Value) *Value {
	if v.Kind == KindSeq {
		*at = v.Seq.At(i)
		return at
	}
	return &v.List[i]
}

// Members are what a map holds, in an order of its own. A list of names costs a
// tenth of a Go map, and may be shared by all values of one struct.
type Members struct {
	// Names are unique; Values has one value for each.
	Names  []string
	Values []Value
}

// Get returns the member called name, nil when there is none. It is nil-safe.
func (m *Members) Get(name string) *Value {
	if m == nil {
		return nil
	}
	for i := range m.Names {
		if m.Names[i] == name {
			return &m.Values[i]
		}
	}
	return nil
}

// Len is the number of members.
func (m *Members) Len() int {
	if m == nil {
		return 0
	}
	return len(m.Names)
}

// BoolValue, IntValue and the others build nodes.
func BoolValue(b bool) Value {
	v := Value{Kind: KindBool}
	if b {
		v.Int.SetOne()
	}
	return v
}

// IntValue copies n.
func IntValue(n *uint256.Int) Value { return Value{Kind: KindInt, Int: *n} }

// Uint64Value builds an integer node.
func Uint64Value(n uint64) Value {
	v := Value{Kind: KindInt}
	v.Int.SetUint64(n)
	return v
}

// StringValue builds a text node.
func StringValue(s string) Value { return Value{Kind: KindString, Str: s} }

// HexValue builds a node that reads as "0x…" lower-case hex; s must already be so.
func HexValue(s string) Value { return Value{Kind: KindHex, Str: s} }

// AddressValue builds an EVM address node from 20 bytes.
func AddressValue(a [20]byte) Value { return Value{Kind: KindAddress, Raw: a[:]} }

// PubkeyValue builds a Solana account node from 32 bytes.
func PubkeyValue(k [32]byte) Value { return Value{Kind: KindPubkey, Raw: k[:]} }

// ListValue builds a list node; it keeps vs.
func ListValue(vs ...Value) Value { return Value{Kind: KindList, List: vs} }

// StructValue builds a struct node, one value per field of its type, in order; it keeps vs.
func StructValue(vs ...Value) Value { return Value{Kind: KindStruct, List: vs} }

// AddressTableLookup is how an account reads whose address sits in a lookup
// table that was not resolved. It is no base58, so no account is spelled so.
const AddressTableLookup = "ADDRESS_TABLE_LOOKUP"

// UnresolvedPubkey builds the node for an account behind an unresolved lookup
// table: KindPubkey with Raw nil and Str [AddressTableLookup]. It differs from
// every 32-byte key and equals only that literal.
func UnresolvedPubkey() Value { return Value{Kind: KindPubkey, Str: AddressTableLookup} }

// MapValue builds a map node; it keeps both, which must be of one length.
func MapValue(names []string, values []Value) Value {
	return Value{Kind: KindMap, Map: &Members{Names: names, Values: values}}
}

// Index returns the number of the field called name in a struct type, or -1.
func (t *Type) Index(name string) int {
	for i := range t.Fields {
		if t.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// Equal reports whether two nodes and everything below them are the same. Lists
// of both forms are equal when their elements are.
func (v Value) Equal(w Value) bool {
	if v.IsList() && w.IsList() {
		if v.Partial != w.Partial || v.Len() != w.Len() {
			return false
		}
		var a, b Value
		for i := range v.Len() {
			if !v.At(i, &a).Equal(*w.At(i, &b)) {
				return false
			}
		}
		return true
	}
	if v.Kind != w.Kind || v.Neg != w.Neg || v.Int != w.Int || v.Str != w.Str ||
		!bytes.Equal(v.Raw, w.Raw) || len(v.List) != len(w.List) || v.Map.Len() != w.Map.Len() {
		return false
	}
	for i := range v.List {
		if !v.List[i].Equal(w.List[i]) {
			return false
		}
	}
	for i := range v.Map.Len() {
		if x := w.Map.Get(v.Map.Names[i]); x == nil || !v.Map.Values[i].Equal(*x) {
			return false
		}
	}
	return true
}

// Equal reports whether two views have the same roots with the same contents.
func (v View) Equal(w View) bool {
	if len(v) != len(w) {
		return false
	}
	for root, value := range v {
		if other, ok := w[root]; !ok || !value.Equal(other) {
			return false
		}
	}
	return true
}

// Conform says where v is not laid out as t: every node absent or of its
// type's kind, raw bytes of the kind's length, structs complete. Decoders keep
// this for their views; a policy may rely on it.
func (t *Type) Conform(v Value) error {
	if v.Kind == KindAbsent {
		return nil
	}
	if v.Kind != t.Kind && !(v.Kind == KindSeq && t.Kind == KindList) {
		return fmt.Errorf("kind %d where the type says %d", v.Kind, t.Kind)
	}
	switch v.Kind {
	case KindAddress:
		if len(v.Raw) != 20 {
			return fmt.Errorf("address of %d bytes", len(v.Raw))
		}
	case KindPubkey:
		if len(v.Raw) != 32 && !(v.Raw == nil && v.Str == AddressTableLookup) {
			return fmt.Errorf("public key of %d bytes", len(v.Raw))
		}
	case KindList, KindSeq:
		var at Value
		for i := range v.Len() {
			if err := t.Elem.Conform(*v.At(i, &at)); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
	case KindStruct:
		if len(v.List) != len(t.Fields) {
			return fmt.Errorf("%d fields where the type has %d", len(v.List), len(t.Fields))
		}
		for i := range v.List {
			if err := t.Fields[i].Type.Conform(v.List[i]); err != nil {
				return fmt.Errorf("%s: %w", t.Fields[i].Name, err)
			}
		}
	}
	return nil
}
