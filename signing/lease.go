package signing

import (
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
)

// openLease is how many requests' worth a control's lease has when the control names
// no bound that it could be a part of.
const openLease = 8

// bounds are what a request is about to be charged to, as the journal leases it: what
// each limit that covers it reads.
func bounds(known journal.View, st *Standing, d *chains.Decoded) (list []journal.Bound) {
	for _, a := range st.Rules.Asks(*spending(known, known.Now(), st, d, earlier{})) {
		l, used := &a.Limit, Used(known, st.Organization, a.Query)
		b := journal.Bound{MaxCount: l.MaxCount}
		b.Scope, b.What = account(st.Organization, a.Query)
		b.Asset = a.Query.Asset
		if !a.Unbounded && !a.Amount.IsZero() && a.Query.Asset != journal.AnyAsset && (!l.AnyAmount || l.Control) {
			b.Asked, b.Max, b.Left = &a.Amount, &l.Max, new(uint256.Int)
			if l.AnyAmount || l.Control && l.Max.IsZero() { // a condition reads the sum alone
				b.Max = new(uint256.Int).SetAllOne()
				b.Left.Mul(&a.Amount, uint256.NewInt(openLease))
			} else if used.Sum.Lt(&l.Max) {
				b.Left.Sub(&l.Max, &used.Sum)
			}
		}
		switch {
		case b.MaxCount > used.Count:
			b.LeftCount = b.MaxCount - used.Count
		case b.MaxCount == 0 && l.Control:
			b.MaxCount, b.LeftCount = 1<<62, openLease
		}
		list = append(list, b)
	}
	return list
}

// account is the journal's account of what a limit reads.
func account(organization string, q policy.SpentQuery) (s journal.Scope, what string) {
	s = journal.ByOrganization(organization)
	if q.Delegation != "" {
		s = journal.ByDelegation(q.Delegation)
	}
	switch q.Per {
	case policy.PerUser:
		s = journal.ByUser(q.Of)
	case policy.PerDelegation:
		s = journal.ByDelegation(q.Of)
	case policy.PerWallet:
		s = journal.ByWallet(q.Of)
	case policy.PerDestination:
		s = s.To(q.Of)
	}
	if q.IncludeFees || q.Asset == journal.AnyAsset {
		return s, journal.AllCharges
	}
	return s, journal.ButFees
}
