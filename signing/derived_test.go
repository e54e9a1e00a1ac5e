package signing_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A derived wallet is another address of a key. Its delegation signs for that address
// alone, by all steps, with and without a presignature.
func TestSigningOnADerivedWallet(t *testing.T) {
	set := mpctest.ECDSADelegateSet(t).WithChainCode(t, bytes.Repeat([]byte{9}, 32))
	h, g := newHouse(t, terms{set: set, presignatures: true})
	// The key says that its recovery share lies here; any of the set has the chain code.
	h.update(func(tx *vault.Tx) error {
		return tx.Put(vault.TypeShare, delegation.ShareID(set.ID, mpc.Recovery), set.Shares(t)[0])
	})
	n := delegation.NewDerived{RequestID: "derive", Organization: site.organization, Wallet: g[0].wallet, Path: "0/7", Name: "seventh"}
	w, err := h.delegation.DeriveWallet(context.Background(), actor(site.organization, "DeriveWallet", site.root), n)
	if err != nil {
		t.Fatal(err)
	}
	want, err := mpc.DerivedKey(set.Shares(t)[0], []uint32{0, 7})
	if err != nil || !bytes.Equal(w.PublicKey, want) {
		t.Fatalf("wallet %+v, %v, want public key %x", w, err, want)
	}
	// The delegation is made one of the derived wallet.
	h.update(func(tx *vault.Tx) error {
		return tx.With(vault.TypeDelegation, g[0].id, func(b []byte) error {
			return tx.Put(vault.TypeDelegation, g[0].id, bytes.ReplaceAll(b, []byte(g[0].wallet), []byte(w.ID)))
		})
	})
	s := h.again().stash(1)
	child := *g[0]
	child.set.PublicKey, child.wallet = want, w.ID

	address, err := evm.Address(want)
	if err != nil || evm.Checksum(address) != w.Address {
		t.Fatalf("address %s, %v, want %s", w.Address, err, evm.Checksum(address))
	}
	payload := transfer(t, 1, 5)
	s.mustSign(&child, "one", payload)
	if e := s.entries(journal.KindSigned); len(e) != 1 || e[0].Wallet != w.ID {
		t.Errorf("entries %+v, want one of the derived wallet", e)
	}
	// The key does not open the key's own wallet, nor anything a policy denies.
	_, err = s.sign(g[0], "parent", payload)
	wantRefusal(t, err, refusal.APIKeyInvalid)
	_, err = s.sign(&child, "much", transfer(t, 2, 501))
	wantRefusal(t, err, refusal.PolicyDenied)

	s.fill(&child, 1)
	payload = transfer(t, 3, 5)
	s.mustSign(&child, "presigned", payload)
	if s.presignedBy("presigned") == "" {
		t.Error("it was signed without a presignature")
	}
	// The same request again gets the same bytes, after a crash too.
	first := s.mustSign(&child, "one", transfer(t, 1, 5))
	after := s.again()
	again, err := after.sign(&child, "one", transfer(t, 1, 5))
	if err != nil || !bytes.Equal(again.Signature, first.Signature) {
		t.Errorf("after a crash: %v, another signature", err)
	}
}
