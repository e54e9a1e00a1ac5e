package solana

import (
	"crypto/ed25519"
	"encoding/binary"
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

// encode writes a message in the canonical form.
func encode(m *message) []byte {
	var b []byte
	if m.versioned {
		b = append(b, 0x80)
	}
	b = append(b, byte(m.signers), byte(m.roSigned), byte(m.roOther))
	b = append(compact(b, m.nkeys), m.keys...)
	b = append(b, m.blockhash[:]...)
	b = compact(b, len(m.ins))
	for _, in := range m.ins {
		b = append(b, byte(in.program))
		b = append(compact(b, len(in.accounts)), in.accounts...)
		b = append(compact(b, len(in.data)), in.data...)
	}
	if m.versioned {
		b = compact(b, len(m.lookups))
		for _, l := range m.lookups {
			b = append(b, l.table...)
			b = append(compact(b, len(l.writable)), l.writable...)
			b = append(compact(b, len(l.readonly)), l.readonly...)
		}
	}
	return b
}

func compact(b []byte, n int) []byte {
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n&0x7f|0x80))
	}
	return append(b, byte(n))
}

// build makes a version 0 message that payer pays and signs: keys are payer, to,
// then others, then the programs named by the calls.
func build(calls []call, change ...func(*message)) []byte {
	m := &message{versioned: true, signers: 1, blockhash: [32]byte(repeat(0x55))}
	keys := [][32]byte{payer, to, recentBlockhashes}
	number := func(k [32]byte) int {
		for i := range keys {
			if keys[i] == k {
				return i
			}
		}
		keys = append(keys, k)
		m.roOther++
		return len(keys) - 1
	}
	for _, c := range calls {
		m.ins = append(m.ins, instruction{program: number(c.program), accounts: c.accounts, data: c.data})
	}
	for _, k := range keys {
		m.keys = append(m.keys, k[:]...)
	}
	m.nkeys = len(keys)
	for _, f := range change {
		f(m)
	}
	return encode(m)
}

type call struct {
	program  [32]byte
	accounts []byte
	data     []byte
}

func transferCall(lamports uint64) call {
	data := binary.LittleEndian.AppendUint64([]byte{2, 0, 0, 0}, lamports)
	return call{systemProgram, []byte{0, 1}, data}
}

func unitLimit(n uint32) call {
	return call{computeBudgetProgram, nil, binary.LittleEndian.AppendUint32([]byte{2}, n)}
}

func unitPrice(n uint64) call {
	return call{computeBudgetProgram, nil, binary.LittleEndian.AppendUint64([]byte{3}, n)}
}

func memo(text string) call { return call{memoProgram, []byte{0}, []byte(text)} }

// fiveInstructions is a transfer as wallets make it, with budget and memos.
func fiveInstructions() []byte {
	return build([]call{unitLimit(30_000), unitPrice(50_000), transferCall(500_000_000), memo("invoice 7"), memo("thanks")})
}
