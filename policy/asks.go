package policy

import "github.com/holiman/uint256"

// Ask is what a request asks of one limit, in one group.
type Ask struct {
	Limit Limit
	// Query is about the group's usage before the request.
	Query SpentQuery
	// Amount is in the asset's smallest unit; nothing when Unbounded.
	Amount    uint256.Int
	Unbounded bool
}

// Asks lists what a request asks of each limit that covers it, controls included,
// whether it holds or not. What cannot be told of a limit, for which [Check] refuses,
// is left out.
func (s *Set) Asks(sp Spending) (list []Ask) {
	for i := range s.limits {
		l := &s.limits[i]
		if !l.covers(sp) {
			continue
		}
		asks, _ := l.asks(l.Asset, sp) // assets of a set are canonical
		for k := range asks {
			list = append(list, Ask{Limit: *l, Query: l.query(asks[k].of, l.Asset, sp.Now), Amount: asks[k].amount, Unbounded: asks[k].unbounded})
		}
	}
	return list
}
