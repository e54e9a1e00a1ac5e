package solana

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	bin "github.com/gagliardetto/binary"

	"github.com/sigild/sigild/chains"
)

var swapProgram = [32]byte(repeat(0x77))

// oldIDL is in the form before Anchor 0.30: no discriminators, isMut, types under accounts.
const oldIDL = `{"version":"0.1.0","name":"swap","instructions":[
 {"name":"swapV2","accounts":[{"name":"user","isMut":false,"isSigner":true},{"name":"pool","accounts":[{"name":"vault","isMut":true,"isSigner":false},{"name":"mint","isMut":false,"isSigner":false}]},{"name":"referrer","isMut":false,"isSigner":false,"isOptional":true}],
  "args":[{"name":"inAmount","type":"u64"},{"name":"minOut","type":"i128"},{"name":"legs","type":{"vec":{"defined":"Leg"}}},{"name":"memo","type":"string"},{"name":"to","type":{"option":"publicKey"}},{"name":"seed","type":{"array":["u8",4]}},{"name":"side","type":{"defined":"Side"}},{"name":"exact","type":"bool"}]},
 {"name":"closeAll","accounts":[],"args":[]}],
 "accounts":[{"name":"Leg","type":{"kind":"struct","fields":[{"name":"weight","type":"u8"},{"name":"route","type":"bytes"}]}}],
 "types":[{"name":"Side","type":{"kind":"enum","variants":[{"name":"Buy"},{"name":"Sell","fields":[{"name":"limit","type":"u32"}]},{"name":"Both","fields":["u16",{"defined":"Leg"}]}]}}]}`

// newIDL has discriminators, address and metadata.
func newIDLText(program [32]byte) string {
	return `{"address":"` + Address(program) + `","metadata":{"name":"swap","version":"0.1.0","spec":"0.1.0"},"instructions":[
 {"name":"route","discriminator":[229,23,203,151,122,227,173,42],"docs":["swaps"],"accounts":[{"name":"token_program","address":"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"},{"name":"user","signer":true,"writable":true}],
  "args":[{"name":"in_amount","type":"u64"},{"name":"plan","type":{"vec":{"defined":{"name":"Step"}}}},{"name":"owner","type":"pubkey"},{"name":"price","type":"f64"},{"name":"flags","type":{"vec":"bool"}},{"name":"id","type":{"defined":{"name":"Id"}}}]},
 {"name":"short","discriminator":[1],"accounts":[],"args":[{"name":"n","type":"i8"}]}],
 "types":[{"name":"Step","type":{"kind":"struct","fields":["u8",{"option":{"defined":{"name":"Step"}}}]}},{"name":"Id","type":{"kind":"type","alias":{"array":["u16",2]}}}]}`
}

