package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

const (
	usdc      = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
	recipient = "0x9cad63e4c09a9bd195568fc662835046c3605873"
	systemKey = "11111111111111111111111111111111"
	aliceKey  = "6x3YquGKV4tuqif7qtEft37vPtU2CqGr9SKqNjTQMQ44"
	bobKey    = "BjLSEwrikyZDPpgBkdxrM8N8UkS3tT25JPbPNNbHERLi"
	transfer  = "0xa9059cbb0000000000000000000000009cad63e4c09a9bd195568fc662835046c360587300000000000000000000000000000000000000000000000000000000000f4240"
)

// lay builds the value of a struct type; fields that are not given are absent.
func lay(t testing.TB, typ *chains.Type, fields map[string]chains.Value) chains.Value {
	t.Helper()
	v := chains.StructValue(make([]chains.Value, len(typ.Fields))...)
	for name, x := range fields {
		i := typ.Index(name)
		if i < 0 {
			t.Fatalf("type has no field %q", name)
		}
		v.List[i] = x
	}
	if err := typ.Conform(v); err != nil {
		t.Fatalf("building view: %v", err)
	}
	return v
}

func address(t testing.TB, s string) chains.Value {
	t.Helper()
	a, err := evm.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return chains.AddressValue(a)
}

func pubkey(t testing.TB, s string) chains.Value {
	t.Helper()
	k, err := solana.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return chains.PubkeyValue(k)
}

func number(t testing.TB, decimal string) chains.Value {
	t.Helper()
	n, err := uint256.FromDecimal(decimal)
	if err != nil {
		t.Fatal(err)
	}
	return chains.IntValue(n)
}

// evmRequest is a USDC transfer on chain 1; changes overrides fields of eth.tx.
func evmRequest(t testing.TB, changes map[string]chains.Value) Request {
	t.Helper()
	fields := map[string]chains.Value{
		"from":                     address(t, "0x70453f761e2b2f04d64e9f59c612d38886968b24"),
		"to":                       address(t, usdc),
		"data":                     chains.HexValue(transfer),
		"value":                    chains.Uint64Value(0),
		"gas":                      chains.Uint64Value(90000),
		"gas_price":                chains.Uint64Value(30_000_000_000),
		"chain_id":                 chains.Uint64Value(1),
		"nonce":                    chains.Uint64Value(7),
		"max_fee_per_gas":          chains.Uint64Value(30_000_000_000),
		"max_priority_fee_per_gas": chains.Uint64Value(1_000_000_000),
		"type":                     chains.StringValue("TYPE_2"),
	}
	for k, v := range changes {
		fields[k] = v
	}
	tx := lay(t, evm.TxType, fields)
	return Request{
		Decoded:       &chains.Decoded{Kind: chains.KindEVMTransaction, Chain: "eip155:1", View: chains.View{"eth.tx": tx}},
		Activity:      signActivity("TRANSACTION_TYPE_ETHEREUM"),
		Wallet:        &Wallet{ID: "w-1", Label: "main"},
		WalletAccount: &WalletAccount{Address: address(t, "0x70453f761e2b2f04d64e9f59c612d38886968b24")},
		Approvers:     []User{{ID: "u-1", Tags: []string{"ops"}, Alias: "ann"}},
		Credentials:   []Credential{{ID: "c-1", UserID: "u-1", Type: "CREDENTIAL_TYPE_API_KEY_P256", PublicKey: "02AB"}},
		Now:           time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC),
		RequestID:     "r-1",
	}
}

func signActivity(kind string) Activity {
	return Activity{Type: "ACTIVITY_TYPE_SIGN_TRANSACTION_V2", Kind: "SIGN_TRANSACTION", Resource: "PRIVATE_KEY", Action: "SIGN", Params: ActivityParams{Type: kind}}
}

