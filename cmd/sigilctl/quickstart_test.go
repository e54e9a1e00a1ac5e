package main_test

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
)

// wantPage runs a page in a place with a running daemon, and insists on what it printed.
func wantPage(t *testing.T, name string, p place, want map[string]int) {
	t.Helper()
	d := startFor(t, p)
	out := runPage(t, name, p)
	for text, n := range want {
		if got := strings.Count(out, text); got != n {
			t.Errorf("docs/%s printed %q %d times, want %d", name, text, got, n)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", out, d.log)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := p.sigilctl("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The commands of docs/quickstart-bot.md run as they stand; go-ethereum reads what the
// bot sends.
func TestBotPageRunsAsWritten(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	wantPage(t, "quickstart-bot.md", p, map[string]int{
		"POLICY_DENIED: ": 2, "LIMIT_EXCEEDED: ": 1, "\nrefused\n": 3, "\nremoved 1, version ": 1, "  holds ": 7, "BROKEN": 0,
	})
	text, err := os.ReadFile(p.path("half-an-ether.signed"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text))[2:])
	if err != nil {
		t.Fatal(err)
	}
	var tx types.Transaction
	if err := tx.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	from, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), &tx)
	shown, err2 := os.ReadFile(p.path("half-an-ether.request"))
	if err != nil || err2 != nil || !strings.Contains(string(shown), from.Hex()) || tx.Value().String() != "500000000000000000" {
		t.Errorf("from %s, value %s: %v, %v", from.Hex(), tx.Value(), err, err2)
	}
	if _, err := os.Stat(p.path("once-more.signed")); !os.IsNotExist(err) {
		t.Errorf("what is refused was signed: %v", err)
	}
}

// The commands of docs/quickstart-key.md run as they stand.
func TestKeyPageRunsAsWritten(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	wantPage(t, "quickstart-key.md", p, map[string]int{
		"API_KEY_INVALID: ": 1, "NOT_DELEGATABLE: ": 1, "\nrefused\n": 2, "\nstatus   Delegated\n": 2, "\nconfirmed\n": 1, "send 0.001 SOL": 4,
	})
	if _, err := os.Stat(p.path("first.answer")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.path("second.answer")); !os.IsNotExist(err) {
		t.Errorf("what is refused was signed: %v", err)
	}
}

// The commands of docs/quickstart-payout.md run as they stand.
func TestPayoutPageRunsAsWritten(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	wantPage(t, "quickstart-payout.md", p, map[string]int{
		"POLICY_DENIED: ": 1, "LIMIT_EXCEEDED: ": 1, "STAMP_INVALID: ": 1, "\nrefused\n": 3, "\nconfirmed\n": 1, "  holds ": 7, "BROKEN": 0,
		"used 200000000, left 50000000": 1,
	})
	for _, name := range []string{"astray.signed", "week-1-again.signed"} {
		if _, err := os.Stat(p.path(name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if signed, err := os.ReadFile(p.path("week-1.signed")); err != nil || len(signed) < 200 {
		t.Errorf("%d bytes to send, %v", len(signed), err)
	}
}