func mustIDL(t testing.TB, text string) *IDL {
	t.Helper()
	d, err := NewIDL(swapProgram, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// parsedBy reads the first instruction of a message that calls the swap program.
func parsedBy(t testing.TB, d *IDL, accounts, data []byte) (chains.Value, *chains.Decoded) {
	t.Helper()
	in := build([]step{{program: swapProgram, accounts: accounts, data: data}})
	out, err := Decode(in, payer, mainnet, Known{IDLs: map[[32]byte]*IDL{swapProgram: d}})
	if err != nil {
		t.Fatal(err)
	}
	if !out.Opaque {
		t.Error("an IDL says nothing of balances, but the message is not opaque")
	}
	return field(t, typeInstruction, elements(root(t, out, "instructions"))[0], "parsed_instruction_data"), out
}

// leg and the rest are what another Borsh writer writes.
type leg struct {
	Weight uint8
	Route  []byte
}

func swapData(t testing.TB, change func([]byte) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	e := bin.NewBorshEncoder(&b)
	for _, v := range []any{uint64(995_500_000), bin.Int128{Lo: ^uint64(0), Hi: ^uint64(0)}, []leg{{60, []byte{1, 2}}, {40, nil}}, "hi"} {
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteByte(1)
	b.Write(to[:])
	b.Write([]byte{9, 8, 7, 6})                 // seed
	b.Write([]byte{2, 7, 0, 5, 1, 0, 0, 0, 99}) // Both(7, Leg{5, [99]})
	b.WriteByte(1)
	out := b.Bytes()
	if change != nil {
		out = change(out)
	}
	return append(bin.SighashTypeID(bin.SIGHASH_GLOBAL_NAMESPACE, "swap_v2").Bytes(), out...)
}

func TestOlderIDL(t *testing.T) {
	d := mustIDL(t, oldIDL)
	parsed, out := parsedBy(t, d, []byte{0, 1, 2}, swapData(t, nil))
	if parsed.Kind == chains.KindAbsent {
		t.Fatal("not parsed: " + out.Summary)
	}
	if name := field(t, typeParsed, parsed, "instruction_name").Str; name != "swapV2" || d.Name() != "swap" {
		t.Errorf("name %s of %s", name, d.Name())
	}
	accounts := field(t, typeParsed, parsed, "named_accounts").Map
	if text(*accounts.Get("user")) != Address(payer) || text(*accounts.Get("pool.vault")) != Address(to) || accounts.Len() != 3 {
		t.Errorf("accounts %+v", accounts)
	}
	args := field(t, typeParsed, parsed, "program_call_args").Map
	if args.Get("inAmount").Int.Uint64() != 995_500_000 {
		t.Errorf("inAmount %v", args.Get("inAmount"))
	}
	if v := args.Get("minOut"); !v.Neg || v.Int.Uint64() != 1 {
		t.Errorf("minOut %v", v)
	}
	legs := args.Get("legs")
	if legs.Len() != 2 || legs.List[0].Map.Get("weight").Int.Uint64() != 60 || legs.List[0].Map.Get("route").Str != "0x0102" {
		t.Errorf("legs %+v", legs)
	}
	if args.Get("memo").Str != "hi" || text(*args.Get("to")) != Address(to) || args.Get("seed").Len() != 4 || args.Get("exact").Int.IsZero() {
		t.Errorf("args %+v", args)
	}
	side := args.Get("side").Map.Get("Both")
	if side.Len() != 2 || side.List[0].Int.Uint64() != 7 || side.List[1].Map.Get("weight").Int.Uint64() != 5 {
		t.Errorf("side %+v", side)
	}
	if want := "by its IDL swapV2(inAmount 995500000, minOut -1, legs ..., memo \"hi\", to " + Address(to); !strings.Contains(out.Summary, want) {
		t.Errorf("summary %s", out.Summary)
	}
}

// What is not just what a writer writes is not parsed, and stays opaque.
func TestIDLReadsNothingElse(t *testing.T) {
	d := mustIDL(t, oldIDL)
	for name, tc := range map[string]struct {
		accounts []byte
		data     []byte
	}{
		"trailing byte":     {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { return append(b, 0) })},
		"cut":               {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { return b[:len(b)-1] })},
		"bool of 2":         {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { b[len(b)-1] = 2; return b })},
		"option of 2":       {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { b[bytes.Index(b, to[:])-1] = 2; return b })},
		"variant 3":         {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { b[len(b)-10] = 3; return b })},
		"no UTF-8":          {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { return bytes.Replace(b, []byte("hi"), []byte{0xff, 0xfe}, 1) })},
		"other instruction": {[]byte{0, 1, 2}, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		"no data":           {[]byte{0, 1, 2}, nil},
		"length of 2^32-1":  {[]byte{0, 1, 2}, swapData(t, func(b []byte) []byte { binary.LittleEndian.PutUint32(b[24:], 1<<32-1); return b })},
	} {
		if parsed, out := parsedBy(t, d, tc.accounts, tc.data); parsed.Kind != chains.KindAbsent || !strings.Contains(out.Summary, "not understood") {
			t.Errorf("%s: %s", name, out.Summary)
		}
	}
}

