package outbox

import (
	"crypto/rand"
	"strings"
	"time"
)

// This file holds what is written into the vault: one JSON object a record, with a
// version first, decoded strictly. None of it is secret: the secrets that events are
// signed with are records of their own, and bodies hold ciphertext.

const recordVersion = 1

// KeyStatus is where a receiver's key stands.
type KeyStatus string

// A key is registered, activated, and revoked, and never goes back.
const (
	KeyPending KeyStatus = "pending" // nothing is encrypted to it yet
	KeyActive  KeyStatus = "active"  // the newest of these is used
	KeyRevoked KeyStatus = "revoked" // nothing is encrypted to it any more
)

// endpoint is the record of type vault.TypeEndpoint; its id is ID.
type endpoint struct {
	V            int    `json:"v"`
	ID           string `json:"id"`
	Organization string `json:"organization"`
	Name         string `json:"name"`
	// URL is https.
	URL string `json:"url"`
	// Environment is what events call the environment, theirs or ours.
	Environment string `json:"environment"`
	// Peer is the configured peer that signs with what is delivered; "" for none.
	Peer string `json:"peer,omitempty"`
	// Sandbox endpoints get fewer tries.
	Sandbox   bool      `json:"sandbox,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// Secret is the id of the record of type vault.TypeEndpointSecret.
	Secret string `json:"secret"`
	// ReachedAt is when a ping was answered last; nil for never.
	ReachedAt *time.Time `json:"reached_at,omitempty"`
	Keys      []key      `json:"keys"`
}

type key struct {
	// ID is the kid of envelopes.
	ID     string    `json:"id"`
	Status KeyStatus `json:"status"`
	// Public is SubjectPublicKeyInfo in DER.
	Public    []byte     `json:"public"`
	CreatedAt time.Time  `json:"created_at"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

// active is the newest active key; nil for none.
func (e *endpoint) active() *key {
	for i := len(e.Keys) - 1; i >= 0; i-- {
		if e.Keys[i].Status == KeyActive {
			return &e.Keys[i]
		}
	}
	return nil
}

// outgoing is the record of type vault.TypeOutgoing: an event that waits. Its id is
// the event's.
type outgoing struct {
	V            int    `json:"v"`
	ID           string `json:"id"`
	Endpoint     string `json:"endpoint"`
	Organization string `json:"organization"`
	Name         string `json:"name"`
	// Delegation is what it is about; "" for a ping.
	Delegation string    `json:"delegation,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	// Body is what is posted, byte for byte.
	Body []byte `json:"body,omitempty"`
	// Tries were made; the next is due at DueAt. Given up when Failed.
	Tries  int       `json:"tries"`
	DueAt  time.Time `json:"due_at"`
	Failed bool      `json:"failed,omitempty"`
	// Last says what the last try came to.
	Last string `json:"last,omitempty"`
}

func (o *outgoing) withoutBody() *outgoing {
	c := *o
	c.Body = nil
	return &c
}

// newID makes an identifier: a prefix that names the noun and 26 base32 characters.
func newID(prefix string) string { return prefix + "_" + strings.ToLower(rand.Text()) }
