package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Handlers of delegation.proto.

type delegationService struct {
	sigilv1.UnimplementedDelegationServiceServer
	a *Appliance
}

func (s delegationService) CreateDelegation(ctx context.Context, r *sigilv1.CreateDelegationRequest) (*sigilv1.CreateDelegationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.NewDelegation{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(),
		DelegatedUser: r.GetDelegatedUserId(), Recipient: r.GetApiKeyRecipient(), OrganizationAllows: r.GetOrganizationAllows(),
	}
	if r.ExpiresAt != nil {
		if err := r.ExpiresAt.CheckValid(); err != nil {
			return nil, refusal.New(refusal.RequestInvalid, "expires_at is not a time").With("field", "expires_at")
		}
		end := r.ExpiresAt.AsTime()
		n.ExpiresAt = &end
	}
	if n.Policies, err = readPolicies(r.GetPolicies()); err != nil {
		return nil, err
	}
	if n.Limits, err = readLimits(r.GetLimits()); err != nil {
		return nil, err
	}
	if n.Templates, err = readTemplates(r.GetTemplates()); err != nil {
		return nil, err
	}
	made, err := p.Delegation.CreateDelegation(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateDelegationResponse{DelegationId: made.DelegationID, CeremonyId: made.CeremonyID}, nil
}

func (s delegationService) GetDelegation(ctx context.Context, r *sigilv1.GetDelegationRequest) (*sigilv1.GetDelegationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	d, err := p.Delegation.Delegation(actor, r.GetOrganizationId(), r.GetDelegationId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.GetDelegationResponse{Delegation: delegationMessage(d), EncryptedApiKey: d.EncryptedAPIKey}, nil
}

func (s delegationService) RevokeDelegation(ctx context.Context, r *sigilv1.RevokeDelegationRequest) (*sigilv1.RevokeDelegationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	d, err := p.Delegation.RevokeDelegation(ctx, actor, r.GetRequestId(), r.GetOrganizationId(), r.GetDelegationId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.RevokeDelegationResponse{Delegation: delegationMessage(d)}, nil
}

func delegationMessage(d delegation.Delegation) *sigilv1.Delegation {
	out := &sigilv1.Delegation{
		DelegationId: d.ID, WalletId: d.Wallet, DelegatedUserId: d.DelegatedUser,
		PolicySetHash: d.PolicySet[:], ShareSetParties: d.Parties, OrganizationAllows: d.OrganizationAllows, Templates: templateMessages(d.Templates),
	}
	if d.ExpiresAt != nil {
		out.ExpiresAt = timestamppb.New(*d.ExpiresAt)
	}
	switch d.Status {
	case "pending":
		out.Status = sigilv1.DelegationStatus_DELEGATION_STATUS_PENDING
	case "active":
		out.Status = sigilv1.DelegationStatus_DELEGATION_STATUS_ACTIVE
	case "revoked":
		out.Status = sigilv1.DelegationStatus_DELEGATION_STATUS_REVOKED
	case "expired":
		out.Status = sigilv1.DelegationStatus_DELEGATION_STATUS_EXPIRED
	case "failed":
		out.Status = sigilv1.DelegationStatus_DELEGATION_STATUS_FAILED
	}
	for _, p := range d.Policies {
		out.Policies = append(out.Policies, policyMessage(p))
	}
	for _, l := range d.Limits {
		out.Limits = append(out.Limits, limitMessage(l))
	}
	return out
}
