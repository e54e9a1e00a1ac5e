package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handlers of activity.proto.

type activityService struct {
	sigilv1.UnimplementedActivityServiceServer
	a *Appliance
}

// maxActivities of one list.
const maxActivities = 100

func (s activityService) ListActivities(ctx context.Context, r *sigilv1.ListActivitiesRequest) (*sigilv1.ListActivitiesResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.Delegation.Activities(actor, r.GetOrganizationId(), r.GetAll())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListActivitiesResponse{}
	for _, v := range list[:min(len(list), maxActivities)] {
		out.Activities = append(out.Activities, activityMessage(v))
	}
	return out, nil
}

func (s activityService) GetActivity(ctx context.Context, r *sigilv1.GetActivityRequest) (*sigilv1.GetActivityResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	v, err := p.Delegation.Activity(actor, r.GetOrganizationId(), r.GetActivityId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.GetActivityResponse{Activity: activityMessage(v), Payload: v.Payload}, nil
}

func (s activityService) ApproveActivity(ctx context.Context, r *sigilv1.ApproveActivityRequest) (*sigilv1.ApproveActivityResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	out, err := p.Delegation.Approve(ctx, voteOf(ctx, actor, r))
	if err != nil {
		return nil, err
	}
	return &sigilv1.ApproveActivityResponse{Approvals: uint32(out.Approvals)}, nil
}

func (s activityService) RejectActivity(ctx context.Context, r *sigilv1.RejectActivityRequest) (*sigilv1.RejectActivityResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	v := voteOf(ctx, actor, r)
	v.Reason = r.GetReason()
	if _, err := p.Delegation.Reject(ctx, v); err != nil {
		return nil, err
	}
	return &sigilv1.RejectActivityResponse{}, nil
}

// voteOf is a vote with what proves it: the message as it was received and its stamps.
func voteOf(ctx context.Context, actor delegation.Actor, r interface {
	GetRequestId() string
	GetOrganizationId() string
	GetActivity() []byte
}) delegation.Vote {
	q := requestFrom(ctx)
	return delegation.Vote{
		Actor: actor, RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Activity: r.GetActivity(),
		Message: q.message, Stamps: q.stamps,
	}
}

func activityMessage(v delegation.ActivityView) *sigilv1.Activity {
	vote := func(v delegation.ActivityVote) *sigilv1.ActivityVote {
		return &sigilv1.ActivityVote{UserId: v.User, CredentialId: v.Credential, At: timestamppb.New(v.At), Reason: v.Reason}
	}
	out := &sigilv1.Activity{
		ActivityId: v.ID, Activity: v.Bytes, Status: activityStatuses[v.Status], WalletId: v.Wallet, DelegationId: v.Delegation,
		RequesterUserId: v.Requester, RequestId: v.RequestID, Kind: string(v.Kind), Chain: v.Chain, Address: v.Address, Summary: v.Summary,
		PayloadDigest: v.PayloadDigest[:], PolicySetHash: v.PolicySet[:], CreatedAt: timestamppb.New(v.CreatedAt), ExpiresAt: timestamppb.New(v.ExpiresAt),
		WaitingPolicies: v.Waiting,
	}
	for _, a := range v.Approvals {
		out.Approvals = append(out.Approvals, vote(a))
	}
	if v.Rejection != nil {
		out.Rejection = vote(*v.Rejection)
	}
	return out
}

var activityStatuses = map[string]sigilv1.ActivityStatus{
	"pending":        sigilv1.ActivityStatus_ACTIVITY_STATUS_PENDING,
	"executed":       sigilv1.ActivityStatus_ACTIVITY_STATUS_EXECUTED,
	"rejected":       sigilv1.ActivityStatus_ACTIVITY_STATUS_REJECTED,
	"expired":        sigilv1.ActivityStatus_ACTIVITY_STATUS_EXPIRED,
	"policy_changed": sigilv1.ActivityStatus_ACTIVITY_STATUS_POLICY_CHANGED,
}
