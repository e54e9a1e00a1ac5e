package vault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/tpm"
)

// softCounter is a device with a counter that can be made to fail where no
// hardware would; TestAnchorInATPM has a real one.
type softCounter struct {
	*softSealer
	value  uint64
	before func() error // of an increment; its error is the answer
	after  func() error // likewise, though the increment happened
}

func (c *softCounter) ReadCounter(context.Context, seal.KeyRef) (uint64, error) {
	return c.value, c.fault
}

func (c *softCounter) Increment(_ context.Context, _ seal.KeyRef, from uint64) (uint64, error) {
	if c.before != nil {
		if err := c.before(); err != nil {
			return 0, err
		}
	}
	if c.value != from {
		return 0, seal.ErrCounterMoved
	}
	c.value++
	if c.after != nil {
		return 0, c.after()
	}
	return c.value, nil
}

// anchored makes a store that is anchored by a counter at 41.
func anchored(t testing.TB) (*Vault, Pin, *softCounter, map[string]seal.Sealer) {
	t.Helper()
	c := &softCounter{softSealer: newSoftSealer(7), value: 41}
	v, pin, err := Create(context.Background(), Config{Dir: stateDir(t), Anchor: Anchor{Provider: softID, Counter: "0a"}},
		KeyHolder{Sealer: c, ID: softID, Ref: "0102"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v, pin, c, map[string]seal.Sealer{softID: c}
}

// revoke is an update that must never be undone.
func revoke(v *Vault, id string) error {
	return v.Update(context.Background(), func(tx *Tx) error { return tx.Delete(TypeAPIKey, id) })
}

// openCopy opens a store's file in a directory of its own.
func openCopy(t testing.TB, dir string, pin Pin, devices map[string]seal.Sealer) (*Vault, error) {
	t.Helper()
	v, err := Open(context.Background(), Config{Dir: dir}, pin)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = v.Close() })
	return v, v.Unseal(context.Background(), devices)
}

