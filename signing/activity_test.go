package signing_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// Approvals by people: what they were shown is what is signed, once, in time, under
// the policies that stood then.

// consenting is solAllow, or evmAllow, under a consensus.
func consenting(p policy.Policy, consensus string) terms {
	p.Consensus = consensus
	return terms{policies: []policy.Policy{p}}
}

const two = "approvers.count() >= 2" // the requester and one more

// newEndUser is the message that makes an end user, and its credential.
func newEndUser(t testing.TB, org, name string) (delegation.NewUser, holder) {
	t.Helper()
	c, err := newCredential(credential.ForUser, name)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	n := delegation.NewUser{
		RequestID: "user-" + name, Organization: org, Name: name, Kind: delegation.EndUser,
		Credentials: []delegation.NewCredential{c.NewCredential}, ShareRecipient: identity.Recipient().String(),
	}
	if n.RecipientSignature, err = credential.SignRecipient(c.key, n.ShareRecipient); err != nil {
		t.Fatal(err)
	}
	return n, c
}

// user makes an end user of the shared organization with a credential for each name.
func (h *house) user(name string, more ...string) (id string, keys []*credential.PrivateKey) {
	h.t.Helper()
	n, first := newEndUser(h.t, site.organization, name)
	keys = append(keys, first.key)
	for _, label := range more {
		c, err := newCredential(credential.ForUser, label)
		if err != nil {
			h.t.Fatal(err)
		}
		n.Credentials, keys = append(n.Credentials, c.NewCredential), append(keys, c.key)
	}
	a := actor(site.organization, "CreateUser", site.root)
	a.RequestHash = sha256.Sum256([]byte(name))
	made, err := h.delegation.CreateUser(context.Background(), a, n)
	if err != nil {
		h.t.Fatal(err)
	}
	return made.UserID, keys
}

// opened is the activity of a request that waits.
func (h *house) opened(request string) *signing.Activity {
	h.t.Helper()
	c := h.delegation.Consent(site.organization, request)
	if c == nil {
		h.t.Fatalf("request %s has no activity", request)
	}
	return c.Activity
}

// ask signs, and insists that it waits for approvals.
func (h *house) ask(g *grant, id string, payload []byte) *signing.Activity {
	h.t.Helper()
	_, err := h.sign(g, id, payload)
	no := wantRefusal(h.t, err, refusal.ApprovalsNeeded)
	a := h.opened(id)
	if no.Details["activity"] != a.ID || no.After == 0 {
		h.t.Errorf("refused with %v after %v, want activity %s", no.Details, no.After, a.ID)
	}
	return a
}

// ballot is a vote over the activity's bytes.
func ballot(id string, shown []byte, keys ...*credential.PrivateKey) delegation.Vote {
	v := delegation.Vote{
		Actor: actor(site.organization, "ActivityService/ApproveActivity", keys...), RequestID: id, Organization: site.organization, Activity: shown,
		Message: []byte("message " + id), Stamps: [][]byte{[]byte("stamp")},
	}
	v.RequestHash = sha256.Sum256(append([]byte(id), shown...))
	return v
}

func (h *house) approveWith(id string, a *signing.Activity, keys ...*credential.PrivateKey) error {
	_, err := h.delegation.Approve(context.Background(), ballot(id, a.Encode(), keys...))
	return err
}

