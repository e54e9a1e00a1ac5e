package judge

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
)

func TestReplaySaysWhatWouldChange(t *testing.T) {
	payload, err := hex.DecodeString("02f00107843b9aca008506fc23ac0082520894d8da6bf26964af9d7eed9e03e53415d37aa960458806f05b59d3b2000080c0")
	if err != nil {
		t.Fatal(err)
	}
	asked := &journal.Asked{Kind: "evm.transaction", Chain: "eip155:1", Address: "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045", Payload: payload}
	entries := []journal.Entry{
		{Seq: 1, Kind: journal.KindGenesis},
		{Seq: 2, Kind: journal.KindApproved, Organization: "o", RequestID: "a", Delegation: "d", User: "u", Rule: "r", Asked: asked},
		{Seq: 3, Kind: journal.KindSigned, Organization: "o", ApprovedSeq: 2},
		{Seq: 4, Kind: journal.KindRefused, Organization: "o", RequestID: "b", Outcome: "POLICY_DENIED", Reason: "no policy allows it", Asked: asked},
		{Seq: 5, Kind: journal.KindRefused, Organization: "o", RequestID: "c", Outcome: "LIMIT_EXCEEDED", Asked: asked},
		{Seq: 6, Kind: journal.KindRefused, Organization: "o", RequestID: "d", Outcome: "PAUSED"},
		{Seq: 7, Kind: journal.KindApproved, Organization: "o", RequestID: "e"},
		{Seq: 8, Kind: journal.KindApproved, Organization: "other", RequestID: "f", Asked: asked},
	}
	replay := func(condition string) (r Replay, changed string) {
		set, ds := policy.Compile([]policy.Policy{{ID: "p", Effect: policy.Allow, Condition: condition, Lang: policy.LangSigild}}, nil, nil)
		if set == nil {
			t.Fatal(ds)
		}
		var told strings.Builder
		r = Replay{Set: set, Organization: "o", Changed: func(c Change) error { changed += c.RequestID; return c.Tell(&told) }}
		for _, e := range entries {
			if err := r.Entry(e); err != nil {
				t.Fatal(err)
			}
		}
		if r.Differ > 0 && !strings.Contains(told.String(), "send 0.5 ETH") {
			t.Errorf("told:\n%s", &told)
		}
		return r, changed
	}
	if r, changed := replay("eth.tx.value == 500000000000000000 && delegation.id == 'd'"); changed != "c" || r.Same != 2 || r.Unrecorded != 1 {
		t.Errorf("like the old: %q of %+v", changed, r)
	}
	if r, changed := replay("eth.tx.value < 5"); changed != "ac" || r.Same != 1 {
		t.Errorf("narrower: %q of %+v", changed, r)
	}
	if _, changed := replay("true"); changed != "b" {
		t.Errorf("wider: %q", changed)
	}
	broken := Replay{Set: nil, Changed: func(Change) error { return nil }}
	for _, a := range []*journal.Asked{{Kind: "evm.transaction", Address: "0x", Payload: payload}, {Kind: "evm.transaction", Address: asked.Address, Payload: payload[1:]},
		{Kind: "tron.transaction", Address: "6x3YquGKV4tuqif7qtEft37vPtU2CqGr9SKqNjTQMQ44"}, {Kind: "solana.message", Address: asked.Address}} {
		if err := broken.Entry(journal.Entry{Seq: 9, Kind: journal.KindApproved, Asked: a}); err == nil || !strings.Contains(err.Error(), "entry 9") {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
