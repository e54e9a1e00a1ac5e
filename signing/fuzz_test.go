package signing_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// never allows nothing, so that no mutated payload costs a signature.
var never = policy.Policy{Name: "never", Effect: policy.Allow, Lang: policy.LangSigild, Condition: "false"}

// mutate changes, cuts, doubles or inserts bytes, from r alone.
func mutate(r *rand.Rand, b []byte) []byte {
	out := append([]byte(nil), b...)
	for range 1 + r.IntN(4) {
		if len(out) == 0 {
			return out
		}
		i := r.IntN(len(out))
		switch r.IntN(5) {
		case 0:
			out[i] ^= 1 << r.IntN(8)
		case 1:
			out[i] = byte(r.Uint32())
		case 2:
			out = out[:i]
		case 3:
			out = append(out[:i:i], append([]byte{byte(r.Uint32())}, out[i:]...)...)
		case 4:
			out = append(out, out[i:]...)
		}
	}
	return out
}

// Whatever the bytes are, the answer is a refusal that was journaled: no panic, no
// internal error, no approval.
func TestMutatedPayloadsAreRefused(t *testing.T) {
	h, g := newHouse(t, terms{set: mpctest.ECDSADelegateSet(t), policies: []policy.Policy{never}}, terms{policies: []policy.Policy{never}})
	r := rand.New(rand.NewPCG(1, 2))
	reasons := map[refusal.Reason]int{}
	for i := range 400 {
		x, payload := g[i%2], transfer(t, uint64(i), 1)
		if i%2 == 1 {
			payload = x.pay(1, byte(i))
		}
		reasons[h.refuses(t, x, x.kind, mutate(r, payload))]++
	}
	if reasons[refusal.PayloadMalformed] < 50 || reasons[refusal.PolicyDenied] < 20 || len(reasons) != 2 {
		t.Errorf("reasons %v: the mutator reaches too little", reasons)
	}
	h.wantKinds(0, 0, 0, 0)
}

// refuses signs nothing of payload and says why.
func (h *house) refuses(t testing.TB, g *grant, kind chains.Kind, payload []byte) refusal.Reason {
	t.Helper()
	r := g.request("id", payload)
	r.Kind = kind
	out, err := h.signing.Sign(context.Background(), r)
	no, ok := err.(*refusal.Error)
	if !ok || out != nil {
		t.Fatalf("payload %x: result %+v, error %v, want a refusal", payload, out, err)
	}
	return no.Reason
}

func FuzzSignPayload(f *testing.F) {
	h, g := newHouse(f, terms{set: mpctest.ECDSADelegateSet(f), policies: []policy.Policy{never}}, terms{policies: []policy.Policy{never}})
	f.Add(byte(0), transfer(f, 7, 1))
	f.Add(byte(1), g[1].pay(1, 1))
	f.Add(byte(2), make([]byte, 32))
	f.Add(byte(0), []byte{0x02, 0xc0})
	f.Add(byte(3), append(append([]byte("\xffsolana offchain\x01\x01"), g[1].set.PublicKey...), "hello"...))
	f.Add(byte(1), []byte{0x80})
	f.Add(byte(0), []byte{})
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		kinds := []chains.Kind{chains.KindEVMTransaction, chains.KindSolanaMessage, "raw_digest", chains.KindSolanaOffchain}
		h.refuses(t, g[kind&1], kinds[int(kind)%len(kinds)], payload)
	})
}
