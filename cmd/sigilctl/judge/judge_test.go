package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/policy"
)

// said is an answer of Check or Evaluate as a reader sees it.
type said struct {
	ID       any
	OK       bool
	Outcome  string
	Rule     string
	Policies []verdict
	Error    *problem
	Errors   []problem
	Lints    []problem
}

func ask(t testing.TB, verb func(in *strings.Reader, out *bytes.Buffer) error, rows ...string) []said {
	t.Helper()
	var out bytes.Buffer
	if err := verb(strings.NewReader(strings.Join(rows, "\n")), &out); err != nil {
		t.Fatal(err)
	}
	var answers []said
	for line := range strings.Lines(out.String()) {
		var a said
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%.200s: %v", line, err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(rows) {
		t.Fatalf("%d answers to %d rows", len(answers), len(rows))
	}
	return answers
}

func check(in *strings.Reader, out *bytes.Buffer) error    { return Check(in, out) }
func evaluate(in *strings.Reader, out *bytes.Buffer) error { return Evaluate(in, out) }

// corpus is the file of package policy's tests; rows of it are what Evaluate reads.
func corpus(t testing.TB) (c struct {
	Cases []struct {
		ID       string
		Policies json.RawMessage
		Allow    corpusSide
		Deny     corpusSide
	}
	RejectAtCreation []json.RawMessage
}) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "policy", "testdata", "turnkey_policies.json"))
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer // a row is one line
	if err := errors.Join(json.Compact(&line, b), json.Unmarshal(line.Bytes(), &c)); err != nil {
		t.Fatal(err)
	}
	if len(c.Cases) == 0 || len(c.RejectAtCreation) == 0 {
		t.Fatal("the corpus is empty")
	}
	return c
}

type corpusSide struct {
	Request json.RawMessage
	Expect  string
	Per     []string
}

func TestEvaluateDecidesTheCorpus(t *testing.T) {
	for _, c := range corpus(t).Cases {
		for name, side := range map[string]corpusSide{"allow": c.Allow, "deny": c.Deny} {
			a := ask(t, evaluate, `{"id":"`+c.ID+`","policies":`+string(c.Policies)+`,"request":`+string(side.Request)+`}`)[0]
			if a.ID != c.ID || a.Outcome != side.Expect || a.Error != nil {
				t.Errorf("%s %s: got %s %+v, want %s", c.ID, name, a.Outcome, a.Error, side.Expect)
				continue
			}
			for i, want := range side.Per {
				want, _, _ = strings.Cut(want, ":")
				got := a.Policies[i].Outcome
				if got == "NOT_APPLICABLE" {
					got = "NO_MATCH" // the corpus has one word for both
				}
				if got != want {
					t.Errorf("%s %s: policy %d: got %+v, want %s", c.ID, name, i, a.Policies[i], want)
				}
			}
		}
	}
}

func TestCheckRefusesWhatMustNotCompile(t *testing.T) {
	for _, row := range corpus(t).RejectAtCreation {
		a := ask(t, check, string(row))[0]
		if a.OK || a.Error == nil || a.Error.Code == "" || a.Error.Offset < 0 || a.Error.Clause != policy.ClauseCondition || len(a.Errors) == 0 {
			t.Errorf("%.60s: %+v", row, a)
		}
	}
}

func TestCheckSaysHoles(t *testing.T) {
	a := ask(t, check, `{"id":7,"condition":"solana.tx.transfers.all(t, t.amount < 5)"}`,
		`{"id":8,"effect":"EFFECT_DENY","condition":"solana.tx.transfers.all(t, t.amount < 5)"}`,
		`{"id":9,"condition":"caller.uid == 0"}`, `{"id":10,"condition":"caller.uid == 0","lang":"sigild","note":"ignored"}`)
	if !a[0].OK || a[0].ID != 7.0 || len(a[0].Lints) != 2 || a[0].Lints[1].Code != policy.CodeEmptyAll {
		t.Errorf("an ALLOW: %+v", a[0])
	}
	if !a[1].OK || len(a[1].Lints) != 0 {
		t.Errorf("a DENY: %+v", a[1])
	}
	if a[2].OK || a[2].Error.Code != policy.CodeWrongClause || !a[3].OK {
		t.Errorf("the language: %+v, %+v", a[2], a[3])
	}
}

