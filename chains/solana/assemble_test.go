package solana

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	sdk "github.com/gagliardetto/solana-go"

	"github.com/sigild/sigild/chains"
)

func TestAssembleFillsOnlyOwnSlot(t *testing.T) {
	in := build([]step{transferStep(7)}, func(m *draft) {
		m.keys[1] = other
		m.signers = 2
	})
	for slot, wallet := range [][32]byte{payer, other} {
		d := read(t, in, wallet)
		sig := [64]byte(ed25519.Sign(privateKeys[slot], d.Sign.Message))
		signed, txid, err := Assemble(d, wallet, Known{}, sig)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := sdk.TransactionFromBytes(signed)
		if err != nil {
			t.Fatal(err)
		}
		if len(tx.Signatures) != 2 || tx.Signatures[slot] != sdk.Signature(sig) || tx.Signatures[1-slot] != (sdk.Signature{}) {
			t.Errorf("slot %d: signatures %v", slot, tx.Signatures)
		}
		if want := sdk.Signature(sig).String(); slot == 0 && txid != want || slot == 1 && txid != "" {
			t.Errorf("slot %d: transaction id %q", slot, txid)
		}
		if !bytes.HasSuffix(signed, in) {
			t.Errorf("slot %d: the message changed", slot)
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	in := build([]step{transferStep(7)})
	d := read(t, in, payer)
	sig := [64]byte(ed25519.Sign(privateKeys[0], d.Sign.Message))
	if _, _, err := Assemble(d, payer, Known{}, sig); err != nil {
		t.Fatal(err)
	}
	bad := sig
	bad[10] ^= 1
	for name, s := range map[string][64]byte{
		"one bit": bad, "zero": {},
		"another key":     [64]byte(ed25519.Sign(privateKeys[1], d.Sign.Message)),
		"another message": [64]byte(ed25519.Sign(privateKeys[0], d.Sign.Message[1:])),
	} {
		if signed, _, err := Assemble(d, payer, Known{}, s); !errors.Is(err, ErrSignature) || signed != nil {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
	for name, change := range map[string]func(*chains.Decoded){
		"view": func(d *chains.Decoded) { d.View[Root].List[4].Str = "x" },
		"amount": func(d *chains.Decoded) {
			all := elements(d.View[Root].List[3])
			all[0].List[2].Int.SetUint64(1)
			d.View[Root].List[3] = chains.ListValue(all...)
		},
		"byte":    func(d *chains.Decoded) { d.Raw[len(d.Raw)-3] ^= 1 },
		"message": func(d *chains.Decoded) { d.Sign.Message = append(bytes.Clone(d.Sign.Message), 0) },
		"raw":     func(d *chains.Decoded) { d.Raw = append(bytes.Clone(d.Raw[:len(d.Raw)-2]), 1, 0) },
	} {
		d := read(t, in, payer)
		change(d)
		if signed, _, err := Assemble(d, payer, Known{}, sig); !errors.Is(err, ErrMismatch) || signed != nil {
			t.Errorf("changed %s: got %v, want ErrMismatch", name, err)
		}
	}
	if _, _, err := Assemble(d, other, Known{}, sig); err == nil {
		t.Error("assembled for a wallet that does not sign")
	}
	d.Raw = d.Raw[:20]
	if _, _, err := Assemble(d, payer, Known{}, sig); err == nil {
		t.Error("cut message assembled")
	}
}

// The comparison itself, fed with transactions that somebody else assembled.
func TestCompareSeesChanges(t *testing.T) {
	d := read(t, build([]step{transferStep(7)}), payer)
	sig := [64]byte(ed25519.Sign(privateKeys[0], d.Sign.Message))
	signed, _, err := Assemble(d, payer, Known{}, sig)
	if err != nil {
		t.Fatal(err)
	}
	amount := bytes.Clone(signed)
	amount[len(amount)-2]++ // the last byte of the lamports, before the lookup count
	moved := append(append([]byte{2}, make([]byte, 64)...), signed[1:]...)
	for name, b := range map[string][]byte{
		"amount": amount, "slot": moved, "cut": signed[:len(signed)-1], "no message": signed[:65], "empty": nil,
	} {
		if compare(b, d, payer, Known{}, 0, sig) == nil {
			t.Errorf("changed %s: compares equal", name)
		}
	}
}

func TestBase58AgreesWithSDK(t *testing.T) {
	for _, v := range rows[vector](t, "solana.jsonl") {
		for _, s := range v.StaticAccounts {
			if k := key(t, s); sdk.PublicKey(k).String() != s || Address(k) != s {
				t.Errorf("%s reads as %s", s, Address(k))
			}
		}
		pub := signer(t, v.SignerSeed).Public().(ed25519.PublicKey)
		if got := Address([32]byte(pub)); got != v.SignerPubkey {
			t.Errorf("public key %s, want %s", got, v.SignerPubkey)
		}
	}
	all := [32]byte(bytes.Repeat([]byte{0xff}, 32))
	for _, k := range [][32]byte{{}, {31: 1}, {0: 1}, {3: 1}, {4: 1}, all} {
		if got, want := Address(k), sdk.PublicKey(k).String(); got != want {
			t.Errorf("%x is %s, want %s", k, got, want)
		}
	}
	for _, s := range []string{
		"", "1", "0" + Address(all)[1:], Address(all) + "1", "1" + Address(all)[:43], Address(all)[:43] + "z",
		"l1111111111111111111111111111111", "111111111111111111111111111111111", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
	} {
		if k, err := ParseAddress(s); err == nil {
			t.Errorf("ParseAddress(%q) = %x, want an error", s, k)
		}
	}
}
