package evm

import (
	"bytes"
	"math/big"
	"runtime"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/sigild/sigild/chains"
)

func TestRefusals(t *testing.T) {
	max256 := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	legacy := func(chainID, r, s *big.Int) []byte {
		b, err := rlp.EncodeToBytes([]any{uint64(0), big.NewInt(1), uint64(21000), testTo, big.NewInt(1), []byte{}, chainID, r, s})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	zero, one := big.NewInt(0), big.NewInt(1)
	pre155, _ := rlp.EncodeToBytes([]any{uint64(0), one, uint64(21000), testTo, one, []byte{}})
	good := encode(t, transfer())
	for name, tc := range map[string]struct {
		in   []byte
		code string
		text string
	}{
		"empty":               {nil, chains.CodeForm, "empty"},
		"oversized":           {make([]byte, MaxSize+1), chains.CodeForm, "at most"},
		"type byte only":      {[]byte{2}, chains.CodeEncoding, "missing"},
		"blob":                {append([]byte{3}, good[1:]...), chains.CodeEncoding, "missing"},
		"set code":            {append([]byte{4}, good[1:]...), chains.CodeEncoding, "missing"},
		"unknown type":        {append([]byte{5}, good[1:]...), chains.CodeEncoding, "unknown transaction type 0x05"},
		"string":              {append([]byte{0xb8, byte(len(good))}, good...), chains.CodeEncoding, "string"},
		"trailing byte":       {append(bytes.Clone(good), 0), chains.CodeEncoding, "after the transaction"},
		"chain id 0":          {encode(t, transfer(func(x *types.DynamicFeeTx) { x.ChainID = zero })), chains.CodeSemantic, "chain id 0"},
		"chain id 0 legacy":   {legacy(zero, zero, zero), chains.CodeSemantic, "chain id 0"},
		"last nonce":          {encode(t, transfer(func(x *types.DynamicFeeTx) { x.Nonce = ^uint64(0) })), chains.CodeSemantic, "nonce"},
		"tip above cap":       {encode(t, transfer(func(x *types.DynamicFeeTx) { x.GasTipCap = big.NewInt(31e9) })), chains.CodeSemantic, "above"},
		"fee overflow":        {encode(t, transfer(func(x *types.DynamicFeeTx) { x.GasFeeCap = max256 })), chains.CodeSemantic, "256 bits"},
		"before EIP-155":      {pre155, chains.CodeSemantic, "EIP-155"},
		"huge legacy chain":   {legacy(max256, zero, zero), chains.CodeSemantic, "chain id too large"},
		"signed legacy":       {legacy(big.NewInt(37), one, one), chains.CodeForm, "signed already"},
		"half signed legacy":  {legacy(big.NewInt(37), zero, one), chains.CodeForm, "signed already"},
		"pre-155 signed":      {legacy(big.NewInt(27), one, one), chains.CodeForm, "signed already"},
		"33-byte integer":     {encode(t, transfer(func(x *types.DynamicFeeTx) { x.Value = new(big.Int).Add(max256, one) })), chains.CodeEncoding, "value is too large"},
		"sidecar-like nested": {append([]byte{2}, mustRLP(t, []any{[]any{one}, []any{}})...), chains.CodeEncoding, "chain id is a list"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeTx(tc.in, testWallet)
			if de := wantCode(t, err, tc.code); !strings.Contains(de.Message, tc.text) {
				t.Errorf("message %q, want it to say %q", de.Message, tc.text)
			}
		})
	}
}

