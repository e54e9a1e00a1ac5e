package evm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// words puts numbers behind a selector.
func words(signature string, numbers ...uint64) []byte {
	f := function(signature)
	b := append([]byte(nil), f.selector[:]...)
	for _, n := range numbers {
		w := uint256.NewInt(n).Bytes32()
		b = append(b, w[:]...)
	}
	return b
}

// hostileKinds are payloads that would cost a careless reader much.
func hostileKinds(t testing.TB) map[string]struct {
	kind    chains.Kind
	payload []byte
} {
	type input = struct {
		kind    chains.Kind
		payload []byte
	}
	typedText := func(fieldType, value string) input {
		return input{chains.KindEVMTypedData, []byte(typed(fieldType, value))}
	}
	call := func(data []byte) input {
		return input{chains.KindEVMTransaction, encode(t, transfer(func(x *types.DynamicFeeTx) { x.Data = data }))}
	}
	const handle = "handleOps(" + op07 + "[] ops,address beneficiary)"
	sameOffset := []uint64{64, 0, 1024}
	for range 1024 {
		sameOffset = append(sameOffset, 32*1024)
	}
	aggregate := []uint64{32, 1024}
	for range 1024 {
		aggregate = append(aggregate, 32*1024)
	}
	node := `{"types":{"EIP712Domain":[],"T":[{"name":"k","type":"T[]"}`
	wide := node
	for i := range 255 {
		wide += fmt.Sprintf(`,{"name":"f%d","type":"uint8"}`, i)
	}
	var fields strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&fields, `{"name":"a%d","type":"T"},`, i)
	}
	chain := `{"types":{"EIP712Domain":[]`
	for i := range 63 {
		chain += fmt.Sprintf(`,"T%d":[{"name":"%s","type":"T%d[]"}]`, i, strings.Repeat("x", 3500), i+1)
	}
	return map[string]input{
		"20000 open lists":         {chains.KindEVMTypedData, []byte(strings.Repeat("[", 20000))},
		"20000 deep objects":       {chains.KindEVMTypedData, []byte(strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000))},
		"20000 deep in a message":  typedText("uint8[]", strings.Repeat("[", 20000)+strings.Repeat("]", 20000)),
		"200 kB of small numbers":  typedText("uint8[]", "["+strings.Repeat("0,", 100000)+"0]"),
		"200 kB of empty arrays":   typedText("uint8[][]", "["+strings.Repeat("[],", 66000)+"[]]"),
		"200 kB of empty bytes":    typedText("bytes[]", "["+strings.Repeat(`"0x",`, 40000)+`"0x"]`),
		"200 kB of empty strings":  typedText("string[]", "["+strings.Repeat(`"",`, 66000)+`""]`),
		"200 kB of true":           typedText("bool[]", "["+strings.Repeat(`true,`, 40000)+`true]`),
		"200 kB of small structs":  typedText("N[]", "["+strings.Repeat(`{"n":[]},`, 22000)+`{"n":[]}]`),
		"structs, 60 deep":         {chains.KindEVMTypedData, []byte(node + `]},"primaryType":"T","domain":{},"message":` + strings.Repeat(`{"k":[`, 30) + strings.Repeat("]}", 30) + "}")},
		"wide structs, cut":        {chains.KindEVMTypedData, []byte(wide + `]},"primaryType":"T","domain":{},"message":` + strings.Repeat(`{"k":[`, 30) + strings.Repeat("]}", 30) + "}")},
		"8000 fields":              {chains.KindEVMTypedData, []byte(`{"types":{"EIP712Domain":[],"T":[` + strings.TrimSuffix(fields.String(), ",") + `]},"primaryType":"T","domain":{},"message":{}}`)},
		"63 types in a chain":      {chains.KindEVMTypedData, []byte(chain + `,"T63":[]},"primaryType":"T0","domain":{},"message":{}}`)},
		"a number of 200 kB":       typedText("uint256", strings.Repeat("9", 200000)),
		"a number of 200 kB, text": typedText("uint256", `"`+strings.Repeat("9", 200000)+`"`),
		"escapes":                  typedText("string", `"`+strings.Repeat(`\u0041`, 40000)+`"`),
		"a type of 200 kB":         typedText("uint8"+strings.Repeat("[]", 100000), "[]"),
		"members of an operation":  {chains.KindEVMUserOperation, []byte(`{"version":{` + strings.Repeat(`"a":1,`, 40000) + `"a":1}}`)},
		"1024 tuples, one offset":  call(words(handle, sameOffset...)),
		"1024 calls, one offset":   call(words("aggregate3((address target,bool allowFailure,bytes callData)[] calls)", aggregate...)),
		"2^32 elements":            call(words("multicall(bytes[] data)", 32, 1<<32-1)),
		"2^63 offset":              call(words("multicall(bytes[] data)", 1<<63, 0)),
		"200 kB of multiSend":      call(multiSendOf(2350)),
		"2000 empty calls":         call(emptyCalls(2000)),
		"multicall in multicall":   call(wrap(bytes.Repeat([]byte{1}, 200_000), 9)),
		"message of 64 kB":         {chains.KindEVMMessage, bytes.Repeat([]byte{'x'}, maxMessage)},
		"binary message of 64 kB":  {chains.KindEVMMessage, bytes.Repeat([]byte{0xff}, maxMessage)},
	}
}

