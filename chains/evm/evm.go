// Package evm decodes what an EVM wallet is asked to sign, and assembles what is
// released. It is for the signing path: what a policy reads here is exactly
// what the network, or whoever verifies the signature, will take it for.
//
// Kinds: unsigned transactions (legacy in the nine-item form of EIP-155,
// EIP-2930, 1559, 4844 without blobs, 7702), EIP-7702 authorizations, EIP-191
// messages, EIP-712 typed data, ERC-4337 user operations, Safe transactions.
//
// It refuses every other type, bytes that are not the one canonical encoding of
// their transaction, JSON that two readers could read differently, what no node
// or contract would take, and what is signed already. Calldata is read strictly,
// by built-in signatures and the ABIs of the organization; what is not understood
// to the last bit makes the payload opaque.
package evm

import (
	"fmt"

	"github.com/sigild/sigild/chains"
)

// MaxSize is the largest payload that is looked at, in bytes.
const MaxSize = 256 << 10

// Options are what decoding needs beside the payload.
type Options struct {
	// Wallet is to sign. The zero address: not known, for somebody who only looks;
	// then `from` is absent, and what may be the wallet's is charged as if it were.
	Wallet [20]byte
	// ABIs explain calldata; nil: only built-in signatures do.
	ABIs *ABIs
}

func (o Options) walletKnown() bool { return o.Wallet != [20]byte{} }

// mine reports whether an account is the wallet, or may be.
func (o Options) mine(a [20]byte) bool { return !o.walletKnown() || a == o.Wallet }

// Roots says which policy roots a payload of each kind has, and their layout. A
// policy that reads none of a payload's roots and allows it must mean every kind.
var Roots = map[chains.Kind]map[string]*chains.Type{
	chains.KindEVMTransaction:     {Root: TxType},
	chains.KindEVMMessage:         {MessageRoot: MessageType},
	chains.KindEVMTypedData:       {TypedDataRoot: TypedDataType},
	chains.KindEVMAuthorization:   {AuthorizationRoot: AuthorizationType},
	chains.KindEVMUserOperation:   {UserOperationRoot: UserOperationType},
	chains.KindEVMSafeTransaction: {TypedDataRoot: TypedDataType, SafeRoot: SafeType},
}

// Decode reads a payload of the given kind that the wallet is to sign. Errors
// are [*chains.DecodeError]. The payload is copied; the result does not alias it.
//
// A transaction is its unsigned encoding, a message its bytes. Typed data is the
// JSON text of EIP-712 (types, primaryType, domain, message); the other kinds are
// JSON text too, see [decodeAuthorization], [decodeUserOperation], [decodeSafe].
//
// Charges hold the native value ("transfer"), every token transfer, approval and
// permit that is understood, and the highest fee ("fee"); none of amount zero.
// Token assets are spelled in lower case: "eip155:1/erc20:0xa0b8…". Opaque is set
// when a call or a structure is not understood, and by contract creation.
func Decode(kind chains.Kind, payload []byte, o Options) (*chains.Decoded, error) {
	if len(payload) > MaxSize {
		return nil, fail(chains.CodeForm, -1, "payload of %d bytes, at most %d are read", len(payload), MaxSize)
	}
	raw := append(make([]byte, 0, len(payload)), payload...)
	var d *chains.Decoded
	var err error
	switch kind {
	case chains.KindEVMTransaction:
		d, err = decodeTransaction(raw, o)
	case chains.KindEVMMessage:
		d, err = decodeMessage(raw)
	case chains.KindEVMTypedData:
		d, err = decodeTypedData(raw, o)
	case chains.KindEVMAuthorization:
		d, err = decodeAuthorization(raw, o)
	case chains.KindEVMUserOperation:
		d, err = decodeUserOperation(raw, o)
	case chains.KindEVMSafeTransaction:
		d, err = decodeSafe(raw, o)
	default:
		return nil, fail(chains.CodeForm, -1, "%q is no kind of payload on EVM chains", string(kind))
	}
	if err != nil {
		return nil, err
	}
	d.Kind, d.Raw, d.Sign.Scheme = kind, raw, chains.ECDSASecp256k1
	return d, nil
}

func fail(code string, offset int, format string, args ...any) *chains.DecodeError {
	return &chains.DecodeError{Code: code, Message: fmt.Sprintf(format, args...), Offset: offset}
}
