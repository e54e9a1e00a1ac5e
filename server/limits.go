package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Handlers of limit.proto.

type limitService struct {
	sigilv1.UnimplementedLimitServiceServer
	a *Appliance
}

func (s limitService) ListLimits(ctx context.Context, r *sigilv1.ListLimitsRequest) (*sigilv1.ListLimitsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.Delegation.Limits(actor, r.GetOrganizationId(), r.GetLimitId())
	if err != nil {
		return nil, err
	}
	if r.LimitId != nil && len(all) == 0 {
		return nil, refusal.New(refusal.NotFound, "no such limit")
	}
	out := new(sigilv1.ListLimitsResponse)
	for _, l := range all {
		out.Limits = append(out.Limits, limitStateMessage(l))
	}
	return out, nil
}

func limitStateMessage(s delegation.LimitState) *sigilv1.LimitState {
	l := s.Limit
	out := &sigilv1.LimitState{LimitId: l.ID, Limit: limitMessage(l), DelegationId: said(l.Delegation), Per: said(string(l.Per)), Decimals: uint32(l.Decimals), More: s.More}
	for _, g := range s.Groups {
		m := &sigilv1.LimitGroup{Of: g.Of, Unbounded: g.Used.Unbounded, Count: g.Used.Count, InFlight: uint64(g.Used.InFlight)}
		if !l.AnyAmount {
			used, left := g.Used.Sum.Dec(), g.Left.Dec()
			m.Used, m.Left = &used, &left
		}
		if l.MaxCount > 0 {
			m.CountLeft = &g.LeftCount
		}
		if !g.Frees.IsZero() {
			m.FreesAt = timestamppb.New(g.Frees)
		}
		out.Groups = append(out.Groups, m)
	}
	return out
}