func TestBadRowsAreAnswered(t *testing.T) {
	for _, row := range []string{`x`, `[]`, `{"id":1,"condition":5}`, `{"id":1,"condition":"true","effect":"ALLOW"}`, `{"id":1,"condition":"true","condition":"false"}`, `{"id":1,"lang":"rego"}`} {
		if a := ask(t, check, row)[0]; a.OK || a.Error == nil || a.Error.Code == "" || a.Error.Message == "" {
			t.Errorf("checking %s: %+v", row, a)
		}
	}
	allow := `{"id":1,"policies":[{"effect":"EFFECT_ALLOW","condition":"true"}],"request":`
	for _, row := range []string{`x`, `{"id":1,"policies":5}`, `{"id":1,"policies":[{"condition":"true"}],"request":{}}`,
		`{"id":1,"policies":[{"effect":"EFFECT_ALLOW","condition":"tru"}],"request":{}}`,
		allow + `5}`, allow + `{"raw":{}}` + `,"request":1}`,
		allow + `{"raw":{"chain":"evm"}}}`, allow + `{"raw":{"unsigned":"0x"}}}`, allow + `{"raw":{"chain":"tron","unsigned":"0x"}}}`,
		allow + `{"raw":{"chain":"evm","unsigned":"0x"}}}`, allow + `{"raw":{"chain":"evm","unsigned":"0x","hash":"0x"}}}`,
		allow + `{"raw":{"chain":"solana","message":"AAAA","signer":"x"}}}`,
		allow + `{"wallet_account":{"address":"x"}}}`, allow + `{"wallet_account":{"address":"0x12"}}}`, allow + `{"time":"yesterday"}}`} {
		if a := ask(t, evaluate, row)[0]; a.Outcome != "DENY_ERROR" || a.Error == nil || a.Error.Code == "" || a.Error.Message == "" {
			t.Errorf("evaluating %s: %+v", row, a)
		}
	}
	// Without policies nothing is allowed; without a payload only what reads none can be.
	if a := ask(t, evaluate, `{"id":1,"request":{}}`, allow+`{}}`); a[0].Outcome != "DENY_IMPLICIT" || a[1].Outcome != "ALLOW" {
		t.Errorf("no policies: %+v; no payload: %+v", a[0], a[1])
	}
}

func TestEveryFormOfPayloadIsRead(t *testing.T) {
	row := func(condition, raw string) string {
		return `{"id":1,"policies":[{"effect":"EFFECT_ALLOW","condition":"` + condition + `"}],"request":{"activity":{"type":"ACTIVITY_TYPE_SIGN_RAW_PAYLOAD_V2"},"raw":{` + raw + `}}}`
	}
	const to = "0xd8da6bf26964af9d7eed9e03e53415d37aa96045"
	for _, r := range []string{
		row("eth.eip_7702_authorization.address == '"+to+"' && eth.eip_7702_authorization.chain_id == 1 && eth.eip_7702_authorization.nonce == 7", `"chain":"evm","authorization":{"chainId":"1","address":"`+to+`","nonce":"7"}`),
		row("eth.eip_7702_authorization.chain_id == 10", `"chain":"evm","authorization":{"chainId":10,"address":"`+to+`","nonce":0}`),
		row("activity.type == 'ACTIVITY_TYPE_SIGN_RAW_PAYLOAD_V2'", `"chain":"evm","hash":"0x`+strings.Repeat("ab", 32)+`"`),
		row("eth.eip_712.primary_type == 'Mail' && eth.eip_712.domain.chain_id == 1 && eth.eip_712.message['n'] == 5", `"chain":"evm","typedData":{"types":{"EIP712Domain":[{"name":"chainId","type":"uint256"}],"Mail":[{"name":"n","type":"uint8"}]},"primaryType":"Mail","domain":{"chainId":1},"message":{"n":5}}`),
	} {
		if a := ask(t, evaluate, r)[0]; a.Outcome != "ALLOW" || a.Error != nil {
			t.Errorf("%s: %+v %+v", r, a, a.Error)
		}
	}
	// A message has roots of its own or none: what reads another is not applicable.
	r := row("eth.tx.value == 0", `"chain":"evm","message":"0x68656c6c6f"`)
	if a := ask(t, evaluate, r)[0]; a.Outcome != "DENY_IMPLICIT" || a.Error != nil || a.Policies[0].Outcome != "NOT_APPLICABLE" {
		t.Errorf("%s: %+v %+v", r, a, a.Error)
	}
}

func TestViewOfARowIsIgnored(t *testing.T) {
	row := `{"id":1,"policies":[{"effect":"EFFECT_ALLOW","condition":"eth.tx.value == 5"}],"request":{"view":{"eth":{"tx":{"value":5}}},` +
		`"raw":{"chain":"evm","unsigned":"0xdf800182520894d8da6bf26964af9d7eed9e03e53415d37aa960450180018080","view":{"eth":{"tx":{"value":5}}}}}}`
	if a := ask(t, evaluate, row, strings.Replace(row, "value == 5", "value == 1", 1)); a[0].Outcome != "DENY_IMPLICIT" || a[1].Outcome != "ALLOW" {
		t.Errorf("claimed: %+v; true: %+v", a[0], a[1])
	}
}

