// Package server is sigild's door: two unix sockets that applications and
// operators call with gRPC. It knows who calls (SO_PEERCRED), whether that
// caller may use the method at all (access.go, docs/authority.md), and whose
// stamps were made over exactly the bytes that came; then it reads those bytes
// strictly and hands them to a handler. What goes wrong leaves as one of a
// closed list of reasons (errors.go, docs/errors.md).
//
// It refuses TCP, streams, methods without a row, callers without a role, uid 0
// without one too, messages with unknown or repeated fields, and stamps that are
// stale or made for another method, organization or appliance. It doesn't decide
// what a credential may do: delegation and signing do.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/journal"
)

// Config of a [Server].
type Config struct {
	// App is the applications' socket, Admin the operators'. Both are needed.
	App, Admin Endpoint
	// Roles say who may call; the zero value lets nobody in.
	Roles Roles
	// Refusals counts what leaves as a refusal; nil counts nothing.
	Refusals *journal.Refusals
	// Limits; zero fields get the default that each names.
	Limits Limits
	// Log gets refusals and failures; nil discards.
	Log *slog.Logger
	// Now is the clock stamps are judged by; nil means time.Now.
	Now func() time.Time

	// testOnlyTaken is called for each connection taken, before gRPC gets it; nil otherwise.
	testOnlyTaken func()
	units         *units
}

// Limits bound what callers can take.
type Limits struct {
	// MessageBytes of a request; 1 MiB. The access table bounds most methods closer.
	MessageBytes int
	// HeaderBytes of a call's metadata; 16 KiB, since 16 stamps need half of it.
	HeaderBytes uint32
	// Streams are the calls one connection may have under way; 64.
	Streams uint32
	// Connections of each socket; 256.
	Connections int
	// ConnectionsPerUID of each socket; 32.
	ConnectionsPerUID int
	// Handshake is the time a new connection has to say something; 5 s.
	Handshake time.Duration
	// Idle ends a connection without calls; 10 min.
	Idle time.Duration
	// Deadline of a call that brings none; 10 s, unless its row in the access table says otherwise.
	Deadline time.Duration
	// MaxDeadline bounds a call's own deadline; 30 s.
	MaxDeadline time.Duration
	// CallsPerSecond of one uid on both sockets, after a burst of CallBurst; 5000 and 10000.
	CallsPerSecond float64
	CallBurst      int
	// Stop is how long a graceful stop waits for calls under way; 20 s.
	Stop time.Duration
}

