package vault

// The anchor against an older copy of the whole store. The head's epoch is bound
// to a counter that nobody can put back: an update that must never be undone
// commits with the next epoch, then the counter is incremented, and only then is
// it acknowledged. At Unseal the two must agree:
//
//	epoch = counter       as it should be
//	epoch = counter + 1   died between commit and increment: it is made up for
//	epoch < counter       an older copy: [ErrRollback]
//	epoch > counter + 1   another counter, or one that was reset: [ErrCounterReplaced]
//
// Where the device has no counter its sealing key is rolled instead (roll.go).
// What is acknowledged between two increments can be rolled back within one
// epoch. The pin outside names the counter, so that a store can't say it has none.

import (
	"context"
	"fmt"
	"time"

	"github.com/sigild/sigild/seal"
)

// AnchorKind is how older copies of the store are noticed.
type AnchorKind string

// The kinds of anchors.
const (
	AnchorNone AnchorKind = "none" // not at all
	AnchorNV   AnchorKind = "nv"   // a counter in a TPM's non-volatile memory
	// AnchorKEKRoll: the device's sealing key is replaced with every update that must
	// not be undone, so that it opens no older copy.
	AnchorKEKRoll AnchorKind = "kek-roll"
)

// Anchor names what a store is anchored by; the zero Anchor is none.
type Anchor struct {
	Provider string      // the device's id, as seal.Provider.ID gives it; "": none
	Counter  seal.KeyRef // the counter in it; "": its sealing key is rolled
}

// Kind is how the anchor works.
func (a Anchor) Kind() AnchorKind {
	switch {
	case a == Anchor{}:
		return AnchorNone
	case a.Counter == "":
		return AnchorKEKRoll
	}
	return AnchorNV
}

// anchorTries is how often an increment is tried before the vault gives up.
const anchorTries = 3

// counter finds the counter that the store is anchored by; nil when it is anchored
// by something else, or not at all. It refuses when the anchor's device is absent.
func (a Anchor) counter(devices map[string]seal.Sealer) (seal.Counter, error) {
	if a.Kind() == AnchorNone {
		return nil, nil
	}
	d, ok := devices[a.Provider]
	if !ok {
		return nil, fmt.Errorf("%w: the store is anchored by %s, which is not here", ErrNoAnchor, a.Provider)
	}
	if a.Kind() == AnchorKEKRoll {
		if _, ok := d.(seal.Roller); !ok {
			return nil, fmt.Errorf("%w: %s can't replace its sealing key", ErrNoAnchor, a.Provider)
		}
		return nil, nil
	}
	c, ok := d.(seal.Counter)
	if !ok {
		return nil, fmt.Errorf("%w: %s has no counters", ErrNoAnchor, a.Provider)
	}
	return c, nil
}

// checkAnchor compares the head with the counter, and makes up for an increment
// that a crash prevented.
func (v *Vault) checkAnchor(ctx context.Context, u *unsealed) error {
	if v.anchor.Kind() == AnchorKEKRoll {
		// Ends a roll that a crash cut off: the keyslots say which key stays.
		for id, ref := range u.rollers(*v.groups.Load()) {
			if id == v.anchor.Provider {
				return u.endRoll(rolls{id: ref})
			}
		}
		return fmt.Errorf("%w: %s holds no keyslot", ErrNoAnchor, v.anchor.Provider)
	}
	if u.counter == nil {
		return nil
	}
	n, err := u.counter.ReadCounter(ctx, v.anchor.Counter)
	if err != nil {
		return fmt.Errorf("reading the rollback anchor: %w", err)
	}
	e := u.head.epoch
	if e == n+1 {
		if _, err := u.counter.Increment(ctx, v.anchor.Counter, n); err != nil {
			return fmt.Errorf("incrementing the rollback anchor: %w", err)
		}
		v.cfg.Log.Warn("made up for an increment of the anchor that a crash prevented", "epoch", e)
		return nil
	}
	return v.judgeEpoch(e, n)
}

// judgeEpoch compares a head's epoch with the counter, which an open may make one up for.
func (v *Vault) judgeEpoch(e, n uint64) error {
	switch {
	case e == n, e == n+1:
		return nil
	case e < n:
		return fmt.Errorf("%w: its epoch is %d, the counter in %s is at %d; hint: put the newest copy back, or restore a backup with its custodians", ErrRollback, e, v.anchor.Provider, n)
	default:
		return fmt.Errorf("%w: the store's epoch is %d, the counter in %s is at %d", ErrCounterReplaced, e, v.anchor.Provider, n)
	}
}

// advance increments the counter after a commit with epoch from+1, and destroys
// the sealing keys that were rolled. When it can't, nothing of the batch may be
// acknowledged, and the next start makes up for it.
func (v *Vault) advance(u *unsealed, r rolls, from uint64) error {
	err := u.endRoll(r)
	if err != nil || u.counter == nil {
		return err
	}
	for try := range anchorTries {
		if try > 0 {
			time.Sleep(time.Duration(try) * 100 * time.Millisecond)
		}
		if _, err = u.counter.Increment(context.Background(), v.anchor.Counter, from); err == nil {
			return nil
		}
		// The answer may be what was lost.
		if n, e := u.counter.ReadCounter(context.Background(), v.anchor.Counter); e == nil && n == from+1 {
			return nil
		}
	}
	return fmt.Errorf("%w: incrementing the counter in %s: %w", ErrNoAnchor, v.anchor.Provider, err)
}

// Advance says that this update must never be undone: before it is acknowledged,
// every older copy of the store becomes worthless, if the store has an anchor.
// Changes of keyslots and the destruction of secrets do so by themselves.
func (tx *Tx) Advance() {
	if tx.b != nil {
		tx.b.extra.advance = true
	}
}