func TestFilesRoundTrip(t *testing.T) {
	const text = `{"policies":[{"id":"a","name":"<b> & c","effect":"EFFECT_ALLOW","condition":"eth.tx.to == '0x00000000219ab540356cBB839Cbe05303d7705Fa'"},
 {"id":"d","effect":"EFFECT_DENY","condition":"eth.tx.chain_id != 1","time":"CronSpan('0 9 * * *', '8h', 'UTC')"}],
 "limits":[{"id":"l","asset":"eip155:1/slip44:60","max":"5","window_seconds":3600}]}`
	f, err := ReadFile(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var once, twice bytes.Buffer
	if err := f.Write(&once); err != nil {
		t.Fatal(err)
	}
	g, err := ReadFile(bytes.NewReader(once.Bytes()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, &once)
	}
	if err := g.Write(&twice); err != nil || once.String() != twice.String() {
		t.Errorf("%v; written twice:\n%s\n%s", err, &once, &twice)
	}
	var said bytes.Buffer
	set, err := g.Report(&said)
	if err != nil || set == nil || !strings.Contains(said.String(), "policies: 2, limits: 1, errors: 0,") {
		t.Errorf("%v: %s", err, &said)
	}
	for _, bad := range []string{"", "[]", `{"policies":[]}{}`, `{"policy":[]}`, `{"policies":[{"id":"a"}]}`, `{"policies":[{"id":"a","effect":"EFFECT_ALLOW","note":1}]}`} {
		if _, err := ReadFile(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestReportMarksThePlace(t *testing.T) {
	f := File{Policies: []policy.Policy{{ID: "p", Effect: policy.Allow, Condition: "eth.tx.chain_id == 1 &&\n\teth.tx.gasPrice < 5"}}}
	var said bytes.Buffer
	if _, err := f.Report(&said); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	want := "     eth.tx.gasPrice < 5\n     ^\n    hint: did you mean gas_price?\n"
	if !strings.Contains(said.String(), want) {
		t.Errorf("got:\n%s\nwant in it:\n%s", &said, want)
	}
}

func TestExplainNamesTheExpression(t *testing.T) {
	set, ds := policy.Compile([]policy.Policy{{ID: "small", Effect: policy.Allow, Condition: "eth.tx.chain_id == 1 && eth.tx.value > 5"}}, nil, nil)
	if set == nil {
		t.Fatal(ds)
	}
	var said bytes.Buffer
	outcome, err := Explain(set, []byte(`{"raw":{"chain":"evm","unsigned":"0xdf800182520894d8da6bf26964af9d7eed9e03e53415d37aa960450180018080"}}`), &said)
	if err != nil || outcome != policy.DenyImplicit || !strings.Contains(said.String(), "condition: eth.tx.value > 5") {
		t.Errorf("%v, %v:\n%s", outcome, err, &said)
	}
	if _, err := Explain(set, []byte(`{"raw":{"chain":"evm"}}`), &said); err == nil {
		t.Error("a request without a payload was explained")
	}
}

func TestImportTurnkey(t *testing.T) {
	const one = `{"policyId":"3c4f","policyName":"Payouts","effect":"EFFECT_ALLOW","createdAt":{"seconds":"1","nanos":"0"},"notes":"x",
		"condition":"eth.tx.to == '0x00000000219ab540356cBB839Cbe05303d7705Fa'","consensus":"approvers.any(user, user.id == 'u')"}`
	for _, text := range []string{`{"policies":[` + one + `]}`, `[` + one + `]`} {
		f, err := ImportTurnkey(strings.NewReader(text))
		if err != nil || len(f.Policies) != 1 {
			t.Fatalf("%v: %+v", err, f)
		}
		if p := f.Policies[0]; p.ID != "3c4f" || p.Name != "Payouts" || p.Effect != policy.Allow || p.Lang != policy.LangTurnkey || p.Consensus == "" {
			t.Errorf("%+v", p)
		}
	}
	for _, bad := range []string{"", "{}", "5", `{"policies":[{"effect":"EFFECT_ALLOW"}]}`, `{"policies":[{"policyId":"a","effect":"ALLOW"}]}`} {
		if _, err := ImportTurnkey(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was imported", bad)
		}
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add([]byte(`{"id":1,"policies":[{"effect":"EFFECT_ALLOW","condition":"true"}],"request":{"raw":{"chain":"evm","hash":"0x"}}}`))
	for _, c := range corpus(f).Cases[:4] {
		f.Add([]byte(`{"id":1,"policies":` + string(c.Policies) + `,"request":` + string(c.Allow.Request) + `}`))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		line = bytes.ReplaceAll(line, []byte("\n"), []byte(" "))
		if len(bytes.TrimSpace(line)) == 0 {
			return
		}
		ask(t, evaluate, string(line))
		ask(t, check, string(line))
	})
}
