package mpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// What two processes of a joint ceremony send each other: frames, one at a time,
// over a [Conn]. docs/formats.md has the bytes.
//
//	0x01 ‖ type ‖ sequence u64 ‖ body
//
// The sequence counts each side's frames from 0. The body is, by type:
//
//	0x01 proposal   one JSON object, see [Proposal]
//	0x02 acceptance 32 bytes, the acceptor's nonce
//	0x03 refusal    a text for people, at most 256 bytes
//	0x04 message    session (32) ‖ from ‖ u8 count ‖ to… ‖ str kind ‖ flags ‖ u32 length ‖ payload
//	0x05 agreement  str what ‖ 32 bytes
//	0x06 end        a text, at most 256 bytes: the sender's part failed
//
// A member (from, to) is str set id ‖ str party; str is u8 length ‖ bytes; flags is
// 1 for a broadcast. Integers are big-endian and nothing may follow.
const frameVersion = 1

type frameType byte

const (
	frameProposal   frameType = 1
	frameAcceptance frameType = 2
	frameRefusal    frameType = 3
	frameMessage    frameType = 4
	frameAgreement  frameType = 5
	frameEnd        frameType = 6
)

// MaxFrame is the longest frame, in bytes: the largest payload of an issue and what
// is around it.
const MaxFrame = maxMakePayload + 4<<10

const (
	frameHead = 1 + 1 + 8
	// maxText is the longest text of a refusal or an end.
	maxText = 256
)

// ErrFrame: the other process sent bytes that are no frame.
var ErrFrame = errors.New("not a frame")

// frame is one frame without its sequence; which fields count depends on typ.
type frame struct {
	typ frameType
	// body of a proposal, an acceptance, a refusal or an end.
	body []byte
	env  Envelope
	// what and hash of an agreement.
	what string
	hash [32]byte
}

func (f frame) encode(seq uint64) []byte {
	b := make([]byte, 0, frameHead+len(f.body)+len(f.env.Payload)+512)
	b = append(b, frameVersion, byte(f.typ))
	b = binary.BigEndian.AppendUint64(b, seq)
	str := func(s string) { b = append(append(b, byte(len(s))), s...) }
	switch f.typ {
	case frameMessage:
		b = append(b, f.env.Session[:]...)
		str(f.env.From.SetID)
		str(string(f.env.From.Party))
		b = append(b, byte(len(f.env.To)))
		for _, m := range f.env.To {
			str(m.SetID)
			str(string(m.Party))
		}
		str(f.env.Kind)
		flags := byte(0)
		if f.env.Broadcast {
			flags = 1
		}
		b = append(b, flags)
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.env.Payload)))
		b = append(b, f.env.Payload...)
	case frameAgreement:
		str(f.what)
		b = append(b, f.hash[:]...)
	default:
		b = append(b, f.body...)
	}
	return b
}

// decodeFrame is strict. What has bytes aliases b.
func decodeFrame(b []byte) (seq uint64, f frame, err error) {
	no := func(format string, args ...any) (uint64, frame, error) {
		return 0, frame{}, fmt.Errorf("%w: "+format, append([]any{ErrFrame}, args...)...)
	}
	if len(b) > MaxFrame {
		return no("%d bytes, at most %d", len(b), MaxFrame)
	}
	r := reader{b: b}
	if v := r.u8(); v != frameVersion {
		return no("version %d, want %d", v, frameVersion)
	}
	f.typ, seq = frameType(r.u8()), r.u64()
	switch f.typ {
	case frameMessage:
		f.env.Session = [32]byte(slices.Concat(r.take(32), make([]byte, 32))[:32])
		f.env.From = r.member()
		for n := r.u8(); n > 0 && !r.short; n-- {
			f.env.To = append(f.env.To, r.member())
		}
		f.env.Kind = string(r.str())
		flags := r.u8()
		f.env.Broadcast = flags == 1
		f.env.Payload = r.take(int(r.u32()))
		if flags > 1 {
			return no("flags %#02x", flags)
		}
	case frameAgreement:
		f.what = string(r.str())
		f.hash = [32]byte(slices.Concat(r.take(32), make([]byte, 32))[:32])
	case frameAcceptance:
		f.body = r.take(nonceBytes)
	case frameProposal:
		f.body = r.take(len(r.b))
	case frameRefusal, frameEnd:
		if len(r.b) > maxText {
			return no("text of %d bytes", len(r.b))
		}
		f.body = r.take(len(r.b))
	default:
		return no("type %d", f.typ)
	}
	switch {
	case r.short:
		return no("cut short")
	case len(r.b) != 0:
		return no("%d bytes follow it", len(r.b))
	}
	return seq, f, nil
}

func (r *reader) member() Member { return Member{string(r.str()), Party(r.str())} }
