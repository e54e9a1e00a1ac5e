package outbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Bounds of endpoints.
const (
	maxEndpoints = 64 // of an organization
	maxKeys      = 8  // of an endpoint, revoked ones included
	maxURL       = 512
	minSecret    = 16 // bytes
	maxSecret    = 256
	minModulus   = 2048
	maxModulus   = 4096
)

// NewEndpoint registers where events go.
type NewEndpoint struct {
	RequestID    string
	Organization string
	// Name is for people, URL https, Environment what events call it (1 to 128 of [A-Za-z0-9._:-]).
	Name, URL, Environment string
	// Sandbox endpoints get two retries instead of five.
	Sandbox bool
	// Peer is the configured peer that signs with what is delivered, which the caller has
	// looked up; "" for none.
	Peer string
	// Secret signs what is posted, 16 to 256 bytes; the caller keeps and wipes it.
	Secret []byte
	// PublicKeyPEM is the receiver's RSA key, PUBLIC KEY of 2048 to 4096 bits.
	PublicKeyPEM string
}

// EndpointRegistered answers RegisterEndpoint.
type EndpointRegistered struct {
	EndpointID string `json:"endpoint_id"`
	KeyID      string `json:"key_id"`
}

// RegisterEndpoint registers an endpoint under the root quorum. Its key is pending
// and it gets nothing but pings until that is active. Durable on return.
func (s *Service) RegisterEndpoint(ctx context.Context, a Actor, n NewEndpoint) (EndpointRegistered, error) {
	if err := n.check(); err != nil {
		return EndpointRegistered{}, err
	}
	public, err := parsePublic(n.PublicKeyPEM)
	if err != nil {
		return EndpointRegistered{}, err
	}
	return journal.Act(ctx, s.cfg.Journal, a.Entry(n.Organization, n.RequestID), func() error { return a.Root(n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (EndpointRegistered, error) {
		if s.book.count(n.Organization) >= maxEndpoints {
			return EndpointRegistered{}, refusal.New(refusal.RequestInvalid, "the organization has %d endpoints, no more are taken", maxEndpoints)
		}
		now := s.now().UTC()
		ep := &endpoint{
			V: recordVersion, ID: newID("edp"), Organization: n.Organization, Name: n.Name, URL: n.URL, Environment: n.Environment, Sandbox: n.Sandbox, Peer: n.Peer, CreatedAt: now,
			Secret: newID("eps"), Keys: []key{{ID: newID("epk"), Status: KeyPending, Public: public, CreatedAt: now}},
		}
		if err := tx.Put(vault.TypeEndpointSecret, ep.Secret, n.Secret); err != nil {
			return EndpointRegistered{}, err
		}
		e.Facts = map[string]string{"endpoint": ep.ID, "url": ep.URL, "environment": ep.Environment, "key": ep.Keys[0].ID}
		if ep.Peer != "" {
			e.Facts["peer"] = ep.Peer
		}
		return EndpointRegistered{EndpointID: ep.ID, KeyID: ep.Keys[0].ID}, s.put(tx, ep)
	})
}

// NewKey adds a key to an endpoint, pending.
type NewKey struct {
	RequestID, Organization, Endpoint, PublicKeyPEM string
}

// KeyAdded answers AddKey.
type KeyAdded struct {
	KeyID string `json:"key_id"`
}

// AddKey adds a key under the root quorum. Durable on return.
func (s *Service) AddKey(ctx context.Context, a Actor, n NewKey) (KeyAdded, error) {
	public, err := parsePublic(n.PublicKeyPEM)
	if err != nil {
		return KeyAdded{}, err
	}
	return journal.Act(ctx, s.cfg.Journal, a.Entry(n.Organization, n.RequestID), func() error { return a.Root(n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (KeyAdded, error) {
		ep, err := s.book.endpoint(n.Organization, n.Endpoint)
		if err != nil {
			return KeyAdded{}, err
		}
		if len(ep.Keys) >= maxKeys {
			return KeyAdded{}, refusal.New(refusal.RequestInvalid, "the endpoint had %d keys, no more are taken; register another endpoint", maxKeys)
		}
		if slices.ContainsFunc(ep.Keys, func(k key) bool { return bytes.Equal(k.Public, public) }) {
			return KeyAdded{}, refusal.New(refusal.RequestInvalid, "the endpoint has, or had, this key").With("field", "public_key_pem")
		}
		changed := *ep
		k := key{ID: newID("epk"), Status: KeyPending, Public: public, CreatedAt: s.now().UTC()}
		changed.Keys = append(slices.Clone(ep.Keys), k)
		e.Facts = map[string]string{"endpoint": ep.ID, "key": k.ID}
		return KeyAdded{KeyID: k.ID}, s.put(tx, &changed)
	})
}

// KeyChange moves a key on: pending to active, anything to revoked.
type KeyChange struct {
	RequestID, Organization, Endpoint, Key string
	Status                                 KeyStatus
}

// KeyChanged answers ChangeKey.
type KeyChanged struct{}

// ChangeKey activates or revokes a key under the root quorum. Activating needs an
// endpoint that a ping has reached. Durable on return.
func (s *Service) ChangeKey(ctx context.Context, a Actor, n KeyChange) error {
	if n.Status != KeyActive && n.Status != KeyRevoked {
		return refusal.New(refusal.RequestInvalid, "a key becomes active or revoked").With("field", "status")
	}
	_, err := journal.Act(ctx, s.cfg.Journal, a.Entry(n.Organization, n.RequestID), func() error { return a.Root(n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (KeyChanged, error) {
		ep, err := s.book.endpoint(n.Organization, n.Endpoint)
		if err != nil {
			return KeyChanged{}, err
		}
		i := slices.IndexFunc(ep.Keys, func(k key) bool { return k.ID == n.Key })
		if i < 0 {
			return KeyChanged{}, refusal.New(refusal.NotFound, "no such key of the endpoint")
		}
		changed := *ep
		changed.Keys = slices.Clone(ep.Keys)
		k := &changed.Keys[i]
		switch {
		case k.Status == KeyRevoked:
			return KeyChanged{}, refusal.New(refusal.NotActive, "the key was revoked; add another one")
		case n.Status == KeyActive && ep.ReachedAt == nil:
			return KeyChanged{}, refusal.New(refusal.NotActive, "no ping has reached the endpoint yet")
		case n.Status == KeyRevoked:
			now := s.now().UTC()
			k.RevokedAt = &now
		}
		k.Status = n.Status
		e.Facts = map[string]string{"endpoint": ep.ID, "key": k.ID, "status": string(n.Status)}
		return KeyChanged{}, s.put(tx, &changed)
	})
	return err
}

// Key is a receiver's key as a member may see it.
type Key struct {
	ID           string
	Status       KeyStatus
	PublicKeyPEM string
}

// Endpoint is an endpoint as a member may see it.
type Endpoint struct {
	ID, Name, URL, Environment string
	// Peer signs with what is delivered; "" for none.
	Peer      string
	Sandbox   bool
	ReachedAt *time.Time
	Keys      []Key
	// Waiting and Failed count its events.
	Waiting, Failed int
}

// Endpoints lists an organization's endpoints by id.
func (s *Service) Endpoints(a Actor, org string) ([]Endpoint, error) {
	if err := a.Member(org); err != nil {
		return nil, err
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	var out []Endpoint
	for _, e := range s.book.endpoints {
		if e.Organization != org {
			continue
		}
		shown := Endpoint{ID: e.ID, Name: e.Name, URL: e.URL, Environment: e.Environment, Peer: e.Peer, Sandbox: e.Sandbox, ReachedAt: e.ReachedAt}
		for _, k := range e.Keys {
			text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.Public})
			shown.Keys = append(shown.Keys, Key{k.ID, k.Status, string(text)})
		}
		for _, o := range s.book.waiting {
			if o.Endpoint == e.ID && o.Failed {
				shown.Failed++
			} else if o.Endpoint == e.ID {
				shown.Waiting++
			}
		}
		out = append(out, shown)
	}
	slices.SortFunc(out, func(x, y Endpoint) int { return cmp.Compare(x.ID, y.ID) })
	return out, nil
}

func (s *Service) put(tx *vault.Tx, e *endpoint) error {
	s.book.change(tx, func() { s.book.endpoints[e.ID] = e })
	return tx.PutObject(vault.TypeEndpoint, e.ID, e)
}

// endpoint finds one; that of another organization isn't there.
func (b *book) endpoint(org, id string) (*endpoint, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.endpoints[id]; e != nil && e.Organization == org {
		return e, nil
	}
	return nil, refusal.New(refusal.NotFound, "no such endpoint")
}

// PeerAt is the peer that signs with what is delivered to an endpoint; "" for none.
func (s *Service) PeerAt(org, id string) string {
	e, err := s.book.endpoint(org, id)
	if err != nil {
		return ""
	}
	return e.Peer
}

func (b *book) count(org string) (n int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, e := range b.endpoints {
		if e.Organization == org {
			n++
		}
	}
	return n
}

func (n NewEndpoint) check() error {
	u, err := url.Parse(n.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(n.URL) > maxURL {
		return refusal.New(refusal.RequestInvalid, "url must be https, without a user, of at most %d characters", maxURL).With("field", "url")
	}
	if len(n.Secret) < minSecret || len(n.Secret) > maxSecret {
		return refusal.New(refusal.RequestInvalid, "the secret must have %d to %d bytes", minSecret, maxSecret).With("field", "secret")
	}
	for field, text := range map[string]string{"name": n.Name, "environment_id": n.Environment} {
		if len(text) < 1 || len(text) > 128 {
			return refusal.New(refusal.RequestInvalid, "%s must have 1 to 128 characters", field).With("field", field)
		}
		for _, c := range []byte(text) {
			plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == ':' || c == '-'
			if !plain && (field != "name" || c < ' ' || c > '~') {
				return refusal.New(refusal.RequestInvalid, "%s has a character that it can't have: byte %s", field, strconv.Quote(string(rune(c)))).With("field", field)
			}
		}
	}
	return nil
}

// parsePublic reads a receiver's key.
func parsePublic(text string) ([]byte, error) {
	bad := func(why string) error {
		return refusal.New(refusal.RequestInvalid, "public_key_pem: %s", why).With("field", "public_key_pem")
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, bad("want one PEM block of type PUBLIC KEY")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	k, ok := public.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, bad("it is no RSA key")
	}
	if n := k.N.BitLen(); n < minModulus || n > maxModulus || k.E < 3 {
		return nil, bad("it must have 2048 to 4096 bits")
	}
	return block.Bytes, nil
}
