package solana

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

func read(t testing.TB, in []byte, wallet [32]byte) *chains.Decoded {
	t.Helper()
	d, err := Decode(in, wallet, mainnet, Known{})
	if err != nil {
		t.Fatal(err)
	}
	if err := TxType.Conform(d.View[Root]); err != nil {
		t.Fatalf("view: %v", err)
	}
	return d
}

func TestTransferAndFeeAreCharged(t *testing.T) {
	d := read(t, fiveInstructions(), payer)
	want := []chains.Charge{
		{Chain: mainnet, Asset: mainnet + "/slip44:501", What: "transfer", To: Address(to)},
		{Chain: mainnet, Asset: mainnet + "/slip44:501", What: "fee"},
	}
	want[0].Amount.SetUint64(500_000_000)
	want[1].Amount.SetUint64(5000 + 1500) // 30000 units at 50000 micro-lamports
	if d.Opaque || len(d.Charges) != 2 || d.Charges[0] != want[0] || d.Charges[1] != want[1] {
		t.Errorf("opaque %v, charges %+v, want %+v", d.Opaque, d.Charges, want)
	}
}

func TestOtherSignersPayTheirOwn(t *testing.T) {
	// payer pays the fee and sends; other signs too and sends its own lamports.
	in := build([]step{transferStep(7), {program: systemProgram, accounts: []byte{1, 2}, data: transferStep(9).data}}, func(m *draft) {
		m.keys[1] = other
		m.signers = 2
	})
	d := read(t, in, other)
	if len(d.Charges) != 1 || d.Charges[0].Amount.Uint64() != 9 || d.Charges[0].What != "transfer" {
		t.Errorf("charges of the second signer: %+v", d.Charges)
	}
	if !strings.Contains(d.Summary, "fee paid by "+Address(payer)) || !strings.Contains(d.Summary, "also signed by "+Address(payer)) {
		t.Errorf("summary %q", d.Summary)
	}
	if got := len(elements(root(t, d, "transfers"))); got != 2 {
		t.Errorf("%d transfers in the view, want 2", got)
	}
	d = read(t, in, payer)
	if len(d.Charges) != 2 || d.Charges[0].Amount.Uint64() != 7 || d.Charges[1].Amount.Uint64() != 2*5000 {
		t.Errorf("charges of the fee payer: %+v", d.Charges)
	}
}

func TestFees(t *testing.T) {
	for name, tc := range map[string]struct {
		calls []step
		want  string
	}{
		"signature only":      {[]step{transferStep(1)}, "5000"},
		"limit without price": {[]step{unitLimit(1_000_000), transferStep(1)}, "5000"},
		"rounded up":          {[]step{unitLimit(1), unitPrice(1), transferStep(1)}, "5001"},
		"exact":               {[]step{unitLimit(1_000_000), unitPrice(3), transferStep(1)}, "5003"},
		"limit is capped":     {[]step{unitLimit(math.MaxUint32), unitPrice(1_000_000), transferStep(1)}, "1405000"},
		"no limit":            {[]step{unitPrice(1_000_000), transferStep(1)}, "208000"},
		"no limit, many":      {[]step{unitPrice(1_000_000), memo(""), memo(""), memo(""), memo(""), memo(""), memo(""), memo(""), memo("")}, "1405000"},
		"highest price":       {[]step{unitLimit(1_400_000), unitPrice(math.MaxUint64), transferStep(1)}, "25825441703193377261"},
		"precompiles":         {[]step{{program: ed25519Program, accounts: nil, data: []byte{3, 0}}, {program: secp256k1Program, accounts: nil, data: []byte{255}}, {program: secp256r1Program, accounts: nil, data: nil}}, "1295000"},
	} {
		d := read(t, build(tc.calls), payer)
		fee := d.Charges[len(d.Charges)-1]
		if fee.What != "fee" || fee.Unbounded || fee.Amount.Dec() != tc.want || fee.To != "" {
			t.Errorf("%s: fee %+v, want %s", name, fee, tc.want)
		}
	}
}

