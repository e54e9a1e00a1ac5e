package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// A wallet's owner may sign templates into a delegation: ALLOW conditions with
// holes, and bounds on what may fill them. Within them the delegated user makes
// orders without asking again: policies of this delegation that allow one
// transaction and end by themselves. That an order is no wider than its template is
// checked on the values, never on the conditions (policy/template.go).
//
// One transaction: its approval takes the order's replay key in the journal, in the
// transaction that reserves its charges, so neither concurrency nor a crash fills an
// order twice. What failed before its last share left gives the key back. When the
// signature is journaled the order is removed.

// Template is what orders are made of.
type Template struct {
	Name       string             `json:"name"`
	Condition  string             `json:"condition"`
	Parameters []policy.Parameter `json:"parameters,omitempty"`
	// MaxOpen orders of it may be open at a time.
	MaxOpen int `json:"max_open"`
	// Longest is how long an order may be open, in seconds.
	Longest uint32 `json:"longest_seconds"`
}

func (t Template) text() policy.Template {
	return policy.Template{Name: t.Name, Condition: t.Condition, Parameters: t.Parameters}
}

// Bounds of templates and orders.
const (
	maxTemplates = 16
	maxOpen      = 64
	maxLongest   = 366 * 24 * 60 * 60
)

// checkTemplates compiles templates with the ends of their bounds; name checks and
// remembers a rule's name.
func checkTemplates(list []Template, name func(field, n string) error) error {
	if len(list) > maxTemplates {
		return refusal.New(refusal.RequestInvalid, "a delegation takes at most %d templates", maxTemplates).With("field", "templates")
	}
	for _, t := range list {
		if err := name("template name", t.Name); err != nil {
			return err
		}
		if t.MaxOpen < 1 || t.MaxOpen > maxOpen {
			return refusal.New(refusal.RequestInvalid, "template %q: max_open must be 1 to %d", t.Name, maxOpen).With("field", "max_open")
		}
		if t.Longest < 1 || t.Longest > maxLongest {
			return refusal.New(refusal.RequestInvalid, "template %q: longest_seconds must be 1 to %d", t.Name, maxLongest).With("field", "longest_seconds")
		}
		if err := t.text().Check(); err != nil {
			return refusal.New(refusal.PolicyInvalid, "template %q: %v", t.Name, err).With("template", t.Name)
		}
	}
	return nil
}

// Order is a record of type vault.TypeOrder, and what the delegated user sees of it.
type Order struct {
	V          int       `json:"v"`
	ID         string    `json:"id"`
	Delegation string    `json:"delegation"`
	Template   string    `json:"template"`
	Condition  string    `json:"condition"`
	NotAfter   time.Time `json:"not_after"`
}

// orders are the open ones of a delegation, ordered by id, each compiled; immutable.
type orders struct {
	list     []Order
	compiled []*policy.Set
}

// sets are the orders' rules; of none for nil.
func (o *orders) sets() []*policy.Set {
	if o == nil {
		return nil
	}
	return slices.Clone(o.compiled)
}

func (o *orders) all() []Order {
	if o == nil {
		return nil
	}
	return o.list
}

// with is o and one order more.
func (o *orders) with(one Order) (*orders, error) {
	set, problems := policy.Compile([]policy.Policy{{
		ID: one.ID, Name: one.Template, Effect: policy.Allow, Condition: one.Condition, Lang: policy.LangSigild,
		Scope: policy.Scope{Delegation: one.Delegation}, NotAfter: one.NotAfter,
	}}, nil, nil)
	if set == nil {
		return nil, fmt.Errorf("compiling order %s: %v", one.ID, problems)
	}
	at, _ := slices.BinarySearchFunc(o.all(), one.ID, func(x Order, id string) int { return strings.Compare(x.ID, id) })
	return &orders{slices.Insert(slices.Clone(o.all()), at, one), slices.Insert(o.sets(), at, set)}, nil
}

// without is o less the orders that gone names.
func (o *orders) without(gone func(Order) bool) *orders {
	out := &orders{}
	for i, one := range o.all() {
		if !gone(one) {
			out.list, out.compiled = append(out.list, one), append(out.compiled, o.compiled[i])
		}
	}
	return out
}

// loadOrders reads the orders of all delegations.
func (b *book) loadOrders(ctx context.Context, v *vault.Vault) error {
	all := map[string]*Order{}
	if err := load(ctx, v, vault.TypeOrder, func(id string, o *Order) { all[id] = o }); err != nil {
		return err
	}
	for id, o := range all {
		if o.ID != id || b.delegations[o.Delegation] == nil {
			return fmt.Errorf("record %s: it says it is %q, of delegation %q", id, o.ID, o.Delegation)
		}
		with, err := b.orders[o.Delegation].with(*o)
		if err != nil {
			return err
		}
		b.orders[o.Delegation] = with
	}
	return nil
}

// Holder is who acts with a wallet API key.
type Holder struct {
	Actor
	WalletID string
	// APIKey is lent for the call.
	APIKey []byte
}

// holding authenticates a holder as step 3 and 4 do, and finds the delegation.
func (s *Service) holding(h Holder) (*signing.Standing, *delegationRecord, error) {
	st, err := s.Authenticate(h.WalletID, h.APIKey)
	if err != nil {
		return nil, nil, err
	}
	if st.Ended != nil {
		return nil, nil, st.Ended
	}
	if !st.ExpiresAt.IsZero() && !s.now().Before(st.ExpiresAt) {
		return nil, nil, refusal.New(refusal.DelegationExpired, "the delegation ended at %s", st.ExpiresAt.UTC().Format(time.RFC3339))
	}
	d, err := s.book.delegation(st.Organization, st.Delegation)
	return st, d, err
}

