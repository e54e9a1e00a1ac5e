package solana

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

const mainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

type accountRow struct {
	Address          string
	Signer, Writable bool
	Source           string
}

// vector is one row of testdata/solana.jsonl.
type vector struct {
	ID, Version, MessageHex   string
	Gens                      []string
	FeePayer, RecentBlockhash string
	Header                    struct{ NumRequiredSignatures, NumReadonlySigned, NumReadonlyUnsigned int }
	StaticAccounts            []string
	ResolvedAccounts          []accountRow
	AddressTableLookups       []struct {
		Key                string
		Writable, Readonly []int
	}
	Instructions []struct {
		ProgramID string
		Accounts  []accountRow
		DataHex   string
	}
	Transfers    []struct{ From, To, Lamports string }
	DurableNonce *struct{ NonceAccount, Authority string }
	SignerPubkey string
	SignerSeed   string
	Signature    string
}

func rows[T any](t testing.TB, file string) []T {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []T
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var row T
		if err := json.Unmarshal(s.Bytes(), &row); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, row)
	}
	if s.Err() != nil || len(out) == 0 {
		t.Fatalf("%s: %d rows, %v", file, len(out), s.Err())
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(t testing.TB, s string) [32]byte {
	t.Helper()
	k, err := ParseAddress(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return k
}

// field reads a member of a struct node by its name in the policy language.
func field(t testing.TB, typ *chains.Type, v chains.Value, name string) chains.Value {
	t.Helper()
	i := typ.Index(name)
	if i < 0 || v.Kind != chains.KindStruct {
		t.Fatalf("no field %s in kind %d", name, v.Kind)
	}
	return v.List[i]
}

func root(t testing.TB, d *chains.Decoded, name string) chains.Value {
	t.Helper()
	if err := TxType.Conform(d.View[Root]); err != nil {
		t.Fatalf("view: %v", err)
	}
	return field(t, TxType, d.View[Root], name)
}

func number(v chains.Value) uint64 { return v.Int.Uint64() }

// text spells the node of an account.
func text(v chains.Value) string {
	if v.Raw == nil {
		return v.Str
	}
	return Address([32]byte(v.Raw))
}

func wantCode(t testing.TB, err error, codes ...string) *chains.DecodeError {
	t.Helper()
	var de *chains.DecodeError
	if !errors.As(err, &de) {
		t.Fatalf("got error %v, want a DecodeError with code %v", err, codes)
	}
	for _, c := range codes {
		if de.Code == c {
			return de
		}
	}
	t.Fatalf("got code %s (%v), want %v", de.Code, err, codes)
	return nil
}

func TestVectors(t *testing.T) {
	clean := 0
	for _, v := range rows[vector](t, "solana.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			in := unhex(t, v.MessageHex)
			wallet := key(t, v.SignerPubkey)
			d, err := Decode(in, wallet, mainnet)
			if err != nil {
				t.Fatal(err)
			}
			checkMessage(t, d, v)
			if !d.Opaque {
				clean++
			}
			if !bytes.Equal(d.Sign.Message, in) || d.Sign.Scheme != chains.EdDSAEd25519 {
				t.Error("what is signed is not the message")
			}
			sig, err := base64.StdEncoding.DecodeString(v.Signature)
			if err != nil {
				t.Fatal(err)
			}
			signed, txid, err := Assemble(d, wallet, [64]byte(sig))
			if err != nil {
				t.Fatal(err)
			}
			slot := 0
			for v.StaticAccounts[slot] != v.SignerPubkey {
				slot++
			}
			want := append([]byte{byte(v.Header.NumRequiredSignatures)}, make([]byte, 64*v.Header.NumRequiredSignatures)...)
			copy(want[1+64*slot:], sig)
			if want = append(want, in...); !bytes.Equal(signed, want) {
				t.Errorf("signed %x, want %x", signed, want)
			}
			if wantID := base58(sig); slot == 0 && txid != wantID || slot > 0 && txid != "" {
				t.Errorf("transaction id %q, signature %q in slot %d", txid, wantID, slot)
			}
			_, err = Decode(signed, wallet, mainnet)
			wantCode(t, err, chains.CodeForm)
		})
	}
	if clean < 4 {
		t.Errorf("only %d rows understood", clean)
	}
}

