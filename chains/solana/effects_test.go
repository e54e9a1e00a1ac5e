package solana

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// parties is a message in which account 0 is payer, 1 is other and signs too, 2 is
// the sysvar of blockhashes, 3 is to; then the programs.
func parties(s ...step) []byte {
	return build(s, func(d *draft) {
		for i := range d.steps {
			if d.steps[i].at > 2 {
				d.steps[i].at++
			}
		}
		d.signers, d.keys[1] = 2, other
		d.keys = slices.Insert(d.keys, 3, to)
	})
}

func le64(head []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(head, n) }

// with appends keys and numbers.
func with(head []byte, parts ...[]byte) []byte {
	out := slices.Clone(head)
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Who spends what by which instruction; amounts are 7, recipients account 3. Fees
// are left out, and so is what the payer, account 0, is asked.
func TestChargesOfInstructions(t *testing.T) {
	u32 := func(n byte) []byte { return []byte{n, 0, 0, 0} }
	seed := append(le64(nil, 1), 's')
	owner := repeat(0x99)
	const sol, any = "slip44:501", chains.AnyToken
	mint := "token:" + Address(to)
	for name, tc := range map[string]struct {
		program [32]byte
		data    []byte
		// accounts with other in the place of the authority
		accounts []byte
		// want is what other spends: what, asset, amount ("" unbounded), recipient
		want []string
		// yields: it comes under another's control, and a policy must look at it
		yields bool
	}{
		"transfer":                    {systemProgram, le64(u32(2), 7), []byte{1, 3}, []string{"transfer " + sol + " 7 " + Address(to)}, false},
		"transfer of nothing":         {systemProgram, le64(u32(2), 0), []byte{1, 3}, nil, false},
		"transfer of the payer's":     {systemProgram, le64(u32(2), 7), []byte{0, 3}, nil, false},
		"create":                      {systemProgram, with(le64(le64(u32(0), 7), 165), owner), []byte{1, 3}, []string{"create " + sol + " 7 " + Address(to)}, false},
		"become another's account":    {systemProgram, with(le64(le64(u32(0), 7), 165), owner), []byte{0, 1}, []string{"control " + sol + "  " + Address(payer)}, true},
		"create with seed":            {systemProgram, with(u32(3), other[:], seed, le64(le64(nil, 7), 165), owner), []byte{1, 3}, []string{"create " + sol + " 7 " + Address(to)}, false},
		"create with base":            {systemProgram, with(u32(3), payer[:], seed, le64(le64(nil, 7), 165), owner), []byte{1, 3, 0}, []string{"create " + sol + " 7 " + Address(to)}, false},
		"assign":                      {systemProgram, with(u32(1), owner), []byte{1}, []string{"control " + sol + "  " + Address(other)}, true},
		"assign of another":           {systemProgram, with(u32(1), owner), []byte{0}, nil, false},
		"allocate":                    {systemProgram, le64(u32(8), 100), []byte{1}, []string{"control " + sol + "  " + Address(other)}, true},
		"allocate with seed":          {systemProgram, with(u32(9), other[:], seed, le64(nil, 7), owner), []byte{3, 1}, []string{"control " + sol + "  " + Address(to)}, true},
		"assign with seed":            {systemProgram, with(u32(10), other[:], seed, owner), []byte{3, 1}, []string{"control " + sol + "  " + Address(to)}, true},
		"transfer with seed":          {systemProgram, with(le64(u32(11), 7), seed, owner), []byte{0, 1, 3}, []string{"transfer " + sol + " 7 " + Address(to)}, false},
		"withdraw nonce":              {systemProgram, le64(u32(5), 7), []byte{0, 3, 2, 2, 1}, []string{"transfer " + sol + " 7 " + Address(to)}, false},
		"withdraw nonce to oneself":   {systemProgram, le64(u32(5), 7), []byte{0, 1, 2, 2, 1}, nil, false},
		"authorize nonce":             {systemProgram, with(u32(7), owner), []byte{3, 1}, []string{"control " + sol + "  " + Address(to)}, true},
		"initialize nonce":            {systemProgram, with(u32(6), owner), []byte{3, 2, 2}, nil, false},
		"upgrade nonce":               {systemProgram, u32(12), []byte{3}, nil, false},
		"advance nonce, not first":    {systemProgram, u32(4), []byte{3, 2, 1}, nil, false},
		"token transfer":              {tokenProgram, le64([]byte{3}, 7), []byte{0, 3, 1}, []string{"transfer " + any + " 7 " + Address(to)}, false},
		"token transfer, multisig":    {tokenProgram, le64([]byte{3}, 7), []byte{2, 3, 2, 1}, []string{"transfer " + any + " 7 " + Address(to)}, false},
		"token transfer of the payer": {tokenProgram, le64([]byte{3}, 7), []byte{0, 3, 0}, nil, false},
		"checked transfer":            {tokenProgram, append(le64([]byte{12}, 7), 2), []byte{0, 3, 3, 1}, []string{"transfer " + mint + " 7 " + Address(to)}, false},
		"checked with fee":            {token2022Program, le64(append(le64([]byte{26, 1}, 7), 2), 1), []byte{0, 3, 3, 1}, []string{"transfer " + mint + " 7 " + Address(to)}, false},
		"approve":                     {tokenProgram, le64([]byte{4}, 7), []byte{0, 3, 1}, []string{"approval " + any + " 7 " + Address(to)}, true},
		"checked approve":             {tokenProgram, append(le64([]byte{13}, 7), 2), []byte{0, 3, 3, 1}, []string{"approval " + mint + " 7 " + Address(to)}, true},
		"revoke":                      {tokenProgram, []byte{5}, []byte{0, 1}, nil, false},
		"set authority":               {tokenProgram, with([]byte{6, 2, 1}, owner), []byte{3, 1}, []string{"control " + sol + "  " + Address(to), "control " + any + "  " + Address(to)}, true},
		"set no authority":            {tokenProgram, []byte{6, 3, 0}, []byte{3, 1}, []string{"control " + sol + "  " + Address(to), "control " + any + "  " + Address(to)}, true},
		"set authority of another":    {tokenProgram, []byte{6, 3, 0}, []byte{3, 0}, nil, false},
		"mint":                        {tokenProgram, le64([]byte{7}, 7), []byte{3, 3, 1}, []string{"mint " + mint + " 7 " + Address(to)}, false},
		"checked mint":                {tokenProgram, append(le64([]byte{14}, 7), 2), []byte{3, 3, 1}, []string{"mint " + mint + " 7 " + Address(to)}, false},
		"burn":                        {tokenProgram, le64([]byte{8}, 7), []byte{3, 3, 1}, []string{"burn " + mint + " 7 " + Address(to)}, false},
		"checked burn":                {tokenProgram, append(le64([]byte{15}, 7), 2), []byte{3, 3, 1}, []string{"burn " + mint + " 7 " + Address(to)}, false},
		"close":                       {tokenProgram, []byte{9}, []byte{3, 0, 1}, []string{"control " + sol + "  " + Address(to), "control " + any + "  " + Address(to)}, true},
		"close to oneself":            {tokenProgram, []byte{9}, []byte{3, 1, 1}, nil, false},
		"freeze":                      {tokenProgram, []byte{10}, []byte{3, 3, 1}, nil, false},
		"sync":                        {tokenProgram, []byte{17}, []byte{3}, nil, false},
		"stake withdraw":              {stakeProgram, le64(u32(4), 7), []byte{0, 3, 2, 2, 1}, []string{"transfer " + sol + " 7 " + Address(to)}, false},
		"stake withdraw to oneself":   {stakeProgram, le64(u32(4), 7), []byte{0, 1, 2, 2, 1}, nil, false},
		"stake withdraw, custodian":   {stakeProgram, le64(u32(4), 7), []byte{0, 3, 2, 2, 1, 0}, []string{"transfer " + sol + " 7 " + Address(to)}, false},
		"stake authorize":             {stakeProgram, with(u32(1), owner, u32(1)), []byte{3, 2, 1}, []string{"control " + sol + "  " + Address(to)}, true},
		"stake lockup":                {stakeProgram, with(u32(6), []byte{0, 0, 1}, owner), []byte{3, 1}, []string{"control " + sol + "  " + Address(to)}, true},
		"stake split":                 {stakeProgram, le64(u32(3), 7), []byte{3, 3, 1}, nil, false},
		"stake deactivate":            {stakeProgram, u32(5), []byte{3, 2, 1}, nil, false},
		"stake merge":                 {stakeProgram, u32(7), []byte{3, 3, 2, 2, 1}, nil, false},
		"stake delegate":              {stakeProgram, u32(2), []byte{3, 3, 2, 2, 2, 1}, nil, false},
	} {
		d, err := Decode(parties(step{program: tc.program, accounts: tc.accounts, data: tc.data}), other, mainnet, Known{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name == "advance nonce, not first" {
			d, err = Decode(parties(memo("x"), step{program: tc.program, accounts: tc.accounts, data: tc.data}), other, mainnet, Known{})
			if err != nil || root(t, d, "durable_nonce").Kind != chains.KindAbsent {
				t.Errorf("%s: %v: durable", name, err)
			}
		}
		if d.Opaque {
			t.Errorf("%s: opaque: %s", name, d.Summary)
		}
		var got []string
		for _, c := range d.Charges {
			amount := c.Amount.Dec()
			if c.Unbounded {
				amount = ""
			}
			got = append(got, fmt.Sprintf("%s %s %s %s", c.What, strings.TrimPrefix(c.Asset, mainnet+"/"), amount, c.To))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: charges %q, want %q", name, got, tc.want)
		}
		if yields := slices.Contains(d.Guards, "solana.tx.instructions"); yields != tc.yields {
			t.Errorf("%s: guards %v", name, d.Guards)
		}
		if !slices.Contains(d.Guards, "solana.tx.fee_payer") { // the payer is not the wallet
			t.Errorf("%s: guards %v", name, d.Guards)
		}
	}
}

func TestAssociatedAccountsCostRent(t *testing.T) {
	programs := []byte{4, 5} // System, a token program
	for name, tc := range map[string]struct {
		data, accounts []byte
		token          [32]byte
		want           string // what the payer is charged beside the fee
		opaque         bool
	}{
		"create, older form":    {nil, with([]byte{0, 3, 3, 3}, programs), tokenProgram, "create 2039280", false},
		"create":                {[]byte{0}, with([]byte{0, 3, 3, 3}, programs), tokenProgram, "create 2039280", false},
		"idempotent":            {[]byte{1}, with([]byte{0, 3, 3, 3}, programs), tokenProgram, "create 2039280", false},
		"idempotent, 2022":      {[]byte{1}, with([]byte{0, 3, 3, 3}, programs), token2022Program, "create unbounded", false},
		"recover":               {[]byte{2}, []byte{3, 3, 3, 3, 3, 0, 5}, tokenProgram, "", false},
		"another token program": {[]byte{1}, with([]byte{0, 3, 3, 3}, programs), [32]byte(repeat(0x77)), "", true},
		"another system":        {[]byte{1}, []byte{0, 3, 3, 3, 5, 5}, tokenProgram, "", true},
		"seven accounts":        {[]byte{1}, with([]byte{0, 3, 3, 3}, programs, []byte{3}), tokenProgram, "", true},
		"unknown tag":           {[]byte{3}, with([]byte{0, 3, 3, 3}, programs), tokenProgram, "", true},
		"two bytes":             {[]byte{1, 0}, with([]byte{0, 3, 3, 3}, programs), tokenProgram, "", true},
	} {
		in := build([]step{{program: associatedProgram, accounts: tc.accounts, data: tc.data}}, func(d *draft) {
			d.keys = [][32]byte{payer, other, recentBlockhashes, to, systemProgram, tc.token, associatedProgram}
			d.steps[0].at = 6
		})
		d := read(t, in, payer)
		got := ""
		for _, c := range d.Charges[:len(d.Charges)-1] {
			got = c.What + " " + c.Amount.Dec()
			if c.Unbounded {
				got = c.What + " unbounded"
			}
		}
		if got != tc.want || d.Opaque != tc.opaque {
			t.Errorf("%s: charged %q, opaque %v, want %q, %v", name, got, d.Opaque, tc.want, tc.opaque)
		}
	}
}

// Behind a table that is not pinned amounts are known, but not whose they are.
func TestUnknownTokens(t *testing.T) {
	in := build([]step{{program: tokenProgram, accounts: []byte{1, 4, 1, 0}, data: append(le64([]byte{12}, 7), 2)}}, func(d *draft) {
		d.lookups = []lookup{{table: table, readonly: []byte{5}}}
	})
	d := read(t, in, payer)
	if !d.Opaque || d.Charges[0].Asset != mainnet+"/"+chains.AnyToken || d.Charges[0].Amount.Uint64() != 7 {
		t.Errorf("opaque %v, charges %+v", d.Opaque, d.Charges)
	}
	if !strings.Contains(d.Summary, "of token an account behind a lookup table") || !strings.Contains(d.Summary, "1 accounts are behind lookup tables and not known") {
		t.Errorf("summary %s", d.Summary)
	}
	mint := [32]byte(repeat(0x66))
	pinned, err := NewTable([32]byte(table), [][32]byte{{1}, {2}, {3}, {4}, {5}, mint})
	if err != nil {
		t.Fatal(err)
	}
	known := Known{Tables: map[[32]byte]*Table{[32]byte(table): pinned}}
	if d, err = Decode(in, payer, mainnet, known); err != nil || d.Opaque || d.Charges[0].Asset != mainnet+"/token:"+Address(mint) {
		t.Errorf("pinned: %v, charges %+v", err, d.Charges)
	}
}

func TestTablesAreResolvedOrNot(t *testing.T) {
	entry := func(k byte) [32]byte { return [32]byte(repeat(k)) }
	uses := func(l ...lookup) []byte {
		return build([]step{transferStep(1)}, func(d *draft) { d.lookups = l })
	}
	pin := func(entries ...[32]byte) map[[32]byte]*Table {
		return map[[32]byte]*Table{[32]byte(table): newTable([32]byte(table), entries)}
	}
	second := lookup{table: repeat(0x45), writable: []byte{0}}
	for name, tc := range map[string]struct {
		in     []byte
		tables map[[32]byte]*Table
		all    string // with AllTables: the refusal
		some   string // without: the refusal; "?" for opaque, "" for known
	}{
		"known":             {uses(lookup{table: table, writable: []byte{1}}), pin(entry(1), entry(2)), "", ""},
		"missing":           {uses(lookup{table: table, writable: []byte{1}}), nil, "is not given", "?"},
		"short":             {uses(lookup{table: table, writable: []byte{2}}), pin(entry(1), entry(2)), "has 2 entries, entry 2 is used", "?"},
		"one of two":        {uses(lookup{table: table, writable: []byte{1}}, second), pin(entry(1), entry(2)), "is not given", "?"},
		"a static key":      {uses(lookup{table: table, writable: []byte{0}}), pin(to), "loaded twice", "loaded twice"},
		"one account twice": {uses(lookup{table: table, writable: []byte{0, 1}}), pin(entry(1), entry(1)), "loaded twice", "loaded twice"},
		"the wallet":        {uses(lookup{table: table, readonly: []byte{0}}), pin(payer), "loaded twice", "loaded twice"},
	} {
		for all, want := range map[bool]string{true: tc.all, false: tc.some} {
			d, err := Decode(tc.in, payer, mainnet, Known{Tables: tc.tables, AllTables: all})
			switch {
			case want == "" || want == "?":
				if err != nil || d.Opaque != (want == "?") {
					t.Errorf("%s, all %v: %v", name, all, err)
				}
			case err == nil || !strings.Contains(err.Error(), want):
				t.Errorf("%s, all %v: got %v, want %s", name, all, err, want)
			}
		}
	}
	if _, err := NewTable([32]byte(table), nil); err == nil {
		t.Error("an empty pin")
	}
	if _, err := NewTable([32]byte(table), make([][32]byte, 257)); err == nil {
		t.Error("a pin of 257 entries")
	}
}

func TestTokenSummaries(t *testing.T) {
	p, q, o := Address(payer), Address(to), Address(other)
	for name, tc := range map[string]struct {
		s    step
		want string
	}{
		"checked":     {step{program: tokenProgram, accounts: []byte{3, 3, 3, 1}, data: append(le64([]byte{12}, 12345), 2)}, "send 123.45 (12345 units) of token " + q + " from account " + q + " of " + o + " to account " + q},
		"many digits": {step{program: tokenProgram, accounts: []byte{3, 3, 3, 1}, data: append(le64([]byte{12}, 5), 200)}, "send 5 units of token " + q},
		"plain":       {step{program: tokenProgram, accounts: []byte{3, 3, 1}, data: le64([]byte{3}, 5)}, "send 5 units of the token of account " + q + " of " + o},
		"authority":   {step{program: tokenProgram, accounts: []byte{3, 1}, data: []byte{6, 2, 0}}, "make nobody the accountOwner authority of " + q + " in place of " + o},
		"stake":       {step{program: stakeProgram, accounts: []byte{3, 2, 1}, data: with([]byte{1, 0, 0, 0}, payer[:], []byte{1, 0, 0, 0})}, "make " + p + " the Withdrawer of stake account " + q},
		"lockup":      {step{program: stakeProgram, accounts: []byte{3, 1}, data: with([]byte{6, 0, 0, 0, 1}, le64(nil, 1<<64-5), []byte{0, 0})}, "until time -5 and epoch unchanged, new custodian nobody"},
		"seed":        {step{program: systemProgram, accounts: []byte{1, 3}, data: with([]byte{3, 0, 0, 0}, other[:], le64(nil, 2), []byte("s\n"), le64(le64(nil, 7), 9), payer[:])}, "create account " + q + " of 9 bytes, derived from " + o + ", for program " + p},
	} {
		d := read(t, parties(tc.s), other)
		if !strings.HasPrefix(d.Summary, tc.want) && !strings.Contains(d.Summary, tc.want) {
			t.Errorf("%s:\n got %s\nwant %s", name, d.Summary, tc.want)
		}
		if !strings.Contains(d.Summary, "also signed by "+p+"; fee paid by "+p) {
			t.Errorf("%s: %s", name, d.Summary)
		}
	}
}
