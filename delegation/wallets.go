package delegation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// NewWallet asks for a key and its wallet.
type NewWallet struct {
	RequestID    string
	Organization string
	Owner        string
	// Chain is "eip155" or a whole CAIP-2 id of a Solana cluster.
	Chain string
	Name  string
	// Delay: the key is the organization's until DelegateKey, and Owner is empty.
	Delay bool
}

// WalletStarted answers CreateWallet.
type WalletStarted struct {
	WalletID   string `json:"wallet_id"`
	KeyID      string `json:"key_id"`
	CeremonyID string `json:"ceremony_id"`
}

// Wallet is what a member may see of one.
type Wallet struct {
	ID, Key, Owner, Chain, Name, Address string
	Status                               string
	Scheme                               chains.Scheme
	PublicKey                            []byte
	Origin, Custody                      string
	SharesHere                           []string
	Epoch                                uint64
	// Path is empty but for a derived wallet.
	Path string
}

// schemeOf says which signature scheme a chain takes.
func schemeOf(chain string) (chains.Scheme, error) {
	if chain == "eip155" {
		return chains.ECDSASecp256k1, nil
	}
	ref, ok := strings.CutPrefix(chain, "solana:")
	plain := strings.IndexFunc(ref, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) < 0
	if ok && len(ref) == 32 && plain {
		return chains.EdDSAEd25519, nil
	}
	return "", refusal.New(refusal.RequestInvalid, `chain must be "eip155" or the CAIP-2 id of a Solana cluster, "solana:" and 32 characters`).With("field", "chain")
}

// CreateWallet records a pending key and wallet under the root quorum and starts
// the keygen ceremony of the key's root set, 2-of-3 {user, server, recovery}. All
// parties run in this process, and the key says so for ever. Durable on return;
// the wallet stays pending until its owner confirms the share. With n.Delay it is
// CreateKey of a key that is delegated later.
func (s *Service) CreateWallet(ctx context.Context, a Actor, n NewWallet) (WalletStarted, error) {
	if n.Delay {
		return s.CreateKey(ctx, a, n)
	}
	if err := checkName("name", n.Name); err != nil {
		return WalletStarted{}, err
	}
	scheme, err := schemeOf(n.Chain)
	if err != nil {
		return WalletStarted{}, err
	}
	return s.startWallet(ctx, a, n, pendingKey{scheme: scheme, origin: originInProcess, kind: kindKeygen}, mpc.Keygen, nil)
}

// pendingKey is what a new key is before its ceremony.
type pendingKey struct {
	scheme chains.Scheme
	origin string
	kind   string // of the ceremony
	// delay: it may be delegated later.
	delay bool
}

// maker runs the ceremony that makes a root set.
type maker func(context.Context, mpc.KeygenRequest) (mpc.ShareSet, []*mpc.Share, error)

// startWallet records a pending key and its wallet, and starts the ceremony; started
// hears of that, if it is not nil.
func (s *Service) startWallet(ctx context.Context, a Actor, n NewWallet, p pendingKey, makeKey maker, started func()) (WalletStarted, error) {
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (WalletStarted, error) {
		u, err := s.book.user(n.Organization, n.Owner)
		if err != nil {
			return WalletStarted{}, err
		}
		if u.Kind != EndUser {
			return WalletStarted{}, refusal.New(refusal.RequestInvalid, "a wallet's owner must be an end user").With("field", "owner_user_id")
		}
		made, err := s.addWallet(tx, u, n, p, makeKey, started)
		e.Wallet, e.User = made.WalletID, u.ID
		e.Facts = map[string]string{"key": made.KeyID, "chain": n.Chain, "ceremony": made.CeremonyID, "origin": p.origin}
		return made, err
	})
}

