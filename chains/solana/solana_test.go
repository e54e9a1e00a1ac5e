package solana

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
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
		Decoded   *struct {
			Type string
			Info map[string]any
		}
	}
	LookupTables map[string][]string
	Transfers    []struct{ From, To, Lamports string }
	SPLTransfers []struct {
		From, To, Owner, Mint, Amount string
		Signers                       []string
	}
	DurableNonce *struct{ NonceAccount, Authority string }
	SignerPubkey string
	SignerSeed   string
	Signature    string
}

// known pins the row's lookup tables, in whole.
func (v vector) known(t testing.TB) Known {
	k := Known{Tables: map[[32]byte]*Table{}, AllTables: true}
	for a, entries := range v.LookupTables {
		var keys [][32]byte
		for _, e := range entries {
			keys = append(keys, key(t, e))
		}
		k.Tables[key(t, a)] = newTable(key(t, a), keys)
	}
	return k
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
	for _, v := range rows[vector](t, "solana.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			in := unhex(t, v.MessageHex)
			wallet, known := key(t, v.SignerPubkey), v.known(t)
			d, err := Decode(in, wallet, mainnet, known)
			if err != nil {
				t.Fatal(err)
			}
			checkMessage(t, d, v)
			if garbage := strings.Contains(strings.Join(v.Gens, " "), "garbage"); d.Opaque != garbage {
				t.Errorf("opaque is %v: %s", d.Opaque, d.Summary)
			}
			if !bytes.Equal(d.Sign.Message, in) || d.Sign.Scheme != chains.EdDSAEd25519 {
				t.Error("what is signed is not the message")
			}
			sig, err := base64.StdEncoding.DecodeString(v.Signature)
			if err != nil {
				t.Fatal(err)
			}
			signed, txid, err := Assemble(d, wallet, known, [64]byte(sig))
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
			_, err = Decode(signed, wallet, mainnet, Known{})
			wantCode(t, err, chains.CodeForm)
			if len(v.AddressTableLookups) > 0 {
				if d, err := Decode(in, wallet, mainnet, Known{}); err != nil || !d.Opaque {
					t.Errorf("without its tables: %v, not opaque", err)
				}
			}
		})
	}
}

func checkMessage(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	m, err := parse(d.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.resolve(v.known(t).Tables, true); err != nil {
		t.Fatal(err)
	}
	h := v.Header
	if m.signers != h.NumRequiredSignatures || m.roSigned != h.NumReadonlySigned || m.roOther != h.NumReadonlyUnsigned {
		t.Errorf("header %d %d %d, want %+v", m.signers, m.roSigned, m.roOther, h)
	}
	if (m.version == v0) != (v.Version == "v0") {
		t.Errorf("version %d, want %s", m.version, v.Version)
	}
	if got := root(t, d, "recent_blockhash").Str; got != v.RecentBlockhash {
		t.Errorf("blockhash %s, want %s", got, v.RecentBlockhash)
	}
	if got := text(root(t, d, "fee_payer")); got != v.FeePayer {
		t.Errorf("fee payer %s, want %s", got, v.FeePayer)
	}
	accounts := elements(root(t, d, "account_keys"))
	if len(accounts) != len(v.ResolvedAccounts) {
		t.Fatalf("%d accounts, want %d", len(accounts), len(v.ResolvedAccounts))
	}
	for i, want := range v.ResolvedAccounts {
		checkAccount(t, accounts[i], m.isSigner(i), m.isWritable(i), want)
	}
	lookups := elements(root(t, d, "address_table_lookups"))
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
	if text(key) != want.Address || signer != want.Signer || writable != want.Writable {
		t.Errorf("account %s signer %v writable %v, want %+v", text(key), signer, writable, want)
	}
}

func checkIndexes(t *testing.T, got chains.Value, want []int) {
	t.Helper()
	list := elements(got)
	if len(list) != len(want) {
		t.Fatalf("%d indexes, want %v", len(list), want)
	}
	for i, n := range want {
		if number(list[i]) != uint64(n) {
			t.Errorf("index %d is %s, want %d", i, list[i].Int.Dec(), n)
		}
	}
}

func checkInstructions(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	ins := elements(root(t, d, "instructions"))
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
		accounts, behind := elements(field(t, typeInstruction, ins[i], "accounts")), 0
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
		if got := len(elements(field(t, typeInstruction, ins[i], "address_table_lookups"))); got != behind {
			t.Errorf("%d table entries among the accounts, want %d", got, behind)
		}
		parsed := field(t, typeInstruction, ins[i], "parsed_instruction_data")
		if want.Decoded == nil {
			if parsed.Kind != chains.KindAbsent {
				t.Errorf("instruction %d parsed as %s", i, parsed.List[0].Str)
			}
			continue
		}
		checkParsed(t, parsed, want.Decoded.Type, want.Decoded.Info)
	}
	if got := elements(root(t, d, "program_keys")); len(got) != len(programs) {
		t.Errorf("%d programs, want %d", len(got), len(programs))
	}
}

