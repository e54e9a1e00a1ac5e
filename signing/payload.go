package signing

import (
	"errors"
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/refusal"
)

// decode is step 5: the wallet's chain and the payload's kind pick the decoder.
func decode(r Request, st *Standing) (*chains.Decoded, error) {
	w := st.Wallet
	var d *chains.Decoded
	var err error
	switch {
	case r.Kind == KindRawDigest:
		return nil, refusal.New(refusal.RawDigestDenied, "a bare digest can't be judged; this key signs decoded transactions only")
	case evm.Roots[r.Kind] != nil && w.Scheme == chains.ECDSASecp256k1:
		var o evm.Options
		if o, err = evmOptions(st); err != nil {
			return nil, err
		}
		d, err = evm.Decode(r.Kind, r.Payload, o)
	case r.Kind == chains.KindSolanaMessage && w.Scheme == chains.EdDSAEd25519:
		d, err = solana.Decode(r.Payload, [32]byte(w.PublicKey), w.Chain, st.Interfaces.Solana)
	case r.Kind == chains.KindSolanaOffchain && w.Scheme == chains.EdDSAEd25519:
		d, err = solana.DecodeOffchain(r.Payload, [32]byte(w.PublicKey), w.Chain)
	default:
		return nil, refusal.New(refusal.PayloadMalformed, "a %s payload is not for a wallet on %s", r.Kind, w.Chain)
	}
	var bad *chains.DecodeError
	if errors.As(err, &bad) {
		return nil, refusal.New(refusal.PayloadMalformed, "%s", bad.Message).With("code", bad.Code).With("offset", fmt.Sprint(bad.Offset))
	}
	if err != nil {
		return nil, fmt.Errorf("decoding payload: %w", err)
	}
	return d, nil
}

// assemble is step 10: signature and payload become the signed transaction,
// which is decoded again and compared with the view before it is returned.
func assemble(d *chains.Decoded, st *Standing, signature []byte, rule string, sequence uint64) (*Result, error) {
	w := st.Wallet
	out := &Result{Signature: signature, Summary: d.Summary, Rule: rule, Sequence: sequence}
	switch {
	case w.Scheme == chains.ECDSASecp256k1 && len(signature) == 65:
		o, err := evmOptions(st)
		if err != nil {
			return nil, err
		}
		assembled, err := evm.Assemble(d, o, [32]byte(signature[:32]), [32]byte(signature[32:64]), signature[64])
		if err != nil {
			return nil, fmt.Errorf("assembling the payload: %w", err)
		}
		out.Signed, out.TransactionID = assembled.Signed, assembled.ID
	case d.Kind == chains.KindSolanaOffchain && len(signature) == 64:
		if err := solana.CheckOffchain(d, [32]byte(w.PublicKey), [64]byte(signature)); err != nil {
			return nil, fmt.Errorf("checking the signed message: %w", err)
		}
	case w.Scheme == chains.EdDSAEd25519 && len(signature) == 64:
		signed, id, err := solana.Assemble(d, [32]byte(w.PublicKey), st.Interfaces.Solana, [64]byte(signature))
		if err != nil {
			return nil, fmt.Errorf("assembling the transaction: %w", err)
		}
		out.Signed, out.TransactionID = signed, id
	default:
		return nil, fmt.Errorf("assembling the transaction: a signature of %d bytes for %s", len(signature), w.Scheme)
	}
	return out, nil
}

// evmOptions is what the decoder of EVM payloads needs to know of a wallet and its organization.
func evmOptions(st *Standing) (evm.Options, error) {
	a, err := evm.ParseAddress(st.Wallet.Address)
	if err != nil {
		return evm.Options{}, fmt.Errorf("reading the wallet's address: %w", err)
	}
	return evm.Options{Wallet: a, ABIs: st.Interfaces.EVM}, nil
}
