package delegation

import (
	"context"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// What the model found (model_test.go), each by itself.

// A delegated user who was removed stays so: nobody delegates anything to it, by default
// neither.
func TestNothingIsDelegatedToARemovedUser(t *testing.T) {
	h := newHouse(t, withWallet)
	ctx := context.Background()
	on := NewDelegatedAccess{RequestID: "on", Organization: site.acme, Access: DelegatedAccess{Enabled: true}}
	if err := h.SetDelegatedAccess(ctx, stamped(site.acme, on, site.root...), on); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveUser(ctx, stamped(site.acme, "remove", site.root...), "gone", site.acme, site.bot); err != nil {
		t.Fatal(err)
	}
	h.unchanged("a removed user", func() {
		n := newDelegation("d", solWallet)
		_, err := h.createDelegation(n)
		wantRefusal(t, "made", err, refusal.NotActive)
		_, err = h.RequestDelegation(ctx, stamped(site.acme, n, site.dana.holder), n)
		wantRefusal(t, "proposed", err, refusal.NotActive)
		by := NewDelegatedAccess{RequestID: "default", Organization: site.acme, Access: DelegatedAccess{Enabled: true, DelegatedUser: site.bot}}
		err = h.SetDelegatedAccess(ctx, stamped(site.acme, by, site.root...), by)
		wantRefusal(t, "by default", err, refusal.NotActive)
	})
}

// A vendor's wallet has no share set here: nothing is issued from it, and stamps sign
// nothing for it, whatever the organization's policies allow.
func TestVendorsWalletHasNoQuorumHere(t *testing.T) {
	h := newHouse(t)
	h.put(func(tx *vault.Tx) error {
		k := &key{V: recordVersion, ID: "key_v", Organization: site.acme, Scheme: chains.EdDSAEd25519, CreatedAt: began, Origin: originVendor, Status: statusActive}
		if err := store(tx, vault.TypeKey, k.ID, k); err != nil {
			return err
		}
		w := &wallet{V: recordVersion, ID: "wal_v", Organization: site.acme, Key: k.ID, Chain: cluster, Name: "theirs", Address: "11111111111111111111111111111112",
			Status: statusActive, CreatedAt: began, Vendor: "whk_1/wallet-1", PublicKey: make([]byte, 32)}
		return store(tx, vault.TypeWallet, w.ID, w)
	})
	h.restart()
	n := newDelegation("d", "wal_v")
	_, err := h.CreateDelegation(context.Background(), stamped(site.acme, n, site.root...), n)
	wantRefusal(t, "made", err, refusal.NotActive)
	st, err := h.AuthenticateStamps(site.acme, "wal_v", []credential.PublicKey{site.dana.key.Public()})
	if err != nil || !refusal.Is(st.Ended, refusal.NotActive) {
		t.Errorf("by stamps: %+v, %v, want one that has ended", st, err)
	}
}

// Who may not pause a delegation is told that, and not how it stands.
func TestPauseTellsNobodyElseHowADelegationStands(t *testing.T) {
	h := newHouse(t, withWallet, withDelegations)
	ctx := context.Background()
	if _, err := h.RevokeDelegation(ctx, stamped(site.acme, revocation{"r", "dlg_1"}, site.dana.holder), "r", site.acme, "dlg_1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		by   holder
		want refusal.Reason
	}{{"another user", site.erin.holder, refusal.QuorumMissing}, {"the owner", site.dana.holder, refusal.NotActive}} {
		n := NewPause{RequestID: "p", Scope: Scope{Organization: site.acme, Delegation: "dlg_1"}, Reason: "hold"}
		_, err := h.Pause(ctx, stamped(site.acme, n, c.by), n)
		wantRefusal(t, c.name+" pauses", err, c.want)
	}
	for _, c := range []struct {
		name string
		by   []holder
		want refusal.Reason
	}{{"another user", []holder{site.erin.holder}, refusal.QuorumMissing}, {"the root", site.root, refusal.NotActive}} {
		err := h.Resume(ctx, stamped(site.acme, "resume", c.by...), "q", Scope{Organization: site.acme, Delegation: "dlg_1"})
		wantRefusal(t, c.name+" resumes", err, c.want)
	}
}

// What is over is shown as over, and swept, though the host's clock was turned back.
func TestEndIsShownByTheLaterClock(t *testing.T) {
	h := newHouse(t, withWallet)
	n := newDelegation("d", solWallet)
	end := h.clock.now().Add(time.Hour)
	n.ExpiresAt = &end
	made, err := h.createDelegation(n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	h.clock.add(2 * time.Hour)
	u := NewUser{RequestID: "u", Organization: site.acme, Name: "any", Kind: DelegatedUser}
	if _, err := h.CreateUser(context.Background(), stamped(site.acme, u, site.root...), u); err != nil { // an entry of this time
		t.Fatal(err)
	}
	h.clock.add(-90 * time.Minute)
	shown := func() string {
		t.Helper()
		d, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, made.DelegationID)
		if err != nil {
			t.Fatal(err)
		}
		list, err := h.Delegations(look(site.acme, site.dana.holder), ListQuery{Organization: site.acme})
		if err != nil || len(list) != 1 || list[0].Status != d.Status {
			t.Errorf("listed as %+v, %v, shown as %s", list, err, d.Status)
		}
		return d.Status
	}
	if got := shown(); got != statusExpired {
		t.Errorf("it is shown as %s", got)
	}
	if err := h.Expire(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d := find(h.book, h.book.delegations, made.DelegationID); d.Status != statusExpired {
		t.Errorf("it is still %s in the store", d.Status)
	}
}
