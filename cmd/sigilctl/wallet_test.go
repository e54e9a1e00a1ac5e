package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// A Solana keypair becomes a wallet with the same address, which says "imported".
func TestWalletImport(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	startFor(t, p)
	// The keypair of the seed of 32 sevens.
	keypair := "[" + strings.TrimSuffix(strings.Repeat("7,", 32), ",") + ",234,74,108,99,226,156,82,10,190,245,80,123,19,46,197,249,149,71,118,174,190,190,123,146,66,30,234,105,20,70,210,44]"
	if err := os.WriteFile(p.path("id.json"), []byte(keypair), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"wallet", "import", "--organization", b.Organization, "--owner", b.Owner, "--chain", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
		"--name", "imported", "--keypair", "id.json", "--key", "treasurer.key", "--request-id", "import-1"}
	out, err := p.sigilctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(out)
	if len(fields) != 6 || fields[0] != "wallet" || fields[4] != "ceremony" {
		t.Fatalf("import says %q", out)
	}
	if again, err := p.sigilctl(args...); err != nil || again != out {
		t.Errorf("the same request again says %q, %v, want %q", again, err, out)
	}
	treasurer, err := credential.LoadKey(p.path("treasurer.key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c = c.WithStamps(b.Organization, treasurer)
	if err := awaitCeremony(c, b.Organization, fields[5]); err != nil {
		t.Fatal(err)
	}
	answer, err := c.Wallets().GetWallet(t.Context(), &sigilv1.GetWalletRequest{OrganizationId: b.Organization, WalletId: fields[1]})
	if err != nil {
		t.Fatal(err)
	}
	if w := answer.GetWallet(); w.GetOrigin() != "imported" || w.GetAddress() != "GmaDrppBC7P5ARKV8g3djiwP89vz1jLK23V2GBjuAEGB" {
		t.Errorf("wallet %v, want the imported one", w)
	}

	// Nothing is derived from an Ed25519 key; a keypair is no key of an EVM chain's.
	if _, err := p.sigilctl("wallet", "derive", "--organization", b.Organization, "--wallet", b.Wallet, "--path", "0/1", "--name", "x", "--key", "treasurer.key"); err == nil || !strings.Contains(err.Error(), "REQUEST_INVALID") {
		t.Errorf("deriving from an Ed25519 key: %v, want REQUEST_INVALID", err)
	}
	if _, err := p.sigilctl("wallet", "import", "--organization", b.Organization, "--owner", b.Owner, "--chain", "eip155", "--name", "x",
		"--hex", "id.json", "--key", "treasurer.key"); err == nil || !strings.Contains(err.Error(), "64 digits") {
		t.Errorf("a keypair as hex: %v, want that it has not 64 digits", err)
	}
}
