package solana

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// v1Row is one row of testdata/solana_v1.jsonl.
type v1Row struct {
	ID, MessageHex, FeePayer, RecentBlockhash, SignerSeed, Signature string
	StaticAccounts                                                   []string
	Config                                                           struct {
		PriorityFeeLamports string
		ComputeUnitLimit    uint32
		HeapSize            uint32
	}
	ConfigMask uint32
	Transfers  []struct{ From, To, Lamports string }
}

func TestVersion1Vectors(t *testing.T) {
	for _, v := range rows[v1Row](t, "solana_v1.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			in, wallet := unhex(t, v.MessageHex), key(t, v.FeePayer)
			d, err := Decode(in, wallet, mainnet, Known{})
			if err != nil {
				t.Fatal(err)
			}
			m, err := parse(in)
			if err != nil {
				t.Fatal(err)
			}
			c := m.config
			if c.mask != v.ConfigMask || c.unitLimit != v.Config.ComputeUnitLimit || c.heap != v.Config.HeapSize {
				t.Errorf("config %+v, want %+v", c, v.Config)
			}
			fee := uint256Of(t, v.Config.PriorityFeeLamports) + 5000*uint64(m.signers)
			if got := root(t, d, "fee"); number(got) != fee || d.Charges[len(d.Charges)-1].Amount.Uint64() != fee {
				t.Errorf("fee %d, want %d", number(got), fee)
			}
			got := elements(root(t, d, "transfers"))
			if d.Opaque || len(got) != len(v.Transfers) || root(t, d, "recent_blockhash").Str != v.RecentBlockhash {
				t.Fatalf("%s", d.Summary)
			}
			for i, want := range v.Transfers {
				if text(got[i].List[0]) != want.From || text(got[i].List[1]) != want.To || got[i].List[2].Int.Dec() != want.Lamports {
					t.Errorf("transfer %+v, want %+v", got[i], want)
				}
			}
			for i, k := range elements(root(t, d, "account_keys")) {
				if text(k) != v.StaticAccounts[i] {
					t.Errorf("account %d is %s", i, text(k))
				}
			}
			sig, err := base64.StdEncoding.DecodeString(v.Signature)
			if err != nil {
				t.Fatal(err)
			}
			signed, id, err := Assemble(d, wallet, Known{}, [64]byte(sig))
			if err != nil || !bytes.Equal(signed, append(bytes.Clone(in), sig...)) || id != base58(sig) {
				t.Errorf("signed %x, %s, %v", signed, id, err)
			}
			_, err = Decode(signed, wallet, mainnet, Known{})
			if de := wantCode(t, err, chains.CodeForm); !strings.Contains(de.Message, "a whole transaction") {
				t.Error(err)
			}
		})
	}
	for _, v := range rows[v1Row](t, "solana_v1_malformed.jsonl") {
		if d, err := Inspect(unhex(t, v.MessageHex), mainnet, Known{}); err == nil {
			t.Errorf("%s: taken: %s", v.ID, d.Summary)
		}
	}
}

func uint256Of(t testing.TB, s string) (n uint64) {
	for _, c := range s {
		n = 10*n + uint64(c-'0')
	}
	return n
}

func asV1(change ...func(*draft)) []byte {
	return drafted([]step{transferStep(7)}, append([]func(*draft){func(d *draft) { d.version = v1 }}, change...)...).encode()
}

func mask(bits uint32, values ...uint32) func(*draft) {
	return func(d *draft) {
		d.mask = bits
		for _, v := range values {
			d.values = binary.LittleEndian.AppendUint32(d.values, v)
		}
	}
}

