package solana

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

type offchainRow struct{ ID, MessageHex, Text, Signer, Signature, ApplicationDomain, PayloadHex string }

func TestOffchainVectors(t *testing.T) {
	for _, v := range rows[offchainRow](t, "solana_offchain.jsonl") {
		in, wallet := unhex(t, v.MessageHex), key(t, v.Signer)
		d, err := DecodeOffchain(in, wallet, mainnet)
		if err != nil {
			t.Errorf("%s: %v", v.ID, err)
			continue
		}
		for name, value := range d.View {
			if err := Roots[chains.KindSolanaOffchain][name].Conform(value); err != nil {
				t.Errorf("%s: %v", v.ID, err)
			}
		}
		sig, err := base64.StdEncoding.DecodeString(v.Signature)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckOffchain(d, wallet, [64]byte(sig)); err != nil || !bytes.Equal(d.Sign.Message, in) {
			t.Errorf("%s: %v", v.ID, err)
		}
		if _, err := DecodeOffchain(in, other, mainnet); err == nil {
			t.Errorf("%s: signed by a stranger", v.ID)
		} else {
			wantCode(t, err, chains.CodeSigner)
		}
		if view, ok := d.View[OffchainRoot]; ok && view.List[4].Str != v.Text {
			t.Errorf("%s: text %q", v.ID, view.List[4].Str)
		}
	}
}

// Whatever is a transaction is refused as a message, with anything behind it, and
// with signatures before it.
func TestTransactionsAreNoMessages(t *testing.T) {
	var all [][]byte
	for _, v := range rows[offchainRow](t, "solana_signmessage_malicious.jsonl") {
		all = append(all, unhex(t, v.PayloadHex))
	}
	for _, file := range []string{"solana.jsonl", "solana_v1.jsonl", "solana_traps.jsonl"} {
		for _, v := range rows[offchainRow](t, file) {
			in := unhex(t, v.MessageHex)
			all = append(all, in, append(bytes.Clone(in), " wants you to sign in"...), append(append([]byte{1}, make([]byte, 64)...), in...))
		}
	}
	for _, in := range all {
		_, err := InspectOffchain(in, mainnet)
		if de := wantCode(t, err, chains.CodeForm); !strings.Contains(de.Message, "transaction") {
			t.Errorf("%x: %v", in, err)
		}
	}
}

