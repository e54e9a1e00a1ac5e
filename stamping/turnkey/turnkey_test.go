package turnkey

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/stamping/body"
)

const (
	org  = "f9f0a6c4-2b1c-4d0a-9d5e-0c3a1b2c3d4e"
	addr = "0x9cAd63E4C09A9bD195568fC662835046C3605873"
)

var (
	onEVM    = Binding{Organization: org, SignWith: []string{addr}, EVM: true}
	onSolana = Binding{Organization: org, SignWith: []string{"key"}}
	// wire is a Solana transaction of one signer, its slot zero.
	wire = append(append([]byte{1}, make([]byte, 64)...), 0x80, 1, 0, 1, 3)
)

// activity is a body; parameters is JSON.
func activity(kind, parameters string) string {
	return fmt.Sprintf(`{"type":%q,"timestampMs":"1746736509954","organizationId":%q,"parameters":%s}`, kind, org, parameters)
}

func raw(signWith, payload, encoding, hash string) string {
	return activity(SignRawPayload, fmt.Sprintf(`{"signWith":%q,"payload":%q,"encoding":"PAYLOAD_ENCODING_%s","hashFunction":"HASH_FUNCTION_%s"}`, signWith, payload, encoding, hash))
}

func tx(signWith, unsigned, kind string) string {
	return activity(SignTransaction, fmt.Sprintf(`{"signWith":%q,"unsignedTransaction":%q,"type":"TRANSACTION_TYPE_%s"}`, signWith, unsigned, kind))
}

func TestReadsWhatSigns(t *testing.T) {
	personal := "\x19Ethereum Signed Message:\n5hello"
	tests := []struct {
		name    string
		binding Binding
		body    string
		kind    chains.Kind
		payload string
	}{
		{"an EVM transaction", onEVM, tx(addr, "02c0", "ETHEREUM"), chains.KindEVMTransaction, "\x02\xc0"},
		{"with 0x", onEVM, tx(addr, "0x02c0", "ETHEREUM"), chains.KindEVMTransaction, "\x02\xc0"},
		{"a Solana transaction", onSolana, tx("key", hex.EncodeToString(wire), "SOLANA"), chains.KindSolanaMessage, "\x80\x01\x00\x01\x03"},
		{"typed data", onEVM, raw(addr, `{"types":{}}`, "EIP712", "NO_OP"), chains.KindEVMTypedData, `{"types":{}}`},
		{"a message with its prefix", onEVM, raw(addr, hex.EncodeToString([]byte(personal)), "HEXADECIMAL", "KECCAK256"), chains.KindEVMMessage, "hello"},
		{"a text without the prefix, which is judged as a transaction", onEVM, raw(addr, personal[1:], "TEXT_UTF8", "KECCAK256"), chains.KindEVMTransaction, personal[1:]},
		{"a raw payload that is a transaction", onEVM, raw(addr, "02c0", "HEXADECIMAL", "KECCAK256"), chains.KindEVMTransaction, "\x02\xc0"},
		{"a Solana text", onSolana, raw("key", "hello", "TEXT_UTF8", "NOT_APPLICABLE"), chains.KindSolanaOffchain, "hello"},
		{"an off-chain message", onSolana, raw("key", "ff00", "HEXADECIMAL", "NOT_APPLICABLE"), chains.KindSolanaOffchain, "\xff\x00"},
		{"a raw payload that is a Solana message", onSolana, raw("key", "800100", "HEXADECIMAL", "NOT_APPLICABLE"), chains.KindSolanaMessage, "\x80\x01\x00"},
		{"with app proofs", onEVM, strings.Replace(tx(addr, "02c0", "ETHEREUM"), `{"type"`, `{"generateAppProofs":true,"type"`, 1), chains.KindEVMTransaction, "\x02\xc0"},
	}
	for _, test := range tests {
		got, err := Read([]byte(test.body), test.binding)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got.Kind != test.kind || string(got.Payload) != test.payload || !got.At.Equal(time.UnixMilli(1746736509954)) {
			t.Errorf("%s: got %s %q at %v", test.name, got.Kind, got.Payload, got.At)
		}
	}
}

