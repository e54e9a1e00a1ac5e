package delegation

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/credential/authenticator"
	"github.com/sigild/sigild/refusal"
)

// until is a time after the clock of the house.
func (h *house) in(d time.Duration) *time.Time {
	t := h.clock.now().Add(d)
	return &t
}

func (h *house) known(org string, who holder) bool {
	return h.KnownCredential(org, who.PublicKey)
}

// trader makes a delegated user of acme with one credential.
func (h *house) trader(c NewCredential) string {
	h.t.Helper()
	n := NewAccessUser{RequestID: "trader", Organization: site.acme, User: NewDelegatedUser{Name: "trader", Credential: c}}
	u, err := h.FetchOrCreateDelegatedUser(context.Background(), stamped(site.acme, n, site.root...), n)
	if err != nil {
		h.t.Fatal(err)
	}
	return u.UserID
}

func (h *house) replace(id, user string, old holder, next NewCredential, overlap time.Duration, by ...holder) (CredentialAdded, error) {
	n := Rotation{RequestID: id, Organization: site.acme, User: user, Old: old.PublicKey.ID(), New: next, Overlap: overlap}
	return h.RotateCredential(context.Background(), stamped(site.acme, n, by...), n)
}

func TestCredentialEndsByItself(t *testing.T) {
	h := newHouse(t)
	c := apiUser.NewCredential
	c.ExpiresAt = h.in(time.Hour)
	h.trader(c)
	if !h.known(site.acme, apiUser) {
		t.Error("it is not known before its end")
	}
	h.clock.add(time.Hour)
	if h.known(site.acme, apiUser) {
		t.Error("it is known after its end")
	}
	n := NewAccessUser{RequestID: "again", Organization: site.acme, User: NewDelegatedUser{Name: "trader", Credential: apiUser.NewCredential}}
	_, err := h.FetchOrCreateDelegatedUser(context.Background(), stamped(site.acme, n, site.root...), n)
	wantRefusal(t, "an ended credential", err, refusal.NotActive)
	h.restart()
	if h.known(site.acme, apiUser) {
		t.Error("it is known after its end and a restart")
	}
}

// What comes by rotation stands where the old one stood, ends no later, and counts
// once with it; the old one ends after the overlap.
func TestRotation(t *testing.T) {
	h := newHouse(t)
	c := apiUser.NewCredential
	c.ExpiresAt = h.in(48 * time.Hour)
	trader := h.trader(c)
	end := *c.ExpiresAt
	next, third := newHolder(credential.ForDelegatedUser, "next"), newHolder(credential.ForDelegatedUser, "third")
	longer := next.NewCredential
	longer.ExpiresAt = h.in(1000 * time.Hour)
	made, err := h.replace("r1", trader, apiUser, longer, time.Hour, apiUser)
	if err != nil {
		t.Fatal(err)
	}
	if !made.ExpiresAt.Equal(end) || !made.OldEndsAt.Equal(*h.in(time.Hour)) {
		t.Errorf("new ends at %v, want %v; old at %v", made.ExpiresAt, end, made.OldEndsAt)
	}
	// A key that is about to end passes on no more than it has.
	stolen, err := h.replace("r2", trader, apiUser, third.NewCredential, time.Hour, apiUser)
	if err != nil || !stolen.ExpiresAt.Equal(*made.OldEndsAt) {
		t.Errorf("rotated from a key that ends at %v: %+v, %v", made.OldEndsAt, stolen, err)
	}
	h.clock.add(time.Hour)
	for name, row := range map[string]struct {
		who  holder
		want bool
	}{"old": {apiUser, false}, "new": {next, true}, "third": {third, false}} {
		if h.known(site.acme, row.who) != row.want {
			t.Errorf("%s is known: %v", name, !row.want)
		}
	}
	if _, err := h.replace("r3", trader, apiUser, third.NewCredential, 0, apiUser); err == nil {
		t.Error("an ended credential rotates")
	}
	_, err = h.replace("r4", trader, next, third.NewCredential, 8*24*time.Hour, next)
	wantRefusal(t, "a long overlap", err, refusal.RequestInvalid)
	_, err = h.replace("r5", trader, next, newHolder(credential.ForUser, "x").NewCredential, 0, next)
	wantRefusal(t, "a proof for another purpose", err, refusal.RequestInvalid)
	_, err = h.replace("r6", trader, next, third.NewCredential, 0, site.dana.holder)
	wantRefusal(t, "an end user rotates another's", err, refusal.QuorumMissing)
	if _, err := h.replace("r7", trader, next, newHolder(credential.ForDelegatedUser, "fourth").NewCredential, 0, site.root...); err != nil {
		t.Errorf("the root rotates a delegated user's: %v", err)
	}

	// Root: two of one line are one member of the quorum.
	twin := newHolder(credential.ForOrganizationRoot, "rhea 2")
	if _, err := h.replace("q1", "", site.root[0], twin.NewCredential, time.Hour, site.root[0]); err != nil {
		t.Fatal(err)
	}
	tags := NewTags{RequestID: "t1", Organization: site.acme, User: trader, Tags: []string{"ops"}}
	wantRefusal(t, "old and new of one member", h.SetTags(context.Background(), stamped(site.acme, tags, site.root[0], twin), tags), refusal.QuorumMissing)
	if err := h.SetTags(context.Background(), stamped(site.acme, tags, site.root[1], twin), tags); err != nil {
		t.Error(err)
	}
	h.clock.add(time.Hour)
	tags.RequestID = "t2"
	wantRefusal(t, "the old one after the overlap", h.SetTags(context.Background(), stamped(site.acme, tags, site.root[0], site.root[1]), tags), refusal.QuorumMissing)
}