// byHolder is an act of a delegated user: the key is judged again inside the
// transaction, also before a stored answer is given.
func byHolder[T any](ctx context.Context, s *Service, h Holder, requestID string, do func(tx *vault.Tx, d *delegationRecord) (T, error)) (T, error) {
	st, _, err := s.holding(h)
	if err != nil {
		var none T
		return none, err
	}
	e := h.Entry(st.Organization, requestID)
	e.Credentials, e.User, e.Wallet, e.Delegation = []string{st.APIKey}, st.DelegatedUser, st.Wallet.ID, st.Delegation
	authorize := func() error { _, _, err := s.holding(h); return err }
	return journal.Act(ctx, s.journal, e, authorize, func(tx *vault.Tx, e *journal.Entry) (T, error) {
		_, d, err := s.holding(h)
		if err != nil {
			var none T
			return none, err
		}
		return do(tx, d)
	})
}

// NewOrder fills a template.
type NewOrder struct {
	RequestID string
	Template  string
	Values    map[string]string
	NotAfter  time.Time
}

// OpenOrder makes an order under a wallet API key, within a template that the
// owner signed. Durable on return.
func (s *Service) OpenOrder(ctx context.Context, h Holder, n NewOrder) (Order, error) {
	return byHolder(ctx, s, h, n.RequestID, func(tx *vault.Tx, d *delegationRecord) (Order, error) {
		at := slices.IndexFunc(d.Templates, func(t Template) bool { return t.Name == n.Template })
		if at < 0 {
			return Order{}, refusal.New(refusal.NotFound, "the delegation has no such template")
		}
		t := d.Templates[at]
		condition, err := t.text().Fill(n.Values)
		var bound *policy.BoundError
		if errors.As(err, &bound) {
			return Order{}, refusal.New(refusal.PolicyDenied, "the order is wider than its template: %s: %s", bound.Parameter, bound.Why).With("template", t.Name).With("parameter", bound.Parameter)
		}
		if err != nil {
			return Order{}, fmt.Errorf("filling template %q: %w", t.Name, err)
		}
		now := s.now()
		end := n.NotAfter.UTC()
		if !end.After(now) || end.After(now.Add(time.Duration(t.Longest)*time.Second)) {
			return Order{}, refusal.New(refusal.PolicyDenied, "the order is wider than its template: not_after must lie within the next %d seconds", t.Longest).With("template", t.Name).With("parameter", "not_after")
		}
		have := find(s.book, s.book.orders, d.ID)
		ended := func(o Order) bool { return !now.Before(o.NotAfter) }
		open := have.without(ended)
		same := 0
		for _, o := range open.list {
			if o.Template == t.Name {
				same++
			}
		}
		if same >= t.MaxOpen {
			return Order{}, refusal.New(refusal.PolicyDenied, "%d orders of this template are open, and that is all it takes", same).With("template", t.Name).With("parameter", "max_open")
		}
		one := Order{V: recordVersion, ID: newID("ord"), Delegation: d.ID, Template: t.Name, Condition: condition, NotAfter: end}
		next, err := open.with(one)
		if err != nil {
			return Order{}, err
		}
		if err := store(tx, vault.TypeOrder, one.ID, one); err != nil {
			return Order{}, err
		}
		for _, o := range have.all() {
			if ended(o) {
				if err := tx.Delete(vault.TypeOrder, o.ID); err != nil {
					return Order{}, fmt.Errorf("removing order %s: %w", o.ID, err)
				}
			}
		}
		s.book.change(tx, func() { s.book.orders[d.ID] = next })
		return one, nil
	})
}

// OrderClosed answers CloseOrder.
type OrderClosed struct{}

// CloseOrder takes an order back. Durable on return; what was approved under it
// before still comes out.
func (s *Service) CloseOrder(ctx context.Context, h Holder, requestID, order string) error {
	_, err := byHolder(ctx, s, h, requestID, func(tx *vault.Tx, d *delegationRecord) (OrderClosed, error) {
		if !slices.ContainsFunc(find(s.book, s.book.orders, d.ID).all(), func(o Order) bool { return o.ID == order }) {
			return OrderClosed{}, refusal.New(refusal.NotFound, "no such order is open")
		}
		return OrderClosed{}, s.removeOrder(tx, d.ID, order)
	})
	return err
}

func (s *Service) removeOrder(tx *vault.Tx, delegation, order string) error {
	if err := tx.Delete(vault.TypeOrder, order); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("removing order %s: %w", order, err)
	}
	s.book.change(tx, func() {
		s.book.orders[delegation] = s.book.orders[delegation].without(func(o Order) bool { return o.ID == order })
	})
	return nil
}

// Filled removes an order under which a signature was journaled.
func (s *Service) Filled(ctx context.Context, delegation, order string) error {
	return s.vault.Update(ctx, func(tx *vault.Tx) error { return s.removeOrder(tx, delegation, order) })
}

// Orders are the open orders of the delegation that the API key opens.
func (s *Service) Orders(h Holder) ([]Order, error) {
	_, d, err := s.holding(h)
	if err != nil {
		return nil, err
	}
	now := s.now()
	return find(s.book, s.book.orders, d.ID).without(func(o Order) bool { return !now.Before(o.NotAfter) }).list, nil
}
