package oracles

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// drawMessage writes a random message: mostly good, of every version.
func drawMessage(r *rand.Rand) []byte {
	version := r.IntN(3) - 1 // legacy, 0, 1
	var b []byte
	if version >= 0 {
		b = append(b, 0x80+byte(version))
	}
	keys, signers := 2+r.IntN(9), 1+r.IntN(2)
	b = append(b, byte(signers), byte(r.IntN(signers)), byte(r.IntN(keys-signers+1)))
	count := 1 + r.IntN(4)
	raw := func(n int) {
		for range n {
			b = append(b, byte(r.Uint32()))
		}
	}
	type instruction struct{ accounts, data []byte }
	ins := make([]instruction, count)
	for i := range ins {
		ins[i].accounts = make([]byte, r.IntN(6))
		for j := range ins[i].accounts {
			ins[i].accounts[j] = byte(r.IntN(keys))
		}
		ins[i].data = bytes.Repeat([]byte{byte(i)}, r.IntN(150))
	}
	if version == 1 {
		config := r.IntN(8)
		mask := uint32(config&1*3 | config>>1&1<<2 | config>>2&1<<3)
		b = binary.LittleEndian.AppendUint32(b, mask)
		raw(32)
		b = append(b, byte(count), byte(keys))
		raw(32 * keys)
		for i := range 5 {
			if mask>>i&1 == 1 {
				raw(4)
			}
		}
		for _, in := range ins {
			b = append(b, byte(1+r.IntN(keys-1)), byte(len(in.accounts)), byte(len(in.data)), 0)
		}
		for _, in := range ins {
			b = append(append(b, in.accounts...), in.data...)
		}
		return b
	}
	short := func(n int) {
		if n > 127 {
			b = append(b, byte(n&0x7f|0x80), byte(n>>7))
		} else {
			b = append(b, byte(n))
		}
	}
	short(keys)
	raw(32*keys + 32)
	short(count)
	for _, in := range ins {
		b = append(b, byte(1+r.IntN(keys-1)))
		short(len(in.accounts))
		b = append(b, in.accounts...)
		short(len(in.data))
		b = append(b, in.data...)
	}
	if version == 0 {
		tables := r.IntN(3)
		short(tables)
		for t := range tables {
			raw(32)
			b = append(b, 1, byte(t), byte(r.IntN(2)))
			if b[len(b)-1] == 1 {
				b = append(b, 200)
			}
		}
	}
	return b
}

func spoil(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(2) {
		i := r.IntN(len(b))
		switch r.IntN(5) {
		case 0:
			b[i] = byte(r.Uint32())
		case 1:
			b = append(b[:i:i], append([]byte{byte(r.IntN(4))}, b[i:]...)...)
		case 2:
			b = append(b[:i:i], b[i+1:]...)
		case 3:
			b = b[:i+1]
		case 4:
			b[r.IntN(min(len(b), 8))] = byte(r.Uint32())
		}
		if len(b) == 0 {
			return []byte{0}
		}
	}
	return b
}

// TestSolanaMessagesAreReadAlike: what we take both libraries read to the same
// parts and write again to the same bytes; what both of them do so with, and we
// refuse, we refuse for what it means, not for how it is written.
func TestSolanaMessagesAreReadAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	var rows []members
	var messages [][]byte
	for i := range 900 {
		m := drawMessage(r)
		if i%3 > 0 {
			m = spoil(r, m)
		}
		messages = append(messages, m)
		rows = append(rows, members{"id": i, "read": base64.StdEncoding.EncodeToString(m)})
	}
	taken := 0
	for i, a := range accept(t, "messages.mjs", rows) {
		d, err := solana.Inspect(messages[i], devnet, solana.Known{})
		kit, web3 := a["kit"].(map[string]any), a["web3"].(map[string]any)
		if err != nil {
			var de *chains.DecodeError
			if !errors.As(err, &de) {
				t.Fatal(err)
			}
			if kit["same"] == true && web3["refused"] == nil && web3["same"] != false && de.Code == chains.CodeEncoding {
				t.Errorf("%x: refused for its encoding (%v), which kit and web3.js write, too", messages[i], err)
			}
			continue
		}
		taken++
		// web3.js reads no priority fee beyond 2^53.
		if why, _ := web3["refused"].(string); strings.Contains(why, "safe integer") {
			web3 = kit
		}
		if kit["same"] != true || web3["refused"] != nil || web3["same"] == false {
			t.Errorf("%x: taken, kit says %v, web3.js says %v", messages[i], kit, web3)
			continue
		}
		ours := fmt.Sprint(readParts(d))
		for name, theirs := range map[string]map[string]any{"kit": kit, "web3.js": web3} {
			if got := fmt.Sprint([]any{theirs["accounts"], theirs["blockhash"], theirs["instructions"], theirs["lookups"]}); got != ours {
				t.Errorf("%x: we read %s, %s reads %s", messages[i], ours, name, got)
			}
		}
	}
	if taken < 250 {
		t.Errorf("%d of %d messages were taken", taken, len(messages))
	}
	t.Logf("%d of %d messages were taken", taken, len(messages))
}

