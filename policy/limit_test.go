package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

const (
	ether     = "eip155:1/slip44:60"
	usdcAsset = "eip155:1/erc20:0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"
	lamports  = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp/slip44:501"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// past is one charge made before.
type past struct {
	delegation, asset, what string
	amount                  uint256.Int
	unbounded               bool
	at                      time.Time // zero: in flight
	user, wallet, to        string
	kept                    int
}

// ledger answers queries as the journal does.
type ledger []past

func (l ledger) spent(q SpentQuery) (u Usage) {
	for _, c := range l {
		of := map[Per]string{PerUser: c.user, PerDelegation: c.delegation, PerWallet: c.wallet, PerDestination: c.to}[q.Per]
		if q.Delegation != "" && c.delegation != q.Delegation || of != q.Of || q.Asset != "" && c.asset != q.Asset || c.what == "fee" && !q.IncludeFees ||
			!c.at.IsZero() && !c.at.After(q.Since) {
			continue
		}
		u.Count++
		u.Kept = max(u.Kept, c.kept)
		if _, overflow := u.Sum.AddOverflow(&u.Sum, &c.amount); overflow || c.unbounded {
			u.Unbounded = true
		}
	}
	return u
}

func amount(n uint64) uint256.Int { return *uint256.NewInt(n) }

var maxAmount = *new(uint256.Int).SetAllOne()

func charge(asset string, n uint256.Int, what string) chains.Charge {
	return chains.Charge{Chain: asset[:strings.IndexByte(asset, '/')], Asset: asset, Amount: n, What: what}
}

func TestLimits(t *testing.T) {
	daily := Limit{ID: "daily", Asset: ether, Max: amount(100), Window: 24 * time.Hour, Delegation: "d"}
	with := func(edit func(*Limit)) Limit {
		l := daily
		edit(&l)
		return l
	}
	hours := func(n int) time.Time { return noon.Add(-time.Duration(n) * time.Hour) }
	spend := func(n uint64, ago int) past {
		return past{delegation: "d", asset: ether, what: "transfer", amount: amount(n), at: hours(ago)}
	}
	ask := func(n uint64) []chains.Charge { return []chains.Charge{charge(ether, amount(n), "transfer")} }
	const never = time.Duration(0)
	rows := []struct {
		name    string
		limit   Limit
		past    ledger
		charges []chains.Charge
		refused bool
		retry   time.Duration
	}{
		{"up to the limit", daily, nil, ask(100), false, 0},
		{"one above", daily, nil, ask(101), true, never},
		{"the rest", daily, ledger{spend(60, 1)}, ask(40), false, 0},
		{"more than the rest", daily, ledger{spend(60, 1)}, ask(41), true, 23 * time.Hour},
		{"waits for as many as needed", daily, ledger{spend(30, 20), spend(30, 10), spend(40, 1)}, ask(50), true, 14 * time.Hour},
		{"left the window", daily, ledger{spend(100, 25)}, ask(100), false, 0},
		{"leaves it at its end", daily, ledger{spend(100, 24)}, ask(100), false, 0},
		{"in flight counts for ever", daily, ledger{{delegation: "d", asset: ether, amount: amount(60)}}, ask(50), true, never},
		{"lifetime", with(func(l *Limit) { l.Window = 0 }), ledger{spend(60, 24*365*5)}, ask(41), true, never},
		{"lifetime, the rest", with(func(l *Limit) { l.Window = 0 }), ledger{spend(60, 24*365*5)}, ask(40), false, 0},
		{"another delegation's limit", with(func(l *Limit) { l.Delegation = "e" }), nil, ask(101), false, 0},
		{"another delegation's spending", daily, ledger{{delegation: "e", asset: ether, amount: amount(100), at: hours(1)}}, ask(100), false, 0},
		{"everybody's", with(func(l *Limit) { l.Delegation = "" }), ledger{{delegation: "e", asset: ether, amount: amount(1), at: hours(1)}}, ask(100), true, 23 * time.Hour},
		{"another asset", with(func(l *Limit) { l.Asset = usdcAsset }), nil, ask(101), false, 0},
		{"token in another case", with(func(l *Limit) { l.Asset = "eip155:1/erc20:" + usdc }), nil, []chains.Charge{charge(usdcAsset, amount(101), "transfer")}, true, never},
		{"fees do not count", daily, nil, append(ask(100), charge(ether, amount(9), "fee")), false, 0},
		{"fees count", with(func(l *Limit) { l.IncludeFees = true }), nil, append(ask(92), charge(ether, amount(9), "fee")), true, never},
		{"fees of the past count", with(func(l *Limit) { l.IncludeFees = true }), ledger{{delegation: "d", asset: ether, what: "fee", amount: amount(9), at: hours(1)}}, ask(92), true, 23 * time.Hour},
		{"fees of the past do not", daily, ledger{{delegation: "d", asset: ether, what: "fee", amount: amount(9), at: hours(1)}}, ask(92), false, 0},
		{"several charges add up", daily, nil, append(ask(60), ask(41)...), true, never},
		{"charges that overflow", daily, nil, []chains.Charge{charge(ether, maxAmount, "transfer"), charge(ether, amount(1), "transfer")}, true, never},
		{"sum that overflows", with(func(l *Limit) { l.Max = maxAmount }), ledger{{delegation: "d", asset: ether, amount: maxAmount, at: hours(1)}}, ask(1), true, 23 * time.Hour},
		{"everything there is", with(func(l *Limit) { l.Max = maxAmount }), nil, []chains.Charge{charge(ether, maxAmount, "transfer")}, false, 0},
		{"unbounded", with(func(l *Limit) { l.Max = maxAmount }), nil, []chains.Charge{{Chain: "eip155:1", Asset: ether, Unbounded: true}}, true, never},
		{"unbounded before", daily, ledger{{delegation: "d", asset: ether, unbounded: true, at: hours(2)}}, ask(1), true, 22 * time.Hour},
		{"unbounded in another asset", daily, nil, []chains.Charge{{Chain: "eip155:1", Asset: usdcAsset, Unbounded: true}}, false, 0},
		{"a charge of an unknown asset of the chain", daily, nil, []chains.Charge{{Chain: "eip155:1", Asset: "eip155:1/what"}}, true, never},
		{"a charge of an unknown asset elsewhere", daily, nil, []chains.Charge{{Chain: "eip155:10", Asset: "eip155:10/what"}}, false, 0},
		{"a token that the payload does not name", with(func(l *Limit) { l.Asset = usdcAsset }), nil, []chains.Charge{{Chain: "eip155:1", Asset: "eip155:1/" + chains.AnyToken, Amount: amount(1)}}, true, never},
		{"a token that the payload does not name, the coin's limit", daily, nil, []chains.Charge{{Chain: "eip155:1", Asset: "eip155:1/" + chains.AnyToken, Amount: amount(101)}}, false, 0},
		{"asks nothing, over the limit already", daily, ledger{spend(500, 1)}, ask(0), false, 0},
		{"no charges", daily, ledger{spend(500, 1)}, nil, false, 0},
		{"a limit of nothing", with(func(l *Limit) { l.Max = amount(0) }), nil, ask(1), true, never},
		{"a limit that was never compiled", with(func(l *Limit) { l.Asset = "ether" }), nil, ask(1), true, never},
	}
	for _, row := range rows {
		e := Check([]Limit{row.limit}, Spending{Chain: "eip155:1", Charges: row.charges, Delegation: "d", Now: noon, Spent: row.past.spent})
		if (e != nil) != row.refused {
			t.Errorf("%s: got %v, want refused %v", row.name, e, row.refused)
			continue
		}
		if e == nil {
			continue
		}
		if e.LimitID != row.limit.ID || e.RetryAfter != row.retry || e.Max != row.limit.Max || e.Error() == "" {
			t.Errorf("%s: got %+v, want retry after %v", row.name, e, row.retry)
		}
		if e.RetryAfter == 0 {
			continue
		}
		sp := Spending{Chain: "eip155:1", Charges: row.charges, Delegation: "d", Now: noon.Add(e.RetryAfter), Spent: row.past.spent}
		if Check([]Limit{row.limit}, sp) != nil {
			t.Errorf("%s: still refused after %v", row.name, e.RetryAfter)
		}
		sp.Now = sp.Now.Add(-time.Second)
		if Check([]Limit{row.limit}, sp) == nil {
			t.Errorf("%s: passes a second before %v", row.name, e.RetryAfter)
		}
	}
}

func TestOpaquePayloadsFailTheLimitsTheyCouldTouch(t *testing.T) {
	for _, row := range []struct {
		asset, chain string
		want         bool
	}{
		{usdcAsset, "eip155:1", true},
		{usdcAsset, "eip155:10", false},
		{usdcAsset, "eip155:11", false},
		{ether, "eip155:1", false}, // value and fee are known whatever the call does
		{lamports, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", true},
		{lamports, "eip155:1", false},
		{usdcAsset, "", true},
	} {
		l := Limit{ID: "l", Asset: row.asset, Max: maxAmount}
		e := Check([]Limit{l}, Spending{Chain: row.chain, Opaque: true, Now: noon, Spent: ledger(nil).spent})
		if (e != nil) != row.want || e != nil && !e.AskedUnbounded {
			t.Errorf("%s by an opaque payload of %q: got %v, want refused %v", row.asset, row.chain, e, row.want)
		}
	}
}

func TestAllLimitsMustHold(t *testing.T) {
	s, ds := Compile(nil, []Limit{
		{ID: "b", Asset: ether, Max: amount(100), Window: time.Hour, IncludeFees: true},
		{ID: "a", Asset: ether, Max: amount(500), Window: 24 * time.Hour, IncludeFees: true},
	}, nil)
	if s == nil || len(ds) > 0 {
		t.Fatal(ds)
	}
	past := ledger{{asset: ether, amount: amount(450), at: noon.Add(-2 * time.Hour)}}
	for n, want := range map[uint64]string{50: "", 51: "a", 101: "a"} {
		e := s.CheckLimits(Spending{Chain: "eip155:1", Charges: []chains.Charge{charge(ether, amount(n), "transfer")}, Now: noon, Spent: past.spent})
		got := ""
		if e != nil {
			got = e.LimitID
		}
		if got != want {
			t.Errorf("asking %d: refused by %q, want %q", n, got, want)
		}
	}
}

func TestLimitErrorsReadWell(t *testing.T) {
	for want, e := range map[string]LimitExceeded{
		`limit "daily": 41 of eip155:1/slip44:60 asked, 60 of 100 spent`:                {Name: "daily", Asset: ether, Max: amount(100), Spent: amount(60), Asked: amount(41)},
		`limit "l-1": what the request spends of eip155:1/slip44:60 has no known bound`: {LimitID: "l-1", Asset: ether, AskedUnbounded: true},
		`limit "daily": what was spent of eip155:1/slip44:60 has no known bound`:        {Name: "daily", Asset: ether, SpentUnbounded: true},
	} {
		if e.Error() != want {
			t.Errorf("got %s, want %s", e.Error(), want)
		}
	}
}

func TestLimitsThatMustNotCompile(t *testing.T) {
	good := Limit{ID: "l", Asset: usdcAsset, Max: amount(1), Window: time.Second}
	rows := []struct {
		name string
		edit func(*Limit)
		code string
	}{
		{"no id", func(l *Limit) { l.ID = "" }, CodeBadID},
		{"control character in name", func(l *Limit) { l.Name = "\x1b" }, CodeBadID},
		{"delegation", func(l *Limit) { l.Delegation = "a b" }, CodeBadID},
		{"negative window", func(l *Limit) { l.Window = -time.Second }, CodeBadWindow},
		{"half a second", func(l *Limit) { l.Window = 1500 * time.Millisecond }, CodeBadWindow},
		{"367 days", func(l *Limit) { l.Window = MaxWindow + time.Second }, CodeBadWindow},
		{"no asset", func(l *Limit) { l.Asset = "" }, CodeBadAsset},
	}
	for _, a := range []string{"ether", "eip155:1", "eip155:1/", "eip155:1/slip44", "eip155:1/slip44:x", "eip155:01/slip44:60", "eip155:x/slip44:60",
		"eip155:1/erc20:0x12", "eip155:1/erc20:0xa0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "eip155:1/erc404:" + recipient, "eip155:1/erc20:" + recipient + "/1",
		"bip122:000000000019d6689c085ae165831e93/slip44:0", "solana:abc/token:nope", "EIP155:1/slip44:60", "eip155:1/slip44:60 ", "solana:abc/erc20:" + recipient} {
		rows = append(rows, struct {
			name string
			edit func(*Limit)
			code string
		}{a, func(l *Limit) { l.Asset = a }, CodeBadAsset})
	}
	for _, row := range rows {
		l := good
		row.edit(&l)
		s, ds := Compile(nil, []Limit{l}, nil)
		if s != nil || len(ds) != 1 || ds[0].Code != row.code || ds[0].Clause != ClauseLimit {
			t.Errorf("%s: got set %v and %v, want %s", row.name, s != nil, ds, row.code)
		}
	}
	if s, ds := Compile(nil, []Limit{good, good}, nil); s != nil || ds[0].Code != CodeDuplicateID {
		t.Errorf("twice: got %v", ds)
	}
	for _, w := range []time.Duration{0, time.Second, MaxWindow} {
		l := good
		l.Window = w
		if s, ds := Compile(nil, []Limit{l}, nil); s == nil {
			t.Errorf("window %v: got %v", w, ds)
		}
	}
	if _, ds := Compile(nil, []Limit{{ID: "l", Asset: ether}}, nil); len(ds) != 1 || ds[0].Code != CodeNoFees || ds[0].Severity != SeverityLint {
		t.Errorf("native asset without fees: got %v", ds)
	}
}

func TestCompiledLimitsAreCanonical(t *testing.T) {
	s, _ := Compile(nil, []Limit{{ID: "z", Asset: "eip155:1/erc20:" + usdc}, {ID: "a", Asset: lamports, IncludeFees: true}}, nil)
	got := s.Limits()
	if fmt.Sprint(got[0].ID, got[1].ID) != "a z" && got[0].ID+got[1].ID != "az" || got[1].Asset != usdcAsset {
		t.Errorf("got %v", got)
	}
	got[0].ID = "changed"
	if s.Limits()[0].ID != "a" {
		t.Error("the set's own slice was lent")
	}
}
