package signing

import (
	"fmt"
	"slices"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Orders and one-time policies are used up. Each transaction takes a place under one,
// a replay key that is never given to another digest; how much an order allows in all
// is bounded by its places and its totals.

// allowing is the policy under which a request is approved, and the place that it
// takes under it; "" when it takes none.
type allowing struct {
	*policy.PolicyResult
	place string
}

// places are the names that transactions take under an order or a one-time policy, one
// each; none for other policies.
func places(st *Standing, p *policy.PolicyResult) []string {
	switch {
	case isOrder(p.ID):
		return orderPlaces(p.ID, st.Orders[p.ID])
	case p.OneTime:
		return []string{st.Organization + "/once/" + p.ID}
	}
	return nil
}

func orderPlaces(order string, b OrderBound) []string {
	out := []string{"order/" + order}
	for n := 2; n <= b.Transactions; n++ {
		out = append(out, fmt.Sprintf("order/%s/%d", order, n))
	}
	return out
}

// freePlace finds the one that digest has already, or the first that is free; "" for none.
func freePlace(known journal.View, places []string, digest string) string {
	free := ""
	for _, k := range places {
		switch have, ok := known.ReplayKey(k); {
		case ok && have == digest:
			return k
		case !ok && free == "":
			free = k
		}
	}
	return free
}

// full reports whether every place under an order is taken. A transaction that takes
// one and fails later frees it; then the order may be gone with a place free.
func (s *Service) full(st *Standing, order string) bool {
	return !slices.ContainsFunc(orderPlaces(order, st.Orders[order]), func(k string) bool {
		_, taken := s.journal.ReplayKey(k)
		return !taken
	})
}

// checkTotals compares what an order's transactions spend together with its totals, by
// the rules for limits. What was spent is the journal's sum of the order's approvals.
func checkTotals(known journal.View, st *Standing, order string, d *chains.Decoded) error {
	totals := st.Orders[order].Totals
	if totals == nil {
		return nil
	}
	asks := spending(known, known.Now(), st, d, earlier{})
	asks.Spent = func(q policy.SpentQuery) policy.Usage {
		u := known.Spent(journal.ByRule(order), q.Asset, journal.ButFees, q.Since)
		return policy.Usage{Sum: u.Sum, Unbounded: u.Unbounded, Count: uint64(u.Count), Kept: u.Kept, Oldest: u.Oldest}
	}
	over := totals.CheckLimits(*asks)
	if over == nil {
		return nil
	}
	return refusal.New(refusal.LimitExceeded, "the order's total: %v", over).With("rule", order).With("asset", over.Asset)
}
