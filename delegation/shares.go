package delegation

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// ShareOut is an owner's share on its way out.
type ShareOut struct {
	Ciphertext []byte
	CreatedAt  time.Time
}

// FetchShare returns the owner's encrypted share: that of a new key, or the new one
// after a rotation. It may be asked for again until it is confirmed; it needs the
// owner's stamp. The wallet may be any of the key's.
func (s *Service) FetchShare(ctx context.Context, a Actor, org, walletID string) (ShareOut, error) {
	w, err := s.ownWallet(a, org, walletID)
	if err != nil {
		return ShareOut{}, err
	}
	out := new(waitingShare)
	err = s.vault.With(ctx, vault.TypeOutbox, s.book.mainWallet(w.Key).ID, func(b []byte) error { return decodeRecord(b, out) })
	if errors.Is(err, vault.ErrNotFound) {
		return ShareOut{}, refusal.New(refusal.NotActive, "no share waits for this wallet: its ceremony has not ended, or the share was confirmed")
	}
	if err != nil {
		return ShareOut{}, err
	}
	return ShareOut{Ciphertext: out.Ciphertext, CreatedAt: out.CreatedAt}, nil
}

// NewReceipt confirms that the owner holds the share.
type NewReceipt struct {
	RequestID    string
	Organization string
	Wallet       string
	// SHA256 of the ciphertext that was received.
	SHA256 []byte
}

// ShareConfirmed answers ConfirmShare.
type ShareConfirmed struct {
	WalletID string `json:"wallet_id"`
}

// ConfirmShare takes the owner's stamp as the receipt: the ciphertext is deleted
// and the wallet becomes active. Durable on return.
func (s *Service) ConfirmShare(ctx context.Context, a Actor, n NewReceipt) (Wallet, error) {
	if len(n.SHA256) != sha256.Size {
		return Wallet{}, refusal.New(refusal.RequestInvalid, "ciphertext_sha256 must have 32 bytes").With("field", "ciphertext_sha256")
	}
	authorize := func() error {
		_, err := s.ownWallet(a, n.Organization, n.Wallet)
		return err
	}
	_, err := act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (ShareConfirmed, error) {
		w, _, err := s.book.wallet(n.Organization, n.Wallet)
		if err != nil {
			return ShareConfirmed{}, err
		}
		w = s.book.mainWallet(w.Key) // the share is the key's
		out := new(waitingShare)
		err = tx.With(vault.TypeOutbox, w.ID, func(b []byte) error { return decodeRecord(b, out) })
		if errors.Is(err, vault.ErrNotFound) {
			return ShareConfirmed{}, refusal.New(refusal.NotActive, "no share waits for this wallet")
		}
		if err != nil {
			return ShareConfirmed{}, err
		}
		sum := sha256.Sum256(out.Ciphertext)
		if subtle.ConstantTimeCompare(sum[:], n.SHA256) != 1 {
			return ShareConfirmed{}, refusal.New(refusal.RequestInvalid, "ciphertext_sha256 is not that of the share that waits").With("field", "ciphertext_sha256")
		}
		if err := tx.Delete(vault.TypeOutbox, w.ID); err != nil {
			return ShareConfirmed{}, err
		}
		e.Wallet, e.User = w.ID, w.Owner
		e.Facts = map[string]string{"receipt": hex.EncodeToString(sum[:])}
		confirmed := ShareConfirmed{WalletID: w.ID}
		if w.Status == statusActive {
			return confirmed, nil // it was the share of a new root set
		}
		active := *w
		active.Status = statusActive
		if err := store(tx, vault.TypeWallet, w.ID, &active); err != nil {
			return ShareConfirmed{}, err
		}
		s.book.change(tx, func() { s.book.fileWallet(&active) })
		return confirmed, s.proposeFor(tx, e, &active)
	})
	if err != nil {
		return Wallet{}, err
	}
	w, k, err := s.book.wallet(n.Organization, n.Wallet)
	if err != nil {
		return Wallet{}, err
	}
	return showWallet(w, k), nil
}
