package outbox

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
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

const org = "org_a"

// person is an actor: what it may do is said outright.
type person struct{ root string }

func (p person) Entry(org, requestID string) journal.Entry {
	return journal.Entry{Kind: journal.KindAct, Method: "/test", Organization: org, RequestID: requestID, RequestHash: strings.Repeat("00", 32), Caller: &journal.Caller{UID: 1}}
}

func (p person) Root(org string) error {
	if p.root != org {
		return refusal.New(refusal.QuorumMissing, "no root")
	}
	return nil
}

func (p person) Member(org string) error { return p.Root(org) }

var treasury = person{org}

// house is a service on a real token, store and journal, with a clock of the test's.
type house struct {
	*Service
	t      *testing.T
	dir    string
	pin    vault.Pin
	device *hsm.Provider
	cfg    Config
	jcfg   journal.Config
	time   time.Time
	key    *rsa.PrivateKey
}

var receiverKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newHouse(t *testing.T) *house {
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
	keys, err := p.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "state"), device: p, time: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), jcfg: journal.Config{Signer: p, CheckpointKey: keys.Checkpoint}}
	if h.key, err = receiverKey(); err != nil {
		t.Fatal(err)
	}
	v, pin, err := vault.Create(t.Context(), vault.Config{Dir: h.dir}, vault.KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	h.pin = pin
	j, err := journal.Create(t.Context(), v, h.jcfg, journal.Genesis{ApplianceID: "app_test", Operators: []string{"operator"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.open(v, j)
	t.Cleanup(func() { _ = h.cfg.Vault.Close() })
	return h
}

func (h *house) open(v *vault.Vault, j *journal.Journal) {
	h.t.Helper()
	h.cfg = Config{Vault: v, Journal: j, Now: func() time.Time { return h.time }}
	var err error
	if h.Service, err = Open(context.Background(), h.cfg); err != nil {
		h.t.Fatal(err)
	}
}

// crash opens the store again as it is on disk.
func (h *house) crash() {
	h.t.Helper()
	if err := h.cfg.Vault.Close(); err != nil {
		h.t.Fatal(err)
	}
	v, err := vault.Open(context.Background(), vault.Config{Dir: h.dir}, h.pin)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := v.Unseal(context.Background(), map[string]seal.Sealer{h.device.ID(): h.device}); err != nil {
		h.t.Fatal(err)
	}
	j, err := journal.Open(context.Background(), v, h.jcfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.open(v, j)
}

func (h *house) newEndpoint(id string, change ...func(*NewEndpoint)) NewEndpoint {
	h.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(h.key.Public())
	if err != nil {
		h.t.Fatal(err)
	}
	n := NewEndpoint{
		RequestID: id, Organization: org, Name: "developer", URL: "https://example.org/hooks", Environment: "env-1", Secret: []byte("whsec_0123456789abcdef"),
		PublicKeyPEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

// endpoint registers one that a ping has reached and whose key is active.
func (h *house) endpoint(id string, change ...func(*NewEndpoint)) EndpointRegistered {
	h.t.Helper()
	made, err := h.RegisterEndpoint(h.t.Context(), treasury, h.newEndpoint(id, change...))
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.Ping(h.t.Context(), treasury, id+"-ping", org, made.EndpointID); err != nil {
		h.t.Fatal(err)
	}
	h.report(h.take(1)[0].ID, 204)
	if err := h.ChangeKey(h.t.Context(), treasury, KeyChange{id + "-key", org, made.EndpointID, made.KeyID, KeyActive}); err != nil {
		h.t.Fatal(err)
	}
	return made
}

func (h *house) take(want int) []Due {
	h.t.Helper()
	due, err := h.Take(h.t.Context(), 16)
	if err != nil || len(due) != want {
		h.t.Fatalf("%d events are due, %v; want %d", len(due), err, want)
	}
	return due
}

func (h *house) report(id string, status int) {
	h.t.Helper()
	if err := h.Report(h.t.Context(), person{}.Entry("", ""), id, status, "why"); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) created(endpoint, delegation string) error {
	d := Delegated{Organization: org, Endpoint: endpoint, Delegation: delegation, Wallet: "wal_1", Owner: "usr_1", Chain: "eip155", Address: "0xabc"}
	return h.cfg.Vault.Update(context.Background(), func(tx *vault.Tx) error {
		_, err := h.Created(tx, d, []byte("the share"), []byte("sgk_key"))
		return err
	})
}

func wantReason(t *testing.T, what string, err error, want refusal.Reason) {
	t.Helper()
	if !refusal.Is(err, want) {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

func TestEndpointsAreChecked(t *testing.T) {
	h := newHouse(t)
	for name, change := range map[string]func(*NewEndpoint){
		"http":           func(n *NewEndpoint) { n.URL = "http://example.org" },
		"a user":         func(n *NewEndpoint) { n.URL = "https://u:p@example.org" },
		"no host":        func(n *NewEndpoint) { n.URL = "https:///x" },
		"a long url":     func(n *NewEndpoint) { n.URL = "https://example.org/" + strings.Repeat("x", maxURL) },
		"a short secret": func(n *NewEndpoint) { n.Secret = []byte("short") },
		"no name":        func(n *NewEndpoint) { n.Name = "" },
		"an environment": func(n *NewEndpoint) { n.Environment = "a/b" },
		"no key":         func(n *NewEndpoint) { n.PublicKeyPEM = "" },
		"two keys":       func(n *NewEndpoint) { n.PublicKeyPEM += n.PublicKeyPEM },
	} {
		_, err := h.RegisterEndpoint(t.Context(), treasury, h.newEndpoint("bad", change))
		wantReason(t, name, err, refusal.RequestInvalid)
	}
	_, err := h.RegisterEndpoint(t.Context(), person{}, h.newEndpoint("short"))
	wantReason(t, "no root", err, refusal.QuorumMissing)
}

// A key is pending, active, revoked, in this order; only an endpoint that was reached
// has active ones, and nothing is delivered without.
func TestKeysHaveALife(t *testing.T) {
	h := newHouse(t)
	made, err := h.RegisterEndpoint(t.Context(), treasury, h.newEndpoint("e"))
	if err != nil {
		t.Fatal(err)
	}
	set := func(id string, status KeyStatus) error {
		return h.ChangeKey(t.Context(), treasury, KeyChange{id, org, made.EndpointID, made.KeyID, status})
	}
	wantReason(t, "before a ping", set("a", KeyActive), refusal.NotActive)
	wantReason(t, "without a key", h.created(made.EndpointID, "dlg_1"), refusal.NotActive)
	wantReason(t, "back to pending", set("b", KeyPending), refusal.RequestInvalid)
	if _, err := h.Ping(t.Context(), treasury, "ping", org, made.EndpointID); err != nil {
		t.Fatal(err)
	}
	ping := h.take(1)[0]
	h.report(ping.ID, 500)
	wantReason(t, "after a ping that failed", set("c", KeyActive), refusal.NotActive)
	h.time = h.time.Add(retries[0])
	h.report(h.take(1)[0].ID, 200)
	if err := set("d", KeyActive); err != nil {
		t.Fatal(err)
	}
	if err := h.Ready(org, made.EndpointID); err != nil {
		t.Error(err)
	}
	wantReason(t, "another organization's", h.Ready("org_b", made.EndpointID), refusal.NotFound)
	_, err = h.AddKey(t.Context(), treasury, NewKey{"again", org, made.EndpointID, h.newEndpoint("x").PublicKeyPEM})
	wantReason(t, "the same key again", err, refusal.RequestInvalid)
	if err := set("e2", KeyRevoked); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a revoked key", set("f", KeyActive), refusal.NotActive)
	wantReason(t, "with a revoked key", h.created(made.EndpointID, "dlg_1"), refusal.NotActive)
}

// What is posted is the documented event, its envelopes open with the receiver's key
// alone, and its MAC is over its bytes.
func TestCreatedEventOpens(t *testing.T) {
	h := newHouse(t)
	made := h.endpoint("e")
	if err := h.created(made.EndpointID, "dlg_1"); err != nil {
		t.Fatal(err)
	}
	due := h.take(1)[0]
	mac := hmac.New(sha256.New, []byte("whsec_0123456789abcdef"))
	mac.Write(due.Body)
	if due.Signature != "sha256="+hex.EncodeToString(mac.Sum(nil)) || due.URL != "https://example.org/hooks" {
		t.Errorf("due %+v", due)
	}
	type envelope struct{ Alg, IV, CT, Tag, EK, Kid string }
	var e struct {
		EventID, EventName, MessageID, Timestamp, WebhookID, EnvironmentID, UserID string
		Data                                                                       struct {
			Chain, WalletID, PublicKey, ShareSetID         string
			EncryptedDelegatedShare, EncryptedWalletAPIKey envelope
		}
	}
	if err := json.Unmarshal(due.Body, &e); err != nil {
		t.Fatal(err)
	}
	if e.EventID != due.ID || e.EventName != eventCreated || e.WebhookID != made.EndpointID || e.EnvironmentID != "env-1" || e.UserID != "usr_1" ||
		e.Data.Chain != "EVM" || e.Data.PublicKey != "0xabc" || e.Data.ShareSetID != "dlg_1" {
		t.Errorf("event %s", due.Body)
	}
	open := func(v envelope) []byte {
		text := func(s string) []byte {
			b, err := base64.RawURLEncoding.Strict().DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		content, err := rsa.DecryptOAEP(sha256.New(), nil, h.key, text(v.EK), nil)
		if err != nil {
			t.Fatal(err)
		}
		block, err := aes.NewCipher(content)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCMWithNonceSize(block, 16)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := gcm.Open(nil, text(v.IV), append(text(v.CT), text(v.Tag)...), nil)
		if err != nil || v.Kid != made.KeyID || v.Alg != "HYBRID-RSA-AES-256" {
			t.Fatalf("envelope %+v: %v", v, err)
		}
		return plain
	}
	if got := open(e.Data.EncryptedDelegatedShare); !bytes.Equal(got, []byte("the share")) {
		t.Errorf("share %q", got)
	}
	if got := open(e.Data.EncryptedWalletAPIKey); !bytes.Equal(got, []byte("sgk_key")) {
		t.Errorf("API key %q", got)
	}
}

// The tries come when they are documented, also over crashes; then it is given up,
// until somebody says otherwise. Reporting twice changes nothing.
func TestTriesAreThoseDocumented(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		name    string
		sandbox bool
		tries   int
	}{{"live", false, 6}, {"sandbox", true, 3}} {
		made := h.endpoint(c.name, func(n *NewEndpoint) { n.Sandbox = c.sandbox })
		if err := h.created(made.EndpointID, "dlg_"+c.name); err != nil {
			t.Fatal(err)
		}
		for i := range c.tries {
			due := h.take(1)[0]
			h.take(0) // it is with a deliverer
			h.report(due.ID, []int{0, 500, 404, 302, 429, 199}[i])
			h.take(0)
			h.crash()
			if i < c.tries-1 {
				h.time = h.time.Add(retries[i] - time.Millisecond)
				h.take(0)
				h.time = h.time.Add(time.Millisecond)
			}
		}
		h.time = h.time.Add(30 * 24 * time.Hour)
		h.take(0)
		if again, err := h.Redeliver(t.Context(), treasury, c.name+"-again", org, made.EndpointID); err != nil || again.Events != 1 {
			t.Fatalf("%+v, %v", again, err)
		}
		due := h.take(1)[0]
		h.report(due.ID, 204)
		h.report(due.ID, 500)
		h.crash()
		h.take(0)
	}
}

// A deliverer that dies gives back what it took; the end of a delegation takes its
// created event away.
func TestLeasesEndAndRevocationsOvertake(t *testing.T) {
	h := newHouse(t)
	made := h.endpoint("e")
	if err := h.created(made.EndpointID, "dlg_1"); err != nil {
		t.Fatal(err)
	}
	first := h.take(1)[0]
	h.time = h.time.Add(leaseFor)
	if again := h.take(1)[0]; again.ID != first.ID || !bytes.Equal(again.Body, first.Body) {
		t.Errorf("taken again: %+v, was %+v", again, first)
	}
	err := h.cfg.Vault.Update(t.Context(), func(tx *vault.Tx) error {
		_, err := h.Revoked(tx, Delegated{Organization: org, Endpoint: made.EndpointID, Delegation: "dlg_1", Wallet: "wal_1", Chain: "solana:x"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	due := h.take(1)[0]
	if due.ID == first.ID || !bytes.Contains(due.Body, []byte(eventRevoked)) {
		t.Errorf("after the end %s is due", due.Body)
	}
	h.report(first.ID, 200) // late, and harmless
	list, err := h.Endpoints(treasury, org)
	if err != nil || len(list) != 1 || list[0].Waiting != 1 || list[0].ReachedAt == nil {
		t.Errorf("listed %+v, %v", list, err)
	}
}
