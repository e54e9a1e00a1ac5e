// Package delivery takes in what other services deliver about wallets that their
// users delegated: the webhook events wallet.delegation.created, which brings a
// key share and a wallet API key, and wallet.delegation.revoked. It is for the
// process that receives webhooks, which hands over each body as it came, and for
// an organization's root, who registers where the deliveries come from.
//
// It refuses a body whose MAC is not that of a live secret of the named webhook,
// a body it can't read, and an envelope that no decryption key of the webhook
// opens. A wrong MAC and an envelope that doesn't open get the same words.
//
// The MAC covers no time, so whoever saw a delivery once can send it again for
// ever, and deliveries come in any order. What was taken in depends therefore on
// their timestamps alone, never on their order: a revocation is remembered for
// ever and a created event that is not younger than it comes to nothing.
//
// The private keys lie in the sealing device. Share and API key are kept sealed,
// byte for byte, and stay pending until the organization binds them to a delegation.
// Then they are lent to the vendor's own program, for one approved signature at a
// time, and to nobody else.
package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Device opens what vendors encrypt to us. Errors are seal's sentinels.
type Device interface {
	seal.Decrypter
	// GenerateRSA makes a key that never leaves the device; it takes seconds.
	GenerateRSA(ctx context.Context, bits int) (seal.KeyRef, error)
	// ImportedRSA says whether the key was once outside the device.
	ImportedRSA(ctx context.Context, ref seal.KeyRef) (bool, error)
}

// Actor is who calls and what it may do. Root and Member return the refusal that
// the caller gets; they are asked inside a transaction, too, and must not write.
type Actor interface {
	// Entry is the start of the call's journal entry.
	Entry(organization, requestID string) journal.Entry
	// Root demands the organization's root quorum.
	Root(organization string) error
	// Member demands any root member or end user of the organization.
	Member(organization string) error
}

// Config builds a [Service].
type Config struct {
	// Vault is unsealed and outlives the service.
	Vault *vault.Vault
	// Journal lies in the same vault.
	Journal *journal.Journal
	// Device holds the decryption keys, under the name DeviceID.
	Device   Device
	DeviceID string
	// Delegations sign with what was delivered; nil: nothing can be bound.
	Delegations Delegations
	// Program is the vendor's; nil: nothing signs.
	Program Program
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator wants at 3am; nil discards.
	Log *slog.Logger
}

// Service is the one holder of webhooks and of what was delivered. Its methods
// are safe for concurrent use.
type Service struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	book *book
	// registering lets one registration at a time make a key.
	registering sync.Mutex
	// running has the signatures under way.
	running runs
}

// Open loads webhooks and the public side of what was delivered. A record that
// doesn't decode stops it.
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
		return nil, fmt.Errorf("loading deliveries: %w", err)
	}
	return s, nil
}
