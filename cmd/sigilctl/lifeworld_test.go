package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	sol "github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation/model"
	"github.com/sigild/sigild/internal/testvendor"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
)

// lifeWorld is a real daemon for one life of the model (package delegation/model): its
// sockets, its token, the real threshold engines, and a unit that runs a vendor's
// program. A kill is SIGKILL, at any moment of an act; the same is asked again after it.
type lifeWorld struct {
	place
	*lifeNature
	daemon *daemon
	client *client.Client
	// chance draws the moments of kills.
	chance *rand.Rand

	made        int
	delegations []lifeDelegation
	wallets     []string
	stop        string // the policy that denies, once made
	signatures  map[int][]byte
	bodies      map[string][]byte
}

// lifeDelegation is one that was made, and its API key once it was active.
type lifeDelegation struct {
	id  string
	key []byte
}

func (w *lifeWorld) begin() (err error) {
	if w.daemon, err = w.start(); err != nil {
		return err
	}
	w.client, err = client.Dial(w.path("app.sock"))
	return err
}

// kill ends the daemon with SIGKILL and starts it again.
func (w *lifeWorld) kill() error {
	_ = w.daemon.cmd.Process.Kill() // it may be dead already
	var exit *exec.ExitError
	if err := w.daemon.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return errors.Join(w.client.Close(), w.begin())
}

// Do implements model.World.
func (w *lifeWorld) Do(a model.Act) (out model.Answer, err error) {
	w.made++
	id := fmt.Sprint("act-", w.made)
	// Ceremonies that are killed have tests of their own (make campaign-mpc), as has what
	// a vendor's program did before a kill.
	repeatable := a.Verb == model.Revoke || a.Verb == model.Pause || a.Verb == model.Resume || a.Verb == model.Deliver || a.Verb == model.Bind ||
		a.Verb == model.Sign && a.Wallet < model.OwnWallets
	var made *string
	if a.Cut > 0 && repeatable {
		done := make(chan error, 1)
		go func() { _, _, err := w.act(a, id); done <- err }()
		time.Sleep(time.Duration(w.chance.IntN(8)) * time.Millisecond)
		_ = w.daemon.cmd.Process.Kill()
		<-done // whatever it was
		if err := w.kill(); err != nil {
			return out, err
		}
		out.Repeated = true
	}
	out.Outcome, made, err = w.act(a, id)
	if r := client.Reason(err); r != "" {
		out.Refused, err = refusal.Reason(r), nil
	}
	if err != nil {
		return out, fmt.Errorf("no refusal: %w\n%s", err, w.daemon.log)
	}
	if out.Refused == "" && made != nil {
		w.delegations = append(w.delegations, lifeDelegation{id: *made})
	}
	if err := w.learn(); err != nil {
		return out, err
	}
	switch {
	case a.Verb == model.Restart && !a.On:
		if err := errors.Join(w.daemon.stop(), w.client.Close()); err != nil {
			return out, err
		}
		return out, w.begin()
	case a.Verb == model.Restart, a.Cut > 0 && !repeatable:
		return out, w.kill()
	}
	return out, nil
}

