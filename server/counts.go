package server

import (
	"slices"
	"sync"
	"time"

	"github.com/sigild/sigild/metrics"
)

// reasonOK stands for a call that was not refused.
const reasonOK = "OK"

// otherMethod stands for what has no row: callers don't choose our labels.
const otherMethod = "other"

// counts are of calls, since the start. The zero counts are empty.
type counts struct {
	mu    sync.Mutex // guards both maps
	calls map[outcome]uint64
	took  map[string]*metrics.Histogram // by method
}

// outcome is how a call ended.
type outcome struct{ method, reason string }

func (c *counts) ended(method, reason string, took time.Duration) {
	if lookup(method) == nil {
		method = otherMethod
	}
	c.mu.Lock()
	if c.calls == nil {
		c.calls, c.took = map[outcome]uint64{}, map[string]*metrics.Histogram{}
	}
	c.calls[outcome{method, reason}]++
	h := c.took[method]
	if h == nil {
		h = new(metrics.Histogram)
		c.took[method] = h
	}
	c.mu.Unlock()
	h.Observe(took)
}

// Collect adds what the sockets have counted.
func (s *Server) Collect(p *metrics.Page) {
	for _, d := range s.doors {
		d.listen.mu.Lock()
		n := d.listen.total
		d.listen.mu.Unlock()
		p.Gauge("sigild_connections", "Connections that are open, by socket.", float64(n), "socket", d.at.String())
	}
	c := &s.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	var ends []outcome
	for o := range c.calls {
		ends = append(ends, o)
	}
	slices.SortFunc(ends, func(a, b outcome) int {
		return slices.Compare([]string{a.method, a.reason}, []string{b.method, b.reason})
	})
	for _, o := range ends {
		p.Counter("sigild_calls_total", "Calls that ended, by method and reason; OK is no refusal.", c.calls[o], "method", o.method, "reason", o.reason)
	}
	var last string
	for _, o := range ends {
		if o.method != last {
			p.Histogram("sigild_call_seconds", "How long calls took, refused or not, by method.", c.took[o.method], "method", o.method)
		}
		last = o.method
	}
}
