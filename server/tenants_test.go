package server

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// Every row of the access table, tried by those who must not: the messages are made
// from the API's descriptors, with good ids where a field is called like one.

// tenant is a sub-organization with its end user and delegated user, made by the back end's way.
type tenant struct {
	*appliance
	owner, robot *credential.PrivateKey
	made         *sigilv1.CreateDelegatedAccessResponse
	// ids by the names of fields.
	ids map[string]string
}

// parent makes an organization with one root key, by the wire.
func (a *appliance) parent(t *testing.T, name string) (string, *credential.PrivateKey) {
	t.Helper()
	a.parts.Status = func() *sigilv1.GetStatusResponse {
		return &sigilv1.GetStatusResponse{ApplianceId: proto.String(a.parts.Delegation.ApplianceID())}
	}
	a.parts.Delegation.Deliveries(a.parts.Delivery)
	a.Unsealed(a.parts)
	root := newKey(t, credential.P256)
	made, err := a.dialAdmin(t).WithStamps("", a.operator).Organizations().CreateOrganization(t.Context(), &sigilv1.CreateOrganizationRequest{
		RequestId: name, Name: name, RootQuorum: 1, RootCredentials: []*sigilv1.NewCredential{shown(t, root, credential.ForOrganizationRoot)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.GetOrganizationId(), root
}

func (a *appliance) dialAdmin(t *testing.T) *client.Client { return dial(t, a.admin) }

// shown is a key as requests register it.
func shown(t testing.TB, k *credential.PrivateKey, p credential.Purpose) *sigilv1.NewCredential {
	t.Helper()
	proof, err := credential.NewProof(k, p, "key")
	if err != nil {
		t.Fatal(err)
	}
	return &sigilv1.NewCredential{Name: "key", Algorithm: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256, PublicKey: k.Public().Bytes, Proof: proof}
}

func (a *appliance) tenant(t *testing.T, parent, name string, root *credential.PrivateKey) *tenant {
	t.Helper()
	x := &tenant{appliance: a, owner: newKey(t, credential.P256), robot: newKey(t, credential.P256)}
	recipient := ageRecipient(t)
	signature, err := credential.SignRecipient(x.owner, recipient)
	if err != nil {
		t.Fatal(err)
	}
	x.made, err = a.app.WithStamps(parent, root).DelegatedUsers().CreateDelegatedAccess(t.Context(), &sigilv1.CreateDelegatedAccessRequest{
		RequestId: name, OrganizationId: parent, Name: name,
		EndUser:       &sigilv1.NewEndUser{Name: name, Credentials: []*sigilv1.NewCredential{shown(t, x.owner, credential.ForUser)}, ShareRecipient: recipient, ShareRecipientSignature: signature},
		DelegatedUser: &sigilv1.NewDelegatedUser{Name: "robot", Credential: shown(t, x.robot, credential.ForDelegatedUser)},
		Policies: []*sigilv1.PolicyIntent{{Policy: &sigilv1.Policy{Name: "p", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW,
			Condition: proto.String("eth.tx.value <= 1"), Consensus: proto.String("approvers.any(user, user.id == '${delegated_user_id}')")}}},
		Wallets: []*sigilv1.NewAccessWallet{{Chain: "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", Name: "w"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	org, w := x.made.GetOrganizationId(), x.made.GetWallets()[0]
	for range 600 { // the ceremony is a matter of milliseconds
		c, err := a.app.WithStamps(org, x.owner).Wallets().GetCeremony(t.Context(), &sigilv1.GetCeremonyRequest{OrganizationId: org, CeremonyId: w.GetCeremonyId()})
		if err != nil {
			t.Fatal(err)
		}
		if c.GetCeremony().GetStatus() != sigilv1.CeremonyStatus_CEREMONY_STATUS_RUNNING {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	x.ids = map[string]string{
		"organization_id": org, "wallet_id": w.GetWalletId(), "key_id": w.GetKeyId(), "ceremony_id": w.GetCeremonyId(),
		"user_id": x.made.GetDelegatedUserId(), "user_ids": x.made.GetEndUserId(), "owner_user_id": x.made.GetEndUserId(), "delegate_to": x.made.GetEndUserId(), "delegated_user_id": x.made.GetDelegatedUserId(),
		"policy_ids": x.made.GetPolicyIds()[0], "credential_id": x.robot.Public().ID(), "credential_ids": x.robot.Public().ID(),
		"delegation_id": "dlg_of_" + name, "activity_id": "act_of_" + name, "order_id": "ord_of_" + name, "delivery_id": "dlv_of_" + name, "webhook_id": "whk_of_" + name, "external_id": "sig_of_" + name,
	}
	return x
}

func ageRecipient(t testing.TB) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

// filled is a message of a method's input: ids of x where a field is called like one,
// something of the right form elsewhere.
func (x *tenant) filled(t *testing.T, d protoreflect.MessageDescriptor, request string) *dynamicpb.Message {
	t.Helper()
	m := dynamicpb.NewMessage(d)
	texts := map[string]string{"request_id": request, "name": "n", "reason": "r", "chain": "eip155", "path": "0", "api_key_recipient": ageRecipient(t), "filled_by": "r", "address": "0x0000000000000000000000000000000000000001", "template": "t"}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		name := string(f.Name())
		text, ok := x.ids[name]
		if !ok {
			text, ok = texts[name]
		}
		switch {
		case f.Kind() == protoreflect.StringKind && ok && f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString(text))
		case f.Kind() == protoreflect.StringKind && ok && !f.IsMap():
			m.Set(f, protoreflect.ValueOfString(text))
		case f.Kind() == protoreflect.Uint32Kind && name == "root_quorum":
			m.Set(f, protoreflect.ValueOfUint32(1))
		case f.Kind() == protoreflect.BoolKind && name == "organization_allows":
			m.Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.BytesKind && (name == "ciphertext_sha256" || name == "terms_sha256"):
			m.Set(f, protoreflect.ValueOfBytes(make([]byte, 32)))
		case f.Kind() == protoreflect.MessageKind && !f.IsList() && f.Message().FullName() == "sigil.v1.NewCredential":
			m.Set(f, protoreflect.ValueOfMessage(reshaped(t, f.Message(), shown(t, x.robot, credential.ForDelegatedUser))))
		}
	}
	return m
}

// reshaped is a message under another descriptor of its type.
func reshaped(t *testing.T, d protoreflect.MessageDescriptor, m proto.Message) *dynamicpb.Message {
	t.Helper()
	out := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(marshal(t, m), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// try sends a message to a method on the first of its sockets, stamped for org.
func (a *appliance) try(t *testing.T, row access, org string, message []byte, by ...*credential.PrivateKey) error {
	t.Helper()
	path := a.path
	if row.socket&onApp == 0 {
		path = a.admin
	}
	var pairs []string
	for _, k := range by {
		s, err := credential.NewStamp(k, credential.Act{ApplianceID: a.parts.Delegation.ApplianceID(), OrganizationID: org, Method: row.method, IssuedAt: time.Now(), MessageHash: sha256.Sum256(message)})
		if err != nil {
			t.Fatal(err)
		}
		data, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, stampKey, string(data))
	}
	if a.raw == nil {
		a.raw = map[string]rawConn{a.path: dialRaw(t, a.path), a.admin: dialRaw(t, a.admin)} // a uid has few connections
	}
	return a.raw[path].call(row.method, message, pairs...)
}

// A delegated user's stamp opens no administrative method, whatever ids it names.
func TestDelegateIsRefusedEverywhere(t *testing.T) {
	a := newAppliance(t)
	org, root := a.parent(t, "acme")
	x := a.tenant(t, org, "one", root)
	inside := x.made.GetOrganizationId()
	if err := a.parts.Delegation.NoteUse(t.Context(), inside, x.robot.Public(), 0); err != nil { // once an hour it is written down
		t.Fatal(err)
	}
	mayLook := []string{"/sigil.v1.ActivityService/ListActivities"} // and sees nothing that doesn't concern it
	tried, api := 0, methods(t)
	for i, row := range table {
		// Its own three: signing, giving up its credential for another, giving up its policies.
		if row.by != byStamps || row.method == "/sigil.v1.MemberService/RotateCredential" || row.method == "/sigil.v1.DelegatedUserService/ReportOrderFilled" {
			continue
		}
		tried++
		before := a.vault.Info()
		err := a.try(t, row, inside, marshal(t, x.filled(t, api[row.method].Input(), fmt.Sprint("d", i))), x.robot)
		if err == nil && !slices.Contains(mayLook, row.method) {
			t.Errorf("%s: a delegated user may", row.method)
		}
		if reason := client.Reason(err); err != nil && !slices.Contains([]string{"QUORUM_MISSING", "STAMP_INVALID", "NOT_FOUND", "REQUEST_INVALID", "VOTE_INVALID"}, reason) {
			t.Errorf("%s: refused with %q (%v)", row.method, reason, err)
		}
		if after := a.vault.Info(); after != before {
			t.Errorf("%s: it wrote something", row.method)
		}
	}
	if tried < 40 {
		t.Errorf("%d methods were tried", tried)
	}
	// What it may: replace its own credential, and no other.
	next := newKey(t, credential.P256)
	rotate := &sigilv1.RotateCredentialRequest{RequestId: "own", OrganizationId: inside, UserId: proto.String(x.made.GetDelegatedUserId()), CredentialId: x.robot.Public().ID(), Credential: shown(t, next, credential.ForDelegatedUser)}
	others := proto.Clone(rotate).(*sigilv1.RotateCredentialRequest)
	others.RequestId, others.UserId, others.CredentialId = "others", proto.String(x.made.GetEndUserId()), x.owner.Public().ID()
	_, err := a.app.WithStamps(inside, x.robot).Members().RotateCredential(t.Context(), others)
	wantReason(t, "the end user's credential", err, "QUORUM_MISSING")
	if _, err := a.app.WithStamps(inside, x.robot).Members().RotateCredential(t.Context(), rotate); err != nil {
		t.Errorf("its own credential: %v", err)
	}
}

// An id of another organization is NOT_FOUND, in the words of an id that nobody has.
func TestForeignIDsAreNotFoundEverywhere(t *testing.T) {
	a := newAppliance(t)
	org, root := a.parent(t, "acme")
	other, otherRoot := a.parent(t, "globex")
	theirs, mine := a.tenant(t, org, "one", root), a.tenant(t, other, "two", otherRoot)
	inside := mine.made.GetOrganizationId()
	for _, k := range []*credential.PrivateKey{mine.owner, mine.robot} {
		if err := a.parts.Delegation.NoteUse(t.Context(), inside, k.Public(), 0); err != nil {
			t.Fatal(err)
		}
	}
	tried, found, api := 0, 0, methods(t)
	for i, row := range table {
		d := api[row.method].Input()
		m := theirs.filled(t, d, fmt.Sprint("f", i))
		foreign := false
		for j := range d.Fields().Len() {
			name := string(d.Fields().Get(j).Name())
			foreign = foreign || theirs.ids[name] != "" && name != "organization_id" && theirs.ids[name] != mine.ids[name]
		}
		field := d.Fields().ByName("organization_id")
		if row.by != byStamps || !foreign || field == nil {
			continue
		}
		tried++
		before := a.vault.Info()
		wantReason(t, row.method+" for the other organization", a.try(t, row, theirs.made.GetOrganizationId(), marshal(t, m), mine.owner), "STAMP_INVALID")
		m.Set(field, protoreflect.ValueOfString(inside))
		if both := d.Fields().ByName("delegation_id"); strings.HasPrefix(row.method, "/sigil.v1.ControlService/") && both != nil {
			m.Clear(both) // a pause is of a wallet or of a delegation
		}
		err := a.try(t, row, inside, marshal(t, m), mine.owner)
		reason, method := client.Reason(err), row.method[strings.LastIndex(row.method, "/")+1:]
		switch {
		case reason == "NOT_FOUND":
			found++
		case (method == "ListDelegations" || method == "ListCeremonies") && err == nil: // a filter that nothing fits
		case err == nil || reason != "REQUEST_INVALID": // a form that a filled message can't have is refused before any id is looked up
			t.Errorf("%s with another organization's ids: got %q (%v), want NOT_FOUND", row.method, reason, err)
		}
		if reason != "NOT_FOUND" {
			continue
		}
		unknown := &tenant{robot: theirs.robot, ids: map[string]string{}}
		for name := range theirs.ids {
			unknown.ids[name] = "nobodys"
		}
		n := unknown.filled(t, d, fmt.Sprint("u", i))
		n.Set(field, protoreflect.ValueOfString(inside))
		for j := range d.Fields().Len() {
			if f := d.Fields().Get(j); !m.Has(f) {
				n.Clear(f)
			}
		}
		if nobody := a.try(t, row, inside, marshal(t, n), mine.owner); nobody == nil || nobody.Error() != err.Error() {
			t.Errorf("%s: another's is %v, nobody's is %v", row.method, err, nobody)
		}
		if after := a.vault.Info(); after != before {
			t.Errorf("%s: it wrote something", row.method)
		}
	}
	if tried < 25 || found < 18 {
		t.Errorf("%d methods were tried, %d said NOT_FOUND", tried, found)
	}
}
