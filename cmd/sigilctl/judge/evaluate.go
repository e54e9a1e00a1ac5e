package judge

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/cmd/sigilctl/decode"
	"github.com/sigild/sigild/policy"
)

// A request as a row has it. Members that are not here, `view` and `digest` among
// them, are ignored: what a payload says comes from its bytes.
type request struct {
	Raw      decode.Row
	Activity struct {
		Type, Kind, Resource, Action string
		Params                       policy.ActivityParams
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
	Wallet        *policy.Wallet
	WalletAccount *struct{ Address string } `json:"wallet_account"`
	PrivateKey    *policy.PrivateKey        `json:"private_key"`
	Time          *time.Time
}

// evaluated answers a row of Evaluate.
type evaluated struct {
	ID      json.RawMessage `json:"id"`
	Outcome policy.Outcome  `json:"outcome"`
	// Rule is the policy that decided, absent when none did.
	Rule     string    `json:"rule,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Policies []verdict `json:"policies"`
	Error    *problem  `json:"error,omitempty"`
	Errors   []problem `json:"errors,omitempty"`
}

// verdict is what became of one policy, in the order of the row. Outcome is ALLOW or
// DENY for one that holds, else NO_MATCH, NOT_APPLICABLE, TIME_INACTIVE,
// REQUIRES_CONSENSUS, ERROR, or ERROR_DENY for a DENY that could not be evaluated.
type verdict struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Clause  string `json:"clause,omitempty"`
	Expr    string `json:"expr,omitempty"`
	Offset  int    `json:"offset,omitempty"`
	Error   string `json:"error,omitempty"`
}

func verdictOf(r *policy.PolicyResult) verdict {
	v := verdict{ID: r.ID, Outcome: r.Outcome.String(), Clause: r.Clause, Expr: r.Expr, Offset: r.Offset, Error: r.Error}
	switch {
	case r.Outcome == policy.Matched && r.Effect == policy.Allow:
		v.Outcome = "ALLOW"
	case r.Outcome == policy.Matched:
		v.Outcome = "DENY"
	case r.Outcome == policy.Failed && r.Effect == policy.Deny:
		v.Outcome = "ERROR_DENY"
	}
	return v
}

// Evaluate decides each row of in, {"id","policies":[{"effect","condition",
// "consensus","time"}],"request":{…}}, and answers {"id","outcome","policies":[…]}.
// What can't be compiled or decoded is DENY_ERROR, with an error that says why.
func Evaluate(in io.Reader, out io.Writer) error {
	return decode.Lines(in, out, evaluateRow, func(err error) any { return broken(nil, asProblem(err)) })
}

func broken(id json.RawMessage, p *problem) evaluated {
	return evaluated{ID: id, Outcome: policy.DenyError, Policies: []verdict{}, Error: p}
}

func evaluateRow(line []byte) any {
	row, err := decode.ParseRow(line)
	id := row["id"]
	if err != nil {
		return broken(id, asProblem(err))
	}
	// Step 1: the policies, numbered so that the order of their ids is that of the row.
	var texts []clauses
	if err := read(row, "policies", &texts); err != nil {
		return broken(id, asProblem(err))
	}
	policies := make([]policy.Policy, len(texts))
	for i, c := range texts {
		if policies[i], err = c.policy(fmt.Sprintf("policy-%06d", i), policy.Deny); err != nil {
			return broken(id, asProblem(err))
		}
		if c.Effect == nil {
			return broken(id, asProblem(decode.Malformed(-1, "policy %d has no effect", i)))
		}
	}
	set, ds := policy.Compile(policies, nil, nil)
	if set == nil {
		first, all, _ := split(ds)
		a := broken(id, first)
		a.Errors = all
		return a
	}
	// Step 2: the request, its payload from the bytes.
	var in request
	if err := read(row, "request", &in); err != nil {
		return broken(id, asProblem(err))
	}
	req, err := in.request()
	if err != nil {
		return broken(id, asProblem(err))
	}
	// Step 3: the decision.
	d := set.Evaluate(req)
	a := evaluated{ID: id, Outcome: d.Outcome, Rule: d.Rule, Reason: d.Reason, Policies: []verdict{}}
	for i := range d.Policies {
		a.Policies = append(a.Policies, verdictOf(&d.Policies[i]))
	}
	return a
}

func (in *request) request() (req policy.Request, err error) {
	req.Activity = policy.Activity(in.Activity)
	for _, u := range in.Approvers {
		req.Approvers = append(req.Approvers, policy.User(u))
	}
	for _, c := range in.Credentials {
		req.Credentials = append(req.Credentials, policy.Credential(c))
	}
	req.Wallet, req.PrivateKey = in.Wallet, in.PrivateKey
	if in.WalletAccount != nil {
		address, err := account(in.WalletAccount.Address)
		if err != nil {
			return req, err
		}
		req.WalletAccount = &policy.WalletAccount{Address: address}
	}
	if in.Time != nil {
		req.Now = *in.Time
	}
	req.Decoded, err = payload(in.Raw)
	return req, err
}

// account reads an address of either chain family.
func account(text string) (chains.Value, error) {
	if strings.HasPrefix(text, "0x") {
		a, err := evm.ParseAddress(text)
		if err != nil {
			return chains.Value{}, decode.Malformed(-1, "wallet_account.address is no address")
		}
		return chains.AddressValue(a), nil
	}
	k, err := solana.ParseAddress(text)
	if err != nil {
		return chains.Value{}, decode.Malformed(-1, "wallet_account.address is no address")
	}
	return chains.PubkeyValue(k), nil
}

// payload decodes what raw holds: nothing (nil) when it is not there or only the
// hash of something.
func payload(raw decode.Row) (*chains.Decoded, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	chain, err := raw.Text("chain")
	if err != nil {
		return nil, err
	}
	var found *form
	for i := range forms {
		f := &forms[i]
		if _, ok := raw[f.member]; !ok || f.chain != chain {
			continue
		}
		if found != nil {
			return nil, decode.Malformed(-1, "raw has both %q and %q", found.member, f.member)
		}
		found = f
	}
	switch {
	case found == nil:
		return nil, decode.Malformed(-1, "raw has no payload of chain %q", chain)
	case found.kind == "":
		return nil, nil
	}
	kind, err := decode.Find(string(found.kind))
	if err != nil {
		return nil, decode.Malformed(-1, "%v", err)
	}
	row, err := found.row(raw)
	if err != nil {
		return nil, err
	}
	return kind.Run(row)
}

// form is how a row's raw holds one kind of payload.
type form struct {
	chain, member string
	kind          chains.Kind // "" for a bare hash, of which nothing is known
}

var forms = []form{
	{"evm", "unsigned", chains.KindEVMTransaction},
	{"evm", "typedData", "evm.typed_data"},
	{"evm", "authorization", "evm.authorization"},
	{"evm", "message", "evm.message"},
	{"evm", "hash", ""},
	{"solana", "message", chains.KindSolanaMessage},
	{"solana", "hash", ""},
}

// row makes the row that decode reads. The signer is the wallet, abis and idls are
// what its organization registered, and lookup tables what it pinned.
func (f *form) row(raw decode.Row) (decode.Row, error) {
	row := decode.Row{}
	for _, member := range []string{f.member, "abis", "idls", "lookupTables"} {
		if v, ok := raw[member]; ok {
			row[member] = v
		}
	}
	if v, ok := raw["signer"]; ok {
		row["signer"], row["from"] = v, v
	}
	switch f.kind {
	case "evm.authorization":
		var fields decode.Row
		if err := json.Unmarshal(raw[f.member], &fields); err != nil {
			return nil, decode.Malformed(-1, "raw.authorization is no object")
		}
		for name, v := range fields {
			row[name] = v
		}
	case "evm.message":
		row["bytes"] = raw[f.member]
	}
	return row, nil
}
