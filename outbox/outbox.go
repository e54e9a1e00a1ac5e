// Package outbox delivers what this appliance makes for others: the webhook events
// wallet.delegation.created, which brings a delegate's share and a wallet API key
// encrypted to the receiver, wallet.delegation.revoked, and ping. It is for the rooms
// that make and end delegations, which put an event here in the transaction of what
// it tells of, and for the process that has the network (`sigild deliver`), which
// takes what is due and reports what became of it.
//
// It holds ciphertext only: what leaves is encrypted before it is stored, to a key
// that the receiver registered and the organization activated. It refuses an endpoint
// that has no active key, or was never reached by a ping.
//
// An event is delivered at least once: it stays until a receiver answered 2xx, or its
// tries are over. Receivers tell repetitions by eventId.
package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// Actor is who calls and what it may do, as in package delivery.
type Actor interface {
	// Entry is the start of the call's journal entry.
	Entry(organization, requestID string) journal.Entry
	// Root demands the organization's root quorum.
	Root(organization string) error
	// Member demands any root member of the organization.
	Member(organization string) error
}

// Config builds a [Service].
type Config struct {
	// Vault is unsealed and outlives the service.
	Vault *vault.Vault
	// Journal lies in the same vault.
	Journal *journal.Journal
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator wants at 3am; nil discards.
	Log *slog.Logger
}

// Service is the one holder of endpoints and of what waits for them. It is safe for
// concurrent use.
type Service struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	book *book
}

// Open loads endpoints and what waits. A record that doesn't decode stops it.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	s := &Service{cfg: cfg, log: cfg.Log, now: cfg.Now, book: &book{endpoints: map[string]*endpoint{}, waiting: map[string]*outgoing{}, leases: map[string]time.Time{}}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := vault.EachObject(ctx, cfg.Vault, vault.TypeEndpoint, recordVersion, func(e *endpoint) string { s.book.endpoints[e.ID] = e; return e.ID }); err != nil {
		return nil, err
	}
	err := vault.EachObject(ctx, cfg.Vault, vault.TypeOutgoing, recordVersion, func(o *outgoing) string { s.book.waiting[o.ID] = o.withoutBody(); return o.ID })
	if err != nil {
		return nil, err
	}
	for _, o := range s.book.waiting {
		if s.book.endpoints[o.Endpoint] == nil {
			return nil, fmt.Errorf("reading event %s: its endpoint is missing", o.ID)
		}
	}
	return s, nil
}

// book is the state in memory, without secrets and bodies. What a map points to is
// never modified, only replaced, once the transaction is on disk.
type book struct {
	// mu guards the maps.
	mu        sync.RWMutex
	endpoints map[string]*endpoint
	waiting   map[string]*outgoing
	// leases say until when an event is with a deliverer. Not durable: after a crash
	// it is delivered again.
	leases map[string]time.Time
}

// change runs f under the write lock, once the transaction is on disk.
func (b *book) change(tx *vault.Tx, f func()) {
	tx.OnCommit(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		f()
	})
}
