package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handlers of keyslot.proto.

type keyslotService struct {
	sigilv1.UnimplementedKeyslotServiceServer
	a *Appliance
}

func (s keyslotService) ListKeyslots(ctx context.Context, _ *sigilv1.ListKeyslotsRequest) (*sigilv1.ListKeyslotsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	slots, info, err := p.Delegation.Keyslots(actor)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListKeyslotsResponse{RootKey: info.Generation, Rotating: info.Rotating}
	for _, s := range slots {
		out.Keyslots = append(out.Keyslots, &sigilv1.Keyslot{
			Group: s.Group, Id: s.ID, Provider: s.Provider, KeyRef: string(s.Ref),
			CreatedAt: timestamppb.New(s.Created), Custodians: s.Custodians,
		})
	}
	return out, nil
}

func (s keyslotService) AddCustodians(ctx context.Context, r *sigilv1.AddCustodiansRequest) (*sigilv1.AddCustodiansResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	added, err := p.Delegation.AddCustodians(ctx, actor, delegation.NewCustodians{
		RequestID: r.GetRequestId(), Needed: int(min(r.GetNeeded(), 1<<16)), Recipients: r.GetRecipients(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.AddCustodiansResponse{Group: added.Group}, nil
}

func (s keyslotService) AddDeviceGroup(ctx context.Context, r *sigilv1.AddDeviceGroupRequest) (*sigilv1.AddDeviceGroupResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	added, err := p.Delegation.AddDevices(ctx, actor, delegation.NewDevices{RequestID: r.GetRequestId(), Names: r.GetDevices()})
	if err != nil {
		return nil, err
	}
	return &sigilv1.AddDeviceGroupResponse{Group: added.Group}, nil
}

func (s keyslotService) RemoveKeyslotGroup(ctx context.Context, r *sigilv1.RemoveKeyslotGroupRequest) (*sigilv1.RemoveKeyslotGroupResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.RemoveKeyslots(ctx, actor, r.GetRequestId(), r.GetGroup()); err != nil {
		return nil, err
	}
	return &sigilv1.RemoveKeyslotGroupResponse{}, nil
}

func (s keyslotService) VerifyKeyslotGroup(ctx context.Context, r *sigilv1.VerifyKeyslotGroupRequest) (*sigilv1.VerifyKeyslotGroupResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.VerifyKeyslots(ctx, actor, r.GetGroup()); err != nil {
		return nil, err
	}
	return &sigilv1.VerifyKeyslotGroupResponse{}, nil
}

func (s keyslotService) RotateRootKey(ctx context.Context, r *sigilv1.RotateRootKeyRequest) (*sigilv1.RotateRootKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RotateRootKey(ctx, actor, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.RotateRootKeyResponse{RootKey: made.Generation}, nil
}

func (s keyslotService) RotateKEK(ctx context.Context, r *sigilv1.RotateKEKRequest) (*sigilv1.RotateKEKResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.RotateKEK(ctx, actor, r.GetRequestId()); err != nil {
		return nil, err
	}
	return &sigilv1.RotateKEKResponse{}, nil
}
