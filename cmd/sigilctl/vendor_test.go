package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains/evm"
	sol "github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/internal/testvendor"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// vendorPlace is an appliance with a webhook, a unit for the vendor's program, and
// the vendor on the other side.
type vendorPlace struct {
	place
	t        *testing.T
	bot      bot
	root     *client.Client
	recip    *age.X25519Identity
	webhook  string
	public   *rsa.PublicKey
	service  testvendor.Service
	set      mpctest.Set
	chain    string
	sequence int
}

const (
	vendorEnvironment = "53728749-1f19-4cab-becf-b88f952c3a3c"
	vendorSecret      = "whsec_0123456789abcdef"
)

func newVendorPlace(t *testing.T, chain string, set mpctest.Set) *vendorPlace {
	t.Helper()
	v := &vendorPlace{place: newPlace(t), t: t, set: set, chain: chain}
	var err error
	if v.bot, err = readBot(v.path("bot.json")); err != nil {
		t.Fatal(err)
	}
	v.service = testvendor.Service{Set: set.ShareSet, Server: set.Shares(t, mpc.Server)[0], APIKey: "dyn_1", Token: "dev_token"}
	v.behave(func(*testvendor.Service) {})
	program := filepath.Join(base, "bin", "vendor")
	v.write("helper.yaml", fmt.Sprintf("program: %s\nsha256: %x\nargs: [%s]\ntimeout: 10s\ncallers: [%d]\n",
		program, v.sum(program), v.path("vendor.json"), os.Geteuid()))
	text, err := os.ReadFile(v.path("sigild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	v.write("sigild.yaml", string(text)+fmt.Sprintf("vendor_helper: {socket: %s, timeout: 5s}\n", v.path("helper.sock")))
	unit := command(v.dir, "sigild", "helper", "--config", "helper.yaml", "--listen", "helper.sock")
	log := new(bytes.Buffer)
	unit.Stderr = log
	if err := startMortal(unit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unit.Process.Signal(syscall.SIGTERM)
		_ = unit.Wait()
		if strings.Contains(log.String(), "secretShare") || strings.Contains(log.String(), "dyn_") {
			t.Errorf("the unit's log holds a secret:\n%s", log)
		}
	})
	startFor(t, v.place)
	if v.recip, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	treasurer, err := credential.LoadKey(v.path("treasurer.key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(v.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	v.root = c.WithStamps(v.bot.Organization, treasurer)
	v.write("hook.secret", vendorSecret+"\n")
	v.write("dev.token", "dev_token\n")
	out := v.ctl("webhook", "register", "--organization", v.bot.Organization, "--environment", vendorEnvironment, "--secret-file", "hook.secret", "--key", "treasurer.key")
	v.webhook = strings.Fields(out)[1]
	block, _ := pem.Decode([]byte(out[strings.Index(out, "-----BEGIN"):]))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	v.public = public.(*rsa.PublicKey)
	v.ctl("webhook", "token", "--organization", v.bot.Organization, "--webhook", v.webhook, "--file", "dev.token", "--key", "treasurer.key")
	return v
}

func (v *vendorPlace) write(name, text string) {
	v.t.Helper()
	if err := os.WriteFile(v.path(name), []byte(text), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vendorPlace) sum(path string) [32]byte {
	v.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		v.t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func (v *vendorPlace) ctl(args ...string) string {
	v.t.Helper()
	out, err := v.sigilctl(args...)
	if err != nil {
		v.t.Fatal(err)
	}
	return out
}

// behave changes what the vendor's service does from now on.
func (v *vendorPlace) behave(change func(*testvendor.Service)) {
	v.t.Helper()
	change(&v.service)
	if err := v.service.Save(v.path("vendor.json")); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vendorPlace) address() string {
	if v.chain == "eip155" {
		a, err := evm.Address(v.set.PublicKey)
		if err != nil {
			v.t.Fatal(err)
		}
		return strings.ToLower(evm.Checksum(a)) // as the vendor writes it
	}
	return sol.Address([32]byte(v.set.PublicKey))
}

// envelope encrypts as the vendor does.
func (v *vendorPlace) envelope(plain []byte) map[string]any {
	v.t.Helper()
	e, err := testvendor.Envelope(v.public, plain)
	if err != nil {
		v.t.Fatal(err)
	}
	e["kid"] = "sigild_rsa_1"
	return e
}

// deliver has the vendor send an event, which must come to the outcome.
func (v *vendorPlace) deliver(event string, data map[string]any, want sigilv1.DeliveryOutcome) {
	v.t.Helper()
	v.sequence++
	data["walletId"], data["chain"] = "wallet-1", map[bool]string{true: "EVM", false: "SVM"}[v.chain == "eip155"]
	body, err := testvendor.Event(event, vendorEnvironment, v.sequence, data)
	if err != nil {
		v.t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // their timestamps count milliseconds
	out, err := v.root.Deliveries().IngestDelivery(v.t.Context(), &sigilv1.IngestDeliveryRequest{WebhookId: v.webhook, Body: body, Signature: testvendor.MAC(vendorSecret, body)})
	if err != nil || out.GetOutcome() != want {
		v.t.Fatalf("%s came to %v, %v; want %v", event, out, err, want)
	}
}

// share delivers a delegate's share with an API key.
func (v *vendorPlace) share(apiKey string, secret []byte) {
	v.t.Helper()
	plain, err := testvendor.Share(secret)
	if err != nil {
		v.t.Fatal(err)
	}
	v.deliver("wallet.delegation.created", map[string]any{
		"userId": "user-1", "publicKey": v.address(), "encryptedDelegatedShare": v.envelope(plain), "encryptedWalletApiKey": v.envelope([]byte(apiKey)),
	}, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED)
}

func (v *vendorPlace) deliveries() []*sigilv1.Delivery {
	v.t.Helper()
	out, err := v.root.Deliveries().ListDeliveries(v.t.Context(), &sigilv1.ListDeliveriesRequest{OrganizationId: v.bot.Organization})
	if err != nil {
		v.t.Fatal(err)
	}
	return out.GetDeliveries()
}

// bind binds the only pending delivery, and returns delegation, wallet and API key.
func (v *vendorPlace) bind(rules string) (delegation, wallet string, key []byte) {
	v.t.Helper()
	v.write("rules.json", rules)
	var id string
	for _, d := range v.deliveries() {
		if d.GetStatus() == sigilv1.DeliveryStatus_DELIVERY_STATUS_PENDING {
			id = d.GetDeliveryId()
		}
	}
	out := v.ctl("delivery", "bind", id, "--organization", v.bot.Organization, "--chain", v.chain, "--address", v.address(), "--name", "theirs",
		"--user", v.bot.User, "--recipient", v.recip.Recipient().String(), "--rules", "rules.json", "--key", "treasurer.key")
	fields := strings.Fields(out)
	shown, err := v.root.Delegations().GetDelegation(v.t.Context(), &sigilv1.GetDelegationRequest{OrganizationId: v.bot.Organization, DelegationId: fields[1]})
	if err != nil {
		v.t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(shown.GetEncryptedApiKey()), v.recip)
	if err != nil {
		v.t.Fatal(err)
	}
	if key, err = io.ReadAll(r); err != nil {
		v.t.Fatal(err)
	}
	return fields[1], fields[3], key
}

func (v *vendorPlace) pay(id, wallet string, key []byte, lamports uint64) (*sigilv1.SignResponse, error) {
	return v.root.WithAPIKey(key).Signing().Sign(v.t.Context(), &sigilv1.SignRequest{
		RequestId: id, WalletId: wallet, Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: transfer([32]byte(v.set.PublicKey), lamports)},
	})
}

func (v *vendorPlace) wantSigned(id, wallet string, key []byte) {
	v.t.Helper()
	answer, err := v.pay(id, wallet, key, 5)
	if err != nil {
		v.t.Fatalf("%s: %v %v", id, err, client.Details(err))
	}
	if !ed25519.Verify(ed25519.PublicKey(v.set.PublicKey), transfer([32]byte(v.set.PublicKey), 5), answer.GetSignature()) {
		v.t.Errorf("%s: the signature does not verify", id)
	}
}

const smallPayouts = `{"policies":[{"id":"p","name":"small","effect":"EFFECT_ALLOW","condition":"solana.tx.transfers.all(t, t.amount <= 500)"}],
	"limits":[{"id":"l","name":"in all","asset":"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp/slip44:501","max":"1000"}]}`

// A vendor's share lives its whole life: delivered, pending, bound, it signs under
// our policies; a newer one takes over once it has signed; its vendor ends it.
func TestVendorShareSigns(t *testing.T) {
	becomeScratch(t)
	set := mpctest.Ed25519DelegateSet(t)
	v := newVendorPlace(t, cluster, set)
	share := set.Shares(t, mpc.Delegate)[0]
	v.share("dyn_1", share)
	delegation, wallet, key := v.bind(smallPayouts)
	v.wantSigned("first", wallet, key)
	if d := v.deliveries(); len(d) != 1 || d[0].GetDelegationId() != delegation || !d[0].GetProven() {
		t.Errorf("after the first signature: %v", d)
	}
	if _, err := v.pay("much", wallet, key, 501); client.Reason(err) != "POLICY_DENIED" {
		t.Errorf("above the policy: %v", err)
	}
	// The vendor gives out another key and ends the first; ours hears of it from a delivery.
	v.share("dyn_2", share)
	if d := v.deliveries(); len(d) != 2 || !d[0].GetBeside() && !d[1].GetBeside() {
		t.Fatalf("with another one delivered: %v", d)
	}
	v.wantSigned("still-the-first", wallet, key)
	if d := v.deliveries(); len(d) != 2 {
		t.Fatalf("a delivery took over without having signed: %v", d)
	}
	v.behave(func(s *testvendor.Service) { s.APIKey = "dyn_2" })
	v.wantSigned("the-second", wallet, key)
	if d := v.deliveries(); len(d) != 1 || d[0].GetDelegationId() != delegation || d[0].GetBeside() {
		t.Fatalf("after the second has signed: %v", d)
	}
	v.wantSigned("the-second-again", wallet, key)
	// One that signs with nothing falls to the ground, and the bound one goes on.
	v.share("dyn_2", bytes.Repeat([]byte{1}, 40))
	v.wantSigned("beside-nonsense", wallet, key)
	// A run that hangs is ended with all that it started; the charge stands.
	v.behave(func(s *testvendor.Service) { s.Mood = testvendor.Hanging })
	if _, err := v.pay("hangs", wallet, key, 5); client.Reason(err) != "OUTCOME_UNKNOWN" {
		t.Errorf("a program that hangs: %v", err)
	}
	if err := poll(5*time.Second, func(context.Context) error { return noneLingers() }); err != nil {
		t.Error(err)
	}
	v.behave(func(s *testvendor.Service) { s.Mood = testvendor.Chatty })
	if _, err := v.pay("chatty", wallet, key, 5); client.Reason(err) != "OUTCOME_UNKNOWN" {
		t.Errorf("a program that talks too much: %v", err)
	}
	v.behave(func(s *testvendor.Service) { s.Mood = "" })
	v.wantSigned("hangs", wallet, key) // the same request, under the same charge
	out := v.ctl("delegation", "show", delegation, "--organization", v.bot.Organization, "--key", "treasurer.key")
	if !strings.Contains(out, "small: may sign when for each of the SOL transfers: its amount is at most 500") || !strings.Contains(out, "left of") {
		t.Errorf("it is shown as\n%s", out)
	}
	// The vendor's user takes it back.
	v.deliver("wallet.delegation.revoked", map[string]any{}, sigilv1.DeliveryOutcome_DELIVERY_OUTCOME_STORED)
	if _, err := v.pay("after", wallet, key, 5); client.Reason(err) != "API_KEY_INVALID" {
		t.Errorf("after the revocation: %v", err)
	}
	out = v.ctl("delegation", "show", delegation, "--organization", v.bot.Organization, "--key", "treasurer.key")
	if !strings.Contains(out, "revoked") {
		t.Errorf("after the revocation it is shown as\n%s", out)
	}
}

// What signs for another address is frozen; a local end outlives what is delivered
// later, until the organization binds that.
func TestVendorShareThatSignsWrongIsFrozen(t *testing.T) {
	becomeScratch(t)
	set := mpctest.Ed25519DelegateSet(t)
	v := newVendorPlace(t, cluster, set)
	v.share("dyn_1", set.Shares(t, mpc.Delegate)[0])
	delegation, wallet, key := v.bind(smallPayouts)
	v.behave(func(s *testvendor.Service) { s.Mood = testvendor.Wrong })
	if _, err := v.pay("wrong", wallet, key, 5); client.Reason(err) != "OUTCOME_UNKNOWN" {
		t.Errorf("a wrong signature: %v", err)
	}
	v.behave(func(s *testvendor.Service) { s.Mood = "" })
	if _, err := v.pay("next", wallet, key, 5); client.Reason(err) != "PAUSED" {
		t.Errorf("after it was frozen: %v", err)
	}
	if d := v.deliveries(); len(d) != 1 || d[0].GetStatus() != sigilv1.DeliveryStatus_DELIVERY_STATUS_FROZEN {
		t.Errorf("after it was frozen: %v", d)
	}
	v.ctl("delegation", "resume", delegation, "--organization", v.bot.Organization, "--key", "treasurer.key")
	if _, err := v.pay("resumed", wallet, key, 5); client.Reason(err) != "PAUSED" {
		t.Errorf("resumed with a frozen share: %v", err)
	}
	v.share("dyn_1", set.Shares(t, mpc.Delegate)[0])
	v.wantSigned("another-share", wallet, key)
	v.ctl("delegation", "revoke", delegation, "--organization", v.bot.Organization, "--key", "treasurer.key")
	v.share("dyn_1", set.Shares(t, mpc.Delegate)[0])
	if _, err := v.pay("after", wallet, key, 5); client.Reason(err) != "API_KEY_INVALID" {
		t.Errorf("after our own revocation: %v", err)
	}
	again, sameWallet, key := v.bind(smallPayouts)
	if again == delegation || sameWallet != wallet {
		t.Errorf("bound again as %s of %s, was %s of %s", again, sameWallet, delegation, wallet)
	}
	v.wantSigned("bound-again", wallet, key)
}

// An EVM wallet, of which only the address is known.
func TestVendorShareSignsForAnEVMAddress(t *testing.T) {
	becomeScratch(t)
	set := mpctest.ECDSADelegateSet(t)
	v := newVendorPlace(t, "eip155", set)
	v.share("dyn_1", set.Shares(t, mpc.Delegate)[0])
	_, wallet, key := v.bind(`{"policies":[{"id":"p","name":"texts","effect":"EFFECT_ALLOW","condition":"eth.message.text == 'hello'"}]}`)
	answer, err := v.root.WithAPIKey(key).Signing().Sign(t.Context(), &sigilv1.SignRequest{
		RequestId: "text", WalletId: wallet, Payload: &sigilv1.SignRequest_EvmMessage{EvmMessage: []byte("hello")},
	})
	if err != nil || len(answer.GetSignature()) != 65 {
		t.Fatalf("%v, %v %v", answer, err, client.Details(err))
	}
}

// A program that isn't the pinned one is not run.
func TestVendorProgramIsPinned(t *testing.T) {
	becomeScratch(t)
	set := mpctest.Ed25519DelegateSet(t)
	v := newVendorPlace(t, cluster, set)
	v.share("dyn_1", set.Shares(t, mpc.Delegate)[0])
	_, wallet, key := v.bind(smallPayouts)
	text, err := os.ReadFile(v.path("helper.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", v.sum(filepath.Join(base, "bin", "vendor")))
	v.write("helper.yaml", strings.Replace(string(text), sum, strings.Repeat("0", 64), 1))
	if _, err := v.pay("unpinned", wallet, key, 5); client.Reason(err) != "OUTCOME_UNKNOWN" {
		t.Errorf("another program: %v", err)
	}
	v.write("helper.yaml", string(text))
	v.wantSigned("unpinned", wallet, key)
}

// noneLingers looks for the vendor's hidden process.
func noneLingers() error {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && string(b) == "vendor\x00linger\x00" {
			return fmt.Errorf("%s lingers", path)
		}
	}
	return nil
}

// cluster is the CAIP-2 id of the bot's cluster; package solana has its name here.
const cluster = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