// What the runtime would read in its lax way and we do not: opaque, fee unbounded.
func TestUnknownComputeBudget(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty": {}, "deprecated tag": {0, 1, 0, 0, 0, 1, 0, 0, 0}, "unknown tag": {5, 1, 0, 0, 0},
		"short price": {3, 1, 0, 0}, "trailing byte": append(unitPrice(5).data, 0),
	} {
		d := read(t, build([]step{{program: computeBudgetProgram, accounts: nil, data: data}, transferStep(1)}), payer)
		fee := d.Charges[len(d.Charges)-1]
		if !d.Opaque || fee.What != "fee" || !fee.Unbounded || !strings.Contains(d.Summary, "fee not known") {
			t.Errorf("%s: opaque %v, fee %+v, %s", name, d.Opaque, fee, d.Summary)
		}
	}
	for _, tag := range []byte{1, 4} { // heap frame, loaded accounts data size
		d := read(t, build([]step{{program: computeBudgetProgram, accounts: nil, data: []byte{tag, 0, 0, 4, 0}}, transferStep(1)}), payer)
		if d.Opaque || d.Charges[1].Amount.Uint64() != 5000 {
			t.Errorf("tag %d: opaque %v, fee %+v", tag, d.Opaque, d.Charges[1])
		}
	}
}

func TestEverythingElseIsOpaque(t *testing.T) {
	transfer := transferStep(1)
	steps := map[string]step{
		"trailing byte":   {program: systemProgram, accounts: []byte{0, 1}, data: append(bytes.Clone(transfer.data), 0)},
		"short amount":    {program: systemProgram, accounts: []byte{0, 1}, data: transfer.data[:11]},
		"one account":     {program: systemProgram, accounts: []byte{0}, data: transfer.data},
		"three accounts":  {program: systemProgram, accounts: []byte{0, 1, 2}, data: transfer.data},
		"no data":         {program: systemProgram, accounts: []byte{0, 1}},
		"unknown program": {program: [32]byte(repeat(0x77))},
	}
	for tag := byte(0); tag < 16; tag++ {
		if tag != 2 { // 13 accounts and 8 bytes are no instruction's
			steps["system tag "+string('a'+rune(tag))] = step{program: systemProgram, accounts: bytes.Repeat([]byte{0}, 13), data: append([]byte{tag, 0, 0, 0}, transfer.data[4:]...)}
		}
		if tag != 0 {
			steps["stake tag "+string('a'+rune(tag))] = step{program: stakeProgram, accounts: bytes.Repeat([]byte{0}, 13), data: append([]byte{tag, 0, 0, 0}, transfer.data[4:]...)}
		}
	}
	for tag := range 256 {
		for name, program := range map[string][32]byte{"token": tokenProgram, "token-2022": token2022Program, "associated": associatedProgram} {
			steps[fmt.Sprintf("%s tag %d", name, tag)] = step{program: program, accounts: []byte{1, 1, 0}, data: []byte{byte(tag), 1, 2}}
		}
	}
	delete(steps, "associated tag 0")
	for name, c := range steps {
		d := read(t, build([]step{transfer, c}), payer)
		if !d.Opaque || !root(t, d, "transfers").Partial || !root(t, d, "spl_transfers").Partial {
			t.Errorf("%s: not opaque: %s", name, d.Summary)
		}
		if !strings.Contains(d.Summary, "not understood") {
			t.Errorf("%s: summary %q", name, d.Summary)
		}
		if len(d.Charges) != 2 || d.Charges[0].Amount.Uint64() != 1 { // what is understood is charged
			t.Errorf("%s: charges %+v", name, d.Charges)
		}
	}
}

