package policy

import (
	"encoding/json"
	"reflect"
	"testing"
)

const rulesText = `{"policies":[{"id":"a","effect":"EFFECT_ALLOW","condition":"eth.tx.value < 5"},{"id":"b","effect":"EFFECT_DENY"}],
 "limits":[{"id":"a","asset":"` + ether + `","max":"7"}]}`

func TestParseRules(t *testing.T) {
	ps, ls, err := ParseRules([]byte(rulesText))
	if err != nil || len(ps) != 2 || ps[1].ID != "b" || len(ls) != 1 || ls[0].Max.Uint64() != 7 {
		t.Errorf("got %+v %+v %v", ps, ls, err)
	}
	if ps, ls, err := ParseRules([]byte(`{}`)); err != nil || len(ps)+len(ls) != 0 {
		t.Errorf("no rules: got %+v %+v %v", ps, ls, err)
	}
	for _, text := range []string{
		``, `null`, `[]`, `1`, `{}{}`, `{} x`, `{"policies":null}`, `{"policies":{}}`, `{"policies":[null]}`, `{"policies":[1]}`, `{"policies":[[]]}`,
		`{"Policies":[]}`, `{"policies":[],"policies":[]}`, `{"limits":[],"limits":[]}`, `{"rules":[]}`, `{"policies":[`, `{"policies":[]`,
		`{"policies":[{"id":"a"}]}`, `{"limits":[{"id":"a","asset":"x"}]}`, "{\"policies\":[],\"\xff\":1}",
		`{"policies":[{"id":"a","effect":"EFFECT_DENY","id":"b"}]}`, `{"limits":[{"id":"a","effect":"EFFECT_DENY","asset":"x","max":"1"}]}`,
	} {
		if _, _, err := ParseRules([]byte(text)); err == nil {
			t.Errorf("%s: read", text)
		}
	}
}

// FuzzParseRules: what is read can be written and reads the same again.
func FuzzParseRules(f *testing.F) {
	f.Add([]byte(rulesText))
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, ls, err := ParseRules(b)
		if err != nil {
			return
		}
		text := map[string]any{} // without a list that is empty: null is refused
		if len(ps) > 0 {
			text["policies"] = ps
		}
		if len(ls) > 0 {
			text["limits"] = ls
		}
		again, err := json.Marshal(text)
		if err != nil {
			return // a window that a form can hold and a limit can't
		}
		ps2, ls2, err := ParseRules(again)
		if err != nil || len(ps) != len(ps2) || len(ls) != len(ls2) || len(ps) > 0 && !reflect.DeepEqual(ps, ps2) || len(ls) > 0 && !reflect.DeepEqual(ls, ls2) {
			t.Errorf("%s\nwas written %s\nand read as %+v %+v, %v", b, again, ps2, ls2, err)
		}
	})
}

// A set that was joined judges and is named as the one that is compiled at once.
func TestJoin(t *testing.T) {
	rule := func(id, delegation string, e Effect, condition string) Policy {
		return Policy{ID: id, Effect: e, Condition: condition, Scope: Scope{Delegation: delegation}}
	}
	own := []Policy{rule("m", "d1", Allow, "eth.tx.value <= 100"), rule("z", "", Allow, "false")}
	all := []Policy{rule("a", "", Deny, "eth.tx.gas > 5000000"), rule("n", "d2", Deny, "true")}
	limits := []Limit{{ID: "y", Asset: ether, IncludeFees: true}, {ID: "b", Asset: ether}}
	compile := func(ps []Policy, ls []Limit) *Set {
		t.Helper()
		s, ds := Compile(ps, ls, nil)
		if s == nil {
			t.Fatal(ds)
		}
		return s
	}
	one := compile(append(append([]Policy{}, own...), all...), limits)
	joined, err := Join(compile(own, limits[:1]), nil, compile(all, limits[1:]))
	if err != nil {
		t.Fatal(err)
	}
	if joined.Hash() != one.Hash() || !reflect.DeepEqual(joined.Limits(), one.Limits()) {
		t.Errorf("joined %x %v, compiled at once %x %v", joined.Hash(), joined.Limits(), one.Hash(), one.Limits())
	}
	for _, delegation := range []string{"", "d1", "d2", "d3"} {
		req := evmRequest(t, nil)
		req.DelegationID = delegation
		if got, want := joined.Evaluate(req), one.Evaluate(req); !reflect.DeepEqual(got, want) {
			t.Errorf("delegation %q: got %+v, want %+v", delegation, got, want)
		}
	}
	for name, pair := range map[string][2]*Set{
		"two policies of one id": {compile(own, nil), compile(own[:1], nil)},
		"two limits of one id":   {compile(nil, limits), compile(nil, limits[:1])},
		"two schemas":            {compile(own, nil), func() *Set { s, _ := Compile(nil, nil, NewSchema()); return s }()},
	} {
		if s, err := Join(pair[0], pair[1]); err == nil {
			t.Errorf("%s: joined to %+v", name, s)
		}
	}
	empty, err := Join(nil, nil)
	if err != nil || empty.Hash() != compile(nil, nil).Hash() {
		t.Errorf("nothing joined: %v, %v", empty, err)
	}
}