func checkMessage(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	m, err := parse(d.Raw)
	if err != nil {
		t.Fatal(err)
	}
	h := v.Header
	if m.signers != h.NumRequiredSignatures || m.roSigned != h.NumReadonlySigned || m.roOther != h.NumReadonlyUnsigned {
		t.Errorf("header %d %d %d, want %+v", m.signers, m.roSigned, m.roOther, h)
	}
	if m.versioned != (v.Version == "v0") {
		t.Errorf("versioned = %v, want %s", m.versioned, v.Version)
	}
	if got := root(t, d, "recent_blockhash").Str; got != v.RecentBlockhash {
		t.Errorf("blockhash %s, want %s", got, v.RecentBlockhash)
	}
	if got := text(root(t, d, "fee_payer")); got != v.FeePayer {
		t.Errorf("fee payer %s, want %s", got, v.FeePayer)
	}
	accounts := root(t, d, "account_keys").List
	if len(accounts) != len(v.ResolvedAccounts) {
		t.Fatalf("%d accounts, want %d", len(accounts), len(v.ResolvedAccounts))
	}
	for i, want := range v.ResolvedAccounts {
		checkAccount(t, accounts[i], m.isSigner(i), m.isWritable(i), want)
	}
	lookups := root(t, d, "address_table_lookups").List
	if len(lookups) != len(v.AddressTableLookups) {
		t.Fatalf("%d lookups, want %d", len(lookups), len(v.AddressTableLookups))
	}
	for i, want := range v.AddressTableLookups {
		if got := text(field(t, typeLookup, lookups[i], "address_table_key")); got != want.Key {
			t.Errorf("table %s, want %s", got, want.Key)
		}
		checkIndexes(t, field(t, typeLookup, lookups[i], "writable_indexes"), want.Writable)
		checkIndexes(t, field(t, typeLookup, lookups[i], "readonly_indexes"), want.Readonly)
	}
	checkInstructions(t, d, v)
	checkTransfers(t, d, v)
}

func checkAccount(t *testing.T, key chains.Value, signer, writable bool, want accountRow) {
	t.Helper()
	address := want.Address
	if want.Source != "static" {
		address = chains.AddressTableLookup
	}
	if text(key) != address || signer != want.Signer || writable != want.Writable {
		t.Errorf("account %s signer %v writable %v, want %+v", text(key), signer, writable, want)
	}
}

func checkIndexes(t *testing.T, got chains.Value, want []int) {
	t.Helper()
	if len(got.List) != len(want) {
		t.Fatalf("%d indexes, want %v", len(got.List), want)
	}
	for i, n := range want {
		if got.List[i].Int.Uint64() != uint64(n) {
			t.Errorf("index %d is %s, want %d", i, got.List[i].Int.Dec(), n)
		}
	}
}

func checkInstructions(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	ins := root(t, d, "instructions").List
	if len(ins) != len(v.Instructions) {
		t.Fatalf("%d instructions, want %d", len(ins), len(v.Instructions))
	}
	programs := map[string]bool{}
	for i, want := range v.Instructions {
		programs[want.ProgramID] = true
		if got := text(field(t, typeInstruction, ins[i], "program_key")); got != want.ProgramID {
			t.Errorf("program %s, want %s", got, want.ProgramID)
		}
		if got := field(t, typeInstruction, ins[i], "instruction_data_hex").Str; got != want.DataHex {
			t.Errorf("data %s, want %s", got, want.DataHex)
		}
		accounts, behind := field(t, typeInstruction, ins[i], "accounts").List, 0
		if len(accounts) != len(want.Accounts) {
			t.Fatalf("%d accounts, want %d", len(accounts), len(want.Accounts))
		}
		for j, w := range want.Accounts {
			signer := number(field(t, typeAccount, accounts[j], "signer")) == 1
			writable := number(field(t, typeAccount, accounts[j], "writable")) == 1
			checkAccount(t, field(t, typeAccount, accounts[j], "account_key"), signer, writable, w)
			if w.Source != "static" {
				behind++
			}
		}
		if got := len(field(t, typeInstruction, ins[i], "address_table_lookups").List); got != behind {
			t.Errorf("%d table entries among the accounts, want %d", got, behind)
		}
	}
	if got := root(t, d, "program_keys").List; len(got) != len(programs) {
		t.Errorf("%d programs, want %d", len(got), len(programs))
	}
}

