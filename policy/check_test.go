package policy

import (
	"fmt"
	"strings"
	"testing"
)

// errorsOf compiles one text and returns its errors.
func errorsOf(t testing.TB, p Policy) []Diagnostic {
	t.Helper()
	s, ds := Compile([]Policy{p}, nil, nil)
	var errs []Diagnostic
	for _, d := range ds {
		if d.Severity == SeverityError {
			errs = append(errs, d)
		}
	}
	if (s == nil) != (len(errs) > 0) {
		t.Fatalf("%.80s: set is %v with errors %v", p.Condition, s, errs)
	}
	return errs
}

func TestTextsThatMustNotCompile(t *testing.T) {
	deep := strings.Repeat("(", 65) + "true" + strings.Repeat(")", 65)
	chain := "eth.tx.data" + strings.Repeat("[0..9]", 65) + " == 'x'"
	nested := "true"
	for i := range 9 {
		nested = fmt.Sprintf("[1].all(v%d, %s)", i, nested)
	}
	rows := []struct {
		text       string
		code       string
		offset     int
		suggestion string // a part of it
	}{
		// syntax
		{" ", CodeSyntax, 1, ""},
		{"eth.tx.value == ", CodeSyntax, 16, ""},
		{"eth.tx.value = 1", CodeSyntax, 13, "=="},
		{"eth.tx.value == 1 & true", CodeSyntax, 18, "&&"},
		{"eth.tx.value == 1)", CodeSyntax, 17, ""},
		{"(eth.tx.value == 1", CodeSyntax, 18, ""},
		{"1 == 1 == true", CodeSyntax, 7, "&&"},
		{"1 < eth.tx.value < 5", CodeSyntax, 17, "&&"},
		{"eth.tx.value + 1 == 2", CodeSyntax, 13, ""},
		{"eth.tx.value - 1 == 2", CodeSyntax, 13, ""},
		{"wallet.id == \"w\"", CodeSyntax, 13, "single quotes"},
		{"wallet.id == 'w", CodeSyntax, 13, ""},
		{"wallet.id == 'w' # note", CodeSyntax, 17, ""},
		{"in [1]", CodeSyntax, 0, ""},
		{"eth..tx", CodeSyntax, 3, ""},
		{"[1, 2", CodeSyntax, 5, ""},
		{"[1,]== 1", CodeSyntax, 3, ""},
		{"solana.tx.transfers.count == 1", CodeSyntax, 0, ".count()"},
		{"solana.tx.transfers.count(1) == 1", CodeSyntax, 0, ".count()"},
		{"solana.tx.transfers.all(t.amount > 1)", CodeSyntax, 0, ".all(item, condition)"},
		{"solana.tx.transfers.all(1, true)", CodeSyntax, 24, ""},
		// encoding
		{"\uFEFFtrue", CodeEncoding, 0, ""},
		{"true \xff", CodeEncoding, 5, ""},
		{"wallet.id == 'a\xffb'", CodeEncoding, 15, ""},
		{"wallet.id == 'a\x00b'", CodeEncoding, 15, ""},
		{"wallet.id == 'a\nb'", CodeEncoding, 15, ""},
		{"wallet.id == 'a\u202Eb'", CodeEncoding, 15, ""},
		{"wallet.id == 'a' ∧ true", CodeEncoding, 17, ""},
		// size
		{"true" + strings.Repeat(" ", MaxTextBytes), CodeTooLong, MaxTextBytes, ""},
		{strings.Repeat(" ", MaxTextBytes+1), CodeTooLong, MaxTextBytes, ""},
		{deep, CodeTooDeep, 65, ""},
		{strings.Repeat("!", 70) + "true", CodeTooDeep, 65, ""},
		{chain, CodeTooDeep, 0, ""},
		{nested, CodeTooDeep, 96, ""},
		// placeholders
		{"eth.tx.to == '<ADDRESS>'", CodePlaceholder, 13, ""},
		{"eth.tx.value < <AMOUNT>", CodePlaceholder, 15, ""},
		{"wallet.id == '<YOUR WALLET-ID>'", CodePlaceholder, 13, ""},
		// names
		{"eth.tx.gasPrice <= 50000000000", CodeUnknownField, 0, "gas_price"},
		{"eth.tx.max_fee_per_gaz <= 5", CodeUnknownField, 0, "max_fee_per_gas"},
		{"eth.tx.zzzzzz == 1", CodeUnknownField, 0, ""},
		{"eth.txn.value == 1", CodeUnknownName, 0, "eth.tx"},
		{"eth == 1", CodeType, 0, ""},
		{"walet.id == 'a'", CodeUnknownName, 0, "wallet"},
		{"solana.tx.transfers.all(transfer, transfr.amount > 1)", CodeUnknownName, 34, "transfer"},
		{"solana.tx.transfers.every(t, true)", CodeUnknownName, 0, ""},
		{"solana.tx.transfers.al(t, true)", CodeUnknownName, 0, "all"},
		{"timestamp('2026-01-01T00:00:00Z') < time.now", CodeUnknownName, 0, "Timestamp"},
		{"solana.tx.transfers.all(t, true) && t.amount == 1", CodeUnknownName, 36, ""},
		{"time.later > time.now", CodeUnknownField, 0, ""},
		// not yet
		{"Cronspan('0 9 * * 1-5', '8h', 'UTC')", CodeUnknownName, 0, "CronSpan"},
		{"eth.tx.spend.count() > 0", CodeWrongClause, 0, "sigild"},
		{"bitcoin.tx.fee > 0", CodeUnsupported, 0, ""},
		{"bitcoin.tx.version == 1", CodeUnsupported, 0, ""},
		{"controls.daily.left > 0", CodeWrongClause, 0, `set lang to "sigild"`},
		// clauses and languages
		{"approvers.count() == 1", CodeWrongClause, 0, ""},
		{"caller.uid == 1", CodeWrongClause, 0, "sigild"},
		// types
		{"eth.tx.value", CodeNotBool, 0, ""},
		{"'true'", CodeNotBool, 0, ""},
		{"solana.tx.transfers", CodeNotBool, 0, ""},
		{"eth.tx.chain_id == '1'", CodeType, 19, "write 1 without quotes"},
		{"eth.tx.chain_id < '1'", CodeType, 18, "write 1 without quotes"},
		{"eth.tx.chain_id in ['1']", CodeType, 20, "write 1 without quotes"},
		{"time.now < '2026-04-01T00:00:00Z'", CodeType, 11, "Timestamp("},
		{"wallet.id == 1", CodeType, 0, "single quotes"},
		{"wallet.id < 'b'", CodeType, 0, ""},
		{"time.now < 5", CodeType, 0, ""},
		{"eth.tx.value && true", CodeType, 0, ""},
		{"!eth.tx.value", CodeType, 1, ""},
		{"eth.tx.value == true", CodeType, 0, ""},
		{"wallet == wallet", CodeType, 0, ""},
		{"[1] == [1]", CodeType, 0, ""},
		{"eth.tx.to == eth.tx.data", CodeType, 0, ""},
		{"eth.tx.to == wallet.id", CodeType, 0, ""},
		{"eth.tx.value in [1, 'a']", CodeType, 20, ""},
		{"eth.tx.value in 5", CodeType, 16, ""},
		{"wallet.id in 'abc'", CodeType, 13, ""},
		{"wallet.id.contains('a')", CodeType, 0, ""},
		{"wallet.id.any(c, true)", CodeType, 0, ""},
		{"solana.tx.transfers.all(t, t.amount)", CodeType, 27, ""},
		{"eth.tx.to[0..4] == '0xa0'", CodeType, 0, "by value"},
		{"eth.tx.value[0] == 1", CodeType, 0, ""},
		{"solana.tx.transfers['a'].amount == 1", CodeType, 20, ""},
		{"eth.tx.value.foo == 1", CodeType, 0, ""},
		{"[[1]].count() == 1", CodeType, 1, ""},
		// numbers and slices
		{"eth.tx.value == 115792089237316195423570985008687907853269984665640564039457584007913129639936", CodeNumber, 16, ""},
		{"eth.tx.value == 007", CodeNumber, 16, ""},
		{"eth.tx.value == 1.5", CodeNumber, 17, "smallest unit"},
		{"eth.tx.value == 1e18", CodeNumber, 16, ""},
		{"eth.tx.value == 0xff", CodeNumber, 16, ""},
		{"eth.tx.value == -1", CodeNumber, 16, ""},
		{"eth.tx.to == 0xabc", CodeNumber, 13, ""},
		{"eth.tx.data[5..2] == ''", CodeBadSlice, 12, ""},
		{"eth.tx.data[99999999999999999999] == 'a'", CodeBadSlice, 12, ""},
		// literals
		{"eth.tx.to == '0x123'", CodeBadAddress, 13, ""},
		{"eth.tx.to == 'vitalik.eth'", CodeBadAddress, 13, ""},
		{"eth.tx.to in ['" + usdc + "', '0x12']", CodeBadAddress, 60, ""},
		{"eth.tx.to == '0xa0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48'", CodeBadAddress, 13, usdc},
		{"wallet_account.address == 'nope'", CodeBadPubkey, 26, ""},
		{"solana.tx.fee_payer == '1111'", CodeBadPubkey, 23, ""},
		{"solana.tx.fee_payer == '" + strings.ToLower(bobKey) + "'", CodeBadPubkey, 23, ""},
		{"solana.tx.transfers.any(t, t.to == '1" + systemKey + "')", CodeBadPubkey, 35, ""},
		{"eth.tx.data == 'hello'", CodeBadHex, 15, ""},
		{"eth.tx.data == '0xabc'", CodeBadHex, 15, ""},
		{"eth.tx.data[0..4] == '0xg1'", CodeBadHex, 21, ""},
		{"time.now < Timestamp('2026-04-01')", CodeBadTimestamp, 21, ""},
		{"time.now < Timestamp('2026-04-01T00:00:00+02:00')", CodeBadTimestamp, 21, ""},
		{"time.now < Timestamp('2026-02-30T00:00:00Z')", CodeBadTimestamp, 21, ""},
		{"time.now < Timestamp('2026-04-01T1:00:00Z')", CodeBadTimestamp, 21, ""},
		{"time.now < Timestamp('2026-04-01T01:00:00,5Z')", CodeBadTimestamp, 21, ""},
		{"time.now < Timestamp(wallet.id)", CodeBadTimestamp, 11, ""},
		{"time.now < Timestamp('2026-04-01T00:00:00')", CodeBadTimestamp, 21, ""},
		{"time.now < Timestamp('2026-04-01T00:00:00zZ')", CodeBadTimestamp, 21, ""},
		// schedules
		{"CronSpan('0 9 * * 1-5', '8h')", CodeBadCronSpan, 0, "three strings"},
		{"CronSpan('0 9 * * 1-5', 8, 'UTC')", CodeBadCronSpan, 24, "three strings"},
		{"CronSpan('0 9 * * 1-5', wallet.id, 'UTC')", CodeBadCronSpan, 24, "three strings"},
		{"CronSpan('*/5 * * * *', '1h', 'UTC')", CodeBadCronSpan, 9, "steps"},
		{"CronSpan('0-30/5 * * * *', '1h', 'UTC')", CodeBadCronSpan, 9, "steps"},
		{"CronSpan('@daily', '1h', 'UTC')", CodeBadCronSpan, 9, "five fields"},
		{"CronSpan('0 0 9 * * 1', '1h', 'UTC')", CodeBadCronSpan, 9, "five fields"},
		{"CronSpan('0 9 * *', '1h', 'UTC')", CodeBadCronSpan, 9, "five fields"},
		{"CronSpan('', '1h', 'UTC')", CodeBadCronSpan, 9, "five fields"},
		{"CronSpan('0 9 * JAN *', '1h', 'UTC')", CodeBadCronSpan, 9, "month"},
		{"CronSpan('0 9 * * MON', '1h', 'UTC')", CodeBadCronSpan, 9, "day of week"},
		{"CronSpan('0 9 * * 7', '1h', 'UTC')", CodeBadCronSpan, 9, "0 to 6"},
		{"CronSpan('60 9 * * *', '1h', 'UTC')", CodeBadCronSpan, 9, "0 to 59"},
		{"CronSpan('0 24 * * *', '1h', 'UTC')", CodeBadCronSpan, 9, "0 to 23"},
		{"CronSpan('0 9 0 * *', '1h', 'UTC')", CodeBadCronSpan, 9, "1 to 31"},
		{"CronSpan('0 9 * 13 *', '1h', 'UTC')", CodeBadCronSpan, 9, "1 to 12"},
		{"CronSpan('0 9 * * 5-1', '1h', 'UTC')", CodeBadCronSpan, 9, "ends before"},
		{"CronSpan('0 9 * * 1,', '1h', 'UTC')", CodeBadCronSpan, 9, "lists"},
		{"CronSpan('0 9 * * -1', '1h', 'UTC')", CodeBadCronSpan, 9, "lists"},
		{"CronSpan('0 9 * * ?', '1h', 'UTC')", CodeBadCronSpan, 9, "lists"},
		{"CronSpan('0 9 * * *,1', '1h', 'UTC')", CodeBadCronSpan, 9, "lists"},
		{"CronSpan('0 9 * * *', '', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '8', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', 'h', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '8s', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '1.5h', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '12h1d', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '1h1h', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '-1h', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '0h', 'UTC')", CodeBadCronSpan, 22, "more than 0"},
		{"CronSpan('0 9 * * *', '7d1m', 'UTC')", CodeBadCronSpan, 22, "7 days"},
		{"CronSpan('0 9 * * *', '99999d', 'UTC')", CodeBadCronSpan, 22, "7 days"},
		{"CronSpan('0 9 * * *', '999999m', 'UTC')", CodeBadCronSpan, 22, "duration"},
		{"CronSpan('0 9 * * *', '1h', 'Local')", CodeBadCronSpan, 28, "IANA"},
		{"CronSpan('0 9 * * *', '1h', '')", CodeBadCronSpan, 28, "IANA"},
		{"CronSpan('0 9 * * *', '1h', '../../etc/passwd')", CodeBadCronSpan, 28, "IANA"},
		{"CronSpan('0 9 * * *', '1h', 'America/Nowhere')", CodeBadCronSpan, 28, "IANA"},
		{"CronSpan('0 9 * * *', '1h', 'UTC') == 1", CodeType, 0, ""},
	}
	for _, row := range rows {
		errs := errorsOf(t, allow(row.text))
		if len(errs) == 0 {
			t.Errorf("%.80q compiled, want %s", row.text, row.code)
			continue
		}
		d := errs[0]
		if d.Code != row.code || d.Offset != row.offset || d.ID != "p" || d.Clause != ClauseCondition || d.Message == "" {
			t.Errorf("%.80q: got %s at %d (%s), want %s at %d", row.text, d.Code, d.Offset, d.Message, row.code, row.offset)
		}
		if text := d.Message + d.Suggestion; !strings.Contains(text, row.suggestion) {
			t.Errorf("%.80q: got suggestion %q, want %q in it", row.text, text, row.suggestion)
		}
	}
}

