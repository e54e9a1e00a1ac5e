package policy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// A second evaluator, written from docs/policy.md to be plain rather than fast: it
// walks the parsed text with Go values and big integers, knows no types before it
// meets a value, and shares only the lexer and the parser with the real one.

type (
	refLiteral string  // 'text', which becomes what it is compared with
	refText    string  // a text of the payload
	refHex     string  // a whole hexadecimal field
	refCut     string  // a piece of one
	refAccount string  // the bytes of an address or key
	refTime    big.Int // nanoseconds since 1970
	refStruct  map[string]any
	refRoot    string // "eth", before the dot
)

var errReference = errors.New("evaluation error")

type reference struct {
	roots map[string]any
	now   time.Time
	vars  map[string]any
}

// plain makes Go values of a view's node.
func plain(v *chains.Value, t *chains.Type) any {
	switch v.Kind {
	case chains.KindAbsent:
		return nil
	case chains.KindBool:
		return !v.Int.IsZero()
	case chains.KindInt, kindTime:
		n := v.Int.ToBig()
		if v.Neg {
			n.Neg(n)
		}
		if v.Kind == kindTime {
			return (*refTime)(n)
		}
		return n
	case chains.KindString:
		return refText(v.Str)
	case chains.KindHex:
		return refHex(v.Str)
	case chains.KindAddress, chains.KindPubkey:
		return refAccount(v.Raw)
	case chains.KindList:
		list := []any{}
		for i := range v.List {
			list = append(list, plain(&v.List[i], t.Elem))
		}
		return list
	case chains.KindStruct:
		s := refStruct{}
		for i, f := range t.Fields {
			s[f.Name] = plain(&v.List[i], f.Type)
		}
		return s
	}
	panic(fmt.Sprintf("kind %d", v.Kind))
}

func newReference(r *Request) *reference {
	ref := &reference{roots: map[string]any{}, now: r.Now, vars: map[string]any{}}
	for _, root := range StandardSchema().roots {
		v := chains.Value{}
		if root.of != nil {
			v = root.of(r)
		} else if r.Decoded != nil {
			v = r.Decoded.View[root.Name]
		}
		ref.roots[root.Name] = plain(&v, root.Type)
	}
	return ref
}

// value evaluates n, with errors for whatever is not there or does not fit.
func (r *reference) value(n *node) (any, error) {
	kids := make([]any, len(n.kids))
	eager := n.op != opMethod || n.text == "count" || n.text == "contains"
	for i, k := range n.kids {
		if !eager && i > 0 {
			break
		}
		var err error
		if kids[i], err = r.value(k); err != nil {
			return nil, err
		}
	}
	switch n.op {
	case opBool:
		return !n.value.Int.IsZero(), nil
	case opInt:
		i := n.value.Int.ToBig()
		if n.value.Neg {
			i.Neg(i)
		}
		return i, nil
	case opString:
		return refLiteral(n.text), nil
	case opList:
		return kids, nil
	case opAnd, opOr:
		all, any := true, false
		for _, k := range kids {
			b, ok := k.(bool)
			if !ok {
				return nil, errReference
			}
			all, any = all && b, any || b
		}
		if n.op == opAnd {
			return all, nil
		}
		return any, nil
	case opNot:
		return !kids[0].(bool), nil
	case opEqual, opNotEqual:
		same, err := refSame(kids[0], kids[1])
		return same == (n.op == opEqual), err
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		a, b := refNumber(kids[0]), refNumber(kids[1])
		if a == nil || b == nil {
			return nil, errReference
		}
		c := a.Cmp(b)
		return map[op]bool{opLess: c < 0, opLessEqual: c <= 0, opGreater: c > 0, opGreaterEqual: c >= 0}[n.op], nil
	case opIn:
		return refMember(kids[0], kids[1])
	case opName, opField:
		return r.name(n, kids)
	case opIndex:
		i := kids[1].(*big.Int)
		return refPart(kids[0], i, new(big.Int).Add(i, big.NewInt(1)), true)
	case opSlice:
		return refPart(kids[0], kids[1].(*big.Int), kids[2].(*big.Int), false)
	case opCall:
		return r.call(n)
	case opMethod:
		return r.method(n, kids)
	}
	panic(fmt.Sprintf("op %d", n.op))
}

