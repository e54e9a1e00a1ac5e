package delegation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A share of the root set that is lost is never made again: the other two parties
// make a new set, with a fresh share for whoever lost theirs, and destroy the old
// one. Whoever finds the lost share finds nothing. There are three cases:
//
//   - the owner lost the share, not their credential: [Service.RecoverShare];
//   - the owner lost the device, with credential, share and age identity:
//     [Service.RecoverDevice], the only one that the owner can't stamp;
//   - the recovery custodian's share is gone: [Service.RecoverCustodian], for which
//     the owner brings theirs along.

// NewShareRecovery asks for a fresh share for a wallet's owner.
type NewShareRecovery struct {
	RequestID    string
	Organization string
	Wallet       string
	// Recipient, if not "", is where the fresh share and all later ones go, with
	// the signature of one of the owner's credentials.
	Recipient          string
	RecipientSignature []byte
}

// RecoverShare makes a new root set without the owner's share, for an owner who lost
// it. It takes the owner's stamp, or the root quorum as long as the share goes where
// the owner registered. Durable on return; the ceremony ends later.
func (s *Service) RecoverShare(ctx context.Context, a Actor, n NewShareRecovery) (CeremonyStarted, error) {
	authorize := func() error {
		if n.Recipient == "" {
			return s.ownerOrRoot(a, n.Organization, n.Wallet)
		}
		_, err := s.ownWallet(a, n.Organization, n.Wallet)
		return err
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CeremonyStarted, error) {
		_, k, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return CeremonyStarted{}, err
		}
		if n.Recipient != "" {
			if err := s.moveRecipient(tx, k, n); err != nil {
				return CeremonyStarted{}, err
			}
		}
		e.Facts = map[string]string{"lost": "user-share"}
		id, err := s.startRotation(tx, e, k, rotation{kind: kindRecover, without: mpc.User, recipient: n.Recipient})
		return CeremonyStarted{CeremonyID: id}, err
	})
}

// moveRecipient registers where an owner's shares go from now on.
func (s *Service) moveRecipient(tx *vault.Tx, k *key, n NewShareRecovery) error {
	u, err := s.book.user(k.Organization, k.Owner)
	if err != nil {
		return err
	}
	if err := checkRecipient("share_recipient", n.Recipient); err != nil {
		return err
	}
	signed := slices.ContainsFunc(u.Credentials, func(r registered) bool {
		pk, err := credential.ParsePublicKey(credential.Algorithm(r.Algorithm), r.PublicKey)
		return err == nil && credential.VerifyRecipient(pk, n.Recipient, n.RecipientSignature) == nil
	})
	if !signed {
		return refusal.New(refusal.RequestInvalid, "share_recipient is not signed by a credential of the owner").With("field", "share_recipient_signature")
	}
	moved := *u
	moved.ShareRecipient = n.Recipient
	return s.putUser(tx, &moved)
}

func (s *Service) putUser(tx *vault.Tx, u *user) error {
	s.book.change(tx, func() { s.book.setUserLocked(u) })
	return store(tx, vault.TypeUser, u.ID, u)
}

// NewDeviceRecovery gives an end user other credentials.
type NewDeviceRecovery struct {
	RequestID    string
	Organization string
	User         string
	// Credentials take the place of all that the user had, and Recipient, signed by
	// the first of them, that of the share recipient.
	Credentials        []NewCredential
	Recipient          string
	RecipientSignature []byte
}

// DeviceRecovered answers RecoverDevice.
type DeviceRecovered struct {
	// Ceremonies make the new root sets, one a key.
	Ceremonies []string `json:"ceremonies"`
}

