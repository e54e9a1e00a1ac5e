// Package chains holds the nouns of a decoded payload: what is signed, what a
// policy reads, what it costs and what must not be signed twice. chains/evm and
// chains/solana turn bytes into a [Decoded]; they are pure functions of bytes,
// with no clock, network or global state, and never panic on hostile input.
//
// What is not fully understood is refused with a [*DecodeError], or marked
// Opaque so that rules about amounts fail closed.
package chains

import (
	"fmt"

	"github.com/holiman/uint256"
)

// Kind names a form of payload; the words are those of the API and of
// `sigilctl decode --kind`.
type Kind string

// The kinds this build decodes.
const (
	KindEVMTransaction     Kind = "evm.transaction"
	KindEVMMessage         Kind = "evm.message"          // EIP-191, version 0x45
	KindEVMTypedData       Kind = "evm.typed_data"       // EIP-712
	KindEVMAuthorization   Kind = "evm.authorization"    // EIP-7702
	KindEVMUserOperation   Kind = "evm.user_operation"   // ERC-4337
	KindEVMSafeTransaction Kind = "evm.safe_transaction" // of a Safe's owner
	KindSolanaMessage      Kind = "solana.message"
	KindSolanaOffchain     Kind = "solana.offchain_message" // an off-chain message or a sign-in text: no transaction
)

// Scheme names a signature scheme and its curve.
type Scheme string

// The schemes of keys.
const (
	ECDSASecp256k1 Scheme = "ecdsa-secp256k1"
	EdDSAEd25519   Scheme = "eddsa-ed25519"
)

// SignInput is exactly what a threshold signature is made over.
type SignInput struct {
	Scheme Scheme
	// Digest is the 32-byte hash for secp256k1; zero for Ed25519.
	Digest [32]byte
	// Message is the exact message for Ed25519; nil for secp256k1.
	Message []byte
}

// Charge is one thing a payload spends. Amount is in the asset's smallest unit
// (wei, lamports, raw token units).
type Charge struct {
	// Chain is a CAIP-2 id ("eip155:1", "solana:mainnet" genesis form
	// "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp").
	Chain string
	// Asset is a CAIP-19 id ("eip155:1/slip44:60").
	Asset string
	// Amount is spent at most; meaningless when Unbounded.
	Amount uint256.Int
	// Unbounded: no bound can be computed; every amount limit on the asset refuses.
	Unbounded bool
	// What it is spent for: "transfer", "fee", "create" (what a new account costs),
	// "approval" (what another may take from now on), "mint", "burn", or "control" (given out
	// of the wallet's hands).
	What string
	// To is the recipient in the chain's own spelling; empty for a fee.
	To string
}

// AnyToken stands in the place of a token in the asset of a charge whose payload
// does not say which token is spent: it may be any of the chain, but not the
// chain's own coin.
const AnyToken = "token:*"

// Decoded is everything later steps need to know of one payload.
type Decoded struct {
	Kind Kind
	// Chain is the CAIP-2 id when the payload states it (EVM), and "eip155", every
	// EVM chain, when it holds on all of them. Solana messages do not name their
	// cluster: then it is the wallet's chain.
	Chain string
	Sign  SignInput
	View  View
	// Charges holds every spend of the wallet, fees included.
	Charges []Charge
	// ReplayKeys name what must not be signed twice with another digest, as
	// "evm-nonce:<chain id>:<address>:<nonce>". Empty when the chain itself guards.
	ReplayKeys []string
	// Bid is what the payload offers to be taken before another one under its replay
	// key: every rate must rise for that. Of an EVM transaction, in wei per gas: max fee,
	// max priority fee, and with blobs max fee per blob gas. Nil: nothing is replaced.
	Bid []uint256.Int
	// Summary says in plain ASCII what will happen, for people.
	Summary string
	// Opaque: some part was not understood; amount-based rules must fail closed.
	Opaque bool
	// Guards names fields of View that say something dangerous a policy may not
	// have foreseen, as "solana.tx.durable_nonce". A policy that does not read
	// every one of them does not allow the payload.
	Guards []string
	// Raw is the caller's payload, copied once.
	Raw []byte
	// Masked is Raw with the bytes zeroed that only keep it fresh and that its maker
	// replaces while people make up their minds: an ordinary Solana blockhash. nil:
	// there are none. It is no payload itself, and is never signed.
	Masked []byte
}

// Lasting is what an approval by people covers: all of the payload but what only
// keeps it fresh. It is not to be modified.
func (d *Decoded) Lasting() []byte {
	if d.Masked != nil {
		return d.Masked
	}
	return d.Raw
}

// Decode error codes, stable.
const (
	CodeEncoding = "encoding" // not the canonical encoding of its type
	CodeSemantic = "semantic" // well encoded, but no node would take it or we will not sign it
	CodeForm     = "form"     // wrong kind, wrong version, already signed, oversized, empty
	CodeSigner   = "signer"   // the wallet is not a signer of this payload
)

// DecodeError says why a payload was refused and where.
type DecodeError struct {
	Code    string
	Message string
	// Offset is the byte at which it was noticed, −1 where there is none.
	Offset int
}

func (e *DecodeError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s at byte %d: %s", e.Code, e.Offset, e.Message)
}