// Of all activities that Turnkey's types name (@turnkey/sdk-types 1.10.0), and some
// that it could have, two are read.
func TestRefusesEveryOtherActivity(t *testing.T) {
	text, err := os.ReadFile("testdata/activities.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(text))
	if len(all) != 169 {
		t.Fatalf("the list has %d activities, want 169", len(all))
	}
	all = append(all, "ACTIVITY_TYPE_SIGN_TRANSACTION_V3", "ACTIVITY_TYPE_SIGN_RAW_PAYLOADS_V2", "SIGN_TRANSACTION", "activity_type_sign_transaction_v2", " "+SignTransaction, "x")
	taken := 0
	for _, kind := range all {
		for _, good := range []string{tx(addr, "02c0", "ETHEREUM"), raw(addr, `{"types":{}}`, "EIP712", "NO_OP")} {
			good = good[strings.Index(good, `,"timestampMs"`):]
			_, err := Read(fmt.Appendf(nil, `{"type":%q%s`, kind, good), onEVM)
			if err == nil {
				taken++
				continue
			}
			if kind == SignTransaction || kind == SignRawPayload {
				continue // with the other's parameters
			}
			wantCode(t, kind, err, body.NotSigning)
		}
	}
	if taken != 2 {
		t.Errorf("%d bodies were read, want 2", taken)
	}
}

func TestRefuses(t *testing.T) {
	good := tx(addr, "02c0", "ETHEREUM")
	edit := func(old, new string) string {
		out := strings.Replace(good, old, new, 1)
		if out == good {
			t.Fatalf("%q is not in the body", old)
		}
		return out
	}
	sol := func(wire []byte) string { return tx("key", hex.EncodeToString(wire), "SOLANA") }
	slots := func(n int, rest ...byte) []byte {
		return append(append([]byte{byte(n)}, make([]byte, 64*n)...), rest...)
	}
	signed := bytes.Clone(wire)
	signed[3] = 1
	tests := []struct {
		name    string
		binding Binding
		body    string
		code    body.Code
	}{
		{"nothing", onEVM, "", body.Malformed},
		{"no object", onEVM, `["type"]`, body.Malformed},
		{"a list of activities", onEVM, "[" + good + "]", body.Malformed},
		{"two bodies", onEVM, good + good, body.Malformed},
		{"a byte after it", onEVM, good + "\x00", body.Malformed},
		{"not UTF-8", onEVM, edit("02c0", "\xff"), body.Malformed},
		{"a byte order mark", onEVM, "\ufeff" + good, body.Malformed},
		{"half of a surrogate pair", onEVM, edit(`"type":"T`, `"x":"\ud800","type":"T`), body.Malformed},
		{"too long", onEVM, edit(`{"type":"A`, `{`+strings.Repeat(" ", body.MaxBytes)+`"type":"A`), body.Malformed},
		{"nested deep", onEVM, edit(`"02c0"`, strings.Repeat("[", 40)+strings.Repeat("]", 40)), body.Malformed},
		{"type twice", onEVM, edit(`"timestampMs"`, `"type":"ACTIVITY_TYPE_CREATE_POLICY","timestampMs"`), body.Malformed},
		{"type twice, once in escapes", onEVM, edit(`"timestampMs"`, `"typ\u0065":"ACTIVITY_TYPE_CREATE_POLICY","timestampMs"`), body.Malformed},
		{"type in capitals beside it", onEVM, edit(`"timestampMs"`, `"Type":"ACTIVITY_TYPE_CREATE_POLICY","timestampMs"`), body.Malformed},
		{"no type", onEVM, edit(`"type":"ACTIVITY_TYPE_SIGN_TRANSACTION_V2",`, ""), body.Malformed},
		{"a query", onEVM, `{"organizationId":"` + org + `"}`, body.Malformed},
		{"type null", onEVM, edit(`"`+SignTransaction+`"`, "null"), body.Malformed},
		{"a member that is unknown", onEVM, edit(`"timestampMs"`, `"delegate":"x","timestampMs"`), body.Malformed},
		{"a parameter that is unknown", onEVM, edit(`"signWith"`, `"policies":[],"signWith"`), body.Malformed},
		{"a parameter twice", onEVM, edit(`"signWith"`, `"unsignedTransaction":"02c1","signWith"`), body.Malformed},
		{"a parameter missing", onEVM, edit(`"unsignedTransaction":"02c0",`, ""), body.Malformed},
		{"parameters that are none", onEVM, activity(SignTransaction, "[]"), body.Malformed},
		{"generateAppProofs of text", onEVM, edit(`"timestampMs"`, `"generateAppProofs":"no","timestampMs"`), body.Malformed},
		{"another organization", onEVM, edit(org, strings.ToUpper(org)), body.NotBound},
		{"another signer", onEVM, edit(addr, "0x0000000000000000000000000000000000000001"), body.NotBound},
		{"a time that is a number", onEVM, edit(`"1746736509954"`, "1746736509954"), body.Malformed},
		{"a time with a fraction", onEVM, edit("1746736509954", "1746736509.954"), body.Malformed},
		{"a time with a zero before it", onEVM, edit("1746736509954", "01746736509954"), body.Malformed},
		{"a time before 1970", onEVM, edit("1746736509954", "-1"), body.Malformed},
		{"a time beyond all", onEVM, edit("1746736509954", "9999999999999999"), ""},
		{"hex in capitals", onEVM, edit("02c0", "02C0"), body.Malformed},
		{"hex that is odd", onEVM, edit("02c0", "02c"), body.Malformed},
		{"no transaction", onEVM, edit("02c0", "0x"), body.Malformed},
		{"Solana's for an EVM wallet", onEVM, edit("_ETHEREUM", "_SOLANA"), body.NotUnderstood},
		{"Bitcoin's", onEVM, edit("_ETHEREUM", "_BITCOIN"), body.NotUnderstood},
		{"EVM's for a Solana wallet", onSolana, tx("key", "02c0", "ETHEREUM"), body.NotUnderstood},
		{"a Solana message without slots", onSolana, sol([]byte{0x80, 1, 0, 1, 3}), body.Malformed},
		{"no slots", onSolana, sol(slots(0, 0x80, 0, 0)), body.Malformed},
		{"a slot too many", onSolana, sol(slots(2, 0x80, 1, 0, 1, 3)), body.Malformed},
		{"a slot with a signature", onSolana, sol(signed), body.Malformed},
		{"version 1", onSolana, sol(append([]byte{0x81}, make([]byte, 200)...)), body.Malformed},
		{"version 1 after slots", onSolana, sol(slots(1, 0x81, 1, 0)), body.NotUnderstood},
		{"a bare digest", onEVM, raw(addr, strings.Repeat("ab", 32), "HEXADECIMAL", "NO_OP"), body.RawDigest},
		{"a bare digest as text", onEVM, raw(addr, strings.Repeat("a", 32), "TEXT_UTF8", "NO_OP"), body.RawDigest},
		{"SHA-256 of something", onEVM, raw(addr, "02c0", "HEXADECIMAL", "SHA256"), body.RawDigest},
		{"the preimage of typed data", onEVM, raw(addr, "1901"+strings.Repeat("ab", 64), "HEXADECIMAL", "KECCAK256"), body.RawDigest},
		{"EIP-191 version 0", onEVM, raw(addr, "1900"+strings.Repeat("ab", 20), "HEXADECIMAL", "KECCAK256"), body.RawDigest},
		{"a prefix with another length", onEVM, raw(addr, hex.EncodeToString([]byte("\x19Ethereum Signed Message:\n6hello")), "HEXADECIMAL", "KECCAK256"), body.Malformed},
		{"a prefix with a padded length", onEVM, raw(addr, hex.EncodeToString([]byte("\x19Ethereum Signed Message:\n05hello")), "HEXADECIMAL", "KECCAK256"), body.Malformed},
		{"typed data that is hashed again", onEVM, raw(addr, "{}", "EIP712", "KECCAK256"), body.NotUnderstood},
		{"typed data for Solana", onSolana, raw("key", "{}", "EIP712", "NO_OP"), body.NotUnderstood},
		{"an authorization", onEVM, raw(addr, "{}", "EIP7702_AUTHORIZATION", "NO_OP"), body.NotUnderstood},
		{"an encoding of tomorrow", onEVM, raw(addr, "{}", "CBOR", "NO_OP"), body.NotUnderstood},
		{"no hash for EVM", onEVM, raw(addr, "02c0", "HEXADECIMAL", "NOT_APPLICABLE"), body.NotUnderstood},
		{"a hash for Solana", onSolana, raw("key", "02c0", "HEXADECIMAL", "SHA256"), body.NotUnderstood},
		{"several payloads", onEVM, activity(SignRawPayload, `{"signWith":"`+addr+`","payloads":["02c0"],"encoding":"PAYLOAD_ENCODING_HEXADECIMAL","hashFunction":"HASH_FUNCTION_KECCAK256"}`), body.Malformed},
	}
	for _, test := range tests {
		_, err := Read([]byte(test.body), test.binding)
		if test.code == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		wantCode(t, test.name, err, test.code)
	}
}

func wantCode(t *testing.T, name string, err error, code body.Code) {
	t.Helper()
	var bad *body.Error
	if !errors.As(err, &bad) || bad.Code != code {
		t.Errorf("%s: %v, want code %s", name, err, code)
	}
}

// The stamp of Turnkey's documentation (api-reference/overview/stamps.mdx) has these
// members, this scheme and this encoding.
func TestStampHasTurnkeysForm(t *testing.T) {
	public, err := hex.DecodeString("0327a50032e6f0631d5605b6ada32b779074f346e81b68e12801640f1c9ee03dae")
	if err != nil {
		t.Fatal(err)
	}
	value, err := Stamp(public, []byte{0x30, 6})
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"publicKey": hex.EncodeToString(public), "scheme": "SIGNATURE_SCHEME_TK_API_P256", "signature": "3006"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Whatever a body is, reading it is an error or one of four kinds that fit the wallet,
// and never a panic. What is read is a signing activity of the bound organization.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		tx(addr, "02c0", "ETHEREUM"), tx("key", hex.EncodeToString(wire), "SOLANA"), raw(addr, `{"types":{}}`, "EIP712", "NO_OP"),
		raw(addr, hex.EncodeToString([]byte("\x19Ethereum Signed Message:\n5hello")), "HEXADECIMAL", "KECCAK256"), raw("key", "hello", "TEXT_UTF8", "NOT_APPLICABLE"),
		activity("ACTIVITY_TYPE_CREATE_POLICY", "{}"),
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, evm bool) {
		b := onSolana
		if evm {
			b = onEVM
		}
		asked, err := Read(text, b)
		if err != nil {
			var bad *body.Error
			if !errors.As(err, &bad) {
				t.Fatalf("%v is no *body.Error", err)
			}
			return
		}
		if asked.Activity != SignTransaction && asked.Activity != SignRawPayload || len(asked.Payload) == 0 {
			t.Fatalf("read %+v", asked)
		}
		if onChain := strings.HasPrefix(string(asked.Kind), "evm."); onChain != evm {
			t.Fatalf("a payload of kind %s for a wallet on EVM: %v", asked.Kind, evm)
		}
		var seen struct {
			Type, OrganizationID string
			Parameters           struct{ SignWith string }
		}
		if err := json.Unmarshal(text, &seen); err != nil || seen.Type != asked.Activity || seen.OrganizationID != org || seen.Parameters.SignWith != b.SignWith[0] {
			t.Fatalf("another reader sees %+v (%v)", seen, err)
		}
	})
}
