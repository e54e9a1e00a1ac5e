package solana

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

func TestRefusals(t *testing.T) {
	plain := []call{transferCall(1)}
	good := build(plain)
	if _, err := Decode(good, payer, mainnet); err != nil {
		t.Fatalf("good message: %v", err)
	}
	wire := append(append([]byte{1}, make([]byte, 64)...), good...)
	many := make([]call, 65)
	for i := range many {
		many[i] = memo("")
	}
	for name, tc := range map[string]struct {
		in   []byte
		code string
		text string
	}{
		"empty":                {nil, chains.CodeForm, "empty"},
		"version 1":            {append([]byte{0x81}, good[1:]...), chains.CodeForm, "unsupported version 1"},
		"off-chain message":    {[]byte("\xffsolana offchain"), chains.CodeForm, "unsupported version 127"},
		"oversized":            {build([]call{memo(strings.Repeat("x", 1200))}), chains.CodeForm, "at most 1232"},
		"whole transaction":    {wire, chains.CodeForm, "a whole transaction"},
		"trailing byte":        {append(bytes.Clone(good), 0), chains.CodeEncoding, "bytes after the message"},
		"no lookup count":      {good[:len(good)-1], chains.CodeEncoding, "lookup count cut off"},
		"no signer":            {build(plain, func(m *message) { m.signers = 0 }), chains.CodeSemantic, "no required signature"},
		"read-only payer":      {build(plain, func(m *message) { m.roSigned = 1 }), chains.CodeSemantic, "not writable"},
		"header beyond keys":   {build(plain, func(m *message) { m.roOther = 4 }), chains.CodeSemantic, "more accounts than there are"},
		"duplicate account":    {build(plain, func(m *message) { copy(m.keys[32:64], payer[:]) }), chains.CodeSemantic, "listed twice"},
		"zero blockhash":       {build(plain, func(m *message) { m.blockhash = [32]byte{} }), chains.CodeSemantic, "blockhash is zero"},
		"no instruction":       {build(nil), chains.CodeSemantic, "no instructions"},
		"65 instructions":      {build(many), chains.CodeSemantic, "65 instructions"},
		"payer as program":     {build(plain, func(m *message) { m.ins[0].program = 0 }), chains.CodeSemantic, "fee payer as a program"},
		"program out of range": {build(plain, func(m *message) { m.ins[0].program = 9 }), chains.CodeSemantic, "program index out of range"},
		"account out of range": {build(plain, func(m *message) { m.ins[0].accounts = []byte{0, 4} }), chains.CodeSemantic, "account index out of range"},
		"256 accounts":         {build(plain, func(m *message) { m.ins[0].accounts = make([]byte, 256) }), chains.CodeSemantic, "at most 255"},
		"program in a table": {build(plain, func(m *message) {
			m.lookups = []lookup{{table: table, readonly: []byte{1}}}
			m.ins[0].program = m.nkeys
		}), chains.CodeSemantic, "program is behind a lookup table"},
		"empty lookup": {build(plain, func(m *message) { m.lookups = []lookup{{table: table}} }), chains.CodeSemantic, "loads nothing"},
		"table twice": {build(plain, func(m *message) {
			m.lookups = []lookup{{table: table, readonly: []byte{1}}, {table: table, writable: []byte{2}}}
		}), chains.CodeSemantic, "listed twice"},
		"257 accounts": {build(plain, func(m *message) {
			m.lookups = []lookup{{table: table, readonly: make([]byte, 253)}}
		}), chains.CodeSemantic, "at most 256"},
		"budget twice": {build([]call{unitLimit(1), unitLimit(2), transferCall(1)}), chains.CodeSemantic, "given twice"},
		"count 2^16-1": {append([]byte{1, 0, 1, 0xff, 0xff, 3}, good[5:]...), chains.CodeEncoding, "accounts cut off"},
		"count 2^16":   {append([]byte{1, 0, 1, 0x80, 0x80, 4}, good[5:]...), chains.CodeEncoding, "exceeds 65535"},
		"count of 4":   {append([]byte{1, 0, 1, 0x80, 0x80, 0x80, 1}, good[5:]...), chains.CodeEncoding, "exceeds 65535"},
		"count padded": {append([]byte{1, 0, 1, 0x84, 0}, good[5:]...), chains.CodeEncoding, "shortest form"},
		"count zeros":  {append([]byte{1, 0, 1, 0x84, 0x80, 0}, good[5:]...), chains.CodeEncoding, "shortest form"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(tc.in, payer, mainnet)
			if de := wantCode(t, err, tc.code); !strings.Contains(de.Message, tc.text) {
				t.Errorf("message %q, want it to say %q", de.Message, tc.text)
			}
		})
	}
}

