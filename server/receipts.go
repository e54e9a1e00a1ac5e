package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// Handlers of receipt.proto.

type receiptService struct {
	sigilv1.UnimplementedReceiptServiceServer
	a *Appliance
}

func (s receiptService) GetDelegationReceipt(ctx context.Context, r *sigilv1.GetDelegationReceiptRequest) (*sigilv1.GetDelegationReceiptResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	receipt, err := p.Delegation.Receipt(ctx, actor, r.GetOrganizationId(), r.GetDelegationId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.GetDelegationReceiptResponse{Receipt: receipt}, nil
}
