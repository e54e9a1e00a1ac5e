package link_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

func identity(t testing.TB) *link.Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := link.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// door answers sessions behind a unix socket.
type door struct {
	sigilv1.UnimplementedPeerServiceServer
	socket   string
	sessions chan answered
}

// answered is a session that came in; the handler ends when done is closed.
type answered struct {
	frames *link.Frames
	done   chan struct{}
}

func (d *door) Session(s grpc.BidiStreamingServer[sigilv1.SessionFrame, sigilv1.SessionFrame]) error {
	if m, err := s.Recv(); err != nil || m.GetOpenProposal() == nil {
		return errors.New("no opening")
	}
	a := answered{link.NewFrames(s), make(chan struct{})}
	d.sessions <- a
	select {
	case <-a.done:
	case <-s.Context().Done():
	}
	return nil
}

func open(t testing.TB, own *link.Identity, admit ...link.Pin) *door {
	t.Helper()
	return openTo(t, own, func(p link.Pin) bool { return slices.Contains(admit, p) })
}

func openTo(t testing.TB, own *link.Identity, admit func(link.Pin) bool) *door {
	t.Helper()
	d := &door{socket: filepath.Join(t.TempDir(), "peer.sock"), sessions: make(chan answered)}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(link.MaxMessage), grpc.Creds(credentials.NewTLS(own.ServerConfig(admit))))
	sigilv1.RegisterPeerServiceServer(g, d)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-served })
	return d
}

// relay carries bytes from a listener to the door's socket.
func relay(t testing.TB, l net.Listener, to string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r := &link.Relay{Listener: l, Network: "unix", Address: to}
	go func() { done <- r.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// session opens one and returns both ends.
func session(t testing.TB, conn *grpc.ClientConn, d *door) (a, b mpc.Conn, done func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	frames, err := link.Open(ctx, conn, &sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_OpenProposal{OpenProposal: &sigilv1.OpenProposal{}}})
	if err != nil {
		t.Fatal(err)
	}
	var in answered
	select {
	case in = <-d.sessions:
	case <-ctx.Done():
		t.Fatal("nobody opened a session")
	}
	return frames, in.frames, func() { close(in.done); cancel() }
}

func TestPinsAreReadAsTheyAreWritten(t *testing.T) {
	pin := identity(t).Pin()
	if got, err := link.ParsePin(pin.String()); err != nil || got != pin {
		t.Errorf("%s is read as %s, error %v", pin, got, err)
	}
	for _, bad := range []string{"", "sha256:", pin.String()[7:], pin.String() + "0", strings.ToUpper(pin.String()), "sha256:" + strings.ToUpper(pin.String()[7:]), "sha512" + pin.String()[6:]} {
		if got, err := link.ParsePin(bad); err == nil {
			t.Errorf("%q is read as %s", bad, got)
		}
	}
}

func FuzzPin(f *testing.F) {
	f.Add(link.Pin{}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := link.ParsePin(text); err == nil && p.String() != text {
			t.Errorf("%q is read as %s", text, p)
		}
	})
}

func TestOnlyEd25519AndP256ArePinned(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.NewIdentity(weak); err == nil {
		t.Error("an RSA key has an identity")
	}
	if _, err := link.NewIdentity(other); err == nil {
		t.Error("a P-384 key has an identity")
	}
	if _, err := link.NewIdentity(good); err != nil {
		t.Errorf("a P-256 key: %v", err)
	}
}

// Each end refuses a key that it doesn't know, however it is connected.
func TestUnknownKeysAreRefused(t *testing.T) {
	server, device, stranger := identity(t), identity(t), identity(t)
	d := open(t, server, device.Pin())
	for name, tc := range map[string]struct {
		who  *link.Identity
		want link.Pin
		ok   bool
	}{
		"the device":                 {device, server.Pin(), true},
		"a stranger":                 {stranger, server.Pin(), false},
		"a server with another key":  {device, stranger.Pin(), false},
		"the device as its own peer": {device, device.Pin(), false},
	} {
		conn, err := tc.who.Dial(d.socket, tc.want)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = sigilv1.NewPeerServiceClient(conn).ListPending(ctx, &sigilv1.ListPendingRequest{})
		// The handler is not written here: Unimplemented says that we were let in.
		if in := strings.Contains(fmt.Sprint(err), "Unimplemented"); in != tc.ok {
			t.Errorf("%s: let in %v, error %v, want %v", name, in, err, tc.ok)
		}
	}
}

