package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
)

// Handlers of access.proto.

type delegatedUserService struct {
	sigilv1.UnimplementedDelegatedUserServiceServer
	a *Appliance
}

func readEndUser(m *sigilv1.NewEndUser) (delegation.NewEndUser, error) {
	list, err := newCredentials(m.GetCredentials())
	return delegation.NewEndUser{
		Name: m.GetName(), Credentials: list, ShareRecipient: m.GetShareRecipient(), RecipientSignature: m.GetShareRecipientSignature(),
	}, err
}

func readDelegatedUser(m *sigilv1.NewDelegatedUser) (delegation.NewDelegatedUser, error) {
	c, err := newCredential(m.GetCredential())
	return delegation.NewDelegatedUser{Name: m.GetName(), Credential: c, Tags: m.GetTags()}, err
}

func readIntents(list []*sigilv1.PolicyIntent) ([]delegation.Intent, error) {
	var out []delegation.Intent
	for _, m := range list {
		read, err := readPolicies([]*sigilv1.Policy{m.GetPolicy()})
		if err != nil {
			return nil, err
		}
		one := delegation.Intent{Policy: read[0], Notes: m.GetNotes(), Wallet: m.GetWalletId()}
		if one.Policy.Lang = policy.LangTurnkey; m.Lang != nil {
			one.Policy.Lang = m.GetLang()
		}
		out = append(out, one)
	}
	return out, nil
}

func (s delegatedUserService) CreateSubOrganization(ctx context.Context, r *sigilv1.CreateSubOrganizationRequest) (*sigilv1.CreateSubOrganizationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	owner, err := readEndUser(r.GetEndUser())
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.CreateSubOrganization(ctx, actor, delegation.NewSubOrganization{
		RequestID: r.GetRequestId(), Parent: r.GetOrganizationId(), Name: r.GetName(), EndUser: owner,
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateSubOrganizationResponse{OrganizationId: made.OrganizationID, UserId: made.UserID}, nil
}

func (s delegatedUserService) CreateDelegatedAccess(ctx context.Context, r *sigilv1.CreateDelegatedAccessRequest) (*sigilv1.CreateDelegatedAccessResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.NewAccess{NewSubOrganization: delegation.NewSubOrganization{RequestID: r.GetRequestId(), Parent: r.GetOrganizationId(), Name: r.GetName()}}
	if n.EndUser, err = readEndUser(r.GetEndUser()); err != nil {
		return nil, err
	}
	if n.DelegatedUser, err = readDelegatedUser(r.GetDelegatedUser()); err != nil {
		return nil, err
	}
	if n.Policies, err = readIntents(r.GetPolicies()); err != nil {
		return nil, err
	}
	for _, w := range r.GetWallets() {
		n.Wallets = append(n.Wallets, delegation.NewWallet{Chain: w.GetChain(), Name: w.GetName()})
	}
	if n.Limits, err = readLimits(r.GetLimits()); err != nil {
		return nil, err
	}
	made, err := p.Delegation.CreateDelegatedAccess(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.CreateDelegatedAccessResponse{
		OrganizationId: made.OrganizationID, EndUserId: made.EndUserID, DelegatedUserId: made.DelegatedUserID, PolicyIds: made.PolicyIDs, LimitIds: made.LimitIDs,
	}
	for _, w := range made.Wallets {
		out.Wallets = append(out.Wallets, &sigilv1.CreatedWallet{WalletId: w.WalletID, KeyId: w.KeyID, CeremonyId: w.CeremonyID})
	}
	return out, nil
}

func (s delegatedUserService) VerifyDelegatedAccess(ctx context.Context, r *sigilv1.VerifyDelegatedAccessRequest) (*sigilv1.VerifyDelegatedAccessResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.Delegation.VerifyDelegatedAccess(actor, r.GetOrganizationId(), r.GetUserId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.VerifyDelegatedAccessResponse{}
	for _, c := range list {
		out.Invariants = append(out.Invariants, &sigilv1.InvariantResult{Id: c.ID, Text: c.Text, Holds: c.Holds})
	}
	return out, nil
}

func (s delegatedUserService) FetchOrCreateDelegatedUser(ctx context.Context, r *sigilv1.FetchOrCreateDelegatedUserRequest) (*sigilv1.FetchOrCreateDelegatedUserResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	u, err := readDelegatedUser(r.GetUser())
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.FetchOrCreateDelegatedUser(ctx, actor, delegation.NewAccessUser{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: u})
	if err != nil {
		return nil, err
	}
	return &sigilv1.FetchOrCreateDelegatedUserResponse{UserId: made.UserID, Created: made.Created}, nil
}

func (s delegatedUserService) FetchOrCreatePolicies(ctx context.Context, r *sigilv1.FetchOrCreatePoliciesRequest) (*sigilv1.FetchOrCreatePoliciesResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	list, err := readIntents(r.GetPolicies())
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.FetchOrCreatePolicies(ctx, actor, delegation.NewIntents{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Policies: list})
	if err != nil {
		return nil, err
	}
	out := &sigilv1.FetchOrCreatePoliciesResponse{PolicyVersion: made.Version}
	for _, f := range made.Policies {
		out.Policies = append(out.Policies, &sigilv1.FetchedPolicy{PolicyId: f.ID, Created: f.Created})
	}
	return out, nil
}

func (s delegatedUserService) ReportOrderFilled(ctx context.Context, r *sigilv1.ReportOrderFilledRequest) (*sigilv1.ReportOrderFilledResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.ReportOrderFilled(ctx, actor, delegation.FilledOrder{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Policies: r.GetPolicyIds(), By: r.GetFilledBy(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ReportOrderFilledResponse{PolicyVersion: made.Version}, nil
}
