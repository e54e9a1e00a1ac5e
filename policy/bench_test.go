package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// evmTransferPolicy is the policy that the figures of the engine are about: chain,
// contract, selector, recipient out of ten, amount, fee and value.
func evmTransferPolicy() Policy {
	recipients := make([]string, 0, 10)
	for i := range 9 {
		recipients = append(recipients, fmt.Sprintf("'%040d'", i))
	}
	recipients = append(recipients, "'"+recipient[2:]+"'")
	return Policy{ID: "payouts", Name: "payouts", Effect: Allow, Condition: "eth.tx.chain_id == 1 && eth.tx.to == '" + usdc + "' && eth.tx.data[0..10] == '0xa9059cbb'" +
		" && eth.tx.data[34..74] in [" + strings.Join(recipients, ", ") + "] && eth.tx.max_fee_per_gas <= 100000000000 && eth.tx.value == 0 && eth.tx.gas < 100000"}
}

func solanaTransferPolicy() Policy {
	return allow("solana.tx.address_table_lookups.count() == 0 && solana.tx.instructions.all(i, i.program_key in ['" + systemKey + "', '" + aliceKey + "'])" +
		" && solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.to in ['" + aliceKey + "', '" + bobKey + "'] && t.amount <= 1000000)")
}

func benchmarkEvaluate(b *testing.B, s *Set, req Request, want Outcome) {
	if d := s.Evaluate(req); d.Outcome != want {
		b.Fatalf("got %v: %s", d.Outcome, d.Reason)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Evaluate(req)
	}
}

func BenchmarkEvaluateEVMTransfer(b *testing.B) {
	benchmarkEvaluate(b, compileSet(b, evmTransferPolicy()), evmRequest(b, nil), Allowed)
}

func BenchmarkEvaluateEVMDenied(b *testing.B) {
	req := evmRequest(b, map[string]chains.Value{"to": address(b, recipient)})
	benchmarkEvaluate(b, compileSet(b, evmTransferPolicy()), req, DenyImplicit)
}

func BenchmarkEvaluateSolana(b *testing.B) {
	benchmarkEvaluate(b, compileSet(b, solanaTransferPolicy()), solanaRequest(b, 1000), Allowed)
}

func BenchmarkEvaluateTenThousand(b *testing.B) {
	ps := make([]Policy, 10_000)
	for i := range ps {
		ps[i] = evmTransferPolicy()
		ps[i].ID = fmt.Sprintf("p-%05d", i)
		ps[i].Condition = strings.Replace(ps[i].Condition, fmt.Sprintf("'%040d'", 0), fmt.Sprintf("'%040d'", i), 1)
	}
	benchmarkEvaluate(b, compileSet(b, ps...), evmRequest(b, nil), Allowed)
}

func BenchmarkCompile(b *testing.B) {
	p := []Policy{evmTransferPolicy()}
	b.ReportAllocs()
	for b.Loop() {
		if s, ds := Compile(p, nil, nil); s == nil {
			b.Fatal(ds)
		}
	}
}

func BenchmarkCheckLimits(b *testing.B) {
	l := []Limit{{ID: "l", Asset: usdcAsset, Max: amount(1000), Window: MaxWindow, Delegation: "d"}}
	sp := Spending{Chain: "eip155:1", Charges: []chains.Charge{charge(usdcAsset, amount(1), "transfer")}, Delegation: "d", Now: noon, Spent: ledger(nil).spent}
	b.ReportAllocs()
	for b.Loop() {
		if e := Check(l, sp); e != nil {
			b.Fatal(e)
		}
	}
}
