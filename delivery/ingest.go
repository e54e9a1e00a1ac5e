package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Received is one delivery as it came over the network.
type Received struct {
	// Webhook is our id of the webhook, from the path that was called.
	Webhook string
	// Body is the request's body, byte for byte, at most [MaxBody] bytes.
	Body []byte
	// Signature is the value of the header x-dynamic-signature-256.
	Signature string
}

const (
	// maxAhead is how far a created event may lie in our future; one that did could
	// not be revoked.
	maxAhead = 24 * time.Hour
	// maxSets of one wallet are held, and as many revocations by name remembered.
	maxSets = 1024
)

// Ingest takes a delivery in. The outcome is durable on return. Errors: the
// refusals DELIVERY_INVALID and REQUEST_INVALID; those of the device and of the
// vault, after which the same delivery may be sent again.
func (s *Service) Ingest(ctx context.Context, a Actor, in Received) (Outcome, error) {
	if len(in.Body) > MaxBody {
		return "", refusal.New(refusal.RequestInvalid, "the delivery has %d bytes, at most %d are taken", len(in.Body), MaxBody).With("field", "body")
	}
	// Step 1: who knows a live secret sent exactly these bytes.
	hook, err := s.authenticate(ctx, in)
	if err != nil {
		return "", err
	}
	// Step 2: read them.
	e, err := readEvent(in.Body)
	if err != nil {
		return "", err
	}
	if e.environment != "" && e.environment != hook.Environment {
		return "", malformed("environmentId", "it is of another environment than this webhook's")
	}
	if e.name == eventCreated && e.at.After(s.now().Add(maxAhead)) {
		return "", malformed("timestamp", "timestamp is more than %s ahead", maxAhead)
	}
	if e.id == "" {
		sum := sha256.Sum256(in.Body)
		e.id = "sha256:" + hex.EncodeToString(sum[:])
	}
	// Step 3: what does it come to? Judged here, it can only become less inside the
	// transaction: an event once seen or tombstoned remains so.
	known, err := s.known(hook, e, func(id string, use func([]byte) error) error {
		return s.cfg.Vault.With(ctx, vault.TypeVendorEvent, id, use)
	})
	if err != nil {
		return "", err
	}
	outcome := s.book.wallet(hook.ID, e.wallet).judge(e, known.seen)
	if known.event.had(outcome) {
		return outcome, nil // a repetition of a repetition leaves no trace
	}
	if outcome != Stored || e.name != eventCreated {
		if outcome, err = s.commit(ctx, a, hook, e, nil); err != nil {
			return "", err
		}
		return outcome, s.awaitEnded(ctx, e)
	}
	// Step 4: open both envelopes, and keep what is in them byte for byte.
	err = s.lend(ctx, hook, e.share, func(share []byte) error {
		return s.lend(ctx, hook, e.apiKey, func(apiKey []byte) error {
			outcome, err = s.commit(ctx, a, hook, e, &opened{share: share, apiKey: apiKey})
			return err
		})
	})
	if err != nil {
		return "", err
	}
	return outcome, nil
}

// awaitEnded returns when no signature of the delegations that ended is under way:
// their runs were stopped when the revocation was on disk.
func (s *Service) awaitEnded(ctx context.Context, e *event) error {
	for _, id := range e.ended {
		if err := s.cfg.Delegations.Await(ctx, id); err != nil {
			return fmt.Errorf("waiting for signatures under way: %w", err)
		}
	}
	return nil
}

// opened is lent.
type opened struct {
	secret
	share, apiKey []byte
}

// memory is what is remembered of an event.
type memory struct {
	// seen: the event, or for a created one its message, was taken in before.
	seen bool
	// event is its record, nil without one.
	event *vendorEvent
}

// Ids of records of type vault.TypeVendorEvent. The name is part of them: an event
// must not pass for a repetition of one of another kind.
func eventID(hook *webhook, e *event) string { return hook.ID + "/event/" + e.name + "/" + e.id }
func messageID(hook *webhook, e *event) string {
	return hook.ID + "/message/" + e.name + "/" + e.message
}

// known looks an event up with a reader of the vault or of a transaction.
func (s *Service) known(hook *webhook, e *event, with func(id string, use func([]byte) error) error) (memory, error) {
	var m memory
	err := with(eventID(hook, e), func(b []byte) (err error) {
		m.event = new(vendorEvent)
		return vault.DecodeObject(b, recordVersion, m.event)
	})
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return m, err
	}
	m.seen = m.event != nil
	// A revocation is dropped for its own id only.
	if m.seen || e.name != eventCreated {
		return m, nil
	}
	err = with(messageID(hook, e), func([]byte) error { return nil })
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return m, err
	}
	m.seen = err == nil
	return m, nil
}

// commit is step 5: records, memory of the event and journal entry in one
// transaction. got is nil unless a created event is to be stored.
func (s *Service) commit(ctx context.Context, a Actor, hook *webhook, e *event, got *opened) (outcome Outcome, err error) {
	err = s.cfg.Vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		outcome, err = s.take(tx, a.Entry(hook.Organization, ""), hook, e, got)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("taking in a delivery of webhook %s: %w", hook.ID, err)
	}
	s.log.InfoContext(ctx, "delivery taken in", "webhook", hook.ID, "event", e.name, "id", e.id, "wallet", e.wallet, "outcome", string(outcome))
	return outcome, nil
}

