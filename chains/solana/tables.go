package solana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sigild/sigild/chains"
)

// MaxTable is the most entries a lookup table can have.
const MaxTable = 256

// Table is the pinned beginning of an address lookup table. Tables only grow,
// and no second one can come to be under the same address, so what was once its
// beginning stays so; an entry behind the pinned ones is not known. It is immutable.
type Table struct {
	address [32]byte
	entries [][32]byte
}

// NewTable pins the first entries of the table at address: 1 to 256 of them. It
// copies entries.
func NewTable(address [32]byte, entries [][32]byte) (*Table, error) {
	if len(entries) == 0 || len(entries) > MaxTable {
		return nil, fmt.Errorf("pinning lookup table %s: %d entries, want 1 to %d", Address(address), len(entries), MaxTable)
	}
	return newTable(address, entries), nil
}

// ParseTable reads the JSON list of addresses that a pin is uploaded as: one to
// 256 of them, in base58.
func ParseTable(address [32]byte, text []byte) (*Table, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	var list []string
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("pinning lookup table %s: want a JSON list of addresses: %w", Address(address), err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("pinning lookup table %s: something follows the list", Address(address))
	}
	if len(list) > MaxTable {
		return nil, fmt.Errorf("pinning lookup table %s: %d entries, want 1 to %d", Address(address), len(list), MaxTable)
	}
	entries := make([][32]byte, len(list))
	for i, s := range list {
		var err error
		if entries[i], err = ParseAddress(s); err != nil {
			return nil, fmt.Errorf("pinning lookup table %s: entry %d: %w", Address(address), i, err)
		}
	}
	return NewTable(address, entries)
}

func newTable(address [32]byte, entries [][32]byte) *Table {
	return &Table{address: address, entries: append([][32]byte(nil), entries...)}
}

// resolve fills in what the pinned tables know. An account that is loaded twice,
// or is a static key too, is refused, as nodes do. With all, so is what remains unknown.
func (m *message) resolve(tables map[[32]byte]*Table, all bool) error {
	if len(m.loaded) == 0 || tables == nil && !all {
		return nil
	}
	for i := range m.loaded {
		l := &m.loaded[i]
		t := tables[[32]byte(m.lookups[l.table].table)]
		switch {
		case t != nil && int(l.index) < len(t.entries):
			l.key = &t.entries[l.index]
		case !all:
			continue
		case t == nil:
			return fail(chains.CodeSemantic, -1, "lookup table %s is not given", Address([32]byte(m.lookups[l.table].table)))
		default:
			return fail(chains.CodeSemantic, -1, "lookup table %s has %d entries, entry %d is used", Address(t.address), len(t.entries), l.index)
		}
		for j := range m.nkeys + i {
			if m.is(j, l.key) {
				return fail(chains.CodeSemantic, -1, "account %s is loaded twice", Address(*l.key))
			}
		}
	}
	return nil
}
