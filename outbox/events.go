package outbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// The events, in the form of Dynamic's webhooks (docs/formats.md, Deliveries), so
// that what receives those receives ours.

const (
	eventCreated = "wallet.delegation.created"
	eventRevoked = "wallet.delegation.revoked"
	eventPing    = "ping"
)

// Delegated is a delegation as its events tell of it.
type Delegated struct {
	Organization, Endpoint string
	Delegation             string
	Wallet, Owner          string
	// Chain is "eip155" or a Solana cluster; Address the wallet's.
	Chain, Address string
}

// Ready refuses an endpoint to which nothing can be delivered now.
func (s *Service) Ready(org, id string) error {
	e, err := s.book.endpoint(org, id)
	if err != nil {
		return err
	}
	if e.active() == nil {
		return refusal.New(refusal.NotActive, "the endpoint has no active key")
	}
	return nil
}

// Created puts the event of a new delegation in the outbox, in the transaction that
// makes the delegation. Share and API key are lent, and encrypted here.
func (s *Service) Created(tx *vault.Tx, d Delegated, share, apiKey []byte) (event string, err error) {
	e, err := s.book.endpoint(d.Organization, d.Endpoint)
	if err != nil {
		return "", err
	}
	k := e.active()
	if k == nil {
		return "", refusal.New(refusal.NotActive, "the endpoint has no active key")
	}
	data := d.data()
	if data["encryptedDelegatedShare"], err = encrypt(k, share); err != nil {
		return "", err
	}
	if data["encryptedWalletApiKey"], err = encrypt(k, apiKey); err != nil {
		return "", err
	}
	return s.enqueue(tx, e, eventCreated, d.Delegation, d.Owner, data)
}

// Revoked puts the event of a delegation's end in the outbox, in the transaction that
// ends it, and takes away its created event if that still waits: what it would bring
// is worthless.
func (s *Service) Revoked(tx *vault.Tx, d Delegated) (event string, err error) {
	e, err := s.book.endpoint(d.Organization, d.Endpoint)
	if err != nil {
		return "", err
	}
	for _, o := range s.book.about(d.Delegation) {
		if o.Name == eventCreated {
			if err := s.drop(tx, o.ID); err != nil {
				return "", err
			}
		}
	}
	return s.enqueue(tx, e, eventRevoked, d.Delegation, d.Owner, d.data())
}

func (d Delegated) data() map[string]any {
	chain := "SVM"
	if d.Chain == "eip155" {
		chain = "EVM"
	}
	// publicKey holds the address, as in Dynamic's.
	return map[string]any{"walletId": d.Wallet, "chain": chain, "publicKey": d.Address, "userId": d.Owner, "shareSetId": d.Delegation}
}

// enqueue stores an event, due now.
func (s *Service) enqueue(tx *vault.Tx, e *endpoint, name, delegation, user string, data map[string]any) (string, error) {
	now := s.now().UTC()
	o := &outgoing{V: recordVersion, ID: newID("evt"), Endpoint: e.ID, Organization: e.Organization, Name: name, Delegation: delegation, CreatedAt: now, DueAt: now}
	body := map[string]any{
		"messageId": newID("msg"), "eventId": o.ID, "eventName": name, "timestamp": now.Format("2006-01-02T15:04:05.000Z"),
		"webhookId": e.ID, "environmentId": e.Environment, "environmentName": "live", "data": data,
	}
	if e.Sandbox {
		body["environmentName"] = "sandbox"
	}
	if user != "" {
		body["userId"] = user
	}
	var err error
	if o.Body, err = json.Marshal(body); err != nil {
		return "", fmt.Errorf("encoding an event: %w", err)
	}
	s.book.change(tx, func() { s.book.waiting[o.ID] = o.withoutBody() })
	return o.ID, tx.PutObject(vault.TypeOutgoing, o.ID, o)
}

func (s *Service) drop(tx *vault.Tx, id string) error {
	s.book.change(tx, func() {
		delete(s.book.waiting, id)
		delete(s.book.leases, id)
	})
	if err := tx.Delete(vault.TypeOutgoing, id); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	return nil
}

// about lists what waits about a delegation.
func (b *book) about(delegation string) (of []*outgoing) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, o := range b.waiting {
		if o.Delegation == delegation {
			of = append(of, o)
		}
	}
	return of
}

// encrypt makes the envelope HYBRID-RSA-AES-256: RSA-OAEP with SHA-256 of a fresh key of 32
// bytes, AES-256-GCM with a nonce of 16, base64url without padding.
func encrypt(k *key, plain []byte) (map[string]string, error) {
	public, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", k.ID, err)
	}
	to, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("reading key %s: it is no RSA key", k.ID)
	}
	content := make([]byte, 32)
	defer clear(content)
	iv := make([]byte, 16)
	if _, err := rand.Read(content); err != nil {
		return nil, err
	}
	if _, err := rand.Read(iv); err != nil {
		return nil, err
	}
	ek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, to, content, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypting to key %s: %w", k.ID, err)
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		return nil, err
	}
	sealed, text := gcm.Seal(nil, iv, plain, nil), base64.RawURLEncoding.EncodeToString
	n := len(plain)
	return map[string]string{"alg": "HYBRID-RSA-AES-256", "iv": text(iv), "ct": text(sealed[:n]), "tag": text(sealed[n:]), "ek": text(ek), "kid": k.ID}, nil
}

// retries are the waits after a try that failed: as documented for Dynamic's webhooks.
var retries = []time.Duration{15 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour}

// sandboxRetries is how many of them a sandbox gets.
const sandboxRetries = 2
