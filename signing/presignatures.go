package signing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/vault"
)

// Presignatures: the greater part of ECDSA signatures, made ahead and kept in memory.
// The rules that make them bearable, all of them here or in package mpc:
//
//   - none unless a key's owner or its root quorum wanted them, and none before the
//     first one of this process has signed a test ([mpc.ProvePresignatures]);
//   - memory only; taken by move, one signature each; that one is taken stands in the
//     journal's entry of the approval, on disk, before it is used;
//   - bound to the delegation's share set, the wallet's path, the delegation's version,
//     the rules that judge it and the key's root set: what is not all the same any more
//     is dropped, and so is everything when the clocks disagree, when somebody says that
//     the machine was copied, and when the store is sealed;
//   - at most [MaxPresignatures] in all, none older than [maxPresignatureAge];
//   - only digests that a decoder computed from a payload it understood;
//   - making them waits for everything else and keeps within a share of one core.
//
// Whoever resumes a snapshot of this process's memory has the presignatures in it
// again; docs/attacksurface.md says what remains of that.

const (
	// MaxPresignatures is the most that are kept for all delegations together.
	MaxPresignatures = 64
	// maxPresignatureAge is the oldest that is used.
	maxPresignatureAge = 10 * time.Minute
	// maxClockJump is how far the wall clock may go from the steady one between looks.
	maxClockJump = time.Second
	// presignTick is how often what is kept is looked through.
	presignTick = time.Second
)

// Presigning is a delegation that may keep presignatures.
type Presigning struct {
	Standing *Standing
	// RootSet of its key: presignatures end with it.
	RootSet string
}

// PresignAuthority says which delegations may keep presignatures; package delegation
// does. What it returns may be shared and is never modified.
type PresignAuthority interface {
	// Presigning lists them as they are now.
	Presigning() []*Presigning
	// PresigningOf is one of them, nil when it may keep none.
	PresigningOf(delegationID string) *Presigning
}

// PresignConfig builds [Presignatures].
type PresignConfig struct {
	Authority PresignAuthority
	Vault     *vault.Vault
	// Max is how many are kept, at most [MaxPresignatures]; zero keeps none.
	Max int
	// Failed is as in [Config].
	Failed func(tx *vault.Tx, key string, cause error) error
	// CPU is the share of one core that making them may take, above 0 and at most 1.
	CPU float64
	Log *slog.Logger
	// Clocks returns the wall clock and a steady one that nobody sets; nil reads the system's.
	Clocks func() (wall time.Time, steady time.Duration)
	// Spent returns the CPU time of this process; nil asks the system.
	Spent func() time.Duration
}

// bond is all that must be as it was when a presignature was made.
type bond struct {
	delegation, key, set, path, rootSet string
	version                             uint64
	fixed                               [32]byte
}

func (p *Presigning) bond() bond {
	st := p.Standing
	return bond{st.Delegation, st.Wallet.Key, st.Set.ID, mpc.FormatPath(st.Wallet.Path), p.RootSet, st.Version, st.Fixed}
}

// presignature is one that is kept.
type presignature struct {
	*mpc.Presignature
	bond bond
	made time.Duration // by the steady clock
}

// Presignatures keeps them and makes them. Safe for concurrent use; a nil one keeps
// none.
type Presignatures struct {
	cfg PresignConfig
	// mu guards what follows.
	mu     sync.Mutex
	ready  map[string][]*presignature // by delegation, oldest first
	count  int
	wall   time.Time // of the last look at the clocks
	steady time.Duration
	// proved is what ProvePresignatures said; nil and done false before it was asked.
	proved error
	done   bool
	// era moves with every Drop: what is being made meanwhile is thrown away.
	era    uint64
	closed bool
}

