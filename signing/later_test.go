package signing_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigild/sigild/signing"
)

// Calls that run beside the test, and what makes them wait.

// until spins until done; what it waits for is on its way.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited half a minute until %s", what)
		}
	}
}

// answer is what a call in another goroutine came to.
type answer struct {
	result *signing.Result
	err    error
}

// signLater signs in another goroutine.
func (h *house) signLater(g *grant, id string, payload []byte) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		r, err := h.sign(g, id, payload)
		c <- answer{r, err}
	}()
	return c
}

// gate stops the first signature that comes, until open is called; others pass.
type gate struct {
	taken           atomic.Bool
	reached, opened chan struct{}
	open            func()
}

func newGate(t testing.TB) *gate {
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	t.Cleanup(g.open)
	return g
}

func (g *gate) pass() {
	if g.taken.CompareAndSwap(false, true) {
		close(g.reached)
		<-g.opened
	}
}