// addWallet records a pending key and its wallet for an end user, or for the
// organization when u is nil, and starts their ceremony after the commit.
func (s *Service) addWallet(tx *vault.Tx, u *user, n NewWallet, p pendingKey, makeKey maker, started func()) (WalletStarted, error) {
	owner, recipient := "", ""
	if u != nil {
		owner, recipient = u.ID, u.ShareRecipient
	}
	k, w, c := s.draftWallet(n, owner, p, statusRunning)
	made, err := s.putDraft(tx, k, w, c)
	if err != nil {
		return WalletStarted{}, err
	}
	tx.OnCommit(func() {
		if started != nil {
			started()
		}
		s.startKeygen(c, k, w, recipient, makeKey)
	})
	return made, nil
}

// draftWallet is a key, its wallet and the ceremony that they wait for, as they begin.
func (s *Service) draftWallet(n NewWallet, owner string, p pendingKey, status string) (*key, *wallet, *ceremonyRecord) {
	now := s.now().UTC()
	k := &key{V: recordVersion, ID: newID("key"), Organization: n.Organization, Owner: owner, Delay: p.delay, Scheme: p.scheme, CreatedAt: now, Origin: p.origin, Status: statusPending}
	w := &wallet{V: recordVersion, ID: newID("wal"), Organization: n.Organization, Key: k.ID, Owner: owner, Chain: n.Chain, Name: n.Name, Status: statusPending, CreatedAt: now}
	c := &ceremonyRecord{V: recordVersion, ID: newID("cer"), Organization: n.Organization, Kind: p.kind, Target: w.ID, Status: status, StartedAt: now}
	return k, w, c
}

// putDraft writes the three.
func (s *Service) putDraft(tx *vault.Tx, k *key, w *wallet, c *ceremonyRecord) (WalletStarted, error) {
	err := errors.Join(store(tx, vault.TypeKey, k.ID, k), store(tx, vault.TypeWallet, w.ID, w), store(tx, vault.TypeCeremony, c.ID, c))
	if err != nil {
		return WalletStarted{}, err
	}
	s.book.change(tx, func() { s.book.fileKey(k); s.book.fileWallet(w); s.book.ceremonies[c.ID] = c })
	return WalletStarted{WalletID: w.ID, KeyID: k.ID, CeremonyID: c.ID}, nil
}

// startKeygen runs the ceremony. The user's share leaves for the recipient; without
// one it stays here, with all others, until the key is delegated.
func (s *Service) startKeygen(c *ceremonyRecord, k *key, w *wallet, recipient string, makeKey maker) {
	work := func(ctx context.Context, keep func([]*mpc.Share)) (func(*vault.Tx, *journal.Entry) error, error) {
		set, shares, err := makeKey(ctx, mpc.KeygenRequest{
			SetID: k.ID + "/root/1", Scheme: k.Scheme, Parties: []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}, Threshold: 2,
			PreParams: s.cfg.PreParameters,
			Progress:  func(stage string, done, total int) { s.step(c, stage, done, total) },
		})
		if err != nil {
			return nil, err
		}
		keep(shares)
		address, err := addressOf(w.Chain, set.PublicKey)
		if err != nil {
			return nil, err
		}
		var ciphertext []byte
		if recipient != "" {
			if ciphertext, err = encryptShare(shares, mpc.User, recipient); err != nil {
				return nil, err
			}
		}
		return func(tx *vault.Tx, e *journal.Entry) error {
			// As they are now: the wallet may have been paused meanwhile.
			pendingWallet, pendingKey, err := s.book.wallet(w.Organization, w.ID)
			if err != nil {
				return err
			}
			made, active := *pendingKey, *pendingWallet
			made.Status, made.Root = statusActive, set
			for _, sh := range shares {
				if sh.Party() == mpc.User && recipient != "" {
					continue // never sealed here: it leaves through the outbox
				}
				if err := putShare(tx, set.ID, sh); err != nil {
					return err
				}
				made.Here = append(made.Here, sh.Party())
			}
			slices.Sort(made.Here)
			active.Address = address
			if recipient == "" {
				active.Status = statusActive // there is nobody to confirm anything
			}
			if err := store(tx, vault.TypeKey, made.ID, &made); err != nil {
				return err
			}
			if err := store(tx, vault.TypeWallet, active.ID, &active); err != nil {
				return err
			}
			if recipient != "" {
				out := &waitingShare{V: recordVersion, Wallet: w.ID, Recipient: recipient, Ciphertext: ciphertext, CreatedAt: s.now().UTC()}
				if err := store(tx, vault.TypeOutbox, w.ID, out); err != nil {
					return err
				}
			}
			s.book.change(tx, func() { s.book.fileKey(&made); s.book.fileWallet(&active) })
			e.Wallet, e.ShareSet = w.ID, set.ID
			e.Facts["address"] = address
			return nil
		}, nil
	}
	s.startCeremony(c, work, func(tx *vault.Tx) error { return s.failTarget(tx, c) })
}

