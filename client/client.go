// Package client calls sigild on its unix socket. It is for applications that
// sign with a wallet API key, and for tools and back ends that carry the stamps
// of credentials:
//
//	c, err := client.Dial("/run/sigild/sigild.sock")
//	if err != nil { ... }
//	defer c.Close()
//	answer, err := c.WithAPIKey(key).Signing().Sign(ctx, &sigilv1.SignRequest{...})
//	if client.Reason(err) == "LIMIT_EXCEEDED" { ... }
//
// A request message is marshalled once; those bytes are stamped and those bytes
// are sent. The client never retries by itself: whoever does keeps the request id.
package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
)

// The metadata of a call; docs/authority.md has their rules.
const (
	stampKey  = "sigild-stamp-bin"
	apiKeyKey = "sigild-api-key"
)

// ErrSealed: the appliance is sealed, so its id can't be had and nothing can be stamped.
var ErrSealed = errors.New("the appliance is sealed; its status says why")

// Client is a connection to one socket, safe for concurrent use. What it shows
// of itself is fixed: [Client.WithAPIKey] and [Client.WithStamps] give other
// clients over the same connection.
type Client struct {
	conn    *connection
	apiKey  string
	org     string
	signers []credential.Signer
}

// connection is what the clients of one Dial share.
type connection struct {
	grpc *grpc.ClientConn
	now  func() time.Time
	// mu guards applianceID, which is asked for once.
	mu          sync.Mutex
	applianceID string
}

// Dial prepares calls to the socket at path; it connects when the first call is
// made, and again whenever the connection was lost. Extra options, such as an
// interceptor, come after ours.
func Dial(path string, extra ...grpc.DialOption) (*Client, error) {
	// A name that begins with @ or NUL is an abstract socket, which no file mode guards.
	if path == "" || path[0] == '@' || strings.ContainsRune(path, 0) {
		return nil, errors.New("dialing sigild: no path of a socket file")
	}
	conn, err := grpc.NewClient("passthrough:///sigild", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket; the kernel names both ends
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		// A daemon that restarts is back in a second; gRPC's own backoff grows to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second, // a restart under systemd keeps connections waiting
		}),
	}, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("dialing sigild at %s: %w", path, err)
	}
	return &Client{conn: &connection{grpc: conn, now: time.Now}}, nil
}

// Close ends the connection, also for the clients made from this one.
func (c *Client) Close() error { return c.conn.grpc.Close() }

// WithAPIKey returns a client whose Signing calls show a wallet API key
// ("sgk_..."; space around it, such as a file's last newline, is dropped). gRPC keeps metadata as a string, so the key stays in this
// process's memory until the garbage collector takes it.
func (c *Client) WithAPIKey(key []byte) *Client {
	return &Client{conn: c.conn, apiKey: strings.TrimSpace(string(key))}
}

// WithStamps returns a client whose calls carry a stamp of each signer, for one
// organization; for operators, whose acts concern the appliance, it is "". Status
// calls carry none, they take none.
func (c *Client) WithStamps(organizationID string, signers ...credential.Signer) *Client {
	return &Client{conn: c.conn, org: organizationID, signers: signers}
}

// PinAppliance sets the appliance id that stamps bind to, instead of the one that
// the appliance states; for whoever knows it from the ceremony of `sigilctl init`.
func (c *Client) PinAppliance(id string) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.conn.applianceID = id
}

// Status calls need nothing.
func (c *Client) Status() sigilv1.StatusServiceClient {
	return sigilv1.NewStatusServiceClient(plain{Client: c})
}

// Organizations are made with operators' stamps.
func (c *Client) Organizations() sigilv1.OrganizationServiceClient {
	return sigilv1.NewOrganizationServiceClient(stamped{Client: c})
}

// Users are made with root stamps.
func (c *Client) Users() sigilv1.UserServiceClient {
	return sigilv1.NewUserServiceClient(stamped{Client: c})
}

// Wallets are made with root stamps and looked at with any member's.
func (c *Client) Wallets() sigilv1.WalletServiceClient {
	return sigilv1.NewWalletServiceClient(stamped{Client: c})
}

// Delegations are made with the wallet owner's stamp.
func (c *Client) Delegations() sigilv1.DelegationServiceClient {
	return sigilv1.NewDelegationServiceClient(stamped{Client: c})
}

// DelegatedAccess proposes delegations with a root member's stamp, approves them with
// the owner's, and shows them with any member's.
func (c *Client) DelegatedAccess() sigilv1.DelegatedAccessServiceClient {
	return sigilv1.NewDelegatedAccessServiceClient(stamped{Client: c})
}

// Policies are the organization's documents: set with root stamps, or by a bundle
// without any, read with any member's.
func (c *Client) Policies() sigilv1.PolicyServiceClient {
	return sigilv1.NewPolicyServiceClient(stamped{Client: c})
}

