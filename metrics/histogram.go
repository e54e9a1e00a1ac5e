package metrics

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper ends of a histogram's buckets: from a call that is refused at the
// door to a ceremony.
var Bounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second, 20 * time.Second,
}

// Histogram counts durations. The zero Histogram is empty; it is safe for concurrent use.
type Histogram struct {
	counts [len(Bounds) + 1]atomic.Uint64 // of each bucket alone; the last is above all bounds
	sum    atomic.Int64                   // nanoseconds
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.sum.Add(int64(d))
	h.counts[i].Add(1)
}

// Snapshot is what a histogram has counted.
type Snapshot struct {
	Below [len(Bounds)]uint64 // at most that bound
	Count uint64
	Sum   time.Duration
}

// Snapshot reads the counts; those of one call may be missing in part.
func (h *Histogram) Snapshot() (s Snapshot) {
	for i := range h.counts {
		s.Count += h.counts[i].Load()
		if i < len(s.Below) {
			s.Below[i] = s.Count
		}
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}