func mustRLP(t testing.TB, v any) []byte {
	t.Helper()
	b, err := rlp.EncodeToBytes(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignedTypedIsToldFromExtraFields(t *testing.T) {
	x := transfer()
	items := []any{x.ChainID, x.Nonce, x.GasTipCap, x.GasFeeCap, x.Gas, x.To, x.Value, x.Data, x.AccessList}
	signed := append([]byte{2}, mustRLP(t, append(items, uint(1), big.NewInt(5), big.NewInt(6)))...)
	_, err := decodeTx(signed, testWallet)
	wantCode(t, err, chains.CodeForm)
	for _, extra := range [][]any{{uint(1)}, {uint(1), big.NewInt(5)}, {uint(2), big.NewInt(5), big.NewInt(6)}, {[]any{}, uint(1), uint(1)}, {uint(1), uint(1), uint(1), uint(1)}} {
		b := append([]byte{2}, mustRLP(t, append(items[:9:9], extra...))...)
		_, err := decodeTx(b, testWallet)
		wantCode(t, err, chains.CodeEncoding)
	}
}

// Every non-canonical spelling of a length or integer, at the place of the value.
func TestNonCanonicalIntegers(t *testing.T) {
	good := encode(t, transfer(func(x *types.DynamicFeeTx) { x.Value = big.NewInt(5) }))
	i := bytes.Index(good, append(testTo.Bytes(), 5)) + 20
	for name, spelling := range map[string][]byte{
		"zero byte":         {0x00},
		"wrapped byte":      {0x81, 0x05},
		"leading zero":      {0x82, 0x00, 0x05},
		"long form":         {0xb8, 0x01, 0x05},
		"long form zeros":   {0xb9, 0x00, 0x01, 0x05},
		"list":              {0xc1, 0x05},
		"empty list":        {0xc0},
		"length 2^64-1":     {0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"length 2^63":       {0xbf, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"list 2^64-1":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"beyond the list":   {0x90, 0x05},
		"length cut off":    {0xbf, 0xff},
		"33 bytes":          append([]byte{0xa1, 1}, make([]byte, 32)...),
		"string of 56, 00s": append([]byte{0xb8, 56}, make([]byte, 56)...),
	} {
		body := append(append(bytes.Clone(good[2:i]), spelling...), good[i+1:]...)
		in := append([]byte{2}, listHeader(len(body))...)
		_, err := decodeTx(append(in, body...), testWallet)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantCode(t, err, chains.CodeEncoding)
	}
}

func listHeader(n int) []byte {
	if n < 56 {
		return []byte{0xc0 + byte(n)}
	}
	size := big.NewInt(int64(n)).Bytes()
	return append([]byte{0xf7 + byte(len(size))}, size...)
}

// deepList nests depth empty lists.
func deepList(depth int) []byte {
	size, headers := 0, make([][]byte, 0, depth)
	for range depth {
		h := listHeader(size)
		headers = append(headers, h)
		size += len(h)
	}
	out := make([]byte, 0, size)
	for i := depth - 1; i >= 0; i-- {
		out = append(out, headers[i]...)
	}
	return out
}

// hostile are inputs that would cost a careless reader much.
func hostile(t testing.TB) map[string][]byte {
	big20k := deepList(20000)
	entry := mustRLP(t, types.AccessTuple{Address: testTo})
	many := bytes.Repeat(entry, 200_000/len(entry))
	x := transfer()
	fields := mustRLP(t, []any{x.ChainID, x.Nonce, x.GasTipCap, x.GasFeeCap, x.Gas, x.To, x.Value, bytes.Repeat([]byte{1}, 1<<14)})
	_, content, _, err := rlp.Split(fields)
	if err != nil {
		t.Fatal(err)
	}
	typed := func(accessList []byte) []byte {
		body := append(bytes.Clone(content), accessList...)
		return append(append([]byte{2}, listHeader(len(body))...), body...)
	}
	return map[string][]byte{
		"20000 deep list":            big20k,
		"20000 deep typed":           append([]byte{2}, big20k...),
		"deep access list":           typed(big20k),
		"access list of 200 kB":      typed(append(listHeader(len(many)), many...)),
		"2^64-1 list":                {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"256 kB of one-byte strings": append([]byte{2}, append(listHeader(MaxSize-5), bytes.Repeat([]byte{1}, MaxSize-5)...)...),
	}
}

// fixedCost is what any payload may take, in bytes: the struct of its view, hash states.
const fixedCost = 16 << 10

func TestHostileInputIsCheap(t *testing.T) {
	for name, in := range hostile(t) {
		if len(in) > MaxSize {
			t.Fatalf("%s: %d bytes", name, len(in))
		}
		got := allocated(func() { _, _ = decodeTx(in, testWallet) })
		if limit := uint64(64*len(in) + fixedCost); got > limit {
			t.Errorf("%s: %d bytes allocated for %d of input", name, got, len(in))
		}
	}
	for _, v := range rows[vector](t, "evm_tx.jsonl") {
		in := unhex(t, v.Unsigned)
		if got := allocated(func() { _, _ = decodeTx(in, testWallet) }); got > uint64(64*len(in)+fixedCost) {
			t.Errorf("%s: %d bytes allocated for %d of input", v.ID, got, len(in))
		}
	}
	// The large access list is legal, and is decoded.
	if _, err := decodeTx(hostile(t)["access list of 200 kB"], testWallet); err != nil {
		t.Errorf("large access list: %v", err)
	}
}

// allocated is the heap f takes, in bytes; the least of a few runs.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
