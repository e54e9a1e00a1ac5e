// Package peers measures our policy engine beside cel-go and OPA, on one policy and
// one transaction, in one run: make bench-peers. Each engine gets the transaction as
// it reads it fastest, decoded and converted beforehand; what is measured is one
// decision. CEL and Rego have no 256-bit integers, so the amounts here fit into 64
// bits: what they could not compare at all is not in the figure.
package peers

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/policy"
)

const (
	usdc = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"
	// unsigned is an EIP-1559 transaction: USDC transfer(0x9cad…7300, 1000000) on chain 1.
	unsigned = "02f86d0107843b9aca008506fc23ac0082fde894a0b86991c6218b36c1d19d4a2e9eb0ce3606eb4880b844a9059cbb" +
		"0000000000000000000000009cad63e4c09a9bd195568fc662835046c3605873" +
		"00000000000000000000000000000000000000000000000000000000000f4240c0"
)

// allowed are ten recipients, the one of the transaction last.
func allowed() []string {
	var list []string
	for i := range 9 {
		list = append(list, fmt.Sprintf("%040d", i))
	}
	return append(list, "9cad63e4c09a9bd195568fc662835046c3605873")
}

func decoded(b *testing.B) *chains.Decoded {
	b.Helper()
	raw, err := hex.DecodeString(unsigned)
	if err != nil {
		b.Fatal(err)
	}
	d, err := evm.Decode(chains.KindEVMTransaction, raw, evm.Options{Wallet: [20]byte{19: 1}})
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// fields is the transaction as a map, for engines that read maps.
func fields(b *testing.B) map[string]any {
	tx := decoded(b).View[evm.Root]
	m := map[string]any{}
	for i, f := range evm.TxType.Fields {
		switch v := tx.List[i]; v.Kind {
		case chains.KindInt:
			m[f.Name] = int64(v.Int.Uint64())
		case chains.KindString, chains.KindHex:
			m[f.Name] = v.Str
		case chains.KindAddress:
			m[f.Name] = "0x" + hex.EncodeToString(v.Raw)
		}
	}
	return m
}

func BenchmarkDecideEVM(b *testing.B) {
	b.Run("sigild", func(b *testing.B) {
		set, ds := policy.Compile([]policy.Policy{{ID: "payouts", Effect: policy.Allow, Condition: "eth.tx.chain_id == 1 && eth.tx.to == '" + usdc + "'" +
			" && eth.tx.data[0..10] == '0xa9059cbb' && eth.tx.data[34..74] in ['" + strings.Join(allowed(), "', '") + "']" +
			" && eth.tx.max_fee_per_gas <= 100000000000 && eth.tx.value == 0 && eth.tx.gas < 100000"}}, nil, nil)
		if set == nil {
			b.Fatal(ds)
		}
		req := policy.Request{Decoded: decoded(b)}
		if d := set.Evaluate(req); d.Outcome != policy.Allowed {
			b.Fatal(d.Reason)
		}
		b.ReportAllocs()
		for b.Loop() {
			set.Evaluate(req)
		}
	})
	b.Run("cel-go", func(b *testing.B) {
		env, err := cel.NewEnv(cel.Variable("tx", cel.MapType(cel.StringType, cel.DynType)))
		if err != nil {
			b.Fatal(err)
		}
		ast, issues := env.Compile("tx.chain_id == 1 && tx.to == '" + usdc + "' && string(tx.data).startsWith('0xa9059cbb')" +
			" && ['" + strings.Join(allowed(), "', '") + "'].exists(r, string(tx.data).startsWith('0xa9059cbb000000000000000000000000' + r))" +
			" && tx.max_fee_per_gas <= 100000000000 && tx.value == 0 && tx.gas < 100000")
		if issues.Err() != nil {
			b.Fatal(issues.Err())
		}
		program, err := env.Program(ast)
		if err != nil {
			b.Fatal(err)
		}
		in := map[string]any{"tx": fields(b)}
		if out, _, err := program.Eval(in); err != nil || out.Value() != true {
			b.Fatal(out, err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := program.Eval(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("opa", func(b *testing.B) {
		module := "package payouts\nallowed := {\"" + strings.Join(allowed(), "\", \"") + "\"}\ndefault allow := false\n" +
			"allow if {\n input.chain_id == 1\n input.to == \"" + usdc + "\"\n substring(input.data, 0, 10) == \"0xa9059cbb\"\n" +
			" substring(input.data, 34, 40) in allowed\n input.max_fee_per_gas <= 100000000000\n input.value == 0\n input.gas < 100000\n}\n"
		query, err := rego.New(rego.Query("data.payouts.allow"), rego.Module("payouts.rego", module)).PrepareForEval(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		in := rego.EvalInput(fields(b))
		if out, err := query.Eval(b.Context(), in); err != nil || !out.Allowed() {
			b.Fatal(out, err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := query.Eval(b.Context(), in); err != nil {
				b.Fatal(err)
			}
		}
	})
}
