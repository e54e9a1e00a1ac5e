package solana

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

func TestRefusals(t *testing.T) {
	plain := []step{transferStep(1)}
	good := build(plain)
	if _, err := Decode(good, payer, mainnet, Known{}); err != nil {
		t.Fatalf("good message: %v", err)
	}
	wire := append(append([]byte{1}, make([]byte, 64)...), good...)
	many := make([]step, 65)
	for i := range many {
		many[i] = memo("")
	}
	for name, tc := range map[string]struct {
		in   []byte
		code string
		text string
	}{
		"empty":                {nil, chains.CodeForm, "empty"},
		"version 2":            {append([]byte{0x82}, good[1:]...), chains.CodeForm, "unsupported version 2"},
		"off-chain message":    {[]byte("\xffsolana offchain"), chains.CodeForm, "unsupported version 127"},
		"oversized":            {build([]step{memo(strings.Repeat("x", 1200))}), chains.CodeForm, "at most 1232"},
		"whole transaction":    {wire, chains.CodeForm, "a whole transaction"},
		"trailing byte":        {append(bytes.Clone(good), 0), chains.CodeEncoding, "bytes after the message"},
		"no lookup count":      {good[:len(good)-1], chains.CodeEncoding, "lookup count cut off"},
		"no signer":            {build(plain, func(m *draft) { m.signers = 0 }), chains.CodeSemantic, "no required signature"},
		"read-only payer":      {build(plain, func(m *draft) { m.roSigned = 1 }), chains.CodeSemantic, "not writable"},
		"header beyond keys":   {build(plain, func(m *draft) { m.roOther = 4 }), chains.CodeSemantic, "more accounts than there are"},
		"duplicate account":    {build(plain, func(m *draft) { m.keys[1] = payer }), chains.CodeSemantic, "listed twice"},
		"zero blockhash":       {build(plain, func(m *draft) { m.blockhash = [32]byte{} }), chains.CodeSemantic, "blockhash is zero"},
		"no instruction":       {build(nil), chains.CodeSemantic, "no instructions"},
		"65 instructions":      {build(many), chains.CodeSemantic, "65 instructions"},
		"payer as program":     {build(plain, func(m *draft) { m.steps[0].at = 0 }), chains.CodeSemantic, "fee payer as a program"},
		"program out of range": {build(plain, func(m *draft) { m.steps[0].at = 9 }), chains.CodeSemantic, "program index out of range"},
		"account out of range": {build(plain, func(m *draft) { m.steps[0].accounts = []byte{0, 4} }), chains.CodeSemantic, "account index out of range"},
		"256 accounts":         {build(plain, func(m *draft) { m.steps[0].accounts = make([]byte, 256) }), chains.CodeSemantic, "at most 255"},
		"program in a table": {build(plain, func(m *draft) {
			m.lookups = []lookup{{table: table, readonly: []byte{1}}}
			m.steps[0].at = len(m.keys)
		}), chains.CodeSemantic, "program is behind a lookup table"},
		"empty lookup": {build(plain, func(m *draft) { m.lookups = []lookup{{table: table}} }), chains.CodeSemantic, "loads nothing"},
		"table twice": {build(plain, func(m *draft) {
			m.lookups = []lookup{{table: table, readonly: []byte{1}}, {table: table, writable: []byte{2}}}
		}), chains.CodeSemantic, "listed twice"},
		"257 accounts": {build(plain, func(m *draft) {
			m.lookups = []lookup{{table: table, readonly: numbered(0, 253)}}
		}), chains.CodeSemantic, "at most 256"},
		"budget twice": {build([]step{unitLimit(1), unitLimit(2), transferStep(1)}), chains.CodeSemantic, "given twice"},
		"count 2^16-1": {append([]byte{1, 0, 1, 0xff, 0xff, 3}, good[5:]...), chains.CodeEncoding, "accounts cut off"},
		"count 2^16":   {append([]byte{1, 0, 1, 0x80, 0x80, 4}, good[5:]...), chains.CodeEncoding, "exceeds 65535"},
		"count of 4":   {append([]byte{1, 0, 1, 0x80, 0x80, 0x80, 1}, good[5:]...), chains.CodeEncoding, "exceeds 65535"},
		"count padded": {append([]byte{1, 0, 1, 0x84, 0}, good[5:]...), chains.CodeEncoding, "shortest form"},
		"count zeros":  {append([]byte{1, 0, 1, 0x84, 0x80, 0}, good[5:]...), chains.CodeEncoding, "shortest form"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(tc.in, payer, mainnet, Known{})
			if de := wantCode(t, err, tc.code); !strings.Contains(de.Message, tc.text) {
				t.Errorf("message %q, want it to say %q", de.Message, tc.text)
			}
		})
	}
}

