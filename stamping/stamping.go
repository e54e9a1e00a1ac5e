// Package stamping holds credentials that other services know an organization by: the
// keys that requests to their APIs are signed with. It is for organizations whose
// wallets another vendor keeps: what the vendor's own policies can't hold, or are not
// asked about, is judged here, and the credential is nowhere else.
//
// A key is made here, or comes once from outside; it is sealed as a record of its own
// and no method gives it out. It signs a request to its vendor only when the request
// asks to sign a payload that passed steps 5 to 7 of package signing. Everything else
// is refused, and above all what administers the vendor's account: whoever could have
// that stamped would need no wallet of it.
package stamping

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// Actor is who calls and what it may do. Root and Member return the refusal that
// the caller gets; they are asked inside a transaction, too, and must not write.
type Actor interface {
	// Entry is the start of the call's journal entry.
	Entry(organization, requestID string) journal.Entry
	// Root demands the organization's root quorum.
	Root(organization string) error
	// Member demands any root member of the organization.
	Member(organization string) error
}

// Delegations is who has requests stamped.
type Delegations interface {
	// EndCredential ends the delegations of a credential, in the transaction that
	// destroys its key, and returns their ids.
	EndCredential(tx *vault.Tx, credential string) (delegations []string, err error)
	// Await returns when no stamp of the delegation is under way.
	Await(ctx context.Context, delegation string) error
}

// Config builds a [Service].
type Config struct {
	// Vault is unsealed and outlives the service.
	Vault *vault.Vault
	// Journal lies in the same vault.
	Journal *journal.Journal
	// Delegations end with their credential.
	Delegations Delegations
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator wants at 3am; nil discards.
	Log *slog.Logger
}

// Service is the one holder of vendor credentials. Its methods are safe for
// concurrent use.
type Service struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	book *book
}

// Open loads the public side of the credentials. A record that doesn't decode stops it.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	s := &Service{cfg: cfg, log: cfg.Log, now: cfg.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	if s.book, err = loadBook(ctx, cfg.Vault); err != nil {
		return nil, fmt.Errorf("loading vendor credentials: %w", err)
	}
	return s, nil
}
