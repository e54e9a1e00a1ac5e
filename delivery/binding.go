package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// What was delivered is pending: no policy, no caller, nothing signs with it. The
// organization binds it to a delegation of its own making (delegation/vendor.go).
// From then on:
//
//   - a newer delivery for the same set stands beside it, and takes its place when a
//     signature made with it has verified against the address, not before;
//   - what signs wrong is frozen: nothing signs with it any more, its delegation is
//     paused by the appliance, and the organization looks;
//   - the vendor's revocation ends the delegation, and the delegation's revocation
//     destroys share and API key. What comes later waits for the organization again.

// Delegations is who signs with what was delivered. Its methods run inside the
// transaction that changes the delivery.
type Delegations interface {
	// EndVendor ends a delegation whose share is being destroyed.
	EndVendor(tx *vault.Tx, delegation string) error
	// HoldVendor pauses a delegation by the appliance.
	HoldVendor(tx *vault.Tx, delegation, reason string) error
	// Await returns when no signature of the delegation is under way.
	Await(ctx context.Context, delegation string) error
}

// errNoDelivery is told of a delivery of another organization, too.
func errNoDelivery() *refusal.Error { return refusal.New(refusal.NotFound, "no such delivery") }

// find locates a delivery of an organization by its id.
func (b *book) find(org, id string) (hook *webhook, w *vendorWallet, set string, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, w := range b.wallets {
		hook := b.webhooks[w.Webhook]
		if hook.Organization != org {
			continue
		}
		for set, m := range w.Sets {
			if m.ID == id {
				return hook, w, set, true
			}
		}
	}
	return nil, nil, "", false
}

// OfferShare shows what a pending delivery is for, and whether another sigild handed it
// over. It refuses one that isn't there or does not wait.
func (s *Service) OfferShare(tx *vault.Tx, org, id string) (signing.VendorOffer, error) {
	hook, w, set, ok := s.book.find(org, id)
	if !ok {
		return signing.VendorOffer{}, errNoDelivery()
	}
	m := w.Sets[set]
	if m.Status != Pending {
		return signing.VendorOffer{}, refusal.New(refusal.NotActive, "the delivery is %s", m.Status)
	}
	offer := signing.VendorOffer{Share: signing.VendorShare{Webhook: w.Webhook, Wallet: w.Wallet, ShareSet: set}, Chain: m.Chain, Address: m.Address}
	err := tx.With(vault.TypeVendorShare, w.record(hook.Environment, set, m), func(text []byte) error {
		return mpc.OpenHandover(text, func(h mpc.Handover, share []byte) (err error) {
			offer.Handover = &h
			offer.PublicKey, err = mpc.DerivedKey(share, h.Path)
			return err
		})
	})
	if errors.Is(err, mpc.ErrHandover) || errors.Is(err, mpc.ErrPath) { // whatever it is, it is a vendor's own
		offer.Handover, offer.PublicKey, err = nil, nil, nil
	}
	return offer, err
}

// Bind has a delegation sign with a pending delivery, in the act's transaction.
func (s *Service) Bind(tx *vault.Tx, org, id, delegation string) error {
	_, w, set, ok := s.book.find(org, id)
	if !ok {
		return errNoDelivery()
	}
	c := w.clone()
	m := c.Sets[set]
	m.Status, m.Delegation = Bound, delegation
	c.Sets[set] = m
	return s.put(tx, c)
}

// Unbind destroys what a delegation signs with, in the transaction that ends it, and
// stops what is under way. What stood beside it is pending from then on.
func (s *Service) Unbind(tx *vault.Tx, share signing.VendorShare, delegation string) error {
	hook := s.book.webhook(share.Webhook)
	if hook == nil {
		return fmt.Errorf("destroying a vendor's share: webhook %s is missing", share.Webhook)
	}
	// Read again: the end of a user ends delegations of several sets of one wallet at once.
	c, err := wallet(tx, share)
	if err != nil {
		return fmt.Errorf("destroying a vendor's share: %w", err)
	}
	m, ok := c.Sets[share.ShareSet]
	if !ok || m.Delegation != delegation {
		return nil // the vendor ended it first
	}
	if err := destroy(tx, c.record(hook.Environment, share.ShareSet, m)); err != nil {
		return err
	}
	c.unbind(share.ShareSet)
	tx.OnCommit(func() { s.running.stop(delegation) })
	return s.put(tx, c)
}

