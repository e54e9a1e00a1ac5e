package delegation

import (
	"context"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// NewUser asks for a user.
type NewUser struct {
	RequestID    string
	Organization string
	Name         string
	Kind         UserKind
	Credentials  []NewCredential
	// ShareRecipient is an age X25519 recipient, and RecipientSignature the first
	// credential's signature over it; both only for end users.
	ShareRecipient     string
	RecipientSignature []byte
	// Tags are what policies call several users by, at most 16.
	Tags []string
}

// UserCreated answers CreateUser.
type UserCreated struct {
	UserID string `json:"user_id"`
}

// CreateUser makes an end user or a delegated user under the root quorum. Durable on return.
func (s *Service) CreateUser(ctx context.Context, a Actor, n NewUser) (UserCreated, error) {
	u, err := checkUser(n)
	if err != nil {
		return UserCreated{}, err
	}
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (UserCreated, error) {
		if err := s.enlist(tx, u); err != nil {
			return UserCreated{}, err
		}
		e.User = u.ID
		e.Facts = map[string]string{"kind": string(u.Kind), "name": u.Name}
		recordKeys(e, "credential", u.Credentials)
		if len(u.Tags) > 0 {
			e.Facts["tags"] = strings.Join(u.Tags, " ")
		}
		return UserCreated{UserID: u.ID}, nil
	})
}

// enlist gives a new user its id and writes it. A credential is one user's only, and
// none of the root's may be a delegated user's.
func (s *Service) enlist(tx *vault.Tx, u *user) error {
	now := s.clock()
	u.ID, u.CreatedAt = newID("usr"), now
	for i := range u.Credentials {
		c := &u.Credentials[i]
		if c.ended(now) {
			return refusal.New(refusal.RequestInvalid, "credential %q would have ended already", c.Name).With("field", "expires_at")
		}
		if err := s.vacant(u.Organization, u.Kind, c.ID); err != nil {
			return err
		}
		c.CreatedAt = &now
	}
	if err := store(tx, vault.TypeUser, u.ID, u); err != nil {
		return err
	}
	s.book.change(tx, func() { s.book.setUserLocked(u) })
	return nil
}

// vacant refuses a credential that another user of the organization has, and for a
// delegated user one that the root has.
func (s *Service) vacant(org string, kind UserKind, id string) error {
	taken := refusal.New(refusal.RequestInvalid, "credential %s is registered with this organization already", id).With("field", "credentials")
	if s.book.holder(org, id) != nil {
		return taken
	}
	if o := find(s.book, s.book.organizations, org); kind == DelegatedUser && o != nil && slices.ContainsFunc(o.Root, func(r registered) bool { return r.ID == id }) {
		return taken
	}
	return nil
}

func checkUser(n NewUser) (*user, error) {
	if err := checkName("name", n.Name); err != nil {
		return nil, err
	}
	if err := checkTags(n.Tags); err != nil {
		return nil, err
	}
	u := &user{V: recordVersion, Organization: n.Organization, Name: n.Name, Kind: n.Kind, Tags: n.Tags}
	switch n.Kind {
	case DelegatedUser:
		if n.ShareRecipient != "" || len(n.RecipientSignature) > 0 {
			return nil, refusal.New(refusal.RequestInvalid, "a delegated user has no share recipient").With("field", "share_recipient")
		}
		if len(n.Credentials) == 0 { // it shows wallet API keys
			return u, nil
		}
		creds, err := registerAll(credential.ForDelegatedUser, n.Credentials)
		u.Credentials = creds
		return u, err
	case EndUser:
	default:
		return nil, refusal.New(refusal.RequestInvalid, "kind must be end user or delegated user").With("field", "kind")
	}
	creds, err := registerAll(credential.ForUser, n.Credentials)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(creds, func(r registered) bool { return r.ExpiresAt == nil }) {
		return nil, refusal.New(refusal.RequestInvalid, "an end user needs a credential that does not expire: nobody else could ever give them another").With("field", "expires_at")
	}
	u.Credentials = creds
	if err := checkRecipient("share_recipient", n.ShareRecipient); err != nil {
		return nil, err
	}
	if err := credential.VerifyRecipientAs(n.Credentials[0].PublicKey, n.Credentials[0].Party, n.ShareRecipient, n.RecipientSignature); err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "share_recipient is not signed by the first credential").With("field", "share_recipient_signature").Because(err)
	}
	u.ShareRecipient = n.ShareRecipient
	return u, nil
}

// checkTags holds tags to 16 of 1 to 64 letters, digits, _, - and .
func checkTags(tags []string) error {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	}
	for i, t := range tags {
		if t == "" || len(t) > 64 || strings.ContainsFunc(t, bad) || slices.Contains(tags[:i], t) || i == maxTags {
			return refusal.New(refusal.RequestInvalid, "a user has at most %d tags, each once, of 1 to 64 letters, digits, _, - and .", maxTags).With("field", "tags")
		}
	}
	return nil
}

const maxTags = 16

// checkRecipient holds recipients to age's X25519 form.
func checkRecipient(field, text string) error {
	if _, err := age.ParseX25519Recipient(text); err != nil {
		return refusal.New(refusal.RequestInvalid, "%s is not an age X25519 recipient (age1…)", field).With("field", field)
	}
	return nil
}
