// Package solana decodes Solana messages for signing and assembles the signed
// transactions. It is for the signing path: what a policy reads here is exactly
// what the cluster will execute.
//
// It takes transaction messages, legacy, version 0 and version 1, and off-chain
// messages ([DecodeOffchain]). It refuses other versions, whole transactions
// where a message is expected, non-canonical encodings, and messages no node
// would take or that the wallet does not sign. Address lookup tables are resolved
// only from pinned contents ([Table]). An instruction that is not understood, a
// token program's extension as much as an unknown program, makes a message opaque.
package solana

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains"
)

// MaxSize is the largest legacy or version 0 message, in bytes (one packet).
const MaxSize = 1232

// Known is what an organization has pinned beside a message. It is read only;
// the zero value knows nothing.
type Known struct {
	// Tables are pinned lookup tables, by address.
	Tables map[[32]byte]*Table
	// AllTables says that Tables must resolve every account: where they don't the
	// message is refused. Else such accounts stay unknown and the message is opaque.
	AllTables bool
	// IDLs read the instructions of programs that are not built in, by program.
	IDLs map[[32]byte]*IDL
}

// Decode reads the transaction message b that wallet is to sign. chain is the
// wallet's CAIP-2 id ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), since messages
// do not name their cluster. Errors are [*chains.DecodeError]. b is copied; the
// result does not alias it.
//
// Sign.Message is the message itself. Charges hold what leaves by the wallet's
// word, in lamports and raw token units: transfers, what new accounts cost,
// approvals, mints and burns, without bound what it puts under another's control,
// and, when wallet pays it, the fee: 5000 lamports a signature plus the highest
// priority fee (Unbounded when a compute budget instruction is not understood).
// A durable nonce, which lets the transaction be submitted at any later time, is
// a replay key "solana-nonce:<chain>:<nonce account>:<nonce>".
//
// Guards: a durable nonce, a fee payer that is not the wallet, and instructions
// that put something of the wallet's under another's control.
func Decode(b []byte, wallet [32]byte, chain string, known Known) (*chains.Decoded, error) {
	return decode(b, &wallet, chain, known)
}

// Inspect is Decode for people who look at a message without being one of its
// signers: charges are those of all required signers together.
func Inspect(b []byte, chain string, known Known) (*chains.Decoded, error) {
	return decode(b, nil, chain, known)
}

func decode(b []byte, wallet *[32]byte, chain string, known Known) (*chains.Decoded, error) {
	if !validChain(chain) {
		return nil, fail(chains.CodeForm, -1, "%q is not the CAIP-2 id of a Solana cluster", chain)
	}
	if len(b) > maxWire {
		return nil, fail(chains.CodeForm, -1, "%d bytes, no message is so large", len(b))
	}
	// The view reads a copy of its own: what happens to Raw does not change it.
	m, err := parse(bytes.Clone(b))
	if err != nil {
		if isTransaction(b) {
			return nil, fail(chains.CodeForm, 0, "a whole transaction, signatures included; give only its message")
		}
		return nil, err
	}
	if wallet != nil && m.signerSlot(wallet) < 0 {
		return nil, fail(chains.CodeSigner, -1, "wallet %s is not a required signer of this message", Address(*wallet))
	}
	if err := m.resolve(known.Tables, known.AllTables); err != nil {
		return nil, err
	}
	e, err := m.effects(wallet, chain, known.IDLs)
	if err != nil {
		return nil, err
	}
	raw := bytes.Clone(b)
	d := &chains.Decoded{
		Kind:    chains.KindSolanaMessage,
		Chain:   chain,
		Sign:    chains.SignInput{Scheme: chains.EdDSAEd25519, Message: raw},
		View:    chains.View{Root: e.view()},
		Charges: e.charges,
		Summary: e.summary(),
		Opaque:  e.partial || m.hidden() > 0,
		Guards:  e.guards(),
		Raw:     raw,
	}
	if !e.nonceFirst { // with one the hash is the nonce, and stays as it is
		d.Masked = bytes.Clone(raw)
		clear(d.Masked[m.hashAt : m.hashAt+32])
	}
	if e.nonce != nil {
		d.ReplayKeys = []string{"solana-nonce:" + chain + ":" + m.name(e.nonce.account) + ":" + Address(m.blockhash)}
	}
	return d, nil
}

// guards names what a policy must have looked at.
func (e *effects) guards() []string {
	var out []string
	if e.nonceFirst {
		out = append(out, Root+".durable_nonce")
	}
	if !e.m.ours(0, e.wallet) {
		out = append(out, Root+".fee_payer")
	}
	if e.yields {
		out = append(out, Root+".instructions")
	}
	return out
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
func (m *message) signerSlot(wallet *[32]byte) int {
	for i := range m.signers {
		if bytes.Equal(m.keys[32*i:32*i+32], wallet[:]) {
			return i
		}
	}
	return -1
}

// maxWire is above every transaction with its signatures, in bytes.
const maxWire = MaxSizeV1 + 64*maxAccounts

// isTransaction reports whether b is a transaction: as many signatures as the
// message after them requires, or, in version 1, before them.
func isTransaction(b []byte) bool {
	if len(b) > 0 && b[0] == 0x81 {
		r := &reader{b: b}
		m, err := parseFrom(r)
		return err == nil && len(b)-r.pos == 64*m.signers
	}
	r := &reader{b: b}
	n := r.compactU16("signature count")
	r.take(64*n, "signatures")
	if r.err != nil || n == 0 {
		return false
	}
	m, err := parse(b[r.pos:])
	return err == nil && m.signers == n
}