func TestLookupTablesAreNotResolved(t *testing.T) {
	in := build([]step{{program: systemProgram, accounts: []byte{0, 5}, data: transferStep(3).data}}, func(m *draft) {
		m.lookups = []lookup{
			{table: table, writable: []byte{9}, readonly: []byte{7}},
			{table: to[:], writable: []byte{200, 8}},
		}
	})
	d := read(t, in, payer)
	if !d.Opaque || root(t, d, "transfers").Partial || text(elements(root(t, d, "transfers"))[0].List[1]) != chains.AddressTableLookup {
		t.Fatal("a message with lookup tables is not opaque, or its transfers are not known")
	}
	if d.Charges[0].To != chains.AddressTableLookup || d.Charges[0].Amount.Uint64() != 3 {
		t.Errorf("charge %+v", d.Charges[0])
	}
	keys := elements(root(t, d, "account_keys"))
	if len(keys) != 8 || text(keys[3]) != Address(systemProgram) {
		t.Fatalf("%d account keys", len(keys))
	}
	for _, k := range keys[4:] {
		if k.Kind != chains.KindPubkey || k.Raw != nil || text(k) != "ADDRESS_TABLE_LOOKUP" {
			t.Errorf("account behind a table: %+v", k)
		}
	}
	// Account 5 is the second writable one: entry 200 of the second table.
	single := elements(field(t, typeInstruction, elements(root(t, d, "instructions"))[0], "address_table_lookups"))
	if len(single) != 1 || text(field(t, typeSingleLookup, single[0], "address_table_key")) != Address(to) ||
		number(field(t, typeSingleLookup, single[0], "index")) != 200 || number(field(t, typeSingleLookup, single[0], "writable")) == 0 {
		t.Errorf("table entry %+v", single)
	}
	m, err := parse(in)
	if err != nil {
		t.Fatal(err)
	}
	if l := m.loaded[3]; l != (loadedAccount{table: 0, index: 7}) {
		t.Errorf("account 7 is %+v", l)
	}
}

func TestDurableNonce(t *testing.T) {
	advance := step{program: systemProgram, accounts: []byte{1, 2, 0}, data: []byte{4, 0, 0, 0}}
	d := read(t, build([]step{advance, transferStep(1)}), payer)
	nonce := root(t, d, "durable_nonce")
	if d.Opaque || nonce.Kind != chains.KindStruct || text(nonce.List[0]) != Address(to) || text(nonce.List[1]) != Address(payer) {
		t.Errorf("opaque %v, durable nonce %+v", d.Opaque, nonce)
	}
	if want := "solana-nonce:" + mainnet + ":" + Address(to) + ":" + Address([32]byte(repeat(0x55))); len(d.ReplayKeys) != 1 || d.ReplayKeys[0] != want {
		t.Errorf("replay keys %v, want %s", d.ReplayKeys, want)
	}
	// In any other shape the runtime may still take it for one: guarded and opaque.
	for name, c := range map[string]step{
		"trailing byte":      {program: systemProgram, accounts: advance.accounts, data: []byte{4, 0, 0, 0, 0}},
		"two accounts":       {program: systemProgram, accounts: []byte{1, 2}, data: advance.data},
		"another sysvar":     {program: systemProgram, accounts: []byte{1, 1, 0}, data: advance.data},
		"authority not sign": {program: systemProgram, accounts: []byte{1, 2, 1}, data: advance.data},
	} {
		d := read(t, build([]step{c, transferStep(1)}), payer)
		if !d.Opaque || len(d.Guards) != 1 || root(t, d, "durable_nonce").Kind != chains.KindAbsent {
			t.Errorf("%s: opaque %v, guards %v", name, d.Opaque, d.Guards)
		}
	}
	readonly := build([]step{advance, transferStep(1)}, func(m *draft) { m.roOther = 3 })
	if d := read(t, readonly, payer); !d.Opaque || len(d.Guards) != 1 {
		t.Errorf("read-only nonce account: opaque %v, guards %v", d.Opaque, d.Guards)
	}
}

func TestSummary(t *testing.T) {
	p, q := Address(payer), Address(to)
	for name, tc := range map[string]struct {
		calls []step
		want  string
	}{
		"transfer": {[]step{transferStep(500_000_000)},
			"send 0.5 SOL (500000000 lamports) from " + p + " to " + q + "; fee at most 0.000005 SOL (5000 lamports)"},
		"memo": {[]step{memo("hi\n\x1b[2J\u202egnp"), transferStep(1)},
			`memo "hi\n\x1b[2J\u202egnp"; send 0.000000001 SOL (1 lamports) from ` + p + " to " + q + "; fee at most 0.000005 SOL (5000 lamports)"},
		"long memo": {[]step{memo(strings.Repeat("a", 81))},
			`memo "` + strings.Repeat("a", 80) + `" and more; fee at most 0.000005 SOL (5000 lamports)`},
		"opaque": {[]step{{program: systemProgram, accounts: []byte{0}, data: []byte{1, 0, 0, 0}}},
			"call 11111111111111111111111111111111 (System assign) with 1 accounts and 4 bytes of data (not understood); fee at most 0.000005 SOL (5000 lamports)"},
	} {
		if d := read(t, build(tc.calls), payer); d.Summary != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, d.Summary, tc.want)
		}
	}
}
