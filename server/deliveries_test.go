package server

import (
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
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/stamping"
	"github.com/sigild/sigild/vault"
)

// appliance is the real thing behind real sockets, but for signing.
type appliance struct {
	*Appliance
	parts    Parts
	app      *client.Client
	operator *credential.PrivateKey
	vault    *vault.Vault
	// path and admin are its sockets.
	path, admin string
	raw         map[string]rawConn
}

func newAppliance(t *testing.T) *appliance {
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
	v, _, err := vault.Create(t.Context(), vault.Config{Dir: filepath.Join(t.TempDir(), "state")}, vault.KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	a := &appliance{Appliance: NewAppliance("test"), operator: newKey(t, credential.P256)}
	_, j, err := delegation.Genesis(t.Context(), v, journal.Config{Signer: p, CheckpointKey: keys.Checkpoint},
		[]delegation.NewCredential{proved(t, a.operator, credential.ForOperator)}, 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if a.parts.Delegation, err = delegation.Open(t.Context(), delegation.Config{Vault: v, Journal: j}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.parts.Delegation.Close)
	if a.parts.Delivery, err = delivery.Open(t.Context(), delivery.Config{Vault: v, Journal: j, Device: p, DeviceID: p.ID()}); err != nil {
		t.Fatal(err)
	}
	if a.parts.Stamping, err = stamping.Open(t.Context(), stamping.Config{Vault: v, Journal: j, Delegations: a.parts.Delegation}); err != nil {
		t.Fatal(err)
	}
	a.parts.Delegation.VendorCredentials(a.parts.Stamping)
	if a.parts.Outbox, err = outbox.Open(t.Context(), outbox.Config{Vault: v, Journal: j}); err != nil {
		t.Fatal(err)
	}
	a.parts.Journal = j
	a.parts.Status = func() *sigilv1.GetStatusResponse { return &sigilv1.GetStatusResponse{} }
	dir := socketDir(t)
	app, admin := filepath.Join(dir, "app.sock"), filepath.Join(dir, "admin.sock")
	a.vault, a.path, a.admin = v, app, admin
	s, err := New(Config{App: Endpoint{Path: app, Mode: 0o600}, Admin: Endpoint{Path: admin, Mode: 0o600}, Roles: Roles{App: me(), Operator: me()}}, a, a.Services())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	a.app = dial(t, app)
	return a
}

func proved(t *testing.T, k *credential.PrivateKey, purpose credential.Purpose) delegation.NewCredential {
	t.Helper()
	proof, err := credential.NewProof(k, purpose, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	return delegation.NewCredential{Name: "somebody", PublicKey: k.Public(), Proof: proof}
}

// organization makes one with one root member.
func (a *appliance) organization(t *testing.T, name string) (id string, root *credential.PrivateKey) {
	t.Helper()
	root = newKey(t, credential.Ed25519)
	made, err := a.parts.Delegation.CreateOrganization(t.Context(), delegation.Actor{Credentials: []credential.PublicKey{a.operator.Public()}}, delegation.NewOrganization{
		RequestID: name, Name: name, Root: []delegation.NewCredential{proved(t, root, credential.ForOrganizationRoot)}, Quorum: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.OrganizationID, root
}

// createdEvent is a vendor's body; its secrets are encrypted to the PEM.
func createdEvent(t *testing.T, publicPEM, environment string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(publicPEM))
	if block == nil {
		t.Fatalf("no PEM: %q", publicPEM)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	envelope := func(plain string) string {
		key, iv := make([]byte, 32), make([]byte, 16)
		rand.Read(key)
		ek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), key, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCMWithNonceSize(c, len(iv))
		if err != nil {
			t.Fatal(err)
		}
		out, text := gcm.Seal(nil, iv, []byte(plain), nil), base64.RawURLEncoding.EncodeToString
		return fmt.Sprintf(`{"alg":"HYBRID-RSA-AES-256","iv":%q,"ct":%q,"tag":%q,"ek":%q}`, text(iv), text(out[:len(plain)]), text(out[len(plain):]), text(ek))
	}
	return fmt.Appendf(nil, `{"messageId":"m1","eventId":"e1","eventName":"wallet.delegation.created","timestamp":"2026-03-01T12:00:00.000Z","environmentId":%q,`+
		`"data":{"chain":"SVM","walletId":"w1","shareSetId":"s1","encryptedDelegatedShare":%s,"encryptedWalletApiKey":%s}}`, environment, envelope(`{"secretShare":"x"}`), envelope("key"))
}

func signature(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func TestDeliveriesOverTheSocket(t *testing.T) {
	a := newAppliance(t)
	secret := []byte("whsec_0123456789abcdef")
	_, err := a.app.Deliveries().IngestDelivery(t.Context(), &sigilv1.IngestDeliveryRequest{})
	wantReason(t, "a delivery while sealed", err, "SEALED")
	a.Unsealed(a.parts)
	org, root := a.organization(t, "acme")
	otherOrg, otherRoot := a.organization(t, "other")
	asRoot, asOther := a.app.WithStamps(org, root), a.app.WithStamps(otherOrg, otherRoot)

	register := &sigilv1.RegisterWebhookRequest{
		RequestId: "r1", OrganizationId: org, EnvironmentId: "env-1", Secrets: [][]byte{secret},
		Key: &sigilv1.RegisterWebhookRequest_NewKeyBits{NewKeyBits: 2048},
	}
	_, err = a.app.Deliveries().RegisterWebhook(t.Context(), register)
	wantReason(t, "registering without stamps", err, "STAMP_INVALID")
	_, err = asOther.Deliveries().RegisterWebhook(t.Context(), register)
	wantReason(t, "registering for another organization", err, "STAMP_INVALID")
	for what, change := range map[string]func(*sigilv1.RegisterWebhookRequest){
		"no bits": func(r *sigilv1.RegisterWebhookRequest) { r.Key = &sigilv1.RegisterWebhookRequest_NewKeyBits{} },
		"1024 bits": func(r *sigilv1.RegisterWebhookRequest) {
			r.Key = &sigilv1.RegisterWebhookRequest_NewKeyBits{NewKeyBits: 1024}
		},
		"no ref":    func(r *sigilv1.RegisterWebhookRequest) { r.Key = &sigilv1.RegisterWebhookRequest_KeyRef{} },
		"no secret": func(r *sigilv1.RegisterWebhookRequest) { r.Secrets = nil },
	} {
		bad := &sigilv1.RegisterWebhookRequest{RequestId: "r1", OrganizationId: org, EnvironmentId: "env-1", Secrets: [][]byte{secret}}
		change(bad)
		_, err = asRoot.Deliveries().RegisterWebhook(t.Context(), bad)
		wantReason(t, what, err, "REQUEST_INVALID")
	}
	hook, err := asRoot.Deliveries().RegisterWebhook(t.Context(), register)
	if err != nil {
		t.Fatal(err)
	}
	if k := hook.GetKeys(); len(k) != 1 || k[0].GetBits() != 2048 || k[0].GetOrigin() != sigilv1.DecryptionKeyOrigin_DECRYPTION_KEY_ORIGIN_DEVICE || k[0].GetKeyRef() == "" {
		t.Errorf("registered with keys %v", k)
	}

	body := createdEvent(t, hook.GetKeys()[0].GetPublicKeyPem(), "env-1")
	in := &sigilv1.IngestDeliveryRequest{WebhookId: hook.GetWebhookId(), Body: body, Signature: signature(secret, body)}
	for _, want := range []sigilv1.DeliveryOutcome{sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_DUPLICATE} {
		// With signers or without: what hands a delivery over carries no stamp.
		got, err := asRoot.Deliveries().IngestDelivery(t.Context(), in)
		if err != nil || got.GetOutcome() != want {
			t.Errorf("got %s, %v; want %s", got.GetOutcome(), err, want)
		}
	}
	for what, change := range map[string]func(*sigilv1.IngestDeliveryRequest){
		"another MAC":       func(r *sigilv1.IngestDeliveryRequest) { r.Signature = signature([]byte("other"), body) },
		"no MAC":            func(r *sigilv1.IngestDeliveryRequest) { r.Signature = "" },
		"an unknown hook":   func(r *sigilv1.IngestDeliveryRequest) { r.WebhookId = "whk_x" },
		"another body":      func(r *sigilv1.IngestDeliveryRequest) { r.Body = body[1:] },
		"nothing in it all": func(r *sigilv1.IngestDeliveryRequest) { r.Body, r.Signature, r.WebhookId = nil, "", "" },
	} {
		bad := &sigilv1.IngestDeliveryRequest{WebhookId: in.GetWebhookId(), Body: in.GetBody(), Signature: in.GetSignature()}
		change(bad)
		_, err = a.app.Deliveries().IngestDelivery(t.Context(), bad)
		wantReason(t, what, err, "DELIVERY_INVALID")
	}
	big := []byte(strings.Repeat(" ", 70<<10))
	_, err = a.app.Deliveries().IngestDelivery(t.Context(), &sigilv1.IngestDeliveryRequest{WebhookId: in.GetWebhookId(), Body: big, Signature: signature(secret, big)})
	wantReason(t, "a body above the limit", err, "REQUEST_INVALID")

	revoked := []byte(`{"eventName":"wallet.delegation.revoked","eventId":"e2","timestamp":"2026-03-01T12:00:00.000Z","data":{"walletId":"w1"}}`)
	out, err := a.app.Deliveries().IngestDelivery(t.Context(), &sigilv1.IngestDeliveryRequest{WebhookId: in.GetWebhookId(), Body: revoked, Signature: signature(secret, revoked)})
	if err != nil || out.GetOutcome() != sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED {
		t.Errorf("revoked: %s, %v", out.GetOutcome(), err)
	}
	if out, err = a.app.Deliveries().IngestDelivery(t.Context(), in); err != nil || out.GetOutcome() != sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_TOMBSTONED {
		t.Errorf("replayed: %s, %v", out.GetOutcome(), err)
	}
	ping := []byte(`{"eventName":"ping"}`)
	out, err = a.app.Deliveries().IngestDelivery(t.Context(), &sigilv1.IngestDeliveryRequest{WebhookId: in.GetWebhookId(), Body: ping, Signature: signature(secret, ping)})
	if err != nil || out.GetOutcome() != sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_IGNORED {
		t.Errorf("ping: %s, %v", out.GetOutcome(), err)
	}

	list, err := asRoot.Deliveries().ListDeliveries(t.Context(), &sigilv1.ListDeliveriesRequest{OrganizationId: org})
	if err != nil || len(list.GetDeliveries()) != 1 {
		t.Fatalf("listed %v, %v", list, err)
	}
	d := list.GetDeliveries()[0]
	when := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if d.GetStatus() != sigilv1.DeliveryStatus_DELIVERY_STATUS_REVOKED || d.GetVendorWalletId() != "w1" || d.GetVendorShareSetId() != "s1" || d.VendorUserId != nil ||
		d.Address != nil || d.GetChain() != "SVM" || !d.GetDelegatedAt().AsTime().Equal(when) || !d.GetRevokedAt().AsTime().Equal(when) || d.GetWebhookId() != hook.GetWebhookId() {
		t.Errorf("listed %v", d)
	}
	after := d.GetDeliveryId()
	if list, err = asRoot.Deliveries().ListDeliveries(t.Context(), &sigilv1.ListDeliveriesRequest{OrganizationId: org, After: &after}); err != nil || len(list.GetDeliveries()) != 0 {
		t.Errorf("behind the last: %v, %v", list, err)
	}
	if list, err = asOther.Deliveries().ListDeliveries(t.Context(), &sigilv1.ListDeliveriesRequest{OrganizationId: otherOrg}); err != nil || len(list.GetDeliveries()) != 0 {
		t.Errorf("another organization sees %v, %v", list, err)
	}
	_, err = asOther.Deliveries().ListDeliveries(t.Context(), &sigilv1.ListDeliveriesRequest{OrganizationId: org})
	wantReason(t, "looking at another organization", err, "STAMP_INVALID")
}
