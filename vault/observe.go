package vault

import (
	"bytes"
	"slices"

	"github.com/sigild/sigild/seal"
)

// What an update changed, told to whoever remembers it outside: the journal keeps
// it for the day on which a backup is restored. A record's content goes with it only
// where the type says that it is no secret; of others there is the fact that they
// were removed or replaced.

// Change is one record that an update wrote or removed.
type Change struct {
	Type Type
	ID   string
	// Removed: it is no longer there. Otherwise Content is what was written; nil where
	// the type's content is not told.
	Removed bool
	Content []byte
}

// Observer is told of updates while they run, on the writer goroutine, and takes part
// in them: what it appends is committed with them, and its error fails them.
type Observer interface {
	// Changed is called after a closure that changed records which [Tx.Changes] was not
	// asked for.
	Changed(tx *Tx, changes []Change) error
	// Advancing is called before a commit that moves the anchor to epoch; key is the
	// device's new sealing key where the anchor replaces it, else "".
	Advancing(tx *Tx, epoch uint64, key seal.KeyRef) error
}

// Observe has o told of the updates after it; nil: nobody is.
func (v *Vault) Observe(o Observer) {
	if o == nil {
		v.observer.Store(nil)
		return
	}
	v.observer.Store(&o)
}

// Changes takes what the closure changed so far and nobody asked for yet, in order.
// Nil when nobody observes.
func (tx *Tx) Changes() []Change {
	if tx.b == nil {
		return nil
	}
	taken := tx.b.untold
	tx.b.untold = nil
	return taken
}

// told says whether and how a change of the type is told: ever, when it replaces what
// was there, and with its content. A type that is not named here is told of, without.
func (t Type) told() (ever, replaced, content bool) {
	switch t {
	case TypeJournal, TypeStoreKey, TypeLastingKey, TypePartKey, TypeClock:
		return false, false, false // the journal's own, and those that every copy has
	case TypeOutgoing:
		return true, false, false // each try to deliver writes it
	case TypeAppliance, TypeOperator, TypeOrganization, TypeUser, TypeKey, TypeWallet, TypeShareSet, TypeDelegation,
		TypeDocument, TypeLimit, TypeCeremony, TypeActivity, TypeWebhook, TypeEndpoint, TypeVendorWallet, TypeVendorEvent, TypeOrder:
		return true, true, true
	}
	return true, true, false
}

// note remembers a change for the observer. there: the record existed before.
func (b *batch) note(t Type, id string, plaintext []byte, removed, there bool) {
	if b.v.observer.Load() == nil {
		return
	}
	ever, replaced, content := t.told()
	if !ever || !content && !removed && !(there && replaced) {
		return // of a new secret no copy has an older one
	}
	c := Change{Type: t, ID: id, Removed: removed}
	if content && !removed {
		c.Content = append([]byte{}, plaintext...) // never nil
	}
	b.untold = append(b.untold, c)
}

// tell gives the observer what a closure left untold.
func (b *batch) tell(tx *Tx) error {
	o := b.v.observer.Load()
	if o == nil || len(b.untold) == 0 {
		return nil
	}
	return (*o).Changed(tx, tx.Changes())
}

// tellAdvance is [Observer.Advancing]; whoever fails it has failed the commit.
func (v *Vault) tellAdvance(b *batch, epoch uint64) error {
	o := v.observer.Load()
	if o == nil {
		return nil
	}
	return v.call(b, func(tx *Tx) error {
		return (*o).Advancing(tx, epoch, b.extra.rolls[v.anchor.Provider])
	})
}

// Redo makes a change again that an update made on another copy of the store. What
// was replaced by something that was not told is removed: it must not be used.
func (tx *Tx) Redo(c Change) error {
	if c.Content != nil && !c.Removed {
		return tx.Put(c.Type, c.ID, bytes.Clone(c.Content))
	}
	there, err := tx.Has(c.Type, c.ID)
	if err != nil || !there {
		return err
	}
	return tx.Delete(c.Type, c.ID)
}

// Secret says whether such a record holds something that signs or authenticates, so
// that its removal destroys it.
func (t Type) Secret() bool {
	switch t {
	case TypeShare, TypeAPIKey, TypeVendorShare, TypeVendorAPIKey, TypeWebhookSecret, TypeEndpointSecret, TypePreParams:
		return true
	}
	return false
}

// standing says whether a changed record of the type may mean that somebody may do
// less than before, so that no older copy may undo it.
func (t Type) standing() bool {
	return slices.Contains([]Type{TypeAppliance, TypeOperator, TypeOrganization, TypeUser, TypeKey, TypeDelegation, TypeDocument, TypeWebhook, TypeEndpoint}, t)
}
