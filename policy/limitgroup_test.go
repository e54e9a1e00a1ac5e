package policy

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
)

// to is a charge for somebody.
func to(asset, who string, n uint64) chains.Charge {
	c := charge(asset, amount(n), "transfer")
	c.To = who
	return c
}

func TestLimitsByCountAndGroup(t *testing.T) {
	before := ledger{
		{delegation: "d", user: "u", wallet: "w", to: "alice", asset: ether, amount: amount(60), at: noon.Add(-time.Hour)},
		{delegation: "e", user: "u", wallet: "v", to: "bob", asset: ether, amount: amount(30), at: noon.Add(-2 * time.Hour)},
		{delegation: "e", user: "x", wallet: "w", to: "bob", asset: usdcAsset, amount: amount(5)},
	}
	hundred := func(per Per) Limit {
		return Limit{ID: "l", Asset: ether, Max: amount(100), Window: 24 * time.Hour, Per: per}
	}
	count := func(n uint64, asset string, per Per) Limit {
		return Limit{ID: "l", Asset: asset, AnyAmount: true, MaxCount: n, Window: 24 * time.Hour, Per: per}
	}
	asked := []chains.Charge{to(ether, "alice", 40), charge(ether, amount(9), "fee")}
	for _, row := range []struct {
		name    string
		limit   Limit
		charges []chains.Charge
		opaque  bool
		refused bool
		retry   time.Duration
	}{
		{"everybody spent too much", hundred(PerAll), asked, false, true, 22 * time.Hour},
		{"the user spent too much", hundred(PerUser), asked, false, true, 22 * time.Hour},
		{"the delegation did not", hundred(PerDelegation), asked, false, false, 0},
		{"the wallet did not", hundred(PerWallet), asked, false, false, 0},
		{"to alice, exactly", hundred(PerDestination), asked, false, false, 0},
		{"to alice, one more", hundred(PerDestination), []chains.Charge{to(ether, "alice", 30), to(ether, "alice", 11)}, false, true, 23 * time.Hour},
		{"to alice and bob, each within", hundred(PerDestination), []chains.Charge{to(ether, "alice", 40), to(ether, "bob", 70)}, false, false, 0},
		{"to alice and bob, bob not", hundred(PerDestination), []chains.Charge{to(ether, "alice", 40), to(ether, "bob", 71)}, false, true, 22 * time.Hour},
		{"to somebody behind a lookup table", hundred(PerDestination), []chains.Charge{to(ether, chains.AddressTableLookup, 1)}, false, true, 0},
		{"to nobody known", hundred(PerDestination), []chains.Charge{to(ether, "", 1)}, false, true, 0},
		{"a third request of three", count(3, ether, PerAll), asked, false, false, 0},
		{"a third request of two", count(2, ether, PerAll), asked, false, true, 22 * time.Hour},
		{"another asset does not count", count(2, usdcAsset, PerAll), asked, false, false, 0},
		{"any asset counts", count(3, "", PerAll), asked, false, true, 22 * time.Hour},
		{"any asset counts, nothing spent", count(3, "", PerAll), nil, true, true, 22 * time.Hour},
		{"any asset, by wallet", count(3, "", PerWallet), nil, true, false, 0},
		{"any asset, by destination, opaque", count(3, "", PerDestination), nil, true, true, 0},
		{"how often a token goes out cannot be told", count(3, usdcAsset, PerAll), nil, true, true, 0},
		{"without a bound, counted only", count(3, ether, PerAll), []chains.Charge{{Chain: "eip155:1", Asset: ether, Unbounded: true}}, false, false, 0},
		{"amount and count, the count", Limit{ID: "l", Asset: ether, Max: amount(1000), MaxCount: 2, Window: 24 * time.Hour}, asked, false, true, 22 * time.Hour},
		{"amount and count, the amount", Limit{ID: "l", Asset: ether, Max: amount(100), MaxCount: 9, Window: 24 * time.Hour}, asked, false, true, 22 * time.Hour},
		{"a control refuses nothing", Limit{ID: "l", Asset: ether, Control: true}, asked, false, false, 0},
	} {
		sp := Spending{Chain: "eip155:1", Charges: row.charges, Opaque: row.opaque, Delegation: "d", User: "u", Wallet: "w", Now: noon, Spent: before.spent}
		e := Check([]Limit{row.limit}, sp)
		if (e != nil) != row.refused || e != nil && (e.RetryAfter != row.retry || e.Error() == "") {
			t.Errorf("%s: got %+v, want refused %v, after %v", row.name, e, row.refused, row.retry)
		}
	}
	sp := Spending{Chain: "eip155:1", Charges: asked, Now: noon, Spent: before.spent}
	if e := Check([]Limit{hundred(PerUser)}, sp); e == nil || !e.AskedUnbounded {
		t.Errorf("a limit per user without a user: got %v", e)
	}
	full := ledger{{asset: ether, kept: MaxKept, at: noon.Add(-time.Hour)}}
	if e := Check([]Limit{hundred(PerAll)}, Spending{Chain: "eip155:1", Charges: asked, Now: noon, Spent: full.spent}); e == nil || !e.Full {
		t.Errorf("with %d sums: got %v", MaxKept, e)
	}
}