func (l Limits) withDefaults() Limits {
	set(&l.MessageBytes, 1<<20)
	set(&l.HeaderBytes, 16<<10)
	set(&l.Streams, 64)
	set(&l.Connections, 256)
	set(&l.ConnectionsPerUID, 32)
	set(&l.Handshake, 5*time.Second)
	set(&l.Idle, 10*time.Minute)
	set(&l.Deadline, 10*time.Second)
	set(&l.MaxDeadline, 30*time.Second)
	set(&l.CallsPerSecond, 5000)
	set(&l.CallBurst, 10000)
	set(&l.Stop, 20*time.Second)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Services are the handlers. All are needed; they read what the wrapper found
// out with requestFrom and return errors of any room.
type Services struct {
	Status        sigilv1.StatusServiceServer
	Organization  sigilv1.OrganizationServiceServer
	User          sigilv1.UserServiceServer
	Wallet        sigilv1.WalletServiceServer
	Delegation    sigilv1.DelegationServiceServer
	Access        sigilv1.DelegatedAccessServiceServer
	Policy        sigilv1.PolicyServiceServer
	Delivery      sigilv1.DeliveryServiceServer
	Vendor        sigilv1.VendorServiceServer
	Endpoint      sigilv1.EndpointServiceServer
	Courier       sigilv1.CourierServiceServer
	Activity      sigilv1.ActivityServiceServer
	Order         sigilv1.OrderServiceServer
	Key           sigilv1.KeyServiceServer
	Signing       sigilv1.SigningServiceServer
	Control       sigilv1.ControlServiceServer
	Keyslot       sigilv1.KeyslotServiceServer
	Clock         sigilv1.ClockServiceServer
	Audit         sigilv1.AuditServiceServer
	Limit         sigilv1.LimitServiceServer
	Member        sigilv1.MemberServiceServer
	DelegatedUser sigilv1.DelegatedUserServiceServer
	KeyDelegation sigilv1.KeyDelegationServiceServer
	Device        sigilv1.DeviceServiceServer
	Cosign        sigilv1.CosignServiceServer
	Receipt       sigilv1.ReceiptServiceServer
	Ceremony      sigilv1.CeremonyServiceServer
	Credential    sigilv1.VendorCredentialServiceServer
	Stamping      sigilv1.StampingServiceServer
	// Open reports whether the store is open, for grpc.health.v1.
	Open func() bool
}

// service pairs a description with its handler; descriptions are those of api.
type service struct {
	desc *grpc.ServiceDesc
	impl any
}

func (s Services) list() []service {
	list := []service{
		{&sigilv1.StatusService_ServiceDesc, s.Status},
		{&sigilv1.OrganizationService_ServiceDesc, s.Organization},
		{&sigilv1.UserService_ServiceDesc, s.User},
		{&sigilv1.WalletService_ServiceDesc, s.Wallet},
		{&sigilv1.DelegationService_ServiceDesc, s.Delegation},
		{&sigilv1.DelegatedAccessService_ServiceDesc, s.Access},
		{&sigilv1.PolicyService_ServiceDesc, s.Policy},
		{&sigilv1.DeliveryService_ServiceDesc, s.Delivery},
		{&sigilv1.VendorService_ServiceDesc, s.Vendor},
		{&sigilv1.EndpointService_ServiceDesc, s.Endpoint},
		{&sigilv1.CourierService_ServiceDesc, s.Courier},
		{&sigilv1.ActivityService_ServiceDesc, s.Activity},
		{&sigilv1.OrderService_ServiceDesc, s.Order},
		{&sigilv1.KeyService_ServiceDesc, s.Key},
		{&sigilv1.SigningService_ServiceDesc, s.Signing},
		{&sigilv1.ControlService_ServiceDesc, s.Control},
		{&sigilv1.KeyslotService_ServiceDesc, s.Keyslot},
		{&sigilv1.ClockService_ServiceDesc, s.Clock},
		{&sigilv1.AuditService_ServiceDesc, s.Audit},
		{&sigilv1.LimitService_ServiceDesc, s.Limit},
		{&sigilv1.MemberService_ServiceDesc, s.Member},
		{&sigilv1.DelegatedUserService_ServiceDesc, s.DelegatedUser},
		{&sigilv1.KeyDelegationService_ServiceDesc, s.KeyDelegation},
		{&sigilv1.DeviceService_ServiceDesc, s.Device},
		{&sigilv1.CosignService_ServiceDesc, s.Cosign},
		{&sigilv1.ReceiptService_ServiceDesc, s.Receipt},
		{&sigilv1.CeremonyService_ServiceDesc, s.Ceremony},
		{&sigilv1.VendorCredentialService_ServiceDesc, s.Credential},
		{&sigilv1.StampingService_ServiceDesc, s.Stamping},
	}
	return append(list, service{healthDesc, newHealth(list, s.Open)})
}

// Server serves both sockets.
type Server struct {
	cfg       Config
	directory Directory
	log       *slog.Logger
	now       func() time.Time
	buckets   *buckets
	counts    counts
	doors     []*door
}

// door is one socket with its gRPC server.
type door struct {
	at     socket
	grpc   *grpc.Server
	listen *limitListener
	remove func()
}

// New opens both sockets; callers may connect from then on and are answered
// once Serve runs. A path that another process answers on is [ErrAnswered].
func New(cfg Config, directory Directory, services Services) (*Server, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if err := cfg.Roles.check(); err != nil {
		return nil, fmt.Errorf("opening sockets: %w", err)
	}
	cfg.units = newUnits()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, directory: directory, log: cfg.Log, now: cfg.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.buckets = newBuckets(cfg.Limits, time.Now)
	for _, d := range []struct {
		at       socket
		endpoint Endpoint
	}{{onApp, cfg.App}, {onAdmin, cfg.Admin}} {
		door, err := s.open(d.at, d.endpoint, services)
		if err != nil {
			s.close()
			return nil, err
		}
		s.doors = append(s.doors, door)
	}
	return s, nil
}

// open builds one socket's gRPC server first: a mistake there leaves no socket behind.
func (s *Server) open(at socket, endpoint Endpoint, services Services) (*door, error) {
	l := s.cfg.Limits
	g := grpc.NewServer(
		grpc.Creds(peerCreds{}),
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(l.MessageBytes),
		grpc.MaxHeaderListSize(l.HeaderBytes),
		grpc.MaxConcurrentStreams(l.Streams),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: l.Idle, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return s.unknown(at, stream) }),
	)
	for _, svc := range services.list() {
		if !served(svc.desc, at) {
			continue
		}
		desc, err := s.wrap(svc.desc, at)
		if err != nil {
			return nil, err
		}
		if svc.impl == nil {
			return nil, fmt.Errorf("serving %s: no handler was given", desc.ServiceName)
		}
		g.RegisterService(desc, svc.impl)
	}
	l0, remove, err := endpoint.listen()
	if err != nil {
		return nil, err
	}
	return &door{at: at, grpc: g, listen: newLimitListener(l0, at.String(), s.cfg), remove: sync.OnceFunc(remove)}, nil
}