// solanaRequest holds System transfers of the given amounts from alice to bob.
func solanaRequest(t testing.TB, amounts ...uint64) Request {
	t.Helper()
	fieldType := func(name string) *chains.Type { return solana.TxType.Fields[solana.TxType.Index(name)].Type }
	transfers, instructions := chains.ListValue(), chains.ListValue()
	for _, n := range amounts {
		transfers.List = append(transfers.List, lay(t, fieldType("transfers").Elem, map[string]chains.Value{
			"from": pubkey(t, aliceKey), "to": pubkey(t, bobKey), "amount": chains.Uint64Value(n)}))
		instructions.List = append(instructions.List, lay(t, fieldType("instructions").Elem, map[string]chains.Value{
			"program_key": pubkey(t, systemKey), "accounts": chains.ListValue(),
			"instruction_data_hex": chains.StringValue("02000000e803000000000000"), "address_table_lookups": chains.ListValue()}))
	}
	tx := lay(t, solana.TxType, map[string]chains.Value{
		"account_keys":          chains.ListValue(pubkey(t, aliceKey), pubkey(t, bobKey), pubkey(t, systemKey)),
		"program_keys":          chains.ListValue(pubkey(t, systemKey)),
		"instructions":          instructions,
		"transfers":             transfers,
		"spl_transfers":         chains.ListValue(),
		"recent_blockhash":      chains.StringValue("FQbRYAcrTtN8Uu5s4gmh4BD3Qk5wZsHzFMYfdWwfgydE"),
		"address_table_lookups": chains.ListValue(),
		"fee_payer":             pubkey(t, aliceKey),
	})
	r := evmRequest(t, nil)
	r.Decoded = &chains.Decoded{Kind: chains.KindSolanaMessage, Chain: "solana:mainnet", View: chains.View{"solana.tx": tx}}
	r.Activity = signActivity("TRANSACTION_TYPE_SOLANA")
	r.WalletAccount = &WalletAccount{Address: pubkey(t, aliceKey)}
	return r
}

// compileSet compiles policies that must compile.
func compileSet(t testing.TB, policies ...Policy) *Set {
	t.Helper()
	s, ds := Compile(policies, nil, nil)
	if s == nil {
		t.Fatalf("compiling: %v", ds)
	}
	return s
}

func allow(condition string) Policy { return Policy{ID: "p", Effect: Allow, Condition: condition} }

func sigild(condition string) Policy {
	return Policy{ID: "p", Effect: Allow, Condition: condition, Lang: LangSigild}
}

// outcomeOf evaluates one ALLOW policy: ALLOW, NO_MATCH, ERROR and so on.
func outcomeOf(t testing.TB, p Policy, r Request) PolicyResult {
	t.Helper()
	d := compileSet(t, p).Evaluate(r)
	if len(d.Policies) != 1 {
		t.Fatalf("got %d results, want 1: %s", len(d.Policies), d.Reason)
	}
	return d.Policies[0]
}

