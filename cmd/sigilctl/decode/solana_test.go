package decode

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// Every row of the Solana corpus: what is signed, what a policy reads of it, and
// what must be refused.
func TestSolanaMessageVectors(t *testing.T) {
	for _, file := range []string{"solana.jsonl", "solana_v1.jsonl"} {
		texts, rows := vectors(t, "solana", file)
		for i, a := range ask(t, chains.KindSolanaMessage, texts...) {
			row := rows[i]
			if !a.OK || a.SigningBytes != "0x"+row["messageHex"].(string) || a.SigningHash != "" || a.Summary == "" {
				t.Errorf("%v: got %+v", row["id"], a)
				continue
			}
			same := func(name, want any) {
				if got := fmt.Sprint(a.View[name.(string)]); got != fmt.Sprint(want) {
					t.Errorf("%v: %v is %s, want %v", row["id"], name, got, want)
				}
			}
			same("fee_payer", row["feePayer"])
			same("recent_blockhash", row["recentBlockhash"])
			var moved []string
			for _, m := range row["transfers"].([]any) {
				m := m.(map[string]any)
				moved = append(moved, fmt.Sprintf("map[amount:%v from:%v to:%v]", m["lamports"], m["from"], m["to"]))
			}
			same("transfers", "["+strings.Join(moved, " ")+"]")
			if all, ok := row["resolvedAccounts"].([]any); ok {
				var keys []any
				for _, k := range all {
					keys = append(keys, k.(map[string]any)["address"])
				}
				same("account_keys", keys)
			}
			if n, ok := row["durableNonce"].(map[string]any); ok {
				same("durable_nonce", map[string]any{"account": n["nonceAccount"], "authority": n["authority"]})
			}
		}
	}
	for _, file := range []string{"solana_malformed.jsonl", "solana_v1_malformed.jsonl"} {
		texts, rows := vectors(t, "solana", file)
		for i, a := range ask(t, chains.KindSolanaMessage, texts...) {
			if a.OK || a.Error.Code == "" || a.Error.Code == "internal" {
				t.Errorf("%v: %+v, want a refusal", rows[i]["id"], a)
			}
		}
	}
}

func TestSolanaMessagesThatAreNoTransactions(t *testing.T) {
	texts, rows := vectors(t, "solana", "solana_offchain.jsonl")
	for _, kind := range []chains.Kind{chains.KindSolanaOffchain, signMessage} {
		for i, row := range rows {
			text := texts[i]
			if kind == signMessage {
				text = strings.Replace(text, `"messageHex"`, `"payloadHex"`, 1)
			}
			a := ask(t, kind, text)[0]
			if !a.OK || a.SigningBytes != "0x"+row["messageHex"].(string) || a.Kind != string(kind) {
				t.Errorf("%v: %+v", row["id"], a)
				continue
			}
			if row["version"] != "siws-raw" && a.View["text"] != row["text"] {
				t.Errorf("%v: text %v, want %v", row["id"], a.View["text"], row["text"])
			}
		}
	}
	bad, _ := vectors(t, "solana", "solana_signmessage_malicious.jsonl")
	messages, _ := vectors(t, "solana", "solana.jsonl")
	v1, _ := vectors(t, "solana", "solana_v1.jsonl")
	for _, row := range append(messages, v1...) {
		bad = append(bad, strings.Replace(row, `"messageHex"`, `"payloadHex"`, 1))
	}
	for i, a := range ask(t, signMessage, bad...) {
		if a.OK || !strings.Contains(a.Error.Message, "transaction") {
			t.Errorf("row %d: %+v", i, a)
		}
	}
}

