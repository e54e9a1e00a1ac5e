package evm

import (
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Rules of this reader (Ethereum Yellow Paper, appendix B):
//   - one pass over one buffer; it never recurses and never allocates, the
//     caller's schema bounds the depth
//   - only the shortest encoding of every length and integer is accepted
//   - a length may not reach beyond the list it is in
//   - the first error sticks; everything after it reads as zero

type reader struct {
	b   []byte
	pos int
	err *chains.DecodeError
}

func (r *reader) fail(offset int, message string) {
	if r.err == nil {
		r.err = &chains.DecodeError{Code: chains.CodeEncoding, Message: message, Offset: offset}
	}
}

// header reads the header of the next item, which must end at or before end.
// Afterwards pos is the first byte of its content and stop the byte after it.
func (r *reader) header(end int) (list bool, stop int) {
	if r.err != nil {
		return false, r.pos
	}
	at := r.pos
	if at >= end {
		r.fail(at, "an item is missing")
		return false, at
	}
	p := r.b[at]
	if p < 0x80 { // a byte that is its own encoding
		return false, at + 1
	}
	list = p >= 0xc0
	n := int(p & 0x3f) // counts from 0x80 or 0xc0
	r.pos++
	if n > 55 {
		if n = r.longLength(n-55, end); r.err != nil {
			return list, r.pos
		}
	}
	if n > end-r.pos {
		r.fail(at, "an item reaches beyond its list or the payload")
		return list, r.pos
	}
	if !list && n == 1 && p == 0x81 && r.b[r.pos] < 0x80 {
		r.fail(at, "a single byte below 0x80 carries a length")
	}
	return list, r.pos + n
}

// longLength reads a length of size bytes, 1 to 8.
func (r *reader) longLength(size, end int) int {
	at := r.pos
	if size > end-at {
		r.fail(at, "a length is cut off")
		return 0
	}
	if r.b[at] == 0 {
		r.fail(at, "a length has leading zeros")
		return 0
	}
	var n uint64
	for _, c := range r.b[at : at+size] {
		n = n<<8 | uint64(c)
	}
	r.pos += size
	switch {
	case n < 56:
		r.fail(at, "a short length in the long form")
		return 0
	case n > uint64(end-r.pos):
		r.fail(at, "an item reaches beyond its list or the payload")
		return 0
	}
	return int(n)
}

// list enters a list and returns where it stops.
func (r *reader) list(end int, what string) (stop int) {
	at := r.pos
	list, stop := r.header(end)
	if r.err == nil && !list {
		r.fail(at, what+" is not a list")
	}
	return stop
}

// bytes reads a string; the result aliases the buffer.
func (r *reader) bytes(end int, what string) []byte {
	at := r.pos
	list, stop := r.header(end)
	if r.err == nil && list {
		r.fail(at, what+" is a list")
	}
	if r.err != nil {
		return nil
	}
	s := r.b[r.pos:stop:stop]
	r.pos = stop
	return s
}

// fixed reads a string of exactly size bytes.
func (r *reader) fixed(end, size int, what string) []byte {
	at := r.pos
	s := r.bytes(end, what)
	if r.err == nil && len(s) != size {
		r.fail(at, what+" has the wrong length")
	}
	return s
}

// integer reads an integer of at most size bytes, without leading zeros.
func (r *reader) integer(end, size int, what string) []byte {
	at := r.pos
	s := r.bytes(end, what)
	switch {
	case r.err != nil:
		return nil
	case len(s) > size:
		r.fail(at, what+" is too large")
		return nil
	case len(s) > 0 && s[0] == 0:
		r.fail(at, what+" has leading zeros")
		return nil
	}
	return s
}

func (r *reader) uint64(end int, what string) uint64 {
	var n uint64
	for _, c := range r.integer(end, 8, what) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *reader) uint256(end int, what string, n *uint256.Int) {
	n.SetBytes(r.integer(end, 32, what))
}