func TestConditionsOnEVM(t *testing.T) {
	creation := evmRequest(t, map[string]chains.Value{"to": {}, "max_fee_per_gas": {}})
	plain := evmRequest(t, map[string]chains.Value{"data": chains.HexValue("0x")})
	rows := []struct {
		text string
		req  Request
		want PolicyOutcome
	}{
		{"eth.tx.to == '" + usdc + "'", evmRequest(t, nil), Matched},
		{"eth.tx.to == '" + strings.ToLower(usdc) + "'", evmRequest(t, nil), Matched},
		{"eth.tx.to == '0x" + strings.ToUpper(usdc[2:]) + "'", evmRequest(t, nil), Matched},
		{"eth.tx.to != '" + usdc + "'", evmRequest(t, nil), NoMatch},
		{"'" + recipient + "' == eth.tx.to", evmRequest(t, nil), NoMatch},
		{"eth.tx.to in ['" + recipient + "', '" + usdc + "']", evmRequest(t, nil), Matched},
		{"['" + recipient + "'].contains(eth.tx.to)", evmRequest(t, nil), NoMatch},
		{"eth.tx.to in []", evmRequest(t, nil), NoMatch},
		{"eth.tx.from == wallet_account.address", evmRequest(t, nil), Matched},
		{"eth.tx.to == wallet_account.address", evmRequest(t, nil), NoMatch},
		{"eth.tx.to == ''", evmRequest(t, nil), NoMatch},
		{"eth.tx.to == ''", creation, Failed},
		{"eth.tx.max_fee_per_gas < 1", creation, Failed},
		{"eth.tx.data[0..10] == '0xa9059cbb'", evmRequest(t, nil), Matched},
		{"eth.tx.data[0..10] == '0xA9059CBB'", evmRequest(t, nil), Matched},
		{"eth.tx.data[34..74] == '" + recipient[2:] + "'", evmRequest(t, nil), Matched},
		{"eth.tx.data[0..10] == '0xa9059cbb'", plain, Failed},
		{"eth.tx.data == '0x'", plain, Matched},
		{"eth.tx.data == ''", plain, Matched},
		{"eth.tx.data == '" + strings.ToUpper(transfer[2:]) + "'", evmRequest(t, nil), Matched},
		{"eth.tx.data[1] == 'x'", plain, Matched},
		{"eth.tx.data[2] == 'x'", plain, Failed},
		{"eth.tx.type == 'TYPE_2' && eth.tx.nonce <= 7", evmRequest(t, nil), Matched},
		{"eth.tx.type[0..4] == 'TYPE'", evmRequest(t, nil), Matched},
		{"!(eth.tx.value > 0) && eth.tx.chain_id in [1, 10]", evmRequest(t, nil), Matched},
		{"(eth.tx.value == 0) == true", evmRequest(t, nil), Matched},
		{"eth.tx.value == 0 || eth.tx.chain_id == 5 && eth.tx.nonce == 0", evmRequest(t, nil), Matched},
		{"(eth.tx.value == 0 || eth.tx.chain_id == 5) && eth.tx.nonce == 0", evmRequest(t, nil), NoMatch},
		{"activity.params.type == 'TRANSACTION_TYPE_ETHEREUM'", evmRequest(t, nil), Matched},
		{"activity.params.hash_function != 'HASH_FUNCTION_NO_OP'", evmRequest(t, nil), Failed},
		{"wallet.id == 'w-1' && !wallet.exported && wallet.label == 'main'", evmRequest(t, nil), Matched},
		{"private_key.id == 'k'", evmRequest(t, nil), NotApplicable},
		{"solana.tx.transfers.count() == 0", evmRequest(t, nil), NotApplicable},
		{"time.now > Timestamp('2026-03-04T05:06:07.000000007Z') && time.now < Timestamp('2026-03-04T05:06:07.000000009+00:00')", evmRequest(t, nil), Matched},
		{"['a', 'b'][1] == 'b' && [1, 2, 3][1..3].count() == 2", evmRequest(t, nil), Matched},
		{"[1, 2][2] == 1", evmRequest(t, nil), Failed},
		{"[eth.tx.nonce, 3].contains(7)", evmRequest(t, nil), Matched},
	}
	for _, row := range rows {
		if got := outcomeOf(t, allow(row.text), row.req); got.Outcome != row.want {
			t.Errorf("%s: got %v (%s %s), want %v", row.text, got.Outcome, got.Expr, got.Error, row.want)
		}
	}
}

func TestConditionsOnSolana(t *testing.T) {
	two := solanaRequest(t, 1000, 2000)
	none := solanaRequest(t)
	hidden := solanaRequest(t, 1)
	transfers := solana.TxType.Index("transfers")
	hidden.Decoded.View["solana.tx"].List[transfers].List[0].List[1] = chains.UnresolvedPubkey()
	opaque := solanaRequest(t, 1)
	opaque.Decoded.View["solana.tx"].List[transfers].Partial = true
	opaque.Decoded.Opaque = true
	rows := []struct {
		text string
		req  Request
		want PolicyOutcome
	}{
		{"solana.tx.transfers.all(t, t.to == '" + bobKey + "')", two, Matched},
		{"solana.tx.transfers.all(t, t.to == '" + bobKey + "')", none, Matched}, // the documented trap; linted
		{"solana.tx.transfers.any(t, t.amount > 1500)", two, Matched},
		{"solana.tx.transfers.any(t, t.amount > 1500)", none, NoMatch},
		{"solana.tx.transfers.filter(t, t.amount > 1500).count() == 1", two, Matched},
		{"solana.tx.transfers.filter(t, t.amount > 1500)[0].amount == 2000", two, Matched},
		{"solana.tx.transfers[1].amount == 2000", two, Matched},
		{"solana.tx.transfers[2].amount == 2000", two, Failed},
		{"solana.tx.transfers[0..1].all(t, t.amount == 1000)", two, Matched},
		{"solana.tx.transfers[0..3].count() == 2", two, Failed},
		{"solana.tx.program_keys.all(p, p == '" + systemKey + "')", two, Matched},
		{"solana.tx.account_keys.contains('" + bobKey + "')", two, Matched},
		{"'" + usdc + "' == eth.tx.to", two, NotApplicable},
		{"solana.tx.fee_payer == wallet_account.address", two, Matched},
		{"wallet_account.address == '" + usdc + "'", two, NoMatch},
		{"solana.tx.transfers.any(t, t.to == 'ADDRESS_TABLE_LOOKUP')", hidden, Matched},
		{"solana.tx.transfers.any(t, t.to == 'ADDRESS_TABLE_LOOKUP')", two, NoMatch},
		{"solana.tx.transfers.all(t, t.to == '" + bobKey + "')", hidden, NoMatch},
		{"solana.tx.transfers.all(t, solana.tx.instructions.any(i, i.accounts.all(a, a.writable) && t.amount > 1))", two, Matched},
		{"solana.tx.transfers.all(t, t.to == '" + bobKey + "')", opaque, Failed},
		{"solana.tx.transfers.count() == 0", opaque, Failed},
		{"solana.tx.durable_nonce.account == '" + bobKey + "'", two, Failed},
		{"solana.tx.instructions.all(i, i.instruction_data_hex[0..8] == '02000000')", two, Matched},
	}
	for _, row := range rows {
		if got := outcomeOf(t, allow(row.text), row.req); got.Outcome != row.want {
			t.Errorf("%s: got %v (%s %s), want %v", row.text, got.Outcome, got.Expr, got.Error, row.want)
		}
	}
}

