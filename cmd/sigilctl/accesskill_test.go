package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// sigild itself is killed with SIGKILL while a back end sets accesses up, at moments spread
// over the time that one takes. Asked again with the same request id, it has made each of
// them once, whole; the journal tells of one.
func TestDaemonKilledInCreateDelegatedAccess(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	treasurer, err := credential.LoadKey(p.path("treasurer.key"))
	if err != nil {
		t.Fatal(err)
	}
	d := startFor(t, p)
	ask := func(r *sigilv1.CreateDelegatedAccessRequest) (*sigilv1.CreateDelegatedAccessResponse, error) {
		c, err := client.Dial(p.path("app.sock"))
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.WithStamps(b.Organization, treasurer).DelegatedUsers().CreateDelegatedAccess(t.Context(), r)
	}
	const rounds = 10
	owners, made := map[string]*credential.PrivateKey{}, map[string]string{}
	took, lost := time.Duration(0), 0
	for i := range rounds + 1 {
		owner, r := newAccess(t, b.Organization, fmt.Sprint("access-", i))
		if i > 0 { // the first shows how long one takes
			answered := make(chan error, 1)
			go func() { _, err := ask(r); answered <- err }()
			time.Sleep(took * time.Duration(i-1) / (rounds - 2))
			if err := d.cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = d.cmd.Wait() // by the signal
			if err := <-answered; err != nil {
				lost++
			}
			if d, err = p.start(); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		out, err := ask(r)
		if err != nil {
			t.Fatalf("access %d, asked again: %v\n%s", i, err, d.log)
		}
		if i == 0 {
			took = time.Since(begin)
		}
		owners[out.GetOrganizationId()], made[r.GetRequestId()] = owner, out.GetOrganizationId()
		wantAccess(t, p, owner, out)
	}
	t.Logf("%d of %d answers were lost; one access takes %v", lost, rounds, took)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := p.sigilctl("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	list, err := p.sigilctl("audit", "list")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		var e struct {
			Method    string            `json:"method"`
			RequestID string            `json:"request_id"`
			Facts     map[string]string `json:"facts"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(e.Method, "/CreateDelegatedAccess") {
			continue
		}
		if made[e.RequestID] == "" || made[e.RequestID] != e.Facts["organization"] {
			t.Errorf("the journal tells of organization %s for %s, the answer of %q", e.Facts["organization"], e.RequestID, made[e.RequestID])
		}
		delete(made, e.RequestID)
	}
	if len(made) > 0 || len(owners) != rounds+1 {
		t.Errorf("%d organizations; the journal does not tell of %v", len(owners), made)
	}
}

// newAccess asks for an access of a new end user, whose key it returns.
func newAccess(t *testing.T, parent, id string) (*credential.PrivateKey, *sigilv1.CreateDelegatedAccessRequest) {
	t.Helper()
	owner, user, err := newCredential(credential.ForUser, "phone")
	if err != nil {
		t.Fatal(err)
	}
	_, robot, err := newCredential(credential.ForDelegatedUser, "robot")
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := credential.SignRecipient(owner, identity.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	condition, consensus, wallet, hour := "solana.tx.transfers.count() == 1", "approvers.any(user, user.id == '${delegated_user_id}')", "${wallet_1}", uint32(3600)
	return owner, &sigilv1.CreateDelegatedAccessRequest{
		RequestId: id, OrganizationId: parent, Name: id,
		EndUser:       &sigilv1.NewEndUser{Name: "Dana", Credentials: []*sigilv1.NewCredential{user}, ShareRecipient: identity.Recipient().String(), ShareRecipientSignature: signature},
		DelegatedUser: &sigilv1.NewDelegatedUser{Name: "robot", Credential: robot},
		Policies:      []*sigilv1.PolicyIntent{{Policy: &sigilv1.Policy{Name: "pay", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition, Consensus: &consensus}, WalletId: &wallet}},
		Limits:        []*sigilv1.Limit{{Name: "an hour", Asset: solana + "/slip44:501", MaxAmount: "5", WindowSeconds: &hour}},
		Wallets:       []*sigilv1.NewAccessWallet{{Chain: solana, Name: "savings"}},
	}
}

// wantAccess insists that an access is whole, as its end user sees it.
func wantAccess(t *testing.T, p place, owner *credential.PrivateKey, made *sigilv1.CreateDelegatedAccessResponse) {
	t.Helper()
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	org := made.GetOrganizationId()
	c = c.WithStamps(org, owner)
	m, err := c.Members().ListMembers(t.Context(), &sigilv1.ListMembersRequest{OrganizationId: org})
	if err != nil || len(m.GetMembers()) != 2 || m.GetRootQuorum() != 1 || len(m.GetRootCredentials()) != 0 {
		t.Fatalf("members %v, %v", m, err)
	}
	for _, u := range m.GetMembers() {
		if u.GetRoot() != (u.GetUserId() == made.GetEndUserId()) {
			t.Errorf("user %v", u)
		}
	}
	v, err := c.DelegatedUsers().VerifyDelegatedAccess(t.Context(), &sigilv1.VerifyDelegatedAccessRequest{OrganizationId: org, UserId: made.GetDelegatedUserId()})
	if err != nil || len(v.GetInvariants()) == 0 {
		t.Fatal(err)
	}
	for _, i := range v.GetInvariants() {
		if !i.GetHolds() {
			t.Errorf("%s does not hold: %s", i.GetId(), i.GetText())
		}
	}
	docs, err := c.Policies().GetDocuments(t.Context(), &sigilv1.GetDocumentsRequest{OrganizationId: org})
	if err != nil || len(docs.GetDocuments()) != 2 || docs.GetVersion() != 1 {
		t.Errorf("documents %v, %v", docs, err)
	}
	w, err := c.Wallets().GetWallet(t.Context(), &sigilv1.GetWalletRequest{OrganizationId: org, WalletId: made.GetWallets()[0].GetWalletId()})
	if err != nil || w.GetWallet().GetOwnerUserId() != made.GetEndUserId() {
		t.Errorf("wallet %v, %v", w, err)
	}
}
