package solana

import (
	"bytes"

	"github.com/sigild/sigild/chains"
)

// Bounds of the runtime: beyond them a transaction is refused before it runs
// (Agave: MAX_INSTRUCTION_TRACE_LENGTH, MAX_ACCOUNTS_PER_INSTRUCTION; account
// indexes are bytes).
const (
	maxInstructions        = 64
	maxInstructionAccounts = 255
	maxAccounts            = 256
)

// Formats of messages.
const (
	legacy = -1
	v0     = 0
	v1     = 1
)

// message is a parsed message. Accounts are numbered: static keys first, then
// what tables load writable, then what they load read-only, each in the order of
// the tables.
type message struct {
	raw       []byte
	version   int
	signers   int // required signatures: the first so many keys
	roSigned  int // how many of these are read-only, at their end
	roOther   int // how many of the other static keys are read-only, at the end
	keys      []byte
	nkeys     int
	blockhash [32]byte
	hashAt    int // where the blockhash stands in raw
	ins       []instruction
	lookups   []lookup
	loaded    []loadedAccount // accounts behind tables, in their order
	config    config          // version 1 only
}

// instruction points into raw; no message reaches 64 kB.
type instruction struct {
	program           uint8 // number of a static key
	accountAt, dataAt uint16
	naccounts, ndata  uint16
}

type lookup struct {
	table              []byte // 32 bytes
	writable, readonly []byte
}

// loadedAccount is what stands for one entry of a table.
type loadedAccount struct {
	key      *[32]byte // nil while not resolved
	table    uint8     // number of the lookup
	index    uint8     // entry of the table
	writable bool
}

func (m *message) accounts(in *instruction) []byte {
	return m.raw[in.accountAt : in.accountAt+in.naccounts]
}

func (m *message) data(in *instruction) []byte { return m.raw[in.dataAt : in.dataAt+in.ndata] }

// total is the number of accounts, loaded ones included.
func (m *message) total() int { return m.nkeys + len(m.loaded) }

// parse reads exactly one message and nothing after it.
func parse(b []byte) (*message, error) {
	most := MaxSize
	if len(b) > 0 && b[0] == 0x81 {
		most = MaxSizeV1
	}
	if len(b) > most {
		return nil, fail(chains.CodeForm, -1, "message of %d bytes, at most %d fit a packet", len(b), most)
	}
	r := &reader{b: b}
	m, err := parseFrom(r)
	if err == nil && r.pos != len(b) {
		return nil, fail(chains.CodeEncoding, r.pos, "bytes after the message")
	}
	return m, err
}

