package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Join makes one set of several: all their policies and limits judge together,
// as if they had been compiled as one. Nothing is compiled again and what the
// sets share stays shared, so that the rules of an organization are held once for
// all its delegations. A nil set says nothing. It refuses two rules of one id
// (limits and policies apart) and sets of different schemas.
func Join(sets ...*Set) (*Set, error) {
	out := &Set{scoped: map[string][]int{}}
	var policies []compiled
	for _, s := range sets {
		if s == nil {
			continue
		}
		if out.schema == nil {
			out.schema = s.schema
		}
		if s.schema != out.schema {
			return nil, fmt.Errorf("joining policy sets: they were compiled against different schemas")
		}
		policies, out.limits = append(policies, s.policies...), append(out.limits, s.limits...)
	}
	if out.schema == nil {
		out.schema = StandardSchema()
	}
	slices.SortFunc(policies, func(a, b compiled) int { return strings.Compare(a.policy.ID, b.policy.ID) })
	slices.SortFunc(out.limits, func(a, b Limit) int { return strings.Compare(a.ID, b.ID) })
	plain := make([]Policy, 0, len(policies))
	for i, c := range policies {
		if i > 0 && policies[i-1].policy.ID == c.policy.ID {
			return nil, fmt.Errorf("joining policy sets: two policies have the id %q", c.policy.ID)
		}
		out.add(c)
		plain = append(plain, *c.policy)
	}
	for i := 1; i < len(out.limits); i++ {
		if out.limits[i-1].ID == out.limits[i].ID {
			return nil, fmt.Errorf("joining policy sets: two limits have the id %q", out.limits[i].ID)
		}
	}
	out.hash = hashSet(plain, out.limits)
	return out, nil
}