// endDelegation ends the delegation of a share that its vendor revoked; "" is none.
func (s *Service) endDelegation(tx *vault.Tx, delegation string) error {
	if delegation == "" {
		return nil
	}
	if s.cfg.Delegations == nil {
		return errors.New("ending a delegation: there is nobody who knows delegations")
	}
	tx.OnCommit(func() { s.running.stop(delegation) })
	return s.cfg.Delegations.EndVendor(tx, delegation)
}

// wallet is what this transaction knows of a wallet so far; it may be changed.
func wallet(tx *vault.Tx, share signing.VendorShare) (w *vendorWallet, err error) {
	err = tx.With(vault.TypeVendorWallet, walletKey(share.Webhook, share.Wallet), func(b []byte) error {
		w = new(vendorWallet)
		return vault.DecodeObject(b, recordVersion, w)
	})
	if err != nil {
		return nil, err
	}
	return w.clone(), nil
}

func (s *Service) put(tx *vault.Tx, w *vendorWallet) error {
	if err := tx.PutObject(vault.TypeVendorWallet, w.key(), w); err != nil {
		return err
	}
	s.book.change(tx, func() { s.book.wallets[w.key()] = w })
	return nil
}

// proved remembers that a signature made with a material verified: what stood beside
// takes the place of the other, whose records are destroyed.
func (s *Service) proved(ctx context.Context, share signing.VendorShare, delegation, material string) error {
	return s.cfg.Vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		hook := s.book.webhook(share.Webhook)
		c := s.book.wallet(share.Webhook, share.Wallet).clone()
		m := c.Sets[share.ShareSet]
		e := journal.Entry{Kind: journal.KindAct, Method: "delivery/proved", Organization: hook.Organization, Delegation: delegation, Outcome: "proved"}
		e.Facts = map[string]string{"webhook": hook.ID, "vendor_wallet": c.Wallet, "delivery": material}
		switch next := c.Beside[share.ShareSet]; {
		case m.ID == material && m.Status == Bound && !m.Proven:
			m.Proven = true
			c.Sets[share.ShareSet] = m
		case next.ID == material && m.Delegation == delegation:
			if err := destroy(tx, c.record(hook.Environment, share.ShareSet, m)); err != nil {
				return err
			}
			next.Status, next.Delegation, next.Proven = Bound, delegation, true
			c.Sets[share.ShareSet] = next
			delete(c.Beside, share.ShareSet)
			e.Facts["instead_of"] = m.ID
		default:
			return nil // it was proved before, or has ended meanwhile
		}
		if err := s.put(tx, c); err != nil {
			return err
		}
		_, err := s.cfg.Journal.Append(tx, e)
		return err
	})
}

// froze remembers that a signature made with a material did not verify. A bound one
// pauses its delegation; one that stood beside is destroyed.
func (s *Service) froze(ctx context.Context, share signing.VendorShare, delegation, material string) error {
	return s.cfg.Vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		hook := s.book.webhook(share.Webhook)
		c := s.book.wallet(share.Webhook, share.Wallet).clone()
		m := c.Sets[share.ShareSet]
		e := journal.Entry{Kind: journal.KindAct, Method: "delivery/frozen", Organization: hook.Organization, Delegation: delegation, Outcome: string(Frozen),
			Reason: "a signature made with it does not verify against the wallet's address"}
		e.Facts = map[string]string{"webhook": hook.ID, "vendor_wallet": c.Wallet, "delivery": material}
		switch next := c.Beside[share.ShareSet]; {
		case m.ID == material && m.Status == Bound:
			m.Status = Frozen
			c.Sets[share.ShareSet] = m
			if err := s.cfg.Delegations.HoldVendor(tx, delegation, "its share signs for another address"); err != nil {
				return err
			}
		case next.ID == material:
			if err := destroy(tx, c.record(hook.Environment, share.ShareSet, next)); err != nil {
				return err
			}
			delete(c.Beside, share.ShareSet)
		default:
			return nil
		}
		if err := s.put(tx, c); err != nil {
			return err
		}
		s.log.Error("a vendor's share is frozen: it signs for another address", "webhook", hook.ID, "wallet", c.Wallet, "delivery", material, "delegation", delegation)
		_, err := s.cfg.Journal.Append(tx, e)
		return err
	})
}
