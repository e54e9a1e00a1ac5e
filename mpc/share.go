package mpc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/internal/secmem"
)

// The encoded form of a share. Everything but the body is public:
//
//	0x01, or 0x02 when the key has a chain code
//	engine, set id, scheme           each: u8 length ‖ ASCII
//	party                            u8 length ‖ ASCII
//	parties                          u8 count, then each u8 length ‖ ASCII
//	threshold                        u8
//	epoch                            u64
//	public key                       u8 length ‖ bytes
//	chain code                       32 bytes, in version 2 only (BIP-32; derive.go)
//	body                             u32 length ‖ bytes, the engine's own form
//	checksum                         SHA-256 of all before, 32 bytes
//
// The chain code is no part of the secret, but whoever has it can link the key's
// addresses. Integers are big-endian. Nothing may follow. There is one encoding of
// a share.
// The checksum notices damage; against changes on purpose the vault authenticates.
const (
	shareVersion        = 1
	shareVersionDerives = 2
)

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

func newShare(o opened) (*Share, error) {
	buf, err := secmem.From(o.encode())
	if err != nil {
		return nil, fmt.Errorf("keeping share of %s: %w", o.party, err)
	}
	return &Share{set: o.set, party: o.party, buf: buf}, nil
}

func destroyAll(shares []*Share) {
	for _, s := range shares {
		s.Destroy()
	}
}

// DescribeShare reads the public header of an encoded share: its set and its
// party. It checks the form of the whole, not the engine's body.
func DescribeShare(encoded []byte) (ShareSet, Party, error) {
	o, err := decodeShare(encoded)
	return o.set, o.party, err
}

// opened is a decoded share. What has bytes aliases the encoded form.
type opened struct {
	set   ShareSet
	party Party
	// chainCode is 32 bytes, or nil for a key that nothing is derived from.
	chainCode, body []byte
}

func (o opened) encode() []byte {
	set, p, body := o.set, o.party, o.body
	// Sized once: a growing slice would leave secret copies behind.
	b := make([]byte, 0, 1024+len(body))
	str := func(s string) { b = append(append(b, byte(len(s))), s...) }
	if o.chainCode == nil {
		b = append(b, shareVersion)
	} else {
		b = append(b, shareVersionDerives)
	}
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
	b = append(b, o.chainCode...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeShare is strict.
func decodeShare(encoded []byte) (o opened, err error) {
	r, set := reader{b: encoded}, ShareSet{}
	version := r.u8()
	if !r.short && version != shareVersion && version != shareVersionDerives {
		return opened{}, fmt.Errorf("%w: version %d, want %d or %d", ErrShare, version, shareVersion, shareVersionDerives)
	}
	set.Engine = string(r.str())
	set.ID = string(r.str())
	set.Scheme = Scheme(r.str())
	p := Party(r.str())
	for n := r.u8(); n > 0 && !r.short; n-- {
		set.Parties = append(set.Parties, Party(r.str()))
	}
	set.Threshold = int(r.u8())
	set.Epoch = r.u64()
	set.PublicKey = bytes.Clone(r.str())
	var chainCode []byte
	if version == shareVersionDerives {
		chainCode = r.take(chainCodeBytes)
	}
	n := r.u32()
	if n > maxBody {
		return opened{}, fmt.Errorf("%w: body of %d bytes", ErrShare, n)
	}
	body := r.take(int(n))
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
	case chainCode != nil && set.Scheme != chains.ECDSASecp256k1:
		err = fmt.Errorf("scheme %q has no chain code", set.Scheme)
	default:
		err = set.Validate()
	}
	if err != nil {
		return opened{}, fmt.Errorf("%w: %w", ErrShare, err)
	}
	return opened{set, p, chainCode, body}, nil
}

// lentQuorum is shares of one set, lent for a ceremony. The bytes are the lender's.
type lentQuorum struct {
	// parties is sorted; those without a body take part in another process.
	parties   []Party
	bodies    map[Party][]byte
	chainCode []byte
}

// here are the parties whose shares are lent.
func (q lentQuorum) here() []Party {
	return slices.DeleteFunc(slices.Clone(q.parties), func(p Party) bool { return q.bodies[p] == nil })
}

// openShares decodes lent shares and checks that they are distinct parties of
// set, with those elsewhere at least Threshold of them, with one chain code.
func openShares(set ShareSet, encoded [][]byte, elsewhere ...Party) (q lentQuorum, err error) {
	if err := set.Validate(); err != nil {
		return q, fmt.Errorf("%w: %w", ErrShare, err)
	}
	q.bodies = make(map[Party][]byte, len(encoded))
	for i, e := range encoded {
		o, err := decodeShare(e)
		if err != nil {
			return q, err
		}
		if !o.set.equal(set) {
			return q, fmt.Errorf("%w: share of %s is of set %q, not of %q as described", ErrShare, o.party, o.set.ID, set.ID)
		}
		if q.bodies[o.party] != nil {
			return q, fmt.Errorf("%w: two shares of %s", ErrShare, o.party)
		}
		if i > 0 && !bytes.Equal(o.chainCode, q.chainCode) {
			return q, fmt.Errorf("%w: share of %s has another chain code", ErrShare, o.party)
		}
		q.bodies[o.party], q.chainCode = o.body, o.chainCode
		q.parties = append(q.parties, o.party)
	}
	for _, p := range elsewhere {
		if q.bodies[p] != nil || !slices.Contains(set.Parties, p) {
			return q, fmt.Errorf("%w: %s takes part here or not at all", ErrShare, p)
		}
		q.parties = append(q.parties, p)
	}
	if len(q.parties) < set.Threshold {
		return q, fmt.Errorf("%w: %d shares, the set needs %d", ErrShare, len(q.parties), set.Threshold)
	}
	slices.Sort(q.parties)
	return q, nil
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
