package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func TestHandlersLearnWhoAsks(t *testing.T) {
	h := newHouse(t)
	c := dial(t, h.app)
	in := &sigilv1.GetWalletRequest{OrganizationId: testOrg, WalletId: "wal_x"}
	out, err := c.WithStamps(testOrg, h.keys[credential.P256], h.keys[credential.Ed25519], h.keys[credential.Secp256k1]).
		Wallets().GetWallet(context.Background(), in)
	if err != nil || out.GetWallet().GetWalletId() != "wal_x" {
		t.Fatalf("got %v, %v", out, err)
	}
	got := h.handlers.take(t).request
	if got.caller.UID != me().UIDs[0] || got.caller.PID != int32(syscall.Getpid()) {
		t.Errorf("caller %+v", got.caller)
	}
	if got.method != walletMethod || got.organizationID != testOrg || len(got.credentials) != 3 || got.apiKey != nil {
		t.Errorf("got %+v", got)
	}
	if want := sha256.Sum256(marshal(t, in)); got.hash != want {
		t.Errorf("hash %x, want that of the sent bytes %x", got.hash, want)
	}

	if _, err := c.WithAPIKey([]byte(testAPIKey+"\n")).Signing().Sign(context.Background(), &sigilv1.SignRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := h.handlers.take(t).request; string(got.apiKey) != testAPIKey || got.credentials != nil || got.organizationID != "" {
		t.Errorf("got %+v", got)
	}
}

func TestAPIKeyIsWipedAfterTheCall(t *testing.T) {
	h := newHouse(t)
	var kept []byte
	h.handlers.set(func(_ context.Context, r *request) error { kept = r.apiKey; return nil })
	if _, err := dial(t, h.app).WithAPIKey([]byte(testAPIKey)).Signing().Sign(context.Background(), &sigilv1.SignRequest{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, make([]byte, len(testAPIKey))) {
		t.Errorf("the handler's key still reads %q", kept)
	}
}

// Another uid passes the socket's mode, and the kernel says who it is.
func TestOtherUIDIsRefusedByTheTable(t *testing.T) {
	h := newHouse(t)
	for _, uid := range []uint32{54321, nobody} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"SIGILD_TEST_CALL=" + h.app}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("calling as uid %d (this test needs root to become another): %v\n%s", uid, err, out)
		}
		if !strings.Contains(string(out), `reason="CALLER_NOT_ALLOWED"`) || !strings.Contains(string(out), fmt.Sprint(uid)) {
			t.Errorf("uid %d: %s", uid, out)
		}
		h.handlers.untouched(t, fmt.Sprintf("uid %d", uid))
	}
	allowed := newHouse(t, func(c *Config) { c.Roles.Auditor.GIDs = []uint32{54321} })
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"SIGILD_TEST_CALL=" + allowed.app}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54322, Gid: 54321}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `reason=""`) {
		t.Errorf("uid with a role by gid: %v %s", err, out)
	}
	if got := allowed.handlers.take(t).request.caller; got.UID != 54322 || got.GID != 54321 {
		t.Errorf("caller %+v", got)
	}
}

func TestUnlistedMethodsAreRefused(t *testing.T) {
	h := newHouse(t)
	for _, method := range []string{"/sigil.v1.SigningService/SignAll", "/sigil.v1.Nothing/Here", "/grpc.health.v1.Health/Watch",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/sigil.v1.OrganizationService/CreateOrganization"} {
		wantReason(t, method, dialRaw(t, h.app).call(method, nil), "CALLER_NOT_ALLOWED")
	}
	wantReason(t, "signing on admin.sock", dialRaw(t, h.admin).call(signMethod, nil, apiKeyKey, testAPIKey), "CALLER_NOT_ALLOWED")
	h.handlers.untouched(t, "unlisted")
	_, err := dial(t, h.app).WithStamps(testOrg, h.keys[credential.P256]).Users().
		CreateUser(context.Background(), &sigilv1.CreateUserRequest{OrganizationId: testOrg})
	wantReason(t, "a method whose handler nobody wrote", err, "INTERNAL")
}

func TestStampsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	raw := dialRaw(t, h.app)
	message := getWallet(t)
	key := h.keys[credential.P256]
	stranger := newKey(t, credential.P256)
	good := h.stamp(t, key, walletMethod, message)
	at := func(d time.Duration) func(*credential.Act) {
		return func(a *credential.Act) { a.IssuedAt = time.Now().Add(d) }
	}
	org := func(id string) func(*credential.Act) {
		return func(a *credential.Act) { a.OrganizationID = id }
	}
	h.register.known[otherOrg] = []credential.PublicKey{key.Public()}
	h.register.known[""] = []credential.PublicKey{key.Public()}
	seventeen := make([]string, 17)
	for i := range seventeen {
		seventeen[i] = good
	}
	const notOurs = "not a registered credential's signature over this request, method, organization and appliance"
	rows := []struct {
		name, reason, text string
		stamps             []string
	}{
		{"none", "STAMP_INVALID", "needs stamps (member)", nil},
		{"other bytes", "STAMP_INVALID", notOurs, []string{h.stamp(t, key, walletMethod, append(message, 0))}},
		{"other method", "STAMP_INVALID", notOurs, []string{h.stamp(t, key, "/sigil.v1.WalletService/FetchShare", message)}},
		{"other appliance", "STAMP_INVALID", notOurs, []string{h.stamp(t, key, walletMethod, message, func(a *credential.Act) { a.ApplianceID = "apl_other" })}},
		{"other organization", "STAMP_INVALID", "another organization than the request", []string{h.stamp(t, key, walletMethod, message, org(otherOrg))}},
		{"no organization", "STAMP_INVALID", "name no organization", []string{h.stamp(t, key, walletMethod, message, org(""))}},
		{"two organizations", "STAMP_INVALID", "different organizations", []string{good, h.stamp(t, key, walletMethod, message, org(otherOrg))}},
		{"unknown credential", "STAMP_INVALID", notOurs, []string{h.stamp(t, stranger, walletMethod, message)}},
		{"known to another organization", "STAMP_INVALID", notOurs, []string{h.stamp(t, stranger, walletMethod, message, org(otherOrg))}},
		{"one good, one unknown", "STAMP_INVALID", "stamp 2: " + notOurs, []string{good, h.stamp(t, stranger, walletMethod, message)}},
		{"expired", "STAMP_EXPIRED", "made 12", []string{h.stamp(t, key, walletMethod, message, at(-121*time.Second))}},
		{"future", "STAMP_EXPIRED", "ahead of this clock", []string{h.stamp(t, key, walletMethod, message, at(40*time.Second))}},
		{"one good, one expired", "STAMP_EXPIRED", "stamp 2", []string{good, h.stamp(t, key, walletMethod, message, at(-time.Hour))}},
		{"not JSON", "STAMP_INVALID", "not JSON", []string{"\x00\x01"}},
		{"unknown member", "STAMP_INVALID", "unknown member", []string{strings.Replace(good, "{", `{"a":"b",`, 1)}},
		{"two stamps in one value", "STAMP_INVALID", "not JSON", []string{good + "," + good}},
		{"too long", "STAMP_INVALID", "at most 2048", []string{good + strings.Repeat(" ", 2048)}},
		{"seventeen", "STAMP_INVALID", "17 stamps, at most 16", seventeen},
	}
	for _, row := range rows {
		var pairs []string
		for _, s := range row.stamps {
			pairs = append(pairs, stampKey, s)
		}
		err := raw.call(walletMethod, message, pairs...)
		wantReason(t, row.name, err, row.reason)
		if got := status.Convert(err).Message(); !strings.Contains(got, row.text) {
			t.Errorf("%s: says %q, want %q", row.name, got, row.text)
		}
		if row.reason == "STAMP_EXPIRED" && client.Details(err)["server_time"] == "" {
			t.Errorf("%s: the appliance's time is not told", row.name)
		}
		h.handlers.untouched(t, row.name)
	}
	if err := raw.call(walletMethod, message, stampKey, good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestSixteenStampsFitAndCountOnceEach(t *testing.T) {
	h := newHouse(t)
	message := getWallet(t)
	var pairs []string
	h.register.known[testOrg] = nil
	for range 15 {
		k := newKey(t, credential.P256) // the longest stamps there are
		h.register.known[testOrg] = append(h.register.known[testOrg], k.Public())
		pairs = append(pairs, stampKey, h.stamp(t, k, walletMethod, message))
		if len(pairs) == 2 { // the first one twice, with two signatures
			pairs = append(pairs, stampKey, h.stamp(t, k, walletMethod, message))
		}
	}
	if err := dialRaw(t, h.app).call(walletMethod, message, pairs...); err != nil {
		t.Fatal(err)
	}
	if got := h.handlers.take(t).request.credentials; len(got) != 15 {
		t.Errorf("%d credentials, want 15", len(got))
	}
}

func TestOperatorsStampForNoOrganization(t *testing.T) {
	h := newHouse(t)
	h.register.known[""] = []credential.PublicKey{h.keys[credential.Ed25519].Public()}
	c := dial(t, h.admin)
	in := &sigilv1.CreateOrganizationRequest{Name: "Acme"}
	if _, err := c.WithStamps("", h.keys[credential.Ed25519]).Organizations().CreateOrganization(context.Background(), in); err != nil {
		t.Fatal(err)
	}
	if got := h.handlers.take(t).request; got.organizationID != "" || len(got.credentials) != 1 {
		t.Errorf("got %+v", got)
	}
	_, err := c.WithStamps(testOrg, h.keys[credential.Ed25519]).Organizations().CreateOrganization(context.Background(), in)
	wantReason(t, "for an organization", err, "STAMP_INVALID")
	_, err = c.WithStamps("", h.keys[credential.P256]).Organizations().CreateOrganization(context.Background(), in)
	wantReason(t, "by a member of an organization", err, "STAMP_INVALID")
	h.handlers.untouched(t, "operators")
}

func TestSealedApplianceTakesNoStamps(t *testing.T) {
	h := newHouse(t)
	h.register.sealed = fmt.Errorf("reading the appliance: %w", vault.ErrSealed)
	err := dialRaw(t, h.app).call(walletMethod, getWallet(t), stampKey, h.stamp(t, h.keys[credential.P256], walletMethod, getWallet(t)))
	wantReason(t, "sealed", err, "SEALED")
	if err := dialRaw(t, h.app).call(statusMethod, nil); err != nil {
		t.Errorf("status while sealed: %v", err)
	}
	h.register.sealed, h.register.id = nil, ""
	err = dialRaw(t, h.app).call(walletMethod, getWallet(t), stampKey, h.stamp(t, h.keys[credential.P256], walletMethod, getWallet(t)))
	wantReason(t, "no appliance id", err, "INTERNAL")
}

func TestAPIKeysThatAreRefused(t *testing.T) {
	h := newHouse(t)
	raw := dialRaw(t, h.app)
	const same = "the wallet API key does not open this wallet" // delegation's words for a wrong key
	rows := []struct {
		name, text string
		keys       []string
	}{
		{"none", "needs the wallet API key", nil},
		{"two", same, []string{testAPIKey, testAPIKey}},
		{"too long", same, []string{testAPIKey + strings.Repeat("a", maxAPIKey)}},
		{"not ours", same, []string{"sk_live_0123"}},
		{"with a space", same, []string{testAPIKey + " x"}},
		{"two in one value", same, []string{testAPIKey + "," + testAPIKey[:40]}},
	}
	for _, row := range rows {
		var pairs []string
		for _, k := range row.keys {
			pairs = append(pairs, apiKeyKey, k)
		}
		err := raw.call(signMethod, nil, pairs...)
		wantReason(t, row.name, err, "API_KEY_INVALID")
		if got := status.Convert(err).Message(); !strings.Contains(got, row.text) {
			t.Errorf("%s: says %q, want %q", row.name, got, row.text)
		}
	}
	wantReason(t, "key where none is taken", raw.call(statusMethod, nil, apiKeyKey, testAPIKey), "API_KEY_INVALID")
	stamp := h.stamp(t, h.keys[credential.P256], signMethod, nil)
	wantReason(t, "stamp where none is taken", raw.call(signMethod, nil, apiKeyKey, testAPIKey, stampKey, stamp), "STAMP_INVALID")
	h.handlers.untouched(t, "keys")
	if strings.Contains(h.log.String(), testAPIKey[:40]) {
		t.Error("the log holds an API key")
	}
}

// A stamp doesn't help a message that says more than it should.
func TestMessagesAreReadStrictly(t *testing.T) {
	h := newHouse(t)
	raw := dialRaw(t, h.app)
	for name, message := range map[string][]byte{
		"unknown field":      append(getWallet(t), varintField(99, 1)...),
		"organization twice": append(getWallet(t), lenField(1, []byte(otherOrg))...),
		"truncated":          getWallet(t)[:20],
		"invalid UTF-8":      join(lenField(1, []byte(testOrg)), lenField(2, []byte{0xff})),
		"too large":          join(getWallet(t), lenField(2, make([]byte, 5*kib))),
	} {
		err := raw.call(walletMethod, message, stampKey, h.stamp(t, h.keys[credential.P256], walletMethod, message))
		wantReason(t, name, err, "REQUEST_INVALID")
	}
	wantReason(t, "unknown field in a Sign", raw.call(signMethod, varintField(99, 1), apiKeyKey, testAPIKey), "REQUEST_INVALID")
	h.handlers.untouched(t, "strict")
}

func TestFramesThatAreRefused(t *testing.T) {
	h := newHouse(t)
	invalid := fmt.Sprint(uint32(codes.InvalidArgument))
	// What gRPC itself refuses while it receives has its codes.
	internal, exhausted := fmt.Sprint(uint32(codes.Internal)), fmt.Sprint(uint32(codes.ResourceExhausted))
	message := marshal(t, &sigilv1.GetStatusRequest{})
	big := make([]byte, 1<<20+1)
	rows := []struct {
		name   string
		header map[string]string
		body   []byte
		status string
	}{
		{"in order", nil, framed(message), "0"},
		{"subtype proto", map[string]string{"Content-Type": "application/grpc+proto"}, framed(message), "0"},
		{"JSON", map[string]string{"Content-Type": "application/grpc+json"}, framed([]byte("{}")), invalid},
		{"not gRPC", map[string]string{"Content-Type": "application/json"}, []byte("{}"), ""},
		{"cut in the frame's head", nil, []byte{0, 0, 0}, internal},
		{"cut in the message", nil, append([]byte{0, 0, 0, 0, 100}, make([]byte, 10)...), internal},
		{"no message", nil, nil, internal},
		{"two messages", nil, append(framed(message), framed(message)...), internal},
		{"above the receive limit", nil, framed(big), exhausted},
		{"length of 4 GiB", nil, []byte{0, 0xff, 0xff, 0xff, 0xff}, exhausted},
		{"compressed without saying how", nil, append([]byte{1}, framed(message)[1:]...), internal},
		{"compressed", map[string]string{"Grpc-Encoding": "gzip"}, append([]byte{1}, framed(message)[1:]...), fmt.Sprint(uint32(codes.Unimplemented))},
		{"stamp that isn't base64", map[string]string{"Sigild-Stamp-Bin": "###"}, framed(message), internal},
	}
	for _, row := range rows {
		got, text := post(t, h.app, statusMethod, row.header, row.body)
		if row.status == "" { // answered with HTTP 415 and a status of gRPC's choice
			if got == "0" {
				t.Errorf("%s: was taken", row.name)
			}
			continue
		}
		if got != row.status {
			t.Errorf("%s: got status %q (%s), want %s", row.name, got, text, row.status)
		}
		if row.status != "0" {
			h.handlers.untouched(t, row.name)
		} else {
			h.handlers.take(t)
		}
	}
	wantReason(t, "above the row's limit", dialRaw(t, h.app).call(statusMethod, big[:kib+1]), "REQUEST_INVALID")
}

func TestPanicIsInternalAndSilent(t *testing.T) {
	h := newHouse(t)
	c := dial(t, h.app)
	for _, p := range []any{"a secret of 32 bytes", errors.New("a secret of 32 bytes"), []byte("a secret of 32 bytes")} {
		h.handlers.set(func(context.Context, *request) error { panic(p) })
		_, err := c.Status().GetStatus(context.Background(), &sigilv1.GetStatusRequest{})
		wantReason(t, "panic", err, "INTERNAL")
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the caller sees %v", err)
		}
	}
	empty := map[string]*request{}
	h.handlers.set(func(context.Context, *request) error { empty["x"].method = ""; return nil })
	_, err := c.Status().GetStatus(context.Background(), &sigilv1.GetStatusRequest{})
	wantReason(t, "panic of Go's own", err, "INTERNAL")
	if log := h.log.String(); strings.Contains(log, "a secret") || !strings.Contains(log, "nil pointer") || !strings.Contains(log, "call_test.go") {
		t.Errorf("log: %s", log)
	}
	h.handlers.set(nil)
	if _, err := c.Status().GetStatus(context.Background(), &sigilv1.GetStatusRequest{}); err != nil {
		t.Errorf("the call after: %v", err)
	}
}

