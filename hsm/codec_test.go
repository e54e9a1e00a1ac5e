package hsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/sigild/sigild/seal"
)

func TestMaxPlainIsMaxSealed(t *testing.T) {
	if maxPlain != seal.MaxSealed {
		t.Errorf("maxPlain is %d, want %d", maxPlain, seal.MaxSealed)
	}
}

// extremes makes the smallest and the largest fields of bounds.
func extremes(bounds []bound) [2][][]byte {
	var out [2][][]byte
	for _, b := range bounds {
		out[0] = append(out[0], bytes.Repeat([]byte{1}, b.min))
		out[1] = append(out[1], bytes.Repeat([]byte{2}, b.max))
	}
	return out
}

func TestCodecRoundTrip(t *testing.T) {
	for o := opStart; o.known(); o++ {
		for _, fields := range extremes(shapes[o].request) {
			frame, err := encodeRequest(o, fields...)
			if err != nil {
				t.Fatal(err)
			}
			if len(frame) > maxFrame {
				t.Errorf("the %s request has %d bytes, more than a frame", o, len(frame))
			}
			setSeq(frame, 77)
			setRung(frame, rungFind)
			body, err := readBody(bytes.NewReader(frame))
			if err != nil {
				t.Fatal(err)
			}
			m, err := decodeRequest(body)
			if err != nil || m.op != o || m.seq != 77 || m.rung != rungFind || len(m.fields) != len(fields) {
				t.Fatalf("decoding the %s request: %+v, %v", o, m, err)
			}
			for i := range fields {
				if !bytes.Equal(m.fields[i], fields[i]) {
					t.Errorf("field %d of the %s request changed", i, o)
				}
			}
			m.wipe()
			if !bytes.Equal(body, make([]byte, len(body))) {
				t.Errorf("wipe left bytes of the %s request", o)
			}
			// Neither cut nor extended.
			for n := range len(frame) - 4 {
				if _, err := decodeRequest(frame[4 : 4+n]); !errors.Is(err, errProtocol) {
					t.Fatalf("decoding %d bytes of the %s request: %v, want errProtocol", n, o, err)
				}
			}
			if _, err := decodeRequest(append(bytes.Clone(frame[4:]), 0)); !errors.Is(err, errProtocol) {
				t.Errorf("decoding an extended %s request: %v, want errProtocol", o, err)
			}
		}
		for _, fields := range extremes(shapes[o].reply) {
			frame, err := encodeReply(o, 5, fields...)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := decodeReply(frame[4:]); err != nil || m.op != o || m.seq != 5 || m.status != classOK {
				t.Errorf("decoding the %s reply: %+v, %v", o, m, err)
			}
		}
	}
}

func TestCodecFault(t *testing.T) {
	long := &fault{class: classAuth, code: 0xA0, text: string(bytes.Repeat([]byte("x"), 3*maxFaultText))}
	frame, err := encodeFault(opStart, 9, long)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeReply(frame[4:])
	if err != nil || m.status != classAuth || binary.BigEndian.Uint32(m.fields[0]) != 0xA0 || len(m.fields[1]) != maxFaultText {
		t.Errorf("decoding a fault: %v, %v", m.status, err)
	}
	frame[4+6] = 99
	if _, err := decodeReply(frame[4:]); !errors.Is(err, errProtocol) {
		t.Errorf("decoding a fault of class 99: %v, want errProtocol", err)
	}
	frame[4+6] = byte(classAuth)
	if _, err := decodeRequest(frame[4:]); !errors.Is(err, errProtocol) {
		t.Errorf("decoding a request with a status: %v, want errProtocol", err)
	}
}

