package evm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// typedVector is one row of testdata/eip712.jsonl.
type typedVector struct {
	ID, Name, SigningHash, EncodeType string
	TypedData                         json.RawMessage
}

func TestTypedDataVectors(t *testing.T) {
	for _, v := range rows[typedVector](t, "eip712.jsonl") {
		p, err := parseTypedData(v.TypedData)
		if err != nil {
			t.Errorf("%s %s: %v", v.ID, v.Name, err)
			continue
		}
		if got := fmt.Sprintf("0x%x", p.digest); got != v.SigningHash || p.form != v.EncodeType {
			t.Errorf("%s %s: digest %s of %s, want %s of %s", v.ID, v.Name, got, p.form, v.SigningHash, v.EncodeType)
		}
		if err := TypedDataType.Conform(p.view); err != nil {
			t.Errorf("%s: view: %v", v.ID, err)
		}
	}
}

// typed is typed data with one struct T of the given field type and value.
func typed(fieldType, value string) string {
	return `{"types":{"EIP712Domain":[{"name":"name","type":"string"}],"T":[{"name":"a","type":"` + fieldType + `"}],"N":[{"name":"n","type":"N[]"}]},` +
		`"primaryType":"T","domain":{"name":"n"},"message":{"a":` + value + `}}`
}

func TestTypedValues(t *testing.T) {
	for _, tc := range []struct {
		typ, value string
		ok         bool
	}{
		{"uint8", "255", true}, {"uint8", "256", false}, {"uint8", "-1", false}, {"uint8", `"0xff"`, true}, {"uint8", `"0x0ff"`, true}, {"uint8", `"0x100"`, false},
		{"uint8", `"-0"`, false}, {"uint8", "-0", false}, {"uint8", "1.0", false}, {"uint8", "1e1", false}, {"uint8", `"1e1"`, false}, {"uint8", `""`, false}, {"uint8", `"0x"`, false},
		{"uint8", `"01"`, false}, {"uint8", "01", false}, {"uint8", `" 1"`, false}, {"uint8", `"+1"`, false}, {"uint8", "true", false}, {"uint8", "null", false}, {"uint8", "{}", false}, {"uint8", "[1]", false},
		{"uint8", `"0X1"`, false}, {"uint8", `"0xg"`, false}, {"uint8", `"１"`, false},
		{"int8", "-128", true}, {"int8", "-129", false}, {"int8", "127", true}, {"int8", "128", false}, {"int8", `"-128"`, true}, {"int8", `"-0x1"`, false},
		{"uint256", "9007199254740991", true}, {"uint256", "9007199254740992", false}, {"uint256", "9007199254740993", false}, {"int256", "-9007199254740992", false},
		{"uint256", `"115792089237316195423570985008687907853269984665640564039457584007913129639935"`, true},
		{"uint256", `"115792089237316195423570985008687907853269984665640564039457584007913129639936"`, false},
		{"uint256", `"0x1` + strings.Repeat("0", 64) + `"`, false}, {"uint256", `"0x0` + strings.Repeat("f", 64) + `"`, false},
		{"int256", `"57896044618658097711785492504343953926634992332820282019728792003956564819967"`, true},
		{"int256", `"57896044618658097711785492504343953926634992332820282019728792003956564819968"`, false},
		{"int256", `"-57896044618658097711785492504343953926634992332820282019728792003956564819968"`, true},
		{"int256", `"-57896044618658097711785492504343953926634992332820282019728792003956564819969"`, false},
		{"uint", `"1"`, true}, {"int", `"-1"`, true}, {"uint7", "0", false}, {"uint264", "0", false}, {"uint08", "0", false}, {"uint 8", "0", false}, {"Uint8", "0", false},
		{"bool", "true", true}, {"bool", `"true"`, false}, {"bool", "1", false}, {"bool", "null", false}, {"bool", "tru", false},
		{"string", `""`, true}, {"string", `"\u00e9\ud83d\ude00"`, true}, {"string", `"\ud83d"`, false}, {"string", `"\ude00"`, false}, {"string", `"\ud83dx"`, false},
		{"string", `"\ud83d\ud83d"`, false}, {"string", "\"\xff\"", false}, {"string", "\"\x01\"", false}, {"string", `"\x41"`, false}, {"string", "1", false}, {"string", `"\u12"`, false},
		{"bytes", `"0x"`, true}, {"bytes", `"0xABcd"`, true}, {"bytes", `"0xabc"`, false}, {"bytes", `"abcd"`, false}, {"bytes", `"hello"`, false}, {"bytes", "[1,2]", false}, {"bytes", `""`, false},
		{"bytes4", `"0x01020304"`, true}, {"bytes4", `"0x010203"`, false}, {"bytes4", `"0x0102030405"`, false}, {"bytes0", `"0x"`, false}, {"bytes33", `"0x"`, false}, {"bytes32", `"0x"`, false},
		{"address", `"0x000000000000000000000000000000000000dEaD"`, true}, {"address", `"0x000000000000000000000000000000000000DeaD"`, false}, {"address", `"0x000000000000000000000000000000000000dead"`, true},
		{"address", `"0x00000000000000000000000000000000000dead"`, false}, {"address", `"000000000000000000000000000000000000dead"`, false}, {"address", `"0X000000000000000000000000000000000000dead"`, false},
		{"address", `"vitalik.eth"`, false}, {"address", "0", false}, {"address", "null", false},
		{"uint8[]", "[]", true}, {"uint8[]", "[1,2]", true}, {"uint8[]", "[1,]", false}, {"uint8[]", "[1 2]", false}, {"uint8[]", "[null]", false}, {"uint8[]", "1", false}, {"uint8[]", "{}", false}, {"uint8[]", "[256]", false},
		{"uint8[2]", "[1,2]", true}, {"uint8[2]", "[1]", false}, {"uint8[2]", "[1,2,3]", false}, {"uint8[2][]", "[[1,2],[3,4]]", true}, {"uint8[2][]", "[[1,2],[3]]", false}, {"uint8[][2]", "[[],[1]]", true},
		{"uint8[][2]", "[1,2]", false}, {"uint8[02]", "[1,2]", false}, {"uint8[-1]", "[]", false}, {"uint8[][", "[]", false}, {"uint8]", "1", false}, {"uint8[ ]", "[]", false}, {"uint8[999999]", "[]", false}, {"[]", "[]", false},
		{"N", `{"n":[]}`, true}, {"N", `{"n":[{"n":[]},{"n":[]}]}`, true}, {"N", "null", false}, {"N", "{}", false}, {"N", `{"n":[],"m":1}`, false}, {"N", `{"n":[],"n":[]}`, false}, {"N", `{"n":[null]}`, false}, {"M", "{}", false},
		{"EIP712Domain", `{"name":"x"}`, false}, {"function", `"0x"`, false}, {"fixed128x18", "1", false}, {"", "1", false}, {"tuple", "{}", false},
	} {
		_, err := Decode(chains.KindEVMTypedData, []byte(typed(tc.typ, tc.value)), Options{})
		if (err == nil) != tc.ok {
			t.Errorf("%s %s: %v, want accepted %v", tc.typ, tc.value, err, tc.ok)
		}
	}
}

