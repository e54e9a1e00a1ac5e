// Package solana decodes Solana messages for signing and assembles the signed
// transactions. It is for the signing path: what a policy reads here is exactly
// what the cluster will execute.
//
// It takes legacy and version 0 messages. It refuses other versions (version 1,
// first byte 0x81, among them), whole transactions where a message is expected,
// non-canonical encodings, and messages no node would take or that the wallet
// does not sign. Address lookup tables are not resolved: a message that uses
// one is opaque, as is one with any instruction that is not understood.
package solana

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains"
)

// MaxSize is the largest legacy or version 0 message, in bytes (one packet).
const MaxSize = 1232

// Decode reads the message b that wallet is to sign. chain is the wallet's
// CAIP-2 id ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), since messages do not
// name their cluster. Errors are [*chains.DecodeError]. b is copied; the result
// does not alias it.
//
// Sign.Message is the message itself. Charges hold the lamports of each System
// transfer out of wallet ("transfer") and, when wallet pays it, 5000 lamports a
// signature plus the highest priority fee ("fee", Unbounded when a compute
// budget instruction is not understood). A durable nonce, which lets the
// transaction be submitted at any later time, is a replay key
// "solana-nonce:<chain>:<nonce account>:<nonce>" and a guard.
func Decode(b []byte, wallet [32]byte, chain string) (*chains.Decoded, error) {
	if !validChain(chain) {
		return nil, fail(chains.CodeForm, -1, "%q is not the CAIP-2 id of a Solana cluster", chain)
	}
	raw := append(make([]byte, 0, len(b)), b...)
	m, err := parse(raw)
	if err != nil {
		if isTransaction(raw) {
			return nil, fail(chains.CodeForm, 0, "a whole transaction, signatures included; give only its message")
		}
		return nil, err
	}
	slot := m.signerSlot(wallet)
	if slot < 0 {
		return nil, fail(chains.CodeSigner, -1, "wallet %s is not a required signer of this message", Address(wallet))
	}
	a, err := m.actions()
	if err != nil {
		return nil, err
	}
	d := &chains.Decoded{
		Kind:    chains.KindSolanaMessage,
		Chain:   chain,
		Sign:    chains.SignInput{Scheme: chains.EdDSAEd25519, Message: raw},
		View:    chains.View{Root: m.view(a)},
		Charges: m.charges(a, wallet, chain),
		Summary: m.summary(a, wallet),
		Opaque:  a.opaque,
		Raw:     raw,
	}
	if a.nonceFirst {
		d.Guards = []string{Root + ".durable_nonce"}
	}
	if a.nonce != nil {
		d.ReplayKeys = []string{"solana-nonce:" + chain + ":" + Address(m.key(a.nonce.account)) + ":" + Address(m.blockhash)}
	}
	return d, nil
}

func fail(code string, offset int, format string, args ...any) *chains.DecodeError {
	return &chains.DecodeError{Code: code, Message: fmt.Sprintf(format, args...), Offset: offset}
}

// validChain accepts "solana:" and a CAIP-2 reference: 1 to 32 of [-_a-zA-Z0-9].
func validChain(chain string) bool {
	ref, ok := strings.CutPrefix(chain, "solana:")
	if !ok || len(ref) == 0 || len(ref) > 32 {
		return false
	}
	return strings.IndexFunc(ref, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '_')
	}) < 0
}

// signerSlot is the wallet's place among the required signers, or -1.
func (m *message) signerSlot(wallet [32]byte) int {
	for i := range m.signers {
		if bytes.Equal(m.keys[32*i:32*i+32], wallet[:]) {
			return i
		}
	}
	return -1
}

// isTransaction reports whether b is a transaction: as many signatures as the
// message after them requires.
func isTransaction(b []byte) bool {
	r := &reader{b: b}
	n := r.compactU16("signature count")
	r.take(64*n, "signatures")
	if r.err != nil || n == 0 {
		return false
	}
	m, err := parse(b[r.pos:])
	return err == nil && m.signers == n
}