// learn waits until no ceremony runs, and takes the keys of delegations that have
// become active.
func (w *lifeWorld) learn() error {
	for i, d := range w.delegations {
		if d.key != nil {
			continue
		}
		shown, err := w.settled(d.id)
		if err != nil {
			return err
		}
		if wallet := shown.GetDelegation().GetWalletId(); !slices.Contains(w.wallets, wallet) {
			w.wallets = append(w.wallets, wallet)
		}
		if len(shown.GetEncryptedApiKey()) > 0 {
			if w.delegations[i].key, err = w.opened(shown.GetEncryptedApiKey()); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled shows a delegation, proposed and waiting for its owner, or no longer pending.
func (w *lifeWorld) settled(id string) (out *sigilv1.GetDelegationResponse, err error) {
	err = poll(2*time.Minute, func(ctx context.Context) error {
		if out, err = w.as(model.Rhea).Delegations().GetDelegation(ctx, &sigilv1.GetDelegationRequest{OrganizationId: w.organization, DelegationId: id}); err != nil {
			return err
		}
		if out.GetDelegation().GetStatus() != sigilv1.DelegationStatus_DELEGATION_STATUS_PENDING {
			return nil
		}
		list, err := w.as(model.Rhea).DelegatedAccess().ListDelegations(ctx, &sigilv1.ListDelegationsRequest{OrganizationId: w.organization, AwaitingApproval: true})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list.GetDelegations(), func(d *sigilv1.DelegationSummary) bool { return d.GetDelegationId() == id }) {
			return errors.New("its ceremony runs")
		}
		return nil
	})
	return out, err
}

// as stamps as people of the organization.
func (w *lifeWorld) as(people ...model.Person) *client.Client {
	return w.client.WithStamps(w.organization, w.signers(people)...)
}

func (w *lifeWorld) signers(people []model.Person) (list []credential.Signer) {
	for _, p := range people {
		list = append(list, w.people[p])
	}
	return list
}

// act performs one act over the socket; made is the delegation that came of it.
func (w *lifeWorld) act(a model.Act, id string) (outcome string, made *string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	org := w.organization
	stamped := org
	switch {
	case a.Foreign:
		stamped = "org_" + strings.Repeat("a", 26)
	case a.Above():
		stamped = ""
	}
	c := w.client.WithStamps(stamped, w.signers(a.By.People())...)
	var ends *timestamppb.Timestamp
	if !a.Ends.IsZero() {
		ends = timestamppb.New(a.Ends)
	}
	user := ""
	if a.User < len(w.bots) {
		user = w.bots[a.User]
	}
	delegation := ""
	if a.Delegation >= 0 && a.Delegation < len(w.delegations) {
		delegation = w.delegations[a.Delegation].id
	}
	condition := "solana.tx.transfers.all(t, t.amount <= 500)"
	policies := []*sigilv1.Policy{{Name: "payouts", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition}}
	limits := []*sigilv1.Limit{{Name: "in all", Asset: cluster + "/slip44:501", MaxAmount: "1000"}}
	recipient := w.recipient.Recipient().String()
	switch a.Verb {
	case model.Enable:
		_, err = c.DelegatedAccess().SetDelegatedAccess(ctx, &sigilv1.SetDelegatedAccessRequest{RequestId: id, OrganizationId: org, Access: &sigilv1.DelegatedAccess{Enabled: a.On, DelegatedUserId: &w.bots[0]}})
	case model.Propose:
		out, e := c.DelegatedAccess().RequestDelegation(ctx, &sigilv1.RequestDelegationRequest{
			RequestId: id, OrganizationId: org, WalletId: w.wallets[a.Wallet], DelegatedUserId: &user, ApiKeyRecipient: &recipient, ExpiresAt: ends, Policies: policies, Limits: limits,
		})
		if err = e; e == nil {
			made = &out.DelegationId
		}
	case model.Create:
		out, e := c.Delegations().CreateDelegation(ctx, &sigilv1.CreateDelegationRequest{
			RequestId: id, OrganizationId: org, WalletId: w.wallets[a.Wallet], DelegatedUserId: user, ApiKeyRecipient: recipient, ExpiresAt: ends, Policies: policies, Limits: limits,
		})
		if err = e; e == nil {
			made = &out.DelegationId
		}
	case model.Approve:
		shown, e := w.as(model.Rhea).DelegatedAccess().DescribeDelegation(ctx, &sigilv1.DescribeDelegationRequest{OrganizationId: org, DelegationId: delegation})
		if e != nil {
			return "", nil, fmt.Errorf("describing: %v", e)
		}
		terms := shown.GetTerms()
		if a.Wrong {
			terms = append(terms, ' ')
		}
		sum := sha256.Sum256(terms)
		_, err = c.DelegatedAccess().ApproveDelegation(ctx, &sigilv1.ApproveDelegationRequest{RequestId: id, OrganizationId: org, DelegationId: delegation, TermsSha256: sum[:]})
	case model.Revoke:
		_, err = c.Delegations().RevokeDelegation(ctx, &sigilv1.RevokeDelegationRequest{RequestId: id, OrganizationId: org, DelegationId: delegation})
	case model.Pause:
		r := &sigilv1.PauseRequest{RequestId: id, Reason: "hold"}
		r.OrganizationId, r.WalletId, r.DelegationId = w.scope(a)
		_, err = c.Control().Pause(ctx, r)
	case model.Resume:
		r := &sigilv1.ResumeRequest{RequestId: id}
		r.OrganizationId, r.WalletId, r.DelegationId = w.scope(a)
		_, err = c.Control().Resume(ctx, r)
	case model.Deliver:
		out, e := w.client.Deliveries().IngestDelivery(ctx, w.received(a))
		if err = e; e == nil {
			outcome = strings.TrimPrefix(out.GetOutcome().String(), "DELIVERY_OUTCOME_")
		}
	case model.Bind:
		delivery, e := w.deliveryOf(ctx, a.Event)
		if e != nil {
			return "", nil, e
		}
		address := w.vendorAddress(a.Event.Vendor)
		if a.Wrong {
			address = w.vendorAddress(a.Event.Vendor + 1)
		}
		out, e := c.Vendors().BindDelivery(ctx, &sigilv1.BindDeliveryRequest{
			RequestId: id, OrganizationId: org, DeliveryId: delivery, Chain: cluster, Address: address, Name: "theirs",
			DelegatedUserId: user, ApiKeyRecipient: recipient, ExpiresAt: ends, Policies: policies, Limits: limits,
		})
		if err = e; e == nil {
			made = &out.DelegationId
		}
	case model.Sign:
		err = w.sign(ctx, a)
	case model.SignStamped:
		public, e := w.publicOf(ctx, w.wallets[a.Wallet])
		if e != nil {
			return "", nil, e
		}
		_, err = c.Signing().Sign(ctx, &sigilv1.SignRequest{RequestId: id, OrganizationId: &org, WalletId: w.wallets[a.Wallet], Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: transfer([32]byte(public), 1)}})
	case model.Deny:
		err = w.deny(ctx, c, a, id)
	case model.RemoveUser:
		_, err = c.Members().RemoveUser(ctx, &sigilv1.RemoveUserRequest{RequestId: id, OrganizationId: org, UserId: user})
	case model.EndCredential:
		_, err = c.Members().RevokeCredential(ctx, &sigilv1.RevokeCredentialRequest{RequestId: id, OrganizationId: org, UserId: w.owner, CredentialId: w.people[model.DanaSecond].Public().ID()})
	case model.DropRoot:
		stay := []string{w.people[model.Rhea].Public().ID(), w.people[model.Rolf].Public().ID()}
		_, err = c.Members().SetRootQuorum(ctx, &sigilv1.SetRootQuorumRequest{RequestId: id, OrganizationId: org, CredentialIds: stay, RootQuorum: 2})
	case model.Meddle:
		err = w.meddle(ctx, c, id)
	}
	return outcome, made, err
}

func (w *lifeWorld) scope(a model.Act) (org, wallet, delegation *string) {
	switch a.Scope {
	case model.OfOrganization:
		return &w.organization, nil, nil
	case model.OfWallet:
		return &w.organization, &w.wallets[a.Wallet], nil
	case model.OfDelegation:
		return &w.organization, nil, &w.delegations[a.Delegation].id
	}
	return nil, nil, nil
}

func (w *lifeWorld) deny(ctx context.Context, c *client.Client, a model.Act, id string) error {
	condition, lang := "solana.tx.transfers.count() >= 0", "sigild"
	if a.On {
		out, err := c.DelegatedUsers().FetchOrCreatePolicies(ctx, &sigilv1.FetchOrCreatePoliciesRequest{RequestId: id, OrganizationId: w.organization, Policies: []*sigilv1.PolicyIntent{{
			Policy: &sigilv1.Policy{Name: "stop", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_DENY, Condition: &condition}, Lang: &lang,
		}}})
		if err == nil {
			w.stop = out.GetPolicies()[0].GetPolicyId()
		}
		return err
	}
	stop := w.stop
	if stop == "" {
		stop = "pol_" + strings.Repeat("a", 26)
	}
	_, err := c.DelegatedUsers().ReportOrderFilled(ctx, &sigilv1.ReportOrderFilledRequest{RequestId: id, OrganizationId: w.organization, PolicyIds: []string{stop}})
	return err
}

// meddle is one of the acts by which a delegated user would be more than that.
func (w *lifeWorld) meddle(ctx context.Context, c *client.Client, id string) (err error) {
	condition := "solana.tx.transfers.count() >= 0"
	switch w.made % 4 {
	case 0:
		_, err = c.Keys().RotateKey(ctx, &sigilv1.RotateKeyRequest{RequestId: id, OrganizationId: w.organization, WalletId: w.wallets[0]})
	case 1:
		_, err = c.Members().SetRootQuorum(ctx, &sigilv1.SetRootQuorumRequest{RequestId: id, OrganizationId: w.organization, UserIds: []string{w.bots[0]}, RootQuorum: 1})
	case 2:
		_, err = c.Members().SetTags(ctx, &sigilv1.SetTagsRequest{RequestId: id, OrganizationId: w.organization, UserId: w.bots[0], Tags: []string{"treasury"}})
	case 3:
		_, err = c.DelegatedUsers().FetchOrCreatePolicies(ctx, &sigilv1.FetchOrCreatePoliciesRequest{RequestId: id, OrganizationId: w.organization, Policies: []*sigilv1.PolicyIntent{{
			Policy: &sigilv1.Policy{Name: "all", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition},
		}}})
	}
	return err
}

func (w *lifeWorld) publicOf(ctx context.Context, wallet string) (ed25519.PublicKey, error) {
	out, err := w.as(model.Rhea).Wallets().GetWallet(ctx, &sigilv1.GetWalletRequest{OrganizationId: w.organization, WalletId: wallet})
	if err != nil {
		return nil, fmt.Errorf("looking at wallet %s: %v", wallet, err)
	}
	key, err := sol.ParseAddress(out.GetWallet().GetAddress())
	return key[:], err
}

// sign asks for a signature and verifies it with the standard library.
func (w *lifeWorld) sign(ctx context.Context, a model.Act) error {
	public, err := w.publicOf(ctx, w.wallets[a.Wallet])
	if err != nil {
		return err
	}
	key := bytes.Clone(w.delegations[a.Delegation].key)
	if key == nil {
		key = []byte("sgk_" + strings.Repeat("a", 26) + "_" + strings.Repeat("A", 43))
	}
	if a.Wrong {
		key[len(key)-2] = "AB"[key[len(key)-2]&1]
		key[len(key)-3] = "CD"[key[len(key)-3]&1]
	}
	if a.Away {
		if err := os.Rename(w.path("helper.sock"), w.path("helper.away")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Rename(w.path("helper.away"), w.path("helper.sock"))) }()
	}
	message := transfer([32]byte(public), a.Request.Lamports)
	binary.BigEndian.PutUint32(message[5+3*32+4:], uint32(a.Request.ID)) // in the blockhash: each request has a message of its own
	out, err := w.client.WithAPIKey(key).Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: fmt.Sprint("sign-", a.Request.ID), WalletId: w.wallets[a.Wallet], Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: message},
	})
	if err != nil {
		return err
	}
	if before := w.signatures[a.Request.ID]; before != nil && !bytes.Equal(before, out.GetSignature()) {
		return fmt.Errorf("request %d was answered with two signatures", a.Request.ID)
	}
	w.signatures[a.Request.ID] = out.GetSignature()
	if !ed25519.Verify(public, message, out.GetSignature()) {
		return errors.New("the signature does not verify")
	}
	return nil
}

