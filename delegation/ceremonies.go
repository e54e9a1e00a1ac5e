package delegation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A ceremony is a record (running, done, failed) and, while it runs, a goroutine
// of this service with a line of progress in memory; the record says which stage it
// has reached. Its result and its status change in one transaction, so a crash leaves
// either nothing or all of it. One that fails names who broke it, if that can be told.

// Ceremony is what a member may see of one.
type Ceremony struct {
	ID     string
	Kind   string
	Status string
	Stage  string
	Done   int
	Total  int
	Error  string
	// Culprits are the parties that broke a failed one, as far as they can be named.
	Culprits  []string
	StartedAt time.Time
}

// owner is whose wallet or delegation the ceremony is for.
func (b *book) owner(c *ceremonyRecord) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if d := b.delegations[c.Target]; d != nil {
		return d.Owner
	}
	if w := b.wallets[c.Target]; w != nil {
		return w.Owner
	}
	return ""
}

// keyOf is the key a ceremony works with; nil for none.
func (b *book) keyOf(c *ceremonyRecord) *key {
	b.mu.RLock()
	defer b.mu.RUnlock()
	target := c.Target
	if d := b.delegations[target]; d != nil {
		target = d.Wallet
	}
	if w := b.wallets[target]; w != nil {
		return b.keys[w.Key]
	}
	return nil
}

// Ceremony shows how far a ceremony is, to its owner and to root members.
func (s *Service) Ceremony(a Actor, org, id string) (Ceremony, error) {
	if err := s.member(a, org); err != nil {
		return Ceremony{}, err
	}
	rec, err := s.book.ceremony(org, id)
	if err != nil {
		return Ceremony{}, err
	}
	if !s.concerns(a, org, s.book.owner(rec)) {
		return Ceremony{}, refusal.New(refusal.NotFound, "no such ceremony")
	}
	return s.describe(rec), nil
}

// describe is a record with its line of progress.
func (s *Service) describe(rec *ceremonyRecord) Ceremony {
	c := Ceremony{ID: rec.ID, Kind: rec.Kind, Status: rec.Status, Error: rec.Error, StartedAt: rec.StartedAt}
	if rec.Status == statusWaiting {
		c.Status, c.Stage = statusRunning, "waiting for the other side"
		if p, ok := s.progress.read(rec.ID); ok {
			c.Stage, c.Done, c.Total = p.stage, p.done, p.total
		}
	}
	if rec.Status == statusFailed {
		c.Stage = rec.Stage
	}
	for _, p := range rec.Culprits {
		c.Culprits = append(c.Culprits, string(p))
	}
	if p, ok := s.progress.read(rec.ID); ok && rec.Status == statusRunning {
		c.Stage, c.Done, c.Total = p.stage, p.done, p.total
	}
	return c
}

// ceremonyWork makes the result. Shares it hands to keep are wiped when the
// ceremony has ended, whatever its end. It returns what puts the result on disk.
type ceremonyWork func(ctx context.Context, keep func([]*mpc.Share)) (func(tx *vault.Tx, e *journal.Entry) error, error)

