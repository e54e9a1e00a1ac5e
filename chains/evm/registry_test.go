package evm

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

const transferABI = `[{"type":"function","name":"transfer","constant":false,"payable":false,"inputs":[{"type":"address","name":"dst","internalType":"address"},{"type":"uint256","name":"wad"}],"outputs":[{"type":"bool","name":""}]},
	{"type":"event","name":"Transfer","anonymous":false,"inputs":[{"indexed":true,"name":"from","type":"address"}]},{"type":"constructor","inputs":[]},{"type":"fallback"},{"type":"receive"},{"type":"error","name":"E","inputs":[]}]`

func abiFor(t testing.TB, chainID uint64, address common.Address, text string) *ABIs {
	t.Helper()
	set, err := NewABIs([]ABI{{ChainID: *uint256.NewInt(chainID), Address: address, JSON: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// An ABI speaks for its contract on its chain, and for nothing else.
func TestABIsAreOfOneContractOnOneChain(t *testing.T) {
	set := abiFor(t, 1, token, transferABI)
	read := func(change func(*types.DynamicFeeTx)) *chains.Decoded {
		d, err := Decode(chains.KindEVMTransaction, encode(t, transfer(func(x *types.DynamicFeeTx) { x.To, x.Data = &token, erc20Transfer() }, change)), Options{Wallet: testWallet, ABIs: set})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := read(func(*types.DynamicFeeTx) {})
	if name, signature := field(t, d, "function_name"), field(t, d, "function_signature"); name.Str != "transfer" || signature.Str != "0xa9059cbb" {
		t.Errorf("function %s %s", name.Str, signature.Str)
	}
	args := field(t, d, "contract_call_args").Map
	if wad := args.Get("wad"); wad == nil || wad.Int.Uint64() != 1000000 || args.Get("dst") == nil || args.Get("to") != nil {
		t.Errorf("arguments %+v", args)
	}
	if len(d.Charges) != 3 || d.Charges[1].Amount.Uint64() != 1000000 {
		t.Errorf("charges %+v", d.Charges)
	}
	for what, change := range map[string]func(*types.DynamicFeeTx){
		"another contract": func(x *types.DynamicFeeTx) { x.To = &testTo },
		"another chain":    func(x *types.DynamicFeeTx) { x.ChainID = big.NewInt(10) },
		"another function": func(x *types.DynamicFeeTx) { x.Data = append([]byte("\x09\x5e\xa7\xb3"), x.Data[4:]...) },
		"a byte more":      func(x *types.DynamicFeeTx) { x.Data = append(x.Data, 0) },
		"a dirty address":  func(x *types.DynamicFeeTx) { x.Data[4] = 1 },
		"no data":          func(x *types.DynamicFeeTx) { x.Data = nil },
	} {
		d := read(change)
		for _, name := range []string{"function_name", "function_signature", "contract_call_args"} {
			if v := field(t, d, name); v.Kind != chains.KindAbsent {
				t.Errorf("%s: %s is %+v", what, name, v)
			}
		}
	}
}

func TestABIsThatAreRefused(t *testing.T) {
	f := func(name, inputs string) string {
		return fmt.Sprintf(`[{"type":"function","name":"%s","inputs":[%s]}]`, name, inputs)
	}
	arg := func(typ string) string { return fmt.Sprintf(`{"name":"a","type":"%s"}`, typ) }
	for what, text := range map[string]string{
		"no JSON": "x", "object": "{}", "cut": transferABI[:40], "followed": transferABI + "1", "item text": `["transfer"]`, "no type": `[{"name":"f","inputs":[]}]`,
		"unknown item": `[{"type":"method","name":"f"}]`, "no name": `[{"type":"function","inputs":[]}]`, "name injects": f("f(uint8)", ""), "type twice": `[{"type":"function","type":"function","name":"f"}]`,
		"selector twice": strings.Replace(transferABI, "[", `[{"type":"function","name":"transfer","inputs":[{"type":"address","name":"a"},{"type":"uint256","name":"b"}]},`, 1),
		"unknown type":   f("f", arg("uint7")), "alias": f("f", arg("uint")), "bytes0": f("f", arg("bytes0")), "array of 0": f("f", arg("uint8[0]")), "leading zero": f("f", arg("uint8[01]")), "negative": f("f", arg("uint8[-1]")),
		"huge": f("f", arg("uint8[32768][32768]")), "six digits": f("f", arg("uint8[100000]")), "huge arguments": f("f", arg("uint8[32768]")+","+strings.Replace(arg("uint8[1]"), `"a"`, `"b"`, 1)),
		"empty tuple": f("f", `{"name":"a","type":"tuple","components":[]}`), "components of a number": f("f", `{"name":"a","type":"uint8","components":[{"name":"b","type":"uint8"}]}`),
		"argument twice": f("f", arg("uint8")+","+arg("uint8")), "argument injects": f("f", `{"name":"a b","type":"uint8"}`), "deep array": f("f", arg("uint8"+strings.Repeat("[]", 20))),
		"deep tuple": f("f", strings.Repeat(`{"name":"a","type":"tuple","components":[`, 20)+arg("uint8")+strings.Repeat("]}", 20)),
		// selector 0xa9059cbb, too
		"shadows transfer": f("many_msg_babbage", arg("bytes1")),
		"too large":        "[" + strings.Repeat(" ", MaxABI) + "]",
	} {
		if set, err := NewABIs([]ABI{{ChainID: *uint256.NewInt(1), JSON: []byte(text)}}); err == nil {
			t.Errorf("%s: %d contracts", what, set.Len())
		}
	}
	good := ABI{ChainID: *uint256.NewInt(1), Address: token, JSON: []byte(transferABI)}
	none := good
	none.ChainID.Clear()
	for what, list := range map[string][]ABI{"twice": {good, good}, "chain id 0": {none}} {
		if _, err := NewABIs(list); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestABIsHash(t *testing.T) {
	one := ABI{ChainID: *uint256.NewInt(1), Address: token, JSON: []byte(transferABI)}
	two := ABI{ChainID: *uint256.NewInt(10), Address: token, JSON: []byte("[]")}
	hash := func(list ...ABI) [32]byte {
		set, err := NewABIs(list)
		if err != nil {
			t.Fatal(err)
		}
		return set.Hash()
	}
	moved := one
	moved.Address[0] ^= 1
	text := one
	text.JSON = append([]byte(" "), text.JSON...)
	seen := map[[32]byte]bool{(*ABIs)(nil).Hash(): true}
	for i, h := range [][32]byte{hash(), hash(one), hash(two), hash(one, two), hash(moved), hash(text)} {
		if seen[h] {
			t.Errorf("set %d has the hash of another", i)
		}
		seen[h] = true
	}
	if hash(one, two) != hash(two, one) {
		t.Error("the order counts")
	}
}

// Tuples, arrays and overloads as go-ethereum packs them are exact, and read alike.
func TestCalldataOfGoEthereumIsExact(t *testing.T) {
	const text = `[{"type":"function","name":"f","inputs":[{"name":"list","type":"tuple[]","components":[{"name":"to","type":"address"},{"name":"parts","type":"uint16[2][]"},{"name":"note","type":"string"}]},{"name":"sum","type":"int256"},{"name":"flag","type":"bool"},{"name":"tag","type":"bytes3"}]},
		{"type":"function","name":"f","inputs":[{"name":"x","type":"uint8"}]}]`
	theirs, err := abi.JSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	type item struct {
		To    common.Address
		Parts [][2]uint16
		Note  string
	}
	data, err := theirs.Pack("f", []item{{testTo, [][2]uint16{{1, 2}, {3, 4}}, "x"}, {token, nil, strings.Repeat("y", 33)}}, big.NewInt(-5), true, [3]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	read := func(data []byte) *chains.Decoded {
		d, err := Decode(chains.KindEVMTransaction, encode(t, transfer(func(x *types.DynamicFeeTx) { x.To, x.Data = &token, data })), Options{Wallet: testWallet, ABIs: abiFor(t, 1, token, text)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := read(data)
	args := field(t, d, "contract_call_args").Map
	if args == nil {
		t.Fatalf("status %s", field(t, d, "data_status").Str)
	}
	second := args.Get("list").List[1].List
	if sum := args.Get("sum"); !sum.Neg || sum.Int.Uint64() != 5 || args.Get("tag").Str != "0x010203" || second[2].Str != strings.Repeat("y", 33) || len(second[1].List) != 0 || args.Get("list").List[0].List[1].List[1].List[0].Int.Uint64() != 3 {
		t.Errorf("arguments %+v", args)
	}
	if !d.Opaque { // what it spends is not known
		t.Error("not opaque")
	}
	// Every single bit of offsets, lengths and padding is looked at.
	for i := 4; i < len(data); i++ {
		changed := append([]byte(nil), data...)
		changed[i] ^= 0x80
		d := read(changed)
		again, err := theirs.Methods["f"].Inputs.Unpack(changed[4:])
		if field(t, d, "data_status").Str != dataExact {
			continue
		}
		if err != nil {
			t.Fatalf("byte %d: exact to us, %v to go-ethereum", i, err)
		}
		if packed, err := theirs.Methods["f"].Inputs.Pack(again...); err != nil || string(packed) != string(changed[4:]) {
			t.Errorf("byte %d: exact, and packs to something else (%v)", i, err)
		}
	}
}