func (w *lifeWorld) list(ctx context.Context) ([]*sigilv1.Delivery, error) {
	out, err := w.as(model.Rhea).Deliveries().ListDeliveries(ctx, &sigilv1.ListDeliveriesRequest{OrganizationId: w.organization})
	if err != nil {
		return nil, fmt.Errorf("listing deliveries: %v", err)
	}
	return out.GetDeliveries(), nil
}

func (w *lifeWorld) deliveryOf(ctx context.Context, e model.Event) (string, error) {
	all, err := w.list(ctx)
	for _, d := range all {
		if d.GetVendorUserId() == e.Name() {
			return d.GetDeliveryId(), err
		}
	}
	return "vdl_none", err
}

// received is a copy of an event as it comes over the network.
func (w *lifeWorld) received(a model.Act) *sigilv1.IngestDeliveryRequest {
	e, environment, at, key := a.Event, vendorEnvironment, a.Event.At, w.encrypt
	switch {
	case a.Damage == model.Elsewhere:
		environment = "another"
	case a.Damage == model.OtherKey:
		key = &w.stray.PublicKey
	case a.Damage == model.FarAhead && !e.Revoked:
		at = time.Now().Add(25 * time.Hour)
	}
	body := w.body(e, environment, at, key)
	if a.Damage == model.Twice {
		body = append(body[:len(body)-1], `,"eventId":"again"}`...)
	}
	if a.Damage == model.Oversized {
		body = append(body, bytes.Repeat([]byte(" "), 64<<10)...)
	}
	secret := vendorSecret
	if a.Damage == model.BadMAC {
		secret += "x"
	}
	mac := testvendor.MAC(secret, body)
	if a.Damage == model.ChangedByte {
		body[len(body)/2] ^= 1
	}
	return &sigilv1.IngestDeliveryRequest{WebhookId: w.webhook, Body: body, Signature: mac}
}

