package delegation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/sigild/sigild/vault"
)

// loading is a book while it is read: what can't be filed before all else is there.
type loading struct {
	*book
	mu         sync.Mutex // guards all of it while records come in
	documents  map[string]*document
	orders     map[string]*Order
	activities map[string]*activity
}

// loadBook reads every record of the vault. A record that doesn't decode, or
// names another that isn't there, stops the start: nothing is skipped.
func loadBook(ctx context.Context, v *vault.Vault) (*book, error) {
	b := newBook()
	l := &loading{book: b, documents: map[string]*document{}, orders: map[string]*Order{}, activities: map[string]*activity{}}
	// Step 1: all records, in no order.
	if err := l.read(ctx, v); err != nil {
		return nil, err
	}
	if b.self == nil {
		return nil, ErrNotInitialized
	}
	// Step 2: what they say of each other.
	if err := b.check(l.documents); err != nil {
		return nil, err
	}
	if err := b.checkAPIKeys(v); err != nil {
		return nil, err
	}
	// Step 3: what is made of them.
	b.index()
	b.fileAll(l.documents)
	if err := b.fileOrders(l.orders); err != nil {
		return nil, err
	}
	if err := b.fileActivities(l.activities); err != nil {
		return nil, err
	}
	return b, nil
}

// read decodes all records of the book's types, each type by its reader.
func (l *loading) read(ctx context.Context, v *vault.Vault) error {
	b := l.book
	readers := map[vault.Type]func(id string, plaintext []byte) error{
		vault.TypeAppliance:    reader(l, func(_ string, a *appliance) { b.self = a }),
		vault.TypeOrganization: reader(l, func(id string, o *organization) { b.organizations[id] = o }),
		vault.TypeUser:         reader(l, func(id string, u *user) { b.users[id] = u; b.indexLocked(u) }),
		vault.TypeKey:          reader(l, func(id string, k *key) { b.keys[id] = k }),
		vault.TypeWallet:       reader(l, func(id string, w *wallet) { b.wallets[id] = w }),
		vault.TypeCeremony:     reader(l, func(id string, c *ceremonyRecord) { b.ceremonies[id] = c }),
		vault.TypeDevice:       reader(l, func(id string, d *deviceRecord) { b.devices[id] = d }),
		vault.TypeDelegation:   reader(l, l.delegation),
		vault.TypeDocument:     reader(l, func(id string, d *document) { l.documents[id] = d }),
		vault.TypeOrder:        reader(l, func(id string, o *Order) { l.orders[id] = o }),
		vault.TypeActivity:     reader(l, func(id string, a *activity) { l.activities[id] = a }),
	}
	err := v.EachOf(ctx, slices.Collect(maps.Keys(readers)), func(t vault.Type, id string, plaintext []byte) error {
		return readers[t](id, plaintext)
	})
	if err != nil {
		return fmt.Errorf("loading records: %w", err)
	}
	return nil
}

// index fills what finds keys and wallets.
func (b *book) index() {
	for _, k := range b.keys {
		b.fileKey(k)
	}
	for id, w := range b.wallets {
		b.byKey[w.Key] = append(b.byKey[w.Key], id)
	}
}

func (l *loading) delegation(id string, d *delegationRecord) {
	l.delegations[id] = d
	if d.APIKey != "" {
		l.apiKeys[d.APIKey] = id
	}
}

// checkAPIKeys insists that each delegation's API key is there, and no other. Their
// records are authenticated when they are used.
func (b *book) checkAPIKeys(v *vault.Vault) error {
	for key, id := range b.apiKeys {
		switch there, err := v.Has(vault.TypeAPIKey, key); {
		case err != nil:
			return fmt.Errorf("looking for the API key of delegation %s: %w", id, err)
		case !there:
			return fmt.Errorf("record %s: its API key is missing", id)
		}
	}
	n, err := v.Count(vault.TypeAPIKey)
	if err == nil && n != len(b.apiKeys) {
		err = fmt.Errorf("there are %d API keys, and %d belong to a delegation", n, len(b.apiKeys))
	}
	return err
}

// reader decodes records of one type and keeps each under the lock.
func reader[T any](l *loading, keep func(id string, rec *T)) func(id string, plaintext []byte) error {
	return func(id string, plaintext []byte) error {
		rec := new(T)
		if err := decodeRecord(plaintext, rec); err != nil {
			return fmt.Errorf("record %s: %w", id, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		keep(id, rec)
		return nil
	}
}
