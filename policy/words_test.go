package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"
)

func TestPoliciesAreSaidInWords(t *testing.T) {
	for _, c := range []struct{ condition, want string }{
		{"", "may sign anything that is understood"},
		{"eth.tx.value <= 1000 && eth.tx.to in ['0x01', '0x02']", "may sign when the value in wei is at most 1000 and the recipient is one of '0x01', '0x02'"},
		{"solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.amount < 500 || t.to == 'A')",
			"may sign when the number of SOL transfers is 1 and for each of the SOL transfers: its amount is less than 500 or its recipient is 'A'"},
		{"eth.tx.contract_call_args['wad'] > 3", "may sign when item 'wad' of eth.tx.contract_call_args is more than 3"},
		{"!(eth.tx.chain_id == 1) && (eth.tx.nonce == 1 || eth.tx.nonce == 2)", "may sign when not (the chain id is 1) and (the nonce is 1 or the nonce is 2)"},
		{"not ( parsed", "may sign when not ( parsed"},
	} {
		if got := (Policy{Effect: Allow, Lang: LangSigild, Condition: c.condition}).Words(); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.condition, got, c.want)
		}
	}
	deny := Policy{Effect: Deny, Lang: LangSigild, Condition: "eth.tx.chain_id != 1", Time: "time.now < Timestamp('2026-04-01T00:00:00Z')", NotAfter: time.Unix(0, 0)}
	if got := deny.Words(); !strings.HasPrefix(got, "may never sign when the chain id is not 1; at times when the time is less than Timestamp(") || !strings.HasSuffix(got, "until 1970-01-01 00:00:00 UTC") {
		t.Errorf("deny: %s", got)
	}
	l := Limit{Asset: "eip155:1/slip44:60", Max: *uint256.NewInt(7), Window: time.Hour, IncludeFees: true}
	if got := l.Words(); got != "may spend at most 7 of eip155:1/slip44:60 in any 1h0m0s, network fees included" {
		t.Errorf("limit: %s", got)
	}
}
