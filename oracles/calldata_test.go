package oracles

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

// parameter is a type of an invented function, in both forms that ABIs come in.
type parameter struct {
	human string // "(uint8,address[])[2]"
	json  members
	make  func() any
}

func (r invention) parameter(depth int) parameter {
	var p parameter
	if depth > 0 && r.IntN(4) == 0 {
		var parts []parameter
		var humans []string
		var components []members
		for i := range 1 + r.IntN(4) {
			part := r.parameter(depth - 1)
			part.json["name"] = fmt.Sprintf("c%d", i)
			parts, humans, components = append(parts, part), append(humans, part.human), append(components, part.json)
		}
		p = parameter{human: "(" + strings.Join(humans, ",") + ")", json: members{"type": "tuple", "components": components}, make: func() any {
			list := []any{}
			for _, part := range parts {
				list = append(list, part.make())
			}
			return list
		}}
	} else {
		typ, make := r.typ("", 0, nil, 0)
		p = parameter{human: typ, json: members{"type": typ}, make: func() any {
			v := make()
			if n, ok := v.(int64); ok {
				return fmt.Sprint(n)
			}
			return v
		}}
	}
	for r.IntN(4) == 0 {
		inner, suffix, n := p.make, "[]", r.IntN(4)
		if r.IntN(2) == 0 {
			n++
			suffix = fmt.Sprintf("[%d]", n)
		}
		p.human += suffix
		p.json["type"] = p.json["type"].(string) + suffix
		p.make = func() any {
			list := []any{}
			for range n {
				list = append(list, inner())
			}
			return list
		}
	}
	return p
}

// spell writes a value of a view as the oracle was given it.
func spell(v chains.Value) any {
	switch v.Kind {
	case chains.KindInt:
		if v.Neg {
			return "-" + v.Int.Dec()
		}
		return v.Int.Dec()
	case chains.KindBool:
		return !v.Int.IsZero()
	case chains.KindAddress:
		return evm.Checksum([20]byte(v.Raw))
	case chains.KindList:
		list := []any{}
		for _, e := range v.List {
			list = append(list, spell(e))
		}
		return list
	}
	return v.Str
}

// TestCalldataOfLibrariesIsExact: what ethers and viem encode alike, an uploaded
// ABI reads as "exact", with the arguments that went in.
func TestCalldataOfLibrariesIsExact(t *testing.T) {
	r := invention{rand.New(rand.NewPCG(3, 4))}
	contract := common.HexToAddress(usdc)
	var sent, abis []members
	for i := range 200 {
		var humans []string
		var inputs []members
		args := []any{}
		for k := range 1 + r.IntN(4) {
			p := r.parameter(2)
			p.json["name"] = fmt.Sprintf("a%d", k)
			humans, inputs, args = append(humans, p.human), append(inputs, p.json), append(args, p.make())
		}
		sent = append(sent, members{"id": i, "abi": fmt.Sprintf("f%d(%s)", i, strings.Join(humans, ",")), "args": args})
		abis = append(abis, members{"type": "function", "name": fmt.Sprintf("f%d", i), "inputs": inputs, "outputs": []members{}, "stateMutability": "payable"})
	}
	text, err := json.Marshal(abis)
	if err != nil {
		t.Fatal(err)
	}
	set, err := evm.NewABIs([]evm.ABI{{ChainID: *uint256.NewInt(1), Address: contract, JSON: text}})
	if err != nil {
		t.Fatal(err)
	}
	for i, answer := range accept(t, "signables.mjs", sent) {
		data, err := hex.DecodeString(answer["data"].(string)[2:])
		if err != nil {
			t.Fatal(err)
		}
		tx, err := rlp.EncodeToBytes([]any{uint(0), uint(1), uint(21000), contract, uint(0), data, uint(1), uint(0), uint(0)})
		if err != nil {
			t.Fatal(err)
		}
		d, err := evm.Decode(chains.KindEVMTransaction, tx, evm.Options{ABIs: set})
		if err != nil {
			t.Fatal(err)
		}
		get := func(name string) chains.Value { return d.View[evm.Root].List[evm.TxType.Index(name)] }
		if got := get("data_status").Str; got != "exact" {
			t.Errorf("%s: %s", sent[i]["abi"], got)
			continue
		}
		got := []any{}
		for _, v := range get("contract_call_args").Map.Values {
			got = append(got, spell(v))
		}
		want, _ := json.Marshal(sent[i]["args"])
		if have, _ := json.Marshal(got); string(have) != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", sent[i]["abi"], have, want)
		}
	}
}
