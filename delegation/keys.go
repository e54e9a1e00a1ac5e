package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Key is what a member may see of one.
type Key struct {
	ID, Owner, Status, Origin, Custody string
	Scheme                             chains.Scheme
	PublicKey                          []byte
	// Wallets are the ids of the key's wallets, sorted.
	Wallets []string
	// RootSet is the id of its root set, of Threshold of so many Parties.
	RootSet             string
	Parties, SharesHere []string
	Threshold           int
	Epoch               uint64
	// RootSince is when it got this root set.
	RootSince time.Time
	// RotateEvery is how old a root set may become; zero: any age.
	RotateEvery time.Duration
	// ShareWaits: the owner has not confirmed the share of this root set.
	ShareWaits bool
	// Renew: the key was handed over and its root set is still the one of before.
	Renew bool
	// Failures counts broken ceremonies by party since the key was last resumed.
	Failures map[string]int
	// Frozen: the appliance paused its wallets after too many of them.
	Frozen bool
	// Presignatures may be kept for its delegations.
	Presignatures bool
}

// Key shows the key of a wallet to its owner and to root members.
func (s *Service) Key(ctx context.Context, a Actor, org, walletID string) (Key, error) {
	if err := s.member(a, org); err != nil {
		return Key{}, err
	}
	w, k, err := s.book.wallet(org, walletID)
	if err != nil {
		return Key{}, err
	}
	if !s.concerns(a, org, w.Owner) {
		return Key{}, refusal.New(refusal.NotFound, "no such wallet")
	}
	out := Key{
		ID: k.ID, Owner: k.Owner, Status: k.Status, Origin: k.Origin, Custody: k.custody(), Scheme: k.Scheme, PublicKey: k.Root.PublicKey,
		RootSet: k.Root.ID, Threshold: k.Root.Threshold, Epoch: k.Root.Epoch, RootSince: k.rootSince(), RotateEvery: k.RotateEvery,
		Failures: map[string]int{}, Presignatures: k.Presignatures, Renew: k.Renew,
	}
	for _, p := range k.Root.Parties {
		out.Parties = append(out.Parties, string(p))
	}
	for _, p := range k.Here {
		out.SharesHere = append(out.SharesHere, string(p))
	}
	for p, n := range k.Failures {
		out.Failures[string(p)] = n
	}
	for _, other := range s.book.walletsOf(k.ID) {
		out.Wallets = append(out.Wallets, other.ID)
		out.Frozen = out.Frozen || other.Paused != nil && other.Paused.Level == LevelAppliance
	}
	slices.Sort(out.Wallets)
	main := s.book.mainWallet(k.ID)
	if main == nil {
		return Key{}, fmt.Errorf("showing key %s: it has no wallet", k.ID)
	}
	err = s.vault.With(ctx, vault.TypeOutbox, main.ID, func([]byte) error { return nil })
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return Key{}, err
	}
	out.ShareWaits = err == nil
	return out, nil
}

// KeySettings changes what is set of a wallet's key; what is nil stays.
type KeySettings struct {
	RequestID    string
	Organization string
	Wallet       string
	// RotateEvery is how old a root set may become before it is rotated, an hour to ten
	// years; zero: any age.
	RotateEvery *time.Duration
	// Presignatures lets the key's delegations keep presignatures in memory. ECDSA only.
	Presignatures *bool
}

// KeySet answers SetKey.
type KeySet struct {
	KeyID string `json:"key_id"`
}

const (
	minRotateEvery = time.Hour
	maxRotateEvery = 10 * 365 * 24 * time.Hour
)

// SetKey changes a key's settings under the owner's stamp or the root quorum.
// Durable on return.
func (s *Service) SetKey(ctx context.Context, a Actor, n KeySettings) (Key, error) {
	if d := n.RotateEvery; d != nil && *d != 0 && (*d < minRotateEvery || *d > maxRotateEvery) {
		return Key{}, refusal.New(refusal.RequestInvalid, "a root set is rotated every hour at the most and every ten years at the least").With("field", "rotate_every_seconds")
	}
	authorize := func() error { return s.ownerOrRoot(a, n.Organization, n.Wallet) }
	_, err := act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (KeySet, error) {
		w, k, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return KeySet{}, err
		}
		changed := *k
		e.Wallet = w.ID
		e.Facts = map[string]string{"key": k.ID}
		if n.RotateEvery != nil {
			changed.RotateEvery = *n.RotateEvery
			e.Facts["rotate_every"] = n.RotateEvery.String()
		}
		if n.Presignatures != nil {
			if *n.Presignatures && k.Scheme != chains.ECDSASecp256k1 {
				return KeySet{}, refusal.New(refusal.RequestInvalid, "presignatures are for secp256k1 keys: Ed25519 signs in a millisecond without").With("field", "presignatures")
			}
			changed.Presignatures = *n.Presignatures
			e.Facts["presignatures"] = fmt.Sprint(*n.Presignatures)
		}
		return KeySet{KeyID: k.ID}, s.putKey(tx, &changed)
	})
	if err != nil {
		return Key{}, err
	}
	return s.Key(ctx, a, n.Organization, n.Wallet)
}
