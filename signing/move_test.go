package signing_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// What changes between two steps.

// changing is the real authority; what no act of this build does yet, changing an
// active delegation, it does by change.
type changing struct {
	signing.Authority
	// change, when set, makes of a standing what is true now.
	change atomic.Pointer[func(st signing.Standing) *signing.Standing]
	// authenticated runs after a key was found good; entered counts step 7.
	authenticated func()
	entered       atomic.Int32
}

func (c *changing) now(st *signing.Standing, err error) (*signing.Standing, error) {
	if f := c.change.Load(); f != nil && err == nil {
		st = (*f)(*st)
	}
	return st, err
}

func (c *changing) Authenticate(wallet string, key []byte) (*signing.Standing, error) {
	st, err := c.now(c.Authority.Authenticate(wallet, key))
	if c.authenticated != nil && err == nil {
		c.authenticated()
	}
	return st, err
}

func (c *changing) Enter(then *signing.Standing) (*signing.Standing, func(), error) {
	c.entered.Add(1)
	st, leave, err := c.Authority.Enter(then)
	st, err = c.now(st, err)
	return st, leave, err
}

func (c *changing) Current(then *signing.Standing) (*signing.Standing, error) {
	return c.now(c.Authority.Current(then))
}

// moving makes h sign under a changing authority.
func (h *house) moving() *changing {
	c := &changing{Authority: h.delegation}
	h.serve(signing.Config{Authority: c})
	return c
}

func (c *changing) set(f func(st signing.Standing) *signing.Standing) { c.change.Store(&f) }

func TestRevokedBetweenJudgingAndApproval(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.signing.BeforeApproval(func() { h.revoke(g[0]) })
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	h.wantRefused(wantRefusal(t, err, refusal.DelegationRevoked), "id")
	h.wantKinds(0, 0, 0, 0)
}

func TestExpiredBetweenJudgingAndApproval(t *testing.T) {
	h, g := newHouse(t, terms{end: began.Add(time.Hour)})
	h.signing.BeforeApproval(func() { h.clock.add(time.Hour) })
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	h.wantRefused(wantRefusal(t, err, refusal.DelegationExpired), "id")
	h.wantKinds(0, 0, 0, 0)
}

func TestExpiredBeforeTheLastShare(t *testing.T) {
	h, g := newHouse(t, terms{end: began.Add(time.Hour), limits: limit(400, day)})
	h.signing.BeforeRelease(func() { h.clock.add(time.Hour) })
	_, err := h.sign(g[0], "id", g[0].pay(400, 1))
	wantRefusal(t, err, refusal.DelegationExpired)
	h.wantKinds(1, 0, 1, 0)
	if e := h.entries(journal.KindFailed)[0]; !e.Refunded() || e.Outcome != string(refusal.DelegationExpired) {
		t.Errorf("failed entry %+v, want a refund for DELEGATION_EXPIRED", e)
	}
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
}

// New rules after the old ones said yes: the request is judged by the new ones.
func TestMovedRulesAreJudgedAnew(t *testing.T) {
	narrow := solAllow
	narrow.ID, narrow.Condition = "pol_new", "solana.tx.transfers.all(t, t.amount <= 10)"
	for _, c := range []struct {
		lamports uint64
		rule     string // "" for refused
	}{{10, "pol_new"}, {11, ""}} {
		h, g := newHouse(t, terms{})
		narrow.Scope.Delegation = g[0].id
		rules, problems := policy.Compile([]policy.Policy{narrow}, nil, nil)
		if rules == nil {
			t.Fatal(problems)
		}
		auth := h.moving()
		h.signing.BeforeApproval(func() {
			auth.set(func(st signing.Standing) *signing.Standing { st.Version++; st.Rules = rules; return &st })
		})
		r, err := h.sign(g[0], "id", g[0].pay(c.lamports, 1))
		if c.rule == "" {
			h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "id")
			continue
		}
		if err != nil || r.Rule != c.rule {
			t.Fatalf("result %+v, error %v, want rule %s", r, err, c.rule)
		}
		if n := auth.entered.Load(); n != 2 {
			t.Errorf("step 7 ran %d times, want 2", n)
		}
		h.wantKinds(1, 1, 0, 0)
	}
}