func TestAnOlderCopyIsRefused(t *testing.T) {
	v, pin, c, devices := anchored(t)
	put(t, v, TypeAPIKey, "k", "verifier")
	put(t, v, TypeWallet, "w", "text")
	if c.value != 41 {
		t.Errorf("ordinary updates moved the counter to %d", c.value)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	old := copyStore(t, v.cfg.Dir)
	same, err := openCopy(t, v.cfg.Dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	if same.Info().Anchor != AnchorNV || same.Info().Epoch != 41 {
		t.Errorf("Info = %+v", same.Info())
	}
	if err := revoke(same, "k"); err != nil {
		t.Fatal(err)
	}
	if c.value != 42 || same.Info().Epoch != 42 {
		t.Errorf("after a revocation: counter %d, epoch %d; want 42", c.value, same.Info().Epoch)
	}
	if err := same.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openCopy(t, old, pin, devices)
	wantIs(t, err, ErrRollback)

	// On another machine the counter is another one.
	here := copyStore(t, v.cfg.Dir)
	c.value = 7
	_, err = openCopy(t, here, pin, devices)
	wantIs(t, err, ErrCounterReplaced)
	c.value = 42
	_, err = openCopy(t, copyStore(t, v.cfg.Dir), pin, map[string]seal.Sealer{softID: c.softSealer})
	wantIs(t, err, ErrNoAnchor)
	pin.Anchor.Provider = "tpm2:elsewhere"
	_, err = openCopy(t, copyStore(t, v.cfg.Dir), pin, devices)
	wantIs(t, err, ErrNoAnchor)
	pin.Anchor.Provider = softID
	if _, err = openCopy(t, v.cfg.Dir, pin, devices); err != nil {
		t.Errorf("the newest copy: %v", err)
	}
}

// Whatever happens to the increment, a revocation that was acknowledged holds, and
// one that was not is either done or not, and the store opens.
func TestIncrementsThatFail(t *testing.T) {
	gone := errors.New("no answer")
	for name, fault := range map[string]func(*softCounter){
		"before it": func(c *softCounter) { c.before = func() error { return gone } },
		"moved by somebody": func(c *softCounter) {
			c.before = func() error { c.value += 2; return nil }
		},
	} {
		v, pin, c, devices := anchored(t)
		put(t, v, TypeAPIKey, "k", "verifier")
		before := c.value
		fault(c)
		err := revoke(v, "k")
		if !errors.Is(err, ErrUnwritable) || !errors.Is(err, ErrNoAnchor) {
			t.Errorf("%s: %v, want ErrUnwritable and ErrNoAnchor", name, err)
		}
		err = v.Update(context.Background(), func(tx *Tx) error { return tx.Put(TypeWallet, "w", nil) })
		wantIs(t, err, ErrUnwritable)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		c.before = nil
		c.value = before
		again, err := openCopy(t, v.cfg.Dir, pin, devices)
		if err != nil {
			t.Errorf("%s: opening again: %v", name, err)
			continue
		}
		if _, err := get(again, TypeAPIKey, "k"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: the revocation was on disk, but the key is there: %v", name, err)
		}
		if c.value != before+1 {
			t.Errorf("%s: the start did not make up for the increment: %d", name, c.value)
		}
	}

	// An answer that was lost is looked for.
	v, _, c, _ := anchored(t)
	put(t, v, TypeAPIKey, "k", "verifier")
	c.after = func() error { return gone }
	if err := revoke(v, "k"); err != nil || c.value != 42 {
		t.Errorf("an increment whose answer was lost: %v, counter %d", err, c.value)
	}
}

// What an update that must not be undone is: by itself, and when it's said.
func TestWhatMovesTheAnchor(t *testing.T) {
	ctx := context.Background()
	v, _, c, devices := anchored(t)
	moved := func(what string, want bool, do func() error) {
		t.Helper()
		before := c.value
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := c.value != before; got != want {
			t.Errorf("%s: the counter went from %d to %d", what, before, c.value)
		}
	}
	update := func(f func(*Tx) error) func() error { return func() error { return v.UpdateAlone(ctx, f) } }
	moved("a share made", false, update(func(tx *Tx) error { return tx.Put(TypeShare, "s", nil) }))
	moved("a share destroyed", true, update(func(tx *Tx) error { return tx.Delete(TypeShare, "s") }))
	moved("pre-parameters made", false, update(func(tx *Tx) error { return tx.Put(TypePreParams, "p", nil) }))
	moved("pre-parameters used", false, update(func(tx *Tx) error { return tx.Delete(TypePreParams, "p") }))
	moved("a policy that says so", true, update(func(tx *Tx) error { tx.Advance(); return tx.Put(TypeOrganization, "o", nil) }))
	moved("a closure that fails", false, func() error {
		err := v.UpdateAlone(ctx, func(tx *Tx) error { tx.Advance(); return errors.New("no") })
		if err == nil {
			return errors.New("it did not fail")
		}
		return nil
	})
	a := newSoftSealer(1)
	moved("a keyslot", true, func() error { addGroup(t, v, KeyHolder{Sealer: a, ID: "a", Ref: "1"}); return nil })
	devices["a"] = a
	moved("the root key", true, func() error { rotate(t, v, devices); return nil })
	moved("a keyslot removed", true, update(func(tx *Tx) error { return tx.RemoveGroup(1) }))
}

// The counter of a TPM: an older copy, a TPM that was cleared, and the pin's word
// against a store that was made without an anchor.
func TestAnchorInATPM(t *testing.T) {
	ctx := context.Background()
	emulator := testtpm.New(t)
	p, err := tpm.Open(ctx, tpm.Config{Path: emulator.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	keys, err := p.Provision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := p.MakeCounter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v, pin, err := Create(ctx, Config{Dir: stateDir(t), Anchor: Anchor{Provider: p.ID(), Counter: ref}},
		KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	put(t, v, TypeAPIKey, "k", "verifier")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := pin.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParsePin(text); err != nil || again != pin {
		t.Errorf("ParsePin = %+v, %v; want %+v", again, err, pin)
	}
	old := copyStore(t, v.cfg.Dir)
	devices := map[string]seal.Sealer{p.ID(): p}
	again, err := openCopy(t, v.cfg.Dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	if err := revoke(again, "k"); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openCopy(t, old, pin, devices)
	wantIs(t, err, ErrRollback)
	if _, err := openCopy(t, v.cfg.Dir, pin, devices); err != nil {
		t.Errorf("the newest: %v", err)
	}
	if _, err := os.Stat(filepath.Join(old, FileName)); err != nil {
		t.Error(err)
	}
}

func BenchmarkAdvance(b *testing.B) {
	ctx := context.Background()
	emulator := testtpm.New(b)
	p, err := tpm.Open(ctx, tpm.Config{Path: emulator.Path})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	keys, err := p.Provision(ctx)
	if err != nil {
		b.Fatal(err)
	}
	ref, err := p.MakeCounter(ctx)
	if err != nil {
		b.Fatal(err)
	}
	v, _, err := Create(ctx, Config{Dir: stateDir(b), Anchor: Anchor{Provider: p.ID(), Counter: ref}}, KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	reportP50(b, func() {
		if err := v.Update(ctx, func(tx *Tx) error { tx.Advance(); return nil }); err != nil {
			b.Fatal(err)
		}
	})
}
