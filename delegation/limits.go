package delegation

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/signing"
)

// How limits stand, for those whose limits they are. They are made and removed in the
// documents and delegations that they are part of.

// LimitState is a limit and the sums that are held against it.
type LimitState struct {
	Limit policy.Limit
	// Groups are those that are not zero, the largest first; one for a limit with one sum.
	Groups []LimitGroup
	// More groups there are than are shown.
	More bool
}

// LimitGroup is one sum of a limit.
type LimitGroup struct {
	Of   string
	Used policy.Usage
	// Left of the amount and of the count, where the limit bounds them.
	Left      uint256.Int
	LeftCount uint64
	// Frees is when the next part leaves the window; zero when none does.
	Frees time.Time
}

// maxGroups are shown of one limit.
const maxGroups = 256

// Limits shows root members all limits of their organization and its delegations, end
// users those of delegations of their own wallets. one narrows to an id; "": all.
func (s *Service) Limits(a Actor, org, one string) ([]LimitState, error) {
	if err := s.member(a, org); err != nil {
		return nil, err
	}
	var limits []policy.Limit
	if s.concerns(a, org, "") {
		laws, err := s.book.rulebook(org).laws()
		if err != nil {
			return nil, err
		}
		for _, l := range laws.rules.Limits() {
			l.ID = strings.TrimPrefix(l.ID, organizationPrefix)
			limits = append(limits, l)
		}
	}
	var own []policy.Limit
	for _, d := range s.book.delegationsOf(org) {
		if d.Status == statusActive && s.concerns(a, org, d.Owner) {
			own = append(own, d.Limits...)
		}
	}
	slices.SortFunc(own, func(x, y policy.Limit) int { return strings.Compare(x.ID, y.ID) })
	var out []LimitState
	for _, l := range append(limits, own...) {
		if one == "" || one == l.ID {
			out = append(out, s.limitState(org, l))
		}
	}
	return out, nil
}

// limitState looks the sums up.
func (s *Service) limitState(org string, l policy.Limit) LimitState {
	out := LimitState{Limit: l}
	now := s.journal.Now()
	for _, of := range s.groupsOf(org, l) {
		g := s.limitGroup(org, l, of, now)
		if l.Per == policy.PerAll || g.Used.Count > 0 {
			out.Groups = append(out.Groups, g)
		}
	}
	slices.SortStableFunc(out.Groups, func(x, y LimitGroup) int {
		return cmp.Or(y.Used.Sum.Cmp(&x.Used.Sum), cmp.Compare(y.Used.Count, x.Used.Count), strings.Compare(x.Of, y.Of))
	})
	if out.More = len(out.Groups) > maxGroups; out.More {
		out.Groups = out.Groups[:maxGroups]
	}
	return out
}

// groupsOf are the groups that may have a sum.
func (s *Service) groupsOf(org string, l policy.Limit) (names []string) {
	switch l.Per {
	case policy.PerAll:
		return []string{""}
	case policy.PerDestination:
		scope := journal.ByOrganization(org)
		if l.Delegation != "" {
			scope = journal.ByDelegation(l.Delegation)
		}
		return s.journal.Destinations(scope)
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for id, d := range s.book.delegations {
		if d.Organization != org {
			continue
		}
		name := map[policy.Per]string{policy.PerUser: d.DelegatedUser, policy.PerDelegation: id, policy.PerWallet: d.Wallet}[l.Per]
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// limitGroup is what the journal says of one sum at this moment.
func (s *Service) limitGroup(org string, l policy.Limit, of string, now time.Time) LimitGroup {
	q := l.Query(of, now)
	g := LimitGroup{Of: of, Used: signing.Used(s.journal, org, q)}
	if !g.Used.Unbounded && g.Used.Sum.Lt(&l.Max) {
		g.Left.Sub(&l.Max, &g.Used.Sum)
	}
	if l.MaxCount > g.Used.Count {
		g.LeftCount = l.MaxCount - g.Used.Count
	}
	if l.Window > 0 && !g.Used.Oldest.IsZero() {
		g.Frees = g.Used.Oldest.Add(l.Window)
	}
	return g
}
