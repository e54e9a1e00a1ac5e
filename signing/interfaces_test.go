package signing_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// What an organization's policy authority says of Solana programs and lookup
// tables, and messages that are no transactions.

// setDocument puts one document of acme's.
func (h *house) setDocument(id string, kind delegation.DocumentKind, name, content string) error {
	h.t.Helper()
	a := actor(site.organization, "SetDocuments", site.root)
	now, err := h.delegation.Documents(a, site.organization, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = h.delegation.SetDocuments(context.Background(), a, delegation.DocumentChanges{
		RequestID: id, Organization: site.organization, Expected: now.Version,
		Set: []delegation.NewDocument{{DocumentName: delegation.DocumentName{Kind: kind, Name: name}, Content: []byte(content)}},
	})
	return err
}

func allows(condition string) terms {
	return terms{policies: []policy.Policy{{Name: "only", Effect: policy.Allow, Lang: policy.LangSigild, Condition: condition}}}
}

var (
	solTable   = [32]byte{8, 1}
	solProgram = [32]byte{8, 2}
)

// payBehindTable pays entry 1 of a lookup table.
func (g *grant) payBehindTable(lamports uint64) []byte {
	m := []byte{0x80, 1, 0, 1, 2}
	m = append(append(m, g.set.PublicKey...), make([]byte, 32)...)
	m = append(m, bytes.Repeat([]byte{9}, 32)...)
	m = append(m, 1, 1, 2, 0, 2, 12, 2, 0, 0, 0)
	m = binary.LittleEndian.AppendUint64(m, lamports)
	return append(append(append(m, 1), solTable[:]...), 1, 1, 0)
}

func TestLookupTablesMustBePinned(t *testing.T) {
	h, g := newHouse(t, allows("solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.to == '"+solana.Address(solPayee)+"')"))
	payload, table := g[0].payBehindTable(5), solana.Address(solTable)
	_, err := h.sign(g[0], "before", payload)
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "before")

	short, other := fmt.Sprintf(`[%q]`, solana.Address(solProgram)), fmt.Sprintf(`[%q,%q]`, solana.Address(solPayee), solana.Address(solProgram))
	for i, content := range []string{short, other} {
		if err := h.setDocument(fmt.Sprint("pin", i), delegation.KindLookupTable, table, content); err != nil {
			t.Fatal(err)
		}
		_, err = h.sign(g[0], fmt.Sprint("with", i), payload)
		h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), fmt.Sprint("with", i))
	}
	if err := h.setDocument("pin", delegation.KindLookupTable, table, fmt.Sprintf(`[%q,%q]`, solana.Address(solProgram), solana.Address(solPayee))); err != nil {
		t.Fatal(err)
	}
	g[0].verify(t, h.mustSign(g[0], "after", payload), payload)

	for name, bad := range map[string][2]string{
		"no address": {"table", other}, "no list": {table, `{}`}, "empty": {table, `[]`}, "no key": {table, `["x"]`}, "two lists": {table, other + other},
		"too many": {table, `[` + strings.Repeat(fmt.Sprintf("%q,", table), 256) + fmt.Sprintf("%q]", table)},
	} {
		if err := h.setDocument(name, delegation.KindLookupTable, bad[0], bad[1]); err == nil {
			t.Errorf("%s: a pin was taken", name)
		}
	}
}

// deposit calls the program that the IDL is for.
func (g *grant) deposit(amount uint64, discriminator byte) []byte {
	m := []byte{0x80, 1, 0, 1, 2}
	m = append(append(m, g.set.PublicKey...), solProgram[:]...)
	m = append(m, bytes.Repeat([]byte{9}, 32)...)
	m = append(m, 1, 1, 1, 0, 9, discriminator)
	return append(binary.LittleEndian.AppendUint64(m, amount), 0)
}

