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

// message is a parsed legacy or version 0 message. Byte slices alias the
// parsed buffer. Accounts are numbered: static keys first, then what tables
// load writable, then what they load read-only, each in the order of the tables.
type message struct {
	versioned bool
	signers   int // required signatures: the first so many keys
	roSigned  int // how many of these are read-only, at their end
	roOther   int // how many of the other static keys are read-only, at the end
	keys      []byte
	nkeys     int
	blockhash [32]byte
	ins       []instruction
	lookups   []lookup
	total     int // accounts, loaded ones included
}

type instruction struct {
	program  int // number of a static key
	accounts []byte
	data     []byte
}

type lookup struct {
	table              []byte // 32 bytes
	writable, readonly []byte
}

// parse reads exactly one message and nothing after it.
func parse(b []byte) (*message, error) {
	m := &message{}
	r := &reader{b: b}
	switch {
	case len(b) == 0:
		return nil, fail(chains.CodeForm, -1, "empty payload")
	case b[0] >= 0x80 && b[0] != 0x80:
		return nil, fail(chains.CodeForm, 0, "unsupported version %d", b[0]&0x7f)
	case len(b) > MaxSize:
		return nil, fail(chains.CodeForm, -1, "message of %d bytes, at most %d fit a packet", len(b), MaxSize)
	case b[0] == 0x80:
		m.versioned = true
		r.pos = 1
	}
	m.signers = r.u8("header")
	m.roSigned = r.u8("header")
	m.roOther = r.u8("header")
	m.nkeys = r.compactU16("account count")
	m.keys = r.take(32*m.nkeys, "accounts")
	m.blockhash = r.key("recent blockhash")
	m.readInstructions(r)
	m.total = m.nkeys
	if m.versioned {
		m.readLookups(r)
	}
	if r.err == nil && r.pos != len(b) {
		r.fail(r.pos, "bytes after the message")
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
		in := instruction{program: r.u8("program index"), accounts: r.list("instruction accounts"), data: r.list("instruction data")}
		if r.err != nil {
			return
		}
		m.ins = append(m.ins, in)
	}
}

func (m *message) readLookups(r *reader) {
	n := r.compactU16("lookup count")
	for range n {
		l := lookup{table: r.take(32, "lookup table"), writable: r.list("writable indexes"), readonly: r.list("read-only indexes")}
		if r.err != nil {
			return
		}
		m.lookups = append(m.lookups, l)
		m.total += len(l.writable) + len(l.readonly)
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
	case m.total > maxAccounts:
		return sem("%d accounts, at most %d", m.total, maxAccounts)
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
	}
	for i, in := range m.ins {
		switch {
		case in.program == 0:
			return sem("instruction %d: the fee payer as a program", i)
		case in.program >= m.nkeys && in.program < m.total:
			return sem("instruction %d: its program is behind a lookup table", i)
		case in.program >= m.total:
			return sem("instruction %d: program index out of range", i)
		case len(in.accounts) > maxInstructionAccounts:
			return sem("instruction %d: %d accounts, at most %d", i, len(in.accounts), maxInstructionAccounts)
		}
		for _, a := range in.accounts {
			if int(a) >= m.total {
				return sem("instruction %d: account index out of range", i)
			}
		}
	}
	return nil
}

// key returns static key i.
func (m *message) key(i int) [32]byte { return [32]byte(m.keys[32*i:]) }

func (m *message) isStatic(i int) bool { return i < m.nkeys }

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
	_, _, writable := m.loaded(i)
	return writable
}

// loaded finds the table and the entry in it behind account i, which is not static.
func (m *message) loaded(i int) (table []byte, index byte, writable bool) {
	i -= m.nkeys
	for _, l := range m.lookups {
		if i < len(l.writable) {
			return l.table, l.writable[i], true
		}
		i -= len(l.writable)
	}
	for _, l := range m.lookups {
		if i < len(l.readonly) {
			return l.table, l.readonly[i], false
		}
		i -= len(l.readonly)
	}
	return nil, 0, false
}
