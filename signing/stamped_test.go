package signing_test

import (
	"context"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// Users sign by stamp, and their organization's policies judge.

// realm is a sub-organization with an end user, a delegated user and a wallet.
type realm struct {
	*house
	*grant
	made         delegation.AccessCreated
	owner, robot holder
}

const solSmall = "solana.tx.instructions.count() == 1 && solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.amount <= 500)"

// newRealm makes it by the back end's way; the wallet is as ceremonies leave it.
func newRealm(t testing.TB) *realm {
	t.Helper()
	h, _ := newHouse(t)
	r := &realm{}
	var err error
	if r.owner, err = newCredential(credential.ForUser, "erin"); err != nil {
		t.Fatal(err)
	}
	if r.robot, err = newCredential(credential.ForDelegatedUser, "robot"); err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	n := delegation.NewAccess{
		NewSubOrganization: delegation.NewSubOrganization{RequestID: "access", Parent: site.organization, Name: "erin", EndUser: delegation.NewEndUser{
			Name: "erin", Credentials: []delegation.NewCredential{r.owner.NewCredential}, ShareRecipient: identity.Recipient().String(),
		}},
		DelegatedUser: delegation.NewDelegatedUser{Name: "robot", Credential: r.robot.NewCredential, Tags: []string{"bots"}},
		Policies: []delegation.Intent{{Policy: policy.Policy{Name: "small payments", Effect: policy.Allow, Lang: policy.LangTurnkey,
			Condition: solSmall + " && activity.kind == 'SIGN_TRANSACTION'", Consensus: "approvers.any(user, user.id == '${delegated_user_id}')"}}},
	}
	if n.EndUser.RecipientSignature, err = credential.SignRecipient(r.owner.key, n.EndUser.ShareRecipient); err != nil {
		t.Fatal(err)
	}
	if r.made, err = h.delegation.CreateDelegatedAccess(context.Background(), actor(site.organization, "CreateDelegatedAccess", site.root), n); err != nil {
		t.Fatal(err)
	}
	r.grant = h.rootWallet(r.made.OrganizationID, r.made.EndUserID, "wal_realm")
	r.house = h.again()
	return r
}

// rootWallet writes an active wallet with a root set of which this host has a quorum.
func (h *house) rootWallet(org, owner, id string) *grant {
	h.t.Helper()
	set := mpctest.Ed25519RootSet(h.t)
	here := []mpc.Party{mpc.Recovery, mpc.Server}
	h.update(func(tx *vault.Tx) error {
		h.put(tx, vault.TypeKey, "key_"+id, map[string]any{
			"v": 1, "id": "key_" + id, "organization": org, "owner": owner, "scheme": set.Scheme, "created_at": began,
			"origin": "in_process", "status": "active", "root": set.ShareSet, "here": here,
		})
		h.put(tx, vault.TypeWallet, id, map[string]any{
			"v": 1, "id": id, "organization": org, "key": "key_" + id, "owner": owner, "chain": cluster, "name": "main",
			"address": solana.Address([32]byte(set.PublicKey)), "status": "active", "created_at": began,
		})
		for n, p := range here {
			if err := tx.Put(vault.TypeShare, delegation.ShareID(set.ID, p), set.Shares(h.t, here...)[n]); err != nil {
				return err
			}
		}
		return nil
	})
	return &grant{wallet: id, kind: chains.KindSolanaMessage, set: set}
}

// asked is a request that these stamped.
func (r *realm) asked(id string, payload []byte, by ...holder) signing.Request {
	q := signing.Request{ID: id, WalletID: r.wallet, Kind: r.kind, Payload: payload, Method: signMethod, Caller: caller, Organization: r.made.OrganizationID}
	for _, h := range by {
		q.Stamps = append(q.Stamps, h.PublicKey)
	}
	return q
}

func (r *realm) stamp(id string, payload []byte, by ...holder) (*signing.Result, error) {
	return r.signing.Sign(context.Background(), r.asked(id, payload, by...))
}

func TestDelegatedUserSignsByStamp(t *testing.T) {
	r := newRealm(t)
	out, err := r.stamp("one", r.pay(5, 1), r.robot)
	if err != nil {
		t.Fatal(err)
	}
	r.verify(t, out, r.pay(5, 1))
	if out.Rule != "organization/"+r.made.PolicyIDs[0] {
		t.Errorf("rule %q", out.Rule)
	}
	approved := r.entries(journal.KindApproved)[0]
	if approved.User != r.made.DelegatedUserID || approved.Delegation != "" || len(approved.Credentials) != 1 || approved.Credentials[0] != r.robot.PublicKey.ID() {
		t.Errorf("entry %+v", approved)
	}
	again, err := r.stamp("one", r.pay(5, 1), r.robot)
	if err != nil || string(again.Signature) != string(out.Signature) {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	_, err = r.stamp("one", r.pay(6, 1), r.robot)
	wantRefusal(t, err, refusal.RequestIDReused)
	_, err = r.stamp("one", r.pay(5, 1), r.owner)
	wantRefusal(t, err, refusal.RequestIDReused) // another user's
	r.wantKinds(1, 1, 0, 0)
}

func TestStampedRequestsAreJudged(t *testing.T) {
	r := newRealm(t)
	stranger, err := newCredential(credential.ForDelegatedUser, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		by     []holder
		amount uint64
		want   refusal.Reason
	}{
		{"too much", []holder{r.robot}, 501, refusal.PolicyDenied},
		{"the end user is in the root, and the policy names another", []holder{r.owner}, 5, refusal.ApprovalsNeeded},
		{"nobody's key", []holder{stranger}, 5, refusal.QuorumMissing},
		{"a root key that is no user's", []holder{{key: site.root, NewCredential: delegation.NewCredential{PublicKey: site.root.Public()}}}, 5, refusal.QuorumMissing},
	}
	for i, row := range rows {
		_, err := r.stamp(string(rune('a'+i)), r.pay(row.amount, 1), row.by...)
		if no := wantRefusal(t, err, row.want); no == nil {
			t.Error(row.name)
		}
	}
	other := r.asked("x", r.pay(5, 1), r.robot)
	other.Organization = site.organization
	_, err = r.signing.Sign(context.Background(), other)
	wantRefusal(t, err, refusal.NotFound) // a wallet of another organization
	other = r.asked("x", r.pay(5, 1), r.robot)
	other.WalletID = "wal_nowhere"
	_, err = r.signing.Sign(context.Background(), other)
	wantRefusal(t, err, refusal.NotFound)
	r.wantKinds(0, 0, 0, 0)

	// An ALLOW policy that names nobody allows no stamped request.
	n := delegation.NewIntents{RequestID: "p", Organization: r.made.OrganizationID, Policies: []delegation.Intent{
		{Policy: policy.Policy{Name: "anything", Effect: policy.Allow, Condition: "true"}},
	}}
	if _, err := r.delegation.FetchOrCreatePolicies(context.Background(), actor(n.Organization, "FetchOrCreatePolicies", r.owner.key), n); err != nil {
		t.Fatal(err)
	}
	_, err = r.stamp("y", r.pay(501, 1), r.robot)
	wantRefusal(t, err, refusal.PolicyDenied)
	// Two who stamp are two approvers.
	n.RequestID, n.Policies[0].Policy.Name, n.Policies[0].Policy.Consensus = "q", "both", "approvers.filter(u, u.tags.contains('bots')).count() == 1 && approvers.any(u, u.id == '"+r.made.EndUserID+"')"
	if _, err := r.delegation.FetchOrCreatePolicies(context.Background(), actor(n.Organization, "FetchOrCreatePolicies", r.owner.key), n); err != nil {
		t.Fatal(err)
	}
	if _, err := r.stamp("z", r.pay(501, 2), r.robot, r.owner); err != nil {
		t.Error(err)
	}
	_, err = r.stamp("w", r.pay(501, 3), r.robot)
	wantRefusal(t, err, refusal.ApprovalsNeeded) // or one stamps now, and the other approves it later
}

// What ends between two steps ends the request.
func TestStampedRequestIsLookedAtAgain(t *testing.T) {
	r := newRealm(t)
	end := func(id string) {
		n := delegation.Revocation{RequestID: id, Organization: r.made.OrganizationID, User: r.made.DelegatedUserID, Credential: r.robot.PublicKey.ID()}
		if _, err := r.delegation.RevokeCredential(context.Background(), actor(n.Organization, "RevokeCredential", r.owner.key), n); err != nil {
			t.Error(err)
		}
	}
	r.signing.BeforeApproval(func() { r.signing.BeforeApproval(nil); end("v") })
	_, err := r.stamp("one", r.pay(5, 1), r.robot)
	wantRefusal(t, err, refusal.QuorumMissing)
	r.wantKinds(0, 0, 0, 0)
}

// Nobody but a wallet's owner widens what may be signed with it: in an organization
// of several users the root's ALLOW policies count only when the owner stamps, too.
func TestRootAllowsNothingWithOthersWallets(t *testing.T) {
	h, _ := newHouse(t)
	robot, err := newCredential(credential.ForDelegatedUser, "robot")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	u := delegation.NewAccessUser{RequestID: "u", Organization: site.organization, User: delegation.NewDelegatedUser{Name: "robot", Credential: robot.NewCredential}}
	made, err := h.delegation.FetchOrCreateDelegatedUser(ctx, actor(site.organization, "u", site.root), u)
	if err != nil {
		t.Fatal(err)
	}
	n := delegation.NewIntents{RequestID: "p", Organization: site.organization, Policies: []delegation.Intent{
		{Policy: policy.Policy{Name: "all", Effect: policy.Allow, Condition: solSmall, Consensus: "approvers.any(u, u.id == '" + made.UserID + "')"}},
	}}
	if _, err := h.delegation.FetchOrCreatePolicies(ctx, actor(site.organization, "p", site.root), n); err != nil {
		t.Fatal(err)
	}
	g := h.rootWallet(site.organization, site.owner, "wal_dana")
	c := h.again()
	r := &realm{house: c, grant: g, made: delegation.AccessCreated{OrganizationID: site.organization}, robot: robot}
	_, err = r.stamp("a", g.pay(5, 1), robot)
	wantRefusal(t, err, refusal.PolicyDenied)
	dana := holder{key: site.dana, NewCredential: delegation.NewCredential{PublicKey: site.dana.Public()}}
	if _, err := r.stamp("b", g.pay(5, 1), robot, dana); err != nil {
		t.Errorf("with the owner's stamp: %v", err)
	}
	// A pause holds for stamps, too.
	p := delegation.NewPause{RequestID: "pause", Scope: delegation.Scope{Organization: site.organization, Wallet: g.wallet}, Reason: "drill"}
	if _, err := c.delegation.Pause(ctx, actor(site.organization, "Pause", site.dana), p); err != nil {
		t.Fatal(err)
	}
	_, err = r.stamp("c", g.pay(5, 2), robot, dana)
	wantRefusal(t, err, refusal.Paused)
}

func TestExpiredCredentialSignsNothing(t *testing.T) {
	r := newRealm(t)
	next, err := newCredential(credential.ForDelegatedUser, "next")
	if err != nil {
		t.Fatal(err)
	}
	n := delegation.Rotation{RequestID: "r", Organization: r.made.OrganizationID, User: r.made.DelegatedUserID, Old: r.robot.PublicKey.ID(), New: next.NewCredential, Overlap: time.Hour}
	if _, err := r.delegation.RotateCredential(context.Background(), actor(n.Organization, "RotateCredential", r.robot.key), n); err != nil {
		t.Fatal(err)
	}
	if _, err := r.stamp("a", r.pay(5, 1), r.robot); err != nil {
		t.Errorf("within the overlap: %v", err)
	}
	r.clock.add(time.Hour)
	_, err = r.stamp("b", r.pay(5, 2), r.robot)
	wantRefusal(t, err, refusal.QuorumMissing)
	if _, err := r.stamp("c", r.pay(5, 2), next); err != nil {
		t.Errorf("its successor: %v", err)
	}
}
