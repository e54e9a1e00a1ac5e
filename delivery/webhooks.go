package delivery

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Bounds of a registration.
const (
	maxWebhooks = 64 // of an organization
	maxSecrets  = 4  // live at a time
	minSecret   = 16 // bytes
	maxSecret   = 256
	maxKeys     = 4 // live at a time
	defaultBits = 3072
	leastBits   = 2048
)

// NewWebhook registers where an environment's deliveries come from. An environment
// that the organization registered before keeps its webhook id, gets these secrets
// instead of the earlier ones, and keeps its keys beside a new one.
type NewWebhook struct {
	secret
	RequestID    string
	Organization string
	// Environment is the vendor's id, 1 to 128 characters of [A-Za-z0-9._:-].
	Environment string
	// Secrets are the vendor's webhook secrets that are live, 1 to 4 of 16 to 256
	// bytes. The caller keeps and wipes them.
	Secrets [][]byte
	// Bits asks for a new key of that size (2048, 3072, 4096); KeyRef names one that
	// was imported into the device. Without both, a first registration makes one of
	// 3072 bits and a later one none.
	Bits   int
	KeyRef seal.KeyRef
}

// WebhookKey is the public side of a decryption key.
type WebhookKey struct {
	Ref          seal.KeyRef `json:"key_ref"`
	PublicKeyPEM string      `json:"public_key_pem"` // PUBLIC KEY, what the vendor wants uploaded
	Bits         int         `json:"bits"`
	Imported     bool        `json:"imported"`
}

// WebhookRegistered answers RegisterWebhook.
type WebhookRegistered struct {
	WebhookID string       `json:"webhook_id"`
	Keys      []WebhookKey `json:"keys"` // live ones, the newest first
}

// RegisterWebhook registers a webhook under the root quorum. Durable on return.
func (s *Service) RegisterWebhook(ctx context.Context, a Actor, n NewWebhook) (WebhookRegistered, error) {
	if err := n.check(); err != nil {
		return WebhookRegistered{}, err
	}
	authorize := func() error { return a.Root(n.Organization) }
	s.registering.Lock()
	defer s.registering.Unlock()
	// A key is made before the transaction, which must not wait for a device; so who
	// may ask for one is decided before that, too.
	if err := authorize(); err != nil {
		return WebhookRegistered{}, err
	}
	var key *decryptionKey
	old, count := s.book.registered(n.Organization, n.Environment)
	_, asked, err := s.cfg.Journal.Request(n.Organization, n.RequestID)
	if err != nil {
		return WebhookRegistered{}, err
	}
	if !asked {
		if old == nil && count >= maxWebhooks {
			return WebhookRegistered{}, refusal.New(refusal.RequestInvalid, "the organization has %d webhooks, no more are taken", count).With("field", "environment_id")
		}
		if key, err = s.keyFor(ctx, n, old); err != nil {
			return WebhookRegistered{}, err
		}
	}
	out, err := journal.Act(ctx, s.cfg.Journal, a.Entry(n.Organization, n.RequestID), authorize, func(tx *vault.Tx, e *journal.Entry) (WebhookRegistered, error) {
		return s.register(tx, e, n, old, key)
	})
	if err != nil && key != nil && n.KeyRef == "" {
		s.log.WarnContext(ctx, "a decryption key was made and not registered; it can be given as key_ref", "key", key.Ref, "err", err)
	}
	return out, err
}

// makeKey makes a key of the size asked for; 0 asks for ours, or for the least
// where the device, as a TPM, makes no larger.
func (s *Service) makeKey(ctx context.Context, bits int) (seal.KeyRef, error) {
	if bits != 0 {
		return s.cfg.Device.GenerateRSA(ctx, bits)
	}
	ref, err := s.cfg.Device.GenerateRSA(ctx, defaultBits)
	if errors.Is(err, seal.ErrUnsupported) {
		return s.cfg.Device.GenerateRSA(ctx, leastBits)
	}
	return ref, err
}

