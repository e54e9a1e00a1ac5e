package delegation

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// Activities are requests that wait for people (signing/consent.go says what for and
// when). This file keeps them; votes.go takes approvals and rejections.
//
// An activity is found by organization and request id: signing asks whether anybody
// approved that one request. That it was executed is not written here: the journal
// knows the request id, and there is nothing that could say otherwise.

// activity is a record of type vault.TypeActivity.
type activity struct {
	V            int    `json:"v"`
	ID           string `json:"id"`
	Organization string `json:"organization"`
	RequestID    string `json:"request_id"`
	Delegation   string `json:"delegation"`
	// Bytes are signing.Activity's, which people stamp.
	Bytes []byte `json:"bytes"`
	// Payload is what it is about, as it came.
	Payload []byte `json:"payload"`
	// Waiting are the policies whose consensus it needs.
	Waiting   []string `json:"waiting"`
	Approvals []vote   `json:"approvals,omitempty"`
	Rejection *vote    `json:"rejection,omitempty"`

	// shown is Bytes, read.
	shown *signing.Activity
}

// vote is one user's, by the credential it was stamped with. A root member's rejection
// has no user.
type vote struct {
	User      string    `json:"user,omitempty"`
	Algorithm string    `json:"algorithm"`
	PublicKey []byte    `json:"public_key"`
	At        time.Time `json:"at"`
	Reason    string    `json:"reason,omitempty"`
}

func (v vote) key() credential.PublicKey {
	return credential.PublicKey{Algorithm: credential.Algorithm(v.Algorithm), Bytes: v.PublicKey}
}

// Bounds of activities.
const (
	// maxPending of a delegation wait at a time.
	maxPending = 32
	// activityKept is how long one is kept, and its request id not used for another,
	// after it ended. The journal keeps it for ever.
	activityKept = 24 * time.Hour
)

type requestRef struct{ organization, request string }

func (a *activity) ref() requestRef { return requestRef{a.Organization, a.RequestID} }

// gone reports whether the record may be removed.
func (a *activity) gone(now time.Time) bool { return !now.Before(a.shown.ExpiresAt.Add(activityKept)) }

// fileActivities files those of all organizations.
func (b *book) fileActivities(all map[string]*activity) error {
	for id, a := range all {
		shown, err := signing.ParseActivity(a.Bytes)
		if err != nil {
			return fmt.Errorf("record %s: %w", id, err)
		}
		if a.ID != id || shown.ID != id || shown.Organization != a.Organization || shown.RequestID != a.RequestID || !b.hasAsked(a) || shown.Delegation != a.Delegation {
			return fmt.Errorf("record %s: it says it is %q, of delegation %q", id, a.ID, a.Delegation)
		}
		a.shown = shown
		b.activities[id], b.waiting[a.ref()] = a, a
	}
	return nil
}

// hasAsked reports whether an activity's delegation is there, or for a stamped request
// its organization.
func (b *book) hasAsked(a *activity) bool {
	if a.Delegation == "" {
		return b.organizations[a.Organization] != nil
	}
	return b.delegations[a.Delegation] != nil
}

// approver is how policies see a user.
func approver(u *user) policy.User { return policy.User{ID: u.ID, Alias: u.Name, Tags: u.Tags} }

// credentialTypes are Turnkey's words for what a stamp is made with.
var credentialTypes = map[credential.Algorithm]string{
	credential.P256: "CREDENTIAL_TYPE_API_KEY_P256", credential.Ed25519: "CREDENTIAL_TYPE_API_KEY_ED25519", credential.Secp256k1: "CREDENTIAL_TYPE_API_KEY_SECP256K1",
	credential.WebAuthnP256: "CREDENTIAL_TYPE_WEBAUTHN_AUTHENTICATOR",
}

func stampedWith(u *user, k credential.PublicKey) policy.Credential {
	shown := policy.Credential{ID: k.ID(), UserID: u.ID, Type: credentialTypes[k.Algorithm], PublicKey: fmt.Sprintf("%x", k.Bytes)}
	for _, r := range u.Credentials {
		if r.is(k) && r.Party != nil {
			shown.CredentialID = base64.RawURLEncoding.EncodeToString(r.Party.CredentialID)
		}
	}
	return shown
}

