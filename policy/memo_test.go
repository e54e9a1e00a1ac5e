package policy

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/sigild/sigild/chains"
)

// What policies share is worked out once, and every policy comes out as it does alone:
// outcome, the part that decided with its place, the error, the steps.
func TestSharedPartsDecideAsAlone(t *testing.T) {
	conditions := []string{
		"eth.tx.chain_id == 1 && eth.tx.value == 0",
		"eth.tx.value == 0 && eth.tx.chain_id == 1",
		"eth.tx.data[34..74] == '" + recipient[2:] + "' && eth.tx.chain_id == 1 && eth.tx.gas < 100000",
		"eth.tx.chain_id == 1 && eth.tx.data[34..9999] == '00'", // can't be evaluated
		"eth.tx.gas < 100000 && eth.tx.data[34..9999] == '00'",
		"eth.tx.chain_id == 7 && eth.tx.data[34..9999] == '00' && eth.tx.value == 0",
		"eth.tx.chain_id == 7",
		"eth.tx.max_fee_per_blob_gas == 1 && eth.tx.chain_id == 7",
	}
	var all []Policy
	for i, c := range conditions {
		for j, lang := range []string{LangTurnkey, LangSigild} {
			all = append(all, Policy{ID: fmt.Sprintf("p-%02d-%d", i, j), Effect: Effect(i % 2), Condition: c, Lang: lang, Consensus: "approvers.count() >= 1"})
		}
	}
	set := compileSet(t, all...)
	for name, req := range map[string]Request{
		"a payment": evmRequest(t, nil), "another": evmRequest(t, map[string]chains.Value{"to": address(t, recipient)}), "solana": solanaRequest(t, 1000),
	} {
		req.Approvers = []User{{ID: "ann"}}
		together := set.Evaluate(req)
		steps := 0
		for i, p := range all {
			alone := compileSet(t, p).Evaluate(req)
			if !reflect.DeepEqual(alone.Policies[0], together.Policies[i]) {
				t.Errorf("%s: %s is %+v in the set, %+v alone", name, p.ID, together.Policies[i], alone.Policies[0])
			}
			steps += alone.Steps
		}
		if together.Steps != steps {
			t.Errorf("%s: %d steps together, %d alone", name, together.Steps, steps)
		}
	}
}

// What is remembered still costs its steps: a policy that would run out does.
func TestSharedPartsCostTheirSteps(t *testing.T) {
	var many []Policy
	loop := "solana.tx.transfers.all(a, solana.tx.transfers.all(b, solana.tx.transfers.all(c, a.amount <= b.amount || c.amount > 0)))"
	for i := range 3 {
		many = append(many, Policy{ID: fmt.Sprint("p-", i), Effect: Deny, Condition: loop})
	}
	one, all := compileSet(t, many[0]).Evaluate(solanaRequest(t, 1000)), compileSet(t, many...).Evaluate(solanaRequest(t, 1000))
	if all.Steps != 3*one.Steps || one.Steps == 0 {
		t.Errorf("%d steps for three, %d for one", all.Steps, one.Steps)
	}
	f := &frame{steps: 5}
	p := &part{shared: true, holds: func(f *frame) (bool, *evalError) { f.steps -= 3; return true, nil }}
	for range 2 {
		if holds, err := f.judge(p); !holds || err != nil {
			t.Errorf("%v, %v", holds, err)
		}
	}
	if f.steps != -1 {
		t.Errorf("%d steps left, want -1: the second time there were too few, so it ran", f.steps)
	}
}
