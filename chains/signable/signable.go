// Package signable knows which decoder a payload of a wallet takes, and how a
// signature goes back into it. It is for those who have a wallet of either chain
// and bytes of any kind: signing, the air gap, a replay of old decisions.
//
// It refuses a kind that is not for the wallet's chain. Pure, as all of chains.
package signable

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// ErrKind: no wallet of this chain signs payloads of this kind.
var ErrKind = errors.New("payload is not for this chain")

// Signer is the wallet whose signature a payload asks for.
type Signer struct {
	// Chain is "eip155", also as the namespace of one EVM chain's CAIP-2 id, or the id of a Solana cluster.
	Chain string
	// Address in its chain's own spelling.
	Address string
}

// OnEVM reports whether the signer is an account of EVM chains.
func (s Signer) OnEVM() bool {
	namespace, _, _ := strings.Cut(s.Chain, ":")
	return namespace == "eip155"
}

// Interfaces is what a policy authority says of programs and lookup tables. No
// request carries any of it.
type Interfaces struct {
	// EVM is nil without ABIs.
	EVM    *evm.ABIs
	Solana solana.Known
}

// Decode reads b as a payload of that kind that signer is asked to sign. Errors:
// *chains.DecodeError for what is malformed, [ErrKind], or a signer's address that
// can't be read.
func Decode(kind chains.Kind, b []byte, signer Signer, known Interfaces) (*chains.Decoded, error) {
	switch {
	case evm.Roots[kind] != nil && signer.OnEVM():
		o, err := evmOptions(signer, known)
		if err != nil {
			return nil, err
		}
		return evm.Decode(kind, b, o)
	case kind != chains.KindSolanaMessage && kind != chains.KindSolanaOffchain || signer.OnEVM():
		return nil, fmt.Errorf("a %s payload for a wallet on %s: %w", kind, signer.Chain, ErrKind)
	}
	key, err := solana.ParseAddress(signer.Address)
	if err != nil {
		return nil, fmt.Errorf("reading the wallet's address: %w", err)
	}
	if kind == chains.KindSolanaOffchain {
		return solana.DecodeOffchain(b, key, signer.Chain)
	}
	return solana.Decode(b, key, signer.Chain, known.Solana)
}

// Assembled is what may be released.
type Assembled struct {
	// Signed is what goes to the network or the contract; empty for what has no such
	// form. Solana slots of other signers are zero.
	Signed []byte
	// ID is what the chain will call it; empty for what has none.
	ID string
}

// Assemble puts the signature to the payload that d was decoded from with the same
// signer and interfaces: r ‖ s ‖ recovery id (65 bytes) on EVM chains, R ‖ S (64)
// on Solana. Nothing is returned whose signature is not signer's, or that does not
// decode again to d.View.
func Assemble(d *chains.Decoded, signer Signer, known Interfaces, signature []byte) (*Assembled, error) {
	if signer.OnEVM() {
		if len(signature) != 65 {
			return nil, fmt.Errorf("assembling the payload: a signature of %d bytes, want 65", len(signature))
		}
		o, err := evmOptions(signer, known)
		if err != nil {
			return nil, err
		}
		a, err := evm.Assemble(d, o, [32]byte(signature[:32]), [32]byte(signature[32:64]), signature[64])
		if err != nil {
			return nil, fmt.Errorf("assembling the payload: %w", err)
		}
		return &Assembled{Signed: a.Signed, ID: a.ID}, nil
	}
	if len(signature) != 64 {
		return nil, fmt.Errorf("assembling the payload: a signature of %d bytes, want 64", len(signature))
	}
	key, err := solana.ParseAddress(signer.Address)
	if err != nil {
		return nil, fmt.Errorf("reading the wallet's address: %w", err)
	}
	if d.Kind == chains.KindSolanaOffchain {
		if err := solana.CheckOffchain(d, key, [64]byte(signature)); err != nil {
			return nil, fmt.Errorf("checking the signed message: %w", err)
		}
		return &Assembled{}, nil
	}
	signed, id, err := solana.Assemble(d, key, known.Solana, [64]byte(signature))
	if err != nil {
		return nil, fmt.Errorf("assembling the transaction: %w", err)
	}
	return &Assembled{Signed: signed, ID: id}, nil
}

func evmOptions(signer Signer, known Interfaces) (evm.Options, error) {
	a, err := evm.ParseAddress(signer.Address)
	if err != nil {
		return evm.Options{}, fmt.Errorf("reading the wallet's address: %w", err)
	}
	return evm.Options{Wallet: a, ABIs: known.EVM}, nil
}