// What stands alone is hexadecimal, with or without 0x, or base64.
func TestSolanaMessagesThatStandAlone(t *testing.T) {
	_, rows := vectors(t, "solana", "solana.jsonl")
	k, err := Find(string(chains.KindSolanaMessage))
	if err != nil {
		t.Fatal(err)
	}
	var first string
	for _, in := range []string{rows[0]["messageHex"].(string), "0x" + rows[0]["messageHex"].(string), rows[0]["message"].(string)} {
		said, err := k.Summary([]byte(in))
		if err != nil || !strings.HasPrefix(said, "send ") || first != "" && said != first {
			t.Errorf("%.20s: %q, %v", in, said, err)
		}
		first = said
	}
}

func TestSolanaIDLs(t *testing.T) {
	_, rows := vectors(t, "solana", "solana_traps.jsonl")
	var in string
	for _, r := range rows {
		if strings.HasPrefix(r["name"].(string), "unknown-program") {
			in = r["messageHex"].(string)
		}
	}
	before := ask(t, chains.KindSolanaMessage, `{"messageHex":"`+in+`"}`)[0]
	first := before.View["instructions"].([]any)[0].(map[string]any)
	var discriminator []string
	data := first["instruction_data_hex"].(string)
	for i := 0; i+1 < len(data); i += 2 {
		discriminator = append(discriminator, fmt.Sprint(mustByte(t, data[i:i+2])))
	}
	idl := fmt.Sprintf(`{"name":"x","instructions":[{"name":"go","discriminator":[%s],"accounts":[],"args":[]}]}`, strings.Join(discriminator, ","))
	quoted, err := json.Marshal(idl)
	if err != nil {
		t.Fatal(err)
	}
	program := first["program_key"].(string)
	for _, given := range []string{idl, string(quoted)} {
		a := ask(t, chains.KindSolanaMessage, fmt.Sprintf(`{"messageHex":%q,"idls":{%q:%s}}`, in, program, given))[0]
		parsed, _ := a.View["instructions"].([]any)[0].(map[string]any)["parsed_instruction_data"].(map[string]any)
		if !a.OK || !a.Opaque || parsed["instruction_name"] != "go" {
			t.Errorf("%+v", a)
		}
	}
	for _, bad := range []string{`[]`, `{"x":{}}`, fmt.Sprintf(`{%q:{}}`, program), `{"11111111111111111111111111111111":` + idl + `}`} {
		if a := ask(t, chains.KindSolanaMessage, fmt.Sprintf(`{"messageHex":%q,"idls":%s}`, in, bad))[0]; a.OK {
			t.Errorf("%s: %+v", bad, a)
		}
	}
}

func mustByte(t *testing.T, s string) (b byte) {
	if _, err := fmt.Sscanf(s, "%02x", &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSolanaLookupTables(t *testing.T) {
	_, rows := vectors(t, "solana", "solana.jsonl")
	var good map[string]any
	for _, r := range rows {
		if l, ok := r["addressTableLookups"].([]any); ok && len(l) > 0 && good == nil {
			good = r
		}
	}
	row := func(tables any) string {
		r := map[string]any{"id": 1, "messageHex": good["messageHex"]}
		if tables != "absent" {
			r["lookupTables"] = tables
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	given := good["lookupTables"].(map[string]any)
	var used string
	for _, l := range good["addressTableLookups"].([]any) {
		used = l.(map[string]any)["key"].(string)
	}
	with := func(entries any) map[string]any {
		out := map[string]any{}
		for k, v := range given {
			out[k] = v
		}
		out[used] = entries
		return out
	}
	a := ask(t, chains.KindSolanaMessage, row("absent"), row(given), row(nil), row(map[string]any{}), row(with([]any{})),
		row(with([]any{"x"})), row(with("x")), row(map[string]any{"x": []any{}}), row([]any{}), row(with(given[used].([]any)[:1])))
	for i, want := range []struct{ ok, opaque bool }{{true, true}, {true, false}, {true, true}} {
		if a[i].OK != want.ok || a[i].Opaque != want.opaque {
			t.Errorf("row %d: %+v", i, a[i])
		}
	}
	for i, x := range a[3:] {
		if x.OK {
			t.Errorf("row %d: %+v", i+3, x)
		}
	}
}