func TestCodecRefuses(t *testing.T) {
	if _, err := encodeRequest(opWrap, []byte("id"), nil, nil); !errors.Is(err, errProtocol) {
		t.Errorf("encoding an empty plaintext: %v, want errProtocol", err)
	}
	if _, err := encodeRequest(opWrap, []byte("id")); !errors.Is(err, errProtocol) {
		t.Errorf("encoding one field of three: %v, want errProtocol", err)
	}
	for _, o := range []op{0, op(len(shapes)), 255} {
		if _, err := encodeRequest(o); !errors.Is(err, errProtocol) {
			t.Errorf("encoding %s: %v, want errProtocol", o, err)
		}
		if _, err := decodeRequest([]byte{protocolVersion, byte(o), 0, 0, 0, 0, 0}); !errors.Is(err, errProtocol) {
			t.Errorf("decoding %s: %v, want errProtocol", o, err)
		}
	}
	if _, err := decodeRequest([]byte{2, byte(opInfo), 0, 0, 0, 0, 0}); !errors.Is(err, errProtocol) {
		t.Errorf("decoding version 2: %v, want errProtocol", err)
	}
	for _, n := range []uint32{0, headerLen - 1, maxBody + 1, 1 << 31} {
		if _, err := readBody(bytes.NewReader(binary.BigEndian.AppendUint32(nil, n))); !errors.Is(err, errProtocol) {
			t.Errorf("reading a frame of %d bytes: %v, want errProtocol", n, err)
		}
	}
	if _, err := readBody(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("reading nothing: %v, want EOF", err)
	}
	if _, err := readBody(bytes.NewReader([]byte{0, 0, 0, 9, 1})); err != io.ErrUnexpectedEOF {
		t.Errorf("reading half a frame: %v, want ErrUnexpectedEOF", err)
	}
}

// FuzzFrame reads a stream as both sides would; what is accepted is encoded to
// the same bytes again.
func FuzzFrame(f *testing.F) {
	for o := opStart; o.known(); o++ {
		for _, fields := range extremes(shapes[o].request) {
			frame, _ := encodeRequest(o, fields...)
			f.Add(frame)
		}
		for _, fields := range extremes(shapes[o].reply) {
			frame, _ := encodeReply(o, 3, fields...)
			f.Add(frame)
		}
		frame, _ := encodeFault(o, 4, newFault(seal.ErrTampered, "why"))
		f.Add(frame)
	}
	f.Add([]byte{0, 0, 0, 7, 1, 1, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := readBody(bytes.NewReader(b))
		if err != nil {
			return
		}
		if m, err := decodeRequest(body); err == nil {
			again, err := encode(m.op, m.seq, class(m.rung), shapes[m.op].request, m.fields)
			if err != nil || !bytes.Equal(again[4:], body) {
				t.Errorf("request %x is encoded again as %x, %v", body, again, err)
			}
		}
		if m, err := decodeReply(body); err == nil {
			bounds := shapes[m.op].reply
			if m.status != classOK {
				bounds = boundFault
			}
			again, err := encode(m.op, m.seq, m.status, bounds, m.fields)
			if err != nil || !bytes.Equal(again[4:], body) {
				t.Errorf("reply %x is encoded again as %x, %v", body, again, err)
			}
		}
	})
}

// hesitant gives one byte at a time and a timeout before each.
type hesitant struct {
	b    []byte
	wait bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.wait = !h.wait; h.wait {
		return 0, os.ErrDeadlineExceeded
	}
	if len(h.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:1], h.b)
	h.b = h.b[n:]
	return n, nil
}

func TestReadingGoesOnWhereItWasInterrupted(t *testing.T) {
	first, err := encodeReply(opWrap, 1, bytes.Repeat([]byte{7}, boundBlob.min))
	if err != nil {
		t.Fatal(err)
	}
	second, err := encodeReply(opShutdown, 2)
	if err != nil {
		t.Fatal(err)
	}
	from := &hesitant{b: append(bytes.Clone(first), second...)}
	var in inbox
	var bodies [][]byte
	for {
		body, err := in.read(from)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			break
		}
		bodies = append(bodies, body)
	}
	if len(bodies) != 2 || !bytes.Equal(bodies[0], first[4:]) || !bytes.Equal(bodies[1], second[4:]) {
		t.Errorf("read %x, want the two bodies", bodies)
	}
}