// parseFrom reads the message that r starts with. What follows it is the caller's.
func parseFrom(r *reader) (*message, error) {
	m := &message{raw: r.b, version: legacy}
	b := r.b
	switch {
	case len(b) == 0:
		return nil, fail(chains.CodeForm, -1, "empty payload")
	case b[0] == 0x80:
		m.version = v0
	case b[0] == 0x81:
		m.version = v1
	case b[0] > 0x80:
		return nil, fail(chains.CodeForm, 0, "unsupported version %d", b[0]&0x7f)
	}
	if m.version != legacy {
		r.pos = 1
	}
	m.signers = r.u8("header")
	m.roSigned = r.u8("header")
	m.roOther = r.u8("header")
	if m.version == v1 {
		m.readV1(r)
	} else {
		m.nkeys = r.compactU16("account count")
		m.keys = r.take(32*m.nkeys, "accounts")
		m.hashAt = r.pos
		m.blockhash = r.key("recent blockhash")
		m.readInstructions(r)
		if m.version == v0 {
			m.readLookups(r)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *message) readInstructions(r *reader) {
	at := r.pos
	n := r.compactU16("instruction count")
	if r.err == nil && n > maxInstructions {
		r.err = fail(chains.CodeSemantic, at, "%d instructions, at most %d run", n, maxInstructions)
	}
	if r.err != nil {
		return
	}
	m.ins = make([]instruction, 0, min(n, (len(r.b)-r.pos)/3))
	for range n {
		in := instruction{program: uint8(r.u8("program index"))}
		in.accountAt, in.naccounts = r.span(r.compactU16("instruction accounts"), "instruction accounts")
		in.dataAt, in.ndata = r.span(r.compactU16("instruction data"), "instruction data")
		if r.err != nil {
			return
		}
		m.ins = append(m.ins, in)
	}
}

func (m *message) readLookups(r *reader) {
	n := r.compactU16("lookup count")
	writable, readonly := 0, 0
	if n > 0 && r.err == nil {
		m.lookups = make([]lookup, 0, min(n, (len(r.b)-r.pos)/34))
	}
	for range n {
		l := lookup{table: r.take(32, "lookup table"), writable: r.list("writable indexes"), readonly: r.list("read-only indexes")}
		if r.err != nil {
			return
		}
		m.lookups = append(m.lookups, l)
		writable += len(l.writable)
		readonly += len(l.readonly)
	}
	if r.err != nil || m.nkeys+writable+readonly > maxAccounts {
		r.semantic("%d accounts, at most %d", m.nkeys+writable+readonly, maxAccounts)
		return
	}
	if writable+readonly == 0 {
		return
	}
	m.loaded = make([]loadedAccount, 0, writable+readonly)
	for _, w := range []bool{true, false} {
		for t, l := range m.lookups {
			list := l.readonly
			if w {
				list = l.writable
			}
			for _, index := range list {
				m.loaded = append(m.loaded, loadedAccount{table: uint8(t), index: index, writable: w})
			}
		}
	}
}

// check refuses what is well encoded but no node would take, and the few
// things no honest client makes: a lookup of nothing, a zero blockhash, no
// instruction at all.
func (m *message) check() error {
	sem := func(format string, args ...any) error { return fail(chains.CodeSemantic, -1, format, args...) }
	switch {
	case m.signers == 0:
		return sem("no required signature")
	case m.roSigned >= m.signers:
		return sem("the fee payer is not writable")
	case m.signers+m.roOther > m.nkeys:
		return sem("header names more accounts than there are")
	case m.total() > maxAccounts:
		return sem("%d accounts, at most %d", m.total(), maxAccounts)
	case m.blockhash == [32]byte{}:
		return sem("recent blockhash is zero")
	case len(m.ins) == 0:
		return sem("no instructions")
	}
	for i := range m.nkeys {
		for j := range i {
			if bytes.Equal(m.keys[32*i:32*i+32], m.keys[32*j:32*j+32]) {
				return sem("account %d is listed twice", i)
			}
		}
	}
	for i, l := range m.lookups {
		if len(l.writable)+len(l.readonly) == 0 {
			return sem("lookup table %d loads nothing", i)
		}
		for _, o := range m.lookups[:i] {
			if bytes.Equal(o.table, l.table) {
				return sem("lookup table %d is listed twice", i)
			}
		}
		var seen [MaxTable]bool
		for _, list := range [2][]byte{l.writable, l.readonly} {
			for _, index := range list {
				if seen[index] {
					return sem("entry %d of lookup table %d is loaded twice", index, i)
				}
				seen[index] = true
			}
		}
	}
	for i := range m.ins {
		in := &m.ins[i]
		switch p := int(in.program); {
		case p == 0:
			return sem("instruction %d: the fee payer as a program", i)
		case p >= m.nkeys && p < m.total():
			return sem("instruction %d: its program is behind a lookup table", i)
		case p >= m.total():
			return sem("instruction %d: program index out of range", i)
		case in.naccounts > maxInstructionAccounts:
			return sem("instruction %d: %d accounts, at most %d", i, in.naccounts, maxInstructionAccounts)
		}
		for _, a := range m.accounts(in) {
			if int(a) >= m.total() {
				return sem("instruction %d: account index out of range", i)
			}
		}
	}
	return nil
}

// key returns account i, or nil when it is behind a table that was not resolved.
func (m *message) key(i int) *[32]byte {
	if i < m.nkeys {
		return (*[32]byte)(m.keys[32*i:])
	}
	return m.loaded[i-m.nkeys].key
}

// is reports whether account i is known to be k.
func (m *message) is(i int, k *[32]byte) bool {
	own := m.key(i)
	return own != nil && *own == *k
}

func (m *message) isSigner(i int) bool { return i < m.signers }

// isWritable is what the message asks for; the runtime also treats programs
// and sysvars as read-only.
func (m *message) isWritable(i int) bool {
	switch {
	case i < m.signers:
		return i < m.signers-m.roSigned
	case i < m.nkeys:
		return i < m.nkeys-m.roOther
	}
	return m.loaded[i-m.nkeys].writable
}

// hidden is the number of accounts that are not known.
func (m *message) hidden() int {
	n := 0
	for i := range m.loaded {
		if m.loaded[i].key == nil {
			n++
		}
	}
	return n
}
