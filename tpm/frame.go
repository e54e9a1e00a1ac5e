package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A frame of the TPM 2.0 Library is a tag, the length of the whole, a command or
// response code, and the rest.
const (
	headerLen = 10
	maxFrame  = 4096 // what the reference implementation and the kernel take
)

// errFrame means that what came is no response frame.
var errFrame = errors.New("malformed TPM frame")

// tagRspCommand is the tag of the answer to a frame whose tag was not understood
// (TPM_ST_RSP_COMMAND, Part 2 §6.9).
const tagRspCommand = 0x00c4

// inbox gathers one frame that comes in pieces. The zero inbox is empty.
type inbox struct {
	buf [maxFrame]byte
	n   int
}

// room is where the next piece goes; never empty before the frame is whole.
func (in *inbox) room() []byte { return in.buf[in.n:] }

// took says that m more bytes are in. Bytes behind the frame are an error: they
// answer something that was not asked.
func (in *inbox) took(m int) (whole bool, err error) {
	if m < 0 || m > len(in.buf)-in.n {
		return false, fmt.Errorf("%w: %d bytes read into %d", errFrame, m, len(in.buf)-in.n)
	}
	in.n += m
	if in.n < headerLen {
		return false, nil
	}
	switch tag := tpm2.TPMST(binary.BigEndian.Uint16(in.buf[:])); tag {
	case tpm2.TPMSTNoSessions, tpm2.TPMSTSessions, tagRspCommand:
	default:
		return false, fmt.Errorf("%w: tag %#x", errFrame, uint16(tag))
	}
	size := binary.BigEndian.Uint32(in.buf[2:])
	if size < headerLen || size > maxFrame || uint32(in.n) > size {
		return false, fmt.Errorf("%w: it says %d bytes, %d came", errFrame, size, in.n)
	}
	return uint32(in.n) == size, nil
}

// frame is what came so far.
func (in *inbox) frame() []byte { return in.buf[:in.n] }

// code is the response code of a whole frame.
func code(frame []byte) tpm2.TPMRC { return tpm2.TPMRC(binary.BigEndian.Uint32(frame[6:])) }
