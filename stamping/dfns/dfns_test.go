package dfns

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/stamping/body"
)

const (
	walletID  = "wa-6uunn-bm6ja-f6rmod5kqrk5rbel"
	cluster   = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
	challenge = "MWM0MmY5YTQ0MDRiNzdhNTFhNzY5ODQwNWI5ZTQ4Y2RhODZiNDk3ZTYzOTE5OGYyMDcxZjBjYzk4MmQ5YzY1MA"
)

var (
	onEVM    = Binding{SignWith: walletID, Chain: "eip155"}
	onSolana = Binding{SignWith: walletID, Chain: cluster}
	wire     = hex.EncodeToString(append(append([]byte{1}, make([]byte, 64)...), 0x80, 1, 0, 1, 3))
)

func post(what, text string) Request {
	return Request{Method: "POST", Path: "/wallets/" + walletID + "/" + what, Body: []byte(text), Challenge: challenge}
}

// mail is the example of EIP-712, as Dfns takes it.
const mail = `{"kind":"Eip712","types":{"Person":[{"name":"name","type":"string"},{"name":"wallet","type":"address"}],` +
	`"Mail":[{"name":"from","type":"Person"},{"name":"to","type":"Person"},{"name":"contents","type":"string"}]},` +
	`"domain":{"name":"Ether Mail","version":"1","chainId":1,"verifyingContract":"0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"},` +
	`"message":{"from":{"name":"Cow","wallet":"0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},"to":{"name":"Bob","wallet":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},"contents":"Hello, Bob!"}}`

func TestReadsWhatSigns(t *testing.T) {
	tests := []struct {
		name    string
		binding Binding
		request Request
		kind    chains.Kind
		payload string
	}{
		{"an EVM transaction", onEVM, post("signatures", `{"kind":"Transaction","transaction":"0x02c0"}`), chains.KindEVMTransaction, "\x02\xc0"},
		{"to broadcast", onEVM, post("transactions", `{"kind":"Transaction","transaction":"0x02c0","externalId":"payout-1"}`), chains.KindEVMTransaction, "\x02\xc0"},
		{"a Solana transaction", onSolana, post("transactions", `{"kind":"Transaction","transaction":"0x`+wire+`"}`), chains.KindSolanaMessage, "\x80\x01\x00\x01\x03"},
		{"a message of EIP-191", onEVM, post("signatures", `{"kind":"Eip191","message":"0x68656c6c6f"}`), chains.KindEVMMessage, "hello"},
		{"a Solana text", onSolana, post("signatures", `{"kind":"Message","message":"0x68656c6c6f"}`), chains.KindSolanaOffchain, "hello"},
		{"an authorization", onEVM, post("signatures", `{"kind":"Eip7702","address":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB","nonce":7,"chainId":1}`), chains.KindEVMAuthorization,
			`{"chainId":1,"address":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB","nonce":7}`},
		{"with a network", onSolana, post("signatures", `{"kind":"Message","message":"0x68","network":"Solana","blockchainKind":"Solana"}`), chains.KindSolanaOffchain, "h"},
		{"with an EVM network", onEVM, post("signatures", `{"kind":"Transaction","transaction":"02c0","network":"Base","blockchainKind":"Evm"}`), chains.KindEVMTransaction, "\x02\xc0"},
		{"a key's", Binding{SignWith: "key-1", Chain: "eip155"}, Request{Method: "POST", Path: "/keys/key-1/signatures", Body: []byte(`{"kind":"Transaction","transaction":"02c0"}`)}, chains.KindEVMTransaction, "\x02\xc0"},
	}
	for _, test := range tests {
		got, err := Read(test.request, test.binding)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if got.Kind != test.kind || string(got.Payload) != test.payload || !got.At.IsZero() {
			t.Errorf("%s: got %s %q", test.name, got.Kind, got.Payload)
		}
	}
}