func TestVersion1Refusals(t *testing.T) {
	for name, in := range map[string][]byte{"plain": asV1(), "all": asV1(mask(0b11111, 1, 2, 3, 4, 32<<10)), "largest heap": asV1(mask(0b10000, 256<<10))} {
		if d := read(t, in, payer); d.Opaque {
			t.Errorf("%s: %s", name, d.Summary)
		}
	}
	if d := read(t, asV1(mask(0b11, 1, 2)), payer); number(root(t, d, "fee")) != 2<<32+1+5000 {
		t.Errorf("fee %d", number(root(t, d, "fee")))
	}
	for name, tc := range map[string]struct {
		in   []byte
		code string
	}{
		"half a fee":       {asV1(mask(0b01, 1)), chains.CodeSemantic},
		"the other half":   {asV1(mask(0b10, 1)), chains.CodeSemantic},
		"unknown bit":      {asV1(mask(1<<5, 1)), chains.CodeForm},
		"highest bit":      {asV1(mask(1<<31, 1)), chains.CodeForm},
		"odd heap":         {asV1(mask(0b10000, 32<<10+1)), chains.CodeSemantic},
		"small heap":       {asV1(mask(0b10000, 31<<10)), chains.CodeSemantic},
		"large heap":       {asV1(mask(0b10000, 257<<10)), chains.CodeSemantic},
		"no heap":          {asV1(mask(0b10000, 0)), chains.CodeSemantic},
		"value missing":    {asV1(mask(0b100)), chains.CodeSemantic},
		"value too many":   {asV1(mask(0, 1)), chains.CodeEncoding},
		"no instruction":   {asV1(func(d *draft) { d.steps = nil }), chains.CodeSemantic},
		"no signer":        {asV1(func(d *draft) { d.signers = 0 }), chains.CodeSemantic},
		"read-only payer":  {asV1(func(d *draft) { d.roSigned = 1 }), chains.CodeSemantic},
		"zero lifetime":    {asV1(func(d *draft) { d.blockhash = [32]byte{} }), chains.CodeSemantic},
		"account twice":    {asV1(func(d *draft) { d.keys[1] = payer }), chains.CodeSemantic},
		"payer as program": {asV1(func(d *draft) { d.steps[0].at = 0 }), chains.CodeSemantic},
		"program beyond":   {asV1(func(d *draft) { d.steps[0].at = 4 }), chains.CodeSemantic},
		"account beyond":   {asV1(func(d *draft) { d.steps[0].accounts = []byte{0, 4} }), chains.CodeSemantic},
		"trailing byte":    {append(asV1(), 0), chains.CodeEncoding},
		"too large":        {append(asV1(), make([]byte, 4096)...), chains.CodeForm},
		"65 addresses":     {asV1(manyKeys(65)), chains.CodeSemantic},
		"13 signatures":    {asV1(manyKeys(20), func(d *draft) { d.signers = 13 }), chains.CodeSemantic},
		"65 instructions":  {asV1(func(d *draft) { d.steps = append(d.steps, make([]step, 64)...) }), chains.CodeSemantic},
		"signed already":   {append(asV1(), make([]byte, 64)...), chains.CodeForm},
		"signed twice":     {append(asV1(), make([]byte, 128)...), chains.CodeEncoding},
	} {
		_, err := Inspect(tc.in, mainnet, Known{})
		if de := wantCode(t, err, chains.CodeSemantic, chains.CodeForm, chains.CodeEncoding); de.Code != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
	good := asV1(mask(0b11111, 1, 2, 3, 4, 32<<10))
	for n := range len(good) {
		if _, err := Inspect(good[:n], mainnet, Known{}); err == nil {
			t.Errorf("%d bytes of %d are taken", n, len(good))
		}
	}
	for n, want := range map[int]bool{64: true, 12: true} {
		in := asV1(manyKeys(64), func(d *draft) { d.signers = min(n, 12) })
		if _, err := Inspect(in, mainnet, Known{}); (err == nil) != want {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func manyKeys(n int) func(*draft) {
	return func(d *draft) {
		for i := len(d.keys); i < n; i++ {
			d.keys = append(d.keys, [32]byte{0xee, byte(i)})
		}
	}
}

// In version 1 the Compute Budget program says nothing, however often it is called.
func TestComputeBudgetHasNoMeaningInVersion1(t *testing.T) {
	in := drafted([]step{unitPrice(1 << 60), unitPrice(1 << 61), unitLimit(9), transferStep(7)}, func(d *draft) { d.version = v1 }).encode()
	d := read(t, in, payer)
	if d.Opaque || number(root(t, d, "fee")) != 5000 {
		t.Errorf("opaque %v, fee %d", d.Opaque, number(root(t, d, "fee")))
	}
}

func TestVersion1SignaturesFollowTheMessage(t *testing.T) {
	in := asV1(func(d *draft) { d.keys[1], d.signers = other, 2 })
	for slot, wallet := range [][32]byte{payer, other} {
		d := read(t, in, wallet)
		sig := [64]byte(ed25519.Sign(privateKeys[slot], in))
		signed, _, err := Assemble(d, wallet, Known{}, sig)
		if err != nil {
			t.Fatal(err)
		}
		want := append(bytes.Clone(in), make([]byte, 128)...)
		copy(want[len(in)+64*slot:], sig[:])
		if !bytes.Equal(signed, want) {
			t.Errorf("slot %d: %x", slot, signed)
		}
		for name, b := range map[string][]byte{"cut": signed[:len(signed)-1], "longer": append(bytes.Clone(signed), 0), "one signature": signed[:len(in)+64]} {
			if compare(b, d, wallet, Known{}, slot, sig) == nil {
				t.Errorf("%s: compares equal", name)
			}
		}
	}
}
