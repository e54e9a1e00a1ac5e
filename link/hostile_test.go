package link_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// Faulty frames over TLS: a peer whose key is pinned sends what it likes. The server's
// end of the session fails with blame of it, or takes no notice and signs; nothing
// hangs, and the door serves the next one.

// meddler changes what a peer sends after the handshake of a session.
type meddler struct {
	mpc.Conn
	// meddle gets the frames one by one and returns what is sent in their place.
	meddle func(frame []byte) [][]byte
	mu     sync.Mutex // guards first
	first  bool
}

func (m *meddler) Send(ctx context.Context, frame []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.first {
		m.first = true
		return m.Conn.Send(ctx, frame)
	}
	if frame[1] == 6 {
		return nil // a liar does not say that its part failed
	}
	for _, f := range m.meddle(slices.Clone(frame)) {
		if err := m.Conn.Send(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// signAgainst has the peer propose a signature over what meddle makes of its frames,
// and returns how it ended for the server, which accepts.
func signAgainst(t *testing.T, set mpctest.Set, conn *grpc.ClientConn, d *door, meddle func([]byte) [][]byte) error {
	t.Helper()
	in := chains.SignInput{Scheme: set.Scheme, Message: []byte("hostile")}
	digest := mpc.InputDigest(in)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a, b, done := session(t, conn, d)
	part := func(ctx context.Context, i int, j *mpc.Joint) (mpc.Signature, error) {
		sig, err := mpc.Sign(ctx, mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t, set.Parties[i]), Input: in, With: j})
		j.Close(err)
		return sig, err
	}
	var peer sync.WaitGroup
	defer peer.Wait()
	defer done() // as a server's handler ends
	peer.Go(func() {
		j, err := mpc.Propose(ctx, &meddler{Conn: a, meddle: meddle}, mpc.Proposal{Op: mpc.OpSign, Engine: "frost-ed25519-v1", Key: "key", Decision: "req", From: &set.ShareSet,
			FromProposer: set.Parties[:1], FromAcceptor: set.Parties[1:], Kind: chains.KindSolanaMessage, Payload: in.Message, Digest: digest[:]})
		if err == nil {
			_, _ = part(ctx, 0, j)
		}
	})
	o, err := mpc.ReadOffer(ctx, b)
	if err != nil {
		return err
	}
	j, err := o.Accept(ctx)
	if err != nil {
		return err
	}
	sig, err := part(ctx, 1, j)
	if err == nil && !ed25519.Verify(set.PublicKey, in.Message, sig.Bytes()) {
		t.Error("the signature does not verify")
	}
	return err
}

func TestFaultyFramesOverTLS(t *testing.T) {
	server, peer := identity(t), identity(t)
	d := open(t, server, peer.Pin())
	set := mpctest.Ed25519DelegateSet(t)
	culprit := set.Parties[:1]
	each := func(change func(f []byte) []byte) func() func([]byte) [][]byte {
		return func() func([]byte) [][]byte { return func(f []byte) [][]byte { return [][]byte{change(f)} } }
	}
	const (
		signed = iota
		blamed
		gone
	)
	for name, tc := range map[string]struct {
		// meddle is made anew for each session.
		meddle func() func([]byte) [][]byte
		want   int
	}{
		"a version that is none": {each(func(f []byte) []byte { f[0] ^= 0x80; return f }), blamed},
		"a type that is none":    {each(func(f []byte) []byte { f[1] = 77; return f }), blamed},
		"a proposal":             {each(func(f []byte) []byte { f[1] = 1; return f }), blamed},
		"a number far ahead":     {each(func(f []byte) []byte { binary.BigEndian.PutUint64(f[2:], 1<<40); return f }), blamed},
		"a changed last byte":    {each(func(f []byte) []byte { f[len(f)-1] ^= 1; return f }), blamed},
		"cut to its head":        {each(func(f []byte) []byte { return f[:10] }), blamed},
		"cut by a byte":          {each(func(f []byte) []byte { return f[:len(f)-1] }), blamed},
		"empty":                  {each(func([]byte) []byte { return nil }), blamed},
		"a byte too many":        {each(func(f []byte) []byte { return append(f, 0) }), blamed},
		"a text longer than it":  {each(func(f []byte) []byte { f[10+32] = 255; return f }), blamed},
		"longer than a frame may be": {each(func(f []byte) []byte {
			return append(f, make([]byte, mpc.MaxFrame-len(f)+1)...)
		}), blamed},
		"longer than a message may be": {each(func(f []byte) []byte {
			return append(f, make([]byte, link.MaxMessage)...)
		}), gone},
		"each twenty times": {func() func([]byte) [][]byte {
			return func(f []byte) [][]byte { return slices.Repeat([][]byte{f}, 20) }
		}, signed},
		"each twice, the second changed": {func() func([]byte) [][]byte {
			return func(f []byte) [][]byte {
				second := slices.Clone(f)
				second[len(second)-1] ^= 1
				return [][]byte{f, second}
			}
		}, signed},
		"the first behind the second": {func() func([]byte) [][]byte {
			var held []byte
			return func(f []byte) [][]byte {
				if held == nil {
					held = f
					return nil
				}
				return [][]byte{f, held}
			}
		}, signed},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := peer.Dial(d.socket, server.Pin())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = signAgainst(t, set, conn, d, tc.meddle())
			var e *mpc.Error
			errors.As(err, &e)
			switch {
			case tc.want == signed && err != nil:
				t.Error(err)
			case tc.want == blamed && (e == nil || !e.Broken() || !slices.Equal(e.Culprits, culprit)):
				t.Errorf("error %v, want blame of %v", err, culprit)
			case tc.want == gone && !errors.Is(err, mpc.ErrGone):
				t.Errorf("error %v, want ErrGone", err)
			}
		})
	}
	serves(t, set, peer, server, d)
}

// serves insists that the door still does what it is for.
func serves(t *testing.T, set mpctest.Set, peer, server *link.Identity, d *door) {
	t.Helper()
	conn, err := peer.Dial(d.socket, server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sign(t, "the same door", set, conn, d)
}

// Bytes that are no TLS, and no HTTP/2 inside it, end their own connection.
func TestGarbageAtTheDoor(t *testing.T) {
	server, peer := identity(t), identity(t)
	d := open(t, server, peer.Pin())
	garbage := slices.Repeat([]byte("\x16\x03\x01garbage"), 1<<12)
	for name, wrap := range map[string]func(net.Conn) (net.Conn, error){
		"in place of TLS": func(c net.Conn) (net.Conn, error) { return c, nil },
		"inside TLS": func(c net.Conn) (net.Conn, error) {
			secured := tls.Client(c, peer.ClientConfig(server.Pin()))
			return secured, secured.HandshakeContext(t.Context())
		},
	} {
		raw, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(time.Minute))
		c, err := wrap(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, _ = c.Write(garbage) // it may be closed before the last byte
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	serves(t, mpctest.Ed25519DelegateSet(t), peer, server, d)
}

// A peer that is removed keeps what it had: a session that runs is its owner's to end
// (package server does). It gets no new connection.
func TestRemovedPeersGetNoConnection(t *testing.T) {
	server, peer := identity(t), identity(t)
	var removed atomic.Bool
	d := openTo(t, server, func(p link.Pin) bool { return p == peer.Pin() && !removed.Load() })
	serves(t, mpctest.Ed25519DelegateSet(t), peer, server, d)
	removed.Store(true)
	conn, err := peer.Dial(d.socket, server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = sigilv1.NewPeerServiceClient(conn).ListPending(ctx, &sigilv1.ListPendingRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a removed peer gets %v, want Unavailable", err)
	}
}
