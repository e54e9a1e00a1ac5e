package journal

import (
	"errors"
	"fmt"
	"time"
)

// Replacing: an approval may take the place of one that was signed under the same
// replay key, as a transaction of the same nonce with higher fees does. A chain takes
// one of them at most, so together they are charged what the dearest of them costs, in
// every sum, and that from the newest on: the older charge leaves its windows and is
// in flight again under the new approval. When the new one is refunded the older
// charge comes back, and its windows begin anew: late, never early.

// MaxReplaced is how many transactions one may follow under one key.
const MaxReplaced = 8

// Replaced says which approval another one takes the place of.
type Replaced struct {
	ApprovedSeq uint64 `json:"approved_seq"`
	ChargedMS   int64  `json:"charged_ms"` // when that one's windows began
	// Charges are those of the transactions that this one takes the place of, the oldest
	// first and that of ApprovedSeq last.
	Charges [][]Charge `json:"charges"`
}

// ErrNotReplaceable: no signed approval of that number stands under the keys.
var ErrNotReplaceable = errors.New("no signed approval stands to be replaced under these keys")

// overtaken is what a replacing reservation needs to give things back.
type overtaken struct {
	seq    uint64
	key    string
	was    replayed // what p.replays had under key; its digest is empty if nothing
	shares []share  // of the older charges
}

// admitKeys refuses keys that hold another digest, and finds the one whose holder is
// replaced.
func (p *projections) admitKeys(e *Entry) (*overtaken, error) {
	var found *overtaken
	for _, key := range e.ReplayKeys {
		have := p.holder(key)
		switch {
		case have.digest == "" || have.digest == e.Digest:
		case e.Replaces != nil && have.seq == e.Replaces.ApprovedSeq && found == nil:
			found = &overtaken{seq: have.seq, key: key, was: p.replays[key]}
		default:
			return nil, &ReplayError{key, have.digest, e.Digest}
		}
	}
	if e.Replaces != nil && (found == nil || p.reservations[e.Replaces.ApprovedSeq] != nil) {
		return nil, fmt.Errorf("%w: approval %d", ErrNotReplaceable, e.Replaces.ApprovedSeq)
	}
	return found, nil
}

// overtake takes the older charges out of their accounts and returns the shares of
// what is charged now, and how to put the older ones back where they were.
func (p *projections) overtake(e *Entry, o *overtaken, own []share) (shares []share, restore func(), err error) {
	for _, charges := range e.Replaces.Charges {
		amounts, err := parseCharges(charges)
		if err != nil {
			return nil, nil, err
		}
		o.shares = dearest(o.shares, p.sharesOf(e, charges, amounts))
	}
	histories := make([][]ended, len(o.shares))
	for i := range o.shares {
		sh := &o.shares[i]
		histories[i] = sh.acc.relaunch(e.Replaces.ChargedMS, o.seq, &sh.sum)
		sh.acc.recall(&sh.sum)
	}
	restore = func() {
		for i := range o.shares {
			o.shares[i].acc.history = histories[i]
		}
	}
	return dearest(own, o.shares), restore, nil
}

// comeBack lands the older charges at ms, when what took their place was refunded.
func (o *overtaken) comeBack(ms int64) {
	for i := range o.shares {
		sh := &o.shares[i]
		sh.acc.depart(&sh.sum)
		sh.acc.land(ms, o.seq, &sh.sum)
	}
}

// putBack gives the key to its older holder.
func (p *projections) putBack(o *overtaken) {
	if o.was.digest == "" {
		delete(p.replays, o.key) // the runs have it
	} else {
		p.replays[o.key] = o.was
	}
}

// leaveAgain is the inverse of comeBack.
func (o *overtaken) leaveAgain() {
	for i := len(o.shares) - 1; i >= 0; i-- {
		sh := &o.shares[i]
		sh.acc.unland(&sh.sum)
		sh.acc.recall(&sh.sum)
	}
}

// dearest has for each account the larger of two sums.
func dearest(a, b []share) []share {
	out := append([]share(nil), a...)
	at := make(map[*account]int, len(a))
	for i := range out {
		at[out[i].acc] = i
	}
	for _, sh := range b {
		i, both := at[sh.acc]
		switch {
		case !both:
			out = append(out, sh)
		case out[i].sum.less(&sh.sum):
			out[i].sum = sh.sum
		}
	}
	return out
}

// less compares totals; without a bound is more than with one.
func (t *total) less(o *total) bool {
	switch {
	case t.unbounded != o.unbounded:
		return t.unbounded < o.unbounded
	case t.hi != o.hi:
		return t.hi < o.hi
	}
	return t.lo.Lt(&o.lo)
}

// Holder is the approval that holds a replay key.
type Holder struct {
	Approved Entry
	// Signed says that it was signed, ChargedAt when.
	Signed    bool
	ChargedAt time.Time
}

// Holder finds the approval under a replay key, within the update. ok is false when
// there is none, or its entries were pruned.
func (v View) Holder(key string) (h Holder, ok bool, err error) {
	v.j.mu.RLock()
	defer v.j.mu.RUnlock()
	p := v.j.proj
	have := p.holder(key)
	if have.digest == "" || have.seq <= p.pruned.Seq || have.seq > v.j.durable {
		return Holder{}, false, nil
	}
	e, err := p.read(have.seq)
	if err != nil {
		return Holder{}, false, fmt.Errorf("reading approval %d: %w", have.seq, err)
	}
	s, err := p.lookup(requestKey{e.Organization, e.RequestID})
	if err != nil || s == nil {
		return Holder{}, false, err
	}
	return Holder{Approved: e, Signed: s.State == StateSigned && s.ApprovedSeq == have.seq, ChargedAt: s.ChargedAt}, true, nil
}

func (r *Replaced) check() error {
	if r == nil {
		return nil
	}
	if r.ApprovedSeq == 0 || r.ChargedMS < 0 || len(r.Charges) == 0 || len(r.Charges) > MaxReplaced {
		return fmt.Errorf("it replaces approval %d and %d transactions", r.ApprovedSeq, len(r.Charges))
	}
	for _, charges := range r.Charges {
		if _, err := parseCharges(charges); err != nil {
			return err
		}
	}
	return nil
}