// take decides again and writes. Each outcome of an event is journaled once: who
// repeats a delivery that it once saw can't fill the disk.
func (s *Service) take(tx *vault.Tx, entry journal.Entry, hook *webhook, e *event, got *opened) (Outcome, error) {
	known, err := s.known(hook, e, func(id string, use func([]byte) error) error { return tx.With(vault.TypeVendorEvent, id, use) })
	if err != nil {
		return "", err
	}
	w := s.book.wallet(hook.ID, e.wallet).clone()
	outcome := w.judge(e, known.seen)
	if known.event.had(outcome) {
		return outcome, nil
	}
	entry.Kind, entry.Outcome = journal.KindAct, string(outcome)
	entry.Urgent = e.name == eventRevoked // a restored backup must not forget it
	entry.Facts = map[string]string{"webhook": hook.ID, "environment": hook.Environment, "event": e.id, "event_name": e.name}
	for name, text := range map[string]string{"message": e.message, "vendor_wallet": e.wallet, "vendor_share_set": e.set} {
		if text != "" {
			entry.Facts[name] = text
		}
	}
	if outcome == Stored {
		if err := s.apply(tx, &entry, hook, w, e, got); err != nil {
			return "", err
		}
	}
	if err := s.remember(tx, hook, e, known.event, outcome); err != nil {
		return "", err
	}
	_, err = s.cfg.Journal.Append(tx, entry)
	return outcome, err
}

// apply changes what is kept of the wallet.
func (s *Service) apply(tx *vault.Tx, entry *journal.Entry, hook *webhook, w *vendorWallet, e *event, got *opened) error {
	if e.name == eventRevoked {
		e.ended = nil // an update that did not commit is run again
		tx.Advance()  // a copy that has forgotten the tombstone would take the delivery again
		for _, m := range w.bury(e) {
			if err := destroy(tx, w.record(hook.Environment, m.set, m.material)); err != nil {
				return err
			}
			if m.Delegation != "" {
				e.ended = append(e.ended, m.Delegation)
				entry.Delegation = m.Delegation
			}
			if err := s.endDelegation(tx, m.Delegation); err != nil {
				return err
			}
			s.log.Info("delegation revoked by its vendor", "webhook", hook.ID, "wallet", e.wallet, "delivery", m.ID, "delegation", m.Delegation)
		}
	} else {
		if got == nil {
			return errors.New("storing a delivery: what it brought was not opened")
		}
		if err := s.place(tx, entry, hook, w, e, got); err != nil {
			return err
		}
	}
	if len(w.Sets) > maxSets {
		return malformed("shareSetId", "the wallet has more than %d share sets", maxSets)
	}
	if err := tx.PutObject(vault.TypeVendorWallet, w.key(), w); err != nil {
		return err
	}
	s.book.change(tx, func() { s.book.wallets[w.key()] = w })
	return nil
}

// place keeps what a created event brought: in its set's place, or beside what is
// bound there.
func (s *Service) place(tx *vault.Tx, entry *journal.Entry, hook *webhook, w *vendorWallet, e *event, got *opened) error {
	into := w.Sets
	if m := w.Sets[e.set]; m.Status == Bound || m.Status == Frozen {
		into = w.Beside
		entry.Facts["beside"] = m.ID
	}
	if old, ok := into[e.set]; ok && old.Status != Revoked {
		if err := destroy(tx, w.record(hook.Environment, e.set, old)); err != nil {
			return err
		}
	}
	m := material{
		ID: newID("vdl"), Status: Pending, Chain: e.chain, Address: e.address, User: e.user,
		Event: e.id, At: e.at, TakenAt: s.now().UTC(), Kid: e.share.kid, Whole: true,
	}
	id := w.record(hook.Environment, e.set, m)
	if err := tx.Put(vault.TypeVendorShare, id, got.share); err != nil {
		return err
	}
	if err := tx.Put(vault.TypeVendorAPIKey, id, got.apiKey); err != nil {
		return err
	}
	into[e.set] = m
	entry.Facts["delivery"] = m.ID
	return nil
}

// destroy deletes share and API key.
func destroy(tx *vault.Tx, record string) error {
	if err := tx.Delete(vault.TypeVendorShare, record); err != nil {
		return err
	}
	return tx.Delete(vault.TypeVendorAPIKey, record)
}

// remember keeps event and message for ever.
func (s *Service) remember(tx *vault.Tx, hook *webhook, e *event, before *vendorEvent, outcome Outcome) error {
	rec := vendorEvent{V: recordVersion, TakenAt: s.now().UTC()}
	if before != nil {
		rec = *before
	}
	rec.Outcomes = append(rec.Outcomes[:len(rec.Outcomes):len(rec.Outcomes)], outcome)
	if err := tx.PutObject(vault.TypeVendorEvent, eventID(hook, e), rec); err != nil {
		return err
	}
	if e.message == "" || before != nil {
		return nil
	}
	return tx.PutObject(vault.TypeVendorEvent, messageID(hook, e), vendorEvent{V: recordVersion, TakenAt: rec.TakenAt})
}
