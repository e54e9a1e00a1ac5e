package evm

import (
	"strings"
	"unicode/utf8"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Rules of this reader (RFC 8259, stricter):
//   - scan looks at the whole text once: syntax, UTF-8, escapes, depth; it counts
//     what every object and array holds, so that nothing is allocated on a promise
//   - afterwards a caller's schema reads every byte; a member that it does not
//     know, is missing, or is there twice is refused
//   - escaped surrogates come in pairs; control characters are escaped
//   - numbers are integers up to 2^53-1, the last that every JSON reader takes
//     exactly; larger ones are strings
//   - the first error sticks; everything after it reads as zero

// maxJSONDepth bounds how deep objects and arrays nest.
const maxJSONDepth = 64

type jsonReader struct {
	b   []byte
	pos int
	err *chains.DecodeError
	// counts has, for every object and array in the order of their openings, how
	// many members or elements it holds; container is the number of the next one.
	counts    []int32
	container int
}

// member is one member that an object must have.
type member struct {
	name string
	read func()
}

// newJSON scans the text; err is set when it is no JSON.
func newJSON(b []byte) *jsonReader {
	j := &jsonReader{b: b}
	n := 0
	for _, c := range b {
		if c == '{' || c == '[' {
			n++
		}
	}
	j.counts = make([]int32, 0, n)
	j.space()
	j.scan(0)
	j.space()
	if j.err == nil && j.pos != len(b) {
		j.fail(j.pos, "something follows the JSON value")
	}
	j.pos = 0
	return j
}

func (j *jsonReader) fail(offset int, message string) {
	if j.err == nil {
		j.err = &chains.DecodeError{Code: chains.CodeEncoding, Message: message, Offset: offset}
	}
}

func (j *jsonReader) semantic(offset int, format string, args ...any) {
	if j.err == nil {
		j.err = fail(chains.CodeSemantic, offset, format, args...)
	}
}

// end reports the first error, also of something that was left unread.
func (j *jsonReader) end() error {
	if j.space(); j.err == nil && j.pos != len(j.b) {
		j.fail(j.pos, "something follows the JSON value")
	}
	if j.err != nil {
		return j.err
	}
	return nil
}

func (j *jsonReader) space() {
	for j.pos < len(j.b) {
		switch j.b[j.pos] {
		case ' ', '\t', '\n', '\r':
			j.pos++
		default:
			return
		}
	}
}

// peek is the next byte that is no space, 0 at the end.
func (j *jsonReader) peek() byte {
	j.space()
	if j.err != nil || j.pos >= len(j.b) {
		return 0
	}
	return j.b[j.pos]
}

// take steps over c, or fails.
func (j *jsonReader) take(c byte, what string) {
	if j.peek() != c {
		j.fail(j.pos, what)
		return
	}
	j.pos++
}

// scan steps over one value of any kind.
func (j *jsonReader) scan(depth int) {
	if j.err != nil {
		return
	}
	if depth > maxJSONDepth {
		j.fail(j.pos, "nested too deep")
		return
	}
	switch c := j.peek(); {
	case c == '{', c == '[':
		j.scanContainer(c, depth)
	case c == '"':
		j.scanString()
	case c == '-', c >= '0' && c <= '9':
		j.scanNumber()
	default:
		for _, word := range [...]string{"true", "false", "null"} {
			if strings.HasPrefix(string(j.b[j.pos:min(len(j.b), j.pos+5)]), word) {
				j.pos += len(word)
				return
			}
		}
		j.fail(j.pos, "no JSON value here")
	}
}

func (j *jsonReader) scanContainer(open byte, depth int) {
	closing := open + 2 // '{' and '}', '[' and ']' are two apart
	own := len(j.counts)
	j.counts = append(j.counts, 0)
	j.pos++
	if j.peek() == closing {
		j.pos++
		return
	}
	for j.err == nil {
		if open == '{' {
			if j.peek() != '"' {
				j.fail(j.pos, "the name of a member is missing")
				return
			}
			j.scanString()
			j.take(':', "':' is missing after a member's name")
		}
		j.scan(depth + 1)
		j.counts[own]++
		if j.peek() == ',' {
			j.pos++
			continue
		}
		j.take(closing, "',' or the end of an object or array is missing")
		return
	}
}

func (j *jsonReader) scanNumber() {
	digits := func() {
		if at := j.pos; at >= len(j.b) || j.b[at] < '0' || j.b[at] > '9' {
			j.fail(at, "a digit is missing in a number")
		}
		for j.pos < len(j.b) && j.b[j.pos] >= '0' && j.b[j.pos] <= '9' {
			j.pos++
		}
	}
	is := func(set string) bool { return j.pos < len(j.b) && strings.IndexByte(set, j.b[j.pos]) >= 0 }
	if is("-") {
		j.pos++
	}
	if is("0") {
		j.pos++
	} else {
		digits()
	}
	if is(".") {
		j.pos++
		digits()
	}
	if is("eE") {
		if j.pos++; is("+-") {
			j.pos++
		}
		digits()
	}
}

// scanString steps over a string and checks it.
func (j *jsonReader) scanString() {
	j.pos++
	for j.err == nil {
		if j.pos >= len(j.b) {
			j.fail(j.pos, "a string does not end")
			return
		}
		switch c := j.b[j.pos]; {
		case c == '"':
			j.pos++
			return
		case c < 0x20:
			j.fail(j.pos, "a control character in a string")
		case c == '\\':
			_, n := escape(j.b[j.pos:])
			if n == 0 {
				j.fail(j.pos, "an escape that stands for nothing")
			}
			j.pos += n
		case c < utf8.RuneSelf:
			j.pos++
		default:
			r, n := utf8.DecodeRune(j.b[j.pos:])
			if r == utf8.RuneError && n == 1 {
				j.fail(j.pos, "not UTF-8")
			}
			j.pos += n
		}
	}
}

// escape reads an escape at the start of b: the rune and its length, 0 when it is
// none. A surrogate is read with the one that follows it.
func escape(b []byte) (r rune, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	if i := strings.IndexByte(`"\/bfnrt`, b[1]); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), 2
	}
	r, ok := hex4(b)
	switch {
	case !ok, r >= 0xdc00 && r < 0xe000:
		return 0, 0
	case r < 0xd800 || r >= 0xe000:
		return r, 6
	}
	low, ok := hex4(b[6:])
	if !ok || low < 0xdc00 || low >= 0xe000 {
		return 0, 0
	}
	return (r-0xd800)<<10 + (low - 0xdc00) + 0x10000, 12
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		n := hexDigit(c)
		if n < 0 {
			return 0, false
		}
		r = r<<4 | rune(n)
	}
	return r, true
}

