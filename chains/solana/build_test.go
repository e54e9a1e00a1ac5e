package solana

import (
	"crypto/ed25519"
	"encoding/binary"

	"github.com/sigild/sigild/chains"
)

// Keys of tests: 0 and 1 sign, the others are only addresses.
var (
	privateKeys = [2]ed25519.PrivateKey{
		ed25519.NewKeyFromSeed(repeat(0x11)), ed25519.NewKeyFromSeed(repeat(0x22)),
	}
	payer = [32]byte(privateKeys[0].Public().(ed25519.PublicKey))
	other = [32]byte(privateKeys[1].Public().(ed25519.PublicKey))
	to    = [32]byte(repeat(0x33))
	table = repeat(0x44)
)

func repeat(c byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = c
	}
	return b
}

// draft is a message to be encoded, well or not.
type draft struct {
	version                    int
	signers, roSigned, roOther int
	keys                       [][32]byte
	blockhash                  [32]byte
	steps                      []step
	lookups                    []lookup
	mask                       uint32
	values                     []byte
}

// step is an instruction; its program is a key, or the number at.
type step struct {
	program  [32]byte
	accounts []byte
	data     []byte
	at       int
}

// encode writes a message in the canonical form.
func (d *draft) encode() []byte {
	var b []byte
	if d.version != legacy {
		b = append(b, 0x80+byte(d.version))
	}
	b = append(b, byte(d.signers), byte(d.roSigned), byte(d.roOther))
	if d.version == v1 {
		return d.encodeV1(b)
	}
	b = compact(b, len(d.keys))
	for _, k := range d.keys {
		b = append(b, k[:]...)
	}
	b = append(b, d.blockhash[:]...)
	b = compact(b, len(d.steps))
	for _, s := range d.steps {
		b = append(b, byte(s.at))
		b = append(compact(b, len(s.accounts)), s.accounts...)
		b = append(compact(b, len(s.data)), s.data...)
	}
	if d.version == v0 {
		b = compact(b, len(d.lookups))
		for _, l := range d.lookups {
			b = append(b, l.table...)
			b = append(compact(b, len(l.writable)), l.writable...)
			b = append(compact(b, len(l.readonly)), l.readonly...)
		}
	}
	return b
}

func (d *draft) encodeV1(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, d.mask)
	b = append(b, d.blockhash[:]...)
	b = append(b, byte(len(d.steps)), byte(len(d.keys)))
	for _, k := range d.keys {
		b = append(b, k[:]...)
	}
	b = append(b, d.values...)
	for _, s := range d.steps {
		b = append(b, byte(s.at), byte(len(s.accounts)))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s.data)))
	}
	for _, s := range d.steps {
		b = append(append(b, s.accounts...), s.data...)
	}
	return b
}

// draftOf is the draft of a parsed message.
func draftOf(m *message) *draft {
	d := &draft{version: m.version, signers: m.signers, roSigned: m.roSigned, roOther: m.roOther, blockhash: m.blockhash, lookups: m.lookups, mask: m.config.mask}
	for i := range m.nkeys {
		d.keys = append(d.keys, *m.key(i))
	}
	for i := range m.ins {
		in := &m.ins[i]
		d.steps = append(d.steps, step{at: int(in.program), accounts: m.accounts(in), data: m.data(in)})
	}
	if m.version == v1 {
		at := 42 + 32*m.nkeys
		n := 0
		for i := range 5 {
			n += int(m.config.mask >> i & 1)
		}
		d.values = m.raw[at : at+4*n]
	}
	return d
}

func compact(b []byte, n int) []byte {
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n&0x7f|0x80))
	}
	return append(b, byte(n))
}

// build makes a version 0 message that payer pays and signs: keys are payer, to,
// the sysvar of blockhashes, then the programs named by the steps.
func build(steps []step, change ...func(*draft)) []byte {
	return drafted(steps, change...).encode()
}

func drafted(steps []step, change ...func(*draft)) *draft {
	d := &draft{version: v0, signers: 1, blockhash: [32]byte(repeat(0x55)), keys: [][32]byte{payer, to, recentBlockhashes}, steps: steps}
	d.steps = append([]step(nil), steps...)
	for i := range d.steps {
		s := &d.steps[i]
		s.at = -1
		for j, k := range d.keys {
			if k == s.program {
				s.at = j
			}
		}
		if s.at < 0 {
			s.at = len(d.keys)
			d.keys = append(d.keys, s.program)
			d.roOther++
		}
	}
	for _, f := range change {
		f(d)
	}
	return d
}

func transferStep(lamports uint64) step {
	data := binary.LittleEndian.AppendUint64([]byte{2, 0, 0, 0}, lamports)
	return step{program: systemProgram, accounts: []byte{0, 1}, data: data}
}

func unitLimit(n uint32) step {
	return step{program: computeBudgetProgram, data: binary.LittleEndian.AppendUint32([]byte{2}, n)}
}

func unitPrice(n uint64) step {
	return step{program: computeBudgetProgram, data: binary.LittleEndian.AppendUint64([]byte{3}, n)}
}

func memo(text string) step {
	return step{program: memoProgram, accounts: []byte{0}, data: []byte(text)}
}

// fiveInstructions is a transfer as wallets make it, with budget and memos.
func fiveInstructions() []byte {
	return build([]step{unitLimit(30_000), unitPrice(50_000), transferStep(500_000_000), memo("invoice 7"), memo("thanks")})
}

// elements are the elements of a list, of either form.
func elements(v chains.Value) []chains.Value {
	out := make([]chains.Value, v.Len())
	for i := range out {
		out[i] = *v.At(i, new(chains.Value))
	}
	return out
}