func TestWalletMustSign(t *testing.T) {
	in := build([]call{transferCall(1)})
	for _, wallet := range [][32]byte{to, other, {}} { // an account, a stranger, nobody
		_, err := Decode(in, wallet, mainnet)
		wantCode(t, err, chains.CodeSigner)
	}
}

func TestChainMustBeSolana(t *testing.T) {
	in := build([]call{transferCall(1)})
	for _, chain := range []string{"", "solana", "solana:", "eip155:1", "solana:a b", "solana:ä", "solana:" + strings.Repeat("x", 33)} {
		_, err := Decode(in, payer, chain)
		wantCode(t, err, chains.CodeForm)
	}
	if d, err := Decode(in, payer, "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"); err != nil || d.Charges[0].Asset != "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1/slip44:501" {
		t.Errorf("devnet: %v", err)
	}
}

// Every cut of a good message is refused, and none of them panics.
func TestTruncations(t *testing.T) {
	in := build([]call{unitPrice(1), transferCall(1), memo("x")}, func(m *message) {
		m.lookups = []lookup{{table: table, writable: []byte{1, 2}, readonly: []byte{3}}}
	})
	for n := range len(in) {
		_, err := Decode(in[:n], payer, mainnet)
		wantCode(t, err, chains.CodeEncoding, chains.CodeForm)
	}
}

// Ordinary messages take at most 64 bytes of heap for each of theirs and 4 kB.
// The worst that fits a packet, every byte an index that the view spells out as
// nodes of 112 bytes, stays below 512 kB.
func TestAllocationIsBounded(t *testing.T) {
	for _, v := range rows[vector](t, "solana.jsonl") {
		in, wallet := unhex(t, v.MessageHex), key(t, v.SignerPubkey)
		if got := allocated(func() { _, _ = Decode(in, wallet, mainnet) }); got > uint64(64*len(in)+4096) {
			t.Errorf("%s: %d bytes allocated for %d of input", v.ID, got, len(in))
		}
	}
	stuffed := []call{}
	for range 4 {
		stuffed = append(stuffed, call{memoProgram, make([]byte, 250), nil})
	}
	loaded := make([]byte, 250)
	for i := range loaded {
		loaded[i] = byte(4 + i)
	}
	small := make([]call, 64)
	for i := range small {
		small[i] = call{memoProgram, make([]byte, 12), nil}
	}
	for name, in := range map[string][]byte{
		"account indexes":   build(stuffed),
		"many instructions": build(small),
		"lookup indexes": build([]call{{memoProgram, loaded, nil}, {memoProgram, loaded, nil}, {memoProgram, loaded, nil}}, func(m *message) {
			m.lookups = []lookup{{table: table, readonly: make([]byte, 250)}}
		}),
		"lengths of 65535": append([]byte{1, 0, 1, 0xff, 0xff, 3}, make([]byte, 1200)...),
	} {
		if len(in) > MaxSize {
			t.Fatalf("%s: %d bytes", name, len(in))
		}
		got := allocated(func() { _, _ = Decode(in, payer, mainnet) })
		t.Logf("%s: %d bytes allocated for %d of input", name, got, len(in))
		if got > 512<<10 {
			t.Errorf("%s: %d bytes allocated for %d of input", name, got, len(in))
		}
	}
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
