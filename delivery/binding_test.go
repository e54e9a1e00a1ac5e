package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// ledger notes what the delegations of a test are told.
type ledger struct{ ended, held []string }

func (l *ledger) EndVendor(_ *vault.Tx, id string) error     { l.ended = append(l.ended, id); return nil }
func (l *ledger) HoldVendor(_ *vault.Tx, id, _ string) error { l.held = append(l.held, id); return nil }
func (l *ledger) Await(context.Context, string) error        { return nil }

// bound has delegation dlg_1 sign with the only delivery of a wallet's set.
func (h *house) bound(e endpoint, wallet, set string) {
	h.t.Helper()
	m := h.book.wallet(e.id, wallet).Sets[set]
	err := h.cfg.Vault.Update(context.Background(), func(tx *vault.Tx) error {
		if _, err := h.OfferShare(tx, testOrg, m.ID); err != nil {
			return err
		}
		return h.Bind(tx, testOrg, m.ID, "dlg_1")
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) offer(org, id string) (o signing.VendorOffer, err error) {
	err = h.cfg.Vault.Update(context.Background(), func(tx *vault.Tx) (err error) { o, err = h.OfferShare(tx, org, id); return err })
	return o, err
}

// standing is what is kept for a set: the event of what is in its place with its
// status, and that of what stands beside it.
func (h *house) standing(e endpoint, wallet, set string) [3]string {
	w := h.book.wallet(e.id, wallet)
	return [3]string{w.Sets[set].Event, string(w.Sets[set].Status), w.Beside[set].Event}
}

// A delivery never takes the place of a bound one by its arrival. Revocations hit
// what is older, at the same time too, and end the delegation with what it signs with.
func TestNewerDeliveryStandsBesideABoundOne(t *testing.T) {
	h := newHouse(t)
	l := &ledger{}
	h.Service.cfg.Delegations = l
	e := h.register(testOrg, testEnv, testSecret)
	for _, c := range []struct {
		wallet string
		events []object
		want   [3]string
		ended  bool
	}{
		{"newer", []object{e.created(t, "n2", "newer", "s", 3)}, [3]string{"newer-1", "bound", "n2"}, false},
		{"older", []object{e.created(t, "o2", "older", "s", 0)}, [3]string{"older-1", "bound", ""}, false},
		{"two", []object{e.created(t, "t2", "two", "s", 3), e.created(t, "t3", "two", "s", 4)}, [3]string{"two-1", "bound", "t3"}, false},
		{"between", []object{e.created(t, "b2", "between", "s", 3), revoked("b3", "between", "s", 2)}, [3]string{"b2", "pending", ""}, true},
		{"at-the-same-time", []object{e.created(t, "a2", "at-the-same-time", "s", 3), revoked("a3", "at-the-same-time", "", 3)}, [3]string{"at-the-same-time-1", "revoked", ""}, true},
		{"before", []object{revoked("f3", "before", "s", 0)}, [3]string{"before-1", "bound", ""}, false},
		{"of-all", []object{revoked("w3", "of-all", "", 1)}, [3]string{"of-all-1", "revoked", ""}, true},
	} {
		h.want(e, e.created(t, c.wallet+"-1", c.wallet, "s", 1), Stored)
		h.bound(e, c.wallet, "s")
		l.ended = nil
		for _, o := range c.events {
			if _, err := h.send(e, body(t, o)); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.standing(e, c.wallet, "s"); got != c.want || slices.Contains(l.ended, "dlg_1") != c.ended {
			t.Errorf("%s: %v, ended %v; want %v, ended %v", c.wallet, got, l.ended, c.want, c.ended)
		}
	}
	h.reopen(true)
	h.Service.cfg.Delegations = l
	if got := h.standing(e, "two", "s"); got != [3]string{"two-1", "bound", "t3"} {
		t.Errorf("after a restart: %v", got)
	}
	// Share and API key of what stands beside are there, those of the one it replaced are not.
	if n := h.records(vault.TypeVendorShare); n != 7 {
		t.Errorf("%d shares are kept, want 7", n)
	}
}

// Our own end destroys the share; what stood beside it, and what comes later, waits.
func TestUnboundShareIsDestroyed(t *testing.T) {
	h := newHouse(t)
	h.Service.cfg.Delegations = &ledger{}
	e := h.register(testOrg, testEnv, testSecret)
	h.want(e, e.created(t, "ev-1", "w", "", 1), Stored)
	h.bound(e, "w", "")
	m := h.book.wallet(e.id, "w").Sets[""]
	record := h.recordOf(m.ID)
	h.want(e, e.created(t, "ev-2", "w", "", 2), Stored)
	share := signing.VendorShare{Webhook: e.id, Wallet: "w"}
	unbind := func() error {
		return h.cfg.Vault.Update(t.Context(), func(tx *vault.Tx) error { return h.Unbind(tx, share, "dlg_1") })
	}
	if err := unbind(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.read(vault.TypeVendorShare, record); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the share is still there: %v", err)
	}
	if got := h.standing(e, "w", ""); got != [3]string{"ev-2", "pending", ""} {
		t.Errorf("what stood beside: %v", got)
	}
	if err := unbind(); err != nil { // as when its vendor was faster
		t.Error(err)
	}
	if _, err := h.SignVendor(t.Context(), signing.VendorRequest{Delegation: "dlg_1", Share: share}); !refusal.Is(err, refusal.ProviderUnavailable) {
		t.Errorf("signing without a program: %v", err)
	}
	if _, _, err := h.candidates(share, "dlg_1"); !refusal.Is(err, refusal.DelegationRevoked) {
		t.Errorf("signing with a destroyed share: %v", err)
	}
}

// A delegated user who is removed may have had several share sets of one wallet: all of
// them end in one transaction.
func TestSharesOfOneWalletEndTogether(t *testing.T) {
	h := newHouse(t)
	h.Service.cfg.Delegations = &ledger{}
	e := h.register(testOrg, testEnv, testSecret)
	for _, set := range []string{"a", "b", "c"} {
		h.want(e, e.created(t, "ev-"+set, "w", set, 1), Stored)
		h.bound(e, "w", set)
	}
	err := h.cfg.Vault.UpdateAlone(t.Context(), func(tx *vault.Tx) error {
		for _, set := range []string{"a", "c"} {
			if err := h.Unbind(tx, signing.VendorShare{Webhook: e.id, Wallet: "w", ShareSet: set}, "dlg_1"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for set, want := range map[string]string{"a": "revoked", "b": "bound", "c": "revoked"} {
			if got := h.standing(e, "w", set)[1]; got != want {
				t.Errorf("set %s is %s, want %s", set, got, want)
			}
		}
		h.reopen(true)
	}
}

func TestDeliveriesAreOfferedOnce(t *testing.T) {
	h := newHouse(t)
	h.Service.cfg.Delegations = &ledger{}
	e := h.register(testOrg, testEnv, testSecret)
	h.want(e, e.created(t, "ev-1", "w", "s", 1), Stored)
	id := h.book.wallet(e.id, "w").Sets["s"].ID
	o, err := h.offer(testOrg, id)
	if err != nil || o.Share != (signing.VendorShare{Webhook: e.id, Wallet: "w", ShareSet: "s"}) || o.Chain != "EVM" {
		t.Errorf("offered %+v, %v", o, err)
	}
	_, err = h.offer(otherOrg, id)
	wantReason(t, "another organization's", err, refusal.NotFound)
	_, err = h.offer(testOrg, "vdl_none")
	wantReason(t, "none", err, refusal.NotFound)
	h.bound(e, "w", "s")
	_, err = h.offer(testOrg, id)
	wantReason(t, "a bound one", err, refusal.NotActive)
}

// Share and API key open only under what they were delivered for.
func TestRecordsAreTiedToWhatTheyAreFor(t *testing.T) {
	w := &vendorWallet{Webhook: "whk_1", Wallet: "w"}
	m := material{ID: "vdl_1", Chain: "EVM", Address: "0x1", Event: "e", Kid: "k", Whole: true}
	seen := map[string]bool{w.record("env", "s", m): true}
	for _, change := range []func(w *vendorWallet, env, set *string, m *material){
		func(_ *vendorWallet, env, _ *string, _ *material) { *env = "other" },
		func(_ *vendorWallet, _, set *string, _ *material) { *set = "" },
		func(w *vendorWallet, _, _ *string, _ *material) { w.Wallet = "v" },
		func(w *vendorWallet, _, _ *string, _ *material) { w.Webhook = "whk_2" },
		func(_ *vendorWallet, _, _ *string, m *material) { m.Address = "0x2" },
		func(_ *vendorWallet, _, _ *string, m *material) { m.Event = "f" },
		func(_ *vendorWallet, _, _ *string, m *material) { m.Kid = "" },
		func(_ *vendorWallet, _, _ *string, m *material) { m.Chain = "SVM" },
	} {
		v, env, set, n := *w, "env", "s", m
		change(&v, &env, &set, &n)
		if id := v.record(env, set, n); seen[id] {
			t.Errorf("%s stands for two", id)
		} else {
			seen[id] = true
		}
	}
	m.Whole = false
	if id := w.record("env", "s", m); id != "vdl_1" {
		t.Errorf("an earlier build's record is %s", id)
	}
}

func TestTokensAreSet(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	set := func(id, org, hook, token string, p person) error {
		return h.SetToken(t.Context(), p, NewToken{RequestID: id, Organization: org, Webhook: hook, Token: []byte(token)})
	}
	wantReason(t, "no root", set("t0", testOrg, e.id, "token-1", person{}), refusal.QuorumMissing)
	wantReason(t, "another organization's", set("t1", otherOrg, e.id, "token-1", person{root: otherOrg}), refusal.NotFound)
	wantReason(t, "too long", set("t2", testOrg, e.id, string(make([]byte, maxToken+1)), treasury), refusal.RequestInvalid)
	lent := func() (got string) {
		h.t.Helper()
		err := h.withToken(t.Context(), h.book.webhook(e.id), func(b []byte) error { got = string(b); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for i, token := range []string{"token-1", "token-2", ""} {
		if err := set("ok"+string(rune('a'+i)), testOrg, e.id, token, treasury); err != nil || lent() != token {
			t.Errorf("token %q: %v, lent %q", token, err, lent())
		}
	}
	if b, err := json.Marshal(NewToken{Token: []byte("x")}); err == nil {
		t.Errorf("encoded as %s", b)
	}
}