// Typed data comes out as the text whose digest EIP-712 gives for its own example.
func TestTypedDataHasTheDigestOfTheEIP(t *testing.T) {
	asked, err := Read(post("signatures", mail), onEVM)
	if err != nil {
		t.Fatal(err)
	}
	d, err := evm.Decode(asked.Kind, asked.Payload, evm.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, asked.Payload)
	}
	if got, want := hex.EncodeToString(d.Sign.Digest[:]), "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestRefuses(t *testing.T) {
	sign := func(text string) Request { return post("signatures", text) }
	good := `{"kind":"Transaction","transaction":"0x02c0"}`
	at := func(method, path string) Request { return Request{Method: method, Path: path, Body: []byte(good)} }
	edit := func(old, new string) Request {
		out := strings.Replace(mail, old, new, 1)
		if out == mail {
			t.Fatalf("%q is not in the body", old)
		}
		return sign(out)
	}
	tests := []struct {
		name    string
		binding Binding
		request Request
		code    body.Code
	}{
		{"a policy", onEVM, at("POST", "/v2/policies"), body.NotSigning},
		{"a permission", onEVM, at("POST", "/permissions"), body.NotSigning},
		{"a credential", onEVM, at("POST", "/auth/credentials"), body.NotSigning},
		{"a personal access token", onEVM, at("POST", "/auth/pats"), body.NotSigning},
		{"a service account", onEVM, at("POST", "/auth/service-accounts"), body.NotSigning},
		{"a user", onEVM, at("POST", "/auth/users"), body.NotSigning},
		{"an approval", onEVM, at("POST", "/v2/policy-approvals/ap-1/decisions"), body.NotSigning},
		{"a new wallet", onEVM, at("POST", "/wallets"), body.NotSigning},
		{"a delegation", onEVM, at("POST", "/wallets/"+walletID+"/delegate"), body.NotSigning},
		{"an export", onEVM, at("POST", "/wallets/"+walletID+"/export"), body.NotSigning},
		{"a key's export", onEVM, at("POST", "/keys/key-1/export"), body.NotSigning},
		{"a key's delegation", onEVM, at("POST", "/keys/key-1/delegate"), body.NotSigning},
		{"a transfer, which Dfns builds", onEVM, at("POST", "/wallets/"+walletID+"/transfers"), body.NotSigning},
		{"a webhook", onEVM, at("POST", "/webhooks"), body.NotSigning},
		{"another method", onEVM, at("PUT", "/wallets/"+walletID+"/signatures"), body.NotSigning},
		{"a path with a query", onEVM, at("POST", "/wallets/"+walletID+"/signatures?x=/signatures"), body.NotSigning},
		{"a path with dots", onEVM, at("POST", "/wallets/../v2/policies/signatures"), body.NotSigning},
		{"a path with an escape", onEVM, at("POST", "/wallets/"+walletID+"%2Fx/signatures"), body.NotSigning},
		{"a longer path", onEVM, at("POST", "/wallets/"+walletID+"/x/signatures"), body.NotSigning},
		{"a key's broadcast, which there is none of", Binding{SignWith: "key-1", Chain: "eip155"}, at("POST", "/keys/key-1/transactions"), body.NotSigning},
		{"a host", onEVM, at("POST", "https://api.dfns.io/wallets/"+walletID+"/signatures"), body.NotSigning},
		{"another wallet", onEVM, at("POST", "/wallets/wa-1/signatures"), body.NotBound},
		{"a key for a wallet", onEVM, at("POST", "/keys/key-1/signatures"), body.NotBound},
		{"a wallet for a key", Binding{SignWith: "key-1", Chain: "eip155"}, at("POST", "/wallets/wa-1/signatures"), body.NotBound},
		{"nothing", onEVM, sign(""), body.Malformed},
		{"a list", onEVM, sign("[" + good + "]"), body.Malformed},
		{"kind twice", onEVM, sign(`{"kind":"Transaction","kind":"Hash","transaction":"0x02c0"}`), body.Malformed},
		{"a member that is unknown", onEVM, sign(`{"kind":"Transaction","transaction":"0x02c0","hash":"0x00"}`), body.Malformed},
		{"bytes after it", onEVM, sign(good + "{}"), body.Malformed},
		{"hex in capitals", onEVM, sign(`{"kind":"Transaction","transaction":"0x02C0"}`), body.Malformed},
		{"an id that is no text", onEVM, sign(`{"kind":"Transaction","transaction":"0x02c0","externalId":1}`), body.Malformed},
		{"a transaction as JSON", onEVM, sign(`{"kind":"Transaction","transaction":{"to":"0x00"}}`), body.Malformed},
		{"a hash", onEVM, sign(`{"kind":"Hash","hash":"0x` + strings.Repeat("ab", 32) + `"}`), body.RawDigest},
		{"a message on EVM", onEVM, sign(`{"kind":"Message","message":"0x68"}`), body.NotUnderstood},
		{"EIP-191 for Solana", onSolana, sign(`{"kind":"Eip191","message":"0x68"}`), body.NotUnderstood},
		{"EIP-712 for Solana", onSolana, sign(mail), body.NotUnderstood},
		{"EIP-7702 for Solana", onSolana, sign(`{"kind":"Eip7702","address":"0x00","nonce":1,"chainId":1}`), body.NotUnderstood},
		{"a kind of tomorrow", onEVM, sign(`{"kind":"Psbt","psbt":"0x00"}`), body.NotUnderstood},
		{"what Dfns fills in", onEVM, post("transactions", `{"kind":"Evm","to":"0x00","value":"1"}`), body.NotUnderstood},
		{"user operations", onEVM, post("transactions", `{"kind":"UserOperations","userOperations":[],"feeSponsorId":"x"}`), body.NotUnderstood},
		{"a network with a broadcast", onEVM, post("transactions", `{"kind":"Transaction","transaction":"02c0","network":"Ethereum"}`), body.Malformed},
		{"another kind of chain", onEVM, sign(`{"kind":"Transaction","transaction":"02c0","blockchainKind":"Solana"}`), body.NotBound},
		{"Solana for EVM", onEVM, sign(`{"kind":"Transaction","transaction":"02c0","network":"Solana"}`), body.NotBound},
		{"another cluster", onSolana, sign(`{"kind":"Message","message":"68","network":"SolanaDevnet"}`), body.NotBound},
		{"EVM for Solana", onSolana, sign(`{"kind":"Message","message":"68","network":"Ethereum"}`), body.NotBound},
		{"a nonce of text", onEVM, sign(`{"kind":"Eip7702","address":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB","nonce":"7","chainId":1}`), body.Malformed},
		{"a nonce with an exponent", onEVM, sign(`{"kind":"Eip7702","address":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB","nonce":7e2,"chainId":1}`), body.Malformed},
		{"typed data with two roots", onEVM, edit(`"types":{`, `"types":{"Other":[{"name":"x","type":"uint256"}],`), body.NotUnderstood},
		{"typed data without a root", onEVM, edit(`{"name":"name","type":"string"}`, `{"name":"mail","type":"Mail"}`), body.NotUnderstood},
		{"typed data with its own domain type", onEVM, edit(`"types":{`, `"types":{"EIP712Domain":[],`), body.NotUnderstood},
		{"typed data with a type of a strange name", onEVM, edit(`"types":{`, `"types":{"a\"b":[],`), body.Malformed},
		{"typed data with a field that is none", onEVM, edit(`[{"name":"name"`, `["x",{"name":"name"`), body.Malformed},
		{"a domain with more", onEVM, edit(`"domain":{`, `"domain":{"chain":1,`), body.Malformed},
		{"a primary type, which Dfns doesn't take", onEVM, edit(`"types":{`, `"primaryType":"Person","types":{`), body.Malformed},
	}
	for _, test := range tests {
		_, err := Read(test.request, test.binding)
		var bad *body.Error
		if !errors.As(err, &bad) || bad.Code != test.code {
			t.Errorf("%s: %v, want code %s", test.name, err, test.code)
		}
	}
}

