package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handlers of cosign.proto.

type cosignService struct {
	sigilv1.UnimplementedCosignServiceServer
	a *Appliance
}

func (s cosignService) AcceptCosigning(ctx context.Context, r *sigilv1.AcceptCosigningRequest) (*sigilv1.AcceptCosigningResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	own, err := p.Identity()
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.AcceptCosigning(ctx, actor, delegation.NewCosigned{
		NewWallet: delegation.NewWallet{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Owner: r.GetOwnerUserId(), Chain: r.GetChain(), Name: r.GetName()},
		Peer:      r.GetPeer(), Address: r.GetAddress(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.AcceptCosigningResponse{WalletId: made.WalletID, KeyId: made.KeyID, Invitation: made.CeremonyID, AppliancePin: own.Pin().String()}, nil
}
