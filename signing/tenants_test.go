package signing_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// tenant is a second organization with one user, who owns a wallet and stamps.
type tenant struct {
	*grant
	organization string
	user         holder
}

func (h *house) tenant() *tenant {
	h.t.Helper()
	ctx := context.Background()
	root, err := newCredential(credential.ForOrganizationRoot, "rory")
	if err != nil {
		h.t.Fatal(err)
	}
	made, err := h.delegation.CreateOrganization(ctx, actor("", "CreateOrganization", site.operator), delegation.NewOrganization{
		RequestID: "tenant", Name: "umbrella", Root: []delegation.NewCredential{root.NewCredential}, Quorum: 1,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	x := &tenant{organization: made.OrganizationID}
	n, key := newEndUser(h.t, x.organization, "uma")
	user, err := h.delegation.CreateUser(ctx, actor(x.organization, "CreateUser", root.key), n)
	if err != nil {
		h.t.Fatal(err)
	}
	x.user = key
	text, err := json.Marshal(map[string]any{"policies": []policy.Policy{{ID: "small", Effect: policy.Allow, Condition: solSmall, Consensus: "approvers.count() > 0"}}})
	if err != nil {
		h.t.Fatal(err)
	}
	a := actor(x.organization, "SetDocuments", root.key)
	a.RequestHash = sha256.Sum256(text)
	if _, err := h.delegation.SetDocuments(ctx, a, delegation.DocumentChanges{
		RequestID: "rules", Organization: x.organization,
		Set: []delegation.NewDocument{{DocumentName: delegation.DocumentName{Kind: delegation.KindRules, Name: "main"}, Content: text}},
	}); err != nil {
		h.t.Fatal(err)
	}
	x.grant = h.rootWallet(x.organization, user.UserID, "wal_umbrella")
	return x
}

// Two organizations under one limit of the appliance's files: each has the whole of it,
// and neither hears of the other.
func TestApplianceLimitBoundsEachOrganization(t *testing.T) {
	h, g := newHouse(t, terms{})
	other := h.tenant()
	h = h.again()
	files, err := delegation.CompilePolicyFiles([]delegation.RuleFile{{Name: "house.json", Content: []byte(
		`{"limits":[{"id":"house","name":"the house's word on money","asset":"` + sol + `","max":"100","window_seconds":86400}]}`)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.delegation.LoadPolicyFiles(context.Background(), files); err != nil {
		t.Fatal(err)
	}
	stamp := func(id string, payload []byte) (*signing.Result, error) {
		return h.signing.Sign(context.Background(), signing.Request{
			ID: id, WalletID: other.wallet, Kind: other.kind, Payload: payload, Method: signMethod, Caller: caller,
			Organization: other.organization, Stamps: []credential.PublicKey{other.user.PublicKey},
		})
	}
	quiet := func(err error) {
		t.Helper()
		no := wantRefusal(t, err, refusal.LimitExceeded)
		said := no.Message
		for _, v := range no.Details {
			said += " " + v
		}
		if no.Details["rule"] != "appliance/house" || strings.Contains(said, "word on money") || strings.Contains(said, "100") || strings.Contains(said, other.organization) || strings.Contains(said, site.organization) {
			t.Errorf("refusal says %q, with %v", no.Message, no.Details)
		}
	}
	h.mustSign(g[0], "mine", g[0].pay(100, 1))
	_, err = h.sign(g[0], "more", g[0].pay(1, 2))
	quiet(err)
	out, err := stamp("theirs", other.pay(100, 1))
	if err != nil {
		t.Fatalf("the other organization's 100 are refused: %v", err)
	}
	other.verify(t, out, other.pay(100, 1))
	_, err = stamp("more", other.pay(1, 2))
	quiet(err)
	h.wantKinds(2, 2, 0, 0)
}
