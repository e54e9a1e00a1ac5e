package server

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxNesting is how deep messages may nest; the API's own nest three deep.
const maxNesting = 16

// strictUnmarshal decodes data into m and refuses everything that could mean
// one thing to whoever stamped the bytes and another to whoever acts on them:
//
//   - fields the message doesn't have, at any depth, and enum numbers without a name;
//   - a singular field, or two members of a oneof, more than once (protobuf keeps
//     the last, or merges);
//   - numbers that don't fit their type (protobuf cuts them);
//   - another wire type than the field's, groups, maps, invalid UTF-8.
//
// The order of fields is free, and so are overlong varints: the bytes as
// received, not their meaning, are what is hashed and stamped.
func strictUnmarshal(data []byte, m proto.Message) error {
	if err := walk(data, m.ProtoReflect().Descriptor(), 0); err != nil {
		return err
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxNesting + 1}).Unmarshal(data, m); err != nil {
		return fmt.Errorf("%s: not a valid message", m.ProtoReflect().Descriptor().Name()) // invalid UTF-8 is what is left
	}
	return nil
}

// walk checks the wire form of one message against its descriptor.
func walk(data []byte, d protoreflect.MessageDescriptor, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%s: messages nest deeper than %d", d.Name(), maxNesting)
	}
	seen := map[protoreflect.FieldNumber]bool{}
	oneofs := map[protoreflect.FullName]bool{}
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("%s: cut short or not protobuf", d.Name())
		}
		data = data[n:]
		f := d.Fields().ByNumber(number)
		if f == nil {
			return fmt.Errorf("%s: unknown field %d", d.Name(), number)
		}
		if f.IsMap() {
			return fmt.Errorf("%s.%s: maps are not taken", d.Name(), f.Name())
		}
		if !f.IsList() {
			if seen[number] {
				return fmt.Errorf("%s.%s: appears twice", d.Name(), f.Name())
			}
			seen[number] = true
		}
		if one := f.ContainingOneof(); one != nil {
			if oneofs[one.FullName()] {
				return fmt.Errorf("%s.%s: more than one member is set", d.Name(), one.Name())
			}
			oneofs[one.FullName()] = true
		}
		if n = protowire.ConsumeFieldValue(number, wire, data); n < 0 {
			return fmt.Errorf("%s.%s: cut short or not protobuf", d.Name(), f.Name())
		}
		if err := walkField(data[:n], f, wire, depth); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// walkField checks one field's value; value is complete for its wire type.
func walkField(value []byte, f protoreflect.FieldDescriptor, wire protowire.Type, depth int) error {
	parent := f.ContainingMessage().Name()
	want, ok := wireTypes[f.Kind()]
	if !ok {
		return fmt.Errorf("%s.%s: fields of kind %s are not taken", parent, f.Name(), f.Kind())
	}
	if wire == protowire.BytesType && want != protowire.BytesType && f.IsList() {
		packed, _ := protowire.ConsumeBytes(value)
		for len(packed) > 0 {
			n := protowire.ConsumeFieldValue(f.Number(), want, packed)
			if n < 0 {
				return fmt.Errorf("%s.%s: cut short or not protobuf", parent, f.Name())
			}
			if err := checkScalar(packed[:n], f); err != nil {
				return err
			}
			packed = packed[n:]
		}
		return nil
	}
	if wire != want {
		return fmt.Errorf("%s.%s: has wire type %d, want %d", parent, f.Name(), wire, want)
	}
	if f.Kind() == protoreflect.MessageKind {
		inner, _ := protowire.ConsumeBytes(value)
		return walk(inner, f.Message(), depth+1)
	}
	return checkScalar(value, f)
}

var wireTypes = map[protoreflect.Kind]protowire.Type{
	protoreflect.BoolKind:     protowire.VarintType,
	protoreflect.EnumKind:     protowire.VarintType,
	protoreflect.Int32Kind:    protowire.VarintType,
	protoreflect.Sint32Kind:   protowire.VarintType,
	protoreflect.Uint32Kind:   protowire.VarintType,
	protoreflect.Int64Kind:    protowire.VarintType,
	protoreflect.Sint64Kind:   protowire.VarintType,
	protoreflect.Uint64Kind:   protowire.VarintType,
	protoreflect.Fixed32Kind:  protowire.Fixed32Type,
	protoreflect.Sfixed32Kind: protowire.Fixed32Type,
	protoreflect.FloatKind:    protowire.Fixed32Type,
	protoreflect.Fixed64Kind:  protowire.Fixed64Type,
	protoreflect.Sfixed64Kind: protowire.Fixed64Type,
	protoreflect.DoubleKind:   protowire.Fixed64Type,
	protoreflect.StringKind:   protowire.BytesType,
	protoreflect.BytesKind:    protowire.BytesType,
	protoreflect.MessageKind:  protowire.BytesType,
}

// checkScalar refuses varints that don't fit the field, and enum numbers that name nothing.
func checkScalar(value []byte, f protoreflect.FieldDescriptor) error {
	if wireTypes[f.Kind()] != protowire.VarintType {
		return nil
	}
	v, _ := protowire.ConsumeVarint(value)
	fits := true
	switch f.Kind() {
	case protoreflect.BoolKind:
		fits = v <= 1
	case protoreflect.Uint32Kind, protoreflect.Sint32Kind:
		fits = v <= math.MaxUint32
	case protoreflect.Int32Kind:
		fits = int64(v) >= math.MinInt32 && int64(v) <= math.MaxInt32
	case protoreflect.EnumKind:
		fits = v <= math.MaxInt32 && f.Enum().Values().ByNumber(protoreflect.EnumNumber(v)) != nil
	}
	if !fits {
		return fmt.Errorf("%s.%s: %d is out of range", f.ContainingMessage().Name(), f.Name(), v)
	}
	return nil
}
