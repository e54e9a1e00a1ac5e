package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	chainsolana "github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// A delegation that is made at a provider's appliance, delivered to a developer's over
// HTTPS, and signed with by both, over a link. The developer's programs call the
// developer's appliance; each side judges by its own rules.

// withPreParams puts pre-parameters into an appliance that does not run, so that its
// next ceremonies over secp256k1 need not wait for primes.
func (p place) withPreParams(t testing.TB, which ...int) {
	t.Helper()
	made, err := makeTemplate()
	if err != nil {
		t.Fatal(err)
	}
	token, err := hsm.Open(t.Context(), hsm.Config{
		Module: made.token.Module, TokenLabel: made.token.Label, PINFile: p.path("token/pin"),
		LatchFile: p.path("latch"), EnvAllow: []string{"SOFTHSM2_CONF=" + p.path("token/softhsm2.conf")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	text, err := os.ReadFile(p.path("store.pin"))
	if err != nil {
		t.Fatal(err)
	}
	pin, err := vault.ParsePin(text)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), vault.Config{Dir: p.path("state")}, pin)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Unseal(t.Context(), map[string]seal.Sealer{token.ID(): token}); err != nil {
		t.Fatal(err)
	}
	store, err := delegation.NewPreParamStore(t.Context(), v)
	for _, i := range which {
		if err == nil {
			err = store.Put(t.Context(), mpctest.EncodedPreParams(t, i))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a provider and a developer that know each other.
type pair struct {
	t                   *testing.T
	provider, developer *side
	endpoint            string
}

// newPair makes two appliances with stores of their own: the developer calls over a link,
// the provider on the developer's own socket.
func newPair(t *testing.T, section string, prepare func(provider, developer place)) *pair {
	t.Helper()
	a, b := newPlace(t), otherPlace(t)
	prepare(a, b)
	pinA, pinB := a.pinOf(t), b.pinOf(t)
	a.withPeers(t, section+fmt.Sprintf("  appliances:\n    - {name: developer, pin: %q, socket: %s}\n", pinB, b.path("peer.sock")))
	b.withPeers(t, section+fmt.Sprintf("  appliances:\n    - {name: provider, pin: %q, socket: %s}\n", pinA, linkTo(t, b, a)))
	p := &pair{t: t, provider: sideAt(t, a), developer: sideAt(t, b)}
	p.endpoint, _, _ = connect(t, p.provider, p.developer, "--peer", "developer")
	return p
}

// delivered waits until a delegation of the provider's has arrived, and returns the delivery.
func (p *pair) delivered(delegation, status string) (id string) {
	p.t.Helper()
	line := regexp.MustCompile(`(?m)^(vdl_\S+)\s+` + status + `\b`)
	err := poll(time.Minute, func(ctx context.Context) error {
		out, err := p.developer.root.Deliveries().ListDeliveries(ctx, &sigilv1.ListDeliveriesRequest{OrganizationId: p.developer.bot.Organization})
		if err != nil {
			return err
		}
		for _, d := range out.GetDeliveries() {
			if d.GetVendorShareSetId() == delegation {
				id = d.GetDeliveryId()
			}
		}
		if id == "" {
			return fmt.Errorf("delegation %s was not delivered: %v", delegation, out.GetDeliveries())
		}
		list, err := p.developer.sigilctl("delivery", "list", "--organization", p.developer.bot.Organization, "--key", "treasurer.key")
		if m := line.FindStringSubmatch(list); err == nil && (m == nil || m[1] != id) {
			err = fmt.Errorf("%s is not %s in\n%s", id, status, list)
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

// bound is a delegation at the developer's.
type bound struct {
	delegation, wallet string
	key                []byte
}

// bind binds a delivery under rules, with the peer named.
func (p *pair) bind(delivery, chain, address, rules string, more ...string) (bound, error) {
	p.t.Helper()
	d := p.developer
	d.write("bind.json", rules)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := d.sigilctl(append([]string{"delivery", "bind", delivery, "--chain", chain, "--address", address, "--name", "theirs", "--user", d.bot.User,
		"--recipient", identity.Recipient().String(), "--rules", "bind.json", "--organization", d.bot.Organization, "--key", "treasurer.key"}, more...)...)
	if err != nil {
		return bound{}, err
	}
	b := bound{delegation: field(p.t, out, "delegation"), wallet: field(p.t, out, "wallet")}
	d.ctl("delegation", "api-key", b.delegation, "--out", b.delegation+".age")
	f, err := os.Open(d.path(b.delegation + ".age"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	r, err := age.Decrypt(f, identity)
	if err != nil {
		p.t.Fatal(err)
	}
	b.key, err = io.ReadAll(r)
	return b, err
}

// sign asks the developer's appliance.
func (p *pair) sign(b bound, r *sigilv1.SignRequest) (*sigilv1.SignResponse, error) {
	r.WalletId = b.wallet
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	return p.developer.root.WithAPIKey(b.key).Signing().Sign(ctx, r)
}

// pay asks for a transfer of so many lamports and checks what comes back.
func (p *pair) pay(b bound, id string, lamports uint64) error {
	message := transfer([32]byte(p.provider.bot.From), lamports)
	out, err := p.sign(b, &sigilv1.SignRequest{RequestId: id, Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: message}})
	if err == nil && !ed25519.Verify(p.provider.bot.From, message, out.GetSignature()) {
		err = fmt.Errorf("%s: the signature does not verify", id)
	}
	return err
}

func (p *pair) wantRefused(what string, err error, reason, says string) {
	p.t.Helper()
	if client.Reason(err) != reason || !strings.Contains(err.Error(), says) {
		p.t.Errorf("%s: %v %v, want %s with %q", what, err, client.Details(err), reason, says)
	}
}

// wantNoBinding sees what sigilctl says of a binding that is refused.
func (p *pair) wantNoBinding(what, says, delivery, chain, address string, more ...string) {
	p.t.Helper()
	if _, err := p.bind(delivery, chain, address, smallPayouts, more...); err == nil || !strings.Contains(err.Error(), says) {
		p.t.Errorf("%s: %v, want %q", what, err, says)
	}
}

const developersRules = `{"policies":[{"id":"p","name":"payouts","effect":"EFFECT_ALLOW","condition":"solana.tx.transfers.all(t, t.amount <= 500)"}],
	"limits":[{"id":"l","name":"in all","asset":"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp/slip44:501","max":"1500"}]}`

// Provider and developer each have their rules, both hold; each ends the delegation
// alone; and nothing hangs when one of them is away.
func TestDeliveredShareIsSignedWithByBoth(t *testing.T) {
	becomeScratch(t)
	p := newPair(t, "", func(_, _ place) {})
	provider, developer := p.provider, p.developer
	address := chainsolana.Address([32]byte(provider.bot.From))
	theirs := provider.delegate("first", p.endpoint)
	delivery := p.delivered(theirs, "pending")
	p.wantNoBinding("no peer named", "name the peer", delivery, solana, address)
	p.wantNoBinding("an unknown peer", "no peer", delivery, solana, address, "--peer", "nobody")
	p.wantNoBinding("another address", "another address", delivery, solana, chainsolana.Address([32]byte(developer.bot.From)), "--peer", "provider")
	b, err := p.bind(delivery, solana, address, developersRules, "--peer", "provider")
	if err != nil {
		t.Fatal(err)
	}
	signs := func(id string, lamports uint64) {
		t.Helper()
		if err := p.pay(b, id, lamports); err != nil {
			t.Fatalf("%s: %v %v\nprovider: %s\ndeveloper: %s", id, err, client.Details(err), provider.daemon.log, developer.daemon.log)
		}
	}
	signs("both-allow", 400)
	p.delivered(theirs, "bound, has signed")
	signs("both-allow", 400) // the stored answer
	p.wantRefused("the developer's rules", p.pay(b, "too-much", 501), "POLICY_DENIED", "no policy allows it")

	// The provider's programs have no share to sign with.
	if out := provider.ctl("delegation", "show", theirs); !strings.Contains(out, "1 signed, 0 not") {
		t.Errorf("the provider shows\n%s", out)
	}

	// The provider pauses and resumes.
	provider.ctl("delegation", "pause", theirs, "--reason", "a look")
	p.wantRefused("paused at the provider's", p.pay(b, "paused", 5), "POLICY_DENIED", "PAUSED")
	provider.ctl("delegation", "resume", theirs)
	signs("resumed", 5)

	// Several programs at once.
	var programs sync.WaitGroup
	for i := range 8 {
		programs.Go(func() {
			if err := p.pay(b, fmt.Sprint("at-once-", i), 1); err != nil {
				t.Errorf("one of several: %v %v", err, client.Details(err))
			}
		})
	}
	programs.Wait()

	// Either of them dies and comes back.
	provider.kill()
	p.wantRefused("the provider is away", p.pay(b, "away", 5), "CEREMONY_FAILED", "")
	provider.daemon = startFor(t, provider.place)
	signs("away", 5)
	developer.restart()
	signs("after-a-restart", 5)

	// The provider ends it; the developer's side hears of it when it is back.
	developer.kill()
	provider.ctl("delegation", "revoke", theirs)
	provider.kill()
	developer.daemon = startFor(t, developer.place)
	p.wantRefused("revoked there, unheard of here", p.pay(b, "unheard", 5), "CEREMONY_FAILED", "")
	provider.daemon = startFor(t, provider.place)
	err = poll(time.Minute, func(context.Context) error {
		if reason := client.Reason(p.pay(b, "ended", 5)); reason != "API_KEY_INVALID" {
			provider.ctl("endpoint", "redeliver", p.endpoint)
			return fmt.Errorf("after the revocation: %s", reason)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	p.delivered(theirs, "revoked")

	// Another delegation; the developer ends that one.
	again := provider.delegate("second", p.endpoint)
	delivery = p.delivered(again, "pending")
	if b, err = p.bind(delivery, solana, address, developersRules, "--peer", "provider"); err != nil {
		t.Fatal(err)
	}
	signs("second", 400)
	developer.ctl("delegation", "revoke", b.delegation)
	p.wantRefused("revoked here", p.pay(b, "over", 5), "API_KEY_INVALID", "")
	for _, s := range []*side{provider, developer} {
		if err := s.daemon.stop(); err != nil {
			t.Error(err)
		}
		s.mustCtl(t, "audit", "verify")
	}
}

// The same over secp256k1, which both configurations have to allow; then a delegation of
// the same wallet with a co-signer, whose share is made there, by sigilctl.
func TestTwoAppliancesSignForAnEVMWallet(t *testing.T) {
	becomeScratch(t)
	var wallet, address string
	p := newPair(t, "  semi_trusted: true\n", func(provider, _ place) {
		wallet, address = provider.etherWallet(t, mustBot(t, provider))
		provider.withPreParams(t, 0, 1)
	})
	provider := p.provider
	theirs := field(t, provider.mustCtl(t, "delegation", "create", "--organization", provider.bot.Organization, "--wallet", wallet, "--user", provider.bot.User,
		"--endpoint", p.endpoint, "--rules", provider.ether(t), "--key", "owner.key"), "delegation")
	delivery := p.delivered(theirs, "pending")
	b, err := p.bind(delivery, "eip155", address, etherRules, "--peer", "provider")
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.sign(b, &sigilv1.SignRequest{RequestId: "ether", Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: sendEther(t, 0, 7)}})
	if err != nil {
		t.Fatalf("%v %v\nprovider: %s\ndeveloper: %s", err, client.Details(err), provider.daemon.log, p.developer.daemon.log)
	}
	wantFrom(t, out.GetSignedTransaction(), address)
	_, err = p.sign(b, &sigilv1.SignRequest{RequestId: "more", Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: sendEther(t, 1, 1001)}})
	p.wantRefused("more than the rules allow", err, "POLICY_DENIED", "")

	// The co-signer is called on its own socket, without a relay.
	developer := p.developer
	for s, which := range map[*side]int{provider: 0, developer: 1} {
		if err := s.daemon.stop(); err != nil {
			t.Fatal(err)
		}
		s.withPreParams(t, which)
		s.daemon = startFor(t, s.place)
	}
	developer.write("policy.json", etherRules)
	developer.ctl("policy", "set", "rules/main=policy.json", "--expected-version", "0")
	invitation := field(t, developer.ctl("cosign", "accept", "--owner", developer.bot.Owner, "--peer", "provider", "--chain", "eip155", "--address", address, "--name", "theirs too"), "invitation")
	create := []string{"delegation", "create", "--organization", provider.bot.Organization, "--wallet", wallet, "--user", provider.bot.User,
		"--recipient", provider.bot.Recipient, "--rules", "ether.json", "--key", "owner.key"}
	if _, err := provider.sigilctl(append(create, "--cosigner", "developer")...); err == nil || !strings.Contains(err.Error(), "invitation") {
		t.Errorf("a co-signer without its invitation: %v", err)
	}
	out2 := provider.mustCtl(t, append(create, "--cosigner", "developer", "--invitation", invitation, "--wait")...)
	if !strings.Contains(out2, "issue done") {
		t.Fatalf("delegation create says\n%s", out2)
	}
	key := provider.apiKey(t, field(t, out2, "delegation"))
	answer, err := provider.root.WithAPIKey(key).Signing().Sign(t.Context(), &sigilv1.SignRequest{RequestId: "cosigned", WalletId: wallet,
		Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: sendEther(t, 2, 7)}})
	if err != nil {
		t.Fatalf("%v %v\nprovider: %s\ndeveloper: %s", err, client.Details(err), provider.daemon.log, developer.daemon.log)
	}
	wantFrom(t, answer.GetSignedTransaction(), address)
}

const etherRules = `{"policies":[{"id":"p","name":"ether","effect":"EFFECT_ALLOW","condition":"eth.tx.value <= 1000 && eth.tx.data == '0x' && eth.tx.chain_id == 1"}]}`

func (p place) ether(t *testing.T) string {
	t.Helper()
	if err := os.WriteFile(p.path("ether.json"), []byte(etherRules), 0o600); err != nil {
		t.Fatal(err)
	}
	return "ether.json"
}

// etherWallet makes a wallet over secp256k1 whose owner has confirmed the share, in a
// place that does not run.
func (p place) etherWallet(t testing.TB, b bot) (wallet, address string) {
	t.Helper()
	p.withPreParams(t, 0, 1, 2)
	d := startFor(t, p)
	made, err := p.sigilctl("wallet", "create", "--organization", b.Organization, "--owner", b.Owner, "--chain", "eip155", "--name", "ether", "--wait", "--key", "treasurer.key")
	if err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	wallet = field(t, made, "wallet")
	p.must(t, b, "wallet share", "--wallet", wallet, "--key", "owner.key", "--out", "ether.age")
	address = field(t, p.must(t, b, "wallet show", "--wallet", wallet, "--key", "owner.key"), "address")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	return wallet, address
}

// apiKey opens the wallet API key of a delegation to the bot's recipient.
func (s *side) apiKey(t *testing.T, delegation string) []byte {
	t.Helper()
	shown, err := s.owner.Delegations().GetDelegation(t.Context(), &sigilv1.GetDelegationRequest{OrganizationId: s.bot.Organization, DelegationId: delegation})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.path("owner.age"))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return openFile(t, shown.GetEncryptedApiKey(), ids[0])
}

// kill ends a side's daemon at once.
func (s *side) kill() {
	_ = s.daemon.cmd.Process.Kill()
	_ = s.daemon.cmd.Wait()
}

// wantFrom insists on whom go-ethereum reads as the sender.
func wantFrom(t *testing.T, signed []byte, address string) {
	t.Helper()
	var tx types.Transaction
	if err := tx.UnmarshalBinary(signed); err != nil {
		t.Fatal(err)
	}
	from, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), &tx)
	if err != nil || from != common.HexToAddress(address) {
		t.Errorf("go-ethereum reads sender %s, %v; want %s", from, err, address)
	}
}
