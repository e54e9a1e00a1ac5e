package server

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Handlers of delegatedaccess.proto.

type delegatedAccessService struct {
	sigilv1.UnimplementedDelegatedAccessServiceServer
	a *Appliance
}

func (s delegatedAccessService) SetDelegatedAccess(ctx context.Context, r *sigilv1.SetDelegatedAccessRequest) (*sigilv1.SetDelegatedAccessResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	in := r.GetAccess()
	if in == nil {
		return nil, refusal.New(refusal.RequestInvalid, "access is missing").With("field", "access")
	}
	for field, given := range map[string]*uint32{"lifetime_seconds": in.LifetimeSeconds, "approval_seconds": in.ApprovalSeconds} {
		if given != nil && *given == 0 {
			return nil, refusal.New(refusal.RequestInvalid, "%s is 0; leave it out", field).With("field", field)
		}
	}
	set := delegation.DelegatedAccess{
		Enabled: in.GetEnabled(), Automatic: in.GetAutomatic(), DelegatedUser: in.GetDelegatedUserId(), Recipient: in.GetApiKeyRecipient(),
		Lifetime: in.GetLifetimeSeconds(), ApproveWithin: in.GetApprovalSeconds(), OrganizationAllows: in.GetOrganizationAllows(),
	}
	if set.Policies, err = readPolicies(in.GetPolicies()); err != nil {
		return nil, err
	}
	if set.Limits, err = readLimits(in.GetLimits()); err != nil {
		return nil, err
	}
	n := delegation.NewDelegatedAccess{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Access: set}
	if err := p.Delegation.SetDelegatedAccess(ctx, actor, n); err != nil {
		return nil, err
	}
	return &sigilv1.SetDelegatedAccessResponse{}, nil
}

func (s delegatedAccessService) GetDelegatedAccess(ctx context.Context, r *sigilv1.GetDelegatedAccessRequest) (*sigilv1.GetDelegatedAccessResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	set, err := p.Delegation.DelegatedAccess(actor, r.GetOrganizationId())
	if err != nil || set == nil {
		return &sigilv1.GetDelegatedAccessResponse{}, err
	}
	out := &sigilv1.DelegatedAccess{
		Enabled: set.Enabled, Automatic: set.Automatic, DelegatedUserId: said(set.DelegatedUser), ApiKeyRecipient: said(set.Recipient),
		Policies: policyMessages(set.Policies), Limits: limitMessages(set.Limits), OrganizationAllows: set.OrganizationAllows,
	}
	if set.Lifetime > 0 {
		out.LifetimeSeconds = &set.Lifetime
	}
	if set.ApproveWithin > 0 {
		out.ApprovalSeconds = &set.ApproveWithin
	}
	return &sigilv1.GetDelegatedAccessResponse{Access: out}, nil
}

