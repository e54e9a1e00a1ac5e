package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	chainsolana "github.com/sigild/sigild/chains/solana"
)

// The commands of docs/quickstart-airgap.md run as they stand, in one place with a
// folder for each host.
func TestAirGapPageRunsAsWritten(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "quickstart-airgap.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i, part := range strings.Split(string(page), "\n```") {
		if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			script.WriteString(block + "\n")
		}
	}
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
	cmd := exec.CommandContext(t.Context(), "sh", "-eux")
	cmd.Dir, cmd.Stdin = p.path("."), strings.NewReader(script.String())
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(base, "bin")+":/usr/bin:/bin",
		"WALLET="+b.Wallet, "ADDRESS="+chainsolana.Address([32]byte(b.From)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the page failed: %v\n%s", err, out)
	}
	signed, err := os.ReadFile(p.path("near/pay.signed"))
	if err != nil || len(bytes.TrimSpace(signed)) == 0 {
		t.Fatalf("nothing to send: %v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("send 0.015 SOL")); n < 3 {
		t.Errorf("create, show and sign said %d times what it does:\n%s", n, out)
	}
}