// Keys are shown with any member's stamp, and rotated, recovered and set with root
// stamps or the owner's.
func (c *Client) Keys() sigilv1.KeyServiceClient {
	return sigilv1.NewKeyServiceClient(stamped{Client: c})
}

// Keyslot changes what opens the store: operators' stamps for organization "".
func (c *Client) Keyslot() sigilv1.KeyslotServiceClient {
	return sigilv1.NewKeyslotServiceClient(stamped{Client: c})
}

// Limits are shown to any member who stamps the call.
func (c *Client) Limits() sigilv1.LimitServiceClient {
	return sigilv1.NewLimitServiceClient(stamped{Client: c})
}

// Audit reads the journal, for callers with the role auditor.
func (c *Client) Audit() sigilv1.AuditServiceClient {
	return sigilv1.NewAuditServiceClient(plain{Client: c})
}

// Clock is looked at by anybody, and confirmed with operators' stamps.
func (c *Client) Clock() sigilv1.ClockServiceClient {
	return sigilv1.NewClockServiceClient(stamped{Client: c})
}

// Devices are registered with their user's stamp; wallets on them are made with root stamps.
func (c *Client) Devices() sigilv1.DeviceServiceClient {
	return sigilv1.NewDeviceServiceClient(stamped{Client: c})
}

// Cosigning takes wallets of other appliances on, with root stamps.
func (c *Client) Cosigning() sigilv1.CosignServiceClient {
	return sigilv1.NewCosignServiceClient(stamped{Client: c})
}

// Receipts are of what was destroyed, with a member's stamp.
func (c *Client) Receipts() sigilv1.ReceiptServiceClient {
	return sigilv1.NewReceiptServiceClient(stamped{Client: c})
}

// Ceremonies shows what goes on with keys, with members' stamps, and ends it, with the
// owner's or root stamps.
func (c *Client) Ceremonies() sigilv1.CeremonyServiceClient {
	return sigilv1.NewCeremonyServiceClient(stamped{Client: c})
}

// Control stops signing and lets it go on: operators' stamps for organization "",
// root members' or the owner's otherwise.
func (c *Client) Control() sigilv1.ControlServiceClient {
	return sigilv1.NewControlServiceClient(stamped{Client: c})
}

// Deliveries are handed over without a stamp: their MAC vouches for them. Webhooks
// are registered with root stamps, lists need any member's.
func (c *Client) Deliveries() sigilv1.DeliveryServiceClient {
	return sigilv1.NewDeliveryServiceClient(stamped{Client: c})
}

// Activities are shown to, and decided by, those who stamp the calls.
func (c *Client) Activities() sigilv1.ActivityServiceClient {
	return sigilv1.NewActivityServiceClient(stamped{Client: c})
}

// Endpoints are registered with root stamps.
func (c *Client) Endpoints() sigilv1.EndpointServiceClient {
	return sigilv1.NewEndpointServiceClient(stamped{Client: c})
}

// Courier calls need nothing but the role.
func (c *Client) Courier() sigilv1.CourierServiceClient {
	return sigilv1.NewCourierServiceClient(plain{Client: c})
}

// VendorCredentials makes and binds keys that other vendors know, with root stamps.
func (c *Client) VendorCredentials() sigilv1.VendorCredentialServiceClient {
	return sigilv1.NewVendorCredentialServiceClient(stamped{Client: c})
}

// Vendors binds what other vendors delivered, with root stamps.
func (c *Client) Vendors() sigilv1.VendorServiceClient {
	return sigilv1.NewVendorServiceClient(stamped{Client: c})
}

// Orders calls show the wallet API key: the delegated user's.
func (c *Client) Orders() sigilv1.OrderServiceClient {
	return sigilv1.NewOrderServiceClient(keyed{Client: c})
}

// OwnersOrders calls carry stamps: EndOrder and ShowOrders, the wallet owner's.
func (c *Client) OwnersOrders() sigilv1.OrderServiceClient {
	return sigilv1.NewOrderServiceClient(stamped{Client: c})
}

// Stamping calls show the wallet API key.
func (c *Client) Stamping() sigilv1.StampingServiceClient {
	return sigilv1.NewStampingServiceClient(keyed{Client: c})
}

// Signing calls show the wallet API key, or without one the stamps of users.
func (c *Client) Signing() sigilv1.SigningServiceClient {
	if c.apiKey == "" && len(c.signers) > 0 {
		return sigilv1.NewSigningServiceClient(stamped{Client: c})
	}
	return sigilv1.NewSigningServiceClient(keyed{Client: c})
}

// Members calls are stamped by root members, end users or a credential itself.
func (c *Client) Members() sigilv1.MemberServiceClient {
	return sigilv1.NewMemberServiceClient(stamped{Client: c})
}

// KeyDelegation calls are stamped by the root, or look.
func (c *Client) KeyDelegation() sigilv1.KeyDelegationServiceClient {
	return sigilv1.NewKeyDelegationServiceClient(stamped{Client: c})
}

