package journal

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/vault"
)

// When leases are taken, returned and charged; lease.go says what they are.

// Leasing says how far a lease goes.
type Leasing struct {
	// Part: a lease is one Part-th of the limit it is for. Larger: less is lost to an
	// unclean end, and the anchor moves more often. 0: 8.
	Part uint64
	// Approvals is how many requests are approved under one epoch at most. 0: 1024.
	Approvals uint64
}

func (l Leasing) withDefaults() Leasing {
	if l.Part == 0 {
		l.Part = 8
	}
	if l.Approvals == 0 {
		l.Approvals = 1024
	}
	return l
}

// Bound is a limit that an approval is about to be charged to.
type Bound struct {
	// Scope, Asset and What name the account that the limit reads, as for [View.Spent].
	Scope       Scope
	Asset, What string
	// Asked is what the approval charges to the account; Max what the limit allows and
	// Left what it has left, Asked still in it. All in the smallest unit; Max nil: the
	// limit does not bound amounts.
	Asked, Max, Left *uint256.Int
	// MaxCount and LeftCount are the same of approvals; MaxCount 0: they have no bound.
	MaxCount, LeftCount uint64
}

// maxRenewed bounds the leases that one entry grants beside those asked for.
const maxRenewed = 2048

// wish is what one account shall have: at least need, as much as size. nil: nothing.
type wish struct{ size, need allowance }

// Lease sees to it that an approval of the same update is covered: where the leases
// don't reach, it grants new ones, and the update then moves the anchor before it is
// acknowledged. Leases of other accounts that are half used up are granted anew on
// the occasion. It belongs before the approval's Append. Nothing is done, and bounds
// not asked, without an anchor.
func (j *Journal) Lease(tx *vault.Tx, bounds func() []Bound) error {
	if !j.anchored {
		return nil
	}
	e, err := j.newLeases(bounds())
	if err != nil || e == nil {
		return err
	}
	if _, err := j.Append(tx, *e); err != nil {
		return fmt.Errorf("renewing the lease: %w", err)
	}
	tx.Advance()
	return nil
}

// newLeases is the entry that covers the bounds; nil when they are covered.
func (j *Journal) newLeases(bounds []Bound) (*Entry, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	due := j.proj.approvals == nil || j.proj.approvals.IsZero()
	asked := map[accountKey]wish{}
	for i := range bounds {
		b := &bounds[i]
		if scopeNames[b.Scope.kind] == "" {
			return nil, fmt.Errorf("leasing: a limit counts by %d, which has no leases", b.Scope.kind)
		}
		k := accountKey{b.Scope, b.Asset, b.What}
		asked[k] = asked[k].tighter(b.wish(j.cfg.Leasing.Part))
		due = due || asked[k].short(j.leaseOf(k))
	}
	for k, w := range asked {
		if !w.size.none() {
			j.leaseSizes[k] = w.size
		}
	}
	if !due {
		return nil, nil
	}
	e := &Entry{Kind: KindLease, Outcome: leaseGranted}
	e.Leases = append(e.Leases, leaseOf(accountKey{}, allowance{count: uint256.NewInt(j.cfg.Leasing.Approvals)}))
	renewed := 0
	for _, k := range slices.SortedFunc(maps.Keys(j.leaseSizes), compareAccounts) {
		have, size := j.leaseOf(k), j.leaseSizes[k]
		w, wanted := asked[k]
		switch {
		case wanted && (w.short(have) || halfUsed(have, size)):
		case !wanted && !have.none() && halfUsed(have, size) && renewed < maxRenewed:
			renewed++
		default:
			continue
		}
		e.Leases = append(e.Leases, leaseOf(k, size))
	}
	return e, nil
}

// leaseOf is what an account's lease has left.
func (j *Journal) leaseOf(k accountKey) allowance {
	if a := j.proj.accounts[k]; a != nil {
		return a.lease
	}
	return allowance{}
}

// wish is what a limit needs and wants: a part of it, but no more than it has left.
func (b *Bound) wish(part uint64) (w wish) {
	if b.Max != nil {
		w.need.amount = b.Asked
		w.size.amount = most(b.Asked, least(new(uint256.Int).Div(b.Max, uint256.NewInt(part)), b.Left))
	}
	if b.MaxCount > 0 {
		w.need.count = uint256.NewInt(1)
		w.size.count = uint256.NewInt(max(1, min(b.MaxCount/part, b.LeftCount)))
	}
	return w
}

// tighter joins what two limits want of one account.
func (w wish) tighter(o wish) wish {
	for i := range w.size.parts() {
		size, need := w.size.parts()[i], w.need.parts()[i]
		*size, *need = least(*size, *o.size.parts()[i]), most(*need, *o.need.parts()[i])
	}
	return w
}

// short says whether an allowance does not reach.
func (w wish) short(have allowance) bool { return have.below(w.need) }

// halfUsed says whether less than half of something is left.
func halfUsed(have, size allowance) bool {
	var half allowance
	for i, n := range size.parts() {
		if *n != nil {
			*half.parts()[i] = new(uint256.Int).Rsh(*n, 1)
		}
	}
	return have.below(half)
}

// below says whether any number of want is not reached.
func (a allowance) below(want allowance) bool {
	for i, n := range want.parts() {
		if have := *a.parts()[i]; *n != nil && (have == nil || have.Lt(*n)) {
			return true
		}
	}
	return false
}

// least and most ignore what is not there.
func least(a, b *uint256.Int) *uint256.Int {
	if a == nil || b != nil && b.Lt(a) {
		return b
	}
	return a
}

func most(a, b *uint256.Int) *uint256.Int {
	if a == nil || b != nil && b.Gt(a) {
		return b
	}
	return a
}

// chargeLeases appends what an unclean end left of leases, within tx.
func (j *Journal) chargeLeases(ctx context.Context, tx *vault.Tx) error {
	left := j.proj.leases() // on the goroutine that alone changes them
	if left == nil {
		return nil
	}
	j.cfg.Log.WarnContext(ctx, "the last end was not orderly, or an older copy of the store was put back: what the leases had left counts as spent",
		"accounts", len(left)-1, "approvals_perhaps_forgotten", left[0].Count)
	_, err := j.Append(tx, Entry{Kind: KindLease, Outcome: leaseCharged, Leases: left})
	return err
}

// returnLeases ends them at an orderly end.
func (j *Journal) returnLeases(ctx context.Context) error {
	if !j.anchored {
		return nil
	}
	err := j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		left := j.proj.leases()
		if left == nil {
			return nil
		}
		_, err := j.Append(tx, Entry{Kind: KindLease, Outcome: leaseReturned, Leases: left})
		return err
	})
	if err != nil {
		return fmt.Errorf("returning the leases: %w", err)
	}
	return nil
}