// A key that was replaced meanwhile opens nothing any more.
func TestMovedKeyIsAuthenticatedAnew(t *testing.T) {
	h, g := newHouse(t, terms{})
	auth := h.moving()
	h.signing.BeforeApproval(func() {
		h.update(func(tx *vault.Tx) error { return nil })
		auth.Authority = refusing{auth.Authority}
		auth.set(func(st signing.Standing) *signing.Standing { st.Version++; st.APIKey = "another"; return &st })
	})
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	wantRefusal(t, err, refusal.APIKeyInvalid)
	h.wantKinds(0, 0, 0, 0)
}

// refusing knows no key.
type refusing struct{ signing.Authority }

func (refusing) Authenticate(string, []byte) (*signing.Standing, error) {
	return nil, refusal.New(refusal.APIKeyInvalid, "no")
}

func TestNeverEndingChangeGivesUp(t *testing.T) {
	h, g := newHouse(t, terms{})
	auth := h.moving()
	var version atomic.Uint64
	auth.set(func(st signing.Standing) *signing.Standing { st.Version = version.Add(1); return &st })
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	wantRefusal(t, err, refusal.RateLimited)
	h.wantKinds(0, 0, 0, 0)
}

func TestMovedBeforeTheLastShare(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	auth := h.moving()
	h.signing.BeforeRelease(func() {
		auth.set(func(st signing.Standing) *signing.Standing { st.Version++; return &st })
	})
	_, err := h.sign(g[0], "id", g[0].pay(400, 1))
	wantRefusal(t, err, refusal.NotActive)
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
	h.signing.BeforeRelease(nil)
	h.mustSign(g[0], "id", g[0].pay(400, 1)) // the same id, judged and reserved anew
	h.wantKinds(2, 1, 1, 0)
}

// Revocation while a signature waits for its last share: the signature fails,
// its charge is given back, and only then revocation is acknowledged.
func TestRevocationEndsWhatIsUnderWay(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "id", g[0].pay(400, 1))
	<-gate.reached

	revoked := make(chan error, 1)
	ended := 0 // entries that end the signature, at the moment of acknowledgement
	go func() {
		_, err := h.delegation.RevokeDelegation(context.Background(), actor(site.organization, "Revoke", site.root), "revoke", site.organization, g[0].id)
		ended = len(h.entries(journal.KindFailed))
		revoked <- err
	}()
	until(t, "the revocation is on disk", func() bool {
		st, ok, _ := h.journal.Request(site.organization, "revoke")
		return ok && st.State == journal.StateDone
	})
	select {
	case <-revoked:
		t.Error("revocation was acknowledged while a signature was under way")
	default:
	}
	gate.open()
	a := <-running
	wantRefusal(t, a.err, refusal.DelegationRevoked)
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	if ended != 1 {
		t.Errorf("at its acknowledgement the journal had %d ends of the signature, want 1", ended)
	}
	h.wantKinds(1, 0, 1, 0)
	if e := h.entries(journal.KindFailed)[0]; !e.Refunded() || e.Outcome != string(refusal.DelegationRevoked) {
		t.Errorf("failed entry %+v, want a refund for DELEGATION_REVOKED", e)
	}
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
}