// startCeremony runs work in a goroutine of the service. What work returns is
// put on disk together with the ceremony's end; when it fails, undo puts the
// failure on disk instead. The functions in ended run at the end, whatever it is.
// Call it after the commit of the act.
func (s *Service) startCeremony(c *ceremonyRecord, work ceremonyWork, undo func(tx *vault.Tx) error, ended ...func()) {
	over := func() {
		for _, f := range ended {
			f()
		}
	}
	if !s.begin() {
		over()
		return // stays "running" on disk; the next start marks it failed
	}
	s.progress.set(c.ID, "waiting for another ceremony", 0, 0)
	go func() {
		defer s.running.Done()
		defer s.progress.drop(c.ID)
		defer over()
		select {
		case s.ceremonySlot <- struct{}{}:
			defer func() { <-s.ceremonySlot }()
		case <-s.stop.Done():
			return // likewise
		}
		ctx, cancel := context.WithTimeout(s.stop, s.cfg.CeremonyTimeout)
		defer cancel()
		defer s.underWay.enter(c.ID, cancel)()
		if s.book.ended(c.ID) {
			return // aborted while it waited
		}
		start := s.now()
		var kept []*mpc.Share
		defer func() {
			for _, sh := range kept {
				sh.Destroy()
			}
		}()
		commit, err := work(ctx, func(shares []*mpc.Share) { kept = append(kept, shares...) })
		if err == nil {
			err = s.endCeremony(ctx, c, statusDone, "", commit)
		}
		if err == nil {
			s.log.Info("ceremony done", "ceremony", c.ID, "kind", c.Kind, "target", c.Target, "took", s.now().Sub(start))
			return
		}
		if s.book.ended(c.ID) {
			s.log.Info("ceremony aborted", "ceremony", c.ID, "kind", c.Kind, "target", c.Target)
			return
		}
		if s.stop.Err() != nil {
			s.log.Warn("ceremony interrupted", "ceremony", c.ID, "kind", c.Kind, "target", c.Target)
			return
		}
		s.log.Error("ceremony failed", "ceremony", c.ID, "kind", c.Kind, "target", c.Target, "error", err)
		failed := func(tx *vault.Tx, e *journal.Entry) error {
			// A keygen that failed leaves no key to guard.
			if k := s.book.keyOf(c); k != nil && c.Kind != kindKeygen && c.Kind != kindImport {
				return errors.Join(undo(tx), s.CountFailure(tx, k.ID, err))
			}
			return undo(tx)
		}
		if err := s.endCeremony(s.stop, c, statusFailed, reasonForPeople(ctx, err), failed, culprits(err)...); err != nil {
			s.log.Error("recording a failed ceremony", "ceremony", c.ID, "error", err)
		}
	}()
}

// step shows how far a ceremony is. That it reached another stage is put on disk, so
// that people know after a crash how far it was; that this can't be written is no
// reason to end it, its result will find the same.
func (s *Service) step(c *ceremonyRecord, stage string, done, total int) {
	s.progress.set(c.ID, stage, done, total)
	if rec := find(s.book, s.book.ceremonies, c.ID); rec == nil || rec.Stage == stage {
		return
	}
	err := s.vault.UpdateAlone(s.stop, func(tx *vault.Tx) error {
		rec := find(s.book, s.book.ceremonies, c.ID)
		if rec == nil || !rec.open() {
			return nil // aborted: it stays so
		}
		reached := *rec
		reached.Stage = stage
		s.book.change(tx, func() { s.book.ceremonies[c.ID] = &reached })
		return store(tx, vault.TypeCeremony, c.ID, &reached)
	})
	if err != nil && s.stop.Err() == nil {
		s.log.Warn("recording the stage of a ceremony", "ceremony", c.ID, "stage", stage, "error", err)
	}
}

// culprits are those who broke a ceremony, as far as they can be named.
func culprits(cause error) []mpc.Party {
	var e *mpc.Error
	if errors.As(cause, &e) {
		return e.Culprits
	}
	return nil
}

// begin counts one ceremony, unless Close was called.
func (s *Service) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// reasonForPeople says what a member may know of a failure. The error's own text
// is for the log: it may name parties' internals.
func reasonForPeople(ctx context.Context, cause error) string {
	var no *refusal.Error
	switch {
	case ctx.Err() != nil:
		return "the ceremony did not end in time"
	case errors.As(cause, &no):
		return no.Message
	}
	return "the ceremony failed; the appliance's log has the cause"
}

// endCeremony puts a ceremony's end on disk, with what belongs to it.
func (s *Service) endCeremony(ctx context.Context, c *ceremonyRecord, status, why string, also func(tx *vault.Tx, e *journal.Entry) error, blamed ...mpc.Party) error {
	return s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error { return s.writeEnd(tx, c, status, why, also, blamed...) })
}

