package vault

// The writer goroutine owns every change. It takes the updates that wait (at
// most maxBatch), runs their closures one after the other against memory, and
// writes what they changed in one SQLite transaction with one fsync. A closure
// that fails or panics leaves nothing behind and doesn't disturb the others,
// because the file is not touched before all have run.

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// maxBatch is how many updates share one commit at most.
const maxBatch = 64

// job is one call of Update that the writer goroutine runs.
type job struct {
	ctx      context.Context
	fn       func(*Tx) error
	internal func() error // instead of fn: seal, unseal
	alone    bool
	err      error
	answered bool
	done     chan struct{} // closed when err is final
}

// testHooks are set by tests before the first update.
type testHooks struct {
	beforeCommit func() error // its error is taken for a failed statement
	afterCommit  func() error // its error is taken for that of COMMIT, which did happen
}

// Update runs fn on the writer goroutine. When it returns nil, what fn changed
// is on disk (fsync). Other callers' updates may share the commit. An error of
// fn is returned as it is, and nothing of fn remains; a panic in fn becomes an
// error. Errors of the commit: [ErrStoreFull] (nothing kept, try later),
// [ErrUnwritable] (unclear; the vault takes no more updates), [ErrInUse]
// (another program kept the file locked), [ErrSealed].
//
// If ctx ends before fn was started, fn is never run and ctx's error returned;
// after that the true result is awaited. fn must not call Update.
func (v *Vault) Update(ctx context.Context, fn func(*Tx) error) error {
	return v.submit(ctx, &job{fn: fn})
}

// UpdateAlone is Update with a commit of its own; for administrative acts.
func (v *Vault) UpdateAlone(ctx context.Context, fn func(*Tx) error) error {
	return v.submit(ctx, &job{fn: fn, alone: true})
}

func (v *Vault) submit(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.ctx, j.done = ctx, make(chan struct{})
	select {
	case v.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-v.stop:
		return ErrSealed
	}
	<-j.done
	return j.err
}

func (j *job) answer(err error) {
	if !j.answered {
		j.answered, j.err = true, err
		close(j.done)
	}
}

// runWriter serves updates until Close. A closure that ends its goroutine
// (runtime.Goexit, as t.FailNow does) ends this one; a new one takes over.
func (v *Vault) runWriter() {
	stopped := false
	defer func() {
		if stopped {
			close(v.done)
		} else {
			go v.runWriter()
		}
	}()
	for {
		j := v.held
		if v.held = nil; j == nil {
			select {
			case j = <-v.queue:
			case <-v.stop:
				stopped = true
				return
			}
		}
		batch := []*job{j}
		if !j.lone() {
			batch, v.held = v.gather(batch)
		}
		v.runBatch(batch)
	}
}

func (j *job) lone() bool { return j.alone || j.internal != nil }

// gather adds the updates that wait already, up to one that must be alone.
func (v *Vault) gather(batch []*job) (_ []*job, lone *job) {
	yielded := false
	for len(batch) < maxBatch {
		select {
		case j := <-v.queue:
			if j.lone() {
				return batch, j
			}
			batch = append(batch, j)
			yielded = false
		default:
			// Callers just answered are about to ask again: let them, once.
			if yielded {
				return batch, nil
			}
			yielded = true
			runtime.Gosched()
		}
	}
	return batch, nil
}

// runBatch runs, commits and answers.
func (v *Vault) runBatch(jobs []*job) {
	var b *batch
	defer func() { // only a closure that ended the goroutine leaves any unanswered
		for _, j := range jobs {
			if !j.answered && b != nil {
				b.revert(mark{})
				b = nil
			}
			j.answer(errors.New("running an update: a closure ended its goroutine"))
		}
	}()
	if j := jobs[0]; j.internal != nil {
		j.answer(j.internal())
		return
	}
	u := v.open.Load()
	if err := v.refusal(u); err != nil {
		for _, j := range jobs {
			j.answer(err)
		}
		return
	}
	b = &batch{v: v, u: u, journal: u.head.journal, version: u.head.seq + 1, created: v.cfg.Now().Unix()}
	for _, j := range jobs {
		if err := j.ctx.Err(); err != nil {
			j.answer(err)
			continue
		}
		m := b.mark()
		b.untold = nil
		err := v.call(b, j.fn)
		if err == nil {
			err = v.call(b, b.tell)
		}
		if err != nil {
			b.revert(m)
			j.answer(err)
		}
	}
	var err error
	if b.changed() {
		err = v.commit(b)
	}
	if err != nil {
		b.undo(0)
	} else {
		for _, f := range b.commits {
			v.runHook("following an update", f)
		}
	}
	for _, j := range jobs {
		j.answer(err)
	}
}