// body is the event's bytes, each time the same.
func (w *lifeWorld) body(e model.Event, environment string, at time.Time, key *rsa.PublicKey) []byte {
	id := fmt.Sprint(e, environment, at, key == w.encrypt)
	if b := w.bodies[id]; b != nil {
		return bytes.Clone(b)
	}
	wallet := fmt.Sprint("vendor-", e.Vendor)
	data := map[string]any{"walletId": wallet, "chain": "SVM", "userId": e.Name()}
	if e.Set != "" {
		data["shareSetId"] = e.Set
	}
	o := map[string]any{
		"eventName": "wallet.delegation.created", "eventId": e.Name(), "messageId": "message-" + e.Name(), "environmentId": environment,
		"timestamp": at.UTC().Format("2006-01-02T15:04:05.000Z"), "webhookId": "theirs", "userId": nil, "data": data,
	}
	if e.Revoked {
		o["eventName"] = "wallet.delegation.revoked"
	} else {
		mood := map[model.Mood]testvendor.Mood{model.Foreign: testvendor.Wrong, model.Dead: testvendor.Down}[e.Mood]
		share, err := testvendor.Share(w.vendor[e.Vendor].Shares(w.t, mpc.Delegate)[0])
		data["publicKey"] = w.vendorAddress(e.Vendor)
		var err1, err2 error
		data["encryptedDelegatedShare"], err1 = testvendor.Envelope(key, share)
		data["encryptedWalletApiKey"], err2 = testvendor.Envelope(w.encrypt, []byte(testvendor.APIKey(mood, e.Name())))
		if err := errors.Join(err, err1, err2); err != nil {
			panic(err)
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	w.bodies[id] = b
	return bytes.Clone(b)
}

// Look implements model.World.
func (w *lifeWorld) Look() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var lines []string
	for i, d := range w.delegations {
		shown, err := w.settled(d.id)
		if err != nil {
			return "", fmt.Errorf("looking at delegation %d: %v", i, err)
		}
		it := shown.GetDelegation()
		status := strings.ToLower(strings.TrimPrefix(it.GetStatus().String(), "DELEGATION_STATUS_"))
		lines = append(lines, fmt.Sprintf("delegation %d of wallet %d to user %d: %s", i, slices.Index(w.wallets, it.GetWalletId()), slices.Index(w.bots[:], it.GetDelegatedUserId()), status))
	}
	all, err := w.list(ctx)
	if err != nil {
		return "", err
	}
	var shown []string
	for _, d := range all {
		of := slices.IndexFunc(w.delegations, func(m lifeDelegation) bool { return m.id == d.GetDelegationId() })
		wallet := d.GetVendorWalletId()
		status := strings.ToLower(strings.TrimPrefix(d.GetStatus().String(), "DELIVERY_STATUS_"))
		shown = append(shown, model.ShowMaterial(int(wallet[len(wallet)-1]-'0'), d.GetVendorShareSetId(), d.GetVendorUserId(), status, of, d.GetProven(), d.GetBeside()))
	}
	slices.Sort(shown)
	return strings.Join(append(lines, shown...), "\n"), nil
}
