package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Handlers of clock.proto.

type clockService struct {
	sigilv1.UnimplementedClockServiceServer
	a *Appliance
}

func (s clockService) GetClock(context.Context, *sigilv1.GetClockRequest) (*sigilv1.GetClockResponse, error) {
	p, err := s.a.open()
	if err != nil {
		return nil, err
	}
	c := p.Delegation.Clock()
	out := &sigilv1.GetClockResponse{Wall: timestamppb.New(c.Wall), Now: timestamppb.New(c.Now), Synced: c.Synced, BootId: c.BootID}
	if c.Why != nil {
		why := c.Why.Error()
		out.Alarm = &why
	}
	if c.Anchor.By != "" {
		out.ConfirmedBy, out.ConfirmedAt = &c.Anchor.By, timestamppb.New(time.UnixMilli(c.Anchor.WallMS))
	}
	return out, nil
}

func (s clockService) ConfirmClock(ctx context.Context, r *sigilv1.ConfirmClockRequest) (*sigilv1.ConfirmClockResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.GetTime().CheckValid(); err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "time is not a time").With("field", "time")
	}
	made, err := p.Delegation.ConfirmClock(ctx, actor, delegation.ClockConfirmation{RequestID: r.GetRequestId(), BootID: r.GetBootId(), Time: r.GetTime().AsTime()})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ConfirmClockResponse{ConfirmedAt: timestamppb.New(made.At)}, nil
}
