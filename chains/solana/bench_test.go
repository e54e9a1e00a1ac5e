package solana

import (
	"testing"

	bin "github.com/gagliardetto/binary"
	sdk "github.com/gagliardetto/solana-go"
)

func BenchmarkDecodeSolanaTransfer(b *testing.B) { benchmarkDecode(b, build([]step{transferStep(1)})) }

// BenchmarkDecodeSolanaFive is a version 0 message with five instructions.
func BenchmarkDecodeSolanaFive(b *testing.B) { benchmarkDecode(b, fiveInstructions()) }

func benchmarkDecode(b *testing.B, in []byte) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(in, payer, mainnet, Known{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSDKFive is solana-go's decoder alone, without checks or view.
func BenchmarkSDKFive(b *testing.B) {
	in := fiveInstructions()
	b.ReportAllocs()
	for b.Loop() {
		var m sdk.Message
		if err := m.UnmarshalWithDecoder(bin.NewBinDecoder(in)); err != nil {
			b.Fatal(err)
		}
	}
}
