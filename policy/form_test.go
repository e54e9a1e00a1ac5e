package policy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestJSONFormsRoundTrip(t *testing.T) {
	for _, p := range []Policy{
		{ID: "p"},
		{ID: "p", Name: "n", Effect: Allow, Condition: "eth.tx.value < 5 && true", Consensus: "true", Time: "false", Lang: LangSigild,
			Scope: Scope{Delegation: "d"}, NotAfter: time.Date(2026, 4, 1, 2, 3, 4, 5, time.UTC)},
	} {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got Policy
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: got %+v, %v", b, got, err)
		}
	}
	for _, l := range []Limit{
		{ID: "l", Asset: ether},
		{ID: "l", Name: "n", Asset: ether, Max: maxAmount, Window: MaxWindow, Delegation: "d", IncludeFees: true},
	} {
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var got Limit
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%s: got %+v, %v", b, got, err)
		}
	}
	b, err := json.Marshal(Policy{ID: "p", Effect: Allow, Scope: Scope{Delegation: "d"}})
	if want := `{"id":"p","effect":"EFFECT_ALLOW","scope":{"delegation":"d"}}`; err != nil || string(b) != want {
		t.Errorf("got %s %v, want %s", b, err, want)
	}
}

func TestJSONFormsAreStrict(t *testing.T) {
	for _, text := range []string{
		``, `null`, `[]`, `"x"`, `1`, `{}`, `{"id":"p"}`, `{"effect":"EFFECT_DENY"}`,
		`{"id":"p","effect":"ALLOW"}`, `{"id":"p","effect":"effect_allow"}`, `{"id":"p","effect":1}`, `{"id":"p","effect":null}`,
		`{"id":"p","effect":"EFFECT_DENY","notes":"x"}`, `{"ID":"p","effect":"EFFECT_DENY"}`, `{"id":"p","effect":"EFFECT_DENY","Condition":"true"}`,
		`{"id":"p","id":"q","effect":"EFFECT_DENY"}`, `{"id":"p","effect":"EFFECT_DENY","effect":"EFFECT_ALLOW"}`,
		`{"id":"p","effect":"EFFECT_DENY","scope":{}, "scope":{}}`, `{"id":"p","effect":"EFFECT_DENY","scope":{"delegation":"a","delegation":"b"}}`,
		`{"id":"p","effect":"EFFECT_DENY","scope":{"user":"a"}}`, `{"id":"p","effect":"EFFECT_DENY","scope":"d"}`, `{"id":"p","effect":"EFFECT_ALLOW","scope":{}}`, `{"id":"p","effect":"EFFECT_ALLOW","scope":{"delegation":""}}`, `{"id":"p","effect":"EFFECT_DENY","scope":null}`,
		`{"id":"p","effect":"EFFECT_DENY","condition":true}`, `{"id":"p","effect":"EFFECT_DENY","condition":["true"]}`,
		`{"id":"p","effect":"EFFECT_DENY","not_after":"2026-04-01"}`, `{"id":"p","effect":"EFFECT_DENY","not_after":0}`,
		`{"id":"p","effect":"EFFECT_DENY","not_after":"0001-01-01T00:00:00Z"}`, `{"id":"p","effect":"EFFECT_DENY","not_after":"9999-12-31T23:59:59-12:00"}`,
		`{"id":"p","effect":"EFFECT_DENY","max":"1"}`, "{\"id\":\"\xff\",\"effect\":\"EFFECT_DENY\"}",
		`{"id":"p","effect":"EFFECT_DENY"}{}`, `{"id":"p","effect":"EFFECT_DENY"`, `{"id":"p","effect":"EFFECT_DENY","scope":{"delegation":{"id":"x"}}}`,
	} {
		var p Policy
		if err := p.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("policy %s was read as %+v", text, p)
		}
	}
	for _, text := range []string{
		`{"id":"l","asset":"a"}`, `{"id":"l","max":"1"}`, `{"asset":"a","max":"1"}`,
		`{"id":"l","asset":"a","max":1}`, `{"id":"l","asset":"a","max":""}`, `{"id":"l","asset":"a","max":"-1"}`, `{"id":"l","asset":"a","max":"+1"}`,
		`{"id":"l","asset":"a","max":"01"}`, `{"id":"l","asset":"a","max":"0x1"}`, `{"id":"l","asset":"a","max":"1.5"}`, `{"id":"l","asset":"a","max":"1e3"}`,
		`{"id":"l","asset":"a","max":"` + "115792089237316195423570985008687907853269984665640564039457584007913129639936" + `"}`,
		`{"id":"l","asset":"a","max":"1` + strings.Repeat("0", 100) + `"}`,
		`{"id":"l","asset":"a","max":"1","window_seconds":-1}`, `{"id":"l","asset":"a","max":"1","window_seconds":"60"}`, `{"id":"l","asset":"a","max":"1","window_seconds":1.5}`,
		`{"id":"l","asset":"a","max":"1","window":60}`, `{"id":"l","asset":"a","max":"1","effect":"EFFECT_DENY"}`,
	} {
		var l Limit
		if err := l.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("limit %s was read as %+v", text, l)
		}
	}
	if _, err := json.Marshal(Limit{ID: "l", Window: time.Millisecond}); err == nil {
		t.Error("a limit with a window of a millisecond was written")
	}
	if _, err := json.Marshal(Policy{ID: "p", Effect: 7}); err == nil {
		t.Error("a policy with effect 7 was written")
	}
}

func FuzzPolicyJSON(f *testing.F) {
	f.Add([]byte(`{"id":"p","effect":"EFFECT_ALLOW","condition":"true","scope":{"delegation":"d"},"not_after":"2026-04-01T00:00:00Z"}`))
	f.Add([]byte(`{"id":"p","effect":"EFFECT_DENY","lang":"sigild"}`))
	f.Add([]byte(`{"id":"p","scope":{"delegation":{`))
	f.Add([]byte(`{"a":[[[[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, again Policy
		if p.UnmarshalJSON(b) != nil {
			return
		}
		out, err := p.MarshalJSON()
		if err != nil {
			t.Fatalf("%q was read but cannot be written: %v", b, err)
		}
		if err := again.UnmarshalJSON(out); err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q became %q: %v", b, out, err)
		}
	})
}

func FuzzLimitJSON(f *testing.F) {
	f.Add([]byte(`{"id":"l","asset":"eip155:1/slip44:60","max":"1","window_seconds":60,"include_fees":true}`))
	f.Add([]byte(`{"id":"l","asset":"","max":"0"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again Limit
		if l.UnmarshalJSON(b) != nil || l.Window > MaxWindow {
			return
		}
		out, err := l.MarshalJSON()
		if err != nil {
			t.Fatalf("%q was read but cannot be written: %v", b, err)
		}
		if err := again.UnmarshalJSON(out); err != nil || !reflect.DeepEqual(l, again) {
			t.Fatalf("%q became %q: %v", b, out, err)
		}
	})
}
