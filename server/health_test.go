package server

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func TestHealthTellsWhatServes(t *testing.T) {
	h := newHouse(t)
	conn, err := grpc.NewClient("unix://"+h.app, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	check := func(service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
		out, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{Service: service})
		return out.GetStatus(), err
	}
	for _, service := range []string{"", "sigil.v1.SigningService", "sigil.v1.StatusService"} {
		if got, err := check(service); err != nil || got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: got %v, %v", service, got, err)
		}
	}
	_, err = check("sigil.v1.Nothing")
	wantReason(t, "an unknown service", err, "NOT_FOUND")
}

func TestSealedApplianceServesStatusAndControlOnly(t *testing.T) {
	h := newHealth(Services{}.list(), func() bool { return false })
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"":                        healthpb.HealthCheckResponse_NOT_SERVING,
		"sigil.v1.SigningService": healthpb.HealthCheckResponse_NOT_SERVING,
		"sigil.v1.StatusService":  healthpb.HealthCheckResponse_SERVING,
		"sigil.v1.ControlService": healthpb.HealthCheckResponse_SERVING,
	} {
		got, err := h.Check(context.Background(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != want {
			t.Errorf("%q: got %v, %v, want %v", service, got.GetStatus(), err, want)
		}
	}
}