func TestNewerIDL(t *testing.T) {
	d := mustIDL(t, newIDLText(swapProgram))
	data := []byte{229, 23, 203, 151, 122, 227, 173, 42}
	data = binary.LittleEndian.AppendUint64(data, 7)
	data = append(data, 1, 0, 0, 0, 5, 1, 6, 0)             // plan: [(5, (6, none))]
	data = append(data, payer[:]...)                        // owner
	data = append(data, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f)       // 1.5
	data = append(data, 2, 0, 0, 0, 1, 0, 0x34, 0x12, 2, 0) // flags, id
	parsed, out := parsedBy(t, d, []byte{1, 0}, data)
	if parsed.Kind == chains.KindAbsent {
		t.Fatal(out.Summary)
	}
	args := field(t, typeParsed, parsed, "program_call_args").Map
	step := args.Get("plan").List[0].List
	if step[0].Int.Uint64() != 5 || step[1].List[0].Int.Uint64() != 6 || step[1].List[1].Kind != chains.KindAbsent {
		t.Errorf("plan %+v", step)
	}
	if args.Get("price").Str != "1.5" || args.Get("id").List[0].Int.Uint64() != 0x1234 || args.Get("flags").List[0].Int.IsZero() {
		t.Errorf("args %+v", args)
	}
	if got := field(t, typeParsed, parsed, "discriminator").Str; got != "e517cb977ae3ad2a" {
		t.Errorf("discriminator %s", got)
	}
	parsed, _ = parsedBy(t, d, []byte{1}, data) // one account missing: it has no name then
	if accounts := field(t, typeParsed, parsed, "named_accounts").Map; accounts.Len() != 1 || accounts.Get("user") != nil {
		t.Errorf("accounts %+v", accounts)
	}
	parsed, _ = parsedBy(t, d, nil, []byte{1, 0x80})
	if n := field(t, typeParsed, parsed, "program_call_args").Map.Get("n"); !n.Neg || n.Int.Uint64() != 128 {
		t.Errorf("n %+v", n)
	}
}

