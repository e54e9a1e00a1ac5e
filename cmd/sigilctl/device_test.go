package main_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	chainsolana "github.com/sigild/sigild/chains/solana"
)

// The user's side as people run it: sigilctl device beside a real daemon, over its
// socket and over a link with TCP in between.

// field finds what follows a word in a tool's output.
func field(t testing.TB, out, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `\s+(\S+)$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no %s in\n%s", name, out)
	}
	return m[1]
}

// withPeers adds the peer door and what else its section says to the configuration.
func (p place) withPeers(t testing.TB, section string) {
	t.Helper()
	f, err := os.OpenFile(p.path("sigild.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "peer:\n  socket: {path: %s/peer.sock}\n%s", p.dir, section)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (p place) mustCtl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.sigilctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// allowOwner lets the organization's documents allow transfers and nothing else.
func (p place) allowOwner(t testing.TB, organization string) {
	t.Helper()
	p.allow(t, organization, "solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.amount <= 500)")
}

func (p place) allow(t testing.TB, organization, condition string) {
	t.Helper()
	rules := fmt.Sprintf(`{"policies":[{"id":"transfers","effect":"EFFECT_ALLOW","condition":%q}]}`, condition)
	if err := os.WriteFile(p.path("rules.json"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	p.mustCtl(t, "policy", "set", "rules/main="+p.path("rules.json"), "--organization", organization, "--expected-version", "0", "--key", "treasurer.key")
}

// deviceSign signs a transfer on Solana and returns what the tool said.
func (p place) deviceSign(wallet, id string, message []byte) (string, error) {
	return p.deviceSignKind("solana.message", wallet, id, message)
}

func (p place) deviceSignKind(kind, wallet, id string, payload []byte) (string, error) {
	cmd := command(p.dir, "sigilctl", "--config", "sigild.yaml", "device", "sign", "--file", "phone.age", "--identity", "owner.age",
		"--wallet", wallet, "--kind", kind, "--request-id", id, "--yes")
	text := hex.EncodeToString(payload)
	if strings.HasPrefix(kind, "evm.") {
		text = "0x" + text
	}
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return string(out), err
}

// device runs a verb of the user's side with the file of the owner's phone.
func (p place) device(t testing.TB, verb string, args ...string) string {
	t.Helper()
	return p.mustCtl(t, append([]string{"device", verb, "--file", "phone.age", "--identity", "owner.age"}, args...)...)
}

// newPhone makes a device of the owner's and registers it.
func (p place) newPhone(t testing.TB, b bot) (device string) {
	t.Helper()
	p.device(t, "init")
	return field(t, p.device(t, "register", "--organization", b.Organization, "--user", b.Owner, "--name", "phone", "--address", "unix:"+p.path("peer.sock"), "--key", "owner.key"), "device")
}

// phoneWallet makes a wallet on the owner's device, which joins the keygen, and returns
// what wallet show says of it.
func (p place) phoneWallet(t testing.TB, b bot, device, chain string) (wallet, shown string) {
	t.Helper()
	made := p.mustCtl(t, "device", "wallet", "--organization", b.Organization, "--owner", b.Owner, "--device", device, "--chain", chain, "--name", "own", "--key", "treasurer.key")
	ceremony := field(t, made, "ceremony")
	if out := p.device(t, "pending"); !strings.Contains(out, ceremony) {
		t.Fatalf("pending does not show %s:\n%s", ceremony, out)
	}
	p.device(t, "join", "--ceremony", ceremony, "--yes")
	if out := p.device(t, "show"); !strings.Contains(out, "live of wallet") {
		t.Fatalf("the share does not count:\n%s", out)
	}
	wallet = field(t, made, "wallet")
	shown = p.mustCtl(t, "wallet", "show", "--organization", b.Organization, "--wallet", wallet, "--key", "owner.key")
	if !regexp.MustCompile(`custody\s+user`).MatchString(shown) || !regexp.MustCompile(`origin\s+device`).MatchString(shown) {
		t.Errorf("wallet show says\n%s", shown)
	}
	return wallet, shown
}

func TestDeviceMakesAKeyAndSigns(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	p.withPeers(t, "")
	d := startFor(t, p)
	wallet, shown := p.phoneWallet(t, b, p.newPhone(t, b), solana)
	key, err := chainsolana.ParseAddress(field(t, shown, "address"))
	if err != nil {
		t.Fatal(err)
	}
	public := key[:]
	message := transfer([32]byte(public), 400)
	if _, err := p.deviceSign(wallet, "first", message); err == nil || !strings.Contains(err.Error(), "POLICY_DENIED") {
		t.Errorf("no policy, and it is signed: %v", err)
	}
	p.allowOwner(t, b.Organization)
	check := func(what string) {
		out, err := p.deviceSign(wallet, "second", message)
		if err != nil {
			t.Fatal(what, err, d.log)
		}
		sig, err := hex.DecodeString(field(t, out, "signature"))
		if err != nil || !ed25519.Verify(public, message, sig) {
			t.Errorf("%s: the signature does not verify: %v\n%s", what, err, out)
		}
	}
	check("the first time")
	check("a stored answer")
	if _, err := p.deviceSign(wallet, "third", transfer([32]byte(public), 501)); err == nil || !strings.Contains(err.Error(), "POLICY_DENIED") {
		t.Errorf("more than the policy allows: %v", err)
	}
	if out := p.mustCtl(t, "status"); !strings.Contains(out, "sha256:") {
		t.Errorf("status shows no pin:\n%s", out)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	p.mustCtl(t, "audit", "verify")
}
