package delegation

import (
	"bytes"
	"context"
	"testing"

	"filippo.io/age"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func TestAnOwnerWhoLostTheShareGetsAFreshOne(t *testing.T) {
	ctx, h := context.Background(), newHouse(t, withWallet)
	old := h.keyOfWallet(solWallet).Root.ID
	n := NewShareRecovery{RequestID: "r", Organization: site.acme, Wallet: solWallet}
	made, err := h.RecoverShare(ctx, stamped(site.acme, n, site.root...), n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	h.wantOneSet(solWallet, old, h.ownersShare("receipt", solWallet, site.dana))

	// Elsewhere only by the owner, who signs where.
	other := site.dana
	if other.age, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	n = NewShareRecovery{RequestID: "e", Organization: site.acme, Wallet: solWallet, Recipient: other.age.Recipient().String()}
	if n.RecipientSignature, err = credential.SignRecipient(site.dana.key, n.Recipient); err != nil {
		t.Fatal(err)
	}
	_, err = h.RecoverShare(ctx, stamped(site.acme, n, site.root...), n)
	wantRefusal(t, "root moves a recipient", err, refusal.QuorumMissing)
	for name, change := range map[string]func(n *NewShareRecovery){
		"no signature": func(n *NewShareRecovery) { n.RecipientSignature = nil },
		"another's": func(n *NewShareRecovery) {
			n.RecipientSignature, _ = credential.SignRecipient(site.erin.key, n.Recipient)
		},
		"no recipient": func(n *NewShareRecovery) { n.Recipient = "age1" },
	} {
		bad := n
		change(&bad)
		_, err = h.RecoverShare(ctx, stamped(site.acme, bad, site.dana.holder), bad)
		wantRefusal(t, name, err, refusal.RequestInvalid)
	}
	old = h.keyOfWallet(solWallet).Root.ID
	if made, err = h.RecoverShare(ctx, stamped(site.acme, n, site.dana.holder), n); err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	h.wantOneSet(solWallet, old, h.ownersShare("receipt2", solWallet, other))
	if u := find(h.book, h.book.users, site.dana.id); u.ShareRecipient != n.Recipient {
		t.Errorf("later shares go to %s, want %s", u.ShareRecipient, n.Recipient)
	}
}

func TestALostDeviceIsReplaced(t *testing.T) {
	ctx, h := context.Background(), newHouse(t, withWallet, func(h *house) {
		h.wallet("wal_second", cluster, mpctest.Keygen(t, mpc.KeygenRequest{SetID: "second-root", Scheme: chains.EdDSAEd25519,
			Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2}))
	})
	old := map[string]string{solWallet: h.keyOfWallet(solWallet).Root.ID, "wal_second": h.keyOfWallet("wal_second").Root.ID}
	delegation, _ := h.delegate("d", solWallet)
	found := site.dana
	found.holder = newHolder(credential.ForUser, "new phone")
	var err error
	if found.age, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	n := NewDeviceRecovery{RequestID: "r", Organization: site.acme, User: site.dana.id, Credentials: []NewCredential{found.NewCredential}, Recipient: found.age.Recipient().String()}
	if n.RecipientSignature, err = credential.SignRecipient(found.key, n.Recipient); err != nil {
		t.Fatal(err)
	}
	h.unchanged("refused recoveries", func() {
		for name, by := range map[string][]holder{"another user": {site.erin.holder}, "one root of two": site.root[:1], "operators": site.operators} {
			_, err := h.RecoverDevice(ctx, stamped(site.acme, n, by...), n)
			wantRefusal(t, name, err, refusal.QuorumMissing)
		}
		for name, c := range map[string]struct {
			change func(n *NewDeviceRecovery)
			reason refusal.Reason
		}{
			"no credential":    {func(n *NewDeviceRecovery) { n.Credentials = nil }, refusal.RequestInvalid},
			"no proof":         {func(n *NewDeviceRecovery) { n.Credentials[0].Proof = nil }, refusal.RequestInvalid},
			"unsigned":         {func(n *NewDeviceRecovery) { n.RecipientSignature = nil }, refusal.RequestInvalid},
			"a delegated user": {func(n *NewDeviceRecovery) { n.User = site.bot }, refusal.RequestInvalid},
			"a foreign user":   {func(n *NewDeviceRecovery) { n.User = site.gina.id }, refusal.NotFound},
		} {
			bad := n
			bad.Credentials = []NewCredential{found.NewCredential}
			c.change(&bad)
			_, err := h.RecoverDevice(ctx, stamped(site.acme, bad, site.root...), bad)
			wantRefusal(t, name, err, c.reason)
		}
	})
	made, err := h.RecoverDevice(ctx, stamped(site.acme, n, site.root...), n)
	if err != nil || len(made.Ceremonies) != 2 {
		t.Fatalf("%+v, %v, want a ceremony for each of two keys", made, err)
	}
	// The lost credential is worth nothing at once.
	_, err = h.rotate("thief", solWallet, site.dana.holder)
	wantRefusal(t, "the lost credential", err, refusal.QuorumMissing)
	for _, id := range made.Ceremonies {
		h.wantCeremony(id, statusDone)
	}
	for i, wallet := range []string{solWallet, "wal_second"} {
		h.wantOneSet(wallet, old[wallet], h.ownersShare([]string{"one", "two"}[i], wallet, found))
	}
	h.restart()
	if h.KnownCredential(site.acme, site.dana.key.Public()) || !h.KnownCredential(site.acme, found.key.Public()) {
		t.Error("after a restart the lost credential is known, or the new one is not")
	}
	if d, err := h.Delegation(look(site.acme, found.holder), site.acme, delegation); err != nil || d.Status != statusActive {
		t.Errorf("delegation %+v, %v: what the owner delegated stands", d, err)
	}
}

func TestADeadCustodianIsReplacedWithTheOwnersShare(t *testing.T) {
	ctx, h := context.Background(), newHouse(t, withWallet)
	set := mpctest.Ed25519RootSet(t)
	// The recovery share is gone from the store: without it nothing is issued.
	h.put(func(tx *vault.Tx) error { return tx.Delete(vault.TypeShare, ShareID(set.ID, mpc.Recovery)) })
	made, err := h.rotate("r", solWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusFailed)

	n := NewCustodianRecovery{RequestID: "c", Organization: site.acme, Wallet: solWallet, Share: set.Shares(t, mpc.User)[0]}
	h.secrets = append(h.secrets, middle(n.Share))
	h.unchanged("refused recoveries", func() {
		_, err := h.RecoverCustodian(ctx, stamped(site.acme, n, site.root...), n)
		wantRefusal(t, "root", err, refusal.QuorumMissing)
		for name, share := range map[string][]byte{
			"nothing": nil, "the recovery share": set.Shares(t, mpc.Recovery)[0], "another key's": mpctest.ECDSARootSet(t).Shares(t, mpc.User)[0],
			"a damaged share": append(set.Shares(t, mpc.User)[0], 0),
		} {
			bad := n
			bad.Share = share
			_, err := h.RecoverCustodian(ctx, stamped(site.acme, bad, site.dana.holder), bad)
			wantRefusal(t, name, err, refusal.RequestInvalid)
		}
	})
	lent := bytes.Clone(n.Share)
	if made, err = h.RecoverCustodian(ctx, stamped(site.acme, n, site.dana.holder), n); err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	if !bytes.Equal(lent, n.Share) {
		t.Error("the share that was lent was changed")
	}
	h.wantOneSet(solWallet, set.ID, h.ownersShare("receipt", solWallet, site.dana))
	h.delegate("d", solWallet)
}

// A key that was delegated for ever is nobody's but its owner's: the root quorum can't
// become the owner, and the owner can replace a lost device with another credential.
func TestTheRootRecoversNoOwnerOfADelegatedKey(t *testing.T) {
	ctx, h := context.Background(), newHouse(t, withWallet)
	k := *h.keyOfWallet(solWallet)
	k.Delay = true
	h.put(func(tx *vault.Tx) error { return h.putKey(tx, &k) })
	phone := newHolder(credential.ForUser, "new phone")
	n := NewDeviceRecovery{RequestID: "r", Organization: site.acme, User: site.dana.id, Credentials: []NewCredential{phone.NewCredential}, Recipient: site.dana.age.Recipient().String()}
	var err error
	if n.RecipientSignature, err = credential.SignRecipient(phone.key, n.Recipient); err != nil {
		t.Fatal(err)
	}
	h.unchanged("a refused recovery", func() {
		_, err := h.RecoverDevice(ctx, stamped(site.acme, n, site.root...), n)
		if no := wantRefusal(t, "root", err, refusal.NotActive); no.Details["key"] != k.ID {
			t.Errorf("refusal %v does not name the key", no)
		}
	})
	made, err := h.RecoverDevice(ctx, stamped(site.acme, n, site.dana.holder), n)
	if err != nil || len(made.Ceremonies) != 1 {
		t.Fatalf("the owner: %+v, %v", made, err)
	}
	h.wantCeremony(made.Ceremonies[0], statusDone)
	if h.KnownCredential(site.acme, site.dana.key.Public()) || !h.KnownCredential(site.acme, phone.key.Public()) {
		t.Error("the lost credential is known, or the new one is not")
	}
}