// multiSendOf packs n empty calls.
func multiSendOf(n int) []byte {
	packed := make([]byte, 85*n)
	b := words("multiSend(bytes transactions)", 32, uint64(len(packed)))
	b = append(b, packed...)
	return append(b, make([]byte, (32-len(packed)%32)%32)...)
}

// emptyCalls is a multicall of n calls without data.
func emptyCalls(n int) []byte {
	numbers := []uint64{32, uint64(n)}
	for i := range n {
		numbers = append(numbers, uint64(32*n+32*i))
	}
	return words("multicall(bytes[] data)", append(numbers, make([]uint64, n)...)...)
}

// What a payload costs is bounded by its length: at most 64 bytes of memory for
// each of its own, beside a fixed amount.
func TestHostileKindsAreCheap(t *testing.T) {
	for name, in := range hostileKinds(t) {
		if len(in.payload) > MaxSize {
			t.Errorf("%s: %d bytes", name, len(in.payload))
		}
		got := allocated(func() { _, _ = Decode(in.kind, in.payload, Options{Wallet: testWallet}) })
		if limit := uint64(64*len(in.payload) + fixedCost); got > limit {
			t.Errorf("%s: %d bytes allocated for %d of input", name, got, len(in.payload))
		}
	}
	for kind, payload := range goodPayloads(t) {
		if got := allocated(func() { _, _ = Decode(kind, payload, Options{Wallet: testWallet}) }); got > uint64(64*len(payload)+fixedCost) {
			t.Errorf("%s: %d bytes allocated for %d of input", kind, got, len(payload))
		}
	}
	for _, v := range rows[typedVector](t, "eip712.jsonl") {
		if got := allocated(func() { _, _ = Decode(chains.KindEVMTypedData, v.TypedData, Options{}) }); got > uint64(64*len(v.TypedData)+fixedCost) {
			t.Errorf("%s: %d bytes allocated for %d of input", v.ID, got, len(v.TypedData))
		}
	}
}

func TestHostileABIsAreCheap(t *testing.T) {
	item := `{"type":"function","name":"f%d","inputs":[]},`
	var many strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&many, item, i)
	}
	for name, text := range map[string]string{
		"8000 functions": "[" + strings.TrimSuffix(many.String(), ",") + "]",
		"empty items":    "[" + strings.Repeat("{},", 130000) + "{}]",
		"inputs":         `[{"type":"function","name":"f","inputs":[` + strings.Repeat(`{"type":"uint8"},`, 20000) + `{"type":"uint8"}]}]`,
		"dimensions":     `[{"type":"function","name":"f","inputs":[{"type":"uint8` + strings.Repeat("[]", 190000) + `"}]}]`,
	} {
		got := allocated(func() { _, _ = NewABIs([]ABI{{ChainID: *uint256.NewInt(1), JSON: []byte(text)}}) })
		if limit := uint64(64*len(text) + fixedCost); got > limit {
			t.Errorf("%s: %d bytes allocated for %d of input", name, got, len(text))
		}
	}
}

