package oracles

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

const devnet = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"

func solanaKey(c byte) (ed25519.PrivateKey, [32]byte) {
	k := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(c), 32)))
	return k, [32]byte(k.Public().(ed25519.PublicKey))
}

// TestSolanaLibrariesAndWeAgree: what kit and web3.js make we decode to the
// transfers asked for, what we sign both accept.
func TestSolanaLibrariesAndWeAgree(t *testing.T) {
	first, payer := solanaKey('1')
	second, other := solanaKey('2')
	_, recipient := solanaKey('3')
	blockhash := solana.Address([32]byte([]byte(strings.Repeat("B", 32))))
	send := func(from [32]byte, lamports string) members {
		return members{"from": solana.Address(from), "to": solana.Address(recipient), "lamports": lamports}
	}
	specs := []members{
		{"transfers": []members{send(payer, "500000000")}},
		{"transfers": []members{send(payer, "1"), send(payer, "18446744073709551615")}, "unitLimit": 1000, "unitPrice": "2500000", "memo": "invoice 7"},
		{"transfers": []members{send(other, "7")}, "memo": "a second signer"},
		{"transfers": []members{send(payer, "9")}, "nonce": solana.Address([32]byte([]byte(strings.Repeat("N", 32))))},
	}
	var requests []members
	for i, s := range specs {
		for _, by := range []string{"kit", "web3"} {
			for _, version := range []any{"legacy", 0} {
				spec := members{"by": by, "version": version, "feePayer": solana.Address(payer), "blockhash": blockhash}
				for k, v := range s {
					spec[k] = v
				}
				requests = append(requests, members{"id": fmt.Sprintf("%d %s %v", i, by, version), "make": spec})
			}
		}
	}
	var check, tampered []members
	for i, made := range accept(t, "solana.mjs", requests) {
		spec := requests[i]["make"].(members)
		in, err := base64.StdEncoding.DecodeString(made["message"].(string))
		if err != nil {
			t.Fatal(err)
		}
		key, wallet := first, payer
		if transfers := spec["transfers"].([]members); transfers[0]["from"] == solana.Address(other) {
			key, wallet = second, other
		}
		d, err := solana.Decode(in, wallet, devnet, solana.Known{})
		if err != nil {
			t.Fatalf("%v: %v", made["id"], err)
		}
		checkView(t, d, spec)
		signed, txid, err := solana.Assemble(d, wallet, solana.Known{}, [64]byte(ed25519.Sign(key, d.Sign.Message)))
		if err != nil {
			t.Fatalf("%v: %v", made["id"], err)
		}
		row := members{"id": made["id"], "signed": base64.StdEncoding.EncodeToString(signed), "signers": []string{solana.Address(wallet)},
			"feePayer": solana.Address(payer), "blockhash": blockhash, "transfers": spec["transfers"], "txid": txid}
		check = append(check, row)
		for _, at := range []int{1, 40, len(signed) - 30} { // the signature, and the message
			b := append([]byte(nil), signed...)
			b[at] ^= 1
			bad := members{}
			for k, v := range row {
				bad[k] = v
			}
			bad["id"], bad["signed"] = fmt.Sprintf("%v byte %d", made["id"], at), base64.StdEncoding.EncodeToString(b)
			tampered = append(tampered, bad)
		}
	}
	accept(t, "solana.mjs", check)
	refuse(t, "solana.mjs", tampered)
}

// checkView holds our reading against what the library was asked to make.
func checkView(t *testing.T, d *chains.Decoded, spec members) {
	t.Helper()
	get := func(name string) chains.Value { return d.View[solana.Root].List[solana.TxType.Index(name)] }
	if d.Opaque {
		t.Fatalf("opaque: %s", d.Summary)
	}
	var got []string
	transfers := get("transfers")
	for i := range transfers.Len() {
		v := transfers.At(i, new(chains.Value))
		got = append(got, fmt.Sprint(solana.Address([32]byte(v.List[0].Raw)), " ", solana.Address([32]byte(v.List[1].Raw)), " ", v.List[2].Int.Dec()))
	}
	var want []string
	for _, m := range spec["transfers"].([]members) {
		want = append(want, fmt.Sprint(m["from"], " ", m["to"], " ", m["lamports"]))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("transfers %q, want %q", got, want)
	}
	if got := get("recent_blockhash").Str; got != spec["blockhash"] {
		t.Errorf("blockhash %s, want %s", got, spec["blockhash"])
	}
	if got := get("durable_nonce").Kind != chains.KindAbsent; got != (spec["nonce"] != nil) {
		t.Errorf("durable nonce: %v", got)
	}
}