// checkTransfers: either the list is exactly the vector's, or it is not there.
func checkTransfers(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	got, spl, nonce := root(t, d, "transfers"), root(t, d, "spl_transfers"), root(t, d, "durable_nonce")
	if d.Opaque {
		if got.Kind != chains.KindAbsent || spl.Kind != chains.KindAbsent {
			t.Error("an opaque message has lists of transfers")
		}
	} else {
		for _, g := range v.Gens {
			if !strings.HasPrefix(g, "system.transfer") && !strings.HasPrefix(g, "cb.") && g != "memo" && g != "system.advanceNonce" || g == "system.transferWithSeed" {
				t.Errorf("%s counts as understood", g)
			}
		}
		if len(got.List) != len(v.Transfers) {
			t.Fatalf("%d transfers, want %d", len(got.List), len(v.Transfers))
		}
		for i, want := range v.Transfers {
			from, to := text(field(t, typeTransfer, got.List[i], "from")), text(field(t, typeTransfer, got.List[i], "to"))
			amount := field(t, typeTransfer, got.List[i], "amount").Int
			if from != want.From || to != want.To || amount.Dec() != want.Lamports {
				t.Errorf("transfer of %s from %s to %s, want %+v", amount.Dec(), from, to, want)
			}
		}
	}
	switch {
	case v.DurableNonce == nil:
		if nonce.Kind != chains.KindAbsent || len(d.Guards) != 0 || len(d.ReplayKeys) != 0 {
			t.Errorf("a durable nonce where there is none: %v %v", d.Guards, d.ReplayKeys)
		}
	default:
		account := v.DurableNonce.NonceAccount
		if text(field(t, typeNonce, nonce, "account")) != account || text(field(t, typeNonce, nonce, "authority")) != v.DurableNonce.Authority {
			t.Errorf("durable nonce %+v, want %+v", nonce, v.DurableNonce)
		}
		if want := "solana-nonce:" + mainnet + ":" + account + ":" + v.RecentBlockhash; len(d.ReplayKeys) != 1 || d.ReplayKeys[0] != want {
			t.Errorf("replay keys %v, want %s", d.ReplayKeys, want)
		}
		if len(d.Guards) != 1 || d.Guards[0] != "solana.tx.durable_nonce" {
			t.Errorf("guards %v", d.Guards)
		}
	}
}

func TestMalformedVectorsAreRefused(t *testing.T) {
	type malformed struct{ ID, Class, Tier, MessageHex, Why string }
	for _, v := range rows[malformed](t, "solana_malformed.jsonl") {
		t.Run(v.ID+"_"+v.Class, func(t *testing.T) {
			in := unhex(t, v.MessageHex)
			d, err := Decode(in, firstKey(in), mainnet)
			if v.Tier == "resolve" { // needs tables, which are never resolved
				if err != nil || !d.Opaque {
					t.Fatalf("%v; want an opaque message", err)
				}
				return
			}
			switch v.Tier {
			case "encoding": // an unknown version is a matter of form; so is nothing at all
				wantCode(t, err, chains.CodeEncoding, chains.CodeForm)
			case "sanitize": // a wrong count shows as the cut it makes, an oversized message as form
				wantCode(t, err, chains.CodeSemantic, chains.CodeEncoding, chains.CodeForm)
			case "policy":
				wantCode(t, err, chains.CodeSemantic)
			case "input-form":
				wantCode(t, err, chains.CodeForm)
			default:
				t.Fatalf("tier %s", v.Tier)
			}
		})
	}
}

// firstKey is a guess at the fee payer, so that no row is refused for its signer.
func firstKey(in []byte) (k [32]byte) {
	at := 4
	if len(in) > 0 && in[0] >= 0x80 {
		at = 5
	}
	if len(in) > at {
		copy(k[:], in[at:])
	}
	return k
}

func TestVersion1IsRefused(t *testing.T) {
	type row struct {
		ID, MessageHex, FeePayer string
	}
	for _, file := range []string{"solana_v1.jsonl", "solana_v1_malformed.jsonl"} {
		for _, v := range rows[row](t, file) {
			in := unhex(t, v.MessageHex)
			for _, wallet := range [][32]byte{{}, firstKey(in)} {
				_, err := Decode(in, wallet, mainnet)
				if de := wantCode(t, err, chains.CodeForm); !strings.Contains(de.Message, "unsupported version 1") {
					t.Errorf("%s: %v", v.ID, err)
				}
			}
		}
	}
}

func TestTraps(t *testing.T) {
	for _, v := range rows[struct{ ID, Name, MessageHex, Signer, Expect string }](t, "solana_traps.jsonl") {
		t.Run(v.Name, func(t *testing.T) {
			d, err := Decode(unhex(t, v.MessageHex), key(t, v.Signer), mainnet)
			if err != nil {
				return
			}
			if v.Name == "fee-drain" { // understood: the fee itself is the move
				fee := d.Charges[len(d.Charges)-1]
				if want := "25825441703193377261"; fee.What != "fee" || fee.Unbounded || fee.Amount.Dec() != want {
					t.Errorf("fee %+v, want %s", fee, want)
				}
				return
			}
			if !d.Opaque || root(t, d, "transfers").Kind != chains.KindAbsent || root(t, d, "spl_transfers").Kind != chains.KindAbsent {
				t.Errorf("%s: not opaque: %s", v.Expect, d.Summary)
			}
		})
	}
}

// signer makes the key of a vector's seed.
func signer(t testing.TB, seed string) ed25519.PrivateKey {
	t.Helper()
	return ed25519.NewKeyFromSeed(unhex(t, seed))
}
