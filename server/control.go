package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Handlers of control.proto.

type controlService struct {
	sigilv1.UnimplementedControlServiceServer
	a *Appliance
}

func (s controlService) Pause(ctx context.Context, r *sigilv1.PauseRequest) (*sigilv1.PauseResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	scope, err := scopeOf(r.OrganizationId, r.WalletId, r.DelegationId)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.Pause(ctx, actor, delegation.NewPause{RequestID: r.GetRequestId(), Scope: scope, Reason: r.GetReason()})
	if err != nil {
		return nil, err
	}
	return &sigilv1.PauseResponse{Pause: pauseMessage(made)}, nil
}

func pauseMessage(p delegation.Pause) *sigilv1.Pause {
	return &sigilv1.Pause{Level: string(p.Level), Since: timestamppb.New(p.Since), Reason: p.Reason}
}

func (s controlService) Resume(ctx context.Context, r *sigilv1.ResumeRequest) (*sigilv1.ResumeResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	scope, err := scopeOf(r.OrganizationId, r.WalletId, r.DelegationId)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.Resume(ctx, actor, r.GetRequestId(), scope); err != nil {
		return nil, err
	}
	return &sigilv1.ResumeResponse{}, nil
}

func (s controlService) Seal(ctx context.Context, r *sigilv1.SealRequest) (*sigilv1.SealResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Delegation.Seal(ctx, actor, r.GetRequestId(), r.GetReason()); err != nil {
		return nil, err
	}
	if err := p.Close(ctx); err != nil {
		return nil, err
	}
	return &sigilv1.SealResponse{}, nil
}

func (s controlService) Unseal(ctx context.Context, r *sigilv1.UnsealRequest) (*sigilv1.UnsealResponse, error) {
	st := s.a.state.Load()
	var err error
	switch {
	case st.parts != nil: // asked again: the stored answer, or the refusal that it isn't sealed
		err = st.parts.Delegation.Unseal(ctx, actorOf(ctx), r.GetRequestId())
	case st.guard != nil:
		err = st.guard.Unseal(ctx, actorOf(ctx), r.GetRequestId())
	default:
		err = refusal.New(refusal.Sealed, "the store is sealed: %s", st.why)
	}
	if err != nil {
		return nil, err
	}
	return &sigilv1.UnsealResponse{}, nil
}

// scopeOf refuses what names a wallet or a delegation without its organization, or
// both, and empty ids.
func scopeOf(organization, wallet, of *string) (delegation.Scope, error) {
	var s delegation.Scope
	given := 0
	for _, f := range []struct {
		from *string
		to   *string
	}{{organization, &s.Organization}, {wallet, &s.Wallet}, {of, &s.Delegation}} {
		if f.from == nil {
			continue
		}
		given++
		if *f.to = *f.from; *f.to == "" {
			given = 4
		}
	}
	if given > 2 || given > 0 && s.Organization == "" {
		return s, refusal.New(refusal.RequestInvalid, "name nothing, an organization, or an organization and a wallet or a delegation").With("field", "organization_id")
	}
	return s, nil
}
