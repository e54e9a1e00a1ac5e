package delegation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Template is what orders are made of.
type Template struct {
	Name       string             `json:"name"`
	Condition  string             `json:"condition"`
	Parameters []policy.Parameter `json:"parameters,omitempty"`
	// MaxOpen orders of it may be open at a time.
	MaxOpen int `json:"max_open"`
	// Longest is how long an order may be open, in seconds.
	Longest uint32 `json:"longest_seconds"`
	// MaxTransactions is how many an order of it may allow; 0 is 1. Above 1 there are Totals.
	MaxTransactions int `json:"max_transactions,omitempty"`
	// Totals are the most that all transactions of an order may spend together.
	Totals []AssetTotal `json:"totals,omitempty"`
}

// AssetTotal bounds what is spent of one asset, fees left out.
type AssetTotal struct {
	Asset string `json:"asset"` // CAIP-19
	Max   string `json:"max"`   // decimal, in the asset's smallest unit
}

// totalsOf makes limits of totals, for an order or to see whether they can be any.
func totalsOf(order string, list []AssetTotal) (*policy.Set, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var limits []policy.Limit
	for i, t := range list {
		most, err := policy.ParseAmount(t.Max)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list[:i], func(x AssetTotal) bool { return x.Asset == t.Asset }) {
			return nil, fmt.Errorf("two totals of %s", t.Asset)
		}
		limits = append(limits, policy.Limit{ID: fmt.Sprintf("%s/total/%d", order, i+1), Name: "total", Asset: t.Asset, Max: most})
	}
	set, problems := policy.Compile(nil, limits, nil)
	for _, d := range problems {
		if d.Severity == policy.SeverityError {
			return nil, errors.New(d.String())
		}
	}
	return set, nil
}

func (t Template) text() policy.Template {
	return policy.Template{Name: t.Name, Condition: t.Condition, Parameters: t.Parameters}
}

// Bounds of templates and orders.
const (
	maxTemplates = 16
	maxOpen      = 64
	maxLongest   = 366 * 24 * 60 * 60
	// maxTransactions of one order, maxTotals of one template.
	maxTransactions = 256
	maxTotals       = 16
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
		if t.MaxTransactions < 0 || t.MaxTransactions > maxTransactions || t.MaxTransactions > 1 && len(t.Totals) == 0 || len(t.Totals) > maxTotals {
			return refusal.New(refusal.RequestInvalid, "template %q: max_transactions must be 1 to %d, and above 1 there must be 1 to %d totals", t.Name, maxTransactions, maxTotals).With("field", "max_transactions")
		}
		if _, err := totalsOf("ord", t.Totals); err != nil {
			return refusal.New(refusal.PolicyInvalid, "template %q: totals: %v", t.Name, err).With("template", t.Name)
		}
		if err := t.text().Check(); err != nil {
			return refusal.New(refusal.PolicyInvalid, "template %q: %v", t.Name, err).With("template", t.Name)
		}
	}
	return nil
}

// fit makes an order of the template and n, or refuses what is wider.
func (t Template) fit(n NewOrder, delegation string) (Order, error) {
	wider := func(parameter, why string) error {
		return refusal.New(refusal.PolicyDenied, "the order is wider than its template: %s: %s", parameter, why).With("template", t.Name).With("parameter", parameter)
	}
	condition, err := t.text().Fill(n.Values)
	var bound *policy.BoundError
	if errors.As(err, &bound) {
		return Order{}, wider(bound.Parameter, bound.Why)
	}
	if err != nil {
		return Order{}, fmt.Errorf("filling template %q: %w", t.Name, err)
	}
	if most := max(t.MaxTransactions, 1); n.Transactions < 0 || n.Transactions > most {
		return Order{}, wider("transactions", fmt.Sprintf("%d is not 1 to %d", n.Transactions, most))
	}
	totals := slices.Clone(t.Totals)
	for _, ask := range n.Totals {
		at := slices.IndexFunc(totals, func(x AssetTotal) bool { return x.Asset == ask.Asset })
		if at < 0 {
			return Order{}, wider("totals", fmt.Sprintf("the template has no total of %.120q", ask.Asset))
		}
		want, err := policy.ParseAmount(ask.Max)
		if err != nil {
			return Order{}, wider("totals", err.Error())
		}
		most, err := policy.ParseAmount(t.Totals[at].Max)
		if err != nil {
			return Order{}, fmt.Errorf("reading a total of template %q: %w", t.Name, err)
		}
		if want.Gt(&most) {
			return Order{}, wider("totals", fmt.Sprintf("%s of %s is above %s", ask.Max, ask.Asset, t.Totals[at].Max))
		}
		totals[at].Max = ask.Max
	}
	return Order{
		V: recordVersion, ID: newID("ord"), Delegation: delegation, Template: t.Name, Condition: condition, NotAfter: n.NotAfter.UTC(),
		Transactions: n.Transactions, Totals: totals,
	}, nil
}
