package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// Dial prepares calls to the peer door behind a unix socket, sigild's own or one of
// a relay, whose key has this pin. It connects when the first call is made.
func (i *Identity) Dial(socket string, want Pin) (*grpc.ClientConn, error) {
	return i.dial("unix", socket, want)
}

// DialTCP is Dial for a relay on another host, "host:port": for devices. The daemon
// has no network.
func (i *Identity) DialTCP(address string, want Pin) (*grpc.ClientConn, error) {
	return i.dial("tcp", address, want)
}

func (i *Identity) dial(network, address string, want Pin) (*grpc.ClientConn, error) {
	if address == "" || strings.ContainsRune(address, 0) || network == "unix" && address[0] == '@' {
		return nil, errors.New("dialing a peer: no address")
	}
	conn, err := grpc.NewClient("passthrough:///sigild",
		grpc.WithTransportCredentials(credentials.NewTLS(i.ClientConfig(want))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}),
		grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// A peer that lost its power says nothing: its silence is noticed in 30 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("dialing a peer at %s: %w", address, err)
	}
	return conn, nil
}

// Open begins a session with its opening message. It ends with ctx, which the caller
// cancels when it is done.
func Open(ctx context.Context, conn *grpc.ClientConn, opening *sigilv1.SessionFrame) (*Frames, error) {
	s, err := sigilv1.NewPeerServiceClient(conn).Session(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	if err := s.Send(opening); err != nil {
		_, why := s.Recv() // Send says only that it is over
		return nil, fmt.Errorf("opening a session: %w", errors.Join(err, why))
	}
	return NewFrames(s), nil
}
