package server

import (
	"context"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sigild/sigild/refusal"
)

// grpc.health.v1, for supervisors that speak it. Only Check is served: Watch
// streams, and this server has no streams. It tells a role holder what GetStatus
// tells too, by service: "" and the names of the services; all but StatusService
// and ControlService serve only while the store is open.

// healthDesc is the standard service cut down to Check.
var healthDesc = func() *grpc.ServiceDesc {
	d := healthpb.Health_ServiceDesc
	d.Methods, d.Streams = nil, nil
	for _, m := range healthpb.Health_ServiceDesc.Methods {
		if m.MethodName == "Check" {
			d.Methods = append(d.Methods, m)
		}
	}
	return &d
}()

type healthService struct {
	healthpb.UnimplementedHealthServer
	// open reports whether the store is open.
	open func() bool
	// names of the services that are served.
	names map[string]bool
}

// newHealth knows the services of list.
func newHealth(list []service, open func() bool) healthService {
	h := healthService{open: open, names: map[string]bool{"": true}}
	for _, s := range list {
		h.names[s.desc.ServiceName] = true
	}
	return h
}

func (h healthService) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if !h.names[r.GetService()] {
		return nil, refusal.New(refusal.NotFound, "no such service")
	}
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if h.open() || r.GetService() == "sigil.v1.StatusService" || r.GetService() == "sigil.v1.ControlService" {
		status = healthpb.HealthCheckResponse_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: status}, nil
}
