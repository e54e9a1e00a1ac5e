package server

import (
	"context"
	"strings"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/refusal"
)

// Handlers of endpoint.proto.

type endpointService struct {
	sigilv1.UnimplementedEndpointServiceServer
	a *Appliance
}

func (s endpointService) RegisterEndpoint(ctx context.Context, r *sigilv1.RegisterEndpointRequest) (*sigilv1.RegisterEndpointResponse, error) {
	defer clear(r.GetSecret())
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if name := r.GetCosignerPeer(); r.CosignerPeer != nil {
		if err := p.Delegation.KnownPeer(name, "cosigner_peer"); err != nil {
			return nil, err
		}
	}
	made, err := p.Outbox.RegisterEndpoint(ctx, p.Delegation.Acting(actor), outbox.NewEndpoint{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Name: r.GetName(), URL: r.GetUrl(), Environment: r.GetEnvironmentId(),
		Peer: r.GetCosignerPeer(), Sandbox: r.GetSandbox(), Secret: r.GetSecret(), PublicKeyPEM: r.GetPublicKeyPem(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.RegisterEndpointResponse{EndpointId: made.EndpointID, KeyId: made.KeyID}, nil
}

func (s endpointService) AddEndpointKey(ctx context.Context, r *sigilv1.AddEndpointKeyRequest) (*sigilv1.AddEndpointKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Outbox.AddKey(ctx, p.Delegation.Acting(actor), outbox.NewKey{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Endpoint: r.GetEndpointId(), PublicKeyPEM: r.GetPublicKeyPem(),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.AddEndpointKeyResponse{KeyId: made.KeyID}, nil
}

// keyStatusPrefix is what the API's names of a key's statuses begin with; the rest is
// the record's word in capitals.
const keyStatusPrefix = "ENDPOINT_KEY_STATUS_"

func (s endpointService) ChangeEndpointKey(ctx context.Context, r *sigilv1.ChangeEndpointKeyRequest) (*sigilv1.ChangeEndpointKeyResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	err = p.Outbox.ChangeKey(ctx, p.Delegation.Acting(actor), outbox.KeyChange{
		RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Endpoint: r.GetEndpointId(), Key: r.GetKeyId(),
		Status: outbox.KeyStatus(strings.ToLower(strings.TrimPrefix(r.GetStatus().String(), keyStatusPrefix))),
	})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ChangeEndpointKeyResponse{}, nil
}

func (s endpointService) PingEndpoint(ctx context.Context, r *sigilv1.PingEndpointRequest) (*sigilv1.PingEndpointResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Outbox.Ping(ctx, p.Delegation.Acting(actor), r.GetRequestId(), r.GetOrganizationId(), r.GetEndpointId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.PingEndpointResponse{EventId: made.EventID}, nil
}

func (s endpointService) RedeliverEvents(ctx context.Context, r *sigilv1.RedeliverEventsRequest) (*sigilv1.RedeliverEventsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Outbox.Redeliver(ctx, p.Delegation.Acting(actor), r.GetRequestId(), r.GetOrganizationId(), r.GetEndpointId())
	if err != nil {
		return nil, err
	}
	return &sigilv1.RedeliverEventsResponse{Events: uint32(made.Events)}, nil
}

func (s endpointService) ListEndpoints(ctx context.Context, r *sigilv1.ListEndpointsRequest) (*sigilv1.ListEndpointsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	list, err := p.Outbox.Endpoints(p.Delegation.Acting(actor), r.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	out := &sigilv1.ListEndpointsResponse{}
	for _, e := range list {
		m := &sigilv1.Endpoint{
			EndpointId: e.ID, Name: e.Name, Url: e.URL, EnvironmentId: e.Environment, Sandbox: e.Sandbox, ReachedAt: moment(e.ReachedAt), CosignerPeer: said(e.Peer),
			Waiting: uint32(e.Waiting), Failed: uint32(e.Failed),
		}
		for _, k := range e.Keys {
			status := sigilv1.EndpointKeyStatus_value[keyStatusPrefix+strings.ToUpper(string(k.Status))]
			m.Keys = append(m.Keys, &sigilv1.EndpointKey{KeyId: k.ID, Status: sigilv1.EndpointKeyStatus(status), PublicKeyPem: k.PublicKeyPEM})
		}
		out.Endpoints = append(out.Endpoints, m)
	}
	return out, nil
}

type courierService struct {
	sigilv1.UnimplementedCourierServiceServer
	a *Appliance
}

// maxTaken is how many events one call takes.
const maxTaken = 16

func (s courierService) TakeEvents(ctx context.Context, r *sigilv1.TakeEventsRequest) (*sigilv1.TakeEventsResponse, error) {
	p, _, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if r.GetMost() < 1 || r.GetMost() > maxTaken {
		return nil, refusal.New(refusal.RequestInvalid, "most must be 1 to %d", maxTaken).With("field", "most")
	}
	due, err := p.Outbox.Take(ctx, int(r.GetMost()))
	if err != nil {
		return nil, err
	}
	out := &sigilv1.TakeEventsResponse{}
	for _, d := range due {
		out.Events = append(out.Events, &sigilv1.DueEvent{EventId: d.ID, Url: d.URL, Body: d.Body, Signature: d.Signature})
	}
	return out, nil
}

func (s courierService) ReportEvent(ctx context.Context, r *sigilv1.ReportEventRequest) (*sigilv1.ReportEventResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.Outbox.Report(ctx, actor.Entry("", ""), r.GetEventId(), int(r.GetHttpStatus()), printable(r.GetWhy())); err != nil {
		return nil, err
	}
	return &sigilv1.ReportEventResponse{}, nil
}