func TestIDLRefusals(t *testing.T) {
	one := func(args, types string) string {
		return `{"name":"x","instructions":[{"name":"go","accounts":[],"args":[` + args + `]}],"types":[` + types + `]}`
	}
	arg := func(typ string) string { return `{"name":"a","type":` + typ + `}` }
	for name, text := range map[string]string{
		"nothing": ``, "null": `null`, "list": `[]`, "no JSON": `{"instructions":`, "trailing": oldIDL + `{}`,
		"not UTF-8":            strings.Replace(oldIDL, "swap", "sw\xff", 1),
		"no instructions":      `{"name":"x","instructions":[]}`,
		"member twice":         `{"name":"x","name":"y","instructions":[{"name":"go","accounts":[],"args":[]}]}`,
		"member in two cases":  `{"name":"x","Name":"y","instructions":[{"name":"go","accounts":[],"args":[]}]}`,
		"another program":      newIDLText(to),
		"too deep":             `{"name":"x","docs":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"instructions":[{"name":"go","accounts":[],"args":[]}]}`,
		"too large":            `{"name":"` + strings.Repeat("x", MaxIDL) + `"}`,
		"bad name":             `{"name":"x y","instructions":[{"name":"go","accounts":[],"args":[]}]}`,
		"bad instruction name": `{"name":"x","instructions":[{"name":"g\u0000","accounts":[],"args":[]}]}`,
		"two of a name":        `{"name":"x","instructions":[{"name":"go","discriminator":[1],"accounts":[],"args":[]},{"name":"go","discriminator":[2],"accounts":[],"args":[]}]}`,
		"prefix":               `{"name":"x","instructions":[{"name":"go","discriminator":[1],"accounts":[],"args":[]},{"name":"run","discriminator":[1,2],"accounts":[],"args":[]}]}`,
		"empty discriminator":  `{"name":"x","instructions":[{"name":"go","discriminator":[],"accounts":[],"args":[]}]}`,
		"discriminator of 256": `{"name":"x","instructions":[{"name":"go","discriminator":[256],"accounts":[],"args":[]}]}`,
		"unknown type":         one(arg(`"u7"`), ""),
		"no type":              one(`{"name":"a"}`, ""),
		"undefined":            one(arg(`{"defined":"T"}`), ""),
		"generic":              one(arg(`{"defined":{"name":"T","generics":[{"kind":"type","type":"u8"}]}}`), `{"name":"T","type":{"kind":"struct"}}`),
		"generic type":         one(arg(`{"defined":{"name":"T"}}`), `{"name":"T","generics":[{"kind":"type","name":"U"}],"type":{"kind":"struct"}}`),
		"bytemuck":             one(arg(`{"defined":{"name":"T"}}`), `{"name":"T","serialization":"bytemuck","type":{"kind":"struct"}}`),
		"unknown kind":         one(arg(`{"defined":"T"}`), `{"name":"T","type":{"kind":"union"}}`),
		"no variants":          one(arg(`{"defined":"T"}`), `{"name":"T","type":{"kind":"enum","variants":[]}}`),
		"type twice":           one(arg(`"u8"`), `{"name":"T","type":{"kind":"struct"}},{"name":"T","type":{"kind":"struct"}}`),
		"argument twice":       one(arg(`"u8"`)+","+arg(`"u8"`), ""),
		"array of many":        one(arg(`{"array":["u8",65536]}`), ""),
		"array without length": one(arg(`{"array":["u8"]}`), ""),
		"hash map":             one(arg(`{"hashMap":["u8","u8"]}`), ""),
		"nested type":          one(arg(strings.Repeat(`{"vec":`, 60)+`"u8"`+strings.Repeat("}", 60)), ""),
		"accounts twice":       `{"name":"x","instructions":[{"name":"go","accounts":[{"name":"a"},{"name":"a"}],"args":[]}]}`,
	} {
		if d, err := NewIDL(swapProgram, []byte(text)); err == nil {
			t.Errorf("%s: taken as %+v", name, d)
		}
	}
	for program := range programs {
		if _, err := NewIDL(program, []byte(oldIDL)); err == nil || !strings.Contains(err.Error(), "built in") {
			t.Errorf("an IDL shadows %s: %v", Address(program), err)
		}
	}
}

// A type that contains itself ends where the data does.
func TestRecursiveIDLTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		types string
		data  []byte
		ok    bool
	}{
		"list":     {`{"kind":"struct","fields":[{"name":"next","type":{"option":{"defined":"T"}}}]}`, []byte{1, 1, 1, 0}, true},
		"endless":  {`{"kind":"struct","fields":[{"name":"next","type":{"defined":"T"}}]}`, []byte{1}, false},
		"alias":    {`{"kind":"type","alias":{"defined":"T"}}`, []byte{1}, false},
		"deep":     {`{"kind":"struct","fields":[{"name":"next","type":{"option":{"defined":"T"}}}]}`, bytes.Repeat([]byte{1}, 200), false},
		"nothings": {`{"kind":"struct","fields":[{"name":"next","type":{"array":[{"defined":"T"},65535]}}]}`, []byte{1}, false},
	} {
		d := mustIDL(t, `{"name":"x","instructions":[{"name":"go","discriminator":[9],"accounts":[],"args":[{"name":"a","type":{"defined":"T"}}]}],"types":[{"name":"T","type":`+tc.types+`}]}`)
		if parsed, out := parsedBy(t, d, nil, append([]byte{9}, tc.data...)); (parsed.Kind != chains.KindAbsent) != tc.ok {
			t.Errorf("%s: parsed %v: %s", name, !tc.ok, out.Summary)
		}
	}
}