// NewPresignatures returns an empty store; it fills while [Presignatures.Run] runs.
func NewPresignatures(cfg PresignConfig) *Presignatures {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clocks == nil {
		began := time.Now()
		cfg.Clocks = func() (time.Time, time.Duration) {
			now := time.Now() // its monotonic part stands still while the machine sleeps
			return now.Round(0), now.Sub(began)
		}
	}
	if cfg.Spent == nil {
		cfg.Spent = processTime
	}
	cfg.Max = min(cfg.Max, MaxPresignatures)
	p := &Presignatures{cfg: cfg, ready: map[string][]*presignature{}}
	p.wall, p.steady = cfg.Clocks()
	return p
}

// processTime is the CPU time of all threads.
func processTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// take moves one out for a request that is being approved, nil when there is none
// that fits. Whoever gets it uses it or destroys it.
func (p *Presignatures) take(st *Standing, d *chains.Decoded) *mpc.Presignature {
	if p == nil || !presignable(st, d) {
		return nil
	}
	now := p.cfg.Authority.PresigningOf(st.Delegation)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookLocked()
	if now == nil || now.Standing.moved(st) {
		p.dropLocked(st.Delegation, "the delegation changed")
		return nil
	}
	want := now.bond()
	for list := p.ready[st.Delegation]; len(list) > 0; list = p.ready[st.Delegation] {
		first := list[0]
		p.ready[st.Delegation] = list[1:]
		p.count--
		if first.bond == want {
			return first.Presignature
		}
		first.Destroy()
	}
	return nil
}

// presignable says whether a presignature may serve the request: the digest must be
// one that a decoder computed over a payload with a structure. A bare digest would let
// its sender choose what R is combined with. Who signs by stamps has no delegation and
// no presignatures; nor has a set of which another process holds a share.
func presignable(st *Standing, d *chains.Decoded) bool {
	return st.Delegation != "" && len(st.Elsewhere) == 0 && st.Wallet.Scheme == chains.ECDSASecp256k1 && d.Kind != KindRawDigest && d.Sign.Scheme == chains.ECDSASecp256k1
}

// Ready is how many are kept for the delegations of a key, and in all.
func (p *Presignatures) Ready(key string) (of, all int) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.ready {
		if len(list) > 0 && list[0].bond.key == key {
			of += len(list)
		}
	}
	return of, p.count
}

// Refused is why none are made in this process; nil when nothing is known against it.
func (p *Presignatures) Refused() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proved
}

// Drop destroys all that are kept, and those being made.
func (p *Presignatures) Drop(why string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropAllLocked(why)
}

// Close drops all and keeps none any more.
func (p *Presignatures) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.dropAllLocked("closing")
}

func (p *Presignatures) dropAllLocked(why string) {
	p.era++
	for id := range p.ready {
		p.dropLocked(id, why)
	}
}

func (p *Presignatures) dropLocked(delegation, why string) {
	list := p.ready[delegation]
	delete(p.ready, delegation)
	if len(list) == 0 {
		return
	}
	p.count -= len(list)
	for _, one := range list {
		one.Destroy()
	}
	p.cfg.Log.Info("presignatures dropped", "delegation", delegation, "count", len(list), "why", why)
}

// lookLocked compares the clocks and drops what is too old.
func (p *Presignatures) lookLocked() {
	wall, steady := p.cfg.Clocks()
	apart := wall.Sub(p.wall) - (steady - p.steady)
	p.wall, p.steady = wall, steady
	if apart > maxClockJump || apart < -maxClockJump {
		p.dropAllLocked(fmt.Sprintf("the clock jumped by %s", apart.Round(time.Millisecond)))
		return
	}
	for id, list := range p.ready {
		old := 0
		for old < len(list) && steady-list[old].made >= maxPresignatureAge {
			list[old].Destroy()
			old++
		}
		if p.count -= old; old == len(list) {
			delete(p.ready, id)
		} else {
			p.ready[id] = list[old:]
		}
	}
}