func TestChallengesAreText(t *testing.T) {
	good, err := ClientData(challenge)
	if want := `{"type":"key.get","challenge":"` + challenge + `"}`; err != nil || string(good) != want {
		t.Errorf("got %s, %v; want %s", good, err, want)
	}
	for _, bad := range []string{"", "short", strings.Repeat("a", 513), challenge + `","x":"`, challenge + "=", challenge + "\n"} {
		if _, err := ClientData(bad); err == nil {
			t.Errorf("challenge %q is taken", bad)
		}
	}
}

func TestAssertionHasDfnsForm(t *testing.T) {
	text, err := Assertion("cr-1", []byte("{}"), []byte{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"kind":"Key","credentialAssertion":{"credId":"cr-1","clientData":"` + base64.RawURLEncoding.EncodeToString([]byte("{}")) + `","signature":"AQI"}}`
	if string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// A witness' statement binds each of its five parts.
func TestStatementBindsAll(t *testing.T) {
	base := post("signatures", `{}`)
	seen := map[string]string{string(Statement("vcr_1", base)): "the first"}
	for name, change := range map[string]func(*Request){
		"method": func(r *Request) { r.Method = "PUT" }, "path": func(r *Request) { r.Path += "x" },
		"body": func(r *Request) { r.Body = []byte("{ }") }, "challenge": func(r *Request) { r.Challenge += "x" },
		"shifted": func(r *Request) { r.Path, r.Challenge = r.Path+"M", r.Challenge[1:] },
	} {
		r := base
		change(&r)
		s := string(Statement("vcr_1", r))
		if other, same := seen[s]; same {
			t.Errorf("%s has the statement of %s", name, other)
		}
		seen[s] = name
	}
	if bytes.Equal(Statement("vcr_2", base), Statement("vcr_1", base)) {
		t.Error("the credential is not bound")
	}
}

// Whatever a request is, reading it is an error or a payload of the wallet's chain.
func FuzzRead(f *testing.F) {
	sign, send := "/wallets/"+walletID+"/signatures", "/wallets/"+walletID+"/transactions"
	for _, seed := range []string{
		mail, `{"kind":"Transaction","transaction":"0x02c0"}`, `{"kind":"Transaction","transaction":"0x` + wire + `"}`, `{"kind":"Eip191","message":"0x68"}`,
		`{"kind":"Message","message":"0x68","network":"Solana"}`, `{"kind":"Eip7702","address":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB","nonce":7,"chainId":1}`,
	} {
		f.Add(sign, []byte(seed), true)
		f.Add(send, []byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, path string, text []byte, onChain bool) {
		b := onSolana
		if onChain {
			b = onEVM
		}
		asked, err := Read(Request{Method: "POST", Path: path, Body: text, Challenge: challenge}, b)
		if err != nil {
			var bad *body.Error
			if !errors.As(err, &bad) {
				t.Fatalf("%v is no *body.Error", err)
			}
			return
		}
		if path != sign && path != send || len(asked.Payload) == 0 || strings.HasPrefix(string(asked.Kind), "evm.") != onChain {
			t.Fatalf("%s: read %+v", path, asked)
		}
		if asked.Kind == chains.KindEVMTypedData && !json.Valid(asked.Payload) {
			t.Fatalf("made no JSON of typed data: %s", asked.Payload)
		}
		var seen struct{ Kind string }
		if err := json.Unmarshal(text, &seen); err != nil || seen.Kind != asked.Activity {
			t.Fatalf("another reader sees %+v (%v)", seen, err)
		}
	})
}

func Example() {
	asked, err := Read(post("signatures", `{"kind":"Eip191","message":"0x68656c6c6f"}`), onEVM)
	fmt.Println(asked.Kind, string(asked.Payload), err)
	// Output: evm.message hello <nil>
}