// Forms that people bring from Turnkey's documentation, each with one request that it
// should hold for.
func TestFormsThatPeopleBring(t *testing.T) {
	admin := func(change func(*ActivityParams)) Request {
		r := evmRequest(t, nil)
		r.Decoded, r.Activity = nil, Activity{Type: "ACTIVITY_TYPE_DELETE_USERS", Kind: "DELETE_USERS", Resource: "USER", Action: "DELETE"}
		change(&r.Activity.Params)
		return r
	}
	six, none := uint64(6), ""
	for _, row := range []struct {
		text string
		r    Request
		want PolicyOutcome
	}{
		{"activity.params.user_ids.count() == 1 && 'agent' in activity.params.user_ids", admin(func(p *ActivityParams) { p.UserIDs = []string{"agent"} }), Matched},
		{"activity.params.user_ids.count() == 1 && 'agent' in activity.params.user_ids", admin(func(p *ActivityParams) { p.UserIDs = []string{"agent", "other"} }), NoMatch},
		{"activity.params.user_ids.count() == 0", admin(func(p *ActivityParams) { p.UserIDs = []string{} }), Matched},
		{"activity.params.user_ids.count() == 0", admin(func(*ActivityParams) {}), Failed},
		{"activity.params.user_id == 'u' && activity.params.api_key_ids.contains('k')", admin(func(p *ActivityParams) { p.UserID, p.APIKeyIDs = "u", []string{"k"} }), Matched},
		{"activity.params.target_public_key == '0x04AB'", admin(func(p *ActivityParams) { p.TargetPublicKey = "04ab" }), Matched},
		{"activity.params.wallet_id == 'w' && activity.params.endpoint_id == 'e'", admin(func(p *ActivityParams) { p.WalletID, p.EndpointID = "w", "e" }), Matched},
		{"activity.params.otp_length >= 6", admin(func(p *ActivityParams) { p.OTPLength = &six }), Matched},
		{"activity.params.otp_length >= 6", admin(func(*ActivityParams) {}), Failed},
		{"activity.params.session_profile_id == ''", admin(func(p *ActivityParams) { p.SessionProfileID = &none }), Matched},
		{"activity.resource in ['AUTH', 'USER'] && activity.action in ['CREATE', 'DELETE']", admin(func(*ActivityParams) {}), Matched},
		{"solana.tx.static_account_keys.contains('" + bobKey + "') && solana.tx.top_level_program_keys.all(p, p == '" + systemKey + "')", solanaRequest(t, 5), Matched},
		{"solana.tx.top_level_instructions.count() == solana.tx.instructions.count()", solanaRequest(t, 5), Matched},
		{"solana.tx.instructions[0].accounts[0].account_key == '" + bobKey + "'", solanaRequest(t, 5), Failed},
		{"solana.tx.spl_transfers.all(t, t.signers.any(s, s == '" + bobKey + "'))", solanaRequest(t, 5), Matched},
		{"solana.tx.instructions.any(i, i.parsed_instruction_data.named_account['user'] == '" + bobKey + "')", solanaRequest(t, 5), Failed},
		{"solana.tx.instructions.any(i, i.parsed_instruction_data.program_call_args['in_amount'] == 995500000)", solanaRequest(t, 5), Failed},
	} {
		if got := outcomeOf(t, allow(row.text), row.r); got.Outcome != row.want {
			t.Errorf("%s: got %v (%s), want %v", row.text, got.Outcome, got.Error, row.want)
		}
	}
}