func (s delegatedAccessService) RequestDelegation(ctx context.Context, r *sigilv1.RequestDelegationRequest) (*sigilv1.RequestDelegationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n, err := readTerms(r)
	if err != nil {
		return nil, err
	}
	n.Wallet, n.Endpoint = r.GetWalletId(), r.GetEndpointId()
	made, err := p.Delegation.RequestDelegation(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.RequestDelegationResponse{DelegationId: made.DelegationID, ApproveBy: timestamppb.New(made.ApproveBy)}, nil
}

func (s delegatedAccessService) ApproveDelegation(ctx context.Context, r *sigilv1.ApproveDelegationRequest) (*sigilv1.ApproveDelegationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.ApproveDelegation(ctx, actor, delegation.NewApproval{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Delegation: r.GetDelegationId(), Terms: r.GetTermsSha256(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ApproveDelegationResponse{CeremonyId: made.CeremonyID}, nil
}

func (s delegatedAccessService) ListDelegations(ctx context.Context, r *sigilv1.ListDelegationsRequest) (*sigilv1.ListDelegationsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	q := delegation.ListQuery{Organization: r.GetOrganizationId(), Wallet: r.GetWalletId(), Awaiting: r.GetAwaitingApproval(), After: r.GetAfter()}
	if r.Status != nil {
		q.Status = strings.ToLower(strings.TrimPrefix(r.GetStatus().String(), statusPrefix))
	}
	list, err := p.Delegation.Delegations(actor, q)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListDelegationsResponse{}
	for _, d := range list {
		out.Delegations = append(out.Delegations, &sigilv1.DelegationSummary{
			DelegationId: d.ID, WalletId: d.Wallet, WalletName: d.WalletName, DelegatedUserId: d.DelegatedUser, DelegatedUserName: d.DelegatedUserName,
			Status: statusMessage(d.Status), AwaitingApproval: d.Awaiting, CreatedAt: timestamppb.New(d.CreatedAt), ExpiresAt: moment(d.ExpiresAt),
		})
	}
	return out, nil
}

func (s delegatedAccessService) DescribeDelegation(ctx context.Context, r *sigilv1.DescribeDelegationRequest) (*sigilv1.DescribeDelegationResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	d, err := p.Delegation.Describe(ctx, actor, r.GetOrganizationId(), r.GetDelegationId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.DescribeDelegationResponse{
		Delegation: delegationMessage(d.Delegation), WalletName: d.WalletName, Chain: d.Chain, Address: d.Address, DelegatedUserName: d.DelegatedUserName,
		Terms: d.Terms, ApproveBy: moment(d.ApproveBy), PausedScope: said(d.PausedScope), May: d.May, ApiKeyMadeAt: moment(d.APIKeyMadeAt),
		Signed: uint32(d.Signed), NotSigned: uint32(d.NotSigned), LookedFrom: d.LookedFrom,
	}
	if d.Pause != nil {
		out.Pause = pauseMessage(*d.Pause)
	}
	for _, u := range d.Usage {
		out.Limits = append(out.Limits, usageMessage(u))
	}
	for _, o := range d.Newest {
		out.Newest = append(out.Newest, &sigilv1.RequestOutcome{
			Sequence: o.Sequence, At: timestamppb.New(o.At), Outcome: o.Outcome, RequestId: o.RequestID, Reason: said(o.Reason), Summary: said(o.Summary),
		})
	}
	return out, nil
}

func (s delegatedAccessService) NextEvents(ctx context.Context, r *sigilv1.NextEventsRequest) (*sigilv1.NextEventsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	got, err := p.Delegation.NextEvents(ctx, actor, r.GetOrganizationId(), r.GetAfter(), time.Duration(r.GetWaitSeconds())*time.Second)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.NextEventsResponse{Next: got.Next, Lost: got.Lost}
	for _, e := range got.List {
		out.Events = append(out.Events, &sigilv1.DelegationEvent{
			Sequence: e.Sequence, At: timestamppb.New(e.At), Name: e.Name, DelegationId: e.Delegation, WalletId: e.Wallet, RequestId: said(e.RequestID), Reason: said(e.Reason),
			CredentialId: said(e.Credential), UserId: said(e.User),
		})
	}
	return out, nil
}

func usageMessage(u delegation.LimitUsage) *sigilv1.LimitUsage {
	out := &sigilv1.LimitUsage{Limit: limitMessage(u.Limit), Unbounded: u.Used.Unbounded}
	if u.Limit.Per == policy.PerDestination {
		return out
	}
	if !u.Limit.AnyAmount {
		used, left := u.Used.Sum.Dec(), u.Left.Dec()
		out.Used, out.Left = &used, &left
	}
	if u.Limit.MaxCount > 0 {
		out.UsedCount, out.LeftCount = &u.Used.Count, &u.LeftCount
	}
	return out
}

// moment is absent for nil.
func moment(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// statusPrefix is what the API's names of a delegation's statuses begin with; the
// rest is the record's word in capitals.
const statusPrefix = "DELEGATION_STATUS_"

func statusMessage(word string) sigilv1.DelegationStatus {
	return sigilv1.DelegationStatus(sigilv1.DelegationStatus_value[statusPrefix+strings.ToUpper(word)])
}
