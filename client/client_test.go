package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
)

// peer answers every method with reply and keeps what it got: the wire as sigild
// sees it, without sigild's checks, which server tests with this client.
type peer struct {
	path string
	mu   sync.Mutex
	got  []received
	// answer is sent for a method; none is an empty message.
	answer map[string]proto.Message
	err    error
}

type received struct {
	method  string
	message []byte
	md      metadata.MD
}

type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (rawCodec) Name() string { return "proto" }

// serve starts p on its path; stop ends it at once.
func (p *peer) serve(t testing.TB) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		r := received{}
		r.method, _ = grpc.MethodFromServerStream(stream)
		r.md, _ = metadata.FromIncomingContext(stream.Context())
		if err := stream.RecvMsg(&r.message); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, r)
		if p.err != nil {
			return p.err
		}
		answer := p.answer[r.method]
		if answer == nil {
			answer = &sigilv1.GetStatusRequest{} // no bytes: an empty message of any type
		}
		return stream.SendMsg(answer)
	}))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	stop = sync.OnceFunc(func() { s.Stop(); <-done })
	t.Cleanup(stop)
	return stop
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &peer{path: filepath.Join(dir, "s"), answer: map[string]proto.Message{
		sigilv1.StatusService_GetStatus_FullMethodName: &sigilv1.GetStatusResponse{ApplianceId: proto.String("apl_a")},
	}}
	return p
}

func (p *peer) take() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

func dial(t testing.TB, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newKey(t testing.TB, a credential.Algorithm) *credential.PrivateKey {
	t.Helper()
	k, err := credential.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestStampsAreOverTheBytesThatAreSent(t *testing.T) {
	p := newPeer(t)
	p.serve(t)
	signers := []credential.Signer{newKey(t, credential.P256), newKey(t, credential.Ed25519), newKey(t, credential.Secp256k1)}
	c := dial(t, p.path).WithStamps("org_b", signers...)
	in := &sigilv1.GetWalletRequest{OrganizationId: "org_b", WalletId: "wal_c"}
	for range 2 {
		if _, err := c.Wallets().GetWallet(context.Background(), in); err != nil {
			t.Fatal(err)
		}
	}
	got := p.take()
	if len(got) != 3 || got[0].method != sigilv1.StatusService_GetStatus_FullMethodName || len(got[0].md.Get(stampKey)) != 0 {
		t.Fatalf("got %d calls, the first %s; want one GetStatus without stamps and two GetWallet", len(got), got[0].method)
	}
	for _, call := range got[1:] {
		stamps := call.md.Get(stampKey)
		if len(stamps) != len(signers) {
			t.Fatalf("%d stamps, want %d", len(stamps), len(signers))
		}
		for i, s := range stamps {
			stamp, err := credential.ParseStamp([]byte(s))
			if err != nil {
				t.Fatal(err)
			}
			if err := stamp.Verify("apl_a", sigilv1.WalletService_GetWallet_FullMethodName, call.message); err != nil {
				t.Errorf("stamp %d over the received bytes: %v", i, err)
			}
			if stamp.OrganizationID != "org_b" || !stamp.PublicKey.Equal(signers[i].Public()) || stamp.Fresh(time.Now()) != nil {
				t.Errorf("stamp %d: %+v", i, stamp)
			}
		}
		if len(call.md.Get(apiKeyKey)) != 0 {
			t.Error("an API key went along")
		}
	}
}

func TestEveryCallShowsOnlyItsOwn(t *testing.T) {
	p := newPeer(t)
	p.serve(t)
	c := dial(t, p.path)
	stamped, keyed := c.WithStamps("", newKey(t, credential.Ed25519)), c.WithAPIKey([]byte(" sgk_x\n"))
	ctx := context.Background()
	calls := []struct {
		name         string
		call         func() error
		stamps, keys int
	}{
		{"status", func() error { _, err := stamped.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{}); return err }, 0, 0},
		{"status with a key", func() error { _, err := keyed.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{}); return err }, 0, 0},
		{"signing", func() error { _, err := keyed.Signing().Sign(ctx, &sigilv1.SignRequest{}); return err }, 0, 1},
		{"signing with stamps", func() error { _, err := stamped.Signing().Sign(ctx, &sigilv1.SignRequest{}); return err }, 1, 0},
		{"organizations", func() error {
			_, err := stamped.Organizations().CreateOrganization(ctx, &sigilv1.CreateOrganizationRequest{})
			return err
		}, 1, 0},
		{"users", func() error { _, err := stamped.Users().CreateUser(ctx, &sigilv1.CreateUserRequest{}); return err }, 1, 0},
		{"wallets", func() error {
			_, err := stamped.Wallets().CreateWallet(ctx, &sigilv1.CreateWalletRequest{})
			return err
		}, 1, 0},
		{"delegations", func() error {
			_, err := stamped.Delegations().GetDelegation(ctx, &sigilv1.GetDelegationRequest{})
			return err
		}, 1, 0},
		{"wallets without stamps", func() error { _, err := c.Wallets().GetWallet(ctx, &sigilv1.GetWalletRequest{}); return err }, 0, 0},
	}
	for _, row := range calls {
		if err := row.call(); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got := p.take()
		md := got[len(got)-1].md
		if len(md.Get(stampKey)) != row.stamps || len(md.Get(apiKeyKey)) != row.keys {
			t.Errorf("%s: %d stamps and %d keys, want %d and %d", row.name, len(md.Get(stampKey)), len(md.Get(apiKeyKey)), row.stamps, row.keys)
		}
		if row.keys == 1 && md.Get(apiKeyKey)[0] != "sgk_x" {
			t.Errorf("%s: key %q", row.name, md.Get(apiKeyKey)[0])
		}
	}
}

