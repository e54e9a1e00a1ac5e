package delegation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// enabled are defaults with which acme proposes.
func enabled() DelegatedAccess {
	return DelegatedAccess{Enabled: true, DelegatedUser: site.bot, Recipient: site.recipient.Recipient().String(), Lifetime: 3600, Policies: []policy.Policy{allow}}
}

func (h *house) setAccess(id string, set DelegatedAccess, by ...holder) error {
	n := NewDelegatedAccess{RequestID: id, Organization: site.acme, Access: set}
	return h.SetDelegatedAccess(context.Background(), stamped(site.acme, n, by...), n)
}

func (h *house) request(n NewDelegation, by ...holder) (DelegationRequested, error) {
	return h.RequestDelegation(context.Background(), stamped(site.acme, n, by...), n)
}

func (h *house) approve(id, delegation string, terms []byte, by ...holder) (DelegationApproved, error) {
	sum := sha256.Sum256(terms)
	n := NewApproval{RequestID: id, Organization: site.acme, Delegation: delegation, Terms: sum[:]}
	return h.ApproveDelegation(context.Background(), stamped(site.acme, n, by...), n)
}

func (h *house) describe(delegation string) Description {
	h.t.Helper()
	d, err := h.Describe(context.Background(), look(site.acme, site.dana.holder), site.acme, delegation)
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// proposed makes a pending delegation of dana's Solana wallet.
func (h *house) proposed(id string) string {
	h.t.Helper()
	made, err := h.request(NewDelegation{RequestID: id, Organization: site.acme, Wallet: solWallet}, site.root[0])
	if err != nil {
		h.t.Fatal(err)
	}
	return made.DelegationID
}

func TestProposedDelegationBecomesActiveByItsOwnersApproval(t *testing.T) {
	h := newHouse(t, withWallet)
	if err := h.setAccess("set", enabled(), site.root...); err != nil {
		t.Fatal(err)
	}
	id := h.proposed("ask")
	d := h.describe(id)
	if d.Status != statusPending || d.ApproveBy == nil || len(d.Parties) != 0 || d.APIKeyMadeAt != nil {
		t.Fatalf("proposed: %+v", d)
	}
	if _, err := h.Current(id); !refusal.Is(err, refusal.NotActive) {
		t.Errorf("a proposal's standing: %v, want NOT_ACTIVE", err)
	}
	all, err := h.Delegations(look(site.acme, site.dana.holder), ListQuery{Organization: site.acme, Awaiting: true})
	if err != nil || len(all) != 1 || all[0].ID != id || !all[0].Awaiting || all[0].DelegatedUserName != "bot" {
		t.Errorf("dana is asked for %+v, %v", all, err)
	}
	if all, err := h.Delegations(look(site.acme, site.erin.holder), ListQuery{Organization: site.acme}); err != nil || len(all) != 0 {
		t.Errorf("erin sees %+v, %v", all, err)
	}
	h.restart()
	if again := h.describe(id); string(again.Terms) != string(d.Terms) {
		t.Errorf("the terms became %s, they were %s", again.Terms, d.Terms)
	}
	made, err := h.approve("yes", id, d.Terms, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.approve("yes", id, d.Terms, site.dana.holder)
	if err != nil || again != made {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	key := h.apiKey(id)
	st, err := h.Authenticate(solWallet, key)
	if err != nil || !st.ExpiresAt.Equal(h.clock.now().Add(time.Hour)) {
		t.Errorf("standing %+v, %v; want it to end in an hour", st, err)
	}
	if got := h.describe(id).May; len(got) != 1 || got[0] != "payouts: may sign when for each of the SOL transfers: its amount is at most 500" {
		t.Errorf("it may %q", got)
	}
	_, err = h.approve("yes-again", id, d.Terms, site.dana.holder)
	wantRefusal(t, "approving an active one", err, refusal.NotActive)
}

func TestProposalsAreChecked(t *testing.T) {
	h := newHouse(t, withWallet)
	ask := NewDelegation{RequestID: "ask", Organization: site.acme, Wallet: solWallet}
	_, err := h.request(ask, site.root[0])
	wantRefusal(t, "before it is enabled", err, refusal.NotActive)
	wantRefusal(t, "one root member of two", h.setAccess("set", enabled(), site.root[0]), refusal.QuorumMissing)
	for name, change := range map[string]func(*DelegatedAccess){
		"a lifetime too long":     func(d *DelegatedAccess) { d.Lifetime = maxSettingTime + 1 },
		"an approval too short":   func(d *DelegatedAccess) { d.ApproveWithin = 59 },
		"no recipient's form":     func(d *DelegatedAccess) { d.Recipient = "age1" },
		"to an end user":          func(d *DelegatedAccess) { d.DelegatedUser = site.dana.id },
		"automatic without rules": func(d *DelegatedAccess) { d.Automatic, d.Policies = true, nil },
		"limits without policies": func(d *DelegatedAccess) {
			d.Policies, d.Limits = nil, []policy.Limit{{Name: "l", Asset: cluster + "/slip44:501"}}
		},
	} {
		set := enabled()
		change(&set)
		wantRefusal(t, name, h.setAccess("bad", set, site.root...), refusal.RequestInvalid)
	}
	if err := h.setAccess("set", enabled(), site.root...); err != nil {
		t.Fatal(err)
	}
	_, err = h.request(ask, site.erin.holder)
	wantRefusal(t, "another user asks", err, refusal.NotFound)
	_, err = h.request(ask, site.globexRoot[0])
	wantRefusal(t, "another organization asks", err, refusal.QuorumMissing)
	bad := ask
	bad.Policies = []policy.Policy{{Name: "p", Lang: policy.LangSigild, Condition: "1 + 1"}}
	_, err = h.request(bad, site.root[0])
	wantRefusal(t, "rules that don't compile", err, refusal.PolicyInvalid)

	id := h.proposed("first")
	d := h.describe(id)
	for name, by := range map[string]holder{"another user": site.erin.holder, "a root member": site.root[0], "an operator": site.operators[0]} {
		_, err := h.approve("steal", id, d.Terms, by)
		wantRefusal(t, name+" approves", err, refusal.QuorumMissing)
	}
	_, err = h.approve("other-terms", id, append(d.Terms, ' '), site.dana.holder)
	if no := wantRefusal(t, "other terms", err, refusal.RequestInvalid); no.Details["field"] != "terms_sha256" {
		t.Errorf("details %v", no.Details)
	}
	if err := h.setAccess("off", DelegatedAccess{}, site.root...); err != nil {
		t.Fatal(err)
	}
	_, err = h.approve("after-off", id, d.Terms, site.dana.holder)
	wantRefusal(t, "after it was turned off", err, refusal.NotActive)
	_, err = h.createDelegation(newDelegation("whole", solWallet))
	wantRefusal(t, "made whole after it was turned off", err, refusal.NotActive)
	if err := h.setAccess("on", enabled(), site.root...); err != nil {
		t.Fatal(err)
	}
	for i := range maxProposals - 1 {
		h.proposed(fmt.Sprint("more", i))
	}
	_, err = h.request(NewDelegation{RequestID: "one-more", Organization: site.acme, Wallet: solWallet}, site.root[0])
	wantRefusal(t, "one more than may wait", err, refusal.RateLimited)
	if _, err := h.RevokeDelegation(context.Background(), stamped(site.acme, revocation{"no", id}, site.dana.holder), "no", site.acme, id); err != nil {
		t.Fatal(err)
	}
	_, err = h.approve("declined", id, d.Terms, site.dana.holder)
	wantRefusal(t, "approving what was declined", err, refusal.NotActive)
}

// What nobody approves in time, and what is over, ends by the journal's clock: its
// shares are gone, and a clock that goes back brings nothing back.
func TestDelegationsExpire(t *testing.T) {
	h := newHouse(t, withWallet)
	if err := h.setAccess("set", enabled(), site.root...); err != nil {
		t.Fatal(err)
	}
	late, ran := h.proposed("late"), h.proposed("in-time")
	made, err := h.approve("yes", ran, h.describe(ran).Terms, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	key := h.apiKey(ran)
	h.unchanged("nothing is over", func() {
		if err := h.Expire(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	terms := h.describe(late).Terms
	h.clock.add(approveWithin)
	_, err = h.approve("too-late", late, terms, site.dana.holder)
	wantRefusal(t, "approving too late", err, refusal.DelegationExpired)
	if st := h.describe(ran).Status; st != statusExpired {
		t.Errorf("before it is written down it is %s", st)
	}
	if err := h.Expire(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.clock.add(-approveWithin)
	for _, restarted := range []bool{false, true} {
		if restarted {
			h.restart()
		}
		for _, id := range []string{late, ran} {
			if st := h.describe(id).Status; st != statusExpired {
				t.Errorf("%s is %s, want expired for ever (restarted %v)", id, st, restarted)
			}
		}
		if st, err := h.Authenticate(solWallet, key); err != nil || !refusal.Is(st.Ended, refusal.DelegationExpired) {
			t.Errorf("standing %+v, %v; want it ended", st, err)
		}
		if _, err := h.Current(ran); !refusal.Is(err, refusal.DelegationExpired) {
			t.Errorf("current: %v", err)
		}
	}
	for _, p := range []mpc.Party{mpc.Delegate, mpc.Server} {
		err := h.cfg.Vault.With(context.Background(), vault.TypeShare, ShareID(ran+"/1", p), func([]byte) error { return nil })
		if !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the share of %s is still there: %v", p, err)
		}
	}
}

func TestOneDelegationIsPausedAlone(t *testing.T) {
	h := newHouse(t, withWallet)
	held, key := h.delegate("held", solWallet)
	free, other := h.delegate("free", solWallet)
	scope := Scope{Organization: site.acme, Delegation: held}
	pause := func(id string, by holder) error {
		n := NewPause{RequestID: id, Scope: scope, Reason: "drill"}
		_, err := h.Pause(context.Background(), stamped(site.acme, n, by), n)
		return err
	}
	resume := func(id string, by ...holder) error {
		return h.Resume(context.Background(), stamped(site.acme, scope, by...), id, scope)
	}
	wantRefusal(t, "another user pauses", pause("p0", site.erin.holder), refusal.QuorumMissing)
	if err := pause("p1", site.dana.holder); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if st, err := h.Authenticate(solWallet, key); err != nil || !refusal.Is(st.Ended, refusal.Paused) {
		t.Errorf("held: %+v, %v", st, err)
	}
	if _, err := h.Current(held); !refusal.Is(err, refusal.Paused) {
		t.Errorf("held: %v", err)
	}
	if st, err := h.Authenticate(solWallet, other); err != nil || st.Ended != nil {
		t.Errorf("free: %+v, %v", st, err)
	}
	if d := h.describe(held); d.Status != statusPaused || d.PausedScope != "delegation" || h.describe(free).Status != statusActive {
		t.Errorf("held: %+v", d)
	}
	if err := pause("p2", site.root[0]); err != nil { // a higher level takes it over
		t.Fatal(err)
	}
	wantRefusal(t, "its owner resumes what the root paused", resume("r1", site.dana.holder), refusal.QuorumMissing)
	if err := resume("r2", site.root...); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Current(held); err != nil {
		t.Errorf("resumed: %v", err)
	}
}

// Where the organization wants it, the owner of each wallet that becomes active is asked.
func TestNewWalletsAreProposedFor(t *testing.T) {
	h := newFullHouse(t)
	set := enabled()
	set.Automatic = true
	if err := h.setAccess("set", set, site.root...); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte{1})
	n := NewReceipt{RequestID: "receipt", Organization: site.acme, Wallet: pendingWallet, SHA256: sum[:]}
	if _, err := h.ConfirmShare(context.Background(), stamped(site.acme, n, site.dana.holder), n); err != nil {
		t.Fatal(err)
	}
	all, err := h.Delegations(look(site.acme, site.dana.holder), ListQuery{Organization: site.acme, Wallet: pendingWallet})
	if err != nil || len(all) != 1 || !all[0].Awaiting {
		t.Errorf("dana is asked for %+v, %v", all, err)
	}
}
