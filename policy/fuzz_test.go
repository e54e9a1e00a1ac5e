package policy

import (
	"strings"
	"testing"
	"time"
)

// FuzzCompile feeds texts to the lexer, the parser and the checker in all three
// clauses and both languages. What compiles is evaluated: nothing may panic,
// diagnostics must point into the text, and decisions must repeat.
func FuzzCompile(f *testing.F) {
	for _, c := range readCorpus(f).Cases {
		for _, p := range c.Policies {
			f.Add(p.Condition, p.Consensus, p.Time)
		}
	}
	for _, r := range readCorpus(f).RejectAtCreation {
		f.Add(r.Condition, "", "")
	}
	f.Add("eth.tx.to in ['"+usdc+"'] && !(eth.tx.value > 5) || [1,2][0] == 1", "approvers.filter(u, u.tags.contains('a')).count() >= 1", "time.now < Timestamp('2026-04-01T00:00:00.5Z')")
	f.Add("CronSpan('0,30 9-17 1 * 1-5', '1d12h30m', 'Europe/Berlin')", "", "!CronSpan('* * * * *', '1m', 'UTC')")
	f.Add("solana.tx.transfers[0..1].all(t, t.to == 'ADDRESS_TABLE_LOOKUP' || t.amount == -0x1)", "credentials[0].public_key == '0x02ab'", "")
	f.Add("wallet.label[1..2] == 'é' && caller.uid == 0 && request.id != delegation.id", "true", "true")
	f.Add("'<A>' <A> '' .. [[ !!!!", "((((", "1 == 1 == 1")
	f.Add(strings.Repeat("[1].all(x, ", 9)+"true"+strings.Repeat(")", 9), "\xff", "\u202e")
	requests := []Request{evmRequest(f, nil), solanaRequest(f, 1, 2), {Now: time.Unix(-1, 5)}}
	f.Fuzz(func(t *testing.T, condition, consensus, when string) {
		for _, lang := range []string{LangTurnkey, LangSigild} {
			for _, effect := range []Effect{Allow, Deny} {
				p := Policy{ID: "p", Effect: effect, Condition: condition, Consensus: consensus, Time: when, Lang: lang}
				set, ds := Compile([]Policy{p}, nil, nil)
				for _, d := range ds {
					text := map[string]string{ClauseCondition: condition, ClauseConsensus: consensus, ClauseTime: when}[d.Clause]
					if d.Offset < -1 || d.Offset > len(text) || d.Message == "" || d.Code == "" {
						t.Fatalf("bad diagnostic %+v", d)
					}
				}
				if (set == nil) != HasErrors(ds) {
					t.Fatalf("set %v with %v", set, ds)
				}
				if set == nil {
					continue
				}
				for _, r := range requests {
					a, b := set.Evaluate(r), set.Evaluate(r)
					if strings.HasPrefix(a.Reason, "internal error") {
						t.Fatalf("%q panicked", condition)
					}
					if a.Outcome != b.Outcome || a.Reason != b.Reason || a.Steps != b.Steps {
						t.Fatalf("two decisions: %+v and %+v", a, b)
					}
					if effect == Deny && a.Outcome == Allowed {
						t.Fatal("a DENY allowed")
					}
				}
			}
		}
	})
}

func FuzzCanonicalAsset(f *testing.F) {
	for _, s := range []string{ether, usdcAsset, lamports, "eip155:1/erc20:" + usdc, "solana:abc/token:" + bobKey, "eip155:1/erc20:0x", "/:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := CanonicalAsset(s)
		if err != nil {
			return
		}
		if b, err := CanonicalAsset(a); err != nil || a != b {
			t.Fatalf("%q became %q, which becomes %q, %v", s, a, b, err)
		}
	})
}