func TestLimitsThatBoundNothingMustNotCompile(t *testing.T) {
	for name, l := range map[string]Limit{
		CodeBadBound + " nothing":         {ID: "l", Asset: usdcAsset, AnyAmount: true},
		CodeBadBound + " decimals":        {ID: "l", Asset: ether, IncludeFees: true, Decimals: 6},
		CodeBadBound + " many decimals":   {ID: "l", Asset: usdcAsset, Decimals: 78},
		CodeBadGroup + " unknown":         {ID: "l", Asset: usdcAsset, Per: "walet"},
		CodeBadGroup + " in a delegation": {ID: "l", Asset: usdcAsset, Delegation: "d", Per: PerWallet},
		CodeBadGroup + " fees":            {ID: "l", Asset: ether, Per: PerDestination, IncludeFees: true},
	} {
		s, ds := Compile(nil, []Limit{l}, nil)
		if s != nil || len(ds) != 1 || ds[0].Code != name[:len(ds[0].Code)] {
			t.Errorf("%s: got %v", name, ds)
		}
	}
}

func TestLimitsInUnitsForPeople(t *testing.T) {
	for text, want := range map[string]string{
		`{"id":"l","asset":"eip155:1/slip44:60","max":"1.5","decimals":18}`:                  "1500000000000000000",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"0.000000000000000001","decimals":18}`: "1",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"0","decimals":18}`:                    "0",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"15","max_count":3}`:                   "15",
		`{"id":"l","max_count":3}`:                                          "0",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"1.5"}`:               "",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"1.","decimals":18}`:  "",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"01","decimals":18}`:  "",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"-1","decimals":18}`:  "",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"1.23","decimals":1}`: "",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"1","decimals":78}`:   "",
		`{"id":"l","asset":"eip155:1/slip44:60","max":"115792089237316195423570985008687907853269984665640564039457584007913129639936","decimals":0}`: "",
		`{"id":"l","asset":"eip155:1/slip44:60"}`: "",
		`{"id":"l","max":"3"}`:                    "",
	} {
		var l Limit
		err := json.Unmarshal([]byte(text), &l)
		if (err == nil) != (want != "") || err == nil && l.Max.Dec() != want {
			t.Errorf("%s: got %s, %v; want %q", text, l.Max.Dec(), err, want)
			continue
		}
		if err != nil {
			continue
		}
		again, err := json.Marshal(l)
		var back Limit
		if err != nil || json.Unmarshal(again, &back) != nil || back != l {
			t.Errorf("%s came back as %s, %v", text, again, err)
		}
	}
}