func TestOneClauseReportsEveryTypeError(t *testing.T) {
	errs := errorsOf(t, allow("eth.tx.gasPrice < 1 && eth.tx.chain_id == '1' && wallet.nam == 'x'"))
	var got []string
	for _, d := range errs {
		got = append(got, fmt.Sprintf("%s@%d", d.Code, d.Offset))
	}
	if want := "unknown_field@0 type_mismatch@42 unknown_field@49"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
}

func TestClausesHaveTheirOwnRoots(t *testing.T) {
	good := Policy{ID: "p", Effect: Allow, Consensus: "approvers.any(u, u.id == 'a') && credentials.count() >= 1", Time: "time.now < Timestamp('2030-01-01T00:00:00Z')"}
	if errs := errorsOf(t, good); len(errs) > 0 {
		t.Errorf("got %v", errs)
	}
	for name, p := range map[string]Policy{
		"consensus": {ID: "p", Consensus: "wallet.id == 'a'"},
		"time":      {ID: "p", Time: "eth.tx.value == 1"},
		"condition": {ID: "p", Condition: "credentials.count() == 1"},
	} {
		errs := errorsOf(t, p)
		if len(errs) != 1 || errs[0].Code != CodeWrongClause || errs[0].Clause != name {
			t.Errorf("%s: got %v", name, errs)
		}
	}
}