func (h *house) mustApprove(id string, a *signing.Activity, keys ...*credential.PrivateKey) {
	h.t.Helper()
	if err := h.approveWith(id, a, keys...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) status(id string, who *credential.PrivateKey) string {
	h.t.Helper()
	v, err := h.delegation.Activity(actor(site.organization, "Get", who), site.organization, id)
	if err != nil {
		h.t.Fatal(err)
	}
	return v.Status
}

func TestApprovalsLetARequestBeSigned(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	_, ann := h.user("ann")
	a := h.ask(g[0], "pay", g[0].pay(100, 1))
	if again := h.ask(g[0], "pay", g[0].pay(100, 1)); again.ID != a.ID {
		t.Errorf("asked again there is another activity, %s", again.ID)
	}
	if e := h.entries(journal.KindActivity); len(e) != 1 || e[0].Facts[signing.FactActivity] != a.ID || e[0].Asked == nil || len(h.entries(journal.KindRefused)) != 0 {
		t.Errorf("journal has %+v, want one activity", e)
	}
	if !bytes.Contains([]byte(a.Summary), []byte("100")) || a.RequestID != "pay" || a.Requester != site.bot || a.ExpiresAt.Sub(a.CreatedAt) != 10*time.Minute {
		t.Errorf("activity is %+v", a)
	}
	h.mustApprove("yes", a, ann[0])
	r := h.mustSign(g[0], "pay", g[0].pay(100, 1))
	e := h.entries(journal.KindApproved)[0]
	if e.Facts[signing.FactActivity] != a.ID || e.Facts["approvers"] == "" {
		t.Errorf("approved with facts %v, want the activity and who approved", e.Facts)
	}
	if s := h.status(a.ID, ann[0]); s != "executed" {
		t.Errorf("status %s, want executed", s)
	}
	if again := h.mustSign(g[0], "pay", g[0].pay(100, 1)); !bytes.Equal(again.Signature, r.Signature) {
		t.Error("asked again it signed again")
	}
	// Another request that is alike has approvals of nobody.
	h.ask(g[0], "pay-2", g[0].pay(100, 2))
}

// A fresh blockhash may be put in; nothing else may differ. On EVM nothing may.
func TestApprovalCoversThePayload(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two), func() terms {
		x := consenting(evmAllow, two)
		x.set = mpctest.ECDSADelegateSet(t)
		return x
	}())
	_, ann := h.user("ann")
	a := h.ask(g[0], "sol", g[0].pay(100, 1))
	h.mustApprove("yes", a, ann[0])
	_, err := h.sign(g[0], "sol", g[0].pay(101, 1))
	wantRefusal(t, err, refusal.RequestIDReused)
	_, err = h.sign(g[0], "sol", g[0].payTo([32]byte{8}, 100, 1))
	wantRefusal(t, err, refusal.RequestIDReused)
	h.mustSign(g[0], "sol", g[0].pay(100, 7))
	_, err = h.sign(g[0], "sol", g[0].pay(100, 8)) // once
	wantRefusal(t, err, refusal.RequestIDReused)

	b := h.ask(g[1], "eth", transfer(t, 0, 5))
	h.mustApprove("yes-eth", b, ann[0])
	_, err = h.sign(g[1], "eth", transfer(t, 1, 5))
	wantRefusal(t, err, refusal.RequestIDReused)
	_, err = h.sign(g[0], "eth", g[0].pay(100, 1)) // by another delegation
	wantRefusal(t, err, refusal.RequestIDReused)
	h.mustSign(g[1], "eth", transfer(t, 0, 5))
	h.wantKinds(2, 2, 0, 0)
}

