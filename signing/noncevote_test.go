package signing_test

import (
	"encoding/binary"
	"testing"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/refusal"
)

// nonceAccount is the durable nonce of payDurably.
var nonceAccount = [32]byte{7, 7, 3}

// payDurably is pay under a durable nonce with the value n: it does not expire.
func (g *grant) payDurably(t testing.TB, lamports uint64, n byte) []byte {
	t.Helper()
	recent, err := solana.ParseAddress("SysvarRecentB1ockHashes11111111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	m := append([]byte{0x80, 1, 0, 2, 5}, g.set.PublicKey...)
	for _, key := range [][32]byte{nonceAccount, solPayee, recent, {}, {0xb2, n}} { // the last is the nonce
		m = append(m, key[:]...)
	}
	m = append(m, 2, 4, 3, 1, 3, 0, 4, 4, 0, 0, 0) // AdvanceNonceAccount
	m = append(m, 4, 2, 0, 2, 12, 2, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint64(m, lamports), 0)
}

// Where the blockhash is a durable nonce it is part of what people approve: a fresh
// blockhash may be put in, another nonce may not, and neither takes the other's place.
func TestApprovalOfADurableNonce(t *testing.T) {
	p := solAllow
	p.Condition = "solana.tx.transfers.count() == 1 && solana.tx.durable_nonce.account == '" + solana.Address(nonceAccount) + "'"
	plain := consenting(solAllow, two)
	plain.policies = append(plain.policies, consenting(p, two).policies...)
	plain.policies[1].Name = "by nonce"
	h, g := newHouse(t, plain)
	_, ann := h.user("ann")
	a := h.ask(g[0], "durable", g[0].payDurably(t, 100, 1))
	h.mustApprove("yes", a, ann[0])
	for name, payload := range map[string][]byte{
		"another nonce": g[0].payDurably(t, 100, 2), "another amount": g[0].payDurably(t, 101, 1), "a blockhash in its place": g[0].pay(100, 1),
	} {
		if _, err := h.sign(g[0], "durable", payload); err == nil {
			t.Fatalf("%s was signed under the approval", name)
		} else {
			wantRefusal(t, err, refusal.RequestIDReused)
		}
	}
	r := h.mustSign(g[0], "durable", g[0].payDurably(t, 100, 1))
	if len(r.Signature) != 64 {
		t.Errorf("signature of %d bytes", len(r.Signature))
	}
	// And the other way: what was approved with a blockhash is signed with no nonce.
	b := h.ask(g[0], "plain", g[0].pay(100, 1))
	h.mustApprove("yes-plain", b, ann[0])
	_, err := h.sign(g[0], "plain", g[0].payDurably(t, 100, 3))
	wantRefusal(t, err, refusal.RequestIDReused)
	h.mustSign(g[0], "plain", g[0].pay(100, 9))
}
