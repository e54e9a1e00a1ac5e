package delegation

import (
	"context"
	"errors"
	"slices"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// NewImport asks for a wallet with a key that exists.
type NewImport struct {
	NewWallet
	// Secret is lent: 32 bytes, a secp256k1 private key or an Ed25519 seed.
	Secret []byte
}

// ImportWallet is CreateWallet for a key that exists whole: it is shared out, and
// the key's origin is "imported" for ever. The secret is in locked memory until
// the ceremony has ended; a restart before that forgets it, and the ceremony fails.
func (s *Service) ImportWallet(ctx context.Context, a Actor, n NewImport) (WalletStarted, error) {
	if err := checkName("name", n.Name); err != nil {
		return WalletStarted{}, err
	}
	scheme, err := schemeOf(n.Chain)
	if err != nil {
		return WalletStarted{}, err
	}
	if _, err := mpc.PublicKeyOf(scheme, n.Secret); err != nil {
		return WalletStarted{}, refusal.New(refusal.RequestInvalid, "private_key is not a private key for this chain").With("field", "private_key")
	}
	secret, err := secmem.From(slices.Clone(n.Secret))
	if err != nil {
		return WalletStarted{}, err
	}
	started := false
	defer func() {
		if !started {
			secret.Destroy() // refused, or answered before
		}
	}()
	makeKey := func(ctx context.Context, r mpc.KeygenRequest) (set mpc.ShareSet, shares []*mpc.Share, err error) {
		defer secret.Destroy()
		err = secret.Use(func(b []byte) error {
			set, shares, err = mpc.Import(ctx, mpc.ImportRequest{SetID: r.SetID, Scheme: r.Scheme, Parties: r.Parties, Threshold: r.Threshold,
				PreParams: r.PreParams, Progress: r.Progress, Secret: b})
			return err
		})
		return set, shares, err
	}
	return s.startWallet(ctx, a, n.NewWallet, pendingKey{scheme: scheme, origin: originImported, kind: kindImport}, makeKey, func() { started = true })
}

// NewDerived asks for a further address of a key.
type NewDerived struct {
	RequestID    string
	Organization string
	// Wallet is one of the key's wallets, active.
	Wallet string
	// Path is below the key, as "0/7".
	Path string
	Name string
}

// WalletDerived answers DeriveWallet.
type WalletDerived struct {
	WalletID string `json:"wallet_id"`
}

// DeriveWallet makes a wallet whose address is derived from the key of another
// (BIP-32, not hardened), under the root quorum. It is the same owner's, needs no
// ceremony, and is active at once. Durable on return.
func (s *Service) DeriveWallet(ctx context.Context, a Actor, n NewDerived) (Wallet, error) {
	if err := checkName("name", n.Name); err != nil {
		return Wallet{}, err
	}
	path, err := mpc.ParsePath(n.Path)
	if err != nil {
		return Wallet{}, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "path")
	}
	made, err := act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (WalletDerived, error) {
		parent, k, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return WalletDerived{}, err
		}
		if parent.Status != statusActive {
			return WalletDerived{}, refusal.New(refusal.NotActive, "the wallet is %s", parent.Status)
		}
		if err := s.book.stopped(n.Organization, parent.ID); err != nil {
			return WalletDerived{}, err
		}
		for _, w := range s.book.walletsOf(k.ID) {
			if slices.Equal(w.Path, path) {
				return WalletDerived{}, refusal.New(refusal.RequestInvalid, "wallet %s has this path", w.ID).With("field", "path")
			}
		}
		public, err := s.derivedKey(tx, k, path)
		if err != nil {
			return WalletDerived{}, err
		}
		address, err := addressOf(parent.Chain, public)
		if err != nil {
			return WalletDerived{}, err
		}
		w := &wallet{V: recordVersion, ID: newID("wal"), Organization: n.Organization, Key: k.ID, Owner: parent.Owner, Chain: parent.Chain,
			Name: n.Name, Address: address, Status: statusActive, CreatedAt: s.now().UTC(), Path: path, PublicKey: public}
		if err := store(tx, vault.TypeWallet, w.ID, w); err != nil {
			return WalletDerived{}, err
		}
		s.book.change(tx, func() { s.book.fileWallet(w) })
		e.Wallet, e.User = w.ID, w.Owner
		e.Facts = map[string]string{"key": k.ID, "path": n.Path, "address": address}
		return WalletDerived{WalletID: w.ID}, nil
	})
	if err != nil {
		return Wallet{}, err
	}
	w, k, err := s.book.wallet(n.Organization, made.WalletID)
	if err != nil {
		return Wallet{}, err
	}
	return showWallet(w, k), nil
}

// derivedKey reads the chain code out of a share that is sealed here.
func (s *Service) derivedKey(tx *vault.Tx, k *key, path []uint32) (public []byte, err error) {
	if len(k.Here) == 0 {
		return nil, refusal.New(refusal.NotActive, "no share of the key is here")
	}
	err = tx.With(vault.TypeShare, ShareID(k.Root.ID, k.Here[0]), func(encoded []byte) error {
		public, err = mpc.DerivedKey(encoded, path)
		return err
	})
	if errors.Is(err, mpc.ErrPath) {
		return nil, refusal.New(refusal.RequestInvalid, "nothing can be derived from this key at this path: %v", err).With("field", "path")
	}
	return public, err
}