// putShare seals one share as a record of its own.
func putShare(tx *vault.Tx, set string, sh *mpc.Share) error {
	return sh.Lend(func(encoded []byte) error {
		return tx.Put(vault.TypeShare, ShareID(set, sh.Party()), encoded)
	})
}

// ShareID is the vault id of one party's share of a set.
func ShareID(set string, p mpc.Party) string { return set + "/" + string(p) }

// PartyOfShare is the party that a share's vault id names.
func PartyOfShare(id string) mpc.Party { return mpc.Party(id[strings.LastIndex(id, "/")+1:]) }

// shareIDs are the vault ids of several parties' shares, in their order.
func shareIDs(set string, parties []mpc.Party) []string {
	ids := make([]string, len(parties))
	for i, p := range parties {
		ids[i] = ShareID(set, p)
	}
	return ids
}

// encryptShare makes an age file of one party's share.
func encryptShare(shares []*mpc.Share, p mpc.Party, recipient string) ([]byte, error) {
	i := slices.IndexFunc(shares, func(sh *mpc.Share) bool { return sh.Party() == p })
	if i < 0 {
		return nil, fmt.Errorf("encrypting the share of %s: the ceremony made none", p)
	}
	var out []byte
	err := shares[i].Lend(func(encoded []byte) (err error) {
		out, err = encryptTo(recipient, encoded)
		return err
	})
	return out, err
}

// encryptTo makes an age file (X25519) of plaintext.
func encryptTo(recipient string, plaintext []byte) ([]byte, error) {
	r, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("parsing age recipient: %w", err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, fmt.Errorf("encrypting to age recipient: %w", err)
	}
	if _, err := io.Copy(w, bytes.NewReader(plaintext)); err != nil {
		return nil, fmt.Errorf("encrypting to age recipient: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypting to age recipient: %w", err)
	}
	return out.Bytes(), nil
}

// addressOf gives the text form of a public key's address on a chain.
func addressOf(chain string, publicKey []byte) (string, error) {
	return signable.AddressOf(chain, publicKey)
}

// Custody counts the keys, and those of which this host holds a quorum.
func (s *Service) Custody() (all, host int) {
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, k := range s.book.keys {
		if k.custody() == "host" {
			host++
		}
	}
	return len(s.book.keys), host
}

// Wallet shows a wallet to its owner and to root members.
func (s *Service) Wallet(a Actor, org, id string) (Wallet, error) {
	if err := s.member(a, org); err != nil {
		return Wallet{}, err
	}
	w, k, err := s.book.wallet(org, id)
	if err != nil {
		return Wallet{}, err
	}
	if !s.concerns(a, org, w.Owner) {
		return Wallet{}, refusal.New(refusal.NotFound, "no such wallet")
	}
	return showWallet(w, k), nil
}

func showWallet(w *wallet, k *key) Wallet {
	out := Wallet{
		ID: w.ID, Key: w.Key, Owner: w.Owner, Chain: w.Chain, Name: w.Name, Address: w.Address, Status: w.Status,
		Scheme: k.Scheme, PublicKey: w.publicKey(k), Path: mpc.FormatPath(w.Path), Origin: k.Origin, Custody: k.custody(), Epoch: k.Root.Epoch,
	}
	for _, p := range k.Here {
		out.SharesHere = append(out.SharesHere, string(p))
	}
	return out
}
