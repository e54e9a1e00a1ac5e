package delegation

import (
	"context"
	"errors"
	"fmt"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// DelegationRevoked answers RevokeDelegation.
type DelegationRevoked struct {
	DelegationID string `json:"delegation_id"`
}

// RevokeDelegation ends a delegation under the owner's stamp or the root quorum,
// with everybody else off-line:
//
//  1. from its first moment every look-up fails, so that a signature under way
//     stops before its last share leaves;
//  2. the shares of the delegation's set and the verifier of its API key are
//     deleted in the transaction of the journal entry;
//  3. it returns when no signature of the delegation is under way any more.
//
// Deleting the server half is what makes the delegate half worthless; SQLite's
// secure_delete overwrites it, older copies of the file keep it (docs/attacksurface.md).
func (s *Service) RevokeDelegation(ctx context.Context, a Actor, requestID, org, id string) (Delegation, error) {
	authorize := func() error {
		if _, err := s.inside(a, org); err != nil {
			return err
		}
		d, err := s.book.delegation(org, id)
		if err != nil {
			return err
		}
		if s.owner(a, org, d.Owner) == nil {
			return nil
		}
		return s.root(a, org)
	}
	_, err := act(ctx, s, a, org, requestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DelegationRevoked, error) {
		d, err := s.book.delegation(org, id)
		if err != nil {
			return DelegationRevoked{}, err
		}
		e.Wallet, e.Delegation = d.Wallet, d.ID
		if d.Status == statusRevoked {
			return DelegationRevoked{DelegationID: id}, nil
		}
		if d.Status == statusFailed {
			return DelegationRevoked{}, refusal.New(refusal.NotActive, "the delegation failed; there is nothing to revoke")
		}
		return DelegationRevoked{DelegationID: id}, s.endDelegation(tx, d)
	})
	if err != nil {
		return Delegation{}, err
	}
	if err := s.flights.wait(ctx, id); err != nil {
		return Delegation{}, fmt.Errorf("waiting for signatures under way: %w", err)
	}
	d, err := s.book.delegation(org, id)
	if err != nil {
		return Delegation{}, err
	}
	return s.showDelegation(d)
}

// endDelegation destroys what a delegation that is pending or active signs with. Who
// called it waits for its flights after the commit.
func (s *Service) endDelegation(tx *vault.Tx, d *delegationRecord) error {
	tx.OnRollback(s.flights.end(d.ID))
	if d.Vendor != nil {
		if s.vendors == nil {
			return fmt.Errorf("ending delegation %s: no room holds deliveries", d.ID)
		}
		if err := s.vendors.Unbind(tx, *d.Vendor, d.ID); err != nil {
			return err
		}
	}
	return s.putRevoked(tx, d)
}

// putRevoked destroys what a delegation signs with here, and its API key's verifier.
func (s *Service) putRevoked(tx *vault.Tx, d *delegationRecord) error {
	now := s.now().UTC()
	revoked := *d
	revoked.Status, revoked.APIKey, revoked.EndedAt, revoked.Version = statusRevoked, "", &now, d.Version+1
	if err := errors.Join(noteEnd(tx, &revoked), s.destroyShares(tx, d)); err != nil {
		return err
	}
	if d.APIKey != "" {
		if err := tx.Delete(vault.TypeAPIKey, d.APIKey); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return fmt.Errorf("destroying the API key verifier: %w", err)
		}
		s.book.change(tx, func() { delete(s.book.apiKeys, d.APIKey) })
	}
	if err := s.tellEnded(tx, d); err != nil {
		return err
	}
	return s.putEnded(tx, &revoked)
}
