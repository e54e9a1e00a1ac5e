package server

import (
	"context"
	"time"

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
	n, err := readTerms(r)
	if err != nil {
		return nil, err
	}
	n.Wallet, n.Endpoint = r.GetWalletId(), r.GetEndpointId()
	n.Peer, n.Invitation = r.GetCosignerPeer(), r.GetCosignerInvitation()
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

// terms is what every request for a delegation says of it.
type terms interface {
	GetRequestId() string
	GetOrganizationId() string
	GetDelegatedUserId() string
	GetApiKeyRecipient() string
	GetOrganizationAllows() bool
	GetExpiresAt() *timestamppb.Timestamp
	GetPolicies() []*sigilv1.Policy
	GetLimits() []*sigilv1.Limit
	GetTemplates() []*sigilv1.PolicyTemplate
}

// readTerms leaves for the caller which wallet is meant, and who else holds a share.
func readTerms(r terms) (n delegation.NewDelegation, err error) {
	n = delegation.NewDelegation{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), DelegatedUser: r.GetDelegatedUserId(),
		Recipient: r.GetApiKeyRecipient(), OrganizationAllows: r.GetOrganizationAllows(),
	}
	if n.ExpiresAt, err = readEnd(r.GetExpiresAt()); err != nil {
		return n, err
	}
	if n.Policies, err = readPolicies(r.GetPolicies()); err != nil {
		return n, err
	}
	if n.Limits, err = readLimits(r.GetLimits()); err != nil {
		return n, err
	}
	n.Templates, err = readTemplates(r.GetTemplates())
	return n, err
}

// readEnd is nil for an absent end.
func readEnd(t *timestamppb.Timestamp) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if err := t.CheckValid(); err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "expires_at is not a time").With("field", "expires_at")
	}
	end := t.AsTime()
	return &end, nil
}

func delegationMessage(d delegation.Delegation) *sigilv1.Delegation {
	return &sigilv1.Delegation{
		DelegationId: d.ID, WalletId: d.Wallet, DelegatedUserId: d.DelegatedUser, Status: statusMessage(d.Status), ExpiresAt: moment(d.ExpiresAt),
		Policies: policyMessages(d.Policies), Limits: limitMessages(d.Limits),
		PolicySetHash: d.PolicySet[:], ShareSetParties: d.Parties, OrganizationAllows: d.OrganizationAllows, Templates: templateMessages(d.Templates),
	}
}
