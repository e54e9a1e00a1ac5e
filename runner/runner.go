// Package runner has a vendor's own program sign with a share that the vendor
// delivered. The vendor's protocol is closed and its program needs the network, so
// the program runs in a unit of its own (sigild-helper@.service): the daemon is the
// client of a unix socket, one connection a signature, and systemd starts one
// process for each, with a control group that ends with it.
//
// It refuses a program, or a file that the program reads, whose bytes are not those
// that the configuration pins, callers but the daemon's user, and answers that are
// too long, too late or malformed. It believes nothing that the program says:
// whether the signature is one is seen by whoever asked.
//
// # For those who write a program
//
// Its standard input has four parts, each after its length as four bytes,
// big-endian: the request, the share as the vendor delivered it byte for byte, the
// wallet API key likewise, the developer token (may be empty); then it ends. The
// request is JSON:
//
//	{"v":1,"request_id":"…","delegation":"…","environment_id":"…","wallet_id":"…","share_set_id":"…",
//	 "chain":"eip155","address":"0x…","scheme":"…","kind":"evm.transaction",
//	 "payload":"base64","signed":"base64","summary":"…"}
//
// payload is what was judged, in the form of its kind (docs/request.md); signed is
// the digest (secp256k1) or the message (Ed25519) that the signature is over. It
// answers on standard output with {"v":1,"signature":"hex"}, 64 bytes or 65 with a
// recovery byte at the end, and exit code 0. Standard error goes nowhere: it could
// hold the share. It has no arguments but those of the configuration, no
// environment but the configured one, and is killed at the deadline with all that it
// started.
package runner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds of one run, in bytes.
const (
	maxRequest   = 512 << 10
	maxShare     = 64 << 10
	maxAPIKey    = 64 << 10
	maxToken     = 1 << 10
	maxSignature = 65
	maxAnswer    = 4 << 10
	maxReason    = 256
)

var maxParts = [4]int{maxRequest, maxShare, maxAPIKey, maxToken}

// magic begins a request of the daemon's; the last byte is the version.
var magic = [5]byte{'S', 'G', 'V', 'H', 1}

// What a run came to, the first byte of the answer.
const (
	ranSigned byte = iota // a signature follows
	ranFailed             // a reason for the log follows: what kept it from running, nothing the program said
)

// ErrFailed says that the program was not run, or ended without a signature.
var ErrFailed = errors.New("the vendor's program did not sign")

// longest is the most time that a request gives a run, in milliseconds.
const longest = 1 << 31

// writeRequest writes the daemon's request. Nothing is copied. Where no time is left
// the run gets none.
func writeRequest(w io.Writer, within time.Duration, parts [4][]byte) error {
	head := append([]byte(nil), magic[:]...)
	head = binary.BigEndian.AppendUint32(head, uint32(max(0, min(within.Milliseconds(), longest))))
	if _, err := w.Write(head); err != nil {
		return err
	}
	return writeParts(w, parts)
}

// writeParts writes what the program reads.
func writeParts(w io.Writer, parts [4][]byte) error {
	for i, p := range parts {
		if len(p) > maxParts[i] {
			return fmt.Errorf("part %d has %d bytes, at most %d are taken", i+1, len(p), maxParts[i])
		}
		if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p)))); err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// readRequest reads the daemon's request. The parts are the caller's to wipe, also
// after an error.
func readRequest(r io.Reader) (within time.Duration, parts [4][]byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, parts, err
	}
	if [5]byte(head[:5]) != magic {
		return 0, parts, errors.New("it is no request of this version")
	}
	ms := binary.BigEndian.Uint32(head[5:])
	if ms > longest {
		return 0, parts, fmt.Errorf("it gives the run %d ms, at most %d are given", ms, longest)
	}
	within = time.Duration(ms) * time.Millisecond
	for i := range parts {
		var length [4]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return 0, parts, err
		}
		n := binary.BigEndian.Uint32(length[:])
		if n > uint32(maxParts[i]) {
			return 0, parts, fmt.Errorf("part %d has %d bytes, at most %d are taken", i+1, n, maxParts[i])
		}
		parts[i] = make([]byte, n)
		if _, err := io.ReadFull(r, parts[i]); err != nil {
			return 0, parts, err
		}
	}
	return within, parts, nil
}

func wipe(parts [4][]byte) {
	for _, p := range parts {
		clear(p)
	}
}

// writeAnswer writes what a run came to.
func writeAnswer(w io.Writer, what byte, body []byte) error {
	_, err := w.Write(append([]byte{what, byte(len(body) >> 8), byte(len(body))}, body...))
	return err
}

// readAnswer reads it. A reason is for the log and is ours, not the program's.
func readAnswer(r io.Reader) ([]byte, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("%w: the unit answers nothing: %w", ErrFailed, err)
	}
	n := int(head[1])<<8 | int(head[2])
	most := maxSignature
	if head[0] == ranFailed {
		most = maxReason
	}
	if head[0] > ranFailed || n > most {
		return nil, fmt.Errorf("%w: the unit's answer is malformed", ErrFailed)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%w: the unit's answer is cut: %w", ErrFailed, err)
	}
	if head[0] == ranFailed {
		return nil, fmt.Errorf("%w: %q", ErrFailed, body)
	}
	return body, nil
}
