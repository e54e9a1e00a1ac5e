package delegation

import (
	"context"
	"fmt"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// NewCredential is a public key to register, with its proof of possession.
type NewCredential struct {
	Name      string
	PublicKey credential.PublicKey
	Proof     []byte
	// Party is what a WebAuthn credential was made for; nil for others.
	Party *credential.RelyingParty
	// ExpiresAt ends it; nil: until revoked. Only for users.
	ExpiresAt *time.Time
	// UnusedAlarm is after how long without use somebody should ask; 0: never. Only for users.
	UnusedAlarm time.Duration
}

const maxCredentials = 16

// register checks names, proofs and distinctness of credentials of purposes whose
// credentials neither expire nor belong to an authenticator.
func register(purpose credential.Purpose, list []NewCredential) ([]registered, error) {
	for _, c := range list {
		if c.ExpiresAt != nil || c.UnusedAlarm != 0 || c.Party != nil {
			return nil, refusal.New(refusal.RequestInvalid, "credential %q: only those of users expire, have alarms or are WebAuthn's", c.Name).With("field", "credentials")
		}
	}
	return registerAll(purpose, list)
}

// registerAll checks names, proofs and distinctness of credentials.
func registerAll(purpose credential.Purpose, list []NewCredential) ([]registered, error) {
	if len(list) == 0 || len(list) > maxCredentials {
		return nil, refusal.New(refusal.RequestInvalid, "1 to %d credentials are needed", maxCredentials).With("field", "credentials")
	}
	seen := map[string]bool{}
	out := make([]registered, 0, len(list))
	for _, c := range list {
		if err := checkName("credential name", c.Name); err != nil {
			return nil, err
		}
		if c.UnusedAlarm < 0 || c.UnusedAlarm > maxUnusedAlarm || c.UnusedAlarm%time.Second != 0 {
			return nil, refusal.New(refusal.RequestInvalid, "credential %q: an alarm is after whole seconds, at most %d", c.Name, maxUnusedAlarm/time.Second).With("field", "unused_alarm_seconds")
		}
		if (c.Party != nil) != (c.PublicKey.Algorithm == credential.WebAuthnP256) {
			return nil, refusal.New(refusal.RequestInvalid, "credential %q: a relying party is what WebAuthn's have, and no others", c.Name).With("field", "webauthn")
		}
		if err := credential.VerifyProofAs(c.PublicKey, c.Party, purpose, c.Name, c.Proof); err != nil {
			return nil, refusal.New(refusal.RequestInvalid, "credential %q has no valid proof of possession", c.Name).With("field", "proof").Because(err)
		}
		id := c.PublicKey.ID()
		if seen[id] {
			return nil, refusal.New(refusal.RequestInvalid, "credential %q is given twice", c.Name).With("field", "credentials")
		}
		seen[id] = true
		out = append(out, registered{
			ID: id, Name: c.Name, Algorithm: string(c.PublicKey.Algorithm), PublicKey: c.PublicKey.Bytes,
			Party: c.Party, ExpiresAt: inUTC(c.ExpiresAt), UnusedAlarm: uint32(c.UnusedAlarm / time.Second),
		})
	}
	return out, nil
}

// NewOrganization asks for an organization.
type NewOrganization struct {
	RequestID string
	Name      string
	Root      []NewCredential
	// Quorum is how many root members must stamp an act, 1 to len(Root).
	Quorum int
	// Bundle names the keys whose signed bundles alone set policies; nil: calls of
	// the API set them.
	Bundle *NewBundleAuthority
}

// NewBundleAuthority is who signs an organization's bundles.
type NewBundleAuthority struct {
	Keys []NewCredential
	// Quorum is how many of them must sign, 1 to len(Keys).
	Quorum int
}

// OrganizationCreated answers CreateOrganization.
type OrganizationCreated struct {
	OrganizationID string `json:"organization_id"`
}

// CreateOrganization makes an organization with its root credentials under the
// operators' quorum. Durable on return.
func (s *Service) CreateOrganization(ctx context.Context, a Actor, n NewOrganization) (OrganizationCreated, error) {
	if err := checkName("name", n.Name); err != nil {
		return OrganizationCreated{}, err
	}
	root, err := register(credential.ForOrganizationRoot, n.Root)
	if err != nil {
		return OrganizationCreated{}, err
	}
	if n.Quorum < 1 || n.Quorum > len(root) {
		return OrganizationCreated{}, refusal.New(refusal.RequestInvalid, "root_quorum must be 1 to %d", len(root)).With("field", "root_quorum")
	}
	authority, err := checkBundleAuthority(n.Bundle)
	if err != nil {
		return OrganizationCreated{}, err
	}
	return act(ctx, s, a, "", n.RequestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (OrganizationCreated, error) {
		o := &organization{
			V: recordVersion, ID: newID("org"), Name: n.Name, CreatedAt: s.now().UTC(),
			Root: root, Quorum: n.Quorum, PolicyAuthority: authorityAPI,
		}
		for i := range o.Root {
			o.Root[i].CreatedAt = &o.CreatedAt
		}
		if n.Bundle != nil {
			o.PolicyAuthority, o.BundleKeys, o.BundleQuorum = authorityBundle, authority, n.Bundle.Quorum
		}
		if err := store(tx, vault.TypeOrganization, o.ID, o); err != nil {
			return OrganizationCreated{}, err
		}
		s.book.change(tx, func() { s.book.organizations[o.ID] = o })
		e.Facts = map[string]string{"organization": o.ID, "name": o.Name, "root": fmt.Sprint(len(root)), "quorum": fmt.Sprint(n.Quorum), "policy_authority": o.PolicyAuthority}
		recordKeys(e, "root", o.Root)
		recordKeys(e, "bundle_key", o.BundleKeys)
		if n.Bundle != nil {
			e.Facts["bundle_quorum"] = fmt.Sprint(n.Bundle.Quorum)
		}
		return OrganizationCreated{OrganizationID: o.ID}, nil
	})
}

// recordKeys writes public keys into an entry's facts, numbered from 1, so that what
// they sign can be verified by whoever has the journal.
func recordKeys(e *journal.Entry, what string, keys []registered) {
	for i, k := range keys {
		e.Facts[fmt.Sprintf("%s.%d", what, i+1)] = fmt.Sprintf("%s %x %s", k.Algorithm, k.PublicKey, k.Name)
	}
}
