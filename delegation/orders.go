package delegation

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
// orders without asking again: policies of this delegation that allow a bounded number
// of transactions and end by themselves. That an order is no wider than its template is
// checked on the values, never on the conditions (policy/template.go).
//
// An order allows one transaction, or as many as the template says, that together spend
// at most its totals. Each approval takes one of the order's replay keys in the journal,
// in the transaction that reserves its charges, and has them summed by the order there,
// so neither concurrency nor a crash fills an order twice. What failed before its last
// share left gives both back. When the last signature is journaled the order is removed.

// Order is a record of type vault.TypeOrder, and what the delegated user sees of it.
type Order struct {
	V          int       `json:"v"`
	ID         string    `json:"id"`
	Delegation string    `json:"delegation"`
	Template   string    `json:"template"`
	Condition  string    `json:"condition"`
	NotAfter   time.Time `json:"not_after"`
	// Transactions is how many it allows; 0 is 1.
	Transactions int `json:"transactions,omitempty"`
	// Totals bound what they spend together.
	Totals []AssetTotal `json:"totals,omitempty"`
}

// orders are the open ones of a delegation, ordered by id, each compiled; immutable.
type orders struct {
	list     []Order
	compiled []*policy.Set
	bounds   map[string]signing.OrderBound
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
	totals, err := totalsOf(one.ID, one.Totals)
	if err != nil {
		return nil, fmt.Errorf("compiling the totals of order %s: %w", one.ID, err)
	}
	at, _ := slices.BinarySearchFunc(o.all(), one.ID, func(x Order, id string) int { return strings.Compare(x.ID, id) })
	bounds := maps.Clone(o.together())
	if bounds == nil {
		bounds = map[string]signing.OrderBound{}
	}
	bounds[one.ID] = signing.OrderBound{Transactions: max(one.Transactions, 1), Totals: totals}
	return &orders{slices.Insert(slices.Clone(o.all()), at, one), slices.Insert(o.sets(), at, set), bounds}, nil
}

// together says how much each order allows in all.
func (o *orders) together() map[string]signing.OrderBound {
	if o == nil {
		return nil
	}
	return o.bounds
}

// without is o less the orders that gone names.
func (o *orders) without(gone func(Order) bool) *orders {
	out := &orders{bounds: map[string]signing.OrderBound{}}
	for i, one := range o.all() {
		if !gone(one) {
			out.list, out.compiled = append(out.list, one), append(out.compiled, o.compiled[i])
			out.bounds[one.ID] = o.bounds[one.ID]
		}
	}
	return out
}

// fileOrders files the orders of all delegations.
func (b *book) fileOrders(all map[string]*Order) error {
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
	// Transactions is how many it is to allow; 0 is 1. Totals may lower the template's.
	Transactions int
	Totals       []AssetTotal
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
		one, err := t.fit(n, d.ID)
		if err != nil {
			return Order{}, err
		}
		now := s.now()
		if end := one.NotAfter; !end.After(now) || end.After(now.Add(time.Duration(t.Longest)*time.Second)) {
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
		return OrderClosed{}, s.closeOrder(tx, d.ID, order)
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

// EndOrder closes an order for the wallet's owner, or the root quorum. Durable on
// return; what was approved under it before still comes out.
func (s *Service) EndOrder(ctx context.Context, a Actor, requestID, org, delegation, order string) error {
	authorize := func() error {
		if _, err := s.inside(a, org); err != nil {
			return err
		}
		d, err := s.book.delegation(org, delegation)
		if err != nil {
			return err
		}
		if s.owner(a, org, d.Owner) == nil {
			return nil
		}
		return s.root(a, org)
	}
	_, err := act(ctx, s, a, org, requestID, authorize, func(tx *vault.Tx, e *journal.Entry) (OrderClosed, error) {
		e.Delegation, e.Facts = delegation, map[string]string{"order": order}
		return OrderClosed{}, s.closeOrder(tx, delegation, order)
	})
	return err
}

// OpenOrders shows a delegation's open orders to its owner and to root members.
func (s *Service) OpenOrders(a Actor, org, delegation string) ([]Order, error) {
	if err := s.member(a, org); err != nil {
		return nil, err
	}
	d, err := s.book.delegation(org, delegation)
	if err != nil {
		return nil, err
	}
	if !s.concerns(a, org, d.Owner) {
		return nil, refusal.New(refusal.NotFound, "no such delegation")
	}
	return s.openOrders(delegation), nil
}

// openOrders are those that have not ended.
func (s *Service) openOrders(delegation string) []Order {
	now := s.now()
	return find(s.book, s.book.orders, delegation).without(func(o Order) bool { return !now.Before(o.NotAfter) }).list
}

func (s *Service) closeOrder(tx *vault.Tx, delegation, order string) error {
	tx.Advance() // no older copy of the store may open it again
	if !slices.ContainsFunc(find(s.book, s.book.orders, delegation).all(), func(o Order) bool { return o.ID == order }) {
		return refusal.New(refusal.NotFound, "no such order is open")
	}
	return s.removeOrder(tx, delegation, order)
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
	return s.openOrders(d.ID), nil
}