// served reports whether any method of a service has a row for this socket.
func served(desc *grpc.ServiceDesc, at socket) bool {
	for _, m := range desc.Methods {
		if row := lookup("/" + desc.ServiceName + "/" + m.MethodName); row != nil && row.socket&at != 0 {
			return true
		}
	}
	return false
}

// unknown answers calls of methods that are not on this socket or nowhere, as
// the access table answers.
func (s *Server) unknown(at socket, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	req := &request{method: clip(printable(method), maxDetail), at: at}
	caller, ok := callerFrom(stream.Context())
	if ok {
		req.caller = caller
	}
	_, err := s.cfg.Roles.admit(caller, at, method)
	if err == nil || !ok {
		err = fmt.Errorf("serving %s: a row in the access table, but no handler", method)
	}
	return s.refused(stream.Context(), req, err, 0)
}

// Serve answers calls until ctx is cancelled or a socket fails. Then both
// sockets take nobody more (connects to an inherited socket wait for the next
// process), and calls under way get [Limits].Stop to end before their contexts
// are cancelled. When it returns no handler runs any more and our
// socket files are gone; a handler that ignores its context is waited for.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(s.doors))
	for i, d := range s.doors {
		wg.Go(func() {
			defer cancel() // one socket is no service
			defer d.listen.leaveAccept()
			if err := d.grpc.Serve(d.listen); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				errs[i] = fmt.Errorf("serving %s: %w", d.at, err)
			}
		})
	}
	<-ctx.Done()
	s.stop()
	wg.Wait()
	s.close()
	return errors.Join(errs...)
}

// stop ends both servers, gracefully for as long as Limits.Stop allows.
func (s *Server) stop() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.Handshake)
		defer cancel()
		s.eachDoor(func(d *door) { d.listen.drain(ctx) })
		s.eachDoor(func(d *door) { d.grpc.GracefulStop() })
	}()
	timer := time.NewTimer(s.cfg.Limits.Stop)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.log.Warn("calls under way are cut", "after", s.cfg.Limits.Stop)
		s.eachDoor(func(d *door) { d.grpc.Stop() }) // cancels what runs; GracefulStop then returns too
		<-done
	}
}

// eachDoor runs f for both doors at a time and waits for both.
func (s *Server) eachDoor(f func(*door)) {
	var wg sync.WaitGroup
	for _, d := range s.doors {
		wg.Go(func() { f(d) })
	}
	wg.Wait()
}

// Close closes the sockets of a server that is not served. After Serve it does nothing.
func (s *Server) Close() { s.close() }

func (s *Server) close() {
	for _, d := range s.doors {
		d.listen.Close()
		d.remove()
	}
}