func (r *reference) name(n *node, kids []any) (v any, err error) {
	switch {
	case n.op == opName:
		var ok bool
		if v, ok = r.vars[n.text]; !ok {
			if v, ok = r.roots[n.text]; !ok {
				return refRoot(n.text), nil
			}
		}
	default:
		switch base := kids[0].(type) {
		case refRoot:
			v = r.roots[string(base)+"."+n.text]
		case refStruct:
			v = base[n.text]
		}
	}
	if v == nil {
		return nil, errReference
	}
	return v, nil
}

func (r *reference) call(n *node) (any, error) {
	if n.text == "Timestamp" {
		t, err := time.Parse(time.RFC3339Nano, n.kids[0].text)
		i := new(big.Int).Mul(big.NewInt(t.Unix()), big.NewInt(1e9))
		return (*refTime)(i.Add(i, big.NewInt(int64(t.Nanosecond())))), err
	}
	if r.now.IsZero() {
		return nil, errReference
	}
	var s cronSpan
	if err := errors.Join(s.readFields(n.kids[0].text), s.readLength(n.kids[1].text), s.readZone(n.kids[2].text)); err != nil {
		return nil, err
	}
	return s.slowly(r.now), nil
}

func (r *reference) method(n *node, kids []any) (any, error) {
	list, ok := kids[0].([]any)
	if !ok {
		return nil, errReference
	}
	switch n.text {
	case "count":
		return big.NewInt(int64(len(list))), nil
	case "contains":
		return refMember(kids[1], list)
	}
	name := n.kids[1].text
	outer, had := r.vars[name]
	all, any, kept := true, false, []any{}
	for _, item := range list {
		if item == nil {
			return nil, errReference
		}
		r.vars[name] = item
		holds, err := r.value(n.kids[2])
		if err != nil {
			return nil, err
		}
		all, any = all && holds.(bool), any || holds.(bool)
		if holds.(bool) {
			kept = append(kept, item)
		}
	}
	delete(r.vars, name)
	if had {
		r.vars[name] = outer
	}
	switch n.text {
	case "all":
		return all, nil
	case "any":
		return any, nil
	}
	return kept, nil
}

func refNumber(v any) *big.Int {
	switch v := v.(type) {
	case *big.Int:
		return v
	case *refTime:
		return (*big.Int)(v)
	}
	return nil
}

func refSame(a, b any) (bool, error) {
	if _, ok := a.(refLiteral); ok {
		a, b = b, a
	}
	lit, isLit := b.(refLiteral)
	bare := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "0x") }
	switch a := a.(type) {
	case refLiteral:
		return a == lit, nil
	case bool:
		return a == b, nil
	case *big.Int, *refTime:
		return refNumber(a).Cmp(refNumber(b)) == 0, nil
	case refText:
		if isLit {
			return string(a) == string(lit), nil
		}
		return a == b, nil
	case refHex:
		if isLit {
			return bare(string(a)) == bare(string(lit)), nil
		}
		return bare(string(a)) == bare(string(b.(refHex))), nil
	case refCut:
		if isLit {
			return string(a) == strings.ToLower(string(lit)), nil
		}
		return a == b, nil
	case refAccount:
		if !isLit {
			return a == b, nil
		}
		if strings.HasPrefix(string(lit), "0x") {
			raw, err := hex.DecodeString(string(lit[2:]))
			return bytes.Equal(raw, []byte(a)), err
		}
		k, err := solana.ParseAddress(string(lit))
		return bytes.Equal(k[:], []byte(a)), err
	}
	return false, errReference
}

func refMember(item, list any) (bool, error) {
	l, ok := list.([]any)
	if !ok {
		return false, errReference
	}
	found := false
	for _, x := range l {
		same, err := refSame(item, x)
		if err != nil {
			return false, err
		}
		found = found || same
	}
	return found, nil
}

