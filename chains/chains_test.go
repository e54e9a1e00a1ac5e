package chains_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

func TestFormatUnits(t *testing.T) {
	for _, tc := range []struct {
		n        string
		decimals int
		want     string
	}{
		{"0", 18, "0"},
		{"1", 18, "0.000000000000000001"},
		{"500000000000000000", 18, "0.5"},
		{"1000000000000000000", 18, "1"},
		{"1230000000000000000000", 18, "1230"},
		{"5000", 9, "0.000005"},
		{"7", 0, "7"},
		{"115792089237316195423570985008687907853269984665640564039457584007913129639935", 18,
			"115792089237316195423570985008687907853269984665640564039457.584007913129639935"},
	} {
		if got := chains.FormatUnits(uint256.MustFromDecimal(tc.n), tc.decimals); got != tc.want {
			t.Errorf("FormatUnits(%s, %d) = %s, want %s", tc.n, tc.decimals, got, tc.want)
		}
	}
}

func TestViewEqualSeesEveryDifference(t *testing.T) {
	build := func(change func(*chains.Value)) chains.View {
		inner := chains.StructValue(
			chains.Uint64Value(7), chains.StringValue("s"), chains.BoolValue(true),
			chains.AddressValue([20]byte{1}), chains.PubkeyValue([32]byte{2}),
			chains.ListValue(chains.HexValue("0x01"), chains.UnresolvedPubkey()),
			chains.MapValue([]string{"k"}, []chains.Value{chains.Uint64Value(1)}),
		)
		if change != nil {
			change(&inner)
		}
		return chains.View{"root": inner}
	}
	base := build(nil)
	if !base.Equal(build(nil)) {
		t.Fatal("a view differs from its twin")
	}
	changes := map[string]func(*chains.Value){
		"integer": func(v *chains.Value) { v.List[0].Int.SetUint64(8) },
		"sign":    func(v *chains.Value) { v.List[0].Neg = true },
		"string":  func(v *chains.Value) { v.List[1].Str = "t" },
		"bool":    func(v *chains.Value) { v.List[2] = chains.BoolValue(false) },
		"address": func(v *chains.Value) { v.List[3].Raw[19] = 9 },
		"absent":  func(v *chains.Value) { v.List[4] = chains.Value{} },
		"hex":     func(v *chains.Value) { v.List[5].List[0].Str = "0x02" },
		"shorter": func(v *chains.Value) { v.List[5].List = v.List[5].List[:1] },
		"map":     func(v *chains.Value) { v.List[6].Map.Values[0] = chains.Uint64Value(2) },
		"map key": func(v *chains.Value) { v.List[6].Map.Names[0] = "l" },
		"kind":    func(v *chains.Value) { v.List[1].Kind = chains.KindHex },
	}
	for name, change := range changes {
		if base.Equal(build(change)) {
			t.Errorf("changed %s: views still equal", name)
		}
	}
	if base.Equal(chains.View{"other": base["root"]}) {
		t.Error("views with different roots are equal")
	}
}

func TestConformSeesWrongLayout(t *testing.T) {
	num := &chains.Type{Kind: chains.KindInt}
	typ := &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
		{Name: "n", Type: num},
		{Name: "l", Type: &chains.Type{Kind: chains.KindList, Elem: &chains.Type{Kind: chains.KindPubkey}}},
		{Name: "a", Type: &chains.Type{Kind: chains.KindAddress}},
	}}
	good := chains.StructValue(chains.Uint64Value(1),
		chains.ListValue(chains.PubkeyValue([32]byte{}), chains.UnresolvedPubkey()), chains.Value{})
	if err := typ.Conform(good); err != nil {
		t.Fatalf("good value: %v", err)
	}
	if got := typ.Index("a"); got != 2 {
		t.Errorf("Index(a) = %d, want 2", got)
	}
	if got := typ.Index("b"); got != -1 {
		t.Errorf("Index(b) = %d, want -1", got)
	}
	short := chains.Value{Kind: chains.KindPubkey, Raw: make([]byte, 31)}
	for name, bad := range map[string]chains.Value{
		"kind":          chains.Uint64Value(1),
		"missing field": chains.StructValue(chains.Uint64Value(1)),
		"field kind":    chains.StructValue(chains.StringValue("1"), good.List[1], good.List[2]),
		"element":       chains.StructValue(good.List[0], chains.ListValue(short), good.List[2]),
		"address": chains.StructValue(good.List[0], good.List[1],
			chains.Value{Kind: chains.KindAddress, Raw: make([]byte, 19)}),
	} {
		if typ.Conform(bad) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDecodeErrorText(t *testing.T) {
	var err error = &chains.DecodeError{Code: chains.CodeEncoding, Message: "bytes after the message", Offset: 7}
	if got, want := err.Error(), "encoding at byte 7: bytes after the message"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("decoding payload: %w", &chains.DecodeError{Code: chains.CodeForm, Message: "empty payload", Offset: -1})
	var de *chains.DecodeError
	if !errors.As(wrapped, &de) || de.Code != chains.CodeForm || de.Error() != "form: empty payload" {
		t.Errorf("got %v", wrapped)
	}
}

// counting makes the integers from 0 on.
type counting int

func (c counting) Len() int              { return int(c) }
func (c counting) At(i int) chains.Value { return chains.Uint64Value(uint64(i)) }

// A list whose elements are made when they are read is the list of these elements.
func TestSequences(t *testing.T) {
	whole := chains.ListValue(chains.Uint64Value(0), chains.Uint64Value(1), chains.Uint64Value(2))
	made := chains.SeqValue(counting(3))
	if !made.IsList() || made.Len() != 3 || !whole.Equal(made) || !made.Equal(whole) || !made.Equal(chains.SeqValue(counting(3))) {
		t.Error("the two forms of a list differ")
	}
	var at chains.Value
	if v := made.At(2, &at); v != &at || v.Int.Uint64() != 2 {
		t.Errorf("element %+v", v)
	}
	if v := whole.At(2, &at); v != &whole.List[2] {
		t.Errorf("element %+v", v)
	}
	partial := made
	partial.Partial = true
	for name, other := range map[string]chains.Value{
		"shorter": chains.SeqValue(counting(2)), "partial": partial, "other elements": chains.ListValue(chains.Uint64Value(0), chains.Uint64Value(1), chains.Uint64Value(3)),
		"no list": chains.Uint64Value(3), "nothing": {},
	} {
		if made.Equal(other) || other.Equal(made) || whole.Equal(other) {
			t.Errorf("%s: equal", name)
		}
	}
	numbers := &chains.Type{Kind: chains.KindList, Elem: &chains.Type{Kind: chains.KindInt}}
	texts := &chains.Type{Kind: chains.KindList, Elem: &chains.Type{Kind: chains.KindString}}
	if err := numbers.Conform(made); err != nil {
		t.Error(err)
	}
	if texts.Conform(made) == nil || numbers.Elem.Conform(made) == nil {
		t.Error("a list of numbers passes for something else")
	}
}
