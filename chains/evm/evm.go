// Package evm decodes unsigned Ethereum transactions for signing and assembles
// the signed ones. It is for the signing path: what a policy reads here is
// exactly what the network will execute.
//
// It takes legacy transactions in the nine-item form of EIP-155 and types 0x01
// (EIP-2930) and 0x02 (EIP-1559). It refuses every other type, bytes that are
// not the one canonical encoding of their transaction, transactions that no
// node would take, and transactions that are signed already. Calldata that is
// not understood to the last bit makes the payload opaque.
package evm

import (
	"fmt"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
)

// MaxSize is the largest payload that is looked at, in bytes.
const MaxSize = 256 << 10

// Decode reads the unsigned transaction b that wallet is to sign. Errors are
// [*chains.DecodeError]. b is copied; the result does not alias it.
//
// Sign.Digest is the Keccak-256 of the received bytes, which are the canonical
// ones. Charges hold the native value ("transfer"), an ERC-20 transfer if the
// calldata is exactly one, and gas times the highest gas price ("fee"); none
// of amount zero. Token assets are spelled in lower case:
// "eip155:1/erc20:0xa0b8…". Opaque is set by any other calldata and by
// contract creation.
func Decode(b []byte, wallet [20]byte) (*chains.Decoded, error) {
	if len(b) == 0 {
		return nil, fail(chains.CodeForm, -1, "empty payload")
	}
	if len(b) > MaxSize {
		return nil, fail(chains.CodeForm, -1, "payload of %d bytes, at most %d are read", len(b), MaxSize)
	}
	raw := append(make([]byte, 0, len(b)), b...)
	t, err := parse(raw, false)
	if err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	call := readCalldata(t, wallet)
	chain := "eip155:" + t.chainID.Dec()
	d := &chains.Decoded{
		Kind:       chains.KindEVMTransaction,
		Chain:      chain,
		Sign:       chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: crypto.Keccak256Hash(raw)},
		View:       chains.View{Root: t.view(wallet)},
		Charges:    t.charges(chain, call, wallet),
		ReplayKeys: []string{fmt.Sprintf("evm-nonce:%s:0x%x:%d", t.chainID.Dec(), wallet, t.nonce)},
		Opaque:     call.opaque,
		Raw:        raw,
	}
	d.Summary = t.summary(call)
	return d, nil
}

func fail(code string, offset int, format string, args ...any) *chains.DecodeError {
	return &chains.DecodeError{Code: code, Message: fmt.Sprintf(format, args...), Offset: offset}
}
