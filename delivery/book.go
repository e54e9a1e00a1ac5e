package delivery

import (
	"context"
	"fmt"
	"sync"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// book is the state in memory, without secrets and events. What a map points to
// is never modified, only replaced, once the transaction is on disk.
type book struct {
	// mu guards the maps.
	mu       sync.RWMutex
	webhooks map[string]*webhook
	wallets  map[string]*vendorWallet
}

func loadBook(ctx context.Context, v *vault.Vault) (*book, error) {
	b := &book{webhooks: map[string]*webhook{}, wallets: map[string]*vendorWallet{}}
	err := vault.EachObject(ctx, v, vault.TypeWebhook, recordVersion, func(h *webhook) string { b.webhooks[h.ID] = h; return h.ID })
	if err != nil {
		return nil, err
	}
	err = vault.EachObject(ctx, v, vault.TypeVendorWallet, recordVersion, func(w *vendorWallet) string { b.wallets[w.key()] = w; return w.key() })
	if err != nil {
		return nil, err
	}
	for _, w := range b.wallets {
		if b.webhooks[w.Webhook] == nil {
			return nil, fmt.Errorf("reading what was delivered to webhook %s: the webhook is missing", w.Webhook)
		}
	}
	return b, nil
}

// change runs f under the write lock, once the transaction is on disk.
func (b *book) change(tx *vault.Tx, f func()) {
	tx.OnCommit(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		f()
	})
}

// webhook is nil when there is none.
func (b *book) webhook(id string) *webhook {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.webhooks[id]
}

// wallet is an empty one when nothing was delivered yet.
func (b *book) wallet(hook, wallet string) *vendorWallet {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if w := b.wallets[walletKey(hook, wallet)]; w != nil {
		return w
	}
	return &vendorWallet{V: recordVersion, Webhook: hook, Wallet: wallet}
}

// registered finds an organization's webhook for an environment; count is how
// many webhooks it has.
func (b *book) registered(org, environment string) (found *webhook, count int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, h := range b.webhooks {
		if h.Organization == org {
			count++
			if h.Environment == environment {
				found = h
			}
		}
	}
	return found, count
}

// secretsBut lists the live secrets of every webhook but one.
func (b *book) secretsBut(hook string) (ids []string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, h := range b.webhooks {
		if id != hook {
			ids = append(ids, h.Secrets...)
		}
	}
	return ids
}

// foreign reports whether another organization's webhook uses the key: whoever
// could use it, too, would open what was encrypted for that organization.
func (b *book) foreign(org string, ref seal.KeyRef) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, h := range b.webhooks {
		for _, k := range h.Keys {
			if k.Ref == ref && h.Organization != org {
				return true
			}
		}
	}
	return false
}
