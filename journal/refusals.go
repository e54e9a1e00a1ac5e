package journal

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/sigild/sigild/vault"
)

// Refusals cost whoever asks nothing, so they must not cost the disk an fsync each.
// All of them are counted, by reason, socket and uid, and told in one entry a minute
// at most. Those of a wallet API key that was right have entries of their own, too,
// as long as the key's budget lasts; what it doesn't is counted in the same entry.
// The log has every one.

const (
	// refusalBudget is how many refusals of one key may have an entry at once, and
	// refusalRefill after how long one more may.
	refusalBudget = 60
	refusalRefill = time.Minute
	// maxCounts bounds what one entry lists; what comes on top is one sum.
	maxCounts = 256
)

// The facts of a refusals entry.
const (
	factSince      = "since_ms"         // when counting began, decimal
	factRefused    = "refused."         // and reason "." socket "." uid: how many, decimal
	factSuppressed = "suppressed."      // and credential id "." reason: how many of these have no entry
	factOtherCount = "refused.other"    // beyond the first 256
	factOtherSupp  = "suppressed.other" // likewise
)

// Refusals counts them. It outlives a sealing: what is refused while the store is
// closed is told when it is open. Safe for concurrent use; the zero value counts
// nothing and must be made by [NewRefusals].
type Refusals struct {
	now func() time.Time

	mu      sync.Mutex // guards all below
	counts  map[string]uint64
	since   time.Time // of the oldest count
	totals  map[string]uint64
	budgets map[string]budget
}

// budget is a bucket of entries; left may be of an earlier time.
type budget struct {
	left int
	at   time.Time
}

// NewRefusals counts by the clock now; nil is time.Now.
func NewRefusals(now func() time.Time) *Refusals {
	if now == nil {
		now = time.Now
	}
	return &Refusals{now: now, counts: map[string]uint64{}, totals: map[string]uint64{}, budgets: map[string]budget{}}
}

// Refused counts one refusal that left through a socket.
func (r *Refusals) Refused(reason, socket string, uid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.totals[reason]++
	r.countLocked(factRefused+reason+"."+socket+"."+strconv.FormatUint(uint64(uid), 10), factOtherCount)
}

func (r *Refusals) countLocked(name, other string) {
	if len(r.counts) == 0 {
		r.since = r.now()
	}
	if _, there := r.counts[name]; !there && len(r.counts) >= maxCounts {
		name = other
	}
	r.counts[name]++
}

// Spend says whether a refusal of this credential, which was authenticated, gets an
// entry of its own. If not it is counted.
func (r *Refusals) Spend(credential, reason string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	b, known := r.budgets[credential]
	if !known {
		b = budget{refusalBudget, now}
	}
	if n := int(now.Sub(b.at) / refusalRefill); n > 0 {
		b = budget{min(refusalBudget, b.left+n), b.at.Add(time.Duration(n) * refusalRefill)}
	}
	spent := b.left > 0
	if spent {
		b.left--
	} else {
		r.countLocked(factSuppressed+credential+"."+reason, factOtherSupp)
	}
	r.budgets[credential] = b
	return spent
}

// Totals are the refusals of this process by reason.
func (r *Refusals) Totals() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.totals)
}

// take gives what was counted as an entry, and forgets full budgets; false when
// there is nothing to tell.
func (r *Refusals) take() (e Entry, counts map[string]uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	maps.DeleteFunc(r.budgets, func(_ string, b budget) bool {
		return b.left+int(now.Sub(b.at)/refusalRefill) >= refusalBudget
	})
	if len(r.counts) == 0 {
		return Entry{}, nil, false
	}
	e = Entry{Kind: KindRefusals, Facts: map[string]string{factSince: strconv.FormatInt(r.since.UnixMilli(), 10)}}
	for name, n := range r.counts {
		e.Facts[name] = strconv.FormatUint(n, 10)
	}
	counts, r.counts = r.counts, map[string]uint64{}
	return e, counts, true
}

// putBack adds counts that could not be written.
func (r *Refusals) putBack(counts map[string]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, n := range counts {
		r.counts[name] += n
	}
}

// tellRefusals writes what was counted as one entry.
func (j *Journal) tellRefusals(ctx context.Context) error {
	if j.cfg.Refusals == nil {
		return nil
	}
	e, counts, ok := j.cfg.Refusals.take()
	if !ok {
		return nil
	}
	err := j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		_, err := j.Append(tx, e)
		return err
	})
	if err != nil {
		j.cfg.Refusals.putBack(counts)
		return fmt.Errorf("journaling the counts of refusals: %w", err)
	}
	return nil
}
