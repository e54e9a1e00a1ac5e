package main

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
	"errors"
	"fmt"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// vendor is a wallet service whose user delegated a wallet to us: it encrypts a
// key share and an API key to our public key and delivers them by webhook. It
// shares no code with the daemon.
type vendor struct {
	webhook     string
	environment string
	secret      []byte
	public      *rsa.PublicKey
}

// deliver is step 6: what a vendor's webhook brings, again, taken back, replayed.
func (s *scene) deliver(ctx context.Context) error {
	step(6, "Deliveries: a vendor's key share and API key come by webhook, encrypted to a key in the device")
	v := vendor{environment: "53728749-1f19-4cab-becf-b88f952c3a3c", secret: []byte("whsec_" + hex.EncodeToString(random(16)))}
	request := &sigilv1.RegisterWebhookRequest{
		RequestId: "register-webhook", OrganizationId: s.organization, EnvironmentId: v.environment, Secrets: [][]byte{v.secret},
	}
	_, err := s.asUser().Deliveries().RegisterWebhook(ctx, request)
	if err := expectRefusal("a webhook with a user's stamp", "QUORUM_MISSING", err); err != nil {
		return err
	}
	began := time.Now()
	made, err := s.asRoot().Deliveries().RegisterWebhook(ctx, request)
	if err != nil {
		return err
	}
	if v.webhook, v.public, err = endpointOf(made); err != nil {
		return err
	}
	say("webhook %s: RSA key of %d bits, made in the device in %.1f s", v.webhook, v.public.N.BitLen(), time.Since(began).Seconds())
	say("the vendor gets its public half and encrypts with code of its own")

	created, err := v.created()
	if err != nil {
		return err
	}
	revoked, err := json.Marshal(map[string]any{
		"eventName": "wallet.delegation.revoked", "eventId": "8c1d2f6e", "timestamp": "2026-03-01T12:05:00.000Z",
		"userId": "7eb7843b", "data": map[string]any{"walletId": "25193936", "chain": "EVM"},
	})
	if err != nil {
		return err
	}
	for _, d := range []struct {
		what string
		body []byte
		want sigilv1.DeliveryOutcome
	}{
		{"wallet.delegation.created", created, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED},
		{"the same again", created, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_DUPLICATE},
		{"wallet.delegation.revoked", revoked, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED},
		{"the first one replayed", created, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_TOMBSTONED},
	} {
		answer, err := s.ingest(ctx, v, d.body, v.sign(d.body))
		if err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
		if err := check(answer == d.want, "%s came to %s, want %s", d.what, answer, d.want); err != nil {
			return err
		}
		status, err := s.delivered(ctx)
		if err != nil {
			return err
		}
		say("taken    %-34s %s; share and API key: %s", d.what, answer.String()[len("DELIVERY_OUTCOME_"):], status)
	}
	tampered := bytes.Replace(created, []byte(`"25193936"`), []byte(`"25193937"`), 1)
	_, err = s.ingest(ctx, v, tampered, v.sign(created))
	return expectRefusal("another wallet under the old MAC", "DELIVERY_INVALID", err)
}

// ingest hands a delivery over as the process that receives webhooks would.
func (s *scene) ingest(ctx context.Context, v vendor, body []byte, signature string) (sigilv1.DeliveryOutcome, error) {
	answer, err := s.app.Deliveries().IngestDelivery(ctx, &sigilv1.IngestDeliveryRequest{WebhookId: v.webhook, Body: body, Signature: signature})
	return answer.GetOutcome(), err
}

// delivered says where the one delivery stands.
func (s *scene) delivered(ctx context.Context) (string, error) {
	list, err := s.asRoot().Deliveries().ListDeliveries(ctx, &sigilv1.ListDeliveriesRequest{OrganizationId: s.organization})
	if err != nil {
		return "", err
	}
	if n := len(list.GetDeliveries()); n != 1 {
		return "", fmt.Errorf("%d deliveries are listed, want 1", n)
	}
	switch list.GetDeliveries()[0].GetStatus() {
	case sigilv1.DeliveryStatus_DELIVERY_STATUS_PENDING:
		return "sealed", nil
	case sigilv1.DeliveryStatus_DELIVERY_STATUS_REVOKED:
		return "destroyed", nil
	}
	return "", errors.New("the delivery has no status")
}

func endpointOf(made *sigilv1.RegisterWebhookResponse) (id string, public *rsa.PublicKey, err error) {
	if len(made.GetKeys()) != 1 || made.GetKeys()[0].GetOrigin() != sigilv1.DecryptionKeyOrigin_DECRYPTION_KEY_ORIGIN_DEVICE {
		return "", nil, errors.New("the webhook has not one key of the device")
	}
	block, _ := pem.Decode([]byte(made.GetKeys()[0].GetPublicKeyPem()))
	if block == nil {
		return "", nil, errors.New("the public key is no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", nil, err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return "", nil, errors.New("the public key is no RSA key")
	}
	return made.GetWebhookId(), public, nil
}

// created is the vendor's event, with fresh secrets.
func (v vendor) created() ([]byte, error) {
	share, err := v.encrypt(fmt.Appendf(nil, `{"pubkey":{},"secretShare":"%x"}`, random(208)))
	if err != nil {
		return nil, err
	}
	apiKey, err := v.encrypt(fmt.Appendf(nil, "dyn_%x", random(16)))
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"messageId": "f44da9f0", "eventId": "2cf779a8", "eventName": "wallet.delegation.created", "timestamp": "2026-03-01T12:00:00.000Z",
		"webhookId": "9a31fefc", "environmentId": v.environment, "environmentName": "sandbox", "userId": "7eb7843b",
		"data": map[string]any{
			"chain": "EVM", "walletId": "25193936", "userId": "7eb7843b", "publicKey": "0xd74ff800a3c6f66ecd217118aaa6fb1c916fa4e2",
			"encryptedDelegatedShare": share, "encryptedWalletApiKey": apiKey,
		},
	})
}

// encrypt is HYBRID-RSA-AES-256: RSA-OAEP with SHA-256 around an AES-256-GCM key,
// a nonce of 16 bytes.
func (v vendor) encrypt(plain []byte) (map[string]string, error) {
	key, iv := random(32), random(16)
	ek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, v.public, key, nil)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		return nil, err
	}
	sealed := gcm.Seal(nil, iv, plain, nil)
	text := base64.RawURLEncoding.EncodeToString
	return map[string]string{
		"alg": "HYBRID-RSA-AES-256", "iv": text(iv), "ct": text(sealed[:len(plain)]), "tag": text(sealed[len(plain):]), "ek": text(ek),
	}, nil
}

// sign is the value of x-dynamic-signature-256.
func (v vendor) sign(body []byte) string {
	mac := hmac.New(sha256.New, v.secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