func TestIntegersAreExactAtTheirBoundaries(t *testing.T) {
	numbers := []string{
		"0", "1", "9223372036854775807", "9223372036854775808", "18446744073709551616",
		"170141183460469231731687303715884105727", "170141183460469231731687303715884105728",
		"340282366920938463463374607431768211455", "340282366920938463463374607431768211456",
		"57896044618658097711785492504343953926634992332820282019728792003956564819967",
		"57896044618658097711785492504343953926634992332820282019728792003956564819968",
		"115792089237316195423570985008687907853269984665640564039457584007913129639934",
		"115792089237316195423570985008687907853269984665640564039457584007913129639935",
	}
	for i, a := range numbers {
		req := evmRequest(t, map[string]chains.Value{"value": number(t, a)})
		for j, b := range numbers {
			for op, want := range map[string]bool{"<": i < j, "<=": i <= j, "==": i == j, "!=": i != j, ">=": i >= j, ">": i > j} {
				text := "eth.tx.value " + op + " " + b
				got := outcomeOf(t, allow(text), req).Outcome == Matched
				if got != want {
					t.Errorf("%s %s %s: got %v, want %v", a, op, b, got, want)
				}
				if got := outcomeOf(t, sigild("-"+b+" "+op+" -"+a), req).Outcome == Matched; got != (map[string]bool{
					"<": i < j, "<=": i <= j, "==": i == j, "!=": i != j, ">=": i >= j, ">": i > j}[op]) {
					t.Errorf("-%s %s -%s: got %v", b, op, a, got)
				}
			}
		}
	}
	req := evmRequest(t, nil)
	for _, text := range []string{"-1 < 0", "-1 < 1", "-2 < -1", "-0 == 0", "0xff == 255", "-0x10 == -16",
		"0x" + strings.Repeat("f", 64) + " == 115792089237316195423570985008687907853269984665640564039457584007913129639935"} {
		if got := outcomeOf(t, sigild(text), req); got.Outcome != Matched {
			t.Errorf("%s: got %v", text, got.Outcome)
		}
	}
}

func TestSigildRootsAndTheirAbsence(t *testing.T) {
	req := evmRequest(t, nil)
	req.DelegationID, req.Caller = "d-1", &Caller{UID: 1001, GID: 0, Unit: func() string { return "bot.service" }}
	req.DelegatedUser, req.DelegationEnds = "u-9", time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC)
	bare := evmRequest(t, nil)
	bare.RequestID = ""
	for _, text := range []string{"caller.uid == 1001", "caller.gid == 0", "caller.unit == 'bot.service'", "delegation.id == 'd-1'", "request.id == 'r-1'",
		"delegation.user_id == 'u-9'", "delegation.ends < Timestamp('2026-03-06T00:00:00Z') && delegation.ends > time.now"} {
		if got := outcomeOf(t, sigild(text), req); got.Outcome != Matched {
			t.Errorf("%s: got %v %s", text, got.Outcome, got.Error)
		}
		if got := outcomeOf(t, sigild(text), bare); got.Outcome != Failed {
			t.Errorf("%s without it: got %v, want ERROR", text, got.Outcome)
		}
		if s, ds := Compile([]Policy{allow(text)}, nil, nil); s != nil || ds[0].Code != CodeWrongClause {
			t.Errorf("%s under lang turnkey: got %v", text, ds)
		}
	}
}

func TestSpendOfAnEVMTransaction(t *testing.T) {
	req := evmRequest(t, nil)
	req.Decoded.Charges = []chains.Charge{charge(ether, amount(7), "transfer"), charge(ether, amount(1), "fee")}
	const text = "eth.tx.spend.count() == 2 && eth.tx.spend.all(c, c.amount <= 7 && c.asset == '" + ether + "')"
	if got := outcomeOf(t, sigild(text), req); got.Outcome != Matched {
		t.Errorf("got %v %s", got.Outcome, got.Error)
	}
	other := solanaRequest(t, 1)
	other.Decoded.Charges = req.Decoded.Charges
	if got := outcomeOf(t, sigild(text), other); got.Outcome != NotApplicable {
		t.Errorf("of a Solana message: got %v", got.Outcome)
	}
	req.Decoded.Opaque = true
	if got := outcomeOf(t, sigild(text), req); got.Outcome != Failed {
		t.Errorf("of an opaque payload: got %v", got.Outcome)
	}
}

