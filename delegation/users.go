package delegation

import (
	"context"

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
		u.ID, u.CreatedAt = newID("usr"), s.now().UTC()
		if err := store(tx, vault.TypeUser, u.ID, u); err != nil {
			return UserCreated{}, err
		}
		s.book.change(tx, func() { s.book.users[u.ID] = u })
		e.User = u.ID
		e.Facts = map[string]string{"kind": string(u.Kind), "name": u.Name}
		recordKeys(e, "credential", u.Credentials)
		return UserCreated{UserID: u.ID}, nil
	})
}

func checkUser(n NewUser) (*user, error) {
	if err := checkName("name", n.Name); err != nil {
		return nil, err
	}
	u := &user{V: recordVersion, Organization: n.Organization, Name: n.Name, Kind: n.Kind}
	switch n.Kind {
	case DelegatedUser:
		if len(n.Credentials) > 0 || n.ShareRecipient != "" || len(n.RecipientSignature) > 0 {
			return nil, refusal.New(refusal.RequestInvalid, "a delegated user has neither credentials nor a share recipient: its wallet API key is its only credential").With("field", "credentials")
		}
		return u, nil
	case EndUser:
	default:
		return nil, refusal.New(refusal.RequestInvalid, "kind must be end user or delegated user").With("field", "kind")
	}
	creds, err := register(credential.ForUser, n.Credentials)
	if err != nil {
		return nil, err
	}
	u.Credentials = creds
	if err := checkRecipient("share_recipient", n.ShareRecipient); err != nil {
		return nil, err
	}
	if err := credential.VerifyRecipient(n.Credentials[0].PublicKey, n.ShareRecipient, n.RecipientSignature); err != nil {
		return nil, refusal.New(refusal.RequestInvalid, "share_recipient is not signed by the first credential").With("field", "share_recipient_signature").Because(err)
	}
	u.ShareRecipient = n.ShareRecipient
	return u, nil
}

// checkRecipient holds recipients to age's X25519 form.
func checkRecipient(field, text string) error {
	if _, err := age.ParseX25519Recipient(text); err != nil {
		return refusal.New(refusal.RequestInvalid, "%s is not an age X25519 recipient (age1…)", field).With("field", field)
	}
	return nil
}