// checkParsed compares what can be compared by name; where the vector has another
// name for an account or argument, its value must stand under some name.
func checkParsed(t *testing.T, parsed chains.Value, name string, info map[string]any) {
	t.Helper()
	if parsed.Kind == chains.KindAbsent || field(t, typeParsed, parsed, "instruction_name").Str != name {
		t.Fatalf("parsed as %+v, want %s", parsed, name)
	}
	var have []string
	add := func(v chains.Value) {
		switch {
		case v.Kind == chains.KindInt:
			have = append(have, v.Int.Dec())
		case v.Kind == chains.KindAbsent:
			have = append(have, "<nil>")
		case v.IsList():
			var all []string
			for _, x := range elements(v) {
				all = append(all, text(x))
			}
			have = append(have, fmt.Sprint(all))
		default:
			have = append(have, text(v))
		}
	}
	for _, m := range []string{"named_accounts", "program_call_args"} {
		for _, v := range field(t, typeParsed, parsed, m).Map.Values {
			add(v)
		}
	}
	for k, want := range info {
		if !slices.Contains(have, strings.TrimSpace(fmt.Sprintf("%v", want))) {
			if f, ok := want.(float64); ok && slices.Contains(have, strconv.FormatFloat(f, 'f', -1, 64)) {
				continue
			}
			t.Errorf("%s: %s %v is nowhere in %q", name, k, want, have)
		}
	}
}

func checkTransfers(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	got, spl, nonce := elements(root(t, d, "transfers")), elements(root(t, d, "spl_transfers")), root(t, d, "durable_nonce")
	if len(got) != len(v.Transfers) || len(spl) != len(v.SPLTransfers) {
		t.Fatalf("%d and %d transfers, want %d and %d", len(got), len(spl), len(v.Transfers), len(v.SPLTransfers))
	}
	for i, want := range v.Transfers {
		from, to := text(field(t, typeTransfer, got[i], "from")), text(field(t, typeTransfer, got[i], "to"))
		amount := field(t, typeTransfer, got[i], "amount").Int
		if from != want.From || to != want.To || amount.Dec() != want.Lamports {
			t.Errorf("transfer of %s from %s to %s, want %+v", amount.Dec(), from, to, want)
		}
	}
	for i, want := range v.SPLTransfers {
		read := func(name string) string { return text(field(t, typeSPLTransfer, spl[i], name)) }
		amount := field(t, typeSPLTransfer, spl[i], "amount").Int
		var signers []string
		for _, s := range elements(field(t, typeSPLTransfer, spl[i], "signers")) {
			signers = append(signers, text(s))
		}
		if read("from") != want.From || read("to") != want.To || read("owner") != want.Owner || read("token_mint") != want.Mint ||
			amount.Dec() != want.Amount || strings.Join(signers, " ") != strings.Join(want.Signers, " ") {
			t.Errorf("token transfer %+v, want %+v", spl[i], want)
		}
	}
	switch {
	case v.DurableNonce == nil:
		if nonce.Kind != chains.KindAbsent || strings.Contains(strings.Join(d.Guards, " "), "nonce") || len(d.ReplayKeys) != 0 {
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
	type malformed struct {
		ID, Class, Tier, MessageHex, Why string
		LookupTables                     map[string][]string
	}
	for _, v := range rows[malformed](t, "solana_malformed.jsonl") {
		t.Run(v.ID+"_"+v.Class, func(t *testing.T) {
			in := unhex(t, v.MessageHex)
			known := Known{}
			if v.LookupTables != nil {
				known = vector{LookupTables: v.LookupTables}.known(t)
			}
			_, err := Decode(in, firstKey(in), mainnet, known)
			if _, again := Inspect(in, mainnet, known); again == nil {
				t.Error("Inspect takes it")
			}
			if v.Class == "version-byte" {
				v.Tier = "version"
			}
			switch v.Tier {
			case "encoding": // an unknown version is a matter of form; so is nothing at all
				wantCode(t, err, chains.CodeEncoding, chains.CodeForm)
			case "version": // a version 0 body read as version 1
				wantCode(t, err, chains.CodeEncoding, chains.CodeForm, chains.CodeSemantic)
			case "sanitize": // a wrong count shows as the cut it makes, an oversized message as form
				wantCode(t, err, chains.CodeSemantic, chains.CodeEncoding, chains.CodeForm)
			case "policy", "resolve":
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

// signer makes the key of a vector's seed.
func signer(t testing.TB, seed string) ed25519.PrivateKey {
	t.Helper()
	return ed25519.NewKeyFromSeed(unhex(t, seed))
}