// refPart takes elements or characters from a to b.
func refPart(v any, from, to *big.Int, single bool) (any, error) {
	size := 0
	switch v := v.(type) {
	case []any:
		size = len(v)
	case refText:
		size = len([]rune(v))
	case refHex:
		size = len(v)
	case refCut:
		size = len(v)
	default:
		return nil, errReference
	}
	if from.Sign() < 0 || from.Cmp(to) > 0 || to.Cmp(big.NewInt(int64(size))) > 0 {
		return nil, errReference
	}
	a, b := from.Int64(), to.Int64()
	switch v := v.(type) {
	case []any:
		if !single {
			return v[a:b], nil
		}
		if v[a] == nil {
			return nil, errReference
		}
		return v[a], nil
	case refText:
		return refText([]rune(v)[a:b]), nil
	case refHex:
		return refCut(v[a:b]), nil
	}
	return v.(refCut)[a:b], nil
}

// outcome is what the real evaluator should say of an ALLOW with this condition.
func (r *reference) outcome(t *testing.T, text string) PolicyOutcome {
	tree, perr := parse(text, LangSigild)
	if perr != nil {
		t.Fatalf("%s: %s", text, perr.message)
	}
	reads, has := false, false
	for _, root := range []string{"eth.tx", "solana.tx"} {
		if strings.Contains(text, root) {
			reads, has = true, has || r.roots[root] != nil
		}
	}
	if reads && !has {
		return NotApplicable
	}
	v, err := r.value(tree)
	switch {
	case err != nil:
		return Failed
	case v.(bool):
		return Matched
	}
	return NoMatch
}

// writer makes conditions that compile.
type writer struct {
	*rand.Rand
	depth int
}

func (w *writer) pick(choices ...string) string { return choices[w.IntN(len(choices))] }

func (w *writer) deeper(f func() string) string {
	w.depth++
	defer func() { w.depth-- }()
	return f()
}

func (w *writer) condition() string {
	if w.depth > 3 {
		return w.pick("true", "false", w.number()+" "+w.pick("<", "<=", ">", ">=", "==", "!=")+" "+w.number())
	}
	return w.deeper(func() string {
		switch w.IntN(16) {
		case 0:
			return "(" + w.condition() + " && " + w.condition() + ")"
		case 1:
			return "(" + w.condition() + " || " + w.condition() + " || " + w.condition() + ")"
		case 2:
			return "!(" + w.condition() + ")"
		case 3, 4:
			return w.number() + " " + w.pick("<", "<=", ">", ">=", "==", "!=") + " " + w.number()
		case 5:
			return w.number() + " in [" + w.number() + ", " + w.literal() + ", " + w.literal() + "]"
		case 6:
			return "eth.tx.to " + w.pick("==", "!=") + " '" + w.pick(usdc, strings.ToLower(usdc), recipient) + "'"
		case 7:
			return fmt.Sprintf("eth.tx.to in ['%s', '%s', '%s', '%s']", usdc, recipient, "0x"+strings.Repeat("11", 20), "0x"+strings.Repeat("22", 20))
		case 8:
			a := w.IntN(80)
			return fmt.Sprintf("eth.tx.data[%d..%d] == '%s'", a, a+w.IntN(12), w.pick("0xa9059cbb", "A9059cbb", "00", transfer[34:44]))
		case 9:
			return "eth.tx.data " + w.pick("==", "!=") + " '" + w.pick(transfer, "0x", strings.ToUpper(transfer[2:])) + "'"
		case 10:
			return "solana.tx.transfers." + w.pick("all", "any") + "(t, " + w.about("t") + ")"
		case 11:
			return "solana.tx.transfers[" + fmt.Sprint(w.IntN(3)) + "]." + w.pick("to == '"+bobKey+"'", "amount > 5", "from != '"+bobKey+"'")
		case 12:
			return "solana.tx.program_keys.contains('" + w.pick(systemKey, aliceKey) + "')"
		case 13:
			return "time.now " + w.pick("<", ">=") + " Timestamp('" + w.pick("2026-03-04T05:06:07Z", "2026-03-04T05:06:07.000000008Z", "1969-01-01T00:00:00+00:00") + "')"
		case 14:
			return "CronSpan('" + w.pick("0 5 * * *", "6 5 4,5 3 *", "* * * * 1-5") + "', '" + w.pick("7m", "1h", "2d") + "', '" + w.pick("UTC", "America/New_York") + "')"
		}
		return w.pick("wallet.label == 'main'", "wallet.id[0..2] == 'w-'", "wallet.exported", "activity.params.type == 'TRANSACTION_TYPE_ETHEREUM'",
			"activity.params.encoding == 'X'", "private_key.tags.contains('a')", "wallet_account.address == '"+usdc+"'", "request.id == 'r-1'", "delegation.id == 'd'", "caller.uid == 0")
	})
}