func TestFieldsAroundTheClausesAreChecked(t *testing.T) {
	for _, row := range []struct {
		name, code string
		policies   []Policy
	}{
		{"no id", CodeBadID, []Policy{{Condition: "true"}}},
		{"space in id", CodeBadID, []Policy{{ID: "a b"}}},
		{"long id", CodeBadID, []Policy{{ID: strings.Repeat("a", 129)}}},
		{"control in name", CodeBadID, []Policy{{ID: "a", Name: "x\ny"}}},
		{"long name", CodeBadID, []Policy{{ID: "a", Name: strings.Repeat("x", 257)}}},
		{"effect", CodeBadEffect, []Policy{{ID: "a", Effect: 2}}},
		{"lang", CodeBadLang, []Policy{{ID: "a", Lang: "cel"}}},
		{"scope", CodeBadID, []Policy{{ID: "a", Scope: Scope{Delegation: "é"}}}},
		{"twice", CodeDuplicateID, []Policy{{ID: "a"}, {ID: "b"}, {ID: "a"}}},
	} {
		s, ds := Compile(row.policies, nil, nil)
		if s != nil || len(ds) == 0 || ds[0].Code != row.code || ds[0].Offset != -1 {
			t.Errorf("%s: got set %v and %v, want %s", row.name, s != nil, ds, row.code)
		}
	}
}