// hexDigit is the value of a hexadecimal digit of either case, -1 for none.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// fields reads an object of exactly n members: find tells the number of a name or
// -1, read is called with it at the member's value. n is at most 256.
func (j *jsonReader) fields(n int, find func(name []byte) int, read func(i int)) {
	if j.peek() != '{' {
		j.fail(j.pos, "an object is expected here")
	}
	if j.err != nil {
		return
	}
	at, count := j.pos, j.open()
	switch {
	case count > n:
		j.fail(at, "more members than expected, or one of them twice")
	case count < n:
		j.fail(at, "a member is missing")
	}
	var seen [4]uint64
	for range count {
		if j.peek() == 0 {
			return
		}
		key := j.pos
		i := find(j.stringBytes())
		if i < 0 {
			j.fail(key, "a member that is not expected here")
		} else if seen[i/64]&(1<<(i%64)) != 0 {
			j.fail(key, "a member is there twice")
		}
		j.take(':', "':' is missing after a member's name")
		if j.err != nil {
			return
		}
		seen[i/64] |= 1 << (i % 64)
		j.peek()
		read(i)
		j.separator()
	}
	j.close()
}

// object reads an object of exactly these members, and of those in optional at most once.
func (j *jsonReader) object(required []member, optional ...member) {
	all := append(required[:len(required):len(required)], optional...)
	given := 0
	if j.peek() == '{' && j.container < len(j.counts) {
		given = int(j.counts[j.container])
	}
	n := max(len(required), min(given, len(all)))
	missing := len(required)
	at := j.pos
	j.fields(n, func(name []byte) int {
		for i := range all {
			if all[i].name == string(name) {
				return i
			}
		}
		return -1
	}, func(i int) {
		if i < len(required) {
			missing--
		}
		all[i].read()
	})
	if missing > 0 {
		j.fail(at, "a member is missing")
	}
}

// open steps into an object or array and returns how much it holds.
func (j *jsonReader) open() int {
	n := int(j.counts[j.container])
	j.container++
	j.pos++
	return n
}

// separator steps over a comma, if there is one; scan has seen that it may be there.
func (j *jsonReader) separator() {
	if j.peek() == ',' {
		j.pos++
	}
}

func (j *jsonReader) close() {
	if c := j.peek(); c == '}' || c == ']' {
		j.pos++
		return
	}
	j.fail(j.pos, "the end of an object or array is missing")
}

// array reads an array: begin gets its length, each reads one element.
func (j *jsonReader) array(begin func(n int), each func(i int)) {
	if j.peek() != '[' {
		j.fail(j.pos, "an array is expected here")
	}
	if j.err != nil {
		return
	}
	n := j.open()
	begin(n)
	for i := 0; i < n && j.err == nil; i++ {
		j.peek()
		each(i)
		j.separator()
	}
	j.close()
}

