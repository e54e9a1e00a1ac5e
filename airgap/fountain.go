package airgap

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// The multipart form of uniform resources (BCR-2024-001): the message is cut into
// fragments of one length; the first parts are the fragments themselves, each later
// one is the XOR of some, chosen by a generator that the part's number seeds. So a
// camera that missed some needs no particular one of the others.

// fragmentBytes is how much of a message goes into one part: with its frame a QR
// code of about 60 modules, which a terminal shows and a poor camera reads.
const fragmentBytes = 100

// maxParts bounds what is kept of a message while it is put together.
const maxParts = MaxMessage / 64

type wirePart struct {
	_        struct{} `cbor:",toarray"`
	Number   uint32
	Of       uint32
	Length   uint32
	Checksum uint32
	Data     []byte
}

// Parts spells the message as n parts; from the first n those up to [UR.Fragments]
// are enough, and of more any few more than that. A message that fits into one part
// is spelled whole.
func (u UR) Parts(n int) ([]string, error) {
	count := u.Fragments()
	if count == 1 {
		return []string{u.String()}, nil
	}
	size := (len(u.CBOR) + count - 1) / count
	padded := make([]byte, size*count)
	copy(padded, u.CBOR)
	sum := crc32.ChecksumIEEE(u.CBOR)
	var all []string
	for number := uint32(1); number <= uint32(n); number++ {
		data := make([]byte, size)
		for _, i := range chooseFragments(number, uint32(count), sum) {
			xor(data, padded[i*size:(i+1)*size])
		}
		b, err := encode(wirePart{Number: number, Of: uint32(count), Length: uint32(len(u.CBOR)), Checksum: sum, Data: data})
		if err != nil {
			return nil, fmt.Errorf("encoding part %d: %w", number, err)
		}
		all = append(all, fmt.Sprintf("ur:%s/%d-%d/%s", u.Type, number, count, minimal(withCRC(b))))
	}
	return all, nil
}

// Fragments is how many pieces the message is cut into, at least 1.
func (u UR) Fragments() int { return max(1, (len(u.CBOR)+fragmentBytes-1)/fragmentBytes) }

// Collector puts a message together from resources in any order. The zero value is
// empty. It keeps at most one message, of at most [MaxMessage] bytes.
type Collector struct {
	kind  string
	whole []byte
	// first is what all parts agree on.
	first wirePart
	// rows are equations over GF(2), by the lowest fragment that each still holds.
	rows map[int]row
}

// row says that the XOR of the fragments in set is data.
type row struct {
	set  []uint64
	data []byte
}

// Add takes one resource. It refuses what is malformed or of another message than
// the ones before; what was there already changes nothing.
func (c *Collector) Add(text string) error {
	r, err := parseResource(text)
	if err != nil {
		return err
	}
	if c.kind != "" && c.kind != r.kind {
		return fmt.Errorf("reading a resource: %w: a part of %s among those of %s", ErrForm, r.kind, c.kind)
	}
	if r.part == 0 {
		if c.rows != nil || c.whole != nil && string(c.whole) != string(r.body) {
			return fmt.Errorf("reading a resource: %w: two messages at once", ErrForm)
		}
		if len(r.body) > MaxMessage {
			return fmt.Errorf("reading a resource: %w: %d bytes, at most %d are taken", ErrForm, len(r.body), MaxMessage)
		}
		c.kind, c.whole = r.kind, r.body
		return nil
	}
	var p wirePart
	if err := decodeCanonical(r.body, &p); err != nil {
		return fmt.Errorf("reading part %d: %w", r.part, err)
	}
	if c.rows == nil {
		size := uint64(len(p.Data))
		if c.whole != nil || p.Of > maxParts || p.Length > MaxMessage || size == 0 ||
			uint64(p.Length) > size*uint64(p.Of) || uint64(p.Length) <= size*uint64(p.Of-1) {
			return fmt.Errorf("reading part %d: %w: %d pieces of %d bytes are no message of %d", r.part, ErrForm, p.Of, size, p.Length)
		}
		c.first, c.rows = p, map[int]row{}
	}
	f := &c.first
	if p.Number != r.part || p.Of != r.of || p.Of != f.Of || p.Length != f.Length || p.Checksum != f.Checksum || len(p.Data) != len(f.Data) {
		return fmt.Errorf("reading part %d: %w: it is of another message", r.part, ErrForm)
	}
	c.kind = r.kind
	c.reduce(chooseFragments(p.Number, p.Of, p.Checksum), p.Data)
	return nil
}

// reduce adds one equation, freed of what the ones before already say.
func (c *Collector) reduce(indexes []int, data []byte) {
	r := row{set: make([]uint64, (c.first.Of+63)/64), data: append([]byte(nil), data...)}
	for _, i := range indexes {
		r.set[i/64] ^= 1 << (i % 64)
	}
	for {
		lowest := r.lowest()
		if lowest < 0 {
			return // it said nothing new
		}
		known, ok := c.rows[lowest]
		if !ok {
			c.rows[lowest] = r
			return
		}
		r.add(known)
	}
}

