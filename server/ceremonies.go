package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handlers of ceremony.proto.

type ceremonyService struct {
	sigilv1.UnimplementedCeremonyServiceServer
	a *Appliance
}

func (s ceremonyService) ListCeremonies(ctx context.Context, r *sigilv1.ListCeremoniesRequest) (*sigilv1.ListCeremoniesResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	listed, err := p.Delegation.ListCeremonies(actor, r.GetOrganizationId(), r.GetWalletId(), r.GetAfter(), r.GetEnded())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListCeremoniesResponse{}
	for _, c := range listed {
		out.Ceremonies = append(out.Ceremonies, listedMessage(c))
	}
	return out, nil
}

func (s ceremonyService) ShowCeremony(ctx context.Context, r *sigilv1.ShowCeremonyRequest) (*sigilv1.ShowCeremonyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	c, err := p.Delegation.ShowCeremony(actor, r.GetOrganizationId(), r.GetCeremonyId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.ShowCeremonyResponse{Ceremony: listedMessage(c)}, nil
}

func (s ceremonyService) AbortCeremony(ctx context.Context, r *sigilv1.AbortCeremonyRequest) (*sigilv1.AbortCeremonyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	err = p.Delegation.AbortCeremony(ctx, actor, delegation.NewAbort{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Ceremony: r.GetCeremonyId(), Reason: r.GetReason(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.AbortCeremonyResponse{}, nil
}

func listedMessage(c delegation.ListedCeremony) *sigilv1.ListedCeremony {
	out := &sigilv1.ListedCeremony{Ceremony: ceremonyMessage(c.Ceremony), WalletId: c.Wallet}
	if c.Delegation != "" {
		out.DelegationId = &c.Delegation
	}
	if c.WaitsFor != "" {
		out.WaitsFor, out.WaitsUntil = &c.WaitsFor, timestamppb.New(c.Ends)
	}
	return out
}

func ceremonyMessage(c delegation.Ceremony) *sigilv1.Ceremony {
	out := &sigilv1.Ceremony{CeremonyId: c.ID, Kind: c.Kind, StartedAt: timestamppb.New(c.StartedAt)}
	switch c.Status {
	case "running":
		out.Status = sigilv1.CeremonyStatus_CEREMONY_STATUS_RUNNING
		done, total := uint32(c.Done), uint32(c.Total)
		out.Stage, out.StepsDone, out.StepsTotal = &c.Stage, &done, &total
	case "done":
		out.Status = sigilv1.CeremonyStatus_CEREMONY_STATUS_DONE
	case "failed":
		out.Status, out.Error, out.Culprits = sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED, &c.Error, c.Culprits
		if c.Stage != "" {
			out.Stage = &c.Stage
		}
	}
	return out
}
