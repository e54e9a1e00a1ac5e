package server

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
)

// What the door alone costs: socket, access table, authentication, strict
// reading, an empty handler, and the reply. One caller, one call at a time.

func BenchmarkCallWithAPIKey(b *testing.B) {
	h := newHouse(b, unhurried)
	c := dial(b, h.app).WithAPIKey([]byte(testAPIKey)).Signing()
	in := &sigilv1.SignRequest{RequestId: "r", WalletId: "w", Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: make([]byte, 120)}}
	for b.Loop() {
		if _, err := c.Sign(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCallWithStamp(b *testing.B) {
	for _, a := range []credential.Algorithm{credential.P256, credential.Ed25519, credential.Secp256k1} {
		b.Run(string(a), func(b *testing.B) {
			h := newHouse(b, unhurried)
			c := dial(b, h.app).WithStamps(testOrg, h.keys[a]).Wallets()
			in := &sigilv1.GetWalletRequest{OrganizationId: testOrg, WalletId: "wal_x"}
			for b.Loop() {
				if _, err := c.GetWallet(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// unhurried lets a benchmark call faster than an application may.
func unhurried(c *Config) { c.Limits.CallsPerSecond, c.Limits.CallBurst = 1e9, 1e9 }

// BenchmarkStatus compares GetStatus with the same call to a bare grpc-go server:
// the same listener, credentials and codec, the same client, the same reply, and
// nothing else. The calls take turns, so that what disturbs one disturbs both; the
// figures are medians. The target is a ratio of 1.5 at most.
func BenchmarkStatus(b *testing.B) {
	appliance := NewAppliance("0.0.0")
	// Sealed by an operator: the reply has an appliance id as it has when open, and
	// needs no store. What the open rooms add to it are counters in memory.
	appliance.SealedBy("a benchmark is running", Guard{Guard: delegation.Guard{ApplianceID: testAppliance}})
	dir := socketDir(b)
	cfg := Config{App: Endpoint{Path: filepath.Join(dir, "app.sock"), Mode: 0o600}, Admin: Endpoint{Path: filepath.Join(dir, "admin.sock"), Mode: 0o600}, Roles: Roles{App: me()}}
	unhurried(&cfg)
	s, err := New(cfg, appliance, appliance.Services())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	ours := dial(b, cfg.App.Path).Status()
	reply, err := ours.GetStatus(ctx, &sigilv1.GetStatusRequest{})
	if err != nil {
		b.Fatal(err)
	}
	bare := dial(b, serveBare(b, reply)).Status()

	var took [2][]time.Duration
	for b.Loop() {
		for i, c := range []sigilv1.StatusServiceClient{ours, bare} {
			start := time.Now()
			if _, err := c.GetStatus(ctx, &sigilv1.GetStatusRequest{}); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / float64(time.Microsecond)
	}
	b.ReportMetric(median(took[0]), "sigild-us")
	b.ReportMetric(median(took[1]), "bare-us")
	b.ReportMetric(median(took[0])/median(took[1]), "ratio")
	b.ReportMetric(0, "ns/op") // of both together: nobody's figure
}

// serveBare is a grpc-go server that answers GetStatus with reply, and returns its socket.
func serveBare(b *testing.B, reply proto.Message) string {
	b.Helper()
	endpoint := Endpoint{Path: filepath.Join(socketDir(b), "bare.sock"), Mode: 0o600}
	l, remove, err := endpoint.listen()
	if err != nil {
		b.Fatal(err)
	}
	// peerCreds takes the connections of this listener only: it has read SO_PEERCRED.
	listener := newLimitListener(l, "bare", Config{Limits: Limits{}.withDefaults()})
	g := grpc.NewServer(grpc.Creds(peerCreds{}), grpc.ForceServerCodecV2(rawCodec{}))
	g.RegisterService(&grpc.ServiceDesc{ServiceName: sigilv1.StatusService_ServiceDesc.ServiceName, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "GetStatus",
		Handler: func(_ any, _ context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var f frame
			if err := receive(&f); err != nil {
				return nil, err
			}
			return reply, proto.Unmarshal(f.bytes, &sigilv1.GetStatusRequest{})
		},
	}}}, struct{}{})
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	b.Cleanup(func() {
		g.Stop()
		remove()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return endpoint.Path
}