func TestVotesThatCountForNothing(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	_, ann := h.user("ann", "ann's other")
	_, bea := h.user("bea")
	a := h.ask(g[0], "pay", g[0].pay(100, 1))
	other := h.ask(g[0], "other", g[0].pay(100, 2))

	tampered := *a
	tampered.PayloadDigest[0] ^= 1
	wantRefusal(t, h.approveWith("tampered", &tampered, ann[0]), refusal.VoteInvalid)
	longer := *a
	longer.ExpiresAt = longer.ExpiresAt.Add(time.Hour)
	wantRefusal(t, h.approveWith("longer", &longer, ann[0]), refusal.VoteInvalid)
	_, err := h.delegation.Approve(context.Background(), ballot("garbage", []byte("garbage"), ann[0]))
	wantRefusal(t, err, refusal.VoteInvalid)
	swapped := *other
	swapped.ID = a.ID
	wantRefusal(t, h.approveWith("swapped", &swapped, ann[0]), refusal.VoteInvalid)
	wantRefusal(t, h.approveWith("root", a, site.root), refusal.QuorumMissing)
	stranger, err := newCredential(credential.ForUser, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, h.approveWith("stranger", a, stranger.key), refusal.NotFound)

	// Two credentials of one user are one approval, in one call and in two.
	h.mustApprove("yes", a, ann...)
	if c := h.delegation.Consent(site.organization, "pay"); len(c.Approvers) != 1 {
		t.Errorf("%d approvers, want ann once", len(c.Approvers))
	}
	no := wantRefusal(t, h.approveWith("again", a, ann[1]), refusal.VoteInvalid)
	if no.Details["user"] == "" {
		t.Error("the refusal does not name the user")
	}
	h.mustApprove("yes", a, ann...) // the same call once more is the same answer
	h.mustApprove("bea", a, bea[0])
	if c := h.delegation.Consent(site.organization, "pay"); len(c.Approvers) != 2 {
		t.Errorf("%d approvers, want two", len(c.Approvers))
	}
	// What was approved is one activity; the other still waits.
	h.mustSign(g[0], "pay", g[0].pay(100, 1))
	h.ask(g[0], "other", g[0].pay(100, 2))
	// And what is over takes no more.
	_, cat := h.user("cat")
	no = wantRefusal(t, h.approveWith("late", a, cat[0]), refusal.ActivityEnded)
	if no.Details["status"] != "executed" {
		t.Errorf("details %v", no.Details)
	}
}

func TestRejectionEndsAnActivity(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two), terms{})
	_, ann := h.user("ann")
	reject := func(id string, a *signing.Activity, key *credential.PrivateKey) error {
		_, err := h.delegation.Reject(context.Background(), ballot(id, a.Encode(), key))
		return err
	}
	for i, who := range []*credential.PrivateKey{ann[0], site.dana, site.root} { // a user it waits for, the owner, a root member
		id := fmt.Sprint("pay-", i)
		a := h.ask(g[0], id, g[0].pay(100, byte(i)))
		h.mustApprove("yes-"+id, a, ann[0])
		if err := reject("no-"+id, a, who); err != nil {
			t.Fatal(err)
		}
		_, err := h.sign(g[0], id, g[0].pay(100, byte(i)))
		no := wantRefusal(t, err, refusal.ActivityEnded)
		h.wantRefused(no, id)
		wantRefusal(t, h.approveWith("after-"+id, a, ann[0]), refusal.ActivityEnded)
		wantRefusal(t, reject("twice-"+id, a, who), refusal.ActivityEnded)
	}
	h.wantKinds(0, 0, 0, 0)
	after := h.again()
	_, err := after.sign(g[0], "pay-1", g[0].pay(100, 1))
	wantRefusal(t, err, refusal.ActivityEnded)
}

func TestApprovalsExpire(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	_, ann := h.user("ann")
	r := g[0].request("brief", g[0].pay(100, 1))
	r.ApprovalTime = time.Minute
	_, err := h.signing.Sign(context.Background(), r)
	wantRefusal(t, err, refusal.ApprovalsNeeded)
	brief, late := h.opened("brief"), h.ask(g[0], "late", g[0].pay(100, 2))
	h.mustApprove("yes", brief, ann[0])
	h.clock.add(time.Minute)
	_, err = h.sign(g[0], "brief", g[0].pay(100, 1))
	if no := wantRefusal(t, err, refusal.ActivityEnded); no.Details["status"] != "expired" {
		t.Errorf("details %v", no.Details)
	}
	h.clock.add(10 * time.Minute)
	wantRefusal(t, h.approveWith("late", late, ann[0]), refusal.ActivityEnded)
	for _, d := range []time.Duration{-1, time.Millisecond, 24*time.Hour + 1} {
		r := g[0].request("odd", g[0].pay(100, 3))
		r.ApprovalTime = d
		_, err := h.signing.Sign(context.Background(), r)
		wantRefusal(t, err, refusal.RequestInvalid)
	}
	// A day after its end an activity is forgotten, and its request id may be used.
	h.clock.add(25 * time.Hour)
	h.ask(g[0], "new", g[0].pay(100, 4))
	if again := h.ask(g[0], "brief", g[0].pay(100, 1)); again.ID == brief.ID {
		t.Error("the activity was not made anew")
	}
	wantRefusal(t, h.approveWith("replayed", brief, ann[0]), refusal.NotFound)
}