func envelope(version byte, parts ...[]byte) []byte {
	out := append([]byte(signingDomain), version)
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestOffchainRefusals(t *testing.T) {
	app, text := repeat(0x99), []byte("hello")
	old := func(format, count byte, signers []byte, length int, text []byte) []byte {
		return envelope(0, app, []byte{format, count}, signers, []byte{byte(length), byte(length >> 8)}, text)
	}
	low, high := payer, other
	if bytes.Compare(low[:], high[:]) > 0 {
		low, high = high, low
	}
	both := append(bytes.Clone(low[:]), high[:]...)
	for name, in := range map[string][]byte{
		"version 0": old(0, 1, payer[:], 5, text), "UTF-8": old(1, 1, payer[:], 2, []byte("é")), "long": old(2, 1, payer[:], 3000, bytes.Repeat([]byte("a"), 3000)),
		"version 1": envelope(1, []byte{1}, payer[:], text), "two signers": envelope(1, []byte{2}, both, text),
	} {
		if _, err := DecodeOffchain(in, payer, mainnet); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tc := range map[string]struct {
		in   []byte
		code string
	}{
		"empty":             {nil, chains.CodeForm},
		"text alone":        {text, chains.CodeForm},
		"other domain":      {[]byte("\xffsolana onchain\x00hello"), chains.CodeForm},
		"domain alone":      {[]byte(signingDomain), chains.CodeEncoding},
		"version 2":         {envelope(2, []byte{1}, payer[:], text), chains.CodeForm},
		"format 3":          {old(3, 1, payer[:], 5, text), chains.CodeSemantic},
		"no signer":         {old(0, 0, nil, 5, text), chains.CodeSemantic},
		"no signer in 1":    {envelope(1, []byte{0}, text), chains.CodeSemantic},
		"signer cut":        {envelope(1, []byte{1}, payer[:31]), chains.CodeEncoding},
		"no text":           {old(0, 1, payer[:], 0, nil), chains.CodeSemantic},
		"no text in 1":      {envelope(1, []byte{1}, payer[:]), chains.CodeSemantic},
		"length too small":  {old(0, 1, payer[:], 4, text), chains.CodeEncoding},
		"length too large":  {old(0, 1, payer[:], 6, text), chains.CodeEncoding},
		"no length":         {envelope(0, app, []byte{0, 1}, payer[:], []byte{5}), chains.CodeEncoding},
		"newline in ASCII":  {old(0, 1, payer[:], 2, []byte("a\n")), chains.CodeSemantic},
		"UTF-8 in ASCII":    {old(0, 1, payer[:], 2, []byte("é")), chains.CodeSemantic},
		"no UTF-8":          {old(1, 1, payer[:], 1, []byte{0xff}), chains.CodeEncoding},
		"no UTF-8 in 1":     {envelope(1, []byte{1}, payer[:], []byte{0xc0, 0x80}), chains.CodeEncoding},
		"long in format 0":  {old(0, 1, payer[:], 1200, bytes.Repeat([]byte("a"), 1200)), chains.CodeSemantic},
		"long in format 1":  {old(1, 1, payer[:], 1200, bytes.Repeat([]byte("a"), 1200)), chains.CodeSemantic},
		"signer twice":      {old(0, 2, append(bytes.Clone(payer[:]), payer[:]...), 5, text), chains.CodeSemantic},
		"signers in 1 down": {envelope(1, []byte{2}, append(bytes.Clone(high[:]), low[:]...), text), chains.CodeSemantic},
		"signer twice in 1": {envelope(1, []byte{2}, append(bytes.Clone(payer[:]), payer[:]...), text), chains.CodeSemantic},
		"not ours":          {old(0, 1, to[:], 5, text), chains.CodeSigner},
		"too long in 1":     {envelope(1, []byte{1}, payer[:], make([]byte, 65536)), chains.CodeSemantic},
		"far too long":      {make([]byte, MaxOffchain+1), chains.CodeForm},
	} {
		_, err := DecodeOffchain(tc.in, payer, mainnet)
		if de := wantCode(t, err, chains.CodeSemantic, chains.CodeForm, chains.CodeEncoding, chains.CodeSigner); de.Code != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
	if _, err := DecodeOffchain(old(0, 1, payer[:], 5, text), payer, "eip155:1"); err == nil {
		t.Error("a chain of another family")
	}
}

func TestSignIn(t *testing.T) {
	p := Address(payer)
	const fields = "URI: https://a.example/x?y\nVersion: 1\nChain ID: mainnet\nNonce: a7817c1cc958\nIssued At: 2026-01-01T00:00:04Z\nExpiration Time: 2026-01-02T00:00:04.123Z\nNot Before: 2026-01-01T00:00:04+02:00\nRequest ID: r1\nResources:\n- https://a\n- ipfs://b"
	head := "a.example:8080 wants you to sign in with your Solana account:\n" + p
	for name, text := range map[string]string{
		"head alone": head, "statement": head + "\n\nClick Sign.", "all": head + "\n\nClick Sign.\n\n" + fields, "no statement": head + "\n\n" + fields,
		"some fields": head + "\n\nURI: x\nNonce: 12345678", "last field": head + "\n\nRequest ID: r1", "resources alone": head + "\n\nResources:\n- https://a",
	} {
		d, err := DecodeOffchain([]byte(text), payer, mainnet)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := d.View[SIWSRoot]
		if err := SIWSType.Conform(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "all" {
			for field, want := range map[string]string{"domain": "a.example:8080", "statement": "Click Sign.", "uri": "https://a.example/x?y", "chain_id": "mainnet", "nonce": "a7817c1cc958",
				"issued_at": "2026-01-01T00:00:04Z", "expiration_time": "2026-01-02T00:00:04.123Z", "not_before": "2026-01-01T00:00:04+02:00", "request_id": "r1"} {
				if got := siws(t, v, field); got.Str != want {
					t.Errorf("%s is %q, want %q", field, got.Str, want)
				}
			}
			if r := siws(t, v, "resources"); r.Len() != 2 || r.List[1].Str != "ipfs://b" {
				t.Errorf("resources %+v", r)
			}
			if want := `sign in to "a.example:8080" with account ` + p + `, statement "Click Sign.", uri "https://a.example/x?y", nonce "a7817c1cc958", expiration time "2026-01-02T00:00:04.123Z"`; d.Summary != want {
				t.Errorf("summary %s", d.Summary)
			}
		}
		if name == "head alone" && (siws(t, v, "statement").Kind != chains.KindAbsent || siws(t, v, "uri").Kind != chains.KindAbsent) {
			t.Errorf("view %+v", v)
		}
	}
	for name, text := range map[string]string{
		"no domain": head[14:], "space in the domain": "a " + head, "ethereum": strings.Replace(head, "Solana", "Ethereum", 1), "no account": strings.TrimSuffix(head, p),
		"not base58": head + "0", "one line": strings.TrimSuffix(head, "\n"+p), "no empty line": head + "\nClick", "empty lines": head + "\n\n\nClick", "ends in a line": head + "\n",
		"two statements": head + "\n\none\ntwo", "fields glued": head + "\n\nClick\nURI: x", "order": head + "\n\nNonce: 12345678\nURI: x", "field twice": head + "\n\nURI: x\nURI: y",
		"version 2": head + "\n\nVersion: 2", "no time": head + "\n\nIssued At: yesterday", "empty field": head + "\n\nURI: ", "space in a field": head + "\n\nURI: a b",
		"unknown field": head + "\n\nURI: x\nColour: red", "no resources": head + "\n\nResources:", "bad resource": head + "\n\nResources:\nhttps://a", "after resources": head + "\n\nResources:\n- a\nURI: x",
		"carriage return": strings.ReplaceAll(head, "\n", "\r\n"), "control": head + "\n\n\x07", "no UTF-8": head + "\n\n\xff", "right to left": head + "\n\n\x9b",
		"many resources": head + "\n\nResources:" + strings.Repeat("\n- a", 65), "trailing statement": head + "\n\nURI: x\n\nmore",
	} {
		if _, err := DecodeOffchain([]byte(text), payer, mainnet); err == nil {
			t.Errorf("%s: taken", name)
		} else {
			wantCode(t, err, chains.CodeForm)
		}
	}
	_, err := DecodeOffchain([]byte(strings.Replace(head, p, Address(other), 1)), payer, mainnet)
	wantCode(t, err, chains.CodeSigner)
}

func siws(t testing.TB, v chains.Value, name string) chains.Value {
	return field(t, SIWSType, v, name)
}

func TestCheckOffchain(t *testing.T) {
	in := envelope(1, []byte{1}, payer[:], []byte("hello"))
	sig := [64]byte(ed25519.Sign(privateKeys[0], in))
	fresh := func() *chains.Decoded {
		d, err := DecodeOffchain(in, payer, mainnet)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if err := CheckOffchain(fresh(), payer, sig); err != nil {
		t.Fatal(err)
	}
	bad := sig
	bad[3] ^= 1
	if err := CheckOffchain(fresh(), payer, bad); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
	d := fresh()
	d.Raw = bytes.Replace(d.Raw, []byte("hello"), []byte("jello"), 1)
	if err := CheckOffchain(d, payer, sig); !errors.Is(err, ErrMismatch) {
		t.Errorf("got %v", err)
	}
	d = fresh()
	d.View[OffchainRoot].List[4].Str = "jello"
	if err := CheckOffchain(d, payer, sig); !errors.Is(err, ErrMismatch) {
		t.Errorf("got %v", err)
	}
	if err := CheckOffchain(fresh(), other, sig); err == nil {
		t.Error("a stranger's")
	}
}

func TestOffchainAllocationIsBounded(t *testing.T) {
	for name, in := range map[string][]byte{
		"lines":     []byte("a wants you to sign in with your Solana account:\n" + Address(payer) + strings.Repeat("\n", 60000)),
		"text":      envelope(1, []byte{1}, payer[:], bytes.Repeat([]byte("\u2028"), 20000)),
		"signers":   envelope(1, []byte{255}, bytes.Repeat([]byte{1}, 255*32), []byte("x")),
		"resources": []byte("a wants you to sign in with your Solana account:\n" + Address(payer) + "\n\nResources:" + strings.Repeat("\n- a", 64)),
	} {
		if got, most := allocated(func() { _, _ = InspectOffchain(in, mainnet) }), uint64(64*len(in)+4096); got > most {
			t.Errorf("%s: %d bytes allocated for %d of input", name, got, len(in))
		}
	}
}

func FuzzOffchain(f *testing.F) {
	for _, v := range rows[offchainRow](f, "solana_offchain.jsonl") {
		f.Add(unhex(f, v.MessageHex))
	}
	for _, v := range rows[offchainRow](f, "solana_signmessage_malicious.jsonl") {
		f.Add(unhex(f, v.PayloadHex))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := InspectOffchain(in, mainnet)
		if err != nil {
			var de *chains.DecodeError
			if !errors.As(err, &de) {
				t.Fatal(err)
			}
			return
		}
		if _, err := parse(in); err == nil || !bytes.Equal(d.Sign.Message, in) || len(d.View) != 1 {
			t.Fatalf("%x: a transaction, or another message", in)
		}
		for name, value := range d.View {
			if err := Roots[chains.KindSolanaOffchain][name].Conform(value); err != nil {
				t.Fatalf("%x: %v", in, err)
			}
		}
		for i := range len(d.Summary) {
			if c := d.Summary[i]; c < ' ' || c > '~' {
				t.Fatalf("%x: summary %q", in, d.Summary)
			}
		}
	})
}
