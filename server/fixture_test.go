package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/hsm"
)

const (
	testAppliance = "apl_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	testOrg       = "org_bbbbbbbbbbbbbbbbbbbbbbbbbb"
	otherOrg      = "org_cccccccccccccccccccccccccc"
	testAPIKey    = "sgk_dddddddddddddddddddddddddd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

	statusMethod = "/sigil.v1.StatusService/GetStatus"
	walletMethod = "/sigil.v1.WalletService/GetWallet"
	signMethod   = "/sigil.v1.SigningService/Sign"
)

// register is a directory of keys by organization.
type register struct {
	mu     sync.Mutex
	sealed error
	id     string
	known  map[string][]credential.PublicKey
	// parties are of WebAuthn credentials, by id; used is what NoteUse heard.
	parties map[string]*credential.RelyingParty
	used    []string
}

func (r *register) ApplianceID() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id, r.sealed
}

func (r *register) KnownCredential(org string, key credential.PublicKey) (*credential.RelyingParty, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.known[org] {
		if k.Equal(key) {
			return r.parties[key.ID()], true
		}
	}
	return nil, false
}

func (r *register) NoteUse(_ context.Context, _ string, key credential.PublicKey, counter uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = append(r.used, fmt.Sprint(key.ID(), " ", counter))
	return nil
}

// seen is what a handler got; the request is copied, since its key is wiped.
type seen struct {
	request request
	message proto.Message
	ctx     context.Context
}

// handlers note every call and answer with what act returns.
type handlers struct {
	mu   sync.Mutex
	last *seen
	act  func(context.Context, *request) error
}

func (h *handlers) note(ctx context.Context, m proto.Message) error {
	r := *requestFrom(ctx)
	r.apiKey = bytes.Clone(r.apiKey)
	h.mu.Lock()
	h.last = &seen{r, m, ctx}
	act := h.act
	h.mu.Unlock()
	if act != nil {
		return act(ctx, requestFrom(ctx))
	}
	return nil
}

func (h *handlers) take(t testing.TB) seen {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		t.Fatal("no handler was reached")
	}
	s := *h.last
	h.last = nil
	return s
}

func (h *handlers) untouched(t testing.TB, what string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil {
		t.Errorf("%s: a handler was reached", what)
		h.last = nil
	}
}

func (h *handlers) set(act func(context.Context, *request) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.act = act
}

type (
	statusHandler struct {
		*handlers
		sigilv1.UnimplementedStatusServiceServer
	}
	organizationHandler struct {
		*handlers
		sigilv1.UnimplementedOrganizationServiceServer
	}
	walletHandler struct {
		*handlers
		sigilv1.UnimplementedWalletServiceServer
	}
	signingHandler struct {
		*handlers
		sigilv1.UnimplementedSigningServiceServer
	}
)

func (h statusHandler) GetStatus(ctx context.Context, m *sigilv1.GetStatusRequest) (*sigilv1.GetStatusResponse, error) {
	return &sigilv1.GetStatusResponse{ApplianceId: proto.String(testAppliance)}, h.note(ctx, m)
}

func (h organizationHandler) CreateOrganization(ctx context.Context, m *sigilv1.CreateOrganizationRequest) (*sigilv1.CreateOrganizationResponse, error) {
	return &sigilv1.CreateOrganizationResponse{OrganizationId: testOrg}, h.note(ctx, m)
}

func (h walletHandler) GetWallet(ctx context.Context, m *sigilv1.GetWalletRequest) (*sigilv1.GetWalletResponse, error) {
	return &sigilv1.GetWalletResponse{Wallet: &sigilv1.Wallet{WalletId: m.GetWalletId()}}, h.note(ctx, m)
}

func (h signingHandler) Sign(ctx context.Context, m *sigilv1.SignRequest) (*sigilv1.SignResponse, error) {
	return &sigilv1.SignResponse{Signature: []byte("signature")}, h.note(ctx, m)
}

// house is a server on real sockets, with one known credential an algorithm.
type house struct {
	app, admin string
	handlers   *handlers
	register   *register
	keys       map[credential.Algorithm]*credential.PrivateKey
	log        *safeBuffer
	stop       func() error
	server     *Server
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// socketDir is short enough for sun_path and open to other uids.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func me() Holders { return Holders{UIDs: []uint32{uint32(os.Geteuid())}} }

// newHouse serves until the test ends; change sees the config first.
func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	dir := socketDir(t)
	h := &house{
		app: filepath.Join(dir, "app.sock"), admin: filepath.Join(dir, "admin.sock"),
		handlers: &handlers{}, log: &safeBuffer{}, keys: map[credential.Algorithm]*credential.PrivateKey{},
		register: &register{id: testAppliance, known: map[string][]credential.PublicKey{}},
	}
	for _, a := range []credential.Algorithm{credential.P256, credential.Ed25519, credential.Secp256k1} {
		h.keys[a] = newKey(t, a)
		h.register.known[testOrg] = append(h.register.known[testOrg], h.keys[a].Public())
	}
	cfg := Config{
		App: Endpoint{Path: h.app, Mode: 0o666}, Admin: Endpoint{Path: h.admin, Mode: 0o666},
		Roles: Roles{App: me(), Operator: me()},
		Log:   slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg, h.register, h.services())
	if err != nil {
		t.Fatal(err)
	}
	h.server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	h.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return h
}