// prune drops what may not be used any more, and says who lacks most.
func (p *Presignatures) prune() (next *Presigning) {
	wanted := p.cfg.Authority.Presigning()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookLocked()
	bonds := map[string]bond{}
	for _, w := range wanted {
		bonds[w.Standing.Delegation] = w.bond()
	}
	for id, list := range p.ready {
		if b, ok := bonds[id]; !ok || list[0].bond != b {
			p.dropLocked(id, "the delegation, its key or its rules changed")
		}
	}
	if p.closed || p.proved != nil || p.count >= p.cfg.Max {
		return nil
	}
	for _, w := range wanted {
		if next == nil || len(p.ready[w.Standing.Delegation]) < len(p.ready[next.Standing.Delegation]) {
			next = w
		}
	}
	return next
}

// Run makes presignatures until ctx ends, and returns its cause. They are spread
// evenly over the delegations that may have some. What is kept is looked through every
// second, also while one is being made.
func (p *Presignatures) Run(ctx context.Context) error {
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() {
		for sleep(ctx, presignTick) {
			p.prune()
		}
	})
	wait := time.Duration(0)
	for sleep(ctx, wait) {
		wait = presignTick
		next := p.prune()
		if next == nil {
			continue
		}
		before, start := p.cfg.Spent(), time.Now()
		switch err := p.make(ctx, next); {
		case err == nil:
			wait = pause(p.cfg.Spent()-before, time.Since(start), p.cfg.CPU)
		case ctx.Err() == nil:
			p.cfg.Log.Warn("making a presignature failed", "delegation", next.Standing.Delegation, "error", err)
			wait = time.Minute
		}
	}
	return context.Cause(ctx)
}

// sleep waits; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}

// pause is how long to make nothing, so that what was spent in so long a time is no
// more than a share of one core. What others computed meanwhile counts, too: the
// busier the process, the less is made ahead.
func pause(spent, took time.Duration, share float64) time.Duration {
	return max(time.Duration(float64(spent)/share)-took, time.Millisecond)
}

// make makes one, and the first time proves that the engine can.
func (p *Presignatures) make(ctx context.Context, w *Presigning) error {
	p.mu.Lock()
	era, prove := p.era, !p.done
	p.mu.Unlock()
	bond := w.bond()
	var made *mpc.Presignature
	err := p.cfg.Vault.WithAll(ctx, vault.TypeShare, w.Standing.ShareIDs, func(shares [][]byte) (err error) {
		r := mpc.PresignRequest{Set: w.Standing.Set, Shares: shares, Path: w.Standing.Wallet.Path, Background: true}
		if prove {
			return p.prove(ctx, r)
		}
		made, err = mpc.Presign(ctx, r)
		return err
	})
	if err != nil {
		return errors.Join(err, p.countFailure(ctx, w, err))
	}
	if made == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.era != era || p.closed || p.count >= p.cfg.Max {
		made.Destroy()
		return nil
	}
	_, steady := p.cfg.Clocks()
	p.ready[bond.delegation] = append(p.ready[bond.delegation], &presignature{made, bond, steady})
	p.count++
	return nil
}

// countFailure has a ceremony that a party broke counted against it.
func (p *Presignatures) countFailure(ctx context.Context, w *Presigning, cause error) error {
	var broken *mpc.Error
	if p.cfg.Failed == nil || !errors.As(cause, &broken) || !broken.Broken() {
		return nil
	}
	return p.cfg.Vault.UpdateAlone(ctx, func(tx *vault.Tx) error { return p.cfg.Failed(tx, w.Standing.Wallet.Key, cause) })
}

// prove spends one presignature on a test. Unless time or these shares were to blame, a
// failure ends presignatures in this process.
func (p *Presignatures) prove(ctx context.Context, r mpc.PresignRequest) error {
	err := mpc.ProvePresignatures(ctx, r)
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, mpc.ErrShare) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.proved = true, err
	if err != nil {
		p.cfg.Log.Error("the engine does not do what presignatures rely on: none are made", "error", err)
	}
	return err
}
