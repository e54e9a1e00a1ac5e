package mpc

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// memStore is a PoolStore in memory: the interface belongs to this package.
type memStore struct {
	mu    sync.Mutex
	items [][]byte
	fail  error
	puts  int
}

func (m *memStore) Put(_ context.Context, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.puts++
	m.items = append(m.items, slices.Clone(b))
	return nil
}

func (m *memStore) Take(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	if len(m.items) == 0 {
		return nil, ErrEmpty
	}
	b := m.items[0]
	m.items = m.items[1:]
	return b, nil
}

func (m *memStore) Count(context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items), m.fail
}

func (m *memStore) stored() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.puts
}

func (m *memStore) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// fastPool generates by copying, and counts.
func fastPool(t *testing.T, s PoolStore, target int) (p *Pool, generated, filled *atomic.Int32) {
	t.Helper()
	ready := readyPreParams(t)
	generated, filled = new(atomic.Int32), new(atomic.Int32)
	p = NewPool(PoolConfig{Store: s, Target: target})
	p.generate = func(context.Context) (*PreParams, error) {
		generated.Add(1)
		return newPreParams(slices.Clone(ready))
	}
	p.fill = func(context.Context) (*PreParams, error) {
		filled.Add(1)
		return newPreParams(slices.Clone(ready))
	}
	return p, generated, filled
}

func TestPoolFillsToTargetAndRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memStore{}
		p, generated, _ := fastPool(t, store, 3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		if n := store.stored(); n != 3 {
			t.Errorf("%d stored, want 3", n)
		}
		got, err := p.Take(ctx)
		if err != nil || generated.Load() != 0 {
			t.Errorf("take: error %v, %d generated on the spot, want none", err, generated.Load())
		}
		if err := got.Lend(func(b []byte) error {
			if !bytes.Equal(b, readyPreParams(t)) {
				t.Error("took something else than what was put")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n, _ := store.Count(ctx); n != 3 || store.stored() != 4 {
			t.Errorf("%d in store after %d puts, want 3 after 4", n, store.stored())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v, want cancelled", err)
		}
	})
}

func TestEmptyPoolGenerates(t *testing.T) {
	p, generated, _ := fastPool(t, &memStore{}, 1)
	if _, err := p.Take(t.Context()); err != nil || generated.Load() != 1 {
		t.Errorf("error %v, %d generated, want none and 1", err, generated.Load())
	}
}

func TestPoolDoesNotGenerateAroundABrokenStore(t *testing.T) {
	sealed := errors.New("sealed")
	p, generated, _ := fastPool(t, &memStore{fail: sealed}, 1)
	if _, err := p.Take(t.Context()); !errors.Is(err, sealed) || generated.Load() != 0 {
		t.Errorf("error %v, %d generated, want the store's and 0", err, generated.Load())
	}
}

func TestPoolRefusesDamagedEntry(t *testing.T) {
	store := &memStore{items: [][]byte{{1, 2, 3}}}
	p, _, _ := fastPool(t, store, 1)
	if _, err := p.Take(t.Context()); err == nil {
		t.Error("took a damaged entry")
	}
	if n, _ := store.Count(t.Context()); n != 0 {
		t.Error("the damaged entry came back")
	}
}

func TestPoolRetriesAfterTheStoreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memStore{fail: errors.New("sealed")}
		p, _, filled := fastPool(t, store, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		if filled.Load() != 0 {
			t.Errorf("%d generated while the store refuses, want none", filled.Load())
		}
		store.setFail(nil)
		time.Sleep(30*time.Second - 1) // the bubble's clock
		synctest.Wait()
		if store.stored() != 0 {
			t.Error("retried early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if n := store.stored(); n != 1 {
			t.Errorf("%d stored after the retry, want 1", n)
		}
		cancel()
		<-done
	})
}

func TestBackgroundFillStandsStillDuringACeremony(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		if err := g.wait(t.Context()); err != nil {
			t.Fatalf("idle: %v", err)
		}
		leave1, leave2 := g.enter(), g.enter()
		passed := make(chan error, 1)
		go func() { passed <- g.wait(t.Context()) }()
		leave1()
		synctest.Wait()
		if len(passed) != 0 {
			t.Error("passed while a ceremony runs")
		}
		leave2()
		if err := <-passed; err != nil {
			t.Error(err)
		}
		defer g.enter()()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want cancelled", err)
		}
	})
}
