package evm

import (
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
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