func (r row) lowest() int {
	for i, w := range r.set {
		if w != 0 {
			return 64*i + bits.TrailingZeros64(w)
		}
	}
	return -1
}

func (r row) add(other row) {
	for i := range r.set {
		r.set[i] ^= other.set[i]
	}
	xor(r.data, other.data)
}

// Progress says how many independent pieces are there, and how many are needed.
func (c *Collector) Progress() (have, need int) {
	if c.whole != nil {
		return 1, 1
	}
	return len(c.rows), int(c.first.Of)
}

// Message returns the message when it is whole; false before that. An error says
// that the parts, each of them sound, do not make the message they speak of.
func (c *Collector) Message() (UR, bool, error) {
	if c.whole != nil {
		return UR{Type: c.kind, CBOR: c.whole}, true, nil
	}
	n := int(c.first.Of)
	if n == 0 || len(c.rows) < n {
		return UR{}, false, nil
	}
	size := len(c.first.Data)
	out := make([]byte, n*size)
	for i := n - 1; i >= 0; i-- {
		r := c.rows[i]
		data := append([]byte(nil), r.data...)
		for j := i + 1; j < n; j++ {
			if r.set[j/64]>>(j%64)&1 == 1 {
				xor(data, out[j*size:(j+1)*size])
			}
		}
		copy(out[i*size:], data)
	}
	out = out[:c.first.Length]
	if crc32.ChecksumIEEE(out) != c.first.Checksum {
		return UR{}, false, fmt.Errorf("joining %d parts: %w: the message's checksum is wrong", n, ErrForm)
	}
	return UR{Type: c.kind, CBOR: out}, true, nil
}

func xor(to, from []byte) {
	for i := range to {
		to[i] ^= from[i]
	}
}

// chooseFragments says which of count fragments part number holds.
func chooseFragments(number, count, checksum uint32) []int {
	if number <= count {
		return []int{int(number - 1)}
	}
	var seed [8]byte
	binary.BigEndian.PutUint32(seed[:4], number)
	binary.BigEndian.PutUint32(seed[4:], checksum)
	g := newXoshiro(seed[:])
	degree := chooseDegree(int(count), g)
	remaining := make([]int, count)
	for i := range remaining {
		remaining[i] = i
	}
	chosen := make([]int, 0, degree)
	for range degree {
		i := int(g.double() * float64(len(remaining)))
		chosen = append(chosen, remaining[i])
		remaining = append(remaining[:i], remaining[i+1:]...)
	}
	return chosen
}

// chooseDegree draws 1 to n with weights 1/1 … 1/n by Vose's alias method, filled
// from the last weight to the first as the reference does: both ends must draw alike.
func chooseDegree(n int, g *xoshiro) int {
	sum := 0.0
	for i := range n {
		sum += 1 / float64(i+1)
	}
	weight, keep, alias := make([]float64, n), make([]float64, n), make([]int, n)
	var small, large []int
	for i := n - 1; i >= 0; i-- {
		weight[i] = 1 / float64(i+1) * float64(n) / sum
		if weight[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		less, more := small[len(small)-1], large[len(large)-1]
		small, large = small[:len(small)-1], large[:len(large)-1]
		keep[less], alias[less] = weight[less], more
		weight[more] += weight[less] - 1
		if weight[more] < 1 {
			small = append(small, more)
		} else {
			large = append(large, more)
		}
	}
	for _, i := range append(small, large...) {
		keep[i] = 1
	}
	i := int(g.double() * float64(n))
	if g.double() < keep[i] {
		return i + 1
	}
	return alias[i] + 1
}

// xoshiro is xoshiro256** (Blackman and Vigna, 2018). It hides nothing: it only
// spreads fragments over parts, the same at both ends.
type xoshiro struct{ s [4]uint64 }

func newXoshiro(seed []byte) *xoshiro {
	h := sha256.Sum256(seed)
	g := &xoshiro{}
	for i := range g.s {
		g.s[i] = binary.BigEndian.Uint64(h[8*i:])
	}
	return g
}

func (g *xoshiro) next() uint64 {
	out := bits.RotateLeft64(g.s[1]*5, 7) * 9
	t := g.s[1] << 17
	g.s[2] ^= g.s[0]
	g.s[3] ^= g.s[1]
	g.s[1] ^= g.s[2]
	g.s[0] ^= g.s[3]
	g.s[2] ^= t
	g.s[3] = bits.RotateLeft64(g.s[3], 45)
	return out
}

// double is below 1 as a real number; the quotient of the largest outputs rounds to 1, which no index may be.
func (g *xoshiro) double() float64 {
	return min(float64(g.next())/(1<<64), 1-1.0/(1<<53))
}
