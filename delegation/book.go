package delegation

import (
	"fmt"
	"slices"
	"sync"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// book is the state in memory: every record but the secret ones. What a map
// points to is never modified, only replaced, so a pointer read under mu may be
// used after it.
type book struct {
	// mu guards the maps and self.
	mu            sync.RWMutex
	self          *appliance
	organizations map[string]*organization
	users         map[string]*user
	// holders finds the user of a credential, by organization and credential id.
	holders map[credentialKey]*user
	keys    map[string]*key
	wallets map[string]*wallet
	// byKey finds the ids of a key's wallets, shared the id of a key of which a party
	// elsewhere has shares.
	byKey       map[string][]string
	shared      map[partySet]string
	delegations map[string]*delegationRecord
	// apiKeys finds the delegation of a wallet API key by the key's id; the key's record is
	// opened when it is needed.
	apiKeys    map[string]string
	ceremonies map[string]*ceremonyRecord
	devices    map[string]*deviceRecord
	// standings are made of the records above.
	standings standings
	// orders holds those of each delegation that ever had one.
	orders map[string]*orders
	// files judge above all organizations.
	files *PolicyFiles
	// rulebooks holds those of organizations that set documents.
	rulebooks map[string]*rulebook
	// activities wait for people, or did; waiting finds them by their request ids.
	activities map[string]*activity
	waiting    map[requestRef]*activity
}

func newBook() *book {
	return &book{
		organizations: map[string]*organization{}, users: map[string]*user{}, holders: map[credentialKey]*user{}, keys: map[string]*key{},
		wallets: map[string]*wallet{}, byKey: map[string][]string{}, shared: map[partySet]string{}, delegations: map[string]*delegationRecord{}, apiKeys: map[string]string{},
		ceremonies: map[string]*ceremonyRecord{}, devices: map[string]*deviceRecord{}, rulebooks: map[string]*rulebook{}, files: noFiles, orders: map[string]*orders{},
		activities: map[string]*activity{}, waiting: map[requestRef]*activity{},
	}
}

// check refuses a record under another's id, and one that names what isn't there; the
// records of API keys are counted (load.go).
func (b *book) check(documents map[string]*document) error {
	var bad error
	look := func(id, own string, ok bool) {
		switch {
		case bad != nil:
		case id != own:
			bad = fmt.Errorf("record %s: it says it is %q", id, own)
		case !ok:
			bad = fmt.Errorf("record %s: it names a record that is missing", id)
		}
	}
	for id, o := range b.organizations {
		look(id, o.ID, (o.Parent == "" || b.organizations[o.Parent] != nil) && !slices.ContainsFunc(o.RootUsers, func(u string) bool { return b.users[u] == nil }))
	}
	for id, u := range b.users {
		look(id, u.ID, b.organizations[u.Organization] != nil)
	}
	for id, k := range b.keys {
		look(id, k.ID, k.Owner == "" || b.users[k.Owner] != nil)
	}
	for id, w := range b.wallets {
		look(id, w.ID, b.keys[w.Key] != nil && b.keys[w.Key].Owner == w.Owner)
	}
	for id, d := range b.delegations {
		look(id, d.ID, b.wallets[d.Wallet] != nil && (d.Owner == "" || b.users[d.Owner] != nil) && b.users[d.DelegatedUser] != nil)
	}
	for id, d := range documents {
		look(id, d.id(), b.organizations[d.Organization] != nil && readers[d.Kind] != nil)
	}
	for id, d := range b.devices {
		look(id, d.ID, b.users[d.User] != nil)
	}
	for id, c := range b.ceremonies {
		look(id, c.ID, b.delegations[c.Target] != nil || b.wallets[c.Target] != nil)
	}
	return bad
}

// store seals one record inside the transaction.
func store(tx *vault.Tx, t vault.Type, id string, rec any) error {
	b, err := encodeRecord(rec)
	if err != nil {
		return err
	}
	if err := tx.Put(t, id, b); err != nil {
		return fmt.Errorf("storing %s: %w", id, err)
	}
	return nil
}

// change runs f under the write lock, once the transaction is on disk.
func (b *book) change(tx *vault.Tx, f func()) {
	tx.OnCommit(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		f()
	})
}

// fileKey and fileWallet keep a new or changed record, and what finds it. They need mu.
func (b *book) fileKey(k *key) {
	if old := b.keys[k.ID]; old != nil {
		delete(b.shared, partySet{old.party(), old.Root.ID})
	}
	b.keys[k.ID] = k
	if party := k.party(); party != "" && k.Root.ID != "" {
		b.shared[partySet{party, k.Root.ID}] = k.ID
	}
}

// partySet is a party elsewhere and the root set that it has shares of.
type partySet struct{ party, set string }

// A wallet stays with its key for ever.
func (b *book) fileWallet(w *wallet) {
	if b.wallets[w.ID] == nil {
		b.byKey[w.Key] = append(b.byKey[w.Key], w.ID)
	}
	b.wallets[w.ID] = w
}

// walletsOf lists the wallets of a key.
func (b *book) walletsOf(key string) []*wallet {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.walletsOfLocked(key)
}

func (b *book) walletsOfLocked(key string) (of []*wallet) {
	for _, id := range b.byKey[key] {
		of = append(of, b.wallets[id])
	}
	return of
}

func (b *book) appliance() *appliance {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.self
}

// find looks id up in m under the read lock.
func find[T any](b *book, m map[string]*T, id string) *T {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return m[id]
}

// The look-ups below answer NOT_FOUND for an unknown id and for one of another
// organization alike, with the same text.

func (b *book) organization(id string) (*organization, error) {
	if o := find(b, b.organizations, id); o != nil {
		return o, nil
	}
	return nil, refusal.New(refusal.NotFound, "no such organization")
}

func (b *book) user(org, id string) (*user, error) {
	if u := find(b, b.users, id); u != nil && u.Organization == org {
		return u, nil
	}
	return nil, refusal.New(refusal.NotFound, "no such user")
}

func (b *book) wallet(org, id string) (*wallet, *key, error) {
	w := find(b, b.wallets, id)
	if w == nil || w.Organization != org {
		return nil, nil, refusal.New(refusal.NotFound, "no such wallet")
	}
	k := find(b, b.keys, w.Key)
	if k == nil {
		return nil, nil, fmt.Errorf("reading wallet %s: its key %s is missing", id, w.Key)
	}
	return w, k, nil
}

func (b *book) delegation(org, id string) (*delegationRecord, error) {
	if d := find(b, b.delegations, id); d != nil && d.Organization == org {
		return d, nil
	}
	return nil, refusal.New(refusal.NotFound, "no such delegation")
}

func (b *book) ceremony(org, id string) (*ceremonyRecord, error) {
	if c := find(b, b.ceremonies, id); c != nil && c.Organization == org {
		return c, nil
	}
	return nil, refusal.New(refusal.NotFound, "no such ceremony")
}