func TestIDLsTellPoliciesNames(t *testing.T) {
	h, g := newHouse(t, allows("solana.tx.instructions.all(i, i.parsed_instruction_data.instruction_name == 'deposit' && i.parsed_instruction_data.program_call_args['amount'] <= 5)"))
	_, err := h.sign(g[0], "before", g[0].deposit(5, 1))
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "before")
	idl := `{"name":"vault","instructions":[{"name":"deposit","discriminator":[1],"accounts":[{"name":"owner","signer":true}],"args":[{"name":"amount","type":"u64"}]},{"name":"withdraw","discriminator":[2],"accounts":[],"args":[{"name":"amount","type":"u64"}]}]}`
	if err := h.setDocument("idl", delegation.KindIDL, solana.Address(solProgram), idl); err != nil {
		t.Fatal(err)
	}
	payload := g[0].deposit(5, 1)
	g[0].verify(t, h.mustSign(g[0], "five", payload), payload)
	for id, payload := range map[string][]byte{"six": g[0].deposit(6, 1), "withdraw": g[0].deposit(5, 2), "unknown": g[0].deposit(5, 3)} {
		_, err := h.sign(g[0], id, payload)
		h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), id)
	}
	for name, bad := range map[string][2]string{
		"no address": {"vault", idl}, "built in": {solana.Address([32]byte{}), idl}, "no IDL": {solana.Address(solProgram), `{}`},
		"another program's": {solana.Address(solProgram), strings.Replace(idl, `{`, `{"address":"`+solana.Address(solTable)+`",`, 1)},
	} {
		if err := h.setDocument(name, delegation.KindIDL, bad[0], bad[1]); err == nil {
			t.Errorf("%s: an IDL was taken", name)
		}
	}
}

// off is an off-chain message of version 1 for the wallet.
func (g *grant) off(text string) []byte {
	b := append([]byte("\xffsolana offchain\x01\x01"), g.set.PublicKey...)
	return append(b, text...)
}

func TestMessagesThatAreNoTransactions(t *testing.T) {
	h, g := newHouse(t, allows("solana.offchain_message.text == 'hello'"), allows("solana.siws.domain == 'example.com' && activity.kind == 'SIGN_RAW_PAYLOAD'"), terms{})
	sign := func(g *grant, id string, kind chains.Kind, payload []byte) ([]byte, error) {
		r := g.request(id, payload)
		r.Kind = kind
		out, err := h.signing.Sign(context.Background(), r)
		if err != nil {
			return nil, err
		}
		if out.Signed != nil || out.TransactionID != "" || !ed25519.Verify(g.set.PublicKey, payload, out.Signature) {
			t.Errorf("%s: result %+v", id, out)
		}
		return out.Signature, nil
	}
	first, err := sign(g[0], "hello", chains.KindSolanaOffchain, g[0].off("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := sign(g[0], "hello", chains.KindSolanaOffchain, g[0].off("hello")); err != nil || !bytes.Equal(again, first) {
		t.Errorf("asked again: %x, %v", again, err)
	}
	siws := []byte("example.com wants you to sign in with your Solana account:\n" + solana.Address([32]byte(g[1].set.PublicKey)) + "\n\nURI: https://example.com\nNonce: 12345678")
	if _, err := sign(g[1], "siws", chains.KindSolanaOffchain, siws); err != nil {
		t.Fatal(err)
	}
	for id, tc := range map[string]struct {
		g       *grant
		kind    chains.Kind
		payload []byte
		want    refusal.Reason
	}{
		"other-text":    {g[0], chains.KindSolanaOffchain, g[0].off("bye"), refusal.PolicyDenied},
		"other-kind":    {g[0], chains.KindSolanaOffchain, bytes.Replace(siws, []byte(solana.Address([32]byte(g[1].set.PublicKey))), []byte(solana.Address([32]byte(g[0].set.PublicKey))), 1), refusal.PolicyDenied},
		"transactions":  {g[2], chains.KindSolanaOffchain, g[2].off("hello"), refusal.PolicyDenied}, // its policy is about transactions
		"as-message":    {g[0], chains.KindSolanaOffchain, g[0].pay(1, 1), refusal.PayloadMalformed},
		"as-trailing":   {g[0], chains.KindSolanaOffchain, append(g[0].pay(1, 1), "hello"...), refusal.PayloadMalformed},
		"as-transfer":   {g[0], chains.KindSolanaMessage, g[0].off("hello"), refusal.PayloadMalformed},
		"anything-else": {g[0], chains.KindSolanaOffchain, []byte("hello"), refusal.PayloadMalformed},
		"not-ours":      {g[1], chains.KindSolanaOffchain, append([]byte("\xffsolana offchain\x01\x01"), append(make([]byte, 32), "hello"...)...), refusal.PayloadMalformed},
	} {
		_, err := sign(tc.g, id, tc.kind, tc.payload)
		h.wantRefused(wantRefusal(t, err, tc.want), id)
	}
}