// DelegatedUsers calls are stamped by the root of the organization or of its parent.
func (c *Client) DelegatedUsers() sigilv1.DelegatedUserServiceClient {
	return sigilv1.NewDelegatedUserServiceClient(stamped{Client: c})
}

// Reason is sigild's reason for err ("POLICY_DENIED", docs/errors.md), or "" for
// nil and for errors that are not a refusal of sigild's.
func Reason(err error) string {
	reason, _ := refusal(err)
	return reason
}

// Details are the facts that came with a refusal, such as "rule"; nil without.
func Details(err error) map[string]string {
	_, details := refusal(err)
	return details
}

// RetryAfter is when asking again may help; 0 when the appliance named no time.
func RetryAfter(err error) time.Duration {
	st, ok := status.FromError(err)
	if !ok {
		return 0
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func refusal(err error) (reason string, details map[string]string) {
	if errors.Is(err, ErrSealed) {
		return "SEALED", nil
	}
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return "", nil
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "sigild" {
			return info.GetReason(), info.GetMetadata()
		}
	}
	return "", nil
}

// Three connections for the generated clients, by what a call shows.
type (
	plain struct {
		*Client
		noStreams
	}
	keyed struct {
		*Client
		noStreams
	}
	stamped struct {
		*Client
		noStreams
	}
)

// Invoke calls with neither key nor stamps.
func (c plain) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	message, err := marshal(in)
	if err != nil {
		return err
	}
	return c.conn.send(ctx, method, message, out, opts)
}

// Invoke calls with the wallet API key.
func (c keyed) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	message, err := marshal(in)
	if err != nil {
		return err
	}
	if c.apiKey != "" { // without one the appliance says what is missing
		ctx = metadata.AppendToOutgoingContext(ctx, apiKeyKey, c.apiKey)
	}
	return c.conn.send(ctx, method, message, out, opts)
}

// unstamped are methods beside stamped ones that take no stamp: what they hand over
// is vouched for inside, or they only look.
var unstamped = []string{sigilv1.DeliveryService_IngestDelivery_FullMethodName, sigilv1.PolicyService_ApplyBundle_FullMethodName,
	sigilv1.ClockService_GetClock_FullMethodName}

// Invoke calls with a stamp of each signer over the bytes that are sent, if the
// method takes any.
func (c stamped) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	if slices.Contains(unstamped, method) {
		return plain{Client: c.Client}.Invoke(ctx, method, in, out, opts...)
	}
	message, err := marshal(in)
	if err != nil {
		return err
	}
	if len(c.signers) > 0 { // without any the appliance says whose are missing
		appliance, err := c.appliance(ctx)
		if err != nil {
			return err
		}
		act := credential.Act{
			ApplianceID: appliance, OrganizationID: c.org, Method: method,
			IssuedAt: c.conn.now(), MessageHash: sha256.Sum256(message),
		}
		for _, signer := range c.signers {
			stamp, err := credential.NewStamp(signer, act)
			if err != nil {
				return err
			}
			encoded, err := stamp.Encode()
			if err != nil {
				return err
			}
			ctx = metadata.AppendToOutgoingContext(ctx, stampKey, string(encoded))
		}
	}
	return c.conn.send(ctx, method, message, out, opts)
}

// appliance asks for the appliance's id, until it has been told once.
func (c stamped) appliance(ctx context.Context) (string, error) {
	c.conn.mu.Lock()
	known := c.conn.applianceID
	c.conn.mu.Unlock()
	if known != "" {
		return known, nil
	}
	answer, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
	if err != nil {
		return "", err
	}
	id := answer.GetApplianceId()
	if id == "" {
		return "", fmt.Errorf("stamping: %w", ErrSealed)
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if c.conn.applianceID == "" {
		c.conn.applianceID = id
	}
	return c.conn.applianceID, nil
}

// marshal is the only place where a request becomes bytes.
func marshal(in any) ([]byte, error) {
	m, ok := in.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("calling sigild: %T is not a protobuf message", in)
	}
	message, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("calling sigild: %w", err)
	}
	return message, nil
}

func (c *connection) send(ctx context.Context, method string, message []byte, out any, opts []grpc.CallOption) error {
	return c.grpc.Invoke(ctx, method, message, out, append(opts, grpc.ForceCodecV2(bytesCodec{}))...)
}

// noStreams refuses what grpc.ClientConnInterface asks for besides Invoke.
type noStreams struct{}

// NewStream refuses: sigild has no streams.
func (noStreams) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("calling sigild: streams are not served")
}

// bytesCodec sends the bytes it is given and reads protobuf.
type bytesCodec struct{}

// Marshal passes the marshalled message on as it is.
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("calling sigild: %T was not marshalled", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(message)}, nil
}

// Unmarshal reads a reply.
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("calling sigild: %T is not a protobuf message", v)
	}
	return proto.Unmarshal(data.Materialize(), m)
}

// Name is the content subtype.
func (bytesCodec) Name() string { return "proto" }
