package outbox

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// leaseFor is how long a deliverer may take to report.
const leaseFor = 30 * time.Second

// Due is an event to be posted now.
type Due struct {
	ID, URL string
	Body    []byte
	// Signature is the value of header x-dynamic-signature-256.
	Signature string
}

// Take lends what is due, the oldest first, at most so many: to one deliverer at a
// time. What isn't reported within half a minute is lent again.
func (s *Service) Take(ctx context.Context, most int) ([]Due, error) {
	var out []Due
	for _, o := range s.book.lease(s.now(), most) {
		d, err := s.due(ctx, o)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// lease picks what is due and isn't with anybody.
func (b *book) lease(now time.Time, most int) (due []*outgoing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, o := range b.waiting {
		if !o.Failed && !o.DueAt.After(now) && !b.leases[id].After(now) {
			due = append(due, o)
		}
	}
	slices.SortFunc(due, func(x, y *outgoing) int {
		return cmp.Or(x.DueAt.Compare(y.DueAt), x.CreatedAt.Compare(y.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	due = due[:min(len(due), most)]
	for _, o := range due {
		b.leases[o.ID] = now.Add(leaseFor)
	}
	return due
}

// due reads the body and signs it.
func (s *Service) due(ctx context.Context, o *outgoing) (Due, error) {
	s.book.mu.RLock()
	e := s.book.endpoints[o.Endpoint]
	s.book.mu.RUnlock()
	d := Due{ID: o.ID, URL: e.URL}
	err := s.cfg.Vault.With(ctx, vault.TypeOutgoing, o.ID, func(b []byte) error {
		whole := new(outgoing)
		err := vault.DecodeObject(b, recordVersion, whole)
		d.Body = whole.Body
		return err
	})
	if err != nil {
		return Due{}, fmt.Errorf("reading event %s: %w", o.ID, err)
	}
	err = s.cfg.Vault.With(ctx, vault.TypeEndpointSecret, e.Secret, func(secret []byte) error {
		mac := hmac.New(sha256.New, secret)
		mac.Write(d.Body)
		d.Signature = "sha256=" + hex.EncodeToString(mac.Sum(nil))
		return nil
	})
	if err != nil {
		return Due{}, fmt.Errorf("signing event %s: %w", o.ID, err)
	}
	return d, nil
}

// Report says what posting an event came to: the HTTP status, 0 when there was no
// answer, then why. Durable on return. An event that isn't there was reported before.
func (s *Service) Report(ctx context.Context, entry journal.Entry, id string, status int, why string) error {
	if status < 0 || status > 599 {
		return refusal.New(refusal.RequestInvalid, "%d is no HTTP status", status).With("field", "http_status")
	}
	return s.cfg.Vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		s.book.mu.RLock()
		o := s.book.waiting[id]
		var e *endpoint
		if o != nil {
			e = s.book.endpoints[o.Endpoint]
		}
		s.book.mu.RUnlock()
		if o == nil {
			return nil
		}
		entry.Kind, entry.Organization, entry.Delegation = journal.KindAct, o.Organization, o.Delegation
		entry.Facts = map[string]string{"event": o.ID, "event_name": o.Name, "endpoint": o.Endpoint, "tries": fmt.Sprint(o.Tries + 1), "http_status": fmt.Sprint(status)}
		if status/100 == 2 {
			entry.Outcome = "delivered"
			return s.delivered(tx, entry, o, e)
		}
		return s.failed(tx, entry, o, e, status, why)
	})
}

func (s *Service) delivered(tx *vault.Tx, entry journal.Entry, o *outgoing, e *endpoint) error {
	if err := s.drop(tx, o.ID); err != nil {
		return err
	}
	if o.Name == eventPing {
		now := s.now().UTC()
		reached := *e
		reached.ReachedAt = &now
		if err := s.put(tx, &reached); err != nil {
			return err
		}
	}
	_, err := s.cfg.Journal.Append(tx, entry)
	return err
}

// failed sets the next try, or gives up. Only the last try of an event is journaled:
// an endpoint that is away must not fill the journal.
func (s *Service) failed(tx *vault.Tx, entry journal.Entry, o *outgoing, e *endpoint, status int, why string) error {
	whole, err := read(tx, o.ID)
	if err != nil {
		return err
	}
	left := retries
	if e.Sandbox {
		left = retries[:sandboxRetries]
	}
	whole.Last = fmt.Sprintf("%d %.120s", status, why)
	if whole.Tries < len(left) {
		whole.DueAt = s.now().UTC().Add(left[whole.Tries])
	} else {
		whole.Failed = true
	}
	whole.Tries++
	s.book.change(tx, func() {
		s.book.waiting[o.ID] = whole.withoutBody()
		delete(s.book.leases, o.ID)
	})
	if err := tx.PutObject(vault.TypeOutgoing, o.ID, whole); err != nil || !whole.Failed {
		return err
	}
	s.log.Error("an event was not delivered; its tries are over", "event", o.ID, "name", o.Name, "endpoint", o.Endpoint, "last", whole.Last)
	entry.Outcome, entry.Reason = "given_up", whole.Last
	_, err = s.cfg.Journal.Append(tx, entry)
	return err
}

// read gives an event with its body.
func read(tx *vault.Tx, id string) (o *outgoing, err error) {
	o = new(outgoing)
	return o, tx.With(vault.TypeOutgoing, id, func(b []byte) error { return vault.DecodeObject(b, recordVersion, o) })
}

// Pinged answers Ping.
type Pinged struct {
	EventID string `json:"event_id"`
}

// Ping sends an endpoint a ping, under the root quorum: durable on return, due now.
func (s *Service) Ping(ctx context.Context, a Actor, requestID, org, id string) (Pinged, error) {
	return journal.Act(ctx, s.cfg.Journal, a.Entry(org, requestID), func() error { return a.Root(org) }, func(tx *vault.Tx, e *journal.Entry) (Pinged, error) {
		ep, err := s.book.endpoint(org, id)
		if err != nil {
			return Pinged{}, err
		}
		data := map[string]any{"webhookId": ep.ID, "message": "ping", "events": []string{eventCreated, eventRevoked}, "url": ep.URL, "isEnabled": ep.active() != nil}
		event, err := s.enqueue(tx, ep, eventPing, "", "", data)
		e.Facts = map[string]string{"endpoint": ep.ID, "event": event}
		return Pinged{EventID: event}, err
	})
}

// Redelivered answers Redeliver.
type Redelivered struct {
	Events int `json:"events"`
}

// Redeliver makes an endpoint's events due now, those that were given up included,
// under the root quorum. Durable on return.
func (s *Service) Redeliver(ctx context.Context, a Actor, requestID, org, id string) (Redelivered, error) {
	return journal.Act(ctx, s.cfg.Journal, a.Entry(org, requestID), func() error { return a.Root(org) }, func(tx *vault.Tx, e *journal.Entry) (Redelivered, error) {
		if _, err := s.book.endpoint(org, id); err != nil {
			return Redelivered{}, err
		}
		n := 0
		for _, o := range s.book.of(id) {
			whole, err := read(tx, o.ID)
			if err != nil {
				return Redelivered{}, err
			}
			whole.Failed, whole.Tries, whole.DueAt = false, 0, s.now().UTC()
			s.book.change(tx, func() { s.book.waiting[whole.ID] = whole.withoutBody() })
			if err := tx.PutObject(vault.TypeOutgoing, whole.ID, whole); err != nil {
				return Redelivered{}, err
			}
			n++
		}
		e.Facts = map[string]string{"endpoint": id, "events": fmt.Sprint(n)}
		return Redelivered{Events: n}, nil
	})
}

// of lists what waits for an endpoint.
func (b *book) of(endpoint string) (of []*outgoing) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, o := range b.waiting {
		if o.Endpoint == endpoint {
			of = append(of, o)
		}
	}
	return of
}
