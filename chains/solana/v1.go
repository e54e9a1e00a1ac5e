package solana

import (
	"encoding/binary"

	"github.com/sigild/sigild/chains"
)

// Version 1 (SIMD-0385, first byte 0x81): no lookup tables, fixed-width counts,
// and the compute budget in the message itself.
//
//	0x81, header (3 bytes), config mask u32, lifetime specifier (32 bytes),
//	instruction count u8, address count u8, addresses,
//	config values (4 bytes for each bit of the mask),
//	instruction headers (program u8, account count u8, data length u16),
//	instruction payloads (account indexes, data)
//
// Integers are little-endian. The transaction is the message followed by its
// signatures, without a count.

// MaxSizeV1 is the largest version 1 message, in bytes.
const MaxSizeV1 = 4096

const (
	maxAddressesV1  = 64
	maxSignaturesV1 = 12
	minHeap         = 32 << 10
	maxHeap         = 256 << 10
)

// Bits of the config mask.
const (
	maskPriorityFee = 0b11 // one value of 8 bytes
	maskUnitLimit   = 1 << 2
	maskLoadedData  = 1 << 3
	maskHeap        = 1 << 4
	maskKnown       = 0b11111
)

// config is the compute budget of a version 1 message.
type config struct {
	mask        uint32
	priorityFee uint64 // lamports, for the whole transaction
	unitLimit   uint32
	heap        uint32
}

func (m *message) readV1(r *reader) {
	at := r.pos
	m.config.mask = r.u32("config mask")
	m.hashAt = r.pos
	m.blockhash = r.key("lifetime specifier")
	count := r.u8("instruction count")
	m.nkeys = r.u8("address count")
	switch {
	case r.err != nil:
		return
	case m.config.mask&^maskKnown != 0:
		r.err = fail(chains.CodeForm, at, "unknown bits in the config mask %#x", m.config.mask)
		return
	case m.config.mask&maskPriorityFee != 0 && m.config.mask&maskPriorityFee != maskPriorityFee:
		r.err = fail(chains.CodeSemantic, at, "the config mask has one bit of the priority fee only")
		return
	case count > maxInstructions:
		r.semantic("%d instructions, at most %d run", count, maxInstructions)
		return
	case m.nkeys > maxAddressesV1:
		r.semantic("%d addresses, at most %d", m.nkeys, maxAddressesV1)
		return
	case m.signers > maxSignaturesV1:
		r.semantic("%d signatures, at most %d", m.signers, maxSignaturesV1)
		return
	}
	m.keys = r.take(32*m.nkeys, "addresses")
	m.readConfig(r)
	headers := r.take(4*count, "instruction headers")
	if r.err != nil {
		return
	}
	m.ins = make([]instruction, count)
	for i := range m.ins {
		h, in := headers[4*i:], &m.ins[i]
		in.program = h[0]
		in.accountAt, in.naccounts = r.span(int(h[1]), "instruction accounts")
		in.dataAt, in.ndata = r.span(int(binary.LittleEndian.Uint16(h[2:])), "instruction data")
	}
}

func (m *message) readConfig(r *reader) {
	c := &m.config
	if c.mask&maskPriorityFee != 0 {
		low := r.u32("priority fee")
		c.priorityFee = uint64(low) | uint64(r.u32("priority fee"))<<32
	}
	if c.mask&maskUnitLimit != 0 {
		c.unitLimit = r.u32("compute unit limit")
	}
	if c.mask&maskLoadedData != 0 {
		r.u32("loaded accounts data size limit")
	}
	if c.mask&maskHeap != 0 {
		c.heap = r.u32("heap size")
		if r.err == nil && (c.heap%1024 != 0 || c.heap < minHeap || c.heap > maxHeap) {
			r.semantic("heap of %d bytes, want a multiple of 1024 from %d to %d", c.heap, minHeap, maxHeap)
		}
	}
}