func TestAnErrorIsAnErrorOnEitherSide(t *testing.T) {
	req := evmRequest(t, map[string]chains.Value{"data": chains.HexValue("0x")})
	broken := "eth.tx.data[0..10] == '0xa9059cbb'"
	for _, text := range []string{
		"true || " + broken, broken + " || true", "false && " + broken, broken + " && false",
		"!(" + broken + ")", "[1, 2].all(i, i == 3 && " + broken + ")", "[1, 2].any(i, i == 1 || " + broken + ")",
		"[1, 2].filter(i, " + broken + ").count() == 0", "(" + broken + ") == false", "[1].any(i, true) || " + broken,
	} {
		if got := outcomeOf(t, allow(text), req); got.Outcome != Failed || got.Error == "" {
			t.Errorf("ALLOW %s: got %v, want ERROR", text, got.Outcome)
		}
		deny := Policy{ID: "deny", Effect: Deny, Condition: text}
		everything := Policy{ID: "all", Effect: Allow, Condition: "true"}
		if d := compileSet(t, everything, deny).Evaluate(req); d.Outcome != DenyError || d.Rule != "deny" {
			t.Errorf("DENY %s: got %v by %q, want DENY_ERROR", text, d.Outcome, d.Rule)
		}
	}
}

func TestStepBudgetEndsEvaluation(t *testing.T) {
	// Four nested loops over 40 elements are 2.56 million bodies.
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 40), ",") + "]"
	text := "true"
	for _, v := range []string{"a", "b", "c", "d"} {
		text = list + ".all(" + v + ", " + text + ")"
	}
	d := compileSet(t, allow(text)).Evaluate(evmRequest(t, nil))
	if d.Outcome != DenyImplicit || d.Policies[0].Outcome != Failed || !strings.Contains(d.Policies[0].Error, "steps") {
		t.Fatalf("got %v: %s", d.Outcome, d.Reason)
	}
	if d.Steps > policySteps {
		t.Errorf("got %d steps, want at most %d", d.Steps, policySteps)
	}
	deny := Policy{ID: "deny", Effect: Deny, Condition: text}
	if d := compileSet(t, allow("true"), deny).Evaluate(evmRequest(t, nil)); d.Outcome != DenyError {
		t.Errorf("DENY out of steps: got %v, want DENY_ERROR", d.Outcome)
	}
	many := make([]Policy, 0, 60)
	for i := range 60 {
		many = append(many, Policy{ID: "p" + string(rune('A'+i)), Effect: Allow, Condition: text})
	}
	d = compileSet(t, many...).Evaluate(evmRequest(t, nil))
	if d.Outcome != DenyError || d.Steps > requestSteps+policySteps {
		t.Errorf("60 policies out of steps: got %v after %d steps", d.Outcome, d.Steps)
	}
}

func TestTextIsCutByCharacters(t *testing.T) {
	req := evmRequest(t, nil)
	req.Wallet.Label = "größe"
	for _, text := range []string{"wallet.label[2..4] == 'öß'", "wallet.label[4] == 'e'"} {
		if got := outcomeOf(t, allow(text), req); got.Outcome != Matched {
			t.Errorf("%s: got %v %s", text, got.Outcome, got.Error)
		}
	}
	if got := outcomeOf(t, allow("wallet.label[5] == 'e'"), req); got.Outcome != Failed {
		t.Errorf("past the end: got %v", got.Outcome)
	}
}

func TestBrokenViewsFailClosed(t *testing.T) {
	wrong := evmRequest(t, nil)
	wrong.Decoded.View["eth.tx"].List[evm.TxType.Index("value")] = chains.StringValue("0")
	short := evmRequest(t, nil)
	short.Decoded.View["eth.tx"] = chains.StructValue()
	scalar := evmRequest(t, nil)
	scalar.Decoded.View["eth.tx"] = chains.StringValue("x")
	for name, req := range map[string]Request{"wrong kind": wrong, "too few fields": short, "no struct": scalar} {
		for _, text := range []string{"eth.tx.value == 0", "eth.tx.value < 5", "eth.tx.value in [0]"} {
			if got := outcomeOf(t, allow(text), req); got.Outcome != Failed {
				t.Errorf("%s, %s: got %v, want ERROR", name, text, got.Outcome)
			}
		}
	}
}