func TestPinnedApplianceIsNotAskedFor(t *testing.T) {
	p := newPeer(t)
	p.serve(t)
	c := dial(t, p.path)
	c.PinAppliance("apl_pinned")
	if _, err := c.WithStamps("org_b", newKey(t, credential.P256)).Users().CreateUser(context.Background(), &sigilv1.CreateUserRequest{}); err != nil {
		t.Fatal(err)
	}
	got := p.take()
	if len(got) != 1 {
		t.Fatalf("%d calls, want 1", len(got))
	}
	stamp, err := credential.ParseStamp([]byte(got[0].md.Get(stampKey)[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := stamp.Verify("apl_pinned", got[0].method, got[0].message); err != nil {
		t.Error(err)
	}
}

func TestSealedApplianceCanNotBeStampedFor(t *testing.T) {
	p := newPeer(t)
	p.answer = nil // a status without an appliance id
	p.serve(t)
	_, err := dial(t, p.path).WithStamps("org_b", newKey(t, credential.P256)).Users().CreateUser(context.Background(), &sigilv1.CreateUserRequest{})
	if !errors.Is(err, ErrSealed) || Reason(err) != "SEALED" {
		t.Errorf("got %v (%s), want ErrSealed", err, Reason(err))
	}
}

func TestStampingThatFails(t *testing.T) {
	p := newPeer(t)
	p.serve(t)
	k := newKey(t, credential.P256)
	k.Wipe()
	_, err := dial(t, p.path).WithStamps("org_b", k).Users().CreateUser(context.Background(), &sigilv1.CreateUserRequest{})
	if err == nil || !strings.Contains(err.Error(), "wiped") {
		t.Errorf("a wiped key: got %v", err)
	}
	_, err = dial(t, p.path).WithStamps("org b", newKey(t, credential.P256)).Users().CreateUser(context.Background(), &sigilv1.CreateUserRequest{})
	if err == nil || !strings.Contains(err.Error(), "organization id") {
		t.Errorf("a bad organization id: got %v", err)
	}
	_, err = dial(t, p.path).Users().CreateUser(context.Background(), &sigilv1.CreateUserRequest{Name: "\xff"})
	if err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a message that can't be marshalled: got %v", err)
	}
}

func TestRefusalsAreRead(t *testing.T) {
	p := newPeer(t)
	st, err := status.New(codes.ResourceExhausted, "daily").WithDetails(
		&errdetails.ErrorInfo{Reason: "LIMIT_EXCEEDED", Domain: "sigild", Metadata: map[string]string{"limit": "daily"}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p.err = st.Err()
	p.serve(t)
	_, err = dial(t, p.path).WithAPIKey([]byte("sgk_x")).Signing().Sign(context.Background(), &sigilv1.SignRequest{})
	wrapped := fmt.Errorf("paying: %w", err)
	if Reason(wrapped) != "LIMIT_EXCEEDED" || Details(wrapped)["limit"] != "daily" || RetryAfter(wrapped) != time.Hour {
		t.Errorf("got %s %v %s", Reason(wrapped), Details(wrapped), RetryAfter(wrapped))
	}
	foreign, err := status.New(codes.Internal, "x").WithDetails(&errdetails.ErrorInfo{Reason: "R", Domain: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []error{nil, errors.New("x"), status.Error(codes.Unavailable, "x"), foreign.Err()} {
		if Reason(other) != "" || Details(other) != nil || RetryAfter(other) != 0 {
			t.Errorf("%v: got %s %v %s", other, Reason(other), Details(other), RetryAfter(other))
		}
	}
}

// A daemon that comes back is found again soon, by the same client.
func TestClientSurvivesARestart(t *testing.T) {
	p := newPeer(t)
	c := dial(t, p.path)
	call := func() error {
		_, err := c.Status().GetStatus(context.Background(), &sigilv1.GetStatusRequest{})
		return err
	}
	if err := call(); status.Code(err) != codes.Unavailable {
		t.Errorf("no daemon: got %v, want UNAVAILABLE", err)
	}
	for range 2 {
		stop := p.serve(t)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if _, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		cancel()
		stop()
		if err := call(); status.Code(err) != codes.Unavailable {
			t.Errorf("daemon gone: got %v, want UNAVAILABLE", err)
		}
	}
}

func TestClientRefuses(t *testing.T) {
	for _, path := range []string{"", "a\x00b", "@sigild"} {
		if _, err := Dial(path); err == nil {
			t.Errorf("path %q was dialed", path)
		}
	}
	c := dial(t, "nowhere")
	if _, err := (plain{Client: c}).NewStream(context.Background(), nil, ""); err == nil {
		t.Error("a stream was opened")
	}
	for _, conn := range []grpc.ClientConnInterface{plain{Client: c}, keyed{Client: c}, stamped{Client: c}} {
		if err := conn.Invoke(context.Background(), "/x/Y", "text", nil); err == nil || !strings.Contains(err.Error(), "not a protobuf message") {
			t.Errorf("%T: got %v", conn, err)
		}
	}
	if _, err := (bytesCodec{}).Marshal(&sigilv1.SignRequest{}); err == nil {
		t.Error("the codec marshals a second time")
	}
	if err := (bytesCodec{}).Unmarshal(nil, &bytes.Buffer{}); err == nil {
		t.Error("the codec reads into what is no message")
	}
}
