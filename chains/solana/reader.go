package solana

import (
	"encoding/binary"

	"github.com/sigild/sigild/chains"
)

// reader walks over one buffer. The first error sticks; everything after it
// reads as zero. Nothing is copied.
type reader struct {
	b   []byte
	pos int
	err *chains.DecodeError
}

func (r *reader) fail(offset int, format string, args ...any) {
	if r.err == nil {
		r.err = fail(chains.CodeEncoding, offset, format, args...)
	}
}

func (r *reader) semantic(format string, args ...any) {
	if r.err == nil {
		r.err = fail(chains.CodeSemantic, -1, format, args...)
	}
}

// take returns the next n bytes.
func (r *reader) take(n int, what string) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b)-r.pos {
		r.fail(r.pos, "%s cut off: %d bytes wanted, %d left", what, n, len(r.b)-r.pos)
		return nil
	}
	s := r.b[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return s
}

func (r *reader) u8(what string) int {
	if s := r.take(1, what); s != nil {
		return int(s[0])
	}
	return 0
}

func (r *reader) key(what string) (k [32]byte) {
	copy(k[:], r.take(32, what))
	return k
}

func (r *reader) u32(what string) uint32 {
	if s := r.take(4, what); s != nil {
		return binary.LittleEndian.Uint32(s)
	}
	return 0
}

// span passes over n bytes and says where they are. Only for buffers below 64 kB.
func (r *reader) span(n int, what string) (at, length uint16) {
	at = uint16(r.pos)
	if r.take(n, what) == nil {
		return at, 0
	}
	return at, uint16(n)
}

// compactU16 reads a length: 7 bits a byte, low bits first, at most 3 bytes and
// 65535, and in the shortest form only.
func (r *reader) compactU16(what string) int {
	at, n := r.pos, 0
	for i := range 3 {
		c := r.u8(what)
		n |= (c & 0x7f) << (7 * i)
		switch {
		case r.err != nil:
			return 0
		case c == 0 && i > 0:
			r.fail(at, "%s is not in its shortest form", what)
			return 0
		case i == 2 && c > 3:
			r.fail(at, "%s exceeds 65535", what)
			return 0
		case c < 0x80:
			return n
		}
	}
	return 0
}

// list reads a length and that many bytes.
func (r *reader) list(what string) []byte { return r.take(r.compactU16(what), what) }
