package hsm

// The worker protocol. Both ends are the same binary, so there is one version
// and no negotiation; the decoders are strict all the same, because the worker
// shares its address space with foreign code.
//
//	frame   = u32 length of body ‖ body                  (length ≤ maxBody)
//	body    = version ‖ op ‖ u32 seq ‖ rung or status ‖ field*
//	field   = u16 length ‖ bytes
//
// Integers are big-endian. Each op has a fixed number of fields with fixed
// bounds (shapes). One request is on the wire at a time; the reply repeats its op
// and seq. A request has a rung, how far it has climbed the supervisor's ladder; a
// reply has a status, and one other than 0 is a fault with two fields: the CKR code
// (u32) and a text.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	protocolVersion = 1
	maxFrame        = 64 << 10 // with the length word
	maxBody         = maxFrame - 4
	headerLen       = 7       // version, op, seq, rung or status
	maxAAD          = 4 << 10 // of Seal and Unseal
	maxID           = 64      // bytes of a CKA_ID
	maxRandom       = 4 << 10 // bytes of one opRandom
	maxFaultText    = 2 << 10
	minModulus      = 2048 / 8
	maxModulus      = 4096 / 8
	maxPKCS8        = 4 << 10 // of a 4096-bit key it is about 2400 bytes

	ivLen        = 12
	tagLen       = 16
	macLen       = 32
	blobOverhead = 1 + ivLen + tagLen // of GCM: version ‖ iv ‖ … ‖ tag
	maxPlain     = 128                // seal.MaxSealed; a test holds them equal
	maxBlob      = 1 + maxModulus + macLen
)

type op uint8

const (
	opStart op = 1 + iota // load the module, find the token, log in
	opInfo
	opProvision
	opCheckKey
	opWrap
	opUnwrap
	opPublicP256
	opSignP256
	opRandom
	opHealth
	opShutdown
	opGenerateRSA
	opImportRSA
	opPublicRSA
	opDecryptOAEP
	opBeginRoll
	opEndRoll
	opListRSA
	opDestroyRSA
	opModule
	opListP256
	opDescribe
	opMakeKEK
)

// rung is how far a request has climbed the supervisor's ladder.
type rung byte

const (
	rungPlain   rung = iota // use what is there
	rungSession             // on a fresh session
	rungFind                // on a fresh session, the key found and checked again
)

func (r rung) known() bool { return r <= rungFind }

// bound is how many bytes a field may have.
type bound struct{ min, max int }

// shape is what the request and the reply of an op look like.
type shape struct {
	name    string
	request []bound
	reply   []bound
	traits
}

// traits of an op.
type traits uint8

const (
	// again: a request that failed or whose worker died may be sent once more.
	again traits = 1 << iota
	// foreign: the request carries bytes that others chose (poison.go).
	foreign
)

func (t traits) has(what traits) bool { return t&what != 0 }

var (
	boundID     = bound{1, maxID}
	boundAAD    = bound{0, maxAAD}
	boundPlain  = bound{1, maxPlain}
	boundBlob   = bound{blobOverhead + 1, maxBlob}
	boundPoint  = bound{65, 65} // 04 ‖ X ‖ Y
	boundRSA    = bound{minModulus, maxModulus}
	boundFault  = []bound{{4, 4}, {0, maxFaultText}}
	boundsToken = []bound{{0, 32}, {0, 16}, {0, 32}, {0, 16}, {0, 16}, {4, 4}} // label, serial, manufacturer, model, firmware, flags
)