func TestRevokedCredential(t *testing.T) {
	h := newHouse(t)
	trader := h.trader(apiUser.NewCredential)
	h.clock.add(time.Minute)
	next := newHolder(credential.ForDelegatedUser, "next")
	if _, err := h.replace("r1", trader, apiUser, next.NewCredential, time.Hour, apiUser); err != nil {
		t.Fatal(err)
	}
	revoke := func(id, user, credential string, keep bool, by ...holder) (CredentialRevoked, error) {
		n := Revocation{RequestID: id, Organization: site.acme, User: user, Credential: credential, KeepSuccessors: keep}
		return h.RevokeCredential(context.Background(), stamped(site.acme, n, by...), n)
	}
	_, err := revoke("v1", trader, apiUser.PublicKey.ID(), false, apiUser)
	wantRefusal(t, "by itself", err, refusal.QuorumMissing)
	kept, err := revoke("v2", trader, apiUser.PublicKey.ID(), true, site.root...)
	if err != nil || len(kept.Ended) != 1 || h.known(site.acme, apiUser) || !h.known(site.acme, next) {
		t.Errorf("successors kept: %+v, %v", kept, err)
	}
	other := newHolder(credential.ForDelegatedUser, "other")
	h.clock.add(time.Minute)
	if _, err := h.replace("r2", trader, next, other.NewCredential, time.Hour, next); err != nil {
		t.Fatal(err)
	}
	all, err := revoke("v3", trader, next.PublicKey.ID(), false, site.root...)
	if err != nil || len(all.Ended) != 2 || h.known(site.acme, other) || h.known(site.acme, next) {
		t.Errorf("with successors: %+v, %v", all, err)
	}
	_, err = revoke("v4", site.dana.id, site.dana.PublicKey.ID(), false, site.dana.holder)
	wantRefusal(t, "an end user's last", err, refusal.RequestInvalid)
	_, err = revoke("v5", site.dana.id, site.dana.PublicKey.ID(), false, site.root...)
	wantRefusal(t, "an end user's, by the root", err, refusal.QuorumMissing)
	h.restart()
	if h.known(site.acme, apiUser) || h.known(site.acme, next) || h.known(site.acme, other) {
		t.Error("a revoked credential is known after a restart")
	}
}

