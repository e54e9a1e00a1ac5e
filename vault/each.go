package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// Opening one record after the other costs a query and a schedule of the wrapping key
// each. A sweep reads the table once, from its beginning to its end, and opens what it
// wants of it in chunks, on all processors. What is checked is the same: each
// envelope's hash is the one that the head lists, and a record that the table does not
// show is asked for by its key.

const (
	// chunkRecords and chunkBytes bound what is opened during one lending of the keys.
	chunkRecords = 128
	chunkBytes   = 1 << 20
	// sweepers is how many goroutines open chunks at most.
	sweepers = 8
	// sparse is how many rows a sweep may read for each record that it wants; with more,
	// each record is asked for by its key.
	sparse = 16
)

// Each lends every record of a type in turn, in no meaningful order, and stops
// at the first error. Records that are written meanwhile may be seen or not;
// it's meant for start-up.
func (v *Vault) Each(ctx context.Context, t Type, use func(id string, plaintext []byte) error) error {
	var mu sync.Mutex
	return v.EachOf(ctx, []Type{t}, func(_ Type, id string, plaintext []byte) error {
		mu.Lock()
		defer mu.Unlock()
		return use(id, plaintext)
	})
}

// EachOf is [Vault.Each] for several types in one reading of the store. use is called
// from several goroutines at once, none of which is left when EachOf returns.
func (v *Vault) EachOf(ctx context.Context, types []Type, use func(t Type, id string, plaintext []byte) error) error {
	u := v.open.Load()
	if u == nil {
		return ErrSealed
	}
	s := &sweep{v: v, u: u, use: use, full: make(chan *chunk), free: make(chan *chunk, sweepers+1)}
	var all int
	s.wanted, all = u.tree.ofTypes(types...)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var openers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), sweepers) {
		s.free <- new(chunk)
		openers.Go(func() {
			for c := range s.full {
				if err := s.open(ctx, c); err != nil {
					stop(err)
				}
				s.free <- c
			}
		})
	}
	s.free <- new(chunk)
	if err := s.read(ctx, all); err != nil {
		stop(err)
	}
	close(s.full)
	openers.Wait()
	return context.Cause(ctx)
}

// sweep is one run of EachOf: its caller fills chunks, the openers open them.
type sweep struct {
	v          *Vault
	u          *unsealed
	use        func(t Type, id string, plaintext []byte) error
	wanted     []leaf // sorted by key
	full, free chan *chunk
}

// read fills chunks with all that is wanted, out of the table or to be asked for by key.
func (s *sweep) read(ctx context.Context, all int) error {
	c := <-s.free
	add := func(l leaf, env []byte) error {
		c.add(l, env)
		if len(c.leaves) < chunkRecords && len(c.bytes) < chunkBytes {
			return nil
		}
		s.full <- c
		c = <-s.free
		return ctx.Err()
	}
	seen := make([]bool, len(s.wanted))
	if len(s.wanted) >= all/sparse {
		err := s.v.readers.each(ctx, func(k recordKey, env []byte) error {
			i, ok := find(s.wanted, k)
			if !ok || seen[i] {
				return nil
			}
			seen[i] = true
			return add(s.wanted[i], env)
		})
		if err != nil {
			return err
		}
	}
	for i, l := range s.wanted {
		if seen[i] {
			continue
		}
		if err := add(l, nil); err != nil {
			return err
		}
	}
	s.full <- c
	return nil
}

// open lends what a chunk holds. A record that the sweep did not read, or not in the
// version that is listed, and one that needs a device is opened by itself.
func (s *sweep) open(ctx context.Context, c *chunk) error {
	defer c.clear()
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.u.keys.use(func(lent *subkeys) error {
		o := opener{keys: s.u.keys, lent: lent}
		defer o.forget()
		for i, l := range c.leaves {
			env := c.envelope(i)
			if sha256.Sum256(env) != l.hash || hasParts(env) {
				continue
			}
			var err error
			if c.ids[i], c.payloads[i], err = o.record(l, env); err != nil {
				return fmt.Errorf("opening a %s: %w", l.typ, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, l := range c.leaves {
		if c.ids[i] == "" {
			err = s.alone(ctx, l.key)
		} else {
			err = s.use(l.typ, c.ids[i], c.payloads[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// record opens what the head lists as l.
func (o *opener) record(l leaf, env []byte) (id string, payload []byte, err error) {
	framed, err := o.open(recordMeta{Type: l.typ, Key: l.key, Version: l.version}, nil, env)
	if err != nil {
		return "", nil, err
	}
	if id, payload, err = splitFrame(framed); err == nil && o.lent.recordKey(l.typ, id) != l.key {
		err = errFiledElsewhere
	}
	return id, payload, err
}

// alone asks for a record by its key, as [Vault.With] does.
func (s *sweep) alone(ctx context.Context, k recordKey) error {
	l, env, err := s.v.fetch(s.u, k)
	if errors.Is(err, ErrNotFound) {
		return nil // deleted since
	}
	if err != nil {
		return fmt.Errorf("reading a record: %w", err)
	}
	return openRecord(ctx, s.u, l, env, "", func(id string, plaintext []byte) error { return s.use(l.typ, id, plaintext) })
}

// chunk is some envelopes with what the head lists of them, and what they hold once
// they are open.
type chunk struct {
	leaves   []leaf
	ends     []int // of each envelope in bytes
	bytes    []byte
	ids      []string // "": not open
	payloads [][]byte
}

// add puts an envelope at the end; it may be nil.
func (c *chunk) add(l leaf, env []byte) {
	c.leaves, c.bytes = append(c.leaves, l), append(c.bytes, env...)
	c.ends, c.ids, c.payloads = append(c.ends, len(c.bytes)), append(c.ids, ""), append(c.payloads, nil)
}

func (c *chunk) envelope(i int) []byte {
	from := 0
	if i > 0 {
		from = c.ends[i-1]
	}
	return c.bytes[from:c.ends[i]:c.ends[i]]
}

// clear wipes it for its next use.
func (c *chunk) clear() {
	clear(c.bytes)
	clear(c.ids)
	clear(c.payloads)
	c.leaves, c.ends, c.bytes, c.ids, c.payloads = c.leaves[:0], c.ends[:0], c.bytes[:0], c.ids[:0], c.payloads[:0]
}