// Revocation between approval and step 8: the shares are gone, and the caller
// hears why.
func TestRevocationBeforeSharesAreLent(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)})
	a, err := h.signing.Approve(context.Background(), g[0].request("id", g[0].pay(400, 1)))
	if err != nil {
		t.Fatal(err)
	}
	revoked := make(chan error, 1)
	go func() {
		_, err := h.delegation.RevokeDelegation(context.Background(), actor(site.organization, "Revoke", site.root), "revoke", site.organization, g[0].id)
		revoked <- err
	}()
	until(t, "the revocation is on disk", func() bool { _, ok, _ := h.journal.Request(site.organization, "revoke"); return ok })
	_, err = h.signing.Release(context.Background(), a)
	wantRefusal(t, err, refusal.DelegationRevoked)
	if err := <-revoked; err != nil {
		t.Error(err)
	}
	h.wantKinds(1, 0, 1, 0)
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d charged for nothing", s)
	}
}

// A revocation whose caller went away has happened; the next one waits again.
func TestRevocationIsDurableBeforeItIsAcknowledged(t *testing.T) {
	h, g := newHouse(t, terms{})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "id", g[0].pay(1, 1))
	<-gate.reached
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	act := actor(site.organization, "Revoke", site.root)
	go func() {
		_, err := h.delegation.RevokeDelegation(ctx, act, "revoke", site.organization, g[0].id)
		done <- err
	}()
	until(t, "the revocation is on disk", func() bool { _, ok, _ := h.journal.Request(site.organization, "revoke"); return ok })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("revoking: %v, want context.Canceled", err)
	}
	if d, err := h.again().delegation.Delegation(act, site.organization, g[0].id); err != nil || d.Status != "revoked" {
		t.Errorf("after kill -9 it is %q, %v", d.Status, err)
	}
	gate.open()
	wantRefusal(t, (<-running).err, refusal.DelegationRevoked)
	if d, err := h.delegation.RevokeDelegation(context.Background(), act, "revoke", site.organization, g[0].id); err != nil || d.Status != "revoked" {
		t.Errorf("asked again: %q, %v", d.Status, err)
	}
}

// A revocation that could not be written has not happened.
func TestRevocationThatFailsIsTakenBack(t *testing.T) {
	h, g := newHouse(t, terms{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.delegation.RevokeDelegation(ctx, actor(site.organization, "Revoke", site.root), "revoke", site.organization, g[0].id); err == nil {
		t.Error("revoked for a caller who had gone")
	}
	stranger := actor(site.organization, "Revoke")
	if _, err := h.delegation.RevokeDelegation(context.Background(), stranger, "revoke", site.organization, g[0].id); !refusal.Is(err, refusal.QuorumMissing) {
		t.Errorf("without stamps: %v", err)
	}
	h.mustSign(g[0], "id", g[0].pay(1, 1))
}

// A pause, too, is acknowledged when the last signature that it stops has ended.
func TestPauseIsAcknowledgedAfterWhatIsUnderWay(t *testing.T) {
	for name, scope := range map[string]delegation.Scope{
		"wallet": {Organization: site.organization, Wallet: "wal_test-ed25519-delegate"}, "organization": {Organization: site.organization}, "appliance": {},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := newHouse(t, terms{})
			gate := newGate(t)
			h.signing.BeforeRelease(gate.pass)
			running := h.signLater(g[0], "id", g[0].pay(1, 1))
			<-gate.reached
			who := site.root
			if scope.Organization == "" {
				who = site.operator
			}
			ended := make(chan int, 1) // entries that end the signature, when it was acknowledged
			go func() {
				if _, err := h.pause(scope, "p", who); err != nil {
					t.Error(err)
				}
				ended <- len(h.entries(journal.KindFailed))
			}()
			until(t, "the pause is on disk", func() bool { return h.delegation.Paused(scope) != nil })
			select {
			case <-ended:
				t.Error("it was acknowledged while a signature was under way")
				ended <- 1
			default:
			}
			gate.open()
			wantRefusal(t, (<-running).err, refusal.Paused)
			if n := <-ended; n != 1 {
				t.Errorf("at its acknowledgement the journal had %d ends of the signature, want 1", n)
			}
		})
	}
}
