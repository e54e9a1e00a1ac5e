package delegation

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// flights counts signatures under way by delegation, so that a revocation can be
// seen by all of them at once and acknowledged after the last has ended.
type flights struct {
	mu    sync.Mutex // guards count, ended and idle
	count map[string]int
	// ended holds delegations whose revocation has begun.
	ended map[string]bool
	// idle is closed when a delegation's count falls to zero.
	idle map[string]chan struct{}
}

func newFlights() *flights {
	return &flights{count: map[string]int{}, ended: map[string]bool{}, idle: map[string]chan struct{}{}}
}

// enter counts one signature; leave may be called once or more.
func (f *flights) enter(id string) (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count[id]++
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.count[id]--; f.count[id] > 0 {
			return
		}
		delete(f.count, id)
		if c := f.idle[id]; c != nil {
			close(c)
			delete(f.idle, id)
		}
	})
}

// end makes every later look-up of the delegation fail; undo takes that back when
// the revocation could not be put on disk.
func (f *flights) end(id string) (undo func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[id] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.ended, id)
	}
}

// underWay lists what signatures are counted by at this moment.
func (f *flights) underWay() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.count))
}

func (f *flights) ending(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended[id]
}

// wait returns when no signature of the delegation is under way.
func (f *flights) wait(ctx context.Context, id string) error {
	f.mu.Lock()
	if f.count[id] == 0 {
		f.mu.Unlock()
		return nil
	}
	c := f.idle[id]
	if c == nil {
		c = make(chan struct{})
		f.idle[id] = c
	}
	f.mu.Unlock()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
