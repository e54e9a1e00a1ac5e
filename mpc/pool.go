package mpc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrEmpty is what a [PoolStore] answers when it has no pre-parameters left.
var ErrEmpty = errors.New("no pre-parameters in store")

// PoolStore keeps encoded pre-parameters sealed, for a [Pool].
type PoolStore interface {
	// Put stores encoded, which is lent; durable on return.
	Put(ctx context.Context, encoded []byte) error
	// Take removes one, durably before it returns, and gives its bytes to the
	// caller, who wipes them. [ErrEmpty] when there is none.
	Take(ctx context.Context) ([]byte, error)
	// Count is how many there are.
	Count(ctx context.Context) (int, error)
}

// PoolConfig configures a [Pool].
type PoolConfig struct {
	Store PoolStore
	// Target is how many pre-parameters Run keeps in store; a 2-of-2 set needs two.
	Target int
	// Retry is how long Run waits after the store refused; zero means 30 s.
	Retry time.Duration
	// Log is told of refusals by the store; nil discards.
	Log *slog.Logger
}

// Pool keeps pre-parameters ready, so that an ECDSA keygen or issue need not
// wait for primes. Safe for concurrent use.
type Pool struct {
	cfg PoolConfig
	// wake has a token when Take may have lowered the count.
	wake chan struct{}
	// generate uses all cores, fill one core while no ceremony runs. Tests replace
	// them to save time.
	generate, fill func(context.Context) (*PreParams, error)
}

// NewPool returns a pool; it fills only while Run runs.
func NewPool(cfg PoolConfig) *Pool {
	if cfg.Retry == 0 {
		cfg.Retry = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{cfg: cfg, wake: make(chan struct{}, 1), generate: GeneratePreParams,
		fill: func(ctx context.Context) (*PreParams, error) { return generatePreParams(ctx, 1, busy.wait) }}
}

// Take returns pre-parameters that no one else will get: from the store, or,
// when that is empty, generated on all cores. Errors of the store other than
// [ErrEmpty] are returned.
func (p *Pool) Take(ctx context.Context) (*PreParams, error) {
	defer func() {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}()
	encoded, err := p.cfg.Store.Take(ctx)
	if errors.Is(err, ErrEmpty) {
		defer busy.enter()() // Run stands aside
		return p.generate(ctx)
	}
	if err != nil {
		return nil, err
	}
	defer clear(encoded)
	return ParsePreParams(encoded)
}

// Run fills the store up to Target until ctx ends, and returns its cause. It
// computes on one core and stands still while a ceremony runs in this process.
func (p *Pool) Run(ctx context.Context) error {
	for {
		full, err := p.fillOne(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var retry <-chan time.Time // nil, so never, when the store is full
		switch {
		case err != nil:
			p.cfg.Log.WarnContext(ctx, "filling pre-parameters failed", "error", err, "retry", p.cfg.Retry)
			retry = time.After(p.cfg.Retry)
		case !full:
			continue
		}
		select {
		case <-p.wake:
		case <-retry:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fillOne adds one to the store, if that is not full.
func (p *Pool) fillOne(ctx context.Context) (full bool, err error) {
	n, err := p.cfg.Store.Count(ctx)
	if err != nil || n >= p.cfg.Target {
		return err == nil, err
	}
	pre, err := p.fill(ctx)
	if err != nil {
		return false, err
	}
	defer pre.Destroy()
	return false, pre.Lend(func(encoded []byte) error { return p.cfg.Store.Put(ctx, encoded) })
}

// gate counts the ceremonies of this process, which is what shares its cores, so
// that background work can stand aside.
type gate struct {
	mu      sync.Mutex
	running int
	// idle is closed when running falls to zero; nil while it is zero.
	idle chan struct{}
}

var busy gate

// enter counts a ceremony; call what it returns when it is over.
func (g *gate) enter() (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running++; g.running == 1 {
		g.idle = make(chan struct{})
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.running--; g.running == 0 {
			close(g.idle)
			g.idle = nil
		}
	}
}

// wait returns when no ceremony runs, or with the cause of ctx's end.
func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	idle := g.idle
	g.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