func TestOlderTLSAndNoCertificateAreRefused(t *testing.T) {
	server, device := identity(t), identity(t)
	d := open(t, server, device.Pin())
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"no h2":          func(c *tls.Config) { c.NextProtos = nil },
	} {
		cfg := device.ClientConfig(server.Pin())
		change(cfg)
		if name == "no h2" {
			cfg.VerifyConnection = nil
		}
		raw, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Client(raw, cfg)
		err = c.Handshake()
		if err == nil { // a server refuses a TLS 1.3 client after the client is done
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

// A signature between two ends, over the unix socket and over two relays with TCP between them.
func TestSignaturesOverTheTransport(t *testing.T) {
	server, device := identity(t), identity(t)
	d := open(t, server, device.Pin())
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay(t, tcp, d.socket)
	near := filepath.Join(t.TempDir(), "near.sock")
	l, err := net.Listen("unix", near)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &link.Relay{Listener: l, Network: "tcp", Address: tcp.Addr().String()}
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	set := mpctest.Ed25519DelegateSet(t)
	for name, socket := range map[string]string{"the socket": d.socket, "two relays": near} {
		conn, err := device.Dial(socket, server.Pin())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 3 {
			sign(t, name, set, conn, d)
		}
	}
}

func sign(t *testing.T, name string, set mpctest.Set, conn *grpc.ClientConn, d *door) {
	t.Helper()
	in := chains.SignInput{Scheme: set.Scheme, Message: []byte(name)}
	digest := mpc.InputDigest(in)
	p := mpc.Proposal{Op: mpc.OpSign, Engine: "frost-ed25519-v1", Key: "key", Decision: "req", From: &set.ShareSet,
		FromProposer: set.Parties[:1], FromAcceptor: set.Parties[1:], Kind: chains.KindSolanaMessage, Payload: in.Message, Digest: digest[:]}
	a, b, done := session(t, conn, d)
	defer done()
	var both sync.WaitGroup
	part := func(i int, j *mpc.Joint, err error) {
		if err == nil {
			_, err = mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t, set.Parties[i]), Input: in, With: j})
			j.Close(err)
		}
		if err != nil {
			t.Errorf("over %s: %v", name, err)
		}
	}
	both.Go(func() {
		o, err := mpc.ReadOffer(t.Context(), b)
		if err != nil {
			t.Error(err)
			return
		}
		j, err := o.Accept(t.Context())
		part(1, j, err)
	})
	j, err := mpc.Propose(t.Context(), a, p)
	part(0, j, err)
	both.Wait()
}

// What is no frame, and an end in the middle, reach the other side as errors.
func TestTheEndOfAStreamIsSeen(t *testing.T) {
	server, device := identity(t), identity(t)
	d := open(t, server, device.Pin())
	conn, err := device.Dial(d.socket, server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	a, _, done := session(t, conn, d)
	done()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Recv(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("receiving after the other side's end: error %v", err)
	}
	_, b, done := session(t, conn, d)
	defer done()
	conn.Close()
	if _, err := b.Recv(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("receiving after the connection's end: error %v", err)
	}
}

func TestRelayBoundsItsConnections(t *testing.T) {
	echo, err := net.Listen("unix", filepath.Join(t.TempDir(), "echo.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r := &link.Relay{Listener: l, Network: "unix", Address: echo.Addr().String(), PerHost: 2}
	go func() { done <- r.Serve(ctx) }()
	answers := func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			return false
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	}
	first, second, third := answers(), answers(), answers()
	if !first || !second || third {
		t.Error("want two connections of a host relayed and the third closed")
	}
	cancel() // and what is open ends with it
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// BenchmarkSessionRound is a round between two ends over a unix socket, in TLS; the
// peer of mpc's benchmark of the same name.
func BenchmarkSessionRound(b *testing.B) {
	server, device := identity(b), identity(b)
	d := open(b, server, device.Pin())
	conn, err := device.Dial(d.socket, server.Pin())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	mpctest.BenchmarkRounds(b, func() (mpc.Conn, mpc.Conn, func()) { return session(b, conn, d) })
}