// writeEnd is endCeremony as part of a transaction, which is alone. A ceremony ends once.
func (s *Service) writeEnd(tx *vault.Tx, c *ceremonyRecord, status, why string, also func(tx *vault.Tx, e *journal.Entry) error, blamed ...mpc.Party) error {
	ended := *c
	if rec := find(s.book, s.book.ceremonies, c.ID); rec != nil {
		ended = *rec // with the stage it reached
	}
	if !ended.open() {
		return errEnded()
	}
	ended.Status, ended.Error, ended.Culprits = status, why, blamed
	e := journal.Entry{Kind: journal.KindAct, Method: "ceremony/" + c.Kind, Organization: c.Organization, Outcome: status, Reason: why}
	e.Facts = map[string]string{"ceremony": c.ID}
	if len(blamed) > 0 {
		e.Facts["culprits"] = fmt.Sprint(blamed)
	}
	if err := also(tx, &e); err != nil {
		return err
	}
	if err := store(tx, vault.TypeCeremony, ended.ID, &ended); err != nil {
		return err
	}
	s.book.change(tx, func() { s.book.ceremonies[ended.ID] = &ended })
	_, err := s.journal.Append(tx, e)
	return err
}

// failInterrupted marks what was running at the last end as failed, with its wallet or delegation.
func (s *Service) failInterrupted(ctx context.Context) error {
	for _, c := range s.book.ceremonies {
		if c.Status != statusRunning {
			continue
		}
		undo := func(tx *vault.Tx, _ *journal.Entry) error { return s.failTarget(tx, c) }
		if err := s.endCeremony(ctx, c, statusFailed, "interrupted by a restart; ask again", undo); err != nil {
			return fmt.Errorf("ceremony %s: %w", c.ID, err)
		}
		s.log.Warn("a ceremony was interrupted by a restart", "ceremony", c.ID, "kind", c.Kind, "target", c.Target)
	}
	return nil
}

// failTarget marks the wallet and key, or the delegation, of a ceremony as failed. A
// rotation that failed leaves its key as it was.
func (s *Service) failTarget(tx *vault.Tx, c *ceremonyRecord) error {
	if c.Kind == kindRotate || c.Kind == kindRecover {
		return nil
	}
	if c.Kind == kindIssue {
		d := find(s.book, s.book.delegations, c.Target)
		if d == nil {
			return fmt.Errorf("delegation %s of ceremony %s is missing", c.Target, c.ID)
		}
		if d.Status != statusPending {
			return nil // revoked meanwhile: that stands
		}
		failed := *d
		failed.Status, failed.Version = statusFailed, d.Version+1
		if err := store(tx, vault.TypeDelegation, failed.ID, &failed); err != nil {
			return err
		}
		s.book.change(tx, func() { s.book.delegations[failed.ID] = &failed })
		return nil
	}
	w := find(s.book, s.book.wallets, c.Target)
	if w == nil {
		return fmt.Errorf("wallet %s of ceremony %s is missing", c.Target, c.ID)
	}
	k := find(s.book, s.book.keys, w.Key)
	if k == nil {
		return fmt.Errorf("key %s of ceremony %s is missing", w.Key, c.ID)
	}
	failedWallet, failedKey := *w, *k
	failedWallet.Status, failedKey.Status = statusFailed, statusFailed
	if err := store(tx, vault.TypeWallet, w.ID, &failedWallet); err != nil {
		return err
	}
	if err := store(tx, vault.TypeKey, k.ID, &failedKey); err != nil {
		return err
	}
	s.book.change(tx, func() { s.book.fileWallet(&failedWallet); s.book.fileKey(&failedKey) })
	return nil
}

// The kinds of ceremonies.
const (
	kindKeygen = "keygen"
	kindImport = "import"
	kindIssue  = "issue"
	// kindRotate and kindRecover put a new root set in the place of the old one.
	kindRotate  = "rotate"
	kindRecover = "recover"
	// kindCosign takes on a share of another appliance's key.
	kindCosign = "cosign"
)

// progressBoard holds one line a running ceremony. It is for people and not durable.
type progressBoard struct {
	mu    sync.Mutex // guards lines
	lines map[string]progressLine
}

type progressLine struct {
	stage       string
	done, total int
}

func newProgressBoard() *progressBoard { return &progressBoard{lines: map[string]progressLine{}} }

func (p *progressBoard) set(id, stage string, done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines[id] = progressLine{stage, done, total}
}

func (p *progressBoard) read(id string) (progressLine, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.lines[id]
	return l, ok
}

func (p *progressBoard) drop(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lines, id)
}