// skip steps over a value that was scanned, and returns where it and its
// containers begin, for at to come back.
func (j *jsonReader) skip() (at, container int) {
	j.peek()
	at, container = j.pos, j.container
	for depth := 0; j.err == nil; {
		switch j.peek() {
		case '{', '[':
			depth++
			j.container++
			j.pos++
		case '}', ']':
			depth--
			j.pos++
		case '"':
			j.stringSpan()
		case ',', ':':
			j.pos++
			continue
		default:
			for j.pos < len(j.b) && strings.IndexByte(",]} \t\r\n", j.b[j.pos]) < 0 {
				j.pos++
			}
		}
		if depth == 0 {
			break
		}
	}
	return at, container
}

// at goes to a value that skip returned.
func (j *jsonReader) at(pos, container int) { j.pos, j.container = pos, container }

// stringSpan steps over a scanned string and returns it without its quotes.
func (j *jsonReader) stringSpan() (raw []byte, escaped bool) {
	j.pos++
	start := j.pos
	for j.b[j.pos] != '"' {
		if j.b[j.pos] == '\\' {
			escaped = true
			j.pos++
		}
		j.pos++
	}
	raw = j.b[start:j.pos]
	j.pos++
	return raw, escaped
}

// stringBytes reads a string; the result may alias the text.
func (j *jsonReader) stringBytes() []byte {
	if j.peek() != '"' {
		j.fail(j.pos, "a string is expected here")
	}
	if j.err != nil {
		return nil
	}
	raw, escaped := j.stringSpan()
	if !escaped {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			i++
			continue
		}
		r, n := escape(raw[i:])
		out = utf8.AppendRune(out, r)
		i += n
	}
	return out
}

// integer reads a number or a string that spells an integer: decimal without
// leading zeros, or in a string 0x and 1 to 64 hexadecimal digits.
func (j *jsonReader) integer() (n uint256.Int, negative bool) {
	c := j.peek()
	at := j.pos
	var text []byte
	switch {
	case j.err != nil:
		return n, false
	case c == '"':
		text = j.stringBytes()
	case c == '-', c >= '0' && c <= '9':
		j.scanNumber()
		text = j.b[at:j.pos]
	default:
		j.fail(at, "an integer is expected here")
		return n, false
	}
	if c == '"' && len(text) > 2 && text[0] == '0' && text[1] == 'x' {
		if len(text) > 66 {
			j.fail(at, "an integer of more than 256 bits")
			return n, false
		}
		for _, d := range text[2:] {
			v := hexDigit(d)
			if v < 0 {
				j.fail(at, "not a hexadecimal digit in an integer")
				return uint256.Int{}, false
			}
			n.Lsh(&n, 4)
			n[0] |= uint64(v)
		}
		return n, false
	}
	digits := text
	if len(digits) > 0 && digits[0] == '-' {
		negative, digits = true, digits[1:]
	}
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' || negative && digits[0] == '0' {
		j.fail(at, "not an integer, or not in its one spelling")
		return n, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			j.fail(at, "not an integer, or not in its one spelling")
			return uint256.Int{}, false
		}
		n[0] = 10*n[0] + uint64(d-'0') // right up to 19 digits
	}
	if len(digits) > 19 {
		if len(digits) > 78 || n.SetFromDecimal(string(digits)) != nil {
			j.fail(at, "an integer of more than 256 bits")
			return uint256.Int{}, false
		}
	}
	if c != '"' && n.BitLen() > 53 {
		j.fail(at, "a JSON number above 2^53-1 is not read exactly everywhere; write it as a string")
		return uint256.Int{}, false
	}
	return n, negative
}

// uint256 reads an integer that is not negative.
func (j *jsonReader) uint256(n *uint256.Int) {
	at := j.pos
	v, negative := j.integer()
	if negative {
		j.fail(at, "a negative integer")
		return
	}
	*n = v
}

func (j *jsonReader) uint64() uint64 {
	at := j.pos
	var n uint256.Int
	if j.uint256(&n); !n.IsUint64() {
		j.fail(at, "an integer of more than 64 bits")
	}
	return n.Uint64()
}

// hex reads "0x" and an even number of hexadecimal digits.
func (j *jsonReader) hex() []byte {
	j.peek()
	at := j.pos
	text := j.stringBytes()
	if j.err != nil {
		return nil
	}
	if len(text) < 2 || len(text)%2 != 0 || text[0] != '0' || text[1] != 'x' {
		j.fail(at, "not 0x and an even number of hexadecimal digits")
		return nil
	}
	out := make([]byte, len(text)/2-1)
	for i, d := range text[2:] {
		v := hexDigit(d)
		if v < 0 {
			j.fail(at, "not a hexadecimal digit")
			return nil
		}
		out[i/2] = out[i/2]<<4 | byte(v)
	}
	return out
}

// address reads an address; mixed case must be the EIP-55 spelling.
func (j *jsonReader) address() (a [20]byte) {
	j.peek()
	at := j.pos
	text := j.stringBytes()
	if j.err != nil {
		return a
	}
	a, err := ParseAddress(string(text))
	if err != nil {
		j.fail(at, strings.TrimPrefix(err.Error(), "parsing address: "))
	}
	return a
}