func (h *house) services() Services {
	return Services{
		Status: statusHandler{handlers: h.handlers}, Organization: organizationHandler{handlers: h.handlers},
		User: sigilv1.UnimplementedUserServiceServer{}, Wallet: walletHandler{handlers: h.handlers},
		Delegation: sigilv1.UnimplementedDelegationServiceServer{}, Access: sigilv1.UnimplementedDelegatedAccessServiceServer{}, Policy: sigilv1.UnimplementedPolicyServiceServer{}, Delivery: sigilv1.UnimplementedDeliveryServiceServer{}, Vendor: sigilv1.UnimplementedVendorServiceServer{}, Credential: sigilv1.UnimplementedVendorCredentialServiceServer{}, Stamping: sigilv1.UnimplementedStampingServiceServer{}, Endpoint: sigilv1.UnimplementedEndpointServiceServer{}, Courier: sigilv1.UnimplementedCourierServiceServer{}, Activity: sigilv1.UnimplementedActivityServiceServer{}, Order: sigilv1.UnimplementedOrderServiceServer{}, Key: sigilv1.UnimplementedKeyServiceServer{}, Signing: signingHandler{handlers: h.handlers}, Control: sigilv1.UnimplementedControlServiceServer{}, Keyslot: sigilv1.UnimplementedKeyslotServiceServer{}, Clock: sigilv1.UnimplementedClockServiceServer{}, Limit: sigilv1.UnimplementedLimitServiceServer{},
		Member: sigilv1.UnimplementedMemberServiceServer{}, DelegatedUser: sigilv1.UnimplementedDelegatedUserServiceServer{}, KeyDelegation: sigilv1.UnimplementedKeyDelegationServiceServer{},
		Device: sigilv1.UnimplementedDeviceServiceServer{}, Cosign: sigilv1.UnimplementedCosignServiceServer{}, Receipt: sigilv1.UnimplementedReceiptServiceServer{}, Ceremony: sigilv1.UnimplementedCeremonyServiceServer{},
		Audit: sigilv1.UnimplementedAuditServiceServer{},
		Open:  func() bool { return true },
	}
}

func newKey(t testing.TB, a credential.Algorithm) *credential.PrivateKey {
	t.Helper()
	k, err := credential.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func dial(t testing.TB, path string) *client.Client {
	t.Helper()
	c, err := client.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rawConn sends the bytes it is told to.
type rawConn struct{ *grpc.ClientConn }

func dialRaw(t testing.TB, path string) rawConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return rawConn{conn}
}

// call sends message with metadata pairs.
func (c rawConn) call(method string, message []byte, pairs ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var reply []byte
	return c.Invoke(metadata.AppendToOutgoingContext(ctx, pairs...), method, message, &reply, grpc.ForceCodecV2(testCodec{}))
}

type testCodec struct{}

func (testCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (testCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (testCodec) Name() string { return "proto" }

// stamp makes a good stamp over message, after change.
func (h *house) stamp(t testing.TB, key credential.Signer, method string, message []byte, change ...func(*credential.Act)) string {
	t.Helper()
	act := credential.Act{ApplianceID: testAppliance, OrganizationID: testOrg, Method: method, IssuedAt: time.Now(), MessageHash: sha256.Sum256(message)}
	for _, c := range change {
		c(&act)
	}
	s, err := credential.NewStamp(key, act)
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// post speaks HTTP/2 below gRPC: body is what follows the headers, as it is.
func post(t testing.TB, path, method string, header map[string]string, body []byte) (grpcStatus, message string) {
	t.Helper()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
		Protocols: new(http.Protocols),
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, "http://sigild"+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	from := res.Trailer
	if from.Get("Grpc-Status") == "" {
		from = res.Header
	}
	return from.Get("Grpc-Status"), from.Get("Grpc-Message")
}

// framed puts gRPC's five bytes in front.
func framed(message []byte) []byte {
	n := len(message)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)
}

// wantReason insists on a refusal.
func wantReason(t testing.TB, what string, err error, reason string) {
	t.Helper()
	if got := client.Reason(err); got != reason || err == nil {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, reason)
	}
}

func getWallet(t testing.TB) []byte {
	return marshal(t, &sigilv1.GetWalletRequest{OrganizationId: testOrg, WalletId: "wal_x"})
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	if path := os.Getenv("SIGILD_TEST_CALL"); path != "" { // a child under another uid
		c, err := client.Dial(path)
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err = c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
		}
		fmt.Printf("reason=%q err=%v\n", client.Reason(err), err)
		return
	}
	os.Exit(m.Run())
}
