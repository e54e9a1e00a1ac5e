package evm

import (
	"bytes"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/sigild/sigild/chains"
)

var token = common.HexToAddress("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48")

// erc20Transfer is transfer(0x3535…35, 1000000) as any ABI encoder writes it.
func erc20Transfer() []byte {
	d := append([]byte("\xa9\x05\x9c\xbb"), make([]byte, 64)...)
	copy(d[16:36], bytes.Repeat([]byte{0x35}, 20))
	big.NewInt(1000000).FillBytes(d[36:68])
	return d
}

func TestTokenTransferIsCharged(t *testing.T) {
	call := func(x *types.DynamicFeeTx) { x.To, x.Data, x.Value = &token, erc20Transfer(), new(big.Int) }
	d, err := decodeTx(encode(t, transfer(call)), testWallet)
	if err != nil {
		t.Fatal(err)
	}
	want := chains.Charge{Chain: "eip155:1", Asset: "eip155:1/erc20:0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
		What: "transfer", To: "0x3535353535353535353535353535353535353535"}
	want.Amount.SetUint64(1000000)
	if d.Opaque || len(d.Charges) != 2 || d.Charges[0] != want || d.Charges[1].What != "fee" {
		t.Errorf("opaque %v, charges %+v", d.Opaque, d.Charges)
	}
}

func TestAlmostTokenTransfersAreOpaque(t *testing.T) {
	good := erc20Transfer()
	dirty := bytes.Clone(good)
	dirty[4] = 1
	selector := bytes.Clone(good)
	selector[3]++
	for name, data := range map[string][]byte{
		"dirty padding": dirty, "cut": good[:67], "trailing": append(bytes.Clone(good), 0), "another selector": selector,
		"selector only": good[:4], "one byte": {0xa9},
	} {
		d, err := decodeTx(encode(t, transfer(func(x *types.DynamicFeeTx) { x.Data = data })), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Opaque {
			t.Errorf("%s: not opaque", name)
		}
		// Native value and fee are charged all the same.
		if len(d.Charges) != 2 || d.Charges[0].Asset != "eip155:1/slip44:60" || d.Charges[1].What != "fee" {
			t.Errorf("%s: charges %+v", name, d.Charges)
		}
	}
}

// Under an EIP-7702 delegation a call of oneself runs code with one's own balance.
func TestCallOfItselfHasNoBound(t *testing.T) {
	self := common.Address(testWallet)
	d, err := decodeTx(encode(t, transfer(func(x *types.DynamicFeeTx) { x.To, x.Data = &self, erc20Transfer() })), testWallet)
	if err != nil {
		t.Fatal(err)
	}
	unbounded := slices.ContainsFunc(d.Charges, func(c chains.Charge) bool { return c.Unbounded && c.Asset == "eip155:1/slip44:60" })
	if !d.Opaque || !unbounded {
		t.Errorf("opaque %v, charges %+v", d.Opaque, d.Charges)
	}
	d, err = decodeTx(encode(t, transfer(func(x *types.DynamicFeeTx) { x.To, x.Data = &self, nil })), testWallet)
	if err != nil || d.Opaque || d.Charges[0].Unbounded {
		t.Errorf("a plain transfer to itself: error %v, %+v", err, d)
	}
}

func TestContractCreation(t *testing.T) {
	for _, data := range [][]byte{nil, {0x60, 0x00}, erc20Transfer()} {
		d, err := decodeTx(encode(t, transfer(func(x *types.DynamicFeeTx) { x.To, x.Data = nil, data })), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Opaque || field(t, d, "to").Kind != chains.KindAbsent || d.Charges[0].To != "" {
			t.Errorf("creation with %d bytes: opaque %v, to %+v, charges %+v", len(data), d.Opaque, field(t, d, "to"), d.Charges)
		}
	}
}

func TestSummary(t *testing.T) {
	const fee = "fee at most 0.00063 ETH (630000000000000 wei); nonce 7"
	for name, tc := range map[string]struct {
		change func(*types.DynamicFeeTx)
		want   string
	}{
		"transfer": {func(*types.DynamicFeeTx) {},
			"send 0.5 ETH (500000000000000000 wei) to 0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045 on chain 1; " + fee},
		"token": {func(x *types.DynamicFeeTx) { x.To, x.Data, x.Value = &token, erc20Transfer(), new(big.Int) },
			"transfer 1000000 raw units of token 0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48 to 0x3535353535353535353535353535353535353535 on chain 1; " + fee},
		"token and value": {func(x *types.DynamicFeeTx) { x.To, x.Data = &token, erc20Transfer() },
			"transfer 1000000 raw units of token 0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48 to 0x3535353535353535353535353535353535353535, and send the token contract 0.5 ETH (500000000000000000 wei) on chain 1; " + fee},
		"call": {func(x *types.DynamicFeeTx) { x.Data = []byte{1, 2, 3, 4, 5} },
			"call 0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045 with 0.5 ETH (500000000000000000 wei) and 5 bytes of data (0x01020304, not understood) on chain 1; " + fee},
		"creation": {func(x *types.DynamicFeeTx) { x.To, x.Data, x.Value = nil, []byte{1}, new(big.Int) },
			"create a contract from 1 bytes of code (not understood) with 0 ETH (0 wei) on chain 1; " + fee},
		"another coin": {func(x *types.DynamicFeeTx) { x.ChainID = big.NewInt(137) },
			strings.ReplaceAll("send 0.5 ETH (500000000000000000 wei) to 0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045 on chain 137; "+fee, "ETH", "native coins")},
	} {
		d, err := decodeTx(encode(t, transfer(tc.change)), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		if d.Summary != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, d.Summary, tc.want)
		}
	}
}
