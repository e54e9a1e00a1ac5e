package policy

import (
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// madeWhenRead is the elements of a list, one by one.
type madeWhenRead []chains.Value

func (s madeWhenRead) Len() int              { return len(s) }
func (s madeWhenRead) At(i int) chains.Value { return s[i] }

// A list whose elements are made when they are read is judged as any other.
func TestListsOfBothFormsAreJudgedAlike(t *testing.T) {
	for _, text := range []string{
		"solana.tx.transfers.all(t, t.amount > 500)", "solana.tx.transfers.any(t, t.amount == 2000)",
		"solana.tx.transfers.count() == 2", "solana.tx.transfers[1].amount == 2000", "solana.tx.transfers[2].amount == 1",
		"solana.tx.transfers[0..1].count() == 1", "solana.tx.transfers[1..2].all(t, t.amount == 2000)", "solana.tx.transfers[0..3].count() == 3",
		"solana.tx.transfers.filter(t, t.amount > 1500).count() == 1", "solana.tx.transfers.filter(t, t.amount > 0)[0].amount == 1000",
		"solana.tx.account_keys.contains('" + bobKey + "')", "'" + aliceKey + "' in solana.tx.account_keys",
		"solana.tx.account_keys.all(k, solana.tx.transfers.any(t, t.from == k || t.to == k))",
		"solana.tx.transfers.all(a, solana.tx.transfers.any(b, a.amount == b.amount))",
		"solana.tx.account_keys[0] == solana.tx.fee_payer", "solana.tx.account_keys[0] == solana.tx.account_keys[1]",
	} {
		whole, made := solanaRequest(t, 1000, 2000), solanaRequest(t, 1000, 2000)
		tx := made.Decoded.View[solana.Root]
		for i, v := range tx.List {
			if v.Kind == chains.KindList {
				tx.List[i] = chains.SeqValue(madeWhenRead(v.List))
			}
		}
		p := allow(text)
		a, b := outcomeOf(t, p, whole), outcomeOf(t, p, made)
		if a.Outcome != b.Outcome || a.Error != b.Error {
			t.Errorf("%s: %v (%s) and %v (%s)", text, a.Outcome, a.Error, b.Outcome, b.Error)
		}
	}
}

func TestPartialListsAreErrors(t *testing.T) {
	r := solanaRequest(t, 1000)
	r.Decoded.View[solana.Root].List[solana.TxType.Index("transfers")].Partial = true
	for _, text := range []string{"solana.tx.transfers.count() == 1", "solana.tx.transfers.all(t, true)", "solana.tx.transfers[0].amount == 1000"} {
		got := outcomeOf(t, allow(text), r)
		if got.Outcome != Failed || !strings.Contains(got.Error, "not understood") {
			t.Errorf("%s: %v (%s)", text, got.Outcome, got.Error)
		}
		deny := Policy{ID: "d", Effect: Deny, Condition: text}
		if got := outcomeOf(t, deny, r); got.Outcome != Failed {
			t.Errorf("deny %s: %v", text, got.Outcome)
		}
	}
}

// What is behind a table that is not pinned has a name only in the imported
// language; in ours nothing else can be said of it.
func TestUnknownAccounts(t *testing.T) {
	r := solanaRequest(t, 1)
	list := r.Decoded.View[solana.Root].List
	list[solana.TxType.Index("transfers")].List[0].List[1] = chains.UnresolvedPubkey()
	list[solana.TxType.Index("account_keys")].List[1] = chains.UnresolvedPubkey()
	const named = "'ADDRESS_TABLE_LOOKUP'"
	for _, row := range []struct {
		text             string
		imported, native PolicyOutcome
	}{
		{"solana.tx.transfers[0].to == " + named, Matched, Matched},
		{"solana.tx.transfers[0].to != " + named, NoMatch, NoMatch},
		{"solana.tx.transfers[0].from != " + named, Matched, Matched},
		{"solana.tx.transfers[0].to == '" + bobKey + "'", NoMatch, Failed},
		{"solana.tx.transfers[0].to != '" + bobKey + "'", Matched, Failed},
		{"solana.tx.transfers[0].to == solana.tx.fee_payer", NoMatch, Failed},
		{"solana.tx.transfers[0].to == solana.tx.account_keys[1]", Matched, Failed},
		{"solana.tx.transfers[0].to in ['" + bobKey + "', '" + aliceKey + "']", NoMatch, Failed},
		{"solana.tx.transfers[0].to in ['" + bobKey + "', " + named + "]", Matched, Matched},
		{"solana.tx.transfers[0].from in ['" + bobKey + "', " + named + "]", NoMatch, NoMatch},
		{"solana.tx.account_keys.contains(" + named + ")", Matched, Matched},
		{"solana.tx.account_keys.contains('" + aliceKey + "')", Matched, Matched},
		{"solana.tx.account_keys.contains('" + bobKey + "')", NoMatch, Failed},
		{"solana.tx.transfers[0].amount == 1", Matched, Matched},
	} {
		for lang, want := range map[string]PolicyOutcome{LangTurnkey: row.imported, LangSigild: row.native} {
			p := allow(row.text)
			p.Lang = lang
			if got := outcomeOf(t, p, r); got.Outcome != want {
				t.Errorf("%s, %s: got %v (%s), want %v", lang, row.text, got.Outcome, got.Error, want)
			}
		}
	}
}
