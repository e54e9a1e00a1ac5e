package delegation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// A delegation whose time is over signs nothing, by the later of two clocks, whether
// anybody wrote that down or not (signing's steps 4 and 7). What is written down
// here is the rest of its end: its shares are destroyed. The journal's clock decides,
// which never goes back, so nothing is destroyed that could have signed again.

// expireEvery is how often ends are looked for; nothing depends on it.
const expireEvery = time.Minute

// RunExpiry ends what is over until ctx does. What fails is logged and tried again.
func (s *Service) RunExpiry(ctx context.Context) error {
	for {
		if err := s.Expire(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("ending expired delegations", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(expireEvery):
		}
	}
}

// Expire ends every delegation and proposal whose time is over, each in a
// transaction of its own.
func (s *Service) Expire(ctx context.Context) error {
	for _, id := range s.book.over(s.clock()) {
		if err := s.expire(ctx, id); err != nil {
			return fmt.Errorf("ending delegation %s: %w", id, err)
		}
	}
	return nil
}

// over lists what may have ended by now.
func (b *book) over(now time.Time) (ids []string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, d := range b.delegations {
		if d.Status == statusActive && d.expired(now) || d.lapsed(now) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *Service) expire(ctx context.Context, id string) error {
	return s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		now := s.journal.At(tx).Now().UTC()
		d := find(s.book, s.book.delegations, id)
		active := d.Status == statusActive && d.expired(now)
		if !active && !d.lapsed(now) {
			return nil
		}
		ended := *d
		ended.Status, ended.EndedAt, ended.Version = statusExpired, &now, d.Version+1
		if err := errors.Join(noteEnd(tx, &ended), s.destroyShares(tx, d)); err != nil {
			return err
		}
		if d.Vendor != nil && s.vendors != nil {
			if err := s.vendors.Unbind(tx, *d.Vendor, id); err != nil {
				return err
			}
		}
		e := journal.Entry{Kind: journal.KindAct, Method: "delegation/expire", Organization: d.Organization, Wallet: d.Wallet, Delegation: id, User: d.DelegatedUser, Outcome: statusExpired}
		if !active {
			e.Reason = "nobody approved it in time"
		}
		if err := s.tellEnded(tx, d); err != nil {
			return err
		}
		if err := s.putEnded(tx, &ended); err != nil {
			return err
		}
		_, err := s.journal.Append(tx, e)
		return err
	})
}

// destroyShares deletes what a delegation signs with.
func (s *Service) destroyShares(tx *vault.Tx, d *delegationRecord) error {
	own := d.Set.Parties
	if d.Vendor != nil { // its share is the delivery's, and who delivered it chose the set's name
		own = nil
	}
	for _, p := range own {
		if err := tx.Delete(vault.TypeShare, ShareID(d.Set.ID, p)); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return fmt.Errorf("destroying the share of %s: %w", p, err)
		}
	}
	for _, o := range find(s.book, s.book.orders, d.ID).all() {
		if err := s.removeOrder(tx, d.ID, o.ID); err != nil {
			return err
		}
	}
	return nil
}

// putEnded writes a delegation that signs no more.
func (s *Service) putEnded(tx *vault.Tx, ended *delegationRecord) error {
	s.book.change(tx, func() { s.book.delegations[ended.ID] = ended })
	return store(tx, vault.TypeDelegation, ended.ID, ended)
}
