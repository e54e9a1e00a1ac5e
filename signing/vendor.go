package signing

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
)

// A wallet of another vendor's has no parties here: its share was delivered, and the
// vendor's own program signs with it, against the vendor's service. (What another sigild
// delivered is a party's share, and signs together with that one: together.go.) Steps 1 to 7 are
// the same. Steps 8 and 9 hand share and approved request to whoever holds
// deliveries, look once more right before they leave, and believe no signature that
// does not verify against the wallet's address.

// VendorShare names what was delivered for a wallet of another vendor's.
type VendorShare struct {
	// Webhook is ours; Wallet and ShareSet are the vendor's, ShareSet may be "".
	Webhook  string `json:"webhook"`
	Wallet   string `json:"wallet"`
	ShareSet string `json:"share_set,omitempty"`
}

// VendorOffer is a share that waits to be bound to a delegation.
type VendorOffer struct {
	Share VendorShare
	// Chain and Address are as the vendor writes them; Address may be "".
	Chain, Address string
	// Handover says what another sigild handed over with the share; nil for a share of
	// another vendor's.
	Handover *mpc.Handover
	// PublicKey is what the wallet's signatures verify with; nil without a Handover.
	PublicKey []byte
}

// VendorRequest is an approved request on its way to a vendor's program.
type VendorRequest struct {
	Delegation, RequestID string
	Share                 VendorShare
	// Kind, Chain and Address say what Payload is and whose.
	Kind           chains.Kind
	Chain, Address string
	Payload        []byte
	// Signed is what the signature is over: a digest of 32 bytes under secp256k1, the
	// message under Ed25519.
	Signed []byte
	Scheme chains.Scheme
	// Summary is for people.
	Summary string
	// BeforeRelease is asked right before share and request leave; once it said yes,
	// a signature may exist.
	BeforeRelease func() error
	// Verify makes of what came back a signature that verifies against the address
	// (65 or 64 bytes), or ErrForeignSignature.
	Verify func(raw []byte) ([]byte, error)
}

// VendorSigner has vendors' programs sign, and lends what another sigild handed over.
// Its errors are refusals, of the program, or of the vault.
type VendorSigner interface {
	SignVendor(ctx context.Context, r VendorRequest) (signature []byte, err error)
	// LendShare lends the share and the wallet API key that were handed over. ctx ends
	// when the delegation does. The error of use is returned as it is; nil says that a
	// signature verified.
	LendShare(ctx context.Context, share VendorShare, delegation string, use func(ctx context.Context, share, apiKey []byte) error) error
}

// ErrForeignSignature says that what a vendor's program returned does not verify
// against the wallet's address.
var ErrForeignSignature = errors.New("the signature does not verify against the wallet's address")

// signVendor is steps 8 and 9 for a wallet of another vendor's.
func (s *Service) signVendor(ctx context.Context, a *approved) ([]byte, error) {
	if s.cfg.Vendors == nil {
		return nil, refusal.New(refusal.ProviderUnavailable, "no vendor's program is configured")
	}
	w, in := a.standing.Wallet, a.decoded.Sign
	signed := in.Digest[:]
	if in.Scheme == chains.EdDSAEd25519 {
		signed = in.Message
	}
	return s.cfg.Vendors.SignVendor(ctx, VendorRequest{
		Delegation: a.standing.Delegation, RequestID: a.request.ID, Share: *a.standing.Vendor,
		Kind: a.request.Kind, Chain: w.Chain, Address: w.Address, Payload: a.request.Payload, Signed: signed, Scheme: in.Scheme, Summary: a.decoded.Summary,
		BeforeRelease: func() error { return s.mayRelease(a) },
		Verify:        func(raw []byte) ([]byte, error) { return verifyForeign(a, raw) },
	})
}

// order of secp256k1 (SEC 2, 2.4.1).
var secp256k1Order, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)

// verifyForeign finds the form in which a signature assembles to what was judged,
// which includes that it verifies: of 64 bytes for Ed25519; of r ‖ s or r ‖ s ‖ v for
// secp256k1, where v is not believed and a high s is turned over (EIP-2).
func verifyForeign(a *approved, raw []byte) ([]byte, error) {
	if a.standing.Wallet.Scheme == chains.EdDSAEd25519 {
		if _, err := assemble(a.decoded, a.standing, raw, a.rule, a.sequence); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrForeignSignature, err)
		}
		return raw, nil
	}
	if len(raw) != 64 && len(raw) != 65 {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrForeignSignature, len(raw))
	}
	s := new(big.Int).SetBytes(raw[32:64])
	if s.Sign() == 0 || s.Cmp(secp256k1Order) >= 0 {
		return nil, fmt.Errorf("%w: s is out of range", ErrForeignSignature)
	}
	if low := new(big.Int).Sub(secp256k1Order, s); low.Cmp(s) < 0 {
		s = low
	}
	for v := byte(0); v < 2; v++ {
		sig := make([]byte, 65)
		copy(sig, raw[:32])
		s.FillBytes(sig[32:64])
		sig[64] = v
		if _, err := assemble(a.decoded, a.standing, sig, a.rule, a.sequence); err == nil {
			return sig, nil
		}
	}
	return nil, ErrForeignSignature
}
