package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	chainsolana "github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// Two daemons, each with a token, a store and an organization of its own. The server's
// share is here and the delegate's there; between them lie two relays and TCP.

// pinOf asks a running appliance for its pin.
func (p place) pinOf(t *testing.T) string {
	t.Helper()
	d := startFor(t, p)
	pin := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(p.mustCtl(t, "status"))
	if err := d.stop(); err != nil || pin == "" {
		t.Fatalf("no pin, or %v", err)
	}
	return pin
}

// otherPlace is an appliance that is no copy of the template's.
func otherPlace(t testing.TB) place {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir}
	if err := p.addToken(); err != nil {
		t.Fatal(err)
	}
	if err := p.populate(); err != nil {
		t.Fatal(err)
	}
	return p
}

// linkTo relays from a socket in p over TCP to the peer door of q.
func linkTo(t testing.TB, p, q place) (socket string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := l.Addr().String()
	l.Close()
	socket = p.path("near.sock")
	text := fmt.Sprintf("accept:\n  - {listen: %q, to: %s}\nconnect:\n  - {listen: %s, to: %q}\n", tcp, q.path("peer.sock"), socket, tcp)
	if err := os.WriteFile(p.path("link.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(p.dir, "sigild", "link", "--config", "link.yaml")
	log := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := startMortal(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the link: %v\n%s", err, log)
		}
	})
	if err := poll(10*time.Second, func(context.Context) error { _, err := os.Lstat(socket); return err }); err != nil {
		t.Fatal(err, log)
	}
	return socket
}

func TestTwoAppliancesSignTogether(t *testing.T) {
	becomeScratch(t)
	a, b := newPlace(t), otherPlace(t)
	ours, theirs := mustBot(t, a), mustBot(t, b)
	pinA, pinB := a.pinOf(t), b.pinOf(t)
	a.withPeers(t, fmt.Sprintf("  appliances:\n    - {name: treasury, pin: %q, socket: %s}\n", pinB, linkTo(t, a, b)))
	b.withPeers(t, fmt.Sprintf("  appliances:\n    - {name: desk, pin: %q}\n", pinA))
	daemonA, daemonB := startFor(t, a), startFor(t, b)
	address := chainsolana.Address([32]byte(ours.From))
	accepted := b.mustCtl(t, "cosign", "accept", "--organization", theirs.Organization, "--owner", theirs.Owner, "--peer", "desk", "--chain", solana,
		"--address", address, "--name", "desk", "--key", "treasurer.key")

	// An invitation that is not there ends the ceremony; the good one makes the share.
	key := a.cosigned(t, ours, field(t, accepted, "invitation"))
	c, err := client.Dial(a.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c = c.WithAPIKey(key)
	n := 0
	sign := func(message []byte) ([]byte, error) {
		n++
		ctx, cancel := context.WithTimeout(t.Context(), 29*time.Second)
		defer cancel()
		out, err := c.Signing().Sign(ctx, &sigilv1.SignRequest{RequestId: fmt.Sprint("together-", n), WalletId: ours.Wallet,
			Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: message}})
		return out.GetSignature(), err
	}
	message := transfer([32]byte(ours.From), 300)
	if _, err := sign(message); client.Reason(err) != "POLICY_DENIED" || !strings.Contains(err.Error(), "other party") {
		t.Fatalf("the co-signer has no policy, and: %v", err)
	}
	b.allowOwner(t, theirs.Organization)
	signed := func(what string) {
		sig, err := sign(message)
		if err != nil || !ed25519.Verify(ours.From, message, sig) {
			t.Fatalf("%s: error %v, a: %s b: %s", what, err, daemonA.log, daemonB.log)
		}
	}
	signed("both allow")
	if _, err := sign(transfer([32]byte(ours.From), 501)); client.Reason(err) != "POLICY_DENIED" {
		t.Errorf("more than the co-signer allows: %v", err)
	}

	// Either side dies: nothing is signed, nothing hangs, and it goes on afterwards.
	kill := func(d *daemon) {
		if err := d.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = d.cmd.Wait()
	}
	kill(daemonB)
	start := time.Now()
	if _, err := sign(message); client.Reason(err) != "CEREMONY_FAILED" {
		t.Errorf("the co-signer is dead, and: %v", err)
	}
	if took := time.Since(start); took > 25*time.Second {
		t.Errorf("it took %v", took)
	}
	daemonB = startFor(t, b)
	signed("after the co-signer's death")
	kill(daemonA)
	daemonA = startFor(t, a)
	signed("after our own death")
	for _, p := range []struct {
		place
		d *daemon
	}{{a, daemonA}, {b, daemonB}} {
		if err := p.d.stop(); err != nil {
			t.Error(err)
		}
		p.mustCtl(t, "audit", "verify")
	}
}

func mustBot(t testing.TB, p place) bot {
	t.Helper()
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cosigned delegates the bot's wallet with a co-signer and returns the API key.
func (p place) cosigned(t testing.TB, b bot, invitation string) []byte {
	t.Helper()
	owner, err := credential.LoadKey(p.path("owner.key"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := conn.WithStamps(b.Organization, owner)
	condition := "solana.tx.transfers.count() == 1"
	ask := func(id, invitation string) *sigilv1.CreateDelegationResponse {
		made, err := c.Delegations().CreateDelegation(t.Context(), &sigilv1.CreateDelegationRequest{
			RequestId: id, OrganizationId: b.Organization, WalletId: b.Wallet, DelegatedUserId: b.User, ApiKeyRecipient: b.Recipient,
			Policies:     []*sigilv1.Policy{{Name: "payouts", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition}},
			CosignerPeer: "treasury", CosignerInvitation: invitation,
		})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	none := ask("no-invitation", "cer_none").GetCeremonyId()
	if err := poll(20*time.Second, func(ctx context.Context) error {
		got, err := c.Wallets().GetCeremony(ctx, &sigilv1.GetCeremonyRequest{OrganizationId: b.Organization, CeremonyId: none})
		if err == nil && got.GetCeremony().GetStatus() != sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED {
			err = fmt.Errorf("without an invitation the ceremony is %s", got.GetCeremony().GetStatus())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	made := ask("cosigned", invitation)
	if err := awaitCeremony(c, b.Organization, made.GetCeremonyId()); err != nil {
		t.Fatal(err)
	}
	shown, err := c.Delegations().GetDelegation(t.Context(), &sigilv1.GetDelegationRequest{OrganizationId: b.Organization, DelegationId: made.GetDelegationId()})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.path("owner.age"))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(shown.GetEncryptedApiKey()), ids...)
	if err != nil {
		t.Fatal(err)
	}
	key, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