// shapes has one row per op; index 0 is no op.
var shapes = [...]shape{
	// Module, label, serial, manufacturer, model, PIN file, whether a KEK may be imported.
	opStart:      {"start", []bound{{1, 4096}, {0, 32}, {0, 16}, {0, 32}, {0, 16}, {1, 4096}, {1, 1}}, boundsToken, again},
	opInfo:       {"info", nil, boundsToken, again},
	opProvision:  {"provision", nil, []bound{boundKey, boundKey}, 0},               // KEK, checkpoint key
	opCheckKey:   {"check key", []bound{{1, 1}, boundKey}, []bound{{2, 2}}, again}, // kind, key; what it lacks
	opWrap:       {"wrap", []bound{boundKey, boundPlain, boundAAD}, []bound{boundBlob}, again | foreign},
	opUnwrap:     {"unwrap", []bound{boundKey, boundBlob, boundAAD}, []bound{boundPlain}, again | foreign},
	opPublicP256: {"public key", []bound{boundKey}, []bound{boundPoint}, again},
	opSignP256:   {"sign", []bound{boundKey, {32, 32}}, []bound{{64, 64}, boundPoint}, again | foreign}, // r ‖ s, public key
	opRandom:     {"random", []bound{{2, 2}}, []bound{{1, maxRandom}}, again},                           // how many, u16
	opHealth:     {"health", []bound{{0, boundKey.max}}, nil, again},                                    // KEK of the canary; empty: none yet
	opShutdown:   {"shutdown", nil, nil, 0},
	// Bits, u16.
	opGenerateRSA: {"generate RSA", []bound{{2, 2}}, []bound{{16, 16}}, 0},
	opImportRSA:   {"import RSA", []bound{{1, maxPKCS8}}, []bound{{16, 16}}, 0},                                   // PKCS #8 DER
	opPublicRSA:   {"public RSA key", []bound{boundID}, []bound{boundRSA, {1, 8}, {1, 1}}, again},                 // modulus, exponent, flags
	opDecryptOAEP: {"decrypt", []bound{boundID, boundRSA}, []bound{{0, maxModulus - oaepExtra}}, again | foreign}, // id, ciphertext
	opMakeKEK:     {"make KEK", nil, []bound{boundKey}, 0},
	opBeginRoll:   {"begin roll", []bound{boundKey}, []bound{boundKey}, 0},               // KEK; its successor
	opEndRoll:     {"end roll", []bound{boundKey}, []bound{{4, 4}}, again},               // KEK that stays; how many were destroyed
	opListRSA:     {"list RSA keys", nil, []bound{{0, maxRSAKeys * (1 + maxID)}}, again}, // (u8 length ‖ id)*
	opDestroyRSA:  {"destroy RSA key", []bound{boundID}, nil, 0},
	opModule:      {"module", nil, []bound{{0, 32}, {0, 32}, {0, 16}}, again},                       // manufacturer, description, version
	opListP256:    {"list checkpoint keys", nil, []bound{{0, maxRSAKeys * (1 + maxID)}}, again},     // as opListRSA
	opDescribe:    {"describe key", []bound{{1, 1}, boundKey}, []bound{{1, maxDescription}}, again}, // kind, key; its attributes (describe.go)
}

// maxDescription is far above what a key of 4096 bits needs.
const maxDescription = 8 << 10

// maxRSAKeys is how many decryption keys of ours a token may hold.
const maxRSAKeys = 256

func (o op) known() bool { return o >= opStart && int(o) < len(shapes) }

func (o op) String() string {
	if !o.known() {
		return fmt.Sprintf("op %d", uint8(o))
	}
	return shapes[o].name
}

// message is a decoded body. fields are slices of body.
type message struct {
	body   []byte
	op     op
	seq    uint32
	rung   rung  // of a request
	status class // of a reply
	fields [][]byte
}

// wipe clears the message and what its fields pointed to.
func (m *message) wipe() {
	clear(m.body)
	*m = message{}
}

// errProtocol is wrapped by every refusal to decode.
var errProtocol = errors.New("malformed worker message")

// encodeRequest returns a whole frame; the caller sees to the bounds and wipes it.
func encodeRequest(o op, fields ...[]byte) ([]byte, error) {
	if !o.known() {
		return nil, fmt.Errorf("encoding %s: %w", o, errProtocol)
	}
	return encode(o, 0, classOK, shapes[o].request, fields)
}

// encodeReply returns a whole frame; the caller wipes it.
func encodeReply(o op, seq uint32, fields ...[]byte) ([]byte, error) {
	return encode(o, seq, classOK, shapes[o].reply, fields)
}

// encodeFault returns a whole frame. A text too long is cut.
func encodeFault(o op, seq uint32, f *fault) ([]byte, error) {
	text := f.text[:min(len(f.text), maxFaultText)]
	return encode(o, seq, f.class, boundFault, [][]byte{binary.BigEndian.AppendUint32(nil, f.code), []byte(text)})
}

func encode(o op, seq uint32, status class, bounds []bound, fields [][]byte) ([]byte, error) {
	if len(fields) != len(bounds) {
		return nil, fmt.Errorf("encoding %s: %d fields, want %d: %w", o, len(fields), len(bounds), errProtocol)
	}
	n := 4 + headerLen
	for i, f := range fields {
		if len(f) < bounds[i].min || len(f) > bounds[i].max {
			return nil, fmt.Errorf("encoding %s: field %d has %d bytes, want %d to %d: %w", o, i, len(f), bounds[i].min, bounds[i].max, errProtocol)
		}
		n += 2 + len(f)
	}
	// Never grows, or a secret would stay behind in the old array.
	b := make([]byte, 0, n)
	b = binary.BigEndian.AppendUint32(b, uint32(n-4))
	b = append(b, protocolVersion, byte(o))
	b = binary.BigEndian.AppendUint32(b, seq)
	b = append(b, byte(status))
	for _, f := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	return b, nil
}

