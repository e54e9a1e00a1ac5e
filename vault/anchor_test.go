package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
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
	v.Seal()
	if err := v.Unseal(ctx, devices); err != nil {
		t.Fatal(err)
	}
	moved("the root key", true, func() error { rotate(t, v); return nil })
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

// rollingToken is a device whose sealing key can be replaced; its faults come where
// no hardware would have them. TestAnchorByKEKRollInAToken has a real one.
type rollingToken struct {
	keys   map[seal.KeyRef]*softSealer
	made   int
	before func() error // of EndRoll
}

func (r *rollingToken) Seal(ctx context.Context, ref seal.KeyRef, pt, aad []byte) ([]byte, error) {
	if r.keys[ref] == nil {
		return nil, seal.ErrNotFound
	}
	return r.keys[ref].Seal(ctx, ref, pt, aad)
}

func (r *rollingToken) Unseal(ctx context.Context, ref seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	if r.keys[ref] == nil {
		return seal.ErrNotFound
	}
	return r.keys[ref].Unseal(ctx, ref, blob, aad, use)
}

func (r *rollingToken) BeginRoll(_ context.Context, ref seal.KeyRef) (seal.KeyRef, error) {
	if r.keys[ref] == nil {
		return "", seal.ErrNotFound
	}
	if len(r.keys) > 1 {
		return "", seal.ErrAmbiguous
	}
	r.made++
	next := seal.KeyRef(fmt.Sprintf("%02x", r.made))
	r.keys[next] = newSoftSealer(byte(r.made))
	return next, nil
}

func (r *rollingToken) EndRoll(_ context.Context, keep seal.KeyRef) (n int, err error) {
	if r.before != nil {
		if err := r.before(); err != nil {
			return 0, err
		}
	}
	if r.keys[keep] == nil {
		return 0, seal.ErrNotFound
	}
	for ref := range r.keys {
		if ref != keep {
			delete(r.keys, ref)
			n++
		}
	}
	return n, nil
}

func rolled(t testing.TB, anchor Anchor) (*Vault, Pin, *rollingToken, map[string]seal.Sealer) {
	t.Helper()
	r := &rollingToken{keys: map[seal.KeyRef]*softSealer{"01": newSoftSealer(1)}, made: 1}
	v, pin, err := Create(context.Background(), Config{Dir: stateDir(t), Anchor: anchor}, KeyHolder{Sealer: r, ID: "r", Ref: "01"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v, pin, r, map[string]seal.Sealer{"r": r}
}

func TestAKEKRollLeavesOlderCopiesShut(t *testing.T) {
	v, pin, r, devices := rolled(t, Anchor{Provider: "r"})
	text, err := pin.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParsePin(text); err != nil || again != pin {
		t.Errorf("ParsePin = %+v, %v; want %+v", again, err, pin)
	}
	put(t, v, TypeAPIKey, "k", "verifier")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	old := copyStore(t, v.cfg.Dir)
	v, err = openCopy(t, v.cfg.Dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	if v.Info().Anchor != AnchorKEKRoll {
		t.Errorf("Info = %+v", v.Info())
	}
	if err := revoke(v, "k"); err != nil {
		t.Fatal(err)
	}
	if len(r.keys) != 1 || r.keys["01"] != nil {
		t.Errorf("keys in the token: %d", len(r.keys))
	}
	rotate(t, v) // a new root key and a roll in one transaction
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openCopy(t, old, pin, devices)
	wantIs(t, err, ErrRollback)

	// The destruction fails: not acknowledged, and the next start makes up for it.
	if v, err = openCopy(t, v.cfg.Dir, pin, devices); err != nil {
		t.Fatal(err)
	}
	put(t, v, TypeAPIKey, "k", "verifier")
	r.before = func() error {
		if len(r.keys) > 1 {
			return seal.ErrUnavailable
		}
		return nil
	}
	wantIs(t, revoke(v, "k"), ErrUnwritable)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if len(r.keys) != 2 {
		t.Errorf("%d keys in the token, want both", len(r.keys))
	}
	r.before = nil
	if v, err = openCopy(t, v.cfg.Dir, pin, devices); err != nil {
		t.Fatal(err)
	}
	if _, err := get(v, TypeAPIKey, "k"); !errors.Is(err, ErrNotFound) || len(r.keys) != 1 {
		t.Errorf("after the next start: %v, %d keys", err, len(r.keys))
	}
}

// A commit that fails after the successor was made: the old key still opens.
func TestAFailedCommitKeepsTheOldKEK(t *testing.T) {
	v, pin, r, devices := rolled(t, Anchor{Provider: "r"})
	put(t, v, TypeAPIKey, "k", "verifier")
	v.hooks.beforeCommit = func() error { return errors.New("disk on fire") }
	wantIs(t, revoke(v, "k"), ErrUnwritable)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := openCopy(t, v.cfg.Dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, v, TypeAPIKey, "k", "verifier")
	if len(r.keys) != 1 {
		t.Errorf("%d keys in the token, want the one in use", len(r.keys))
	}
}

// Without an anchor an operator may roll; a device that can't says so.
func TestRotateKEK(t *testing.T) {
	v, pin, r, devices := rolled(t, Anchor{})
	put(t, v, TypeWallet, "w", "text")
	roll := func(v *Vault) error { return v.UpdateAlone(context.Background(), (*Tx).RollKEK) }
	if err := roll(v); err != nil {
		t.Fatal(err)
	}
	if len(r.keys) != 1 || r.keys["01"] != nil || v.Slots()[0].Ref == "01" {
		t.Errorf("slots %+v, %d keys", v.Slots(), len(r.keys))
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := openCopy(t, v.cfg.Dir, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, v, TypeWallet, "w", "text")
	plain, _ := create(t, stateDir(t))
	wantIs(t, roll(plain), ErrNoRoller)
}

// A real token: the old key is gone from it, and an older copy says so.
func TestAnchorByKEKRollInAToken(t *testing.T) {
	ctx := context.Background()
	p, keys := token(t)
	v, pin, err := Create(ctx, Config{Dir: stateDir(t), Anchor: Anchor{Provider: p.ID()}}, KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	put(t, v, TypeAPIKey, "k", "verifier")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	old := copyStore(t, v.cfg.Dir)
	devices := map[string]seal.Sealer{p.ID(): p}
	if v, err = openCopy(t, v.cfg.Dir, pin, devices); err != nil {
		t.Fatal(err)
	}
	if err := revoke(v, "k"); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openCopy(t, old, pin, devices)
	wantIs(t, err, ErrRollback)
	if _, err = openCopy(t, v.cfg.Dir, pin, devices); err != nil {
		t.Errorf("the newest: %v", err)
	}
}

// token is a provisioned SoftHSM behind its worker, which is this test binary.
func token(t testing.TB) (*hsm.Provider, hsm.Keys) {
	t.Helper()
	tok := testhsm.New(t)
	p, err := hsm.Open(context.Background(), hsm.Config{
		Module: tok.Module, TokenLabel: tok.Label, TokenSerial: tok.Serial, PINFile: tok.PINFile,
		LatchFile: filepath.Join(tok.Dir, "latch"), EnvAllow: tok.Env, CallTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	keys, err := p.Provision(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p, keys
}
