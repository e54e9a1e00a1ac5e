package delivery

import (
	"context"
	"fmt"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// What another sigild delivers is a party's share of a set whose other share that
// appliance keeps. No program is needed for it: package signing plays the party, and
// the wallet API key that came with it goes along, inside the session with that peer.

// LendShare implements signing.VendorSigner. A newer delivery for the same set is not
// tried: another sigild makes a set of its own for each delegation.
func (s *Service) LendShare(ctx context.Context, share signing.VendorShare, delegation string, use func(ctx context.Context, share, apiKey []byte) error) error {
	_, list, err := s.candidates(share, delegation)
	if err != nil {
		return err
	}
	c := list[0]
	if c.Status != Bound {
		return refusal.New(refusal.Paused, "what was delivered is %s", c.Status)
	}
	ctx, done := s.running.start(ctx, delegation)
	defer done()
	v := s.cfg.Vault
	err = v.With(ctx, vault.TypeVendorShare, c.record, func(text []byte) error {
		return v.With(ctx, vault.TypeVendorAPIKey, c.record, func(apiKey []byte) error {
			return mpc.OpenHandover(text, func(_ mpc.Handover, encoded []byte) error { return use(ctx, encoded, apiKey) })
		})
	})
	if err == nil && !c.Proven {
		if err = s.proved(context.WithoutCancel(ctx), share, delegation, c.ID); err != nil {
			err = fmt.Errorf("remembering that what was handed over signs: %w", err)
		}
	}
	return err
}