// holder finds the user of an organization whose live credential k is; nil for none.
func (s *Service) holder(org string, k credential.PublicKey) *user {
	u := s.book.holder(org, k.ID())
	if u == nil || u.Removed || matching(u.Credentials, Actor{Organization: org, Credentials: []credential.PublicKey{k}}, s.clock()) == 0 {
		return nil
	}
	return u
}

// Consent is the answer to signing: who approved the activity of a request id, of
// those whose credential still is theirs.
func (s *Service) Consent(org, requestID string) *signing.Consent {
	s.book.mu.RLock()
	a := s.book.waiting[requestRef{org, requestID}]
	s.book.mu.RUnlock()
	if a == nil {
		return nil
	}
	c := &signing.Consent{Activity: a.shown, Rejected: a.Rejection != nil}
	for _, v := range a.Approvals {
		k := v.key()
		if u := s.holder(org, k); u != nil && u.ID == v.User {
			c.Approvers, c.Credentials = append(c.Approvers, approver(u)), append(c.Credentials, stampedWith(u, k))
		}
	}
	return c
}

// OpenActivity makes a pending activity. Durable, with its entry, on return.
func (s *Service) OpenActivity(ctx context.Context, p signing.NewActivity) (*signing.Activity, error) {
	var made *activity
	err := s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		now := s.journal.At(tx).Now()
		if clock := s.now(); clock.After(now) {
			now = clock
		}
		now = now.UTC().Truncate(time.Millisecond)
		shown := p.Activity
		shown.ID, shown.ApplianceID, shown.CreatedAt, shown.ExpiresAt = newID("act"), s.ApplianceID(), now, now.Add(p.Life)
		if _, err := rand.Read(shown.Nonce[:]); err != nil {
			return fmt.Errorf("drawing a nonce: %w", err)
		}
		a := &activity{
			V: recordVersion, ID: shown.ID, Organization: shown.Organization, RequestID: shown.RequestID, Delegation: shown.Delegation,
			Bytes: shown.Encode(), Payload: p.Payload, Waiting: p.Waiting, shown: &shown,
		}
		if _, err := signing.ParseActivity(a.Bytes); err != nil {
			return refusal.New(refusal.PayloadNotUnderstood, "what the payload does takes %d bytes to say, and nobody would read that before approving it", len(shown.Summary))
		}
		old, pending := s.book.opened(shown.Organization, shown.Delegation, now)
		if pending >= maxPending {
			no := refusal.New(refusal.RateLimited, "%d requests of this delegation wait for approvals, and no more are taken", pending)
			no.After = time.Minute
			return no
		}
		if have := s.book.waitingFor(a.ref()); have != nil && !slices.Contains(old, have) {
			return refusal.New(refusal.RequestIDReused, "people were asked about something else under this request_id")
		}
		for _, o := range old {
			if err := tx.Delete(vault.TypeActivity, o.ID); err != nil {
				return fmt.Errorf("removing activity %s: %w", o.ID, err)
			}
		}
		if err := store(tx, vault.TypeActivity, a.ID, a); err != nil {
			return err
		}
		e := p.Entry
		e.Facts = map[string]string{signing.FactActivity: a.ID, signing.FactActivityBytes: base64.StdEncoding.EncodeToString(a.Bytes)}
		if _, err := s.journal.Append(tx, e); err != nil {
			return err
		}
		made = a
		s.book.change(tx, func() {
			for _, o := range old {
				delete(s.book.activities, o.ID)
				delete(s.book.waiting, o.ref())
			}
			s.book.activities[a.ID], s.book.waiting[a.ref()] = a, a
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made.shown, nil
}

func (b *book) waitingFor(r requestRef) *activity {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.waiting[r]
}

// opened finds the activities of all delegations that may be removed, and counts
// those of one that may still be approved; "" is an organization's stamped requests.
func (b *book) opened(org, delegation string, now time.Time) (gone []*activity, pending int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, a := range b.activities {
		switch {
		case a.gone(now):
			gone = append(gone, a)
		case a.Organization == org && a.Delegation == delegation && a.Rejection == nil && now.Before(a.shown.ExpiresAt):
			pending++
		}
	}
	return gone, pending
}
