package evm

import (
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"
)

// vectorCall is one call of testdata/evm_calls.jsonl.
type vectorCall struct {
	Path, From, To, Value, Op, Data string
	Depth                           uint64
	Selector                        *string
	Wrapper, Leaf                   string
}

func TestFlattenedCallsOfTheVectors(t *testing.T) {
	wrapped := 0
	for _, row := range rows[struct {
		ID    string
		Calls []vectorCall
	}](t, "evm_calls.jsonl") {
		t.Run(row.ID, func(t *testing.T) {
			first := row.Calls[0]
			from, err := ParseAddress(first.From)
			if err != nil {
				t.Fatal(err)
			}
			to, err := ParseAddress(first.To)
			if err != nil {
				t.Fatal(err)
			}
			got := flatten(call{op: opCall, from: from, to: to, value: *uint256.MustFromDecimal(first.Value), data: unhex(t, first.Data)}, uint256.NewInt(1), Options{Wallet: from})
			if len(got.calls) != len(row.Calls) {
				t.Fatalf("%d calls, want %d", len(got.calls), len(row.Calls))
			}
			for i, want := range row.Calls {
				c := &got.calls[i]
				if c.path != want.Path || uint64(c.depth) != want.Depth || c.op != want.Op || Checksum(c.from) != want.From ||
					Checksum(c.to) != want.To || c.value.Dec() != want.Value || hexText(c.data) != want.Data {
					t.Errorf("call %d is %s %s from %x to %x with %s, want %+v", i, c.path, c.op, c.from, c.to, c.value.Dec(), want)
				}
				if want.Wrapper != "" {
					wrapped++
				}
				if (want.Wrapper != "" || want.Leaf != "") && c.status != dataExact {
					t.Errorf("call %s (%s%s): status %s", c.path, want.Wrapper, want.Leaf, c.status)
				}
			}
			if err := listOf(CallType).Conform(got.view()); err != nil {
				t.Errorf("view: %v", err)
			}
		})
	}
	if wrapped < 8 {
		t.Errorf("only %d wrappers", wrapped)
	}
}

// Whatever is cut off, appended or set in the padding of calldata: it is no longer exact.
func TestOtherEncodingsAreNotExact(t *testing.T) {
	for _, row := range rows[struct {
		ID    string
		Calls []vectorCall
	}](t, "evm_calls.jsonl") {
		for _, c := range row.Calls {
			data := unhex(t, c.Data)
			if len(data) < 36 || builtins[[4]byte(data[:4])] == nil {
				continue
			}
			read := func(data []byte) *tree {
				return flatten(call{op: opCall, data: data}, uint256.NewInt(1), Options{})
			}
			if got := read(data); got.calls[0].status != dataExact {
				t.Fatalf("%s %s: status %s", row.ID, c.Path, got.calls[0].status)
			}
			for n := 5; n < len(data); n += 7 {
				got := read(data[:n])
				if holds := builtins[[4]byte(data[:4])].calls != nil; holds != got.view().Partial {
					t.Errorf("%s %s cut to %d bytes: the list of calls says it is whole", row.ID, c.Path, n)
				}
				if got.calls[0].status == dataExact || !got.opaque {
					t.Errorf("%s %s cut to %d bytes: %s", row.ID, c.Path, n, got.calls[0].status)
				}
			}
			for _, tail := range [][]byte{{0}, make([]byte, 32), data} {
				if got := read(append(append([]byte(nil), data...), tail...)); got.calls[0].status == dataExact || len(got.calls) > 1 {
					t.Errorf("%s %s with %d bytes more: %s", row.ID, c.Path, len(tail), got.calls[0].status)
				}
			}
		}
	}
}

// wrap puts calldata into Multicall3's aggregate3 as often as asked.
func wrap(data []byte, times int) []byte {
	for range times {
		b := append([]byte(nil), function("aggregate3((address target,bool allowFailure,bytes callData)[] calls)").selector[:]...)
		word := func(n int) {
			w := uint256.NewInt(uint64(n)).Bytes32()
			b = append(b, w[:]...)
		}
		for _, n := range []int{32, 1, 32, 0xbeef, 0, 96, len(data)} {
			word(n)
		}
		b = append(b, data...)
		data = append(b, make([]byte, (32-len(data)%32)%32)...)
	}
	return data
}

func TestDepthOfCallsIsBounded(t *testing.T) {
	for times, want := range map[int]bool{0: true, 1: true, maxCallDepth: true, maxCallDepth + 1: false, 40: false} {
		d, err := decodeTx(encode(t, transfer(func(x *types.DynamicFeeTx) { x.Data = wrap(erc20Transfer(), times) })), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		calls := field(t, d, "calls")
		if known := calls.IsList(); known != want || d.Opaque == want || want && calls.Len() != times+1 {
			t.Errorf("%d deep: calls known %v (%d), opaque %v", times, known, calls.Len(), d.Opaque)
		}
		if !want && !strings.Contains(d.Summary, "more calls than are looked at") {
			t.Errorf("%d deep: summary %s", times, d.Summary)
		}
	}
}

func TestNumberOfCallsIsBounded(t *testing.T) {
	f := function("multicall(bytes[] data)")
	build := func(n int) []byte {
		b := append([]byte(nil), f.selector[:]...)
		word := func(n int) {
			w := uint256.NewInt(uint64(n)).Bytes32()
			b = append(b, w[:]...)
		}
		word(32)
		word(n)
		for i := range n {
			word(32*n + 32*i)
		}
		for range n {
			word(0)
		}
		return b
	}
	for n, want := range map[int]bool{0: true, maxCalls - 1: true, maxCalls: false, 4000: false} {
		d, err := decodeTx(encode(t, transfer(func(x *types.DynamicFeeTx) { x.Data = build(n) })), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		if calls := field(t, d, "calls"); calls.IsList() != want || d.Opaque == want {
			t.Errorf("%d calls inside: known %v, opaque %v", n, calls.IsList(), d.Opaque)
		}
	}
}
