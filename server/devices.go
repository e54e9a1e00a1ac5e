package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/refusal"
)

// Handlers of device.proto.

type deviceService struct {
	sigilv1.UnimplementedDeviceServiceServer
	a *Appliance
}

func (s deviceService) RegisterDevice(ctx context.Context, r *sigilv1.RegisterDeviceRequest) (*sigilv1.RegisterDeviceResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	pin, err := link.ParsePin(r.GetPin())
	if err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "pin")
	}
	own, err := p.Identity()
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.RegisterDevice(ctx, actor, delegation.NewDevice{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), User: r.GetUserId(), Name: r.GetName(), Pin: pin.String(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RegisterDeviceResponse{DeviceId: made.DeviceID, AppliancePin: own.Pin().String()}, nil
}

func (s deviceService) RemoveDevice(ctx context.Context, r *sigilv1.RemoveDeviceRequest) (*sigilv1.RemoveDeviceResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.RemoveDevice(ctx, actor, r.GetRequestId(), r.GetOrganizationId(), r.GetDeviceId()); err != nil {
		return nil, err
	}
	s.a.peers.cut(p.admits)
	return &sigilv1.RemoveDeviceResponse{}, nil
}

func (s deviceService) CreateDeviceWallet(ctx context.Context, r *sigilv1.CreateDeviceWalletRequest) (*sigilv1.CreateDeviceWalletResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.CreateDeviceWallet(ctx, actor, delegation.NewDeviceWallet{
		NewWallet: delegation.NewWallet{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Owner: r.GetOwnerUserId(), Chain: r.GetChain(), Name: r.GetName()},
		Device:    r.GetDeviceId(), Recovery: r.GetRecovery(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.CreateDeviceWalletResponse{WalletId: made.WalletID, KeyId: made.KeyID, CeremonyId: made.CeremonyID}, nil
}

// Identity is the appliance's own key for its peer door and for calls to peers, lent
// by the open store for each signature.
func (p *Parts) Identity() (*link.Identity, error) { return link.LentIdentity(p.Delegation.PeerKey) }
