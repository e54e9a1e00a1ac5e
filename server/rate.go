package server

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sigild/sigild/refusal"
)

// buckets bounds how fast one uid may call, after the access table has let it in:
// so there are as many buckets as uids with a role, and a loop that ran wild takes
// nothing from the others.
type buckets struct {
	perSecond rate.Limit
	burst     int
	now       func() time.Time
	mu        sync.Mutex // guards of
	of        map[uint32]*rate.Limiter
}

func newBuckets(l Limits, now func() time.Time) *buckets {
	return &buckets{perSecond: rate.Limit(l.CallsPerSecond), burst: l.CallBurst, now: now, of: map[uint32]*rate.Limiter{}}
}

// take spends one call of the uid, or says when the next one is free.
func (b *buckets) take(uid uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.of[uid]
	if l == nil {
		l = rate.NewLimiter(b.perSecond, b.burst)
		b.of[uid] = l
	}
	now := b.now()
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if r.OK() && wait == 0 {
		return nil
	}
	r.CancelAt(now)
	e := refusal.New(refusal.RateLimited, "uid %d calls faster than %v times a second", uid, float64(b.perSecond))
	e.After = max(wait, time.Millisecond)
	return e
}