// Reading by an IDL keeps the bound: 64 bytes for each of the message, and 4 kB.
func TestIDLAllocationIsBounded(t *testing.T) {
	for _, typ := range []string{`{"vec":"bool"}`, `{"vec":{"vec":"bool"}}`, `{"vec":{"option":"u8"}}`, `{"vec":{"defined":"E"}}`, `{"vec":"string"}`, `"bytes"`, `"string"`, `{"vec":"u8"}`, `{"array":[{"defined":"E"},1000]}`} {
		d := mustIDL(t, `{"name":"x","instructions":[{"name":"go","discriminator":[9],"accounts":[],"args":[{"name":"a","type":`+typ+`}]}],"types":[{"name":"E","type":{"kind":"enum","variants":[{"name":"A"},{"name":"B"}]}}]}`)
		for n := range 3 {
			data := []byte{9, 0xe8, 3, 0, 0}
			if strings.HasPrefix(typ, `{"array`) {
				data = data[:1]
			}
			data = append(data, bytes.Repeat([]byte{[]byte{0, 1, 'a'}[n]}, 1000)...)
			in := build([]step{{program: swapProgram, data: data}})
			known := Known{IDLs: map[[32]byte]*IDL{swapProgram: d}}
			if got, most := allocated(func() { _, _ = Inspect(in, mainnet, known) }), uint64(64*len(in)+4096); got > most {
				t.Errorf("%s: %d bytes allocated for %d of input", typ, got, len(in))
			}
		}
	}
}

func TestSnakeCase(t *testing.T) {
	for name, want := range map[string]string{"swap": "swap", "swapV2": "swap_v2", "initializeMint2": "initialize_mint2", "closeAll": "close_all", "already_snake": "already_snake", "setURI": "set_uri", "URIOf": "uri_of", "swap2Tokens": "swap2_tokens"} {
		if got := snakeCase(name); got != want {
			t.Errorf("snakeCase(%s) = %s, want %s", name, got, want)
		}
	}
}

func FuzzIDL(f *testing.F) {
	f.Add([]byte(oldIDL), swapData(f, nil))
	f.Add([]byte(newIDLText(swapProgram)), []byte{1, 0x80})
	f.Add([]byte(`{"instructions":[{"name":"a","args":[{"name":"x","type":{"vec":{"defined":"T"}}}]}],"types":[{"name":"T","type":{"kind":"struct"}}]}`), []byte{})
	f.Fuzz(func(t *testing.T, text, data []byte) { checkIDL(t, text, data) })
}

// checkIDL holds for all bytes: a refusal, or an IDL that reads data to a view of
// the right layout, or to none.
func checkIDL(t *testing.T, text, data []byte) bool {
	d, err := NewIDL(swapProgram, text)
	if err != nil {
		return false
	}
	for _, in := range d.instructions {
		full := append(bytes.Clone(in.discriminator), data...)
		msg := build([]step{{program: swapProgram, accounts: make([]byte, 20), data: full[:min(len(full), 900)]}})
		out, err := Decode(msg, payer, mainnet, Known{IDLs: map[[32]byte]*IDL{swapProgram: d}})
		if err != nil {
			t.Fatalf("%q %x: %v", text, data, err)
		}
		if err := TxType.Conform(out.View[Root]); err != nil {
			t.Fatalf("%q %x: %v", text, data, err)
		}
	}
	return true
}

// TestIDLMutations changes both IDL and data in seeded ways.
func TestIDLMutations(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	taken := 0
	for _, text := range []string{oldIDL, newIDLText(swapProgram)} {
		var pretty bytes.Buffer
		if err := json.Compact(&pretty, []byte(text)); err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			idl := pretty.Bytes()
			if rng.IntN(2) == 0 {
				idl = mutate(rng, idl)
			}
			if checkIDL(t, idl, mutate(rng, swapData(t, nil)[8:])) {
				taken++
			}
		}
	}
	if taken < 1000 {
		t.Errorf("%d IDLs were taken", taken)
	}
	t.Logf("%d IDLs were taken", taken)
}

func ExampleIDL() {
	d, err := NewIDL(swapProgram, []byte(`{"name":"vault","instructions":[{"name":"deposit","accounts":[],"args":[{"name":"amount","type":"u64"}]}]}`))
	fmt.Println(d.Name(), err)
	// Output: vault <nil>
}