func TestErrorsOfHandlersBecomeReasons(t *testing.T) {
	h := newHouse(t)
	c := dial(t, h.app)
	h.handlers.set(func(context.Context, *request) error {
		return fmt.Errorf("step 6: %w", refusal.New(refusal.PolicyDenied, "above 1 ETH").With("rule", "small-payments").Because(errors.New("inner")))
	})
	_, err := c.WithAPIKey([]byte(testAPIKey)).Signing().Sign(context.Background(), &sigilv1.SignRequest{})
	wantReason(t, "refusal", err, "POLICY_DENIED")
	if client.Details(err)["rule"] != "small-payments" || status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "inner") {
		t.Errorf("got %v with %v", err, client.Details(err))
	}
	if !strings.Contains(h.log.String(), "inner") {
		t.Error("the cause is not in the log")
	}
	h.handlers.set(func(context.Context, *request) error {
		return &refusal.Error{Reason: refusal.LimitExceeded, Message: "daily", After: 90 * time.Minute}
	})
	_, err = c.WithAPIKey([]byte(testAPIKey)).Signing().Sign(context.Background(), &sigilv1.SignRequest{})
	if got := client.RetryAfter(err); got != 90*time.Minute {
		t.Errorf("retry after %s, want 90m", got)
	}
}