func TestLints(t *testing.T) {
	const guarded = "eth.tx.chain_id == 1 && "
	const tables = "solana.tx.address_table_lookups.count() == 0 && "
	rows := []struct {
		p    Policy
		want string
	}{
		{allow("true"), "allow_all@-1"},
		{allow(""), "allow_all@-1"},
		{allow(guarded + "eth.tx.to == '" + usdc + "'"), "no_data_rule@-1"},
		{allow(guarded + "eth.tx.to == '" + usdc + "' && eth.tx.data == '0x'"), ""},
		{allow("eth.tx.value == 0"), "no_chain_id@-1"},
		{allow("solana.tx.transfers.count() == 1"), "no_table_guard@-1"},
		{allow(tables + "solana.tx.transfers.all(t, t.amount < 5)"), "all_may_be_empty@48"},
		{allow(tables + "solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.amount < 5)"), ""},
		{allow(tables + "solana.tx.transfers[0].amount == 1 && solana.tx.transfers.all(t, t.amount < 5)"), ""},
		{allow(tables + "solana.tx.instructions.count() == 1 && solana.tx.transfers.all(t, t.amount < 5)"), "all_may_be_empty@87"},
		{allow(tables + "solana.tx.transfers.any(t, t.amount < 5)"), "any_of_many@48"},
		{Policy{ID: "p", Condition: "solana.tx.transfers.any(t, t.amount < 5)"}, ""},
		{allow(guarded + "eth.tx.data[0..10] == '0xa9059c'"), "never_equal@46"},
		{allow(guarded + "eth.tx.data[0..10] == '0xA9059CBB'"), "upper_hex@46"},
		{allow(tables + "solana.tx.instructions.any(i, i.instruction_data_hex == '0A')"), "text_hex@104"},
		{Policy{ID: "p", Condition: "eth.tx.value > 5 || activity.action == 'EXPORT'"}, "deny_branch@20"},
		{Policy{ID: "p", Condition: "eth.tx.value > 5 || solana.tx.transfers.count() > 1"}, "mixed_payloads@-1"},
		{Policy{ID: "p", Condition: "true"}, ""},
		{allow("eth.eip_712.domain.chain_id == 1 && eth.eip_712.message['permitted'].any(p, p['amount'] < 100)"), "any_of_many@36"},
		{allow(guarded + "eth.tx.contract_call_args['calls'].any(c, c[1] == 0)"), "any_of_many@24"},
		{Policy{ID: "p", Condition: "eth.tx.contract_call_args['calls'].any(c, c[1] != 0)"}, ""},
		{allow(guarded + "eth.tx.data[74..138] == '" + strings.Repeat("0", 58) + "0f4240'"), "text_amount@48"},
		{Policy{ID: "p", Condition: "activity.kind == 'SIGN_RAW_PAYLOAD' && activity.params.hash_function == 'HASH_FUNCTION_NO_OP'"}, "deny_errs@-1"},
		{allow(guarded + "eth.tx.data == '0x' && activity.params.type == 'TRANSACTION_TYPE_ETHEREUM'"), ""},
	}
	for _, row := range rows {
		s, ds := Compile([]Policy{row.p}, nil, nil)
		var got []string
		for _, d := range ds {
			got = append(got, fmt.Sprintf("%s@%d", d.Code, d.Offset))
			if d.Severity != SeverityLint {
				t.Errorf("%s: %v is no lint", row.p.Condition, d)
			}
		}
		if s == nil || strings.Join(got, " ") != row.want {
			t.Errorf("%s: got %v, want %s", row.p.Condition, ds, row.want)
		}
	}
}

func TestDiagnosticIsOneLine(t *testing.T) {
	d := errorsOf(t, allow("eth.tx.gasPrice < 1"))[0]
	want := `error: p condition at byte 0: eth.tx has no field "gasPrice" (unknown_field); did you mean gas_price?`
	if d.String() != want {
		t.Errorf("got %s\nwant %s", d, want)
	}
}
