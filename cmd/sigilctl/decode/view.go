package decode

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// How a view is written as JSON:
//   - the fields of all its roots stand in one object, by their names in the
//     policy language; an absent field is left out
//   - integers are decimal strings, since 2^53 wei is less than a cent; only
//     positions (below) are JSON numbers
//   - addresses are EIP-55, public keys base58, hex is 0x and lower case

// positions are integer fields that count places, not amounts.
var positions = map[string]bool{"depth": true, "index": true, "writable_indexes": true, "readonly_indexes": true}

// viewJSON writes a view whose roots are laid out as types says.
func viewJSON(v chains.View, types map[string]*chains.Type) []byte {
	b := []byte{'{'}
	for _, root := range slices.Sorted(maps.Keys(v)) {
		if t := types[root]; t != nil {
			b = appendFields(b, v[root], t)
		}
	}
	return append(b, '}')
}

// appendFields writes the members of a struct that are present.
func appendFields(b []byte, v chains.Value, t *chains.Type) []byte {
	for i, f := range t.Fields {
		if i >= len(v.List) || v.List[i].Kind == chains.KindAbsent {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendText(b, f.Name), ':')
		b = appendValue(b, v.List[i], f.Type, positions[f.Name])
	}
	return b
}

// appendValue writes one node. t is nil below a map, whose values tell their kind.
func appendValue(b []byte, v chains.Value, t *chains.Type, position bool) []byte {
	switch v.Kind {
	case chains.KindBool:
		return strconv.AppendBool(b, !v.Int.IsZero())
	case chains.KindInt:
		n := v.Int.Dec()
		if v.Neg {
			n = "-" + n
		}
		if position {
			return append(b, n...)
		}
		return appendText(b, n)
	case chains.KindAddress:
		return appendText(b, evm.Checksum([20]byte(v.Raw)))
	case chains.KindPubkey:
		if v.Raw == nil {
			return appendText(b, v.Str)
		}
		return appendText(b, solana.Address([32]byte(v.Raw)))
	case chains.KindString, chains.KindHex:
		return appendText(b, v.Str)
	case chains.KindList, chains.KindSeq:
		var elem *chains.Type
		if t != nil {
			elem = t.Elem
		}
		b = append(b, '[')
		var at chains.Value
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, *v.At(i, &at), elem, position)
		}
		return append(b, ']')
	case chains.KindStruct:
		if t == nil {
			return append(b, "null"...)
		}
		return append(appendFields(append(b, '{'), v, t), '}')
	case chains.KindMap:
		b = append(b, '{')
		for i := range v.Map.Len() {
			if v.Map.Values[i].Kind == chains.KindAbsent {
				continue
			}
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			b = append(appendText(b, v.Map.Names[i]), ':')
			b = appendValue(b, v.Map.Values[i], nil, false)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendText(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil { // a string can always be written
		return append(b, `""`...)
	}
	return append(b, q...)
}
