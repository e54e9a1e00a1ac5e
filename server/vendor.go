package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/delivery"
)

// Handlers of vendor.proto.

type vendorService struct {
	sigilv1.UnimplementedVendorServiceServer
	a *Appliance
}

func (s vendorService) SetDeveloperToken(ctx context.Context, r *sigilv1.SetDeveloperTokenRequest) (*sigilv1.SetDeveloperTokenResponse, error) {
	defer clear(r.GetToken())
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delivery.NewToken{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Webhook: r.GetWebhookId(), Token: r.GetToken()}
	if err := p.Delivery.SetToken(ctx, p.Delegation.Acting(actor), n); err != nil {
		return nil, err
	}
	return &sigilv1.SetDeveloperTokenResponse{}, nil
}

func (s vendorService) BindDelivery(ctx context.Context, r *sigilv1.BindDeliveryRequest) (*sigilv1.BindDeliveryResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.NewBinding{Delivery: r.GetDeliveryId(), Chain: r.GetChain(), Address: r.GetAddress(), Name: r.GetName(), Peer: r.GetCosignerPeer()}
	if n.NewDelegation, err = readTerms(r); err != nil {
		return nil, err
	}
	made, err := p.Delegation.BindDelivery(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.BindDeliveryResponse{DelegationId: made.DelegationID, WalletId: made.WalletID}, nil
}
