package delegation

import (
	"context"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// An operator may seal the appliance on purpose. That is a fact in the appliance's
// record: a daemon that starts again finds it and stays sealed, until the
// operators' quorum says otherwise.

// SealChanged answers Seal and Unseal.
type SealChanged struct{}

// Seal records that the appliance is sealed, on any operator's stamp. Durable on
// return; whoever called it closes the rooms and wipes the root key then.
func (s *Service) Seal(ctx context.Context, a Actor, requestID, reason string) error {
	if err := checkName("reason", reason); err != nil {
		return err
	}
	authorize := func() error {
		if a.Organization != "" || matching(s.book.appliance().Operators, a, s.clock()) == 0 {
			return quorumMissing("operators", 0, 1)
		}
		return nil
	}
	_, err := act(ctx, s, a, "", requestID, authorize, func(tx *vault.Tx, e *journal.Entry) (SealChanged, error) {
		e.Reason = reason
		return SealChanged{}, s.setSealed(tx, reason)
	})
	return err
}

// Unseal takes the record back under the operators' quorum. Durable on return.
func (s *Service) Unseal(ctx context.Context, a Actor, requestID string) error {
	_, err := act(ctx, s, a, "", requestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (SealChanged, error) {
		if s.book.appliance().SealedFor == "" {
			return SealChanged{}, refusal.New(refusal.NotActive, "the appliance is not sealed by an operator")
		}
		return SealChanged{}, s.setSealed(tx, "")
	})
	return err
}

func (s *Service) setSealed(tx *vault.Tx, reason string) error {
	a := *s.book.appliance()
	a.SealedFor = reason
	if reason != "" {
		tx.Advance()
	}
	s.book.change(tx, func() { s.book.self = &a })
	return store(tx, vault.TypeAppliance, applianceRecord, &a)
}

// SealedFor is the reason an operator gave for sealing; "" while not sealed so.
func (s *Service) SealedFor() string { return s.book.appliance().SealedFor }

// Guard is what a sealed daemon remembers, so that operators' stamps can be told
// from others while the store is closed. Nothing in it is secret.
type Guard struct {
	ApplianceID string
	operators   []registered
}

// Guard copies what is needed out of the open store.
func (s *Service) Guard() Guard {
	self := s.book.appliance()
	return Guard{ApplianceID: self.ID, operators: self.Operators}
}

// Knows reports whether the key is an operator's.
func (g Guard) Knows(pk credential.PublicKey) bool {
	return matching(g.operators, Actor{Credentials: []credential.PublicKey{pk}}, time.Time{}) > 0
}
