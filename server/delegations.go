package server

import (
	"context"
	"time"

	"github.com/holiman/uint256"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
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

func readPolicies(in []*sigilv1.Policy) ([]policy.Policy, error) {
	out := make([]policy.Policy, 0, len(in))
	for _, p := range in {
		var effect policy.Effect
		switch p.GetEffect() {
		case sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW:
			effect = policy.Allow
		case sigilv1.PolicyEffect_POLICY_EFFECT_DENY:
			effect = policy.Deny
		default:
			return nil, refusal.New(refusal.RequestInvalid, "policy %q has no effect", p.GetName()).With("field", "effect")
		}
		out = append(out, policy.Policy{
			Name: p.GetName(), Effect: effect, Condition: p.GetCondition(), Consensus: p.GetConsensus(), Time: p.GetTime(), Lang: policy.LangSigild,
		})
	}
	return out, nil
}

func readLimits(in []*sigilv1.Limit) ([]policy.Limit, error) {
	out := make([]policy.Limit, 0, len(in))
	for _, l := range in {
		most, err := uint256.FromDecimal(l.GetMaxAmount())
		if err != nil || most.Dec() != l.GetMaxAmount() {
			return nil, refusal.New(refusal.RequestInvalid, "limit %q: max_amount is not a decimal number below 2^256", l.GetName()).With("field", "max_amount")
		}
		if l.WindowSeconds != nil && l.GetWindowSeconds() == 0 {
			return nil, refusal.New(refusal.RequestInvalid, "limit %q: window_seconds is 0; leave it out for the whole life", l.GetName()).With("field", "window_seconds")
		}
		out = append(out, policy.Limit{
			Name: l.GetName(), Asset: l.GetAsset(), Max: *most, Window: time.Duration(l.GetWindowSeconds()) * time.Second, IncludeFees: l.GetIncludeFees(),
		})
	}
	return out, nil
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
		m := &sigilv1.Policy{Name: p.Name, Effect: sigilv1.PolicyEffect_POLICY_EFFECT_DENY, Condition: said(p.Condition), Consensus: said(p.Consensus), Time: said(p.Time)}
		if p.Effect == policy.Allow {
			m.Effect = sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW
		}
		out.Policies = append(out.Policies, m)
	}
	for _, l := range d.Limits {
		m := &sigilv1.Limit{Name: l.Name, Asset: l.Asset, MaxAmount: l.Max.Dec(), IncludeFees: l.IncludeFees}
		if l.Window > 0 {
			seconds := uint32(l.Window / time.Second)
			m.WindowSeconds = &seconds
		}
		out.Limits = append(out.Limits, m)
	}
	return out
}

// said is absent for an empty text.
func said(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
