package evm

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"

	"github.com/sigild/sigild/chains"
)

// BenchmarkDecode1559 decodes and hashes one transfer; BenchmarkGethRLP1559 is
// go-ethereum's decoder into a struct, and the hash, without any view.
func BenchmarkDecode1559(b *testing.B) {
	in := encode(b, transfer())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeTx(in, testWallet); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGethRLP1559(b *testing.B) {
	in := encode(b, transfer())
	b.ReportAllocs()
	for b.Loop() {
		var x struct {
			ChainID    *big.Int
			Nonce      uint64
			Tip, Cap   *big.Int
			Gas        uint64
			To         *common.Address `rlp:"nil"`
			Value      *big.Int
			Data       []byte
			AccessList types.AccessList
		}
		if err := rlp.DecodeBytes(in[1:], &x); err != nil {
			b.Fatal(err)
		}
		crypto.Keccak256Hash(in)
	}
}

func BenchmarkAssemble1559(b *testing.B) {
	d, err := decodeTx(encode(b, transfer()), testWallet)
	if err != nil {
		b.Fatal(err)
	}
	r, s, recid := sign(b, testKey, d.Sign.Digest)
	for b.Loop() {
		if _, _, err := assembleTx(d, testWallet, r, s, recid); err != nil {
			b.Fatal(err)
		}
	}
}

// permit2 is a PermitSingle as a wallet's library sends it.
const permit2Text = `{"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint256"},{"name":"verifyingContract","type":"address"}],"PermitSingle":[{"name":"details","type":"PermitDetails"},{"name":"spender","type":"address"},{"name":"sigDeadline","type":"uint256"}],"PermitDetails":[{"name":"token","type":"address"},{"name":"amount","type":"uint160"},{"name":"expiration","type":"uint48"},{"name":"nonce","type":"uint48"}]},"primaryType":"PermitSingle","domain":{"name":"Permit2","chainId":"1","verifyingContract":"0x000000000022D473030F116dDEE9F6B43aC78BA3"},"message":{"details":{"token":"0xEcb2E2EEb63fCa0A1F497700356621e4eB435ddd","amount":"5","expiration":"281474976710655","nonce":"0"},"spender":"0x042b2a143db295C07722969862D70034e831AF2e","sigDeadline":"849855516259"}}`

// BenchmarkPermit2 parses, hashes, charges and views a permit; BenchmarkGethPermit2
// is go-ethereum's parse and hash.
func BenchmarkPermit2(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(chains.KindEVMTypedData, []byte(permit2Text), Options{Wallet: testWallet}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGethPermit2(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var data apitypes.TypedData
		if err := json.Unmarshal([]byte(permit2Text), &data); err != nil {
			b.Fatal(err)
		}
		if _, _, err := apitypes.TypedDataAndHash(data); err != nil {
			b.Fatal(err)
		}
	}
}

// multicall50 is a multicall of 50 token transfers.
func multicall50() []byte {
	numbers := []uint64{32, 50}
	for i := range 50 {
		numbers = append(numbers, uint64(32*50+128*i))
	}
	data := words("multicall(bytes[] data)", numbers...)
	for range 50 {
		data = append(data, words("multicall(bytes[] data)", 68)[4:]...)
		data = append(append(data, erc20Transfer()...), make([]byte, 28)...)
	}
	return data
}

// BenchmarkFlatten50 decodes a transaction with 50 calls inside, charges and view
// included; BenchmarkGethUnpack50 only unpacks the calls and their arguments.
func BenchmarkFlatten50(b *testing.B) {
	in := encode(b, transfer(func(x *types.DynamicFeeTx) { x.Data = multicall50() }))
	d, err := decodeTx(in, testWallet)
	if err != nil || d.Opaque || len(d.Charges) != 52 {
		b.Fatalf("%v, %+v", err, d)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeTx(in, testWallet); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGethUnpack50(b *testing.B) {
	contract, err := abi.JSON(strings.NewReader(`[{"type":"function","name":"multicall","inputs":[{"name":"data","type":"bytes[]"}]},{"type":"function","name":"transfer","inputs":[{"name":"to","type":"address"},{"name":"amount","type":"uint256"}]}]`))
	if err != nil {
		b.Fatal(err)
	}
	data := multicall50()
	b.ReportAllocs()
	for b.Loop() {
		calls, err := contract.Methods["multicall"].Inputs.Unpack(data[4:])
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range calls[0].([][]byte) {
			if _, err := contract.Methods["transfer"].Inputs.Unpack(c[4:]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
