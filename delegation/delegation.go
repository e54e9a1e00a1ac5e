// Package delegation knows who may act for whom: operators, organizations, users
// and their credentials, keys and their owners, wallets, delegations and their
// API keys. It answers two callers: the sockets' handlers, whose acts it
// authorizes by quorum of stamps and makes durable together with their audit
// entry; and signing, which asks it at steps 3, 4, 7 and 9 whether a wallet API
// key still opens a delegation.
//
// It refuses an act without the quorum its subject demands, whatever the socket
// or the uid: the access table is necessary, never sufficient. Operators make
// organizations and nothing inside them. A delegated user's credential
// authorizes no act at all.
//
// Every act runs alone in one vault transaction with its journal entry; an
// acknowledged act is fsynced. What is in memory changes only after the commit.
package delegation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sigild/sigild/clock"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/vault"
)

// Config builds a [Service].
type Config struct {
	// Vault is unsealed and outlives the service.
	Vault *vault.Vault
	// Journal lies in the same vault.
	Journal *journal.Journal
	// PreParameters feeds ECDSA ceremonies.
	PreParameters func(ctx context.Context) (*mpc.PreParams, error)
	// PolicyFiles judge above all organizations; nil for none.
	PolicyFiles *PolicyFiles
	// Outbox delivers to other appliances; nil: there are no endpoints.
	Outbox *outbox.Service
	// SemiTrusted lets a party outside this host take part in ECDSA (peer.semi_trusted).
	SemiTrusted bool
	// Peers are the pins of other appliances, by their names here.
	Peers map[string]string
	// Dial reaches one of Peers; done hangs up. The wallet API key is nil here.
	Dial func(ctx context.Context, peer string, apiKey []byte) (conn mpc.Conn, done func(), err error)
	// CeremonyTimeout ends a ceremony that hangs; zero means five minutes.
	CeremonyTimeout time.Duration
	// Holders are the devices of those names with the keys that shall hold the root key;
	// nil: there is one device. Errors: those of package seal.
	Holders func(ctx context.Context, names []string) ([]vault.KeyHolder, error)
	// Clock is what operators confirm; its Now is Now. Nil: it can't be confirmed.
	Clock *clock.Clock
	// UnusedAlarm is after how long without use a credential counts as unused that has
	// no alarm of its own; 0: never.
	UnusedAlarm time.Duration
	// Now is the time to go by; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator wants at 3am; nil discards.
	Log *slog.Logger
}

// Service is the one holder of the appliance's delegation state.
type Service struct {
	cfg     Config
	vault   *vault.Vault
	journal *journal.Journal
	log     *slog.Logger
	now     func() time.Time
	book    *book
	flights *flights
	// unusedCount is how many credentials were unused when that was last looked at.
	unusedCount atomic.Int64
	// refusedFiles bounds what the journal hears of refused policy files.
	refusedFiles refusedFiles
	// ceremonies run one at a time: two would only halve each other's speed.
	ceremonySlot chan struct{}
	// running counts ceremony goroutines; Close waits for them.
	running sync.WaitGroup
	// mu guards closed: no ceremony begins any more.
	mu     sync.Mutex
	closed bool
	// stop ends ceremonies at Close.
	stop       context.Context
	stopCancel context.CancelFunc
	progress   *progressBoard
	underWay   *underWay
	// vendors holds what other vendors delivered; nil where nothing is.
	vendors Vendors
	// stampers holds vendor credentials; set once, before anything is served.
	stampers Stampers
}

// ErrNotInitialized says that the store was never given an appliance record:
// `sigilctl init` did not finish.
var ErrNotInitialized = errors.New("the store holds no appliance: sigilctl init did not finish")

// Open loads every record of the vault, marks ceremonies that a restart
// interrupted as failed, and returns the service. Nothing is created here:
// genesis is [Genesis], called by sigilctl init alone.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	s := &Service{
		cfg: cfg, vault: cfg.Vault, journal: cfg.Journal, log: cfg.Log, now: cfg.Now,
		flights: newFlights(), ceremonySlot: make(chan struct{}, 1), progress: newProgressBoard(), underWay: newUnderWay(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.cfg.CeremonyTimeout == 0 {
		s.cfg.CeremonyTimeout = 5 * time.Minute
	}
	b, err := loadBook(ctx, cfg.Vault)
	if err != nil {
		return nil, fmt.Errorf("loading delegation state: %w", err)
	}
	s.book = b
	s.stop, s.stopCancel = context.WithCancel(context.Background())
	if cfg.PolicyFiles == nil {
		cfg.PolicyFiles = noFiles
	}
	if err := s.LoadPolicyFiles(ctx, cfg.PolicyFiles); err != nil {
		return nil, err
	}
	if err := s.failInterrupted(ctx); err != nil {
		return nil, fmt.Errorf("closing interrupted ceremonies: %w", err)
	}
	for _, c := range s.book.forCosigners() {
		s.tryCosigner(c)
	}
	return s, nil
}

// Close ends running ceremonies and waits for them. What they had made is
// dropped; the next start marks them failed.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stopCancel()
	s.running.Wait()
}

// ApplianceID is what stamps bind to.
func (s *Service) ApplianceID() string { return s.book.appliance().ID }