// keyFor returns the key that the registration adds, nil for none.
func (s *Service) keyFor(ctx context.Context, n NewWebhook, old *webhook) (*decryptionKey, error) {
	ref, bits := n.KeyRef, n.Bits
	switch {
	case ref != "" && s.book.foreign(n.Organization, ref):
		return nil, noSuchKey()
	case ref == "" && bits == 0 && old != nil:
		return nil, nil
	case ref == "":
		var err error
		if ref, err = s.makeKey(ctx, bits); err != nil {
			return nil, err
		}
	}
	public, err := s.cfg.Device.PublicRSA(ctx, ref)
	if errors.Is(err, seal.ErrNotFound) || errors.Is(err, seal.ErrPolicy) || errors.Is(err, seal.ErrAmbiguous) {
		return nil, noSuchKey().Because(err)
	}
	if err != nil {
		return nil, err
	}
	imported, err := s.cfg.Device.ImportedRSA(ctx, ref)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key %s: %w", ref, err)
	}
	return &decryptionKey{Provider: s.cfg.DeviceID, Ref: ref, Public: der, Imported: imported}, nil
}

// noSuchKey is told of a key that isn't there and of one of another organization.
func noSuchKey() *refusal.Error {
	return refusal.New(refusal.NotFound, "the device has no decryption key of this reference").With("field", "key_ref")
}

// register writes the new state of the webhook.
func (s *Service) register(tx *vault.Tx, e *journal.Entry, n NewWebhook, old *webhook, key *decryptionKey) (WebhookRegistered, error) {
	h := &webhook{V: recordVersion, ID: newID("whk"), Organization: n.Organization, Environment: n.Environment, CreatedAt: s.now().UTC()}
	if old != nil {
		h.ID, h.CreatedAt, h.Keys, h.Token = old.ID, old.CreatedAt, slices.Clone(old.Keys), old.Token
		for _, id := range old.Secrets {
			if err := tx.Delete(vault.TypeWebhookSecret, id); err != nil {
				return WebhookRegistered{}, err
			}
		}
	}
	if key != nil {
		h.Keys = slices.DeleteFunc(h.Keys, func(k decryptionKey) bool { return k.Provider == key.Provider && k.Ref == key.Ref })
		h.Keys = slices.Insert(h.Keys, 0, *key)
		h.Keys = h.Keys[:min(len(h.Keys), maxKeys)]
	}
	if err := s.unused(tx, h.ID, n.Secrets); err != nil {
		return WebhookRegistered{}, err
	}
	for _, secret := range n.Secrets {
		id := newID("whs")
		if err := tx.Put(vault.TypeWebhookSecret, id, secret); err != nil {
			return WebhookRegistered{}, err
		}
		h.Secrets = append(h.Secrets, id)
	}
	if err := tx.PutObject(vault.TypeWebhook, h.ID, h); err != nil {
		return WebhookRegistered{}, err
	}
	s.book.change(tx, func() { s.book.webhooks[h.ID] = h })
	e.Facts = map[string]string{"webhook": h.ID, "environment": h.Environment, "secrets": strconv.Itoa(len(h.Secrets))}
	out := WebhookRegistered{WebhookID: h.ID}
	for i, k := range h.Keys {
		shown, err := k.show()
		if err != nil {
			return WebhookRegistered{}, err
		}
		out.Keys = append(out.Keys, shown)
		e.Facts["key."+strconv.Itoa(i+1)] = k.origin() + " " + string(k.Ref)
	}
	return out, nil
}

