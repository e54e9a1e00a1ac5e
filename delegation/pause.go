package delegation

import (
	"context"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A pause stops signing of the appliance, an organization, a wallet or a delegation. It is kept
// in the record it stops, so that it survives a restart, and says who set it:
// only that level's quorum, or the level above, ends it. The appliance itself
// pauses the wallets of a frozen key.

// Level is who paused.
type Level string

// The levels, from the lowest.
const (
	LevelOwner    Level = "owner"
	LevelRoot     Level = "root"
	LevelOperator Level = "operator"
	// LevelAppliance pauses a wallet by itself (freeze.go); the root quorum resumes.
	LevelAppliance Level = "appliance"
)

// Pause is a stop that holds until it is resumed.
type Pause struct {
	Level  Level     `json:"level"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// Scope is what a pause is about: the appliance when all are empty, an
// organization, an organization's wallet, or with Wallet empty a delegation.
type Scope struct{ Organization, Wallet, Delegation string }

// NewPause asks for a pause.
type NewPause struct {
	RequestID string
	Scope     Scope
	Reason    string
}

// Pause stops signing in the scope on one stamp: an operator's for the appliance,
// a root member's for an organization or its wallets, the owner's for a wallet. It
// returns when no signature of the scope is under way. Durable on return. A pause
// that stands already stays as it is, unless a higher level takes it over.
func (s *Service) Pause(ctx context.Context, a Actor, n NewPause) (Pause, error) {
	if err := checkName("reason", n.Reason); err != nil {
		return Pause{}, err
	}
	var level Level
	authorize := func() (err error) {
		level, err = s.mayPause(a, n.Scope)
		return err
	}
	made, err := act(ctx, s, a, n.Scope.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (Pause, error) {
		if err := s.holdable(n.Scope); err != nil {
			return Pause{}, err
		}
		p := &Pause{Level: level, Since: s.now().UTC(), Reason: n.Reason}
		if have := s.Paused(n.Scope); have != nil && rank(have.Level) >= rank(level) {
			p = have
		}
		e.Wallet, e.Delegation, e.Reason = n.Scope.Wallet, n.Scope.Delegation, n.Reason
		e.Facts = map[string]string{"level": string(p.Level)}
		return *p, s.setPause(tx, n.Scope, p)
	})
	if err != nil {
		return Pause{}, err
	}
	if err := s.awaitScope(ctx, n.Scope); err != nil {
		return Pause{}, fmt.Errorf("waiting for signatures under way: %w", err)
	}
	return made, nil
}

// Resumed answers Resume.
type Resumed struct{}

// Resume ends the scope's pause with the quorum of the level that paused or of the
// one above. Durable on return.
func (s *Service) Resume(ctx context.Context, a Actor, requestID string, scope Scope) error {
	authorize := func() error { return s.mayResume(a, scope) }
	_, err := act(ctx, s, a, scope.Organization, requestID, authorize, func(tx *vault.Tx, e *journal.Entry) (Resumed, error) {
		e.Wallet, e.Delegation = scope.Wallet, scope.Delegation
		if err := s.holdable(scope); err != nil {
			return Resumed{}, err
		}
		if scope.Wallet != "" {
			if err := s.thaw(tx, scope); err != nil {
				return Resumed{}, err
			}
		}
		return Resumed{}, s.setPause(tx, scope, nil)
	})
	return err
}

func rank(l Level) int {
	return map[Level]int{LevelOwner: 1, LevelRoot: 2, LevelOperator: 3, LevelAppliance: 4, LevelRestore: 5}[l]
}

// mayPause finds the level at which the actor may stop the scope.
func (s *Service) mayPause(a Actor, scope Scope) (Level, error) {
	if scope.Organization == "" {
		if a.Organization != "" || matching(s.book.appliance().Operators, a, s.clock()) == 0 {
			return "", quorumMissing("operators", 0, 1)
		}
		return LevelOperator, nil
	}
	o, err := s.inside(a, scope.Organization)
	if err != nil {
		return "", err
	}
	owner, err := s.ownerOf(scope)
	if err != nil {
		return "", err
	}
	if s.rootMembers(o, a) > 0 {
		return LevelRoot, nil
	}
	if owner == "" {
		return "", quorumMissing("root members", 0, 1)
	}
	return LevelOwner, s.owner(a, o.ID, owner)
}

// ownerOf is the end user whose a scope is; "" for an organization.
func (s *Service) ownerOf(scope Scope) (string, error) {
	switch {
	case scope.Delegation != "":
		d, err := s.book.delegation(scope.Organization, scope.Delegation)
		if err != nil {
			return "", err
		}
		return d.Owner, nil
	case scope.Wallet != "":
		w, _, err := s.book.wallet(scope.Organization, scope.Wallet)
		if err != nil {
			return "", err
		}
		return w.Owner, nil
	}
	return "", nil
}

// holdable refuses a delegation that ended: there is nothing to pause or resume. It is
// asked after who may, so that nobody else learns how a delegation stands.
func (s *Service) holdable(scope Scope) error {
	if scope.Delegation == "" {
		return nil
	}
	d, err := s.book.delegation(scope.Organization, scope.Delegation)
	if err == nil && !d.alive() {
		err = refusal.New(refusal.NotActive, "the delegation is %s; there is nothing to hold", d.Status)
	}
	return err
}

func (s *Service) mayResume(a Actor, scope Scope) error {
	if scope.Organization == "" {
		return s.operators(a)
	}
	if _, err := s.inside(a, scope.Organization); err != nil {
		return err
	}
	owner, err := s.ownerOf(scope)
	if err != nil {
		return err
	}
	if p := s.Paused(scope); owner != "" && p != nil && p.Level == LevelOwner && s.owner(a, scope.Organization, owner) == nil {
		return nil
	}
	return s.root(a, scope.Organization)
}

// Paused is the pause of exactly this scope, which must exist; nil for none.
func (s *Service) Paused(scope Scope) *Pause {
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	switch {
	case scope.Organization == "":
		return s.book.self.Paused
	case scope.Delegation != "":
		return s.book.delegations[scope.Delegation].Paused
	case scope.Wallet == "":
		return s.book.organizations[scope.Organization].Paused
	}
	return s.book.wallets[scope.Wallet].Paused
}

// setPause writes the scope's record with p, or without a pause when p is nil.
func (s *Service) setPause(tx *vault.Tx, scope Scope, p *Pause) error {
	if p != nil {
		tx.Advance() // no older copy of the store may forget it
	}
	switch {
	case scope.Organization == "":
		a := *s.book.appliance()
		a.Paused = p
		s.book.change(tx, func() { s.book.self = &a })
		return store(tx, vault.TypeAppliance, applianceRecord, &a)
	case scope.Delegation != "":
		d, err := s.book.delegation(scope.Organization, scope.Delegation)
		if err != nil {
			return err
		}
		changed := *d
		changed.Paused = p
		s.book.change(tx, func() { s.book.delegations[d.ID] = &changed })
		return store(tx, vault.TypeDelegation, d.ID, &changed)
	case scope.Wallet == "":
		o, err := s.book.organization(scope.Organization)
		if err != nil {
			return err
		}
		changed := *o
		if p == nil && o.Paused != nil && o.Paused.Level == LevelRestore {
			now := s.now().UTC()
			changed.CountsFrom = &now
		}
		changed.Paused = p
		s.book.change(tx, func() { s.book.organizations[o.ID] = &changed })
		return store(tx, vault.TypeOrganization, o.ID, &changed)
	}
	w, _, err := s.book.wallet(scope.Organization, scope.Wallet)
	if err != nil {
		return err
	}
	changed := *w
	changed.Paused = p
	s.book.change(tx, func() { s.book.fileWallet(&changed) })
	return store(tx, vault.TypeWallet, w.ID, &changed)
}

// standstill is a pause and what it stops.
type standstill struct {
	what  string // "delegation", "wallet", "organization", "appliance"
	pause *Pause
}

// standstillOf finds the widest pause that covers a delegation of a wallet; with
// delegation "" those of the delegation alone are not looked at. Its pause is nil for none.
func (b *book) standstillOf(org, wallet, delegation string) standstill {
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := []standstill{{"appliance", b.self.Paused}, {"organization", b.organizations[org].Paused}, {"wallet", b.wallets[wallet].Paused}}
	if d := b.delegations[delegation]; d != nil {
		list = append(list, standstill{"delegation", d.Paused})
	}
	for _, s := range list {
		if s.pause != nil {
			return s
		}
	}
	return standstill{}
}

// stopped says whether a pause of any level covers a wallet.
func (b *book) stopped(org, wallet string) error { return b.held(org, wallet, "") }

// held says whether a pause of any level covers a delegation.
func (b *book) held(org, wallet, delegation string) error {
	s := b.standstillOf(org, wallet, delegation)
	switch {
	case s.pause == nil:
		return nil
	case s.pause.Level == LevelRestore:
		return refusal.New(refusal.Quarantined, "the %s was restored from a backup at %s and nobody has looked at it since", s.what, s.pause.Since.Format(time.RFC3339))
	}
	return refusal.New(refusal.Paused, "the %s is paused by its %s since %s", s.what, s.pause.Level, s.pause.Since.Format(time.RFC3339))
}

// awaitScope returns when no signature of the scope is under way.
func (s *Service) awaitScope(ctx context.Context, scope Scope) error {
	s.book.mu.RLock()
	var ids []string
	for id, d := range s.book.delegations {
		if (scope.Organization == "" || d.Organization == scope.Organization) && (scope.Wallet == "" || d.Wallet == scope.Wallet) &&
			(scope.Delegation == "" || id == scope.Delegation) {
			ids = append(ids, id)
		}
	}
	var wallets []string
	for id, w := range s.book.wallets {
		if (scope.Organization == "" || w.Organization == scope.Organization) && (scope.Wallet == "" || id == scope.Wallet) {
			wallets = append(wallets, id)
			if scope.Delegation == "" {
				ids = append(ids, ownID(id))
			}
		}
	}
	s.book.mu.RUnlock()
	if err := s.awaitStamped(ctx, wallets...); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.flights.wait(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
