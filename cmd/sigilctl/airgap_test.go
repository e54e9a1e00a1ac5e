package main_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	chainsolana "github.com/sigild/sigild/chains/solana"
)

// The commands of docs/quickstart-airgap.md run as they stand, in one place with a
// folder for each host.
func TestAirGapPageRunsAsWritten(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"near", "far"} {
		if err := os.Mkdir(p.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.carry(p.path("message.hex"), p.path("far/api.key")); err != nil {
		t.Fatal(err)
	}
	d, err := p.start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("%v\n%s", err, d.log)
		}
	})
	out := runPage(t, "quickstart-airgap.md", p, "WALLET="+b.Wallet, "ADDRESS="+chainsolana.Address([32]byte(b.From)))
	signed, err := os.ReadFile(p.path("near/pay.signed"))
	if err != nil || len(bytes.TrimSpace(signed)) == 0 {
		t.Fatalf("nothing to send: %v\n%s", err, out)
	}
	if n := strings.Count(out, "send 0.015 SOL"); n < 3 {
		t.Errorf("create, show and sign said %d times what it does:\n%s", n, out)
	}
}
