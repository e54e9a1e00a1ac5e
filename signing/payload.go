package signing

import (
	"errors"
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/refusal"
)

// decode is step 5: the wallet's chain and the payload's kind pick the decoder.
func decode(r Request, st *Standing) (*chains.Decoded, error) {
	if r.Kind == KindRawDigest {
		return nil, refusal.New(refusal.RawDigestDenied, "a bare digest can't be judged; this key signs decoded transactions only")
	}
	d, err := signable.Decode(r.Kind, r.Payload, st.Wallet.signer(), st.Interfaces)
	var bad *chains.DecodeError
	switch {
	case errors.As(err, &bad):
		return nil, refusal.New(refusal.PayloadMalformed, "%s", bad.Message).With("code", bad.Code).With("offset", fmt.Sprint(bad.Offset))
	case errors.Is(err, signable.ErrKind):
		return nil, refusal.New(refusal.PayloadMalformed, "a %s payload is not for a wallet on %s", r.Kind, st.Wallet.Chain)
	case err != nil:
		return nil, fmt.Errorf("decoding payload: %w", err)
	}
	return d, nil
}

// assemble is step 10: signature and payload become the signed transaction,
// which is decoded again and compared with the view before it is returned.
func assemble(d *chains.Decoded, st *Standing, signature []byte, rule string, sequence uint64) (*Result, error) {
	a, err := signable.Assemble(d, st.Wallet.signer(), st.Interfaces, signature)
	if err != nil {
		return nil, err
	}
	return &Result{Signature: signature, Signed: a.Signed, TransactionID: a.ID, Summary: d.Summary, Rule: rule, Sequence: sequence}, nil
}

func (w WalletInfo) signer() signable.Signer {
	return signable.Signer{Chain: w.Chain, Address: w.Address}
}