// unused refuses secrets that another webhook has: what a secret authenticates is of
// one environment and one organization.
func (s *Service) unused(tx *vault.Tx, hook string, secrets [][]byte) error {
	for _, id := range s.book.secretsBut(hook) {
		err := tx.With(vault.TypeWebhookSecret, id, func(have []byte) error {
			for i, secret := range secrets {
				if subtle.ConstantTimeCompare(have, secret) == 1 {
					return refusal.New(refusal.RequestInvalid, "webhook secret %d is another webhook's", i+1).With("field", "secrets")
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// NewToken replaces the developer token of a webhook's environment, which the
// vendor's program signs with.
type NewToken struct {
	secret
	RequestID    string
	Organization string
	Webhook      string
	// Token has 1 to 1024 bytes; the caller keeps and wipes it. Empty takes it away.
	Token []byte
}

// maxToken is the longest developer token, in bytes.
const maxToken = 1024

// TokenSet answers SetToken.
type TokenSet struct{}

// SetToken replaces the token under the root quorum. Durable on return.
func (s *Service) SetToken(ctx context.Context, a Actor, n NewToken) error {
	if len(n.Token) > maxToken {
		return refusal.New(refusal.RequestInvalid, "a developer token has at most %d bytes", maxToken).With("field", "token")
	}
	_, err := journal.Act(ctx, s.cfg.Journal, a.Entry(n.Organization, n.RequestID), func() error { return a.Root(n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (TokenSet, error) {
		h := s.book.webhook(n.Webhook)
		if h == nil || h.Organization != n.Organization {
			return TokenSet{}, refusal.New(refusal.NotFound, "no such webhook")
		}
		changed := *h
		if h.Token != "" {
			if err := tx.Delete(vault.TypeWebhookSecret, h.Token); err != nil {
				return TokenSet{}, err
			}
			changed.Token = ""
		}
		if len(n.Token) > 0 {
			changed.Token = newID("wht")
			if err := tx.Put(vault.TypeWebhookSecret, changed.Token, n.Token); err != nil {
				return TokenSet{}, err
			}
		}
		if err := tx.PutObject(vault.TypeWebhook, h.ID, changed); err != nil {
			return TokenSet{}, err
		}
		s.book.change(tx, func() { s.book.webhooks[h.ID] = &changed })
		e.Facts = map[string]string{"webhook": h.ID, "token": strconv.FormatBool(len(n.Token) > 0)}
		return TokenSet{}, nil
	})
	return err
}

func (k decryptionKey) origin() string {
	if k.Imported {
		return "imported"
	}
	return "device"
}

func (k decryptionKey) show() (WebhookKey, error) {
	public, err := parsePublic(k.Public)
	if err != nil {
		return WebhookKey{}, fmt.Errorf("reading the public key %s: %w", k.Ref, err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.Public})
	return WebhookKey{Ref: k.Ref, PublicKeyPEM: string(text), Bits: public.N.BitLen(), Imported: k.Imported}, nil
}

func (n NewWebhook) check() error {
	if err := journal.CheckRequestID(n.RequestID); err != nil {
		return err
	}
	if err := checkVendorID("environment_id", n.Environment); err != nil {
		return err
	}
	if len(n.Secrets) < 1 || len(n.Secrets) > maxSecrets {
		return refusal.New(refusal.RequestInvalid, "1 to %d webhook secrets are needed", maxSecrets).With("field", "secrets")
	}
	for i, secret := range n.Secrets {
		if len(secret) < minSecret || len(secret) > maxSecret {
			return refusal.New(refusal.RequestInvalid, "webhook secret %d must have %d to %d bytes", i+1, minSecret, maxSecret).With("field", "secrets")
		}
		if slices.ContainsFunc(n.Secrets[:i], func(b []byte) bool { return bytes.Equal(b, secret) }) {
			return refusal.New(refusal.RequestInvalid, "webhook secret %d is given twice", i+1).With("field", "secrets")
		}
	}
	switch {
	case n.Bits != 0 && n.KeyRef != "":
		return refusal.New(refusal.RequestInvalid, "a new key and key_ref exclude each other").With("field", "key_ref")
	case n.Bits != 0 && n.Bits != 2048 && n.Bits != 3072 && n.Bits != 4096:
		return refusal.New(refusal.RequestInvalid, "new_key_bits must be 2048, 3072 or 4096").With("field", "new_key_bits")
	}
	return nil
}

// maxVendorID is the longest name of theirs that we take; their UUIDs have 36 characters.
const maxVendorID = 128

// goodVendorID reports whether a name of the vendor's is fit for ids and logs.
func goodVendorID(id string) bool {
	if len(id) == 0 || len(id) > maxVendorID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}

func checkVendorID(field, id string) error {
	if !goodVendorID(id) {
		return refusal.New(refusal.RequestInvalid, "%s must have 1 to %d characters of [A-Za-z0-9._:-]", field, maxVendorID).With("field", field)
	}
	return nil
}

// newID makes an identifier: a prefix that names the noun and 26 base32 characters.
func newID(prefix string) string { return prefix + "_" + strings.ToLower(rand.Text()) }