// setSeq writes seq into an encoded frame.
func setSeq(frame []byte, seq uint32) { binary.BigEndian.PutUint32(frame[6:], seq) }

// setRung writes r into an encoded request.
func setRung(frame []byte, r rung) { frame[10] = byte(r) }

// content is what makes two encoded requests the same request: op and fields.
func content(frame []byte) (op byte, fields []byte) { return frame[5], frame[4+headerLen:] }

// decodeRequest decodes a body; the message keeps it.
func decodeRequest(body []byte) (message, error) {
	m, err := decodeHeader(body)
	if err != nil {
		return message{}, err
	}
	m.rung, m.status = rung(m.status), classOK
	if !m.rung.known() {
		return message{}, fmt.Errorf("decoding %s: a request with rung %d: %w", m.op, m.rung, errProtocol)
	}
	m.fields, err = decodeFields(body[headerLen:], shapes[m.op].request)
	if err != nil {
		return message{}, fmt.Errorf("decoding the %s request: %w", m.op, err)
	}
	return m, nil
}

// decodeReply decodes a body; the message keeps it.
func decodeReply(body []byte) (message, error) {
	m, err := decodeHeader(body)
	if err != nil {
		return message{}, err
	}
	bounds := shapes[m.op].reply
	if m.status != classOK {
		if !m.status.known() {
			return message{}, fmt.Errorf("decoding the %s reply: unknown status %d: %w", m.op, m.status, errProtocol)
		}
		bounds = boundFault
	}
	m.fields, err = decodeFields(body[headerLen:], bounds)
	if err != nil {
		return message{}, fmt.Errorf("decoding the %s reply: %w", m.op, err)
	}
	return m, nil
}

func decodeHeader(body []byte) (message, error) {
	if len(body) < headerLen || len(body) > maxBody {
		return message{}, fmt.Errorf("decoding a body of %d bytes: %w", len(body), errProtocol)
	}
	if body[0] != protocolVersion {
		return message{}, fmt.Errorf("decoding protocol version %d, want %d: %w", body[0], protocolVersion, errProtocol)
	}
	m := message{body: body, op: op(body[1]), seq: binary.BigEndian.Uint32(body[2:]), status: class(body[6])}
	if !m.op.known() {
		return message{}, fmt.Errorf("decoding %s: %w", m.op, errProtocol)
	}
	return m, nil
}

func decodeFields(b []byte, bounds []bound) ([][]byte, error) {
	fields := make([][]byte, len(bounds))
	for i, want := range bounds {
		if len(b) < 2 {
			return nil, fmt.Errorf("field %d is missing: %w", i, errProtocol)
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if n < want.min || n > want.max || n > len(b) {
			return nil, fmt.Errorf("field %d has %d bytes, want %d to %d of %d left: %w", i, n, want.min, want.max, len(b), errProtocol)
		}
		fields[i], b = b[:n:n], b[n:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes after the last field: %w", len(b), errProtocol)
	}
	return fields, nil
}

// inbox is a frame that has come in part: reading one can be interrupted.
type inbox struct {
	head [4]byte
	body []byte // as long as head says, once head is complete
	got  int    // bytes of both
}

// read reads the rest of one frame and returns its body, which is the caller's. Its
// errors are the reader's, io.EOF in the middle of a frame, too.
func (in *inbox) read(r io.Reader) ([]byte, error) {
	for in.got < len(in.head) {
		n, err := r.Read(in.head[in.got:])
		if in.got += n; err != nil {
			return nil, err
		}
	}
	if in.body == nil {
		n := binary.BigEndian.Uint32(in.head[:])
		if n < headerLen || n > maxBody {
			return nil, fmt.Errorf("reading a frame of %d bytes: %w", n, errProtocol)
		}
		in.body = make([]byte, n)
	}
	for in.got < len(in.head)+len(in.body) {
		n, err := r.Read(in.body[in.got-len(in.head):])
		if in.got += n; err != nil {
			return nil, err
		}
	}
	body := in.body
	*in = inbox{}
	return body, nil
}

// readBody reads one frame and returns its body. io.EOF means that the other
// side closed between frames.
func readBody(r io.Reader) ([]byte, error) {
	var in inbox
	body, err := in.read(r)
	if err != nil {
		clear(in.body)
		if errors.Is(err, io.EOF) && in.got > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return body, err
}
