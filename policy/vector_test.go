package policy

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// later names the cases of the corpus that this build cannot decide, by what is
// missing. They must be refused: not compile, not decode, or be denied. A case
// that starts to work must be taken off the list, and the test says so.
var later = map[string]string{}

type corpus struct {
	Cases []struct {
		ID       string
		Policies []struct{ Effect, Condition, Consensus, Time string }
		Allow    corpusSide
		Deny     corpusSide
	}
	RejectAtCreation []struct{ Condition, Why string }
}

type corpusSide struct {
	Request struct {
		Raw *struct {
			Chain, Unsigned, Message, Signer, Hash string
			TypedData                              json.RawMessage
			ABIs                                   map[string]json.RawMessage
		}
		Activity struct {
			Type, Kind, Resource, Action string
			Params                       ActivityParams
		}
		Approvers []struct {
			ID, Email, Alias string
			Tags             []string
		}
		Credentials []struct {
			ID           string
			UserID       string `json:"user_id"`
			Type         string
			CredentialID string `json:"credential_id"`
			PublicKey    string `json:"public_key"`
		}
		Wallet        *Wallet
		WalletAccount *struct{ Address string } `json:"wallet_account"`
		Time          time.Time
	}
	Expect string
	Per    []string
}

func readCorpus(t testing.TB) corpus {
	t.Helper()
	b, err := os.ReadFile("testdata/turnkey_policies.json")
	if err != nil {
		t.Fatal(err)
	}
	var c corpus
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Cases) == 0 || len(c.RejectAtCreation) == 0 {
		t.Fatal("the corpus is empty")
	}
	return c
}

