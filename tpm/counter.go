package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// MakeCounter makes a counter in the TPM and gives it its first value, which is
// above every value that a counter of this TPM ever had. It is durable on return;
// after an error there is none, unless the TPM no longer answers. TPMs have room
// for few: 8 on an Infineon SLB 9670.
func (p *Provider) MakeCounter(ctx context.Context) (ref seal.KeyRef, err error) {
	var made tpm2.TPMHandle // by an attempt whose answer was lost, or that failed half-way
	remove := func(t *turn) error {
		if made == 0 {
			return nil
		}
		return t.undefine(made)
	}
	err = p.do(ctx, func(t *turn) error {
		if err := remove(t); err != nil {
			return err
		}
		return p.auth.lend(roleCount, func(auth []byte) (err error) {
			if made, err = t.define(auth); err != nil {
				return err
			}
			x, err := t.firstValue(made, auth)
			ref = makeRef(x.name.Buffer)
			return err
		})
	})
	if err != nil {
		if e := p.do(context.WithoutCancel(ctx), remove); e != nil {
			err = fmt.Errorf("%w; removing what was made of it: %v", err, e)
		}
		return "", fmt.Errorf("making a counter in TPM %s: %w", p.id, err)
	}
	return ref, nil
}

// firstValue increments a counter that was just defined, under the Name it has
// before, and checks the one it has after.
func (t *turn) firstValue(h tpm2.TPMHandle, auth []byte) (nvIndex, error) {
	public := counterPublic(h)
	public.Attributes.Written = false
	blank := nvIndex{h, tpm2.TPM2BName{Buffer: nameOf(tpm2.Marshal(public))}}
	err := t.session(auth, encryptNone, func(_ storageKey, s tpm2.Session) error { return t.increment(blank, s) })
	if err != nil {
		return nvIndex{}, err
	}
	x := counterAt(h)
	if name, err := t.nvName(h); err != nil || makeRef(name) != makeRef(x.name.Buffer) {
		return nvIndex{}, fmt.Errorf("%w: the new counter has the Name %x, want %x (%v)", seal.ErrPolicy, name, x.name.Buffer, err)
	}
	return x, nil
}

// ReadCounter implements [seal.Counter].
func (p *Provider) ReadCounter(ctx context.Context, ref seal.KeyRef) (n uint64, err error) {
	err = p.withCounter(ctx, ref, func(t *turn, x nvIndex, s tpm2.Session) error {
		n, err = t.readCounter(x, s)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading counter %s of TPM %s: %w", ref, p.id, err)
	}
	return n, nil
}

// Increment implements [seal.Counter]. An answer that is lost on its way is asked
// for again; a counter that is then one on is taken for counted by us, since
// nobody else knows its auth value.
func (p *Provider) Increment(ctx context.Context, ref seal.KeyRef, from uint64) (uint64, error) {
	sent := false // by an earlier attempt
	err := p.withCounter(ctx, ref, func(t *turn, x nvIndex, s tpm2.Session) error {
		n, err := t.readCounter(x, s)
		switch {
		case err != nil:
			return err
		case sent && n == from+1:
			return nil
		case n != from:
			return fmt.Errorf("%w: it is %d, not %d", seal.ErrCounterMoved, n, from)
		}
		sent = true
		if err := t.increment(x, s); err != nil {
			return err
		}
		if n, err = t.readCounter(x, s); err == nil && n != from+1 {
			err = fmt.Errorf("%w: it is %d after an increment from %d: somebody else counts, too", seal.ErrCounterMoved, n, from)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("incrementing counter %s of TPM %s: %w", ref, p.id, err)
	}
	return from + 1, nil
}

// withCounter lends use the counter and a session that proves its auth value.
func (p *Provider) withCounter(ctx context.Context, ref seal.KeyRef, use func(*turn, nvIndex, tpm2.Session) error) error {
	if _, err := parseRef(ref); err != nil {
		return err
	}
	return p.do(ctx, func(t *turn) error {
		x, err := t.knownCounter(ref)
		if err != nil {
			return err
		}
		return p.auth.lend(roleCount, func(auth []byte) error {
			return t.session(auth, encryptNone, func(_ storageKey, s tpm2.Session) error { return use(t, x, s) })
		})
	})
}

// knownCounter is counter, once a connection.
func (t *turn) knownCounter(ref seal.KeyRef) (nvIndex, error) {
	f := t.found()
	if x, ok := f.counters[ref]; ok {
		return x, nil
	}
	x, err := t.counter(ref)
	if err == nil {
		f.counters[ref] = x
	}
	return x, err
}
