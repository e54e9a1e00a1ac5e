package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/refusal"
)

// The third door, peer.sock: for devices and other appliances, which come over a
// relay or from this host. The kernel's word about the caller says nothing there, the
// relay is the caller. What lets in is TLS 1.3 that ends here, with a key that is
// pinned: a registered device's or a configured peer's. While the store is sealed
// there is no key to greet anybody with, and every handshake fails.

// peerMethods are all that the door serves; docs/authority.md has the same table.
var peerMethods = map[string]string{
	sigilv1.PeerService_ListPending_FullMethodName: "device",
	sigilv1.PeerService_Session_FullMethodName:     "device, peer",
}

// How many sessions one party has at a time: a device has one person before it, a peer
// a signature of each of its programs.
const (
	maxSessions     = 4
	maxPeerSessions = 32
)

// PeerDoor serves peer.sock.
type PeerDoor struct {
	appliance *Appliance
	log       *slog.Logger
	grpc      *grpc.Server
	listen    *limitListener
	remove    func()

	// mu guards sessions, the count of each party's.
	mu       sync.Mutex
	sessions map[string]int
}

// NewPeerDoor opens the socket; peers are answered once Serve runs.
func NewPeerDoor(at Endpoint, a *Appliance, limits Limits, log *slog.Logger) (*PeerDoor, error) {
	limits = limits.withDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &PeerDoor{appliance: a, log: log, sessions: map[string]int{}}
	d.grpc = grpc.NewServer(
		grpc.Creds(pinnedCreds{a}),
		grpc.ForceServerCodecV2(strictCodec{}),
		grpc.MaxRecvMsgSize(link.MaxMessage),
		grpc.MaxHeaderListSize(limits.HeaderBytes),
		grpc.MaxConcurrentStreams(2*maxSessions),
		grpc.ConnectionTimeout(limits.Handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: limits.Idle, Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(func(ctx context.Context, r any, i *grpc.UnaryServerInfo, h grpc.UnaryHandler) (out any, err error) {
			err = d.edge(ctx, i.FullMethod, func() (err error) { out, err = h(ctx, r); return err })
			return out, err
		}),
		grpc.StreamInterceptor(func(s any, stream grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return d.edge(stream.Context(), i.FullMethod, func() error { return h(s, stream) })
		}),
	)
	sigilv1.RegisterPeerServiceServer(d.grpc, peerService{d: d})
	l, remove, err := at.listen()
	if err != nil {
		return nil, err
	}
	// The relay's connections are all of one uid: the socket's own bound is theirs.
	limits.ConnectionsPerUID = limits.Connections
	d.listen, d.remove = newLimitListener(l, "peer.sock", Config{Limits: limits, Log: log}), sync.OnceFunc(remove)
	return d, nil
}

// Serve answers peers until ctx ends. Sessions under way are cut then: whatever they
// were about was not acknowledged. When it returns no handler runs any more.
func (d *PeerDoor) Serve(ctx context.Context) error {
	defer d.Close()
	defer context.AfterFunc(ctx, d.grpc.Stop)()
	if err := d.grpc.Serve(d.listen); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
		return fmt.Errorf("serving peer.sock: %w", err)
	}
	d.grpc.Stop() // waits for handlers
	return nil
}

// Close closes the socket, once or more often.
func (d *PeerDoor) Close() {
	d.listen.Close()
	d.remove()
}

// edge runs a call: what goes wrong inside becomes a status and a line in the log.
func (d *PeerDoor) edge(ctx context.Context, method string, call func() error) (err error) {
	start := time.Now()
	party := ""
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("a handler panicked", "method", method, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = errPanicked
		}
		if err != nil {
			st, row := statusOf(err)
			d.log.Log(ctx, row.level, "call refused", "method", method, "reason", string(row.reason), "party", party, "took", time.Since(start), "err", err)
			err = st.Err()
		}
	}()
	if party, err = d.appliance.partyOf(ctx); err != nil {
		return err
	}
	return call()
}

// partyOf is who calls, as it is known now: a device may have been removed since the
// handshake.
func (a *Appliance) partyOf(ctx context.Context) (string, error) {
	parts, err := a.open()
	if err != nil {
		return "", err
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", refusal.New(refusal.CallerNotAllowed, "the connection has no party")
	}
	info, ok := p.AuthInfo.(pinnedInfo)
	if !ok {
		return "", refusal.New(refusal.CallerNotAllowed, "the connection has no party")
	}
	party := parts.Delegation.PartyOf(info.pin.String())
	if party == "" {
		return "", refusal.New(refusal.CallerNotAllowed, "this key is not let in")
	}
	return party, nil
}

// enter counts a session of a party.
func (d *PeerDoor) enter(party string) (leave func(), err error) {
	most := maxSessions
	if isPeer(party) {
		most = maxPeerSessions
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[party] >= most {
		return nil, refusal.New(refusal.RateLimited, "%d sessions are open", most)
	}
	d.sessions[party]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.sessions[party]--; d.sessions[party] == 0 {
			delete(d.sessions, party)
		}
	}, nil
}

// pinnedCreds is the transport security of peer.sock.
type pinnedCreds struct{ a *Appliance }

// pinnedInfo carries the pin of a connection to its calls.
type pinnedInfo struct {
	credentials.CommonAuthInfo
	pin link.Pin
}

func (pinnedInfo) AuthType() string { return "pinned key" }

// ServerHandshake ends TLS here, with the appliance's own key.
func (c pinnedCreds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	parts, err := c.a.open()
	if err != nil {
		return nil, nil, err
	}
	own, err := parts.Identity()
	if err != nil {
		return nil, nil, err
	}
	cfg := own.ServerConfig(parts.admits)
	secured, info, err := credentials.NewTLS(cfg).ServerHandshake(conn)
	if err != nil {
		return nil, nil, err
	}
	state, ok := info.(credentials.TLSInfo)
	if !ok {
		secured.Close()
		return nil, nil, fmt.Errorf("identifying a peer: %T is no TLS", info)
	}
	pin, err := link.PinOfPeer(state.State)
	if err != nil {
		secured.Close()
		return nil, nil, err
	}
	known := c.a.peers.add(secured, pin)
	if !parts.admits(pin) { // removed since the handshake looked, and maybe before add
		known.Close()
		return nil, nil, link.ErrPin
	}
	return known, pinnedInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, pin}, nil
}

// ClientHandshake refuses: these credentials are for servers.
func (pinnedCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("identifying a peer: only a server can")
}

func (pinnedCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c pinnedCreds) Clone() credentials.TransportCredentials { return c }

// OverrideServerName has nothing to override; the interface asks for it.
func (pinnedCreds) OverrideServerName(string) error { return nil }

// strictCodec reads messages as strictly as those of the other doors.
type strictCodec struct{ rawCodec }

// Unmarshal refuses unknown and repeated fields.
func (strictCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("receiving: %T is not a protobuf message", v)
	}
	return strictUnmarshal(data.Materialize(), m)
}
