package evm

import (
	"encoding/hex"
	"strconv"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Arguments as a policy reads them, and as this package does.

// arguments are the arguments of a function by name; those without a name are
// called by their place, '0' the first.
func (f *abiFunction) arguments(args []abiValue) chains.Value {
	names, values := make([]string, len(args)), make([]chains.Value, len(args))
	for i := range args {
		if names[i] = f.inputs.fields[i].name; names[i] == "" {
			names[i] = strconv.Itoa(i)
		}
		values[i] = f.inputs.fields[i].typ.view(args[i])
	}
	return chains.MapValue(names, values)
}

// view is one argument; arrays and tuples are lists.
func (t *abiType) view(v abiValue) chains.Value {
	switch t.kind {
	case kindArray, kindFixedArray, kindStruct:
		vs := make([]chains.Value, len(v.list))
		for i := range vs {
			part := t.elem
			if t.kind == kindStruct {
				part = t.fields[i].typ
			}
			vs[i] = part.view(v.list[i])
		}
		return chains.ListValue(vs...)
	case kindUint:
		n := v.uint()
		return chains.IntValue(&n)
	case kindInt:
		n := v.uint()
		negative := n.Sign() < 0
		if negative {
			n.Neg(&n)
		}
		out := chains.IntValue(&n)
		out.Neg = negative
		return out
	case kindAddress:
		return chains.AddressValue(v.address())
	case kindBool:
		return chains.BoolValue(v.bool())
	case kindString:
		return chains.StringValue(string(v.data))
	case kindFixedBytes:
		return chains.HexValue(hexText(v.data[:t.size]))
	}
	return chains.HexValue(hexText(v.data))
}

func (v abiValue) uint() (n uint256.Int) {
	n.SetBytes(v.data)
	return n
}

func (v abiValue) address() [20]byte { return [20]byte(v.data[12:32]) }

func (v abiValue) bool() bool { return v.data[31] == 1 }

// byte is the value of a uint8.
func (v abiValue) byte() byte { return v.data[31] }

// hexText is "0x" and lower-case digits.
func hexText(b []byte) string {
	return string(hex.AppendEncode(append(make([]byte, 0, 2+2*len(b)), "0x"...), b))
}
