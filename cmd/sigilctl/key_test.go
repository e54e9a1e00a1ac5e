package main_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/sigild/sigild/client"
)

// must runs sigilctl for an organization's wallet and returns what it says.
func (p place) must(t testing.TB, b bot, verb string, args ...string) string {
	t.Helper()
	out, err := p.sigilctl(append(strings.Fields(verb), append([]string{"--organization", b.Organization}, args...)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var rootSet = regexp.MustCompile(`root set +(\S+): 2 of recovery, server, user, epoch (\d+)`)

// epoch reads a key's epoch out of what key show says.
func (p place) epoch(t *testing.T, b bot, key string) string {
	t.Helper()
	out := p.must(t, b, "key show", "--wallet", b.Wallet, "--key", key)
	m := rootSet.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("key show says\n%s", out)
	}
	return m[2]
}

// One key's life: rotated by its owner, recovered three times, and the bot signs on
// with the delegation that it has.
func TestRotateAndRecover(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	startFor(t, p)
	signs := func(id string) {
		t.Helper()
		c, err := client.Dial(p.path("app.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := b.ask(c.WithAPIKey(b.APIKey), acknowledged{ID: id, Lamports: 5}); err != nil {
			t.Errorf("%s: the bot signs no more: %v", id, err)
		}
	}
	signs("before")

	out := p.must(t, b, "wallet rotate", "--wallet", b.Wallet, "--key", "owner.key", "--wait")
	if !strings.Contains(out, "rotate done") || p.epoch(t, b, "owner.key") != "2" {
		t.Errorf("rotate says %q", out)
	}
	if out := p.must(t, b, "wallet show", "--wallet", b.Wallet, "--key", "treasurer.key"); !strings.Contains(out, "waits for its owner") || !strings.Contains(out, "broken ceremonies  none") {
		t.Errorf("wallet show says\n%s", out)
	}
	p.must(t, b, "wallet share", "--wallet", b.Wallet, "--key", "owner.key", "--out", "share2.age")
	if out := p.must(t, b, "wallet show", "--wallet", b.Wallet, "--key", "owner.key"); strings.Contains(out, "waits") {
		t.Errorf("after the receipt wallet show says\n%s", out)
	}
	signs("rotated")

	// A lost share, under the root's stamp.
	p.must(t, b, "recover share", "--wallet", b.Wallet, "--key", "treasurer.key", "--wait")
	p.must(t, b, "wallet share", "--wallet", b.Wallet, "--key", "owner.key", "--out", "share3.age")

	// A dead recovery custodian, with the owner's share; the one before is worth nothing.
	if _, err := p.sigilctl("recover", "custodian", "--organization", b.Organization, "--wallet", b.Wallet, "--share", "share2.age", "--identity", "owner.age", "--key", "owner.key"); err == nil || !strings.Contains(err.Error(), "REQUEST_INVALID") {
		t.Errorf("an older share: %v, want REQUEST_INVALID", err)
	}
	p.must(t, b, "recover custodian", "--wallet", b.Wallet, "--share", "share3.age", "--identity", "owner.age", "--key", "owner.key", "--wait")
	if n := p.epoch(t, b, "owner.key"); n != "4" {
		t.Errorf("epoch %s, want 4", n)
	}

	// A lost device: another key and another age identity.
	if _, err := p.sigilctl("credential", "create", "--purpose", "user", "--name", "phone 2", "--out", "phone2"); err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("phone2.age"), []byte(identity.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	recipient := identity.Recipient().String()
	signature, err := p.sigilctl("credential", "sign-recipient", "--key", "phone2.key", "--recipient", recipient)
	if err != nil {
		t.Fatal(err)
	}
	p.must(t, b, "recover device", "--owner", b.Owner, "--credential", "phone2.json", "--recipient", recipient,
		"--recipient-signature", strings.TrimSpace(signature), "--key", "treasurer.key", "--wait")
	p.must(t, b, "wallet share", "--wallet", b.Wallet, "--key", "phone2.key", "--out", "share5.age")
	if _, err := p.sigilctl("key", "show", "--organization", b.Organization, "--wallet", b.Wallet, "--key", "owner.key"); err == nil || !strings.Contains(err.Error(), "STAMP_INVALID") {
		t.Errorf("the lost credential: %v, want STAMP_INVALID", err)
	}
	out = p.must(t, b, "key set", "--wallet", b.Wallet, "--rotate-every", "720h", "--key", "phone2.key")
	if !strings.Contains(out, "every 720h") {
		t.Errorf("key set says\n%s", out)
	}
	signs("recovered")
	if out, err := p.sigilctl("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