// RecoverDevice is for an end user whose device is lost or in other hands: the root
// quorum, or the user with another credential of theirs, replaces credentials and share
// recipient at once, and each of the user's keys gets a new root set without the lost
// share. What the old credentials stamped, delegations above all, stands. A root quorum
// can thereby become any of its end users but those to whom a key was delegated for ever:
// these keep a second credential elsewhere, or nobody recovers them. The journal names
// it, and no older copy of the store forgets it. A key whose owner's device made its
// share says in_process from then on. Durable on return; the ceremonies end later.
func (s *Service) RecoverDevice(ctx context.Context, a Actor, n NewDeviceRecovery) (DeviceRecovered, error) {
	authorize := func() error { return s.mayRecoverDevice(a, n.Organization, n.User) }
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DeviceRecovered, error) {
		u, err := s.book.user(n.Organization, n.User)
		if err != nil {
			return DeviceRecovered{}, err
		}
		if u.Kind != EndUser {
			return DeviceRecovered{}, refusal.New(refusal.RequestInvalid, "only an end user has a device").With("field", "user_id")
		}
		fresh, err := checkUser(NewUser{Name: u.Name, Kind: EndUser, Credentials: n.Credentials, ShareRecipient: n.Recipient, RecipientSignature: n.RecipientSignature})
		if err != nil {
			return DeviceRecovered{}, err
		}
		now := s.clock()
		for i := range fresh.Credentials {
			c := &fresh.Credentials[i]
			if h := s.book.holder(u.Organization, c.ID); h != nil && h.ID != u.ID {
				return DeviceRecovered{}, s.vacant(u.Organization, EndUser, c.ID)
			}
			c.CreatedAt = &now
		}
		changed := *u
		changed.Credentials, changed.ShareRecipient = fresh.Credentials, fresh.ShareRecipient
		if err := s.putUser(tx, &changed); err != nil {
			return DeviceRecovered{}, err
		}
		tx.Advance() // no older copy of the store may bring the lost credentials back
		made := DeviceRecovered{Ceremonies: []string{}}
		e.Facts = map[string]string{"lost": "device"}
		for _, k := range s.book.keysOf(u.ID) {
			r := rotation{kind: kindRecover, without: mpc.User, recipient: n.Recipient}
			if !k.madeHere() {
				r.origin = originInProcess
			}
			id, err := s.startRotation(tx, e, k, r)
			if err != nil {
				return DeviceRecovered{}, err
			}
			made.Ceremonies = append(made.Ceremonies, id)
		}
		e.Wallet, e.User = "", u.ID
		delete(e.Facts, "key")
		delete(e.Facts, "from")
		e.Facts["ceremony"], e.Facts["credentials"] = fmt.Sprint(made.Ceremonies), fmt.Sprint(credentialIDs(fresh.Credentials))
		return made, nil
	})
}

// mayRecoverDevice demands a credential of the user's own, or the root quorum unless a
// key was delegated to the user for ever: nobody else shall have that again.
func (s *Service) mayRecoverDevice(a Actor, org, id string) error {
	if _, err := s.inside(a, org); err != nil {
		return err
	}
	if id != "" && s.owner(a, org, id) == nil {
		return nil
	}
	if err := s.root(a, org); err != nil {
		return err
	}
	for _, k := range s.book.keysOf(id) {
		if k.Delay {
			return refusal.New(refusal.NotActive, "key %s was delegated to this user for ever: only they can put other credentials in the place of theirs", k.ID).With("key", k.ID)
		}
	}
	return nil
}

func credentialIDs(list []registered) []string {
	ids := make([]string, len(list))
	for i, r := range list {
		ids[i] = r.ID
	}
	return ids
}

// keysOf lists an owner's keys that have a root set, by id.
func (b *book) keysOf(owner string) (of []*key) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.keys {
		if k.Owner == owner && k.Status == statusActive {
			of = append(of, k)
		}
	}
	slices.SortFunc(of, func(x, y *key) int { return strings.Compare(x.ID, y.ID) })
	return of
}

// NewCustodianRecovery asks for a root set with another recovery share.
type NewCustodianRecovery struct {
	RequestID    string
	Organization string
	Wallet       string
	// Share is the owner's encoded share of the root set, lent.
	Share []byte
}

// RecoverCustodian makes a new root set without the recovery share, for one that is
// destroyed, unreadable or in wrong hands. The owner stamps it and brings their own
// share, which this process holds in locked memory for the ceremony and which is
// worth nothing after it: a fresh one waits in the outbox. A restart before the
// ceremony's end forgets it, and the ceremony fails. Durable on return.
func (s *Service) RecoverCustodian(ctx context.Context, a Actor, n NewCustodianRecovery) (CeremonyStarted, error) {
	set, party, err := mpc.DescribeShare(n.Share)
	if err != nil {
		return CeremonyStarted{}, refusal.New(refusal.RequestInvalid, "share is not an encoded share").With("field", "share")
	}
	share, err := secmem.From(slices.Clone(n.Share))
	if err != nil {
		return CeremonyStarted{}, err
	}
	started := false
	defer func() {
		if !started {
			share.Destroy() // refused, or answered before
		}
	}()
	authorize := func() error {
		_, err := s.ownWallet(a, n.Organization, n.Wallet)
		return err
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CeremonyStarted, error) {
		_, k, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return CeremonyStarted{}, err
		}
		if party != mpc.User || set.ID != k.Root.ID {
			return CeremonyStarted{}, refusal.New(refusal.RequestInvalid, "share is of %s in set %s, want the owner's of %s", party, set.ID, k.Root.ID).With("field", "share")
		}
		e.Facts = map[string]string{"lost": "recovery-custodian"}
		r := rotation{kind: kindRecover, without: mpc.Recovery, brought: share.Use, ended: []func(){share.Destroy}}
		id, err := s.startRotation(tx, e, k, r)
		if err == nil {
			tx.OnCommit(func() { started = true })
		}
		return CeremonyStarted{CeremonyID: id}, err
	})
}