// checkKind holds for all bytes of all kinds.
func checkKind(t *testing.T, kind chains.Kind, in []byte) (accepted bool) {
	d, err := Decode(kind, in, Options{Wallet: testWallet})
	if err != nil {
		var de *chains.DecodeError
		if !errors.As(err, &de) || d != nil || de.Offset > len(in) || de.Code == "" {
			t.Fatalf("%s %q: %v, %v", kind, in, d, err)
		}
		return false
	}
	checkView(t, d)
	again, err := Decode(kind, d.Raw, Options{Wallet: testWallet})
	if err != nil || again.Sign.Digest != d.Sign.Digest || !again.View.Equal(d.View) {
		t.Fatalf("%s %q: decodes to something else again, %v", kind, in, err)
	}
	for _, c := range d.Charges {
		if c.Asset == "" || c.Chain == "" || !c.Unbounded && c.Amount.IsZero() {
			t.Fatalf("%s %q: charge %+v", kind, in, c)
		}
	}
	return true
}

var fuzzKinds = []chains.Kind{chains.KindEVMTypedData, chains.KindEVMAuthorization, chains.KindEVMUserOperation, chains.KindEVMSafeTransaction, chains.KindEVMMessage, chains.KindEVMTransaction}

func FuzzKinds(f *testing.F) {
	for i, kind := range fuzzKinds {
		f.Add(byte(i), goodPayloads(f)[kind])
	}
	for _, v := range rows[typedVector](f, "eip712.jsonl") {
		f.Add(byte(0), []byte(v.TypedData))
	}
	f.Fuzz(func(t *testing.T, which byte, in []byte) { checkKind(t, fuzzKinds[int(which)%len(fuzzKinds)], in) })
}

// FuzzCalldata: whatever is read as exact packs to the same bytes in go-ethereum
// (see the test of bits); here, that flattening stays within its bounds.
func FuzzCalldata(f *testing.F) {
	for _, row := range rows[struct{ Calls []vectorCall }](f, "evm_calls.jsonl") {
		f.Add(unhex(f, row.Calls[0].Data))
	}
	f.Add(multiSendOf(3))
	f.Add(emptyCalls(3))
	f.Fuzz(func(t *testing.T, in []byte) { checkCalldata(t, in) })
}

func checkCalldata(t *testing.T, in []byte) {
	got := flatten(call{op: opCall, from: testWallet, to: [20]byte{1}, data: in}, uint256.NewInt(1), Options{Wallet: testWallet})
	if len(got.calls) == 0 || len(got.calls) > maxCalls {
		t.Fatalf("%x: %d calls", in, len(got.calls))
	}
	for i := range got.calls {
		c := &got.calls[i]
		if c.depth > maxCallDepth || (c.status == dataExact) != (c.fn != nil) || c.status == "" || c.status != dataExact && c.status != dataNone && !got.opaque {
			t.Fatalf("%x: call %+v", in, c)
		}
	}
	if err := listOf(CallType).Conform(got.view()); err != nil {
		t.Fatalf("%x: %v", in, err)
	}
	got.summary()
}

func FuzzABI(f *testing.F) {
	f.Add([]byte(transferABI))
	f.Fuzz(func(t *testing.T, in []byte) {
		set, err := NewABIs([]ABI{{ChainID: *uint256.NewInt(1), JSON: in}})
		var de *chains.DecodeError
		if err != nil && !errors.As(err, &de) || (set == nil) != (err != nil) {
			t.Fatalf("%q: %v, %v", in, set, err)
		}
	})
}

// TestMutatedKinds changes good payloads in seeded ways: Go's fuzzer keeps close to
// what it was given, and does not run in make test.
func TestMutatedKinds(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	accepted := 0
	for kind, payload := range goodPayloads(t) {
		for range 1500 {
			if checkKind(t, kind, mutate(rng, payload)) {
				accepted++
			}
		}
	}
	for _, v := range rows[typedVector](t, "eip712.jsonl") {
		for range 100 {
			if checkKind(t, chains.KindEVMTypedData, mutate(rng, v.TypedData)) {
				accepted++
			}
		}
	}
	for _, row := range rows[struct{ Calls []vectorCall }](t, "evm_calls.jsonl") {
		data := unhex(t, row.Calls[0].Data)
		for range 200 {
			checkCalldata(t, mutate(rng, data))
		}
	}
	for range 500 {
		_, _ = NewABIs([]ABI{{ChainID: *uint256.NewInt(1), JSON: mutate(rng, []byte(transferABI))}})
	}
	if accepted < 100 {
		t.Errorf("only %d mutants were good: they reach nothing", accepted)
	}
}