func TestWalletMustSign(t *testing.T) {
	in := build([]step{transferStep(1)})
	for _, wallet := range [][32]byte{to, other, {}} { // an account, a stranger, nobody
		_, err := Decode(in, wallet, mainnet, Known{})
		wantCode(t, err, chains.CodeSigner)
	}
}

func TestChainMustBeSolana(t *testing.T) {
	in := build([]step{transferStep(1)})
	for _, chain := range []string{"", "solana", "solana:", "eip155:1", "solana:a b", "solana:ä", "solana:" + strings.Repeat("x", 33)} {
		_, err := Decode(in, payer, chain, Known{})
		wantCode(t, err, chains.CodeForm)
	}
	if d, err := Decode(in, payer, "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", Known{}); err != nil || d.Charges[0].Asset != "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1/slip44:501" {
		t.Errorf("devnet: %v", err)
	}
}

// Every cut of a good message is refused, and none of them panics.
func TestTruncations(t *testing.T) {
	in := build([]step{unitPrice(1), transferStep(1), memo("x")}, func(m *draft) {
		m.lookups = []lookup{{table: table, writable: []byte{1, 2}, readonly: []byte{3}}}
	})
	for n := range len(in) {
		_, err := Decode(in[:n], payer, mainnet, Known{})
		wantCode(t, err, chains.CodeEncoding, chains.CodeForm)
	}
}

// numbered is n bytes counting up from first.
func numbered(first, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + i)
	}
	return b
}

// Decoding allocates at most 64 bytes for each byte of the message, and 4 kB; so
// does what a policy then reads of the view, element by element.
func TestAllocationIsBounded(t *testing.T) {
	for name, in := range heavy(t) {
		var d *chains.Decoded
		if got, most := allocated(func() { d, _ = Inspect(in, mainnet, Known{}) }), uint64(64*len(in)+4096); got > most {
			t.Errorf("%s: %d bytes allocated for %d of input, at most %d", name, got, len(in), most)
		} else {
			t.Logf("%s: %d bytes allocated for %d of input, %.1f times", name, got, len(in), float64(got)/float64(len(in)))
		}
		if d == nil && name != "lengths of 65535" {
			t.Errorf("%s: refused", name)
		}
	}
}

// heavy is what costs most, by what it is made of, and the vectors.
func heavy(t testing.TB) map[string][]byte {
	out := map[string][]byte{"lengths of 65535": append([]byte{1, 0, 1, 0xff, 0xff, 3}, make([]byte, 1200)...)}
	many := func(n int, s step) []step {
		steps := make([]step, n)
		for i := range steps {
			steps[i] = s
		}
		return steps
	}
	for name, s := range map[string]step{
		"memos":           {program: memoProgram},
		"unknown":         {program: [32]byte(repeat(0x77)), data: []byte{1}},
		"transfers":       transferStep(1<<64 - 1),
		"token transfers": {program: tokenProgram, accounts: []byte{1, 1, 0}, data: binary.LittleEndian.AppendUint64([]byte{3}, 1<<63)},
		"checked":         {program: tokenProgram, accounts: []byte{1, 1, 1, 0}, data: append(binary.LittleEndian.AppendUint64([]byte{12}, 1<<63), 255)},
		"authority":       {program: tokenProgram, accounts: []byte{1, 0}, data: []byte{6, 2, 0}},
		"closing":         {program: tokenProgram, accounts: []byte{1, 1, 0}, data: []byte{9}},
		"text":            {program: memoProgram, data: bytes.Repeat([]byte{1}, 15)},
		"account indexes": {program: memoProgram, accounts: make([]byte, 250)},
		"stake":           {program: stakeProgram, accounts: []byte{0, 0, 0}, data: []byte{5, 0, 0, 0}},
		"lockup":          {program: stakeProgram, accounts: []byte{0, 0}, data: []byte{6, 0, 0, 0, 0, 0, 0}},
		"associated":      {program: associatedProgram, accounts: []byte{0, 0, 0, 0, 3, 3}, data: []byte{1}},
	} {
		for n := 64; n > 0; n-- {
			in := build(many(n, s))
			if len(in) <= MaxSize {
				out[fmt.Sprintf("%d %s", n, name)] = in
				break
			}
		}
		first := drafted(many(min(64, (4000-200)/(4+len(s.accounts)+len(s.data))), s), func(d *draft) { d.version = v1 })
		out[fmt.Sprintf("v1 %s", name)] = first.encode()
		out["one "+name] = build(many(1, s))
	}
	loaded := numbered(4, 250)
	out["lookup indexes"] = build(many(3, step{program: memoProgram, accounts: loaded}), func(m *draft) {
		m.lookups = []lookup{{table: table, readonly: numbered(0, 250)}}
	})
	for _, v := range rows[vector](t, "solana.jsonl") {
		out[v.ID] = unhex(t, v.MessageHex)
	}
	return out
}

// allocated is the heap f takes, in bytes; the least of a few runs.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