// readParts are the parts of a message as messages.mjs gives them, numbers of accounts as they stand in it.
func readParts(d *chains.Decoded) []any {
	get := func(name string) chains.Value { return d.View[solana.Root].List[solana.TxType.Index(name)] }
	list := func(v chains.Value) []chains.Value {
		out := make([]chains.Value, v.Len())
		for i := range out {
			out[i] = *v.At(i, new(chains.Value))
		}
		return out
	}
	spell := func(v chains.Value) string {
		if v.Raw == nil {
			return v.Str
		}
		return solana.Address([32]byte(v.Raw))
	}
	var static []any
	number := map[string]int{}
	for _, k := range list(get("account_keys")) {
		if k.Raw == nil {
			continue
		}
		number[spell(k)] = len(static)
		static = append(static, spell(k))
	}
	lookups := []any{}
	for _, l := range list(get("address_table_lookups")) {
		var sets [2][]any
		for s := range sets {
			sets[s] = []any{}
			for _, n := range list(l.List[1+s]) {
				sets[s] = append(sets[s], n.Int.Uint64())
			}
		}
		lookups = append(lookups, []any{spell(l.List[0]), sets[0], sets[1]})
	}
	instructions := []any{}
	for _, in := range list(get("instructions")) {
		accounts := []any{}
		for _, a := range list(in.List[1]) {
			accounts = append(accounts, number[spell(a.List[0])])
		}
		instructions = append(instructions, []any{number[spell(in.List[0])], accounts, in.List[2].Str})
	}
	return []any{static, get("recent_blockhash").Str, instructions, lookups}
}

// TestSolanaOffchainMessagesOfKit: what kit makes we read, what we sign kit verifies and reads alike.
func TestSolanaOffchainMessagesOfKit(t *testing.T) {
	key, wallet := solanaKey('1')
	_, other := solanaKey('2')
	us, them := solana.Address(wallet), solana.Address(other)
	domain := solana.Address([32]byte([]byte(strings.Repeat("D", 32))))
	var make []members
	for i, m := range []members{
		{"version": 0, "format": 0, "text": "Hello", "domain": domain, "signers": []string{us}},
		{"version": 0, "format": 1, "text": "Grüße, 世界", "domain": domain, "signers": []string{them, us}},
		{"version": 0, "format": 2, "text": strings.Repeat("long ", 4000), "domain": domain, "signers": []string{us}},
		{"version": 1, "text": "Sign in\nNonce: 1", "signers": []string{us}},
		{"version": 1, "text": strings.Repeat("é", 2000), "signers": []string{us, them}},
	} {
		make = append(make, members{"id": i, "make": m})
	}
	var check []members
	for i, made := range accept(t, "messages.mjs", make) {
		in, err := base64.StdEncoding.DecodeString(made["message"].(string))
		if err != nil {
			t.Fatal(err)
		}
		d, err := solana.DecodeOffchain(in, wallet, devnet)
		if err != nil {
			t.Fatalf("%v: %v", made["id"], err)
		}
		if got, want := d.View[solana.OffchainRoot].List[4].Str, make[i]["make"].(members)["text"]; got != want {
			t.Errorf("%v: text %q, want %q", made["id"], got, want)
		}
		sig := ed25519.Sign(key, d.Sign.Message)
		if err := solana.CheckOffchain(d, wallet, [64]byte(sig)); err != nil {
			t.Error(err)
		}
		check = append(check, members{"id": made["id"], "content": made["message"], "signature": base64.StdEncoding.EncodeToString(sig), "signer": us})
	}
	for i, a := range accept(t, "messages.mjs", check) {
		want := make[i]["make"].(members)
		if a["text"] != want["text"] || fmt.Sprint(a["version"]) != fmt.Sprint(want["version"]) {
			t.Errorf("%v: kit reads %v", a["id"], a)
		}
	}
	for i := range check {
		check[i]["signature"] = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 64))
	}
	refuse(t, "messages.mjs", check)
}

// TestSolanaVersion1OfKit: version 1 made by kit, read and signed by us, verified by kit.
func TestSolanaVersion1OfKit(t *testing.T) {
	key, wallet := solanaKey('1')
	_, recipient := solanaKey('3')
	blockhash := solana.Address([32]byte([]byte(strings.Repeat("B", 32))))
	var make []members
	var fees []uint64
	for i, config := range []members{
		{}, {"priorityFeeLamports": "780643", "computeUnitLimit": 1113647}, {"heapSize": 221184}, {"priorityFeeLamports": "1", "loadedAccountsDataSizeLimit": 9, "heapSize": 32768, "computeUnitLimit": 7},
	} {
		fees = append(fees, []uint64{5000, 785643, 5000, 5001}[i])
		make = append(make, members{"id": i, "make": members{"v1": members{
			"feePayer": solana.Address(wallet), "to": solana.Address(recipient), "lamports": "77", "blockhash": blockhash, "config": config}}})
	}
	var check []members
	for i, made := range accept(t, "messages.mjs", make) {
		in, err := base64.StdEncoding.DecodeString(made["message"].(string))
		if err != nil {
			t.Fatal(err)
		}
		d, err := solana.Decode(in, wallet, devnet, solana.Known{})
		if err != nil {
			t.Fatalf("%s: %v", hex.EncodeToString(in), err)
		}
		if len(d.Charges) != 2 || d.Charges[0].Amount.Uint64() != 77 || d.Charges[1].Amount.Uint64() != fees[i] || d.Opaque {
			t.Errorf("%v: charges %+v, opaque %v", made["id"], d.Charges, d.Opaque)
		}
		signed, _, err := solana.Assemble(d, wallet, solana.Known{}, [64]byte(ed25519.Sign(key, in)))
		if err != nil {
			t.Fatal(err)
		}
		check = append(check, members{"id": made["id"], "signed": base64.StdEncoding.EncodeToString(signed), "signer": solana.Address(wallet)})
	}
	accept(t, "messages.mjs", check)
	for i := range check {
		b, _ := base64.StdEncoding.DecodeString(check[i]["signed"].(string))
		b[len(b)-1] ^= 1
		check[i]["signed"] = base64.StdEncoding.EncodeToString(b)
	}
	refuse(t, "messages.mjs", check)
}