// request decodes the payload with our own decoders. Payloads that this build
// does not decode are left out: only rules that do not read them can hold then.
func (side *corpusSide) request(t *testing.T) (req Request) {
	t.Helper()
	r := &side.Request
	a := r.Activity
	req.Activity = Activity{a.Type, a.Kind, a.Resource, a.Action, a.Params}
	for _, u := range r.Approvers {
		req.Approvers = append(req.Approvers, User{ID: u.ID, Email: u.Email, Alias: u.Alias, Tags: u.Tags})
	}
	for _, c := range r.Credentials {
		req.Credentials = append(req.Credentials, Credential(c))
	}
	req.Wallet = r.Wallet
	if r.WalletAccount != nil {
		req.WalletAccount = &WalletAccount{Address: address(t, r.WalletAccount.Address)}
	}
	req.Now = r.Time
	if req.Now.IsZero() {
		req.Now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	}
	if r.Raw == nil {
		return req
	}
	var err error
	switch {
	case r.Raw.Unsigned != "":
		b, e := hex.DecodeString(strings.TrimPrefix(r.Raw.Unsigned, "0x"))
		signer, e2 := evm.ParseAddress(r.Raw.Signer)
		if e != nil || e2 != nil {
			t.Fatal(e, e2)
		}
		req.Decoded, err = evm.Decode(chains.KindEVMTransaction, b, evm.Options{Wallet: signer, ABIs: abis(t, r.Raw.ABIs)})
	case r.Raw.TypedData != nil:
		req.Decoded, err = evm.Decode(chains.KindEVMTypedData, r.Raw.TypedData, evm.Options{})
	case r.Raw.Message != "":
		b, e := base64.StdEncoding.DecodeString(r.Raw.Message)
		signer, e2 := solana.ParseAddress(r.Raw.Signer)
		if e != nil || e2 != nil {
			t.Fatal(e, e2)
		}
		req.Decoded, err = solana.Decode(b, signer, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", solana.Known{})
	}
	if err != nil {
		t.Fatalf("decoding: %v", err)
	}
	return req
}

// abis are those that the owner has set for contracts on chain 1.
func abis(t *testing.T, texts map[string]json.RawMessage) *evm.ABIs {
	t.Helper()
	var list []evm.ABI
	for contract, text := range texts {
		a, err := evm.ParseAddress(contract)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, evm.ABI{ChainID: *uint256.NewInt(1), Address: a, JSON: text})
	}
	set, err := evm.NewABIs(list)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTurnkeyCorpus(t *testing.T) {
	decided := 0
	for _, c := range readCorpus(t).Cases {
		t.Run(c.ID, func(t *testing.T) {
			var ps []Policy
			for i, p := range c.Policies {
				var e Effect
				if err := e.UnmarshalText([]byte(p.Effect)); err != nil {
					t.Fatal(err)
				}
				ps = append(ps, Policy{ID: string(rune('a' + i)), Effect: e, Condition: p.Condition, Consensus: p.Consensus, Time: p.Time})
			}
			set, ds := Compile(ps, nil, nil)
			if set == nil {
				if later[c.ID] == "" {
					t.Fatalf("compiling: %v", ds)
				}
				for _, d := range ds {
					if d.Severity == SeverityError && d.Code != CodeUnsupported {
						t.Errorf("%s, but it does not compile for another reason: %v", later[c.ID], d)
					}
				}
				return
			}
			works := true
			for _, side := range []corpusSide{c.Allow, c.Deny} {
				d := set.Evaluate(side.request(t))
				if d.Outcome.String() != side.Expect {
					works = false
				}
				if later[c.ID] != "" {
					if side.Expect != "ALLOW" && d.Outcome == Allowed {
						t.Errorf("%s; until then: got %v, want a refusal", later[c.ID], d.Outcome)
					}
					continue
				}
				if d.Outcome.String() != side.Expect {
					t.Errorf("got %v (%s), want %s", d.Outcome, d.Reason, side.Expect)
				}
				for i, want := range side.Per {
					if got := corpusWord(&d.Policies[i]); got != strings.SplitN(want, ":", 2)[0] {
						t.Errorf("policy %d: got %s (%s), want %s", i, got, d.Policies[i].Error, want)
					}
				}
				decided++
			}
			if works && later[c.ID] != "" {
				t.Errorf("works now: take it off the list (%s)", later[c.ID])
			}
		})
	}
	if decided < 24 {
		t.Errorf("only %d requests were decided", decided)
	}
}

// corpusWord spells the outcome of one policy as the corpus does.
func corpusWord(r *PolicyResult) string {
	switch {
	case r.Outcome == Matched && r.Effect == Allow:
		return "ALLOW"
	case r.Outcome == Matched:
		return "DENY"
	case r.Outcome == Failed && r.Effect == Deny:
		return "ERROR_DENY"
	case r.Outcome == NotApplicable:
		return "NO_MATCH"
	}
	return r.Outcome.String()
}

func TestTurnkeyRejects(t *testing.T) {
	for _, r := range readCorpus(t).RejectAtCreation {
		errs := errorsOf(t, allow(r.Condition))
		if len(errs) == 0 {
			t.Errorf("%.60s compiled: %s", r.Condition, r.Why)
			continue
		}
		if errs[0].Offset < 0 {
			t.Errorf("%.60s: no position in %v", r.Condition, errs[0])
		}
	}
}

func TestCorpusListNamesOnlyItsCases(t *testing.T) {
	known := map[string]bool{}
	for _, c := range readCorpus(t).Cases {
		known[c.ID] = true
	}
	for id := range later {
		if !known[id] {
			t.Errorf("%s is no case of the corpus", id)
		}
	}
}

// A view built by the decoders is laid out as the policies of this package read it.
func TestDecodersConformToTheSchema(t *testing.T) {
	seen := 0
	for _, c := range readCorpus(t).Cases {
		req := c.Allow.request(t)
		if req.Decoded == nil {
			continue
		}
		for name, v := range req.Decoded.View {
			i, ok := StandardSchema().byName[name]
			if !ok {
				t.Errorf("%s: the view has %s, the schema does not", c.ID, name)
				continue
			}
			if err := StandardSchema().roots[i].Type.Conform(v); err != nil || v.Kind == chains.KindAbsent {
				t.Errorf("%s: %s: %v", c.ID, name, err)
			}
			seen++
		}
	}
	if seen == 0 {
		t.Error("no view was looked at")
	}
}