func TestPasskey(t *testing.T) {
	h := newHouse(t)
	d, err := authenticator.New()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := credential.NewProof(d, credential.ForUser, "passkey")
	if err != nil {
		t.Fatal(err)
	}
	n := AddedCredential{RequestID: "a", Organization: site.acme, User: site.dana.id,
		Credential: NewCredential{Name: "passkey", PublicKey: d.Public(), Proof: proof, Party: &d.RelyingParty}}
	bare := n
	bare.RequestID, bare.Credential.Party = "b", nil
	_, err = h.AddCredential(context.Background(), stamped(site.acme, bare, site.dana.holder), bare)
	wantRefusal(t, "without a relying party", err, refusal.RequestInvalid)
	if _, err := h.AddCredential(context.Background(), stamped(site.acme, n, site.dana.holder), n); err != nil {
		t.Fatal(err)
	}
	party, known := h.Service.KnownCredential(site.acme, d.Public())
	if !known || party == nil || party.ID != "wallet.example" {
		t.Fatalf("known %v, %+v", known, party)
	}
	use := func(counter uint32) error { return h.NoteUse(context.Background(), site.acme, d.Public(), counter) }
	if err := use(7); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "the same counter", use(7), refusal.StampInvalid)
	wantRefusal(t, "a smaller counter", use(6), refusal.StampInvalid)
	wantRefusal(t, "none", use(0), refusal.StampInvalid)
	h.restart()
	wantRefusal(t, "the same counter after a restart", use(7), refusal.StampInvalid)
	if err := use(8); err != nil {
		t.Error(err)
	}
}

func TestUnusedCredentialsAreTold(t *testing.T) {
	h := newHouse(t)
	c := apiUser.NewCredential
	c.UnusedAlarm = 3 * time.Hour
	h.trader(c)
	told := func() string { return fmt.Sprint(h.UnusedCredentials()) }
	if told() != "[]" {
		t.Errorf("told of %s", told())
	}
	h.clock.add(3 * time.Hour)
	if told() != fmt.Sprint([]string{apiUser.PublicKey.ID()}) {
		t.Errorf("told of %s", told())
	}
	tell := func() {
		t.Helper()
		if err := h.TellUnused(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	events := func(by ...holder) (ids []string) {
		t.Helper()
		got, err := h.NextEvents(context.Background(), look(site.acme, by...), site.acme, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got.List {
			if e.Name == "credential.unused" {
				ids = append(ids, e.Credential)
			}
		}
		return ids
	}
	tell()
	if e := h.last(); h.UnusedCount() != 1 || e.Method != methodUnused || e.Facts["credential"] != apiUser.PublicKey.ID() || e.User == "" {
		t.Errorf("%d, %+v", h.UnusedCount(), e)
	}
	h.unchanged("telling again", tell)
	if got := events(site.root...); len(got) != 1 || got[0] != apiUser.PublicKey.ID() {
		t.Errorf("root members hear of %v", got)
	}
	if got := events(site.dana.holder); len(got) != 0 {
		t.Errorf("an end user hears of %v", got)
	}
	if err := h.NoteUse(context.Background(), site.acme, apiUser.PublicKey, 0); err != nil {
		t.Fatal(err)
	}
	h.unchanged("a second use within the hour", func() {
		if err := h.NoteUse(context.Background(), site.acme, apiUser.PublicKey, 0); err != nil {
			t.Error(err)
		}
	})
	if told() != "[]" {
		t.Errorf("told of %s after its use", told())
	}
	h.clock.add(4 * time.Hour)
	h.restart()
	tell()
	if got := events(site.root...); len(got) != 2 {
		t.Errorf("unused again: %v", got)
	}
	h.unchanged("telling again after a restart", func() { h.restart(); tell() })

	// The configuration's alarm is for those that have none of their own, the root's too;
	// whoever owns a credential hears of it.
	h.cfg.UnusedAlarm = 5 * time.Hour
	h.restart()
	tell()
	if got := events(site.dana.holder); len(got) != 1 || got[0] != site.dana.PublicKey.ID() {
		t.Errorf("an end user hears of %v", got)
	}
	if got := told(); !strings.Contains(got, site.root[0].PublicKey.ID()) {
		t.Errorf("told of %s", got)
	}
	if err := h.NoteUse(context.Background(), site.acme, apiUser.PublicKey, 0); err != nil {
		t.Fatal(err)
	}
	m, err := h.Members(look(site.acme, site.root...), site.acme)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range m.Users {
		for _, c := range u.Credentials {
			if c.ID == apiUser.PublicKey.ID() && (c.LastUsed == nil || c.Unused || c.UnusedAlarm != 3*time.Hour) {
				t.Errorf("shown as %+v", c)
			}
		}
	}
}
