package signing

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Limits compare a request's charges with what the journal says was spent.

// usage is where charges are summed: the journal, or its view within a transaction.
type usage interface {
	Spent(s journal.Scope, asset, what string, since time.Time) journal.Spent
}

// Used answers what limits ask, for one organization. Where something was spent that
// may have been the asset, the sum has no known bound.
func Used(of usage, organization string, q policy.SpentQuery) policy.Usage {
	s, what := account(organization, q)
	u := of.Spent(s, q.Asset, what, q.Since)
	for _, asset := range mayBe(q.Asset) {
		if x := of.Spent(s, asset, what, q.Since); x.Count > 0 {
			u.Unbounded = true
			u.Count += x.Count
			u.InFlight += x.InFlight
		}
	}
	return policy.Usage{Sum: u.Sum, Unbounded: u.Unbounded, Count: uint64(u.Count), InFlight: u.InFlight, Kept: u.Kept, Oldest: u.Oldest}
}

// mayBe are the assets that charges name when they can't tell that they are this one:
// any token of its chain, or of every EVM chain, and the coin of every EVM chain.
func mayBe(asset string) []string {
	chain, reference, _ := strings.Cut(asset, "/")
	evm := strings.HasPrefix(chain, "eip155:")
	native := strings.HasPrefix(reference, "slip44:")
	switch {
	case asset == journal.AnyAsset || native && !evm:
		return nil
	case native:
		return []string{"eip155/" + reference}
	case evm:
		return []string{chain + "/" + chains.AnyToken, "eip155/" + chains.AnyToken}
	}
	return []string{chain + "/" + chains.AnyToken}
}

// chargesOf are a payload's as the journal keeps them. What was not understood may
// spend what no charge tells of: that is kept as a charge without a bound, for limits
// that are made later. An EVM transaction states its native value and its fee itself.
func chargesOf(d *chains.Decoded) []journal.Charge {
	all := slices.Clone(d.Charges)
	if d.Opaque {
		all = append(all, chains.Charge{Chain: d.Chain, Asset: d.Chain + "/" + chains.AnyToken, Unbounded: true, What: "unknown"})
		if strings.HasPrefix(d.Chain, "solana:") {
			all = append(all, chains.Charge{Chain: d.Chain, Asset: d.Chain + "/slip44:501", Unbounded: true, What: "unknown"})
		}
	}
	var out []journal.Charge
	for _, c := range all {
		charge := journal.Charge{Chain: c.Chain, Asset: c.Asset, Unbounded: c.Unbounded, What: c.What, To: c.To}
		if !c.Unbounded {
			charge.Amount = c.Amount.Dec()
		}
		out = append(out, charge)
	}
	return out
}

// spending is the request as limits see it. What it was charged at an earlier try, under
// a reservation that stands, is not counted against it.
func spending(of usage, now time.Time, st *Standing, d *chains.Decoded, prior earlier) *policy.Spending {
	return &policy.Spending{
		Chain: d.Chain, Charges: d.Charges, Opaque: d.Opaque, Delegation: st.Delegation, User: st.DelegatedUser, Wallet: st.Wallet.ID, Now: now,
		Spent: func(q policy.SpentQuery) policy.Usage {
			if st.forgets(q) {
				return policy.Usage{Unbounded: true, Count: math.MaxInt64}
			}
			u := Used(of, st.Organization, q)
			if prior.sequence != 0 && (prior.chargedAt.IsZero() || prior.chargedAt.After(q.Since)) {
				leaveOut(&u, q, d.Charges)
			}
			return u
		},
	}
}

// leaveOut takes a request's own charges out of what was used.
func leaveOut(u *policy.Usage, q policy.SpentQuery, own []chains.Charge) {
	counted := q.Asset == journal.AnyAsset && q.Per != policy.PerDestination
	for i := range own {
		c := &own[i]
		asset := q.Asset == journal.AnyAsset || c.Asset == q.Asset
		if fee := c.What == "fee"; !asset || fee && !q.IncludeFees || q.Per == policy.PerDestination && c.To != q.Of {
			continue
		}
		counted = true
		if q.Asset == journal.AnyAsset || c.Unbounded {
			continue
		}
		if _, under := u.Sum.SubOverflow(&u.Sum, &c.Amount); under {
			u.Unbounded = true // it is not in there: nothing can be said
		}
	}
	if counted && u.Count > 0 {
		u.Count--
	}
}

// afterReplacing is the request as limits see it when it was reserved in the place of
// others: the groups of all of them count.
func afterReplacing(known journal.View, st *Standing, d *chains.Decoded, r *journal.Replaced) policy.Spending {
	sp := *spending(known, known.Now(), st, d, earlier{})
	sp.Reserved = true
	sp.Charges = slices.Clone(sp.Charges)
	for _, charges := range r.Charges {
		for _, c := range charges {
			sp.Charges = append(sp.Charges, chains.Charge{Chain: c.Chain, Asset: c.Asset, Unbounded: c.Unbounded, What: c.What, To: c.To})
		}
	}
	return sp
}

// checkLimits is called under the lock under which the request is reserved.
func checkLimits(sp policy.Spending, st *Standing) error {
	over := st.Rules.CheckLimits(sp)
	if over == nil {
		return nil
	}
	said, name := over.Error(), over.Name
	if strings.HasPrefix(over.LimitID, AppliancePrefix) {
		name = over.LimitID // what its owner calls it is no business of the organization's
	}
	if over.Delegation == "" && over.Per != policy.PerDelegation {
		// Others spend under this limit, too: how much is not this caller's to know.
		said = fmt.Sprintf("limit %q of all the organization's requests leaves too little of %s", over.LimitID, over.Asset)
		if over.Per != policy.PerAll {
			said = fmt.Sprintf("limit %q of this %s leaves too little of %s", over.LimitID, over.Per, over.Asset)
		}
	}
	e := refusal.New(refusal.LimitExceeded, "%s", strings.TrimSuffix(said, " of ")).With("rule", over.LimitID).With("limit", name).With("asset", over.Asset)
	e.After = over.RetryAfter
	return e
}