func TestKeysOutsideWalletsAndTheirTags(t *testing.T) {
	req := evmRequest(t, nil)
	req.Wallet, req.WalletAccount = nil, nil
	req.PrivateKey = &PrivateKey{ID: "k-1", Label: "cold", Tags: []string{"a", "b"}, Imported: true}
	for text, want := range map[string]PolicyOutcome{
		"private_key.id == 'k-1' && private_key.label == 'cold' && private_key.imported && !private_key.exported": Matched,
		"private_key.tags.contains('b') && private_key.tags.count() == 2":                                         Matched,
		"private_key.tags[0..1].contains('b')":                                                                    NoMatch,
		"wallet.id == 'w-1'":                                                                                      NotApplicable,
		"wallet.id == 'w-1' || private_key.id == 'k-1'":                                                           Failed,
	} {
		if got := outcomeOf(t, allow(text), req); got.Outcome != want {
			t.Errorf("%s: got %v %s, want %v", text, got.Outcome, got.Error, want)
		}
	}
}

func TestInstantsAreExact(t *testing.T) {
	for at, texts := range map[time.Time][]string{
		time.Unix(-1, 999_999_999):                                  {"time.now < Timestamp('1970-01-01T00:00:00Z')", "time.now == Timestamp('1969-12-31T23:59:59.999999999Z')"},
		time.Date(9999, 12, 31, 23, 59, 59, 1, time.UTC):            {"time.now > Timestamp('9999-12-31T23:59:59Z')", "time.now == Timestamp('9999-12-31T23:59:59.000000001Z')"},
		time.Date(2026, 4, 1, 2, 0, 0, 0, time.FixedZone("", 7200)): {"time.now == Timestamp('2026-04-01T00:00:00Z')", "time.now >= Timestamp('2026-04-01T00:00:00Z')"},
	} {
		req := evmRequest(t, nil)
		req.Now = at
		for _, text := range texts {
			if got := outcomeOf(t, allow(text), req); got.Outcome != Matched {
				t.Errorf("at %v: %s: got %v %s", at, text, got.Outcome, got.Error)
			}
		}
	}
}

func TestConsensusReadsApproversAndCredentials(t *testing.T) {
	for text, want := range map[string]Outcome{
		"approvers.any(u, u.id == 'u-1' && u.alias == 'ann' && u.email == '')":   Allowed,
		"approvers.filter(u, u.tags.contains('ops')).count() >= 1":               Allowed,
		"approvers.filter(u, u.tags.contains('ops')).count() >= 2":               RequiresConsensus,
		"credentials.any(c, c.public_key == '0x02ab' && c.user_id == 'u-1')":     Allowed,
		"credentials.all(c, c.public_key[0..2] == '02')":                         Allowed,
		"credentials.any(c, c.type == 'CREDENTIAL_TYPE_WEBAUTHN_AUTHENTICATOR')": RequiresConsensus,
	} {
		d := compileSet(t, Policy{ID: "p", Effect: Allow, Consensus: text}).Evaluate(evmRequest(t, nil))
		if d.Outcome != want {
			t.Errorf("%s: got %v (%s), want %v", text, d.Outcome, d.Reason, want)
		}
	}
}

// A long list of literals answers as a short one would: every element, and nothing else.
func TestLongListsOfLiterals(t *testing.T) {
	for _, n := range []int{4, 5, 8, 9, 300} {
		var list []chains.Value
		for i := range n {
			list = append(list, chains.StringValue(fmt.Sprintf("text-%d", i/2))) // each of them twice
		}
		v := chains.ListValue(list...)
		s := newLiteralSet(&v)
		for i := range 2 * n {
			x := chains.StringValue(fmt.Sprintf("text-%d", i))
			if found, ok := s.contains(&x); !ok || found != (i <= (n-1)/2) {
				t.Errorf("%d of %d: got %v, %v", i, n, found, ok)
			}
		}
		if found, ok := s.contains(&chains.Value{Kind: chains.KindInt}); found || ok {
			t.Error("a number was looked for among texts")
		}
	}
	mixed := chains.ListValue(chains.StringValue("a"), chains.StringValue("b"), chains.StringValue("c"), chains.Uint64Value(1))
	if newLiteralSet(&mixed) != nil {
		t.Error("a mixed list is no set")
	}
}