// refusal says why no update is taken now.
func (v *Vault) refusal(u *unsealed) error {
	if p := v.poisoned.Load(); p != nil {
		return fmt.Errorf("%w: %w", ErrUnwritable, p.cause)
	}
	if u == nil {
		return ErrSealed
	}
	return nil
}

// call runs one closure and turns its panic into an error. What it panicked
// with may be secret: only the kind is told.
func (v *Vault) call(b *batch, fn func(*Tx) error) (err error) {
	tx := &Tx{b: b}
	defer func() {
		tx.b = nil
		if p := recover(); p != nil {
			err = v.recovered("running an update", p)
		}
	}()
	return fn(tx)
}

func (v *Vault) recovered(doing string, p any) error {
	what := fmt.Sprintf("a %T", p)
	if re, ok := p.(runtime.Error); ok {
		what = re.Error()
	}
	v.cfg.Log.Error("recovered a panic", "doing", doing, "panic", what, "stack", string(debug.Stack()))
	return fmt.Errorf("%s: recovered a panic: %s", doing, what)
}

// runHook runs an OnCommit or OnRollback hook. One that panics leaves memory
// in a state nobody knows, so the vault takes no more updates.
func (v *Vault) runHook(doing string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			v.poison(v.recovered(doing, p))
		}
	}()
	f()
}

func (v *Vault) poison(cause error) {
	if v.poisoned.CompareAndSwap(nil, &poison{cause}) {
		v.cfg.Log.Error("vault takes no more updates; restart the process", "error", cause)
	}
}

// commit writes the batch. On error the tree is as before, unless the outcome
// is unclear, and then the vault is poisoned.
func (v *Vault) commit(b *batch) error {
	u := b.u
	anchored := b.extra.advance && v.anchor.Kind() != AnchorNone
	if b.extra.roll || anchored && v.anchor.Kind() == AnchorKEKRoll {
		only := v.anchor.Provider
		if b.extra.roll {
			only = ""
		}
		if err := v.beginRoll(b, only); err != nil {
			return err
		}
	}
	if anchored {
		if err := v.tellAdvance(b, u.head.epoch+1); err != nil {
			return err
		}
	}
	changes := make([]leafChange, 0, len(b.changes))
	for _, c := range b.changes {
		changes = append(changes, leafChange{c.leaf, c.remove})
	}
	next := u.head
	next.seq, next.journal = b.version, b.journal
	if b.extra.groups != nil {
		next.keyslots = hashKeyslots(b.extra.groups)
	}
	if n := b.extra.newRoot; n != nil {
		next.previous, next.generation = next.generation, n.generation
	}
	if b.extra.settle {
		next.previous = 0
	}
	if anchored {
		next.epoch++
	}
	if b.extra.epoch != 0 {
		next.epoch = b.extra.epoch
	}

	v.commitMu.Lock()
	defer v.commitMu.Unlock()
	undo := u.tree.apply(changes)
	next.records, next.setRoot = u.tree.count, u.tree.root()
	body := next.encode()
	mac, err := b.headMAC(body)
	if err == nil {
		err = v.write.run(b, body, mac[:], v.hooks)
	}
	if err != nil {
		u.tree.apply(undo)
		return v.settle(u, err)
	}
	before := u.head.epoch
	u.head, u.body = next, body
	u.publish()
	if err = v.adopt(b); err == nil && (anchored || b.extra.rolls != nil) {
		err = v.advance(u, b.extra.rolls, before)
	}
	if err != nil {
		// It's on disk, but must not be acknowledged: the next start decides.
		v.poison(err)
		return fmt.Errorf("%w: %w", ErrUnwritable, err)
	}
	return nil
}

// headMAC is under the root key that the batch leaves behind.
func (b *batch) headMAC(body []byte) ([32]byte, error) {
	if n := b.extra.newRoot; n != nil {
		return n.headMAC(body, b.v.storeID)
	}
	return b.u.keys.headMAC(body)
}

// adopt follows in memory what the batch changed beside records and rows.
func (v *Vault) adopt(b *batch) error {
	if b.extra.groups != nil {
		v.groups.Store(&b.extra.groups)
	}
	if n := b.extra.newRoot; n != nil {
		return n.adopt(b.u.keys)
	}
	if b.extra.settle {
		return b.u.keys.settle()
	}
	return nil
}

// settle decides what a failed write means. A full disk or a foreign lock is
// clear only if the file still holds the old head and no transaction is open.
func (v *Vault) settle(u *unsealed, cause error) error {
	unchanged := v.write.rollback() == nil && v.write.headIs(u.body)
	switch {
	case unchanged && noSpace(cause):
		return fmt.Errorf("%w: %w", ErrStoreFull, cause)
	case unchanged && busy(cause):
		return fmt.Errorf("%w: %w", ErrInUse, cause)
	}
	v.poison(cause)
	return fmt.Errorf("%w: %w", ErrUnwritable, cause)
}
