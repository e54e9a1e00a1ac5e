package delivery

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	os.Exit(m.Run())
}

const (
	testOrg  = "org_a"
	otherOrg = "org_b"
	testEnv  = "53728749-1f19-4cab-becf-b88f952c3a3c"
	method   = "/sigil.v1.DeliveryService/IngestDelivery"
)

var (
	testSecret  = []byte("whsec_0123456789abcdef")
	otherSecret = []byte("whsec_another_one_that_lives")
	testTime    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// house is a service on a real token, store and journal.
type house struct {
	*Service
	t      testing.TB
	dir    string
	pin    vault.Pin
	device *watched
	keys   hsm.Keys
	log    *logBuffer
	cfg    Config
	close  func()
}

func newHouse(t testing.TB) *house {
	t.Helper()
	tok := testhsm.New(t)
	p, err := hsm.Open(t.Context(), hsm.Config{
		Module: tok.Module, TokenLabel: tok.Label, TokenSerial: tok.Serial, PINFile: tok.PINFile,
		LatchFile: filepath.Join(tok.Dir, "latch"), EnvAllow: tok.Env,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "state"), device: &watched{Provider: p}, log: &logBuffer{}, close: func() {}}
	if h.keys, err = p.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, pin, err := vault.Create(t.Context(), vault.Config{Dir: h.dir}, vault.KeyHolder{Sealer: p, ID: p.ID(), Ref: h.keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	h.pin = pin
	j, err := journal.Create(t.Context(), v, h.journalConfig(), journal.Genesis{ApplianceID: "app_test", Operators: []string{"operator"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.start(v, j)
	t.Cleanup(func() { h.close() })
	return h
}

func (h *house) journalConfig() journal.Config {
	return journal.Config{Signer: h.device.Provider, CheckpointKey: h.keys.Checkpoint}
}

func (h *house) start(v *vault.Vault, j *journal.Journal) {
	h.t.Helper()
	h.cfg = Config{
		Vault: v, Journal: j, Device: h.device, DeviceID: h.device.ID(), Now: func() time.Time { return testTime },
		Log: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	var err error
	if h.Service, err = Open(context.Background(), h.cfg); err != nil {
		h.t.Fatal(err)
	}
	h.close = func() {
		_ = j.Close(context.Background())
		if err := v.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

// reopen is a new process on the same store. crashed leaves the journal as it is.
func (h *house) reopen(crashed bool) {
	h.t.Helper()
	if crashed {
		if err := h.cfg.Vault.Close(); err != nil {
			h.t.Fatal(err)
		}
	} else {
		h.close()
	}
	v, err := vault.Open(context.Background(), vault.Config{Dir: h.dir}, h.pin)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := v.Unseal(context.Background(), map[string]seal.Sealer{h.device.ID(): h.device.Provider}); err != nil {
		h.t.Fatal(err)
	}
	j, err := journal.Open(context.Background(), v, h.journalConfig())
	if err != nil {
		h.t.Fatal(err)
	}
	h.start(v, j)
}

// watched is the token, and fails when it is told to.
type watched struct {
	*hsm.Provider
	mu    sync.Mutex
	fault error
	opens int
	// before runs before each decryption.
	before func()
	made   []seal.KeyRef
}

func (w *watched) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = err
}

func (w *watched) DecryptOAEPSHA256(ctx context.Context, ref seal.KeyRef, ct []byte, use func([]byte) error) error {
	w.mu.Lock()
	w.opens++
	fault := w.fault
	w.mu.Unlock()
	if w.before != nil {
		w.before()
	}
	if fault != nil {
		return fault
	}
	return w.Provider.DecryptOAEPSHA256(ctx, ref, ct, use)
}

func (w *watched) GenerateRSA(ctx context.Context, bits int) (seal.KeyRef, error) {
	ref, err := w.Provider.GenerateRSA(ctx, bits)
	w.made = append(w.made, ref)
	return ref, err
}

// person is an actor: what it may do is said outright.
type person struct {
	root, member string // organizations
	hash         byte
}

func (p person) Entry(org, requestID string) journal.Entry {
	return journal.Entry{
		Kind: journal.KindAct, Method: method, Organization: org, RequestID: requestID,
		RequestHash: hex.EncodeToString(bytes.Repeat([]byte{p.hash}, 32)), Caller: &journal.Caller{UID: 1, GID: 2, PID: 3},
	}
}

func (p person) Root(org string) error {
	if p.root == "" || p.root != org {
		return refusal.New(refusal.QuorumMissing, "no root")
	}
	return nil
}

func (p person) Member(org string) error {
	if p.member == "" || p.member != org {
		return refusal.New(refusal.NotFound, "no such organization")
	}
	return nil
}

var (
	receiver = person{}
	treasury = person{root: testOrg, member: testOrg}
)

// endpoint is a registered webhook as its vendor knows it.
type endpoint struct {
	id     string
	secret []byte
	public *rsa.PublicKey
}

// register registers a webhook with a 2048-bit key made in the token.
func (h *house) register(org, env string, secrets ...[]byte) endpoint {
	h.t.Helper()
	return h.registerOf(2048, org, env, secrets...)
}

func (h *house) registerOf(bits int, org, env string, secrets ...[]byte) endpoint {
	h.t.Helper()
	out, err := h.RegisterWebhook(h.t.Context(), person{root: org}, NewWebhook{
		RequestID: "register-" + env[:8], Organization: org, Environment: env, Secrets: secrets, Bits: bits,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return endpoint{id: out.WebhookID, secret: secrets[0], public: publicOf(h.t, out.Keys[0])}
}

func publicOf(t testing.TB, k WebhookKey) *rsa.PublicKey {
	t.Helper()
	block, rest := pem.Decode([]byte(k.PublicKeyPEM))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		t.Fatalf("the public key is %q", k.PublicKeyPEM)
	}
	pub, err := parsePublic(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if pub.N.BitLen() != k.Bits {
		t.Errorf("a key of %d bits says it has %d", pub.N.BitLen(), k.Bits)
	}
	return pub
}

// sign is the vendor's header.
func sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// sealed is the vendor's envelope around plain.
func sealed(t testing.TB, public *rsa.PublicKey, plain []byte, change ...func(map[string]any)) map[string]any {
	t.Helper()
	content, iv := make([]byte, 32), make([]byte, 16)
	rand.Read(content)
	rand.Read(iv)
	ek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, content, nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		t.Fatal(err)
	}
	out := gcm.Seal(nil, iv, plain, nil)
	b64 := base64.RawURLEncoding.EncodeToString
	e := map[string]any{
		"alg": "HYBRID-RSA-AES-256", "iv": b64(iv), "ct": b64(out[:len(plain)]), "tag": b64(out[len(plain):]), "ek": b64(ek),
	}
	for _, c := range change {
		c(e)
	}
	return e
}

// body is JSON as the vendor writes it.
func body(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// stamp is a vendor's timestamp, n minutes after the hour.
func stamp(n int) string {
	return testTime.Add(-time.Hour + time.Duration(n)*time.Minute).Format("2006-01-02T15:04:05.000Z")
}

type object = map[string]any

// created is the vendor's event with a share and an API key that name it.
func (e endpoint) created(t testing.TB, id, wallet, set string, at int, change ...func(o object)) object {
	t.Helper()
	o := object{
		"messageId": "msg-" + id, "eventId": id, "eventName": eventCreated, "timestamp": stamp(at),
		"webhookId": "vendor-webhook", "environmentId": testEnv, "environmentName": "sandbox", "userId": nil,
		"data": object{
			"chain": "EVM", "walletId": wallet, "userId": "user-1", "publicKey": "0xd74ff800a3c6f66ecd217118aaa6fb1c916fa4e2",
			"encryptedDelegatedShare": sealed(t, e.public, shareOf(id)),
			"encryptedWalletApiKey":   sealed(t, e.public, apiKeyOf(id), func(o map[string]any) { o["kid"] = "dynamic_rsa_x" }),
		},
	}
	if set != "" {
		o["data"].(object)["shareSetId"] = set
	}
	for _, c := range change {
		c(o)
	}
	return o
}

// The markers that must be seen nowhere but in their sealed records.
func shareOf(id string) []byte {
	return []byte(`{"pubkey":{},"secretShare":"5ecre75hare-` + id + `"}`)
}
func apiKeyOf(id string) []byte { return []byte("dyn_5ecre7key_" + id) }

func revoked(id, wallet, set string, at int) object {
	o := object{"eventName": eventRevoked, "eventId": id, "timestamp": stamp(at), "userId": "user-1", "data": object{"walletId": wallet, "chain": "EVM"}}
	if set != "" {
		o["data"].(object)["shareSetId"] = set
	}
	return o
}

// send signs and delivers.
func (h *house) send(e endpoint, b []byte) (Outcome, error) {
	return h.Ingest(h.t.Context(), receiver, Received{Webhook: e.id, Body: b, Signature: sign(e.secret, b)})
}

func (h *house) want(e endpoint, o any, want Outcome) {
	h.t.Helper()
	got, err := h.send(e, body(h.t, o))
	if err != nil || got != want {
		h.t.Errorf("got %q, %v; want %s", got, err, want)
	}
}

// alive maps each share set of a wallet to the share that is sealed for it.
func (h *house) alive(e endpoint, wallet string) map[string]string {
	h.t.Helper()
	out := map[string]string{}
	for set, m := range h.book.wallet(e.id, wallet).Sets {
		record := h.recordOf(m.ID)
		share, shareErr := h.read(vault.TypeVendorShare, record)
		key, keyErr := h.read(vault.TypeVendorAPIKey, record)
		switch {
		case m.Status == Revoked && errors.Is(shareErr, vault.ErrNotFound) && errors.Is(keyErr, vault.ErrNotFound):
		case m.Status == Pending && shareErr == nil && keyErr == nil && string(key) == string(apiKeyOf(m.Event)) && string(share) == string(shareOf(m.Event)):
			out[set] = m.Event
		default:
			h.t.Errorf("wallet %s, set %q, %s: share %v, API key %v", wallet, set, m.Status, shareErr, keyErr)
		}
	}
	return out
}

// recordOf is the id of the records of a delivery, by the delivery's own.
func (h *house) recordOf(id string) string {
	h.t.Helper()
	for _, w := range h.book.wallets {
		for _, of := range []map[string]material{w.Sets, w.Beside} {
			for set, m := range of {
				if m.ID == id {
					return w.record(h.book.webhook(w.Webhook).Environment, set, m)
				}
			}
		}
	}
	h.t.Fatalf("no delivery %s", id)
	return ""
}

func (h *house) read(t vault.Type, id string) (out []byte, err error) {
	err = h.cfg.Vault.With(h.t.Context(), t, id, func(b []byte) error {
		out = bytes.Clone(b)
		return nil
	})
	return out, err
}

func (h *house) entries() []journal.Entry {
	h.t.Helper()
	list, err := h.cfg.Journal.Entries(h.t.Context(), 1, 100_000)
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// records counts what lies in the vault of the types of this package.
func (h *house) records(types ...vault.Type) int {
	h.t.Helper()
	n := 0
	for _, t := range types {
		if err := h.cfg.Vault.Each(h.t.Context(), t, func(string, []byte) error { n++; return nil }); err != nil {
			h.t.Fatal(err)
		}
	}
	return n
}

var allTypes = []vault.Type{vault.TypeVendorWallet, vault.TypeVendorEvent, vault.TypeVendorShare, vault.TypeVendorAPIKey}

func wantReason(t testing.TB, what string, err error, reason refusal.Reason) {
	t.Helper()
	if !refusal.Is(err, reason) {
		t.Errorf("%s: got %v, want %s", what, err, reason)
	}
}

// logBuffer collects what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func numbered(prefix string, n int) string { return fmt.Sprintf("%s-%d", prefix, n) }