func TestTypedForms(t *testing.T) {
	good := typed("uint8", "1")
	if _, err := parseTypedData([]byte("\n\t" + good + " \r\n")); err != nil {
		t.Fatal(err)
	}
	domain := func(fields, values string) string {
		s := strings.Replace(good, `[{"name":"name","type":"string"}]`, "["+fields+"]", 1)
		return strings.Replace(s, `"domain":{"name":"n"}`, `"domain":{`+values+`}`, 1)
	}
	name, version := `{"name":"name","type":"string"}`, `{"name":"version","type":"string"}`
	for what, text := range map[string]string{
		"no domain fields": domain("", ""),
		"two in order":     domain(name+","+version, `"version":"","name":""`),
		"fields turned":    strings.Replace(good, `{"name":"a","type":"uint8"}`, `{"type":"uint8","name":"a"}`, 1),
		"another order":    `{"message":{"a":1},"domain":{},"primaryType":"T","types":{"T":[{"name":"a","type":"uint8"}],"EIP712Domain":[]}}`,
		"hyperliquid":      strings.ReplaceAll(good, `"T"`, `"HyperliquidTransaction:ApproveAgent"`),
		"a type unused":    strings.Replace(good, `"N":[`, `"Other":[],"N":[`, 1),
		"escaped names":    strings.Replace(good, `"message":`, `"\u006dessage":`, 1),
	} {
		if _, err := parseTypedData([]byte(text)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, text := range map[string]string{
		"empty":                 "",
		"no object":             "[]",
		"nothing":               "{}",
		"cut":                   good[:len(good)-1],
		"followed":              good + "1",
		"two":                   good + good,
		"BOM":                   "\ufeff" + good,
		"comment":               strings.Replace(good, "{", "{/**/", 1),
		"trailing comma":        strings.Replace(good, `{"a":1}`, `{"a":1,}`, 1),
		"single quotes":         strings.ReplaceAll(good, `"`, "'"),
		"NaN":                   strings.Replace(good, `{"a":1}`, `{"a":NaN}`, 1),
		"unknown top member":    strings.Replace(good, "{", `{"x":1,`, 1),
		"message twice":         strings.Replace(good, "}}", `},"message":{"a":1}}`, 1),
		"types twice":           strings.Replace(good, "{", `{"types":{},`, 1),
		"escaped twice":         strings.Replace(good, `{"a":1}`, `{"a":1,"\u0061":1}`, 1),
		"no message":            strings.Replace(good, `,"message":{"a":1}`, "", 1),
		"message null":          strings.Replace(good, `{"a":1}`, "null", 1),
		"message list":          strings.Replace(good, `{"a":1}`, "[1]", 1),
		"domain null":           strings.Replace(good, `{"name":"n"}`, "null", 1),
		"domain more":           strings.Replace(good, `{"name":"n"}`, `{"name":"n","version":"1"}`, 1),
		"domain less":           strings.Replace(good, `{"name":"n"}`, `{}`, 1),
		"no EIP712Domain":       strings.Replace(good, `"EIP712Domain":[{"name":"name","type":"string"}],`, "", 1),
		"domain out of order":   domain(version+","+name, `"version":"","name":""`),
		"domain twice":          domain(name+","+name, `"name":""`),
		"domain of its own":     domain(`{"name":"x","type":"string"}`, `"x":""`),
		"domain, other type":    domain(`{"name":"name","type":"bytes32"}`, `"name":"0x"`),
		"chain id, other type":  domain(`{"name":"chainId","type":"uint64"}`, `"chainId":1`),
		"primary unknown":       strings.Replace(good, `"primaryType":"T"`, `"primaryType":"X"`, 1),
		"primary empty":         strings.Replace(good, `"primaryType":"T"`, `"primaryType":""`, 1),
		"primary a domain":      strings.Replace(good, `"primaryType":"T"`, `"primaryType":"EIP712Domain"`, 1),
		"primary an array":      strings.Replace(good, `"primaryType":"T"`, `"primaryType":"T[]"`, 1),
		"primary a number":      strings.Replace(good, `"primaryType":"T"`, `"primaryType":1`, 1),
		"field twice":           strings.Replace(good, `{"name":"a","type":"uint8"}`, `{"name":"a","type":"uint8"},{"name":"a","type":"uint8"}`, 1),
		"field injects":         strings.ReplaceAll(good, `"a"`, `"a,uint8 b"`),
		"field of digits":       strings.ReplaceAll(good, `"a"`, `"1a"`),
		"field of nothing":      strings.ReplaceAll(good, `"a"`, `""`),
		"field not ASCII":       strings.ReplaceAll(good, `"a"`, `"ä"`),
		"field with more":       strings.Replace(good, `{"name":"a",`, `{"name":"a","internalType":"uint8",`, 1),
		"field without type":    strings.Replace(good, `,"type":"uint8"`, "", 1),
		"field as text":         strings.Replace(good, `{"name":"a","type":"uint8"}`, `"uint8 a"`, 1),
		"type injects":          strings.ReplaceAll(good, `"T"`, `"T(uint8 a)X"`),
		"type called uint8":     strings.ReplaceAll(good, `"N"`, `"uint8"`),
		"type called uint7":     strings.ReplaceAll(good, `"N"`, `"uint7"`),
		"type with a space":     strings.ReplaceAll(good, `"T"`, `" T"`),
		"type twice":            strings.Replace(good, `"N":[`, `"T":[],"N":[`, 1),
		"types a list":          strings.Replace(good, `"types":{`, `"types":[{`, 1),
		"struct without fields": strings.Replace(good, `"T":[{"name":"a","type":"uint8"}]`, `"T":{}`, 1),
		"65 types":              strings.Replace(good, `"N":[`, manyTypes(62)+`"N":[`, 1),
		"too deep":              typed(strings.Repeat("uint8", 1)+strings.Repeat("[]", 70), strings.Repeat("[", 70)+strings.Repeat("]", 70)),
	} {
		_, err := Decode(chains.KindEVMTypedData, []byte(text), Options{})
		if err == nil {
			t.Errorf("%s: accepted %s", what, text)
			continue
		}
		if de, ok := err.(*chains.DecodeError); !ok || de.Offset > len(text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := parseTypedData([]byte(strings.Replace(good, `"N":[`, manyTypes(61)+`"N":[`, 1))); err != nil {
		t.Errorf("64 types: %v", err)
	}
}

func manyTypes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"X%d":[],`, i)
	}
	return b.String()
}

// What a policy reads of typed data.
func TestTypedDataView(t *testing.T) {
	const text = `{"types":{"EIP712Domain":[{"name":"chainId","type":"uint256"}],"T":[{"name":"i","type":"int8"},{"name":"s","type":"string"},{"name":"b","type":"bytes2[]"},{"name":"t","type":"U"}],"U":[{"name":"a","type":"address"}]},
		"primaryType":"T","domain":{"chainId":"0x10"},"message":{"t":{"a":"0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"},"b":["0xABCD"],"s":"\u00e9","i":-5}}`
	d, err := Decode(chains.KindEVMTypedData, []byte(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := d.View[TypedDataRoot]
	message := v.List[2].Map
	i, a := message.Get("i"), message.Get("t").Map.Get("a")
	if v.List[0].Str != "T" || v.List[1].List[2].Int.Uint64() != 16 || v.List[1].List[0].Kind != chains.KindAbsent ||
		!i.Neg || i.Int.Uint64() != 5 || message.Get("s").Str != "é" || message.Get("b").Seq.At(0).Str != "0xabcd" || Checksum([20]byte(a.Raw)) != testTo.Hex() {
		t.Errorf("view %+v", v)
	}
	if d.Chain != "eip155:16" || !d.Opaque || len(d.Charges) != 1 || !d.Charges[0].Unbounded {
		t.Errorf("chain %s, opaque %v, charges %+v", d.Chain, d.Opaque, d.Charges)
	}
}
