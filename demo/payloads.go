package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"
)

// What a wallet application would send, made and checked without any code of
// sigild's: go-ethereum for EVM, bytes by hand and crypto/ed25519 for Solana.

// evmTransfer is an unsigned EIP-1559 transfer: type byte and RLP of nine fields.
func evmTransfer(chainID, nonce uint64, to common.Address, wei *big.Int) ([]byte, error) {
	body, err := rlp.EncodeToBytes([]any{
		chainID, nonce, big.NewInt(1_000_000_000), big.NewInt(30_000_000_000), uint64(21_000), to, wei, []byte{}, types.AccessList{},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the transaction: %w", err)
	}
	return append([]byte{types.DynamicFeeTxType}, body...), nil
}

// checkEVM lets go-ethereum recover the sender and compares what was signed.
func checkEVM(signed []byte, from, to common.Address, wei *big.Int, id string) error {
	var tx types.Transaction
	if err := tx.UnmarshalBinary(signed); err != nil {
		return fmt.Errorf("go-ethereum refuses the signed transaction: %w", err)
	}
	sender, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), &tx)
	if err != nil {
		return fmt.Errorf("go-ethereum can't recover the sender: %w", err)
	}
	if sender != from || tx.To() == nil || *tx.To() != to || tx.Value().Cmp(wei) != 0 || tx.Hash().Hex() != id {
		return fmt.Errorf("go-ethereum reads another transaction: from %s to %v, %s wei, %s", sender, tx.To(), tx.Value(), tx.Hash())
	}
	return nil
}

// solanaTransfer is a v0 message with one System transfer from the fee payer.
func solanaTransfer(from, to, blockhash [32]byte, lamports uint64) []byte {
	var system [32]byte
	m := []byte{0x80, 1, 0, 1, 3}
	m = append(append(append(m, from[:]...), to[:]...), system[:]...)
	m = append(m, blockhash[:]...)
	m = append(m, 1, 2, 2, 0, 1, 12, 2, 0, 0, 0)
	m = binary.LittleEndian.AppendUint64(m, lamports)
	return append(m, 0)
}

// checkSolana verifies the one signature of a signed transaction over its message.
func checkSolana(signed, message []byte, from [32]byte) error {
	if len(signed) < 65 || signed[0] != 1 {
		return errors.New("the signed transaction has not one signature")
	}
	if !bytes.Equal(signed[65:], message) {
		return errors.New("the signed transaction carries another message")
	}
	if !ed25519.Verify(from[:], message, signed[1:65]) {
		return errors.New("crypto/ed25519 refuses the signature")
	}
	return nil
}
