package delegation

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/vault"
)

// BenchmarkThousandOrganizations starts with 1,000 organizations with 100 users and 10
// policies each, and judges a stamped request in one of them. The targets are a start
// of 1.5 s and a decision of 100 µs.
func BenchmarkThousandOrganizations(b *testing.B) {
	h := newHouse(b, withWallet)
	const organizations, users, policies = 1000, 100, 10
	seed := newHolder(credential.ForDelegatedUser, "trader")
	for o := range organizations {
		org := fmt.Sprintf("org_bench%d", o)
		h.put(func(tx *vault.Tx) error {
			rec := &organization{V: recordVersion, ID: org, Name: "tenant", CreatedAt: began, RootUsers: []string{fmt.Sprintf("usr_%d_0", o)}, Quorum: 1, PolicyAuthority: authorityAPI, PolicyVersion: 1}
			errs := []error{store(tx, vault.TypeOrganization, org, rec)}
			for u := range users {
				r := registered{ID: fmt.Sprintf("crd_%d_%d", o, u), Name: "key", Algorithm: string(credential.Ed25519), PublicKey: seed.PublicKey.Bytes, CreatedAt: &began}
				kind := DelegatedUser
				if u == 0 {
					kind = EndUser
				}
				if u == 1 {
					r.ID = seed.PublicKey.ID()
				}
				one := &user{V: recordVersion, ID: fmt.Sprintf("usr_%d_%d", o, u), Organization: org, Name: "user", Kind: kind, CreatedAt: began, Credentials: []registered{r}}
				errs = append(errs, store(tx, vault.TypeUser, one.ID, one))
			}
			for p := range policies {
				d, err := Intent{Policy: policy.Policy{Name: fmt.Sprint("policy ", p), Effect: policy.Allow, Lang: policy.LangTurnkey,
					Condition: fmt.Sprintf("solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.amount <= %d)", 100+p), Consensus: soleConsensus(fmt.Sprintf("usr_%d_%d", o, p))}}.documentOf()
				doc := &document{V: recordVersion, Organization: org, Kind: d.Kind, Name: d.Name, Version: 1, Content: d.Content}
				errs = append(errs, err, store(tx, vault.TypeDocument, doc.id(), doc))
			}
			return errors.Join(errs...)
		})
	}
	h.reportStarts(b, 0, 0)
	o, err := h.book.organization("org_bench500")
	if err != nil {
		b.Fatal(err)
	}
	const looks = 2000
	start := time.Now()
	for range looks {
		st, err := h.stamper(o, "usr_500_0", []credential.PublicKey{seed.PublicKey})
		if err != nil {
			b.Fatal(err)
		}
		if err := h.judgedBy(st, true); err != nil {
			b.Fatal(err)
		}
		st.Rules.Evaluate(policy.Request{Approvers: st.Approvers, Credentials: st.Credentials, Now: began, Decoded: &chains.Decoded{Kind: chains.KindSolanaMessage}})
	}
	b.ReportMetric(float64(time.Since(start).Microseconds())/looks, "decision-us")
}
