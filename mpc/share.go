package mpc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sigild/sigild/internal/secmem"
)

// The encoded form of a share, version 1. Everything but the body is public:
//
//	0x01
//	engine, set id, scheme           each: u8 length ‖ ASCII
//	party                            u8 length ‖ ASCII
//	parties                          u8 count, then each u8 length ‖ ASCII
//	threshold                        u8
//	epoch                            u64
//	public key                       u8 length ‖ bytes
//	body                             u32 length ‖ bytes, the engine's own form
//	checksum                         SHA-256 of all before, 32 bytes
//
// Integers are big-endian. Nothing may follow. There is one encoding of a share.
// The checksum notices damage; against changes on purpose the vault authenticates.
const shareVersion = 1

// maxBody is the longest share body, in bytes, of any engine; GG18's is about 15 KiB.
const maxBody = 256 << 10

// Share is one party's share of a set, secret, in locked memory until Destroy. It
// prints as "[redacted]" and can't be encoded by accident; [Share.Lend] is the
// only way to its bytes. Safe for concurrent use.
type Share struct {
	secret
	set   ShareSet
	party Party
	buf   *secmem.Buf
}

// ErrDestroyed is returned by Lend after Destroy.
var ErrDestroyed = secmem.ErrDestroyed

// Party says whose share it is.
func (s *Share) Party() Party { return s.party }

// Set describes the set the share belongs to.
func (s *Share) Set() ShareSet { return s.set }

// Lend calls use with the encoded share, which is what Sign and Issue take. The
// bytes are the share's own: use must neither keep nor change them, nor destroy
// the share. The error of use is returned as it is.
func (s *Share) Lend(use func(encoded []byte) error) error { return s.buf.Use(use) }

// Destroy wipes the share. Idempotent; waits for a Lend that is running.
func (s *Share) Destroy() { s.buf.Destroy() }

func newShare(set ShareSet, p Party, body []byte) (*Share, error) {
	buf, err := secmem.From(encodeShare(set, p, body))
	if err != nil {
		return nil, fmt.Errorf("keeping share of %s: %w", p, err)
	}
	return &Share{set: set, party: p, buf: buf}, nil
}

func destroyAll(shares []*Share) {
	for _, s := range shares {
		s.Destroy()
	}
}

// DescribeShare reads the public header of an encoded share: its set and its
// party. It checks the form of the whole, not the engine's body.
func DescribeShare(encoded []byte) (ShareSet, Party, error) {
	set, p, _, err := decodeShare(encoded)
	return set, p, err
}

func encodeShare(set ShareSet, p Party, body []byte) []byte {
	// Sized once: a growing slice would leave secret copies behind.
	b := make([]byte, 0, 1024+len(body))
	str := func(s string) { b = append(append(b, byte(len(s))), s...) }
	b = append(b, shareVersion)
	str(set.Engine)
	str(set.ID)
	str(string(set.Scheme))
	str(string(p))
	b = append(b, byte(len(set.Parties)))
	for _, q := range set.Parties {
		str(string(q))
	}
	b = append(b, byte(set.Threshold))
	b = binary.BigEndian.AppendUint64(b, set.Epoch)
	str(string(set.PublicKey))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeShare is strict. body aliases encoded.
func decodeShare(encoded []byte) (set ShareSet, p Party, body []byte, err error) {
	r := reader{b: encoded}
	if v := r.u8(); !r.short && v != shareVersion {
		return ShareSet{}, "", nil, fmt.Errorf("%w: version %d, want %d", ErrShare, v, shareVersion)
	}
	set.Engine = string(r.str())
	set.ID = string(r.str())
	set.Scheme = Scheme(r.str())
	p = Party(r.str())
	for n := r.u8(); n > 0 && !r.short; n-- {
		set.Parties = append(set.Parties, Party(r.str()))
	}
	set.Threshold = int(r.u8())
	set.Epoch = r.u64()
	set.PublicKey = bytes.Clone(r.str())
	n := r.u32()
	if n > maxBody {
		return ShareSet{}, "", nil, fmt.Errorf("%w: body of %d bytes", ErrShare, n)
	}
	body = r.take(int(n))
	sum := r.take(sha256.Size)
	switch {
	case r.short:
		err = errors.New("cut short")
	case len(r.b) != 0:
		err = fmt.Errorf("%d bytes follow it", len(r.b))
	case sha256.Sum256(encoded[:len(encoded)-sha256.Size]) != [sha256.Size]byte(sum):
		err = errors.New("damaged")
	case len(body) == 0:
		err = errors.New("empty body")
	case !slices.Contains(set.Parties, p):
		err = fmt.Errorf("party %q is not of its own set", p)
	default:
		err = set.Validate()
	}
	if err != nil {
		return ShareSet{}, "", nil, fmt.Errorf("%w: %w", ErrShare, err)
	}
	return set, p, body, nil
}

// openShares decodes lent shares and checks that they are distinct parties of
// set, at least Threshold of them. The bodies alias encoded.
func openShares(set ShareSet, encoded [][]byte) (quorum []Party, bodies map[Party][]byte, err error) {
	if err := set.Validate(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrShare, err)
	}
	bodies = make(map[Party][]byte, len(encoded))
	for _, e := range encoded {
		got, p, body, err := decodeShare(e)
		if err != nil {
			return nil, nil, err
		}
		if !got.equal(set) {
			return nil, nil, fmt.Errorf("%w: share of %s is of set %q, not of %q as described", ErrShare, p, got.ID, set.ID)
		}
		if bodies[p] != nil {
			return nil, nil, fmt.Errorf("%w: two shares of %s", ErrShare, p)
		}
		bodies[p] = body
		quorum = append(quorum, p)
	}
	if len(quorum) < set.Threshold {
		return nil, nil, fmt.Errorf("%w: %d shares, the set needs %d", ErrShare, len(quorum), set.Threshold)
	}
	slices.Sort(quorum)
	return quorum, bodies, nil
}

// reader takes fields off the front of b; short is set when one is missing, and
// then every further field is zero.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || n > len(r.b) || n > math.MaxInt32 {
		r.short, r.b = true, nil
		return nil
	}
	f := r.b[:n:n]
	r.b = r.b[n:]
	return f
}

func (r *reader) u8() byte {
	if f := r.take(1); f != nil {
		return f[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if f := r.take(4); f != nil {
		return binary.BigEndian.Uint32(f)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if f := r.take(8); f != nil {
		return binary.BigEndian.Uint64(f)
	}
	return 0
}

func (r *reader) str() []byte { return r.take(int(r.u8())) }
