package policy

import (
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// Maps of values of any kind have no standard root yet; arguments of calls and
// messages of typed data will be such. This schema has one.
func anySchema() *Schema {
	return NewSchema(Root{Name: "test.call", Doc: "a call", Type: structOf(
		chains.Field{Name: "args", Type: &chains.Type{Kind: chains.KindMap}},
	)})
}

func mapOf(members map[string]chains.Value) chains.Value {
	var names []string
	var values []chains.Value
	for name, v := range members {
		names, values = append(names, name), append(values, v)
	}
	return chains.MapValue(names, values)
}

func TestValuesOfAnyKindAreCheckedWhenEvaluated(t *testing.T) {
	args := mapOf(map[string]chains.Value{
		"to":     address(t, usdc),
		"key":    pubkey(t, bobKey),
		"amount": number(t, "115792089237316195423570985008687907853269984665640564039457584007913129639935"),
		"delta":  {Kind: chains.KindInt, Neg: true, Int: amount(5)},
		"flag":   chains.BoolValue(true),
		"name":   chains.StringValue("permit"),
		"data":   chains.HexValue("0xabcd"),
		"list":   chains.ListValue(address(t, usdc), address(t, recipient)),
		"mixed":  chains.ListValue(chains.Uint64Value(1), chains.StringValue("x")),
		"inner":  mapOf(map[string]chains.Value{"n": chains.Uint64Value(7), "gone": {}}),
		"holes":  chains.ListValue(chains.Value{}),
	})
	req := Request{Decoded: &chains.Decoded{View: chains.View{"test.call": chains.StructValue(args)}}}
	const a = "test.call.args"
	rows := []struct {
		text string
		want PolicyOutcome
	}{
		{a + "['to'] == '" + usdc + "'", Matched},
		{a + "['to'] == '" + strings.ToLower(usdc) + "'", Matched},
		{a + "['to'] == '" + recipient + "'", NoMatch},
		{"'" + usdc + "' == " + a + "['to']", Matched},
		{a + "['to'] == 'permit'", Failed},
		{a + "['to'] == 1", Failed},
		{a + "['to'] == " + a + "['key']", NoMatch},
		{a + "['key'] == '" + bobKey + "'", Matched},
		{a + "['key'] == '" + usdc + "'", Failed},
		{a + "['amount'] <= 115792089237316195423570985008687907853269984665640564039457584007913129639935", Matched},
		{a + "['amount'] < 115792089237316195423570985008687907853269984665640564039457584007913129639935", NoMatch},
		{a + "['amount'] == '1'", Failed},
		{a + "['delta'] < 0", Matched},
		{a + "['name'] < 5", Failed},
		{a + "['flag'] == true && " + a + "['flag']", Matched},
		{a + "['name'] && true", Failed},
		{a + "['name'] == 'permit' && " + a + "['name'][0..2] == 'pe' && " + a + "['name'][0] == 'p'", Matched},
		{a + "['name'] in ['a', 'permit']", Matched},
		{a + "['data'] == '0xABCD' && " + a + "['data'] == 'abcd'", Matched},
		{a + "['data'][0..4] == '0xab'", Matched},
		{a + "['missing'] == 1", Failed},
		{a + "['list'].count() == 2", Matched},
		{a + "['list'].all(x, x in ['" + usdc + "', '" + recipient + "'])", Matched},
		{a + "['list'].contains('" + usdc + "')", Matched},
		{a + "['list'][1] == '" + recipient + "'", Matched},
		{a + "['list'].filter(x, x == '" + usdc + "').count() == 1", Matched},
		{a + "['list'][0..1].count() == 1", Matched},
		{a + "['list'] == 'x'", Failed},
		{a + "['mixed'].contains(1)", Failed},
		{a + "['name'].count() == 1", Failed},
		{a + "['name'].all(x, true)", Failed},
		{"1 in " + a + "['name']", Failed},
		{a + "['inner']['n'] == 7", Matched},
		{a + "['inner']['gone'] == 7", Failed},
		{a + "['inner']['none'] == 7", Failed},
		{a + "['inner'][0] == 7", Failed},
		{a + "['list']['n'] == 7", Failed},
		{a + "['list'][" + a + "['inner']['n']] == 7", Failed},
		{a + "['list'][" + a + "['name']] == 7", Failed},
		{a + "['list'][" + a + "['delta']] == 7", Failed},
		{a + "['name'][" + a + "['inner']['n']..1] == 'x'", Failed},
		{a + "['holes'].all(x, true)", Failed},
		{a + "['holes'][0] == 1", Failed},
		{a + "['flag'][0] == 1", Failed},
	}
	for _, row := range rows {
		s, ds := Compile([]Policy{allow(row.text)}, nil, anySchema())
		if s == nil {
			t.Errorf("%s: %v", row.text, ds)
			continue
		}
		if got := s.Evaluate(req).Policies[0]; got.Outcome != row.want {
			t.Errorf("%s: got %v (%s), want %v", row.text, got.Outcome, got.Error, row.want)
		}
	}
	for text, code := range map[string]string{
		a + ".to == 'x'":          CodeType,
		a + "['list'].count == 1": CodeSyntax,
		a + "[0] == 1":            CodeType,
		a + " == 'x'":             CodeType,
		a + "['to'] == '0xa0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48'": CodeBadAddress,
		"test.cal.args['x'] == 1":                                    CodeUnknownName,
		"test == 1":                                                  CodeType,
	} {
		s, ds := Compile([]Policy{allow(text)}, nil, anySchema())
		if s != nil || ds[0].Code != code {
			t.Errorf("%s: got %v, want %s", text, ds, code)
		}
	}
}

func TestSchemasRefuseDoubledRoots(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a second root called activity was taken")
		}
	}()
	NewSchema(Root{Name: "activity", Type: structOf()})
}