// Between step 6 and step 7 everything is looked at again.
func TestApprovalsAreJudgedAtExecution(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(h *house, a *signing.Activity)
		want refusal.Reason
	}{
		"expired": {func(h *house, _ *signing.Activity) { h.clock.add(10 * time.Minute) }, refusal.ActivityEnded},
		"rejected": {func(h *house, a *signing.Activity) {
			if _, err := h.delegation.Reject(context.Background(), ballot("no", a.Encode(), site.dana)); err != nil {
				h.t.Error(err)
			}
		}, refusal.ActivityEnded},
		"policy changed": {func(h *house, _ *signing.Activity) { h.deny("false") }, refusal.ActivityEnded},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := newHouse(t, consenting(solAllow, two))
			_, ann := h.user("ann")
			a := h.ask(g[0], "pay", g[0].pay(100, 1))
			h.mustApprove("yes", a, ann[0])
			once := func() { h.signing.BeforeApproval(nil); change.do(h, a) }
			h.signing.BeforeApproval(once)
			_, err := h.sign(g[0], "pay", g[0].pay(100, 1))
			wantRefusal(t, err, change.want)
			h.wantKinds(0, 0, 0, 0)
		})
	}
}

// deny gives the organization a policy that denies under a condition.
func (h *house) deny(condition string) {
	h.t.Helper()
	docs, err := h.delegation.Documents(actor(site.organization, "Get", site.root), site.organization, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"policies": []policy.Policy{{ID: "no", Effect: policy.Deny, Condition: condition}}})
	if err != nil {
		h.t.Fatal(err)
	}
	a := actor(site.organization, "SetDocuments", site.root)
	a.RequestHash = sha256.Sum256(text)
	_, err = h.delegation.SetDocuments(context.Background(), a, delegation.DocumentChanges{
		RequestID: fmt.Sprint("deny-", docs.Version), Organization: site.organization, Expected: docs.Version,
		Set: []delegation.NewDocument{{DocumentName: delegation.DocumentName{Kind: delegation.KindRules, Name: "no"}, Content: text}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// A change of policies makes approvals void, even one that says the same of this
// payload; a limit that was spent meanwhile refuses an approved request.
func TestApprovalsAreOfOnePolicySet(t *testing.T) {
	x := consenting(solAllow, two)
	x.limits = limit(150, day)
	h, g := newHouse(t, x)
	_, ann := h.user("ann")
	first, second := h.ask(g[0], "first", g[0].pay(100, 1)), h.ask(g[0], "second", g[0].pay(100, 2))
	h.mustApprove("yes-1", first, ann[0])
	h.mustApprove("yes-2", second, ann[0])
	h.mustSign(g[0], "first", g[0].pay(100, 1))
	_, err := h.sign(g[0], "second", g[0].pay(100, 2))
	wantRefusal(t, err, refusal.LimitExceeded)

	third := h.ask(g[0], "third", g[0].pay(10, 3))
	h.mustApprove("yes-3", third, ann[0])
	h.deny("false")
	_, err = h.sign(g[0], "third", g[0].pay(10, 3))
	if no := wantRefusal(t, err, refusal.ActivityEnded); no.Details["status"] != "policy_changed" {
		t.Errorf("details %v", no.Details)
	}
	wantRefusal(t, h.approveWith("late", third, ann[0]), refusal.ActivityEnded)
	fourth := h.ask(g[0], "fourth", g[0].pay(10, 4))
	h.mustApprove("yes-4", fourth, ann[0])
	h.mustSign(g[0], "fourth", g[0].pay(10, 4))
}

// A credential that is not its user's any more approves nothing, whenever it did.
func TestApprovalOfARevokedCredential(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	id, ann := h.user("ann", "spare")
	a := h.ask(g[0], "pay", g[0].pay(100, 1))
	h.mustApprove("yes", a, ann[0])
	var u map[string]any
	if err := h.vault.With(context.Background(), vault.TypeUser, id, func(rec []byte) error { return json.Unmarshal(rec, &u) }); err != nil {
		t.Fatal(err)
	}
	u["credentials"] = u["credentials"].([]any)[1:]
	h.update(func(tx *vault.Tx) error {
		h.put(tx, vault.TypeUser, id, u)
		return nil
	})
	after := h.again()
	after.ask(g[0], "pay", g[0].pay(100, 1))
	wantRefusal(t, after.approveWith("gone", a, ann[0]), refusal.NotFound)
	after.mustApprove("spare", a, ann[1])
	after.mustSign(g[0], "pay", g[0].pay(100, 1))
}

// kill -9 behind every durable write: what was acknowledged is there, nothing is twice.
func TestCrashBehindEveryWriteOfAnActivity(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	_, ann := h.user("ann")
	a := h.ask(g[0], "pay", g[0].pay(100, 1))

	opened := h.again()
	if b := opened.ask(g[0], "pay", g[0].pay(100, 1)); !bytes.Equal(b.Encode(), a.Encode()) {
		t.Error("after a crash the activity is another")
	}
	h.mustApprove("yes", a, ann[0])
	approved := h.again()
	approved.mustApprove("yes", a, ann[0]) // the client repeats its call
	var reserved *house
	approved.signing.BeforeRelease(func() { reserved = approved.again() })
	approved.mustSign(g[0], "pay", g[0].pay(100, 1))

	// Approved, outcome unknown: the same request is signed under the same approvals,
	// even when their time is over, and no other.
	reserved.clock.add(time.Hour)
	if s := reserved.status(a.ID, ann[0]); s != "executed" {
		t.Errorf("status %s after the crash, want executed", s)
	}
	_, err := reserved.sign(g[0], "pay", g[0].pay(100, 2))
	wantRefusal(t, err, refusal.RequestIDReused)
	reserved.mustSign(g[0], "pay", g[0].pay(100, 1))
	reserved.wantKinds(1, 1, 0, 1)

	signed := approved.again()
	signed.mustSign(g[0], "pay", g[0].pay(100, 1))
	signed.wantKinds(1, 1, 0, 0)
}

// What failed before its last share left gives its charge back and its approvals, too.
func TestApprovalsSurviveAFailedCeremony(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	_, ann := h.user("ann")
	h.mustApprove("yes", h.ask(g[0], "pay", g[0].pay(100, 1)), ann[0])
	id := delegation.ShareID(g[0].set.ID, "server")
	h.update(func(tx *vault.Tx) error { return tx.Delete(vault.TypeShare, id) })
	_, err := h.sign(g[0], "pay", g[0].pay(100, 1))
	wantRefusal(t, err, refusal.CeremonyFailed)
	h.update(func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, id, g[0].set.Shares(t, "server")[0]) })
	h.mustSign(g[0], "pay", g[0].pay(100, 1))
	h.wantKinds(2, 1, 1, 0)
}

// A leaked key can't make people drown in activities.
func TestPendingActivitiesAreBounded(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, two))
	for i := range 32 {
		h.ask(g[0], fmt.Sprint("pay-", i), g[0].pay(100, byte(i)))
	}
	_, err := h.sign(g[0], "pay-33", g[0].pay(100, 33))
	wantRefusal(t, err, refusal.RateLimited)
	h.clock.add(10 * time.Minute)
	h.ask(g[0], "pay-34", g[0].pay(100, 34))
}