func TestCallsHaveDeadlines(t *testing.T) {
	wait := func(ctx context.Context, _ *request) error { <-ctx.Done(); return ctx.Err() }
	h := newHouse(t, func(c *Config) { c.Limits.Deadline, c.Limits.MaxDeadline = 30*time.Millisecond, 60*time.Millisecond })
	h.handlers.set(wait)
	c := dial(t, h.app)
	_, err := c.Status().GetStatus(context.Background(), &sigilv1.GetStatusRequest{})
	wantReason(t, "call without a deadline", err, "DEADLINE_EXCEEDED")
	long, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	_, err = c.Status().GetStatus(long, &sigilv1.GetStatusRequest{})
	wantReason(t, "call with an hour", err, "DEADLINE_EXCEEDED")

	defaults := newHouse(t)
	for method, want := range map[string]time.Duration{statusMethod: 10 * time.Second, signMethod: 30 * time.Second} {
		var pairs []string
		if method == signMethod {
			pairs = []string{apiKeyKey, testAPIKey}
		}
		var reply []byte
		ctx := metadata.AppendToOutgoingContext(context.Background(), pairs...)
		if err := dialRaw(t, defaults.app).Invoke(ctx, method, []byte{}, &reply, grpc.ForceCodecV2(testCodec{})); err != nil {
			t.Fatal(err)
		}
		deadline, ok := defaults.handlers.take(t).ctx.Deadline()
		if left := time.Until(deadline); !ok || left > want || left < want-5*time.Second {
			t.Errorf("%s: %s left, want about %s", method, left, want)
		}
	}
}

// Every refusal is counted by reason, socket and uid, whoever asks.
func TestRefusalsAreCounted(t *testing.T) {
	r := journal.NewRefusals(nil)
	h := newHouse(t, func(c *Config) { c.Refusals = r })
	c := dialRaw(t, h.app)
	for range 50 {
		_ = c.call("/sigil.v1.SigningService/Sign", nil, "sigild-api-key", "no key")
	}
	_ = c.call("/sigil.v1.Nothing/Nothing", nil)
	if n := r.Totals(); n["API_KEY_INVALID"] != 50 || n["CALLER_NOT_ALLOWED"] != 1 {
		t.Errorf("counted %v, want 50 wrong keys and one unknown method", n)
	}
}