// about is a condition on a transfer.
func (w *writer) about(item string) string {
	return w.pick(item+".amount < "+w.literal(), item+".to in ['"+aliceKey+"', '"+bobKey+"']", item+".from == '"+aliceKey+"' && "+w.condition())
}

func (w *writer) number() string {
	return w.pick("eth.tx.value", "eth.tx.nonce", "eth.tx.max_fee_per_gas", "eth.tx.chain_id", "solana.tx.transfers.count()",
		"solana.tx.transfers.filter(x, x.amount > "+w.literal()+").count()", "solana.tx.transfers[0].amount", "[3, 4, 5][1..3].count()", "[1, 2][1]", w.literal())
}

func (w *writer) literal() string {
	return w.pick("0", "1", "7", "-1", "1000", "0xff", "30000000000", new(big.Int).Lsh(big.NewInt(1), uint(w.IntN(256))).String(),
		"115792089237316195423570985008687907853269984665640564039457584007913129639935")
}

func TestReferenceEvaluatorAgrees(t *testing.T) {
	n := 6_000
	if testing.Short() {
		n = 1_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &writer{Rand: rand.New(rand.NewPCG(seed, 2))}
	var requests []Request
	for _, v := range []chains.Value{chains.Uint64Value(0), number(t, "170141183460469231731687303715884105728"), {}} {
		requests = append(requests, evmRequest(t, map[string]chains.Value{"value": v}))
	}
	requests = append(requests,
		evmRequest(t, map[string]chains.Value{"to": {}, "data": chains.HexValue("0x")}),
		evmRequest(t, map[string]chains.Value{"to": {}, "max_fee_per_gas": {}, "data": chains.HexValue(transfer[:10])}),
		solanaRequest(t), solanaRequest(t, 1000), solanaRequest(t, 1, 7, 1<<40), Request{}, Request{Now: time.Date(2026, 3, 4, 5, 6, 30, 0, time.UTC)})
	requests[1].Wallet, requests[2].DelegationID, requests[3].Caller = nil, "d", &Caller{}
	seen := map[PolicyOutcome]int{}
	for range n {
		text := w.condition()
		set, ds := Compile([]Policy{sigild(text)}, nil, nil)
		if set == nil {
			t.Fatalf("%s: %v", text, ds)
		}
		for i := range requests {
			got := set.Evaluate(requests[i]).Policies[0]
			if skip(text, &requests[i]) {
				continue
			}
			want := newReference(&requests[i]).outcome(t, text)
			if got.Outcome != want {
				t.Fatalf("%s\nrequest %d: got %v (%s: %s), want %v", text, i, got.Outcome, got.Expr, got.Error, want)
			}
			seen[got.Outcome]++
		}
	}
	for _, o := range []PolicyOutcome{Matched, NoMatch, Failed, NotApplicable} {
		if seen[o] < n/20 {
			t.Errorf("%v came up %d times only", o, seen[o])
		}
	}
}

// skip leaves out what the reference does not model: policies that are not
// applicable because a subject is missing, and guards.
func skip(text string, r *Request) bool {
	return r.Wallet == nil && strings.Contains(text, "wallet.") || r.PrivateKey == nil && strings.Contains(text, "private_key.") ||
		r.WalletAccount == nil && strings.Contains(text, "wallet_account.")
}