// To whom an activity is no concern it does not exist.
func TestActivitiesAreShownToThoseConcerned(t *testing.T) {
	h, g := newHouse(t, consenting(solAllow, "approvers.any(u, u.alias == 'ann')"))
	_, ann := h.user("ann")
	_, bea := h.user("bea")
	a := h.ask(g[0], "pay", g[0].pay(100, 1))
	for name, row := range map[string]struct {
		key  *credential.PrivateKey
		sees bool
	}{"named": {ann[0], true}, "not named": {bea[0], false}, "owner": {site.dana, true}, "root": {site.root, true}} {
		list, err := h.delegation.Activities(actor(site.organization, "List", row.key), site.organization, false)
		if err != nil || (len(list) == 1) != row.sees {
			t.Errorf("%s: %d activities, %v", name, len(list), err)
		}
		_, err = h.delegation.Activity(actor(site.organization, "Get", row.key), site.organization, a.ID)
		if row.sees != (err == nil) || !row.sees && !refusal.Is(err, refusal.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantRefusal(t, h.approveWith("bea", a, bea[0]), refusal.NotFound)
	_, err := h.delegation.Reject(context.Background(), ballot("bea-no", a.Encode(), bea[0]))
	wantRefusal(t, err, refusal.NotFound)
	wantRefusal(t, h.approveWith("owner-yes", a, site.dana), refusal.QuorumMissing) // the owner is not named
	_, err = h.delegation.Activities(actor("org_other", "List", ann[0]), site.organization, false)
	wantRefusal(t, err, refusal.NotFound)
	h.mustApprove("yes", a, ann[0])
	h.mustSign(g[0], "pay", g[0].pay(100, 1))
}

// A request by stamps waits like any other: here for a delegated user, whom the policy
// names. Only who asked asks again.
func TestStampedRequestsWaitForApprovals(t *testing.T) {
	r := newRealm(t)
	_, err := r.stamp("rent", r.pay(5, 1), r.owner)
	no := wantRefusal(t, err, refusal.ApprovalsNeeded)
	a := r.delegation.Consent(r.made.OrganizationID, "rent").Activity
	if a.ID != no.Details["activity"] || a.Delegation != "" || a.Requester != r.made.EndUserID {
		t.Errorf("activity %+v, refused with %v", a, no.Details)
	}
	v := ballot("yes", a.Encode(), r.robot.key)
	v.Organization, v.Actor.Organization = r.made.OrganizationID, r.made.OrganizationID
	if _, err := r.delegation.Approve(context.Background(), v); err != nil {
		t.Fatal(err)
	}
	h := r.again() // and it is there after a crash
	r.house = h
	_, err = r.stamp("rent", r.pay(5, 2), r.robot)
	wantRefusal(t, err, refusal.RequestIDReused)
	out, err := r.stamp("rent", r.pay(5, 2), r.owner)
	if err != nil {
		t.Fatal(err)
	}
	r.verify(t, out, r.pay(5, 2))
}

func FuzzParseActivity(f *testing.F) {
	a := signing.Activity{ID: "act_1", ApplianceID: "apl", Organization: "org", Kind: "evm.transaction", CreatedAt: began, ExpiresAt: began.Add(time.Minute), Summary: "pay"}
	f.Add(a.Encode())
	f.Add([]byte("\x00\x00\x00\x12sigild/activity/v1"))
	f.Add(a.Encode()[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := signing.ParseActivity(b)
		if err == nil && !bytes.Equal(a.Encode(), b) {
			t.Errorf("%x was read as %+v, which is other bytes", b, a)
		}
	})
}
