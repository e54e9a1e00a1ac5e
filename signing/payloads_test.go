package signing_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/signing"
)

// What applications send, and what they get, made and checked without our code.

// pay is a v0 message with one transfer of g's wallet to the payee; n makes it unique.
func (g *grant) pay(lamports uint64, n byte) []byte { return g.payTo(solPayee, lamports, n) }

func (g *grant) payTo(to [32]byte, lamports uint64, n byte) []byte {
	m := []byte{0x80, 1, 0, 1, 3}
	m = append(append(m, g.set.PublicKey...), to[:]...)
	m = append(m, make([]byte, 32)...)                             // the System program
	m = append(append(m, 0xb1, n), bytes.Repeat([]byte{9}, 30)...) // the blockhash
	m = append(m, 1, 2, 2, 0, 1, 12, 2, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint64(m, lamports), 0)
}

// transfer is an unsigned EIP-1559 transfer on chain 1 to the payee.
func transfer(t testing.TB, nonce uint64, amount int64) []byte {
	return transferFor(t, nonce, amount, 1, 2)
}

// transferFor is transfer for a highest tip and fee, in wei per gas.
func transferFor(t testing.TB, nonce uint64, amount, tip, most int64) []byte {
	t.Helper()
	body, err := rlp.EncodeToBytes([]any{uint64(1), nonce, big.NewInt(tip), big.NewInt(most), uint64(21_000), evmPayee, big.NewInt(amount), []byte{}, types.AccessList{}})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{types.DynamicFeeTxType}, body...)
}

// verify checks a result with other people's code.
func (g *grant) verify(t testing.TB, r *signing.Result, payload []byte) {
	t.Helper()
	if g.kind == chains.KindSolanaMessage {
		if len(r.Signed) < 65 || !bytes.Equal(r.Signed[65:], payload) || !bytes.Equal(r.Signed[1:65], r.Signature) {
			t.Fatalf("signed transaction %x is not the signature and the message", r.Signed)
		}
		if !ed25519.Verify(g.set.PublicKey, payload, r.Signature) {
			t.Error("crypto/ed25519 refuses the signature")
		}
		return
	}
	var tx types.Transaction
	if err := tx.UnmarshalBinary(r.Signed); err != nil {
		t.Fatalf("go-ethereum refuses the transaction: %v", err)
	}
	signer := types.LatestSignerForChainID(tx.ChainId())
	from, err := types.Sender(signer, &tx)
	if err != nil {
		t.Fatalf("go-ethereum can't recover the sender: %v", err)
	}
	want, err := evm.Address(g.set.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := append([]byte{tx.Type()}, unsignedBody(t, &tx)...)
	if from != want || !bytes.Equal(unsigned, payload) || tx.Hash().Hex() != r.TransactionID {
		t.Errorf("go-ethereum reads sender %s, id %s, unsigned %x; want %s, %s, %x", from, tx.Hash(), unsigned, common.Address(want), r.TransactionID, payload)
	}
}

func unsignedBody(t testing.TB, tx *types.Transaction) []byte {
	b, err := rlp.EncodeToBytes([]any{tx.ChainId(), tx.Nonce(), tx.GasTipCap(), tx.GasFeeCap(), tx.Gas(), tx.To(), tx.Value(), tx.Data(), tx.AccessList()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
