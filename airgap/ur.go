package airgap

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// A uniform resource (BCR-2020-005) is CBOR as text that fits a QR code's
// alphanumeric mode: "ur:TYPE/" and the bytes in minimal bytewords, their CRC-32
// behind them. What is too long for one code is cut into parts (fountain.go):
// "ur:TYPE/N-OF/" and the part's own CBOR.

// UR is one message: its type, and its CBOR.
type UR struct {
	Type string
	CBOR []byte
}

// The types of messages we make and read.
const (
	typeRequest = "sigild-request"
	typeAnswer  = "sigild-answer"
)

// String spells the whole message as one resource, in lower case.
func (u UR) String() string { return "ur:" + u.Type + "/" + minimal(withCRC(u.CBOR)) }

func withCRC(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b[:len(b):len(b)], crc32.ChecksumIEEE(b))
}

// resource is one text taken apart: a whole message, or one part of it.
type resource struct {
	kind string
	// part and of are 0 for a whole message.
	part, of uint32
	body     []byte
}

func parseResource(text string) (*resource, error) {
	fields := strings.Split(strings.ToLower(strings.TrimSpace(text)), "/")
	kind, ok := strings.CutPrefix(fields[0], "ur:")
	if !ok || !isType(kind) || len(fields) < 2 || len(fields) > 3 {
		return nil, fmt.Errorf("reading a resource: %w: it is no ur:TYPE/…", ErrForm)
	}
	r := &resource{kind: kind}
	if len(fields) == 3 {
		part, of, ok := strings.Cut(fields[1], "-")
		n, err1 := strconv.ParseUint(part, 10, 32)
		m, err2 := strconv.ParseUint(of, 10, 32)
		if !ok || err1 != nil || err2 != nil || n == 0 || m == 0 {
			return nil, fmt.Errorf("reading a resource: %w: %q counts no parts", ErrForm, short(fields[1]))
		}
		r.part, r.of = uint32(n), uint32(m)
	}
	b, ok := unspell(fields[len(fields)-1])
	if !ok || len(b) < 5 || crc32.ChecksumIEEE(b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("reading a resource: %w: its checksum is wrong, something was lost on the way", ErrForm)
	}
	r.body = b[:len(b)-4]
	return r, nil
}

func isType(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
