package solana

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

func decode(t testing.TB, in []byte, wallet [32]byte) *chains.Decoded {
	t.Helper()
	d, err := Decode(in, wallet, mainnet)
	if err != nil {
		t.Fatal(err)
	}
	if err := TxType.Conform(d.View[Root]); err != nil {
		t.Fatalf("view: %v", err)
	}
	return d
}

func TestTransferAndFeeAreCharged(t *testing.T) {
	d := decode(t, fiveInstructions(), payer)
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
	in := build([]call{transferCall(7), {systemProgram, []byte{1, 2}, transferCall(9).data}}, func(m *message) {
		copy(m.keys[32:64], other[:])
		m.signers = 2
	})
	d := decode(t, in, other)
	if len(d.Charges) != 1 || d.Charges[0].Amount.Uint64() != 9 || d.Charges[0].What != "transfer" {
		t.Errorf("charges of the second signer: %+v", d.Charges)
	}
	if !strings.Contains(d.Summary, "fee paid by "+Address(payer)) || !strings.Contains(d.Summary, "also signed by "+Address(payer)) {
		t.Errorf("summary %q", d.Summary)
	}
	if got := len(root(t, d, "transfers").List); got != 2 {
		t.Errorf("%d transfers in the view, want 2", got)
	}
	d = decode(t, in, payer)
	if len(d.Charges) != 2 || d.Charges[0].Amount.Uint64() != 7 || d.Charges[1].Amount.Uint64() != 2*5000 {
		t.Errorf("charges of the fee payer: %+v", d.Charges)
	}
}

func TestFees(t *testing.T) {
	for name, tc := range map[string]struct {
		calls []call
		want  string
	}{
		"signature only":      {[]call{transferCall(1)}, "5000"},
		"limit without price": {[]call{unitLimit(1_000_000), transferCall(1)}, "5000"},
		"rounded up":          {[]call{unitLimit(1), unitPrice(1), transferCall(1)}, "5001"},
		"exact":               {[]call{unitLimit(1_000_000), unitPrice(3), transferCall(1)}, "5003"},
		"limit is capped":     {[]call{unitLimit(math.MaxUint32), unitPrice(1_000_000), transferCall(1)}, "1405000"},
		"no limit":            {[]call{unitPrice(1_000_000), transferCall(1)}, "208000"},
		"no limit, many":      {[]call{unitPrice(1_000_000), memo(""), memo(""), memo(""), memo(""), memo(""), memo(""), memo(""), memo("")}, "1405000"},
		"highest price":       {[]call{unitLimit(1_400_000), unitPrice(math.MaxUint64), transferCall(1)}, "25825441703193377261"},
		"precompiles":         {[]call{{ed25519Program, nil, []byte{3, 0}}, {secp256k1Program, nil, []byte{255}}, {secp256r1Program, nil, nil}}, "1295000"},
	} {
		d := decode(t, build(tc.calls), payer)
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
		d := decode(t, build([]call{{computeBudgetProgram, nil, data}, transferCall(1)}), payer)
		fee := d.Charges[len(d.Charges)-1]
		if !d.Opaque || fee.What != "fee" || !fee.Unbounded || !strings.Contains(d.Summary, "fee not known") {
			t.Errorf("%s: opaque %v, fee %+v, %s", name, d.Opaque, fee, d.Summary)
		}
	}
	for _, tag := range []byte{1, 4} { // heap frame, loaded accounts data size
		d := decode(t, build([]call{{computeBudgetProgram, nil, []byte{tag, 0, 0, 4, 0}}, transferCall(1)}), payer)
		if d.Opaque || d.Charges[1].Amount.Uint64() != 5000 {
			t.Errorf("tag %d: opaque %v, fee %+v", tag, d.Opaque, d.Charges[1])
		}
	}
}

func TestEverythingElseIsOpaque(t *testing.T) {
	transfer := transferCall(1)
	calls := map[string]call{
		"trailing byte":   {systemProgram, []byte{0, 1}, append(bytes.Clone(transfer.data), 0)},
		"short amount":    {systemProgram, []byte{0, 1}, transfer.data[:11]},
		"one account":     {systemProgram, []byte{0}, transfer.data},
		"three accounts":  {systemProgram, []byte{0, 1, 2}, transfer.data},
		"no data":         {systemProgram, []byte{0, 1}, nil},
		"nonce not first": {systemProgram, []byte{1, 2, 0}, []byte{4, 0, 0, 0}},
		"unknown program": {[32]byte(repeat(0x77)), nil, nil},
		"token program":   {mustKey("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"), []byte{1, 1, 0}, []byte{3, 1, 0, 0, 0, 0, 0, 0, 0}},
	}
	for tag := byte(0); tag < 14; tag++ {
		if tag != systemTransfer && tag != systemAdvanceNonce {
			calls["system tag "+string('a'+tag)] = call{systemProgram, []byte{0, 1}, append([]byte{tag, 0, 0, 0}, transfer.data[4:]...)}
		}
	}
	for name, c := range calls {
		d := decode(t, build([]call{transfer, c}), payer)
		if !d.Opaque || root(t, d, "transfers").Kind != chains.KindAbsent || root(t, d, "spl_transfers").Kind != chains.KindAbsent {
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
	in := build([]call{{systemProgram, []byte{0, 5}, transferCall(3).data}}, func(m *message) {
		m.lookups = []lookup{
			{table: table, writable: []byte{9}, readonly: []byte{7}},
			{table: to[:], writable: []byte{200, 8}},
		}
	})
	d := decode(t, in, payer)
	if !d.Opaque || root(t, d, "transfers").Kind != chains.KindAbsent {
		t.Fatal("a message with lookup tables is not opaque")
	}
	if d.Charges[0].To != chains.AddressTableLookup || d.Charges[0].Amount.Uint64() != 3 {
		t.Errorf("charge %+v", d.Charges[0])
	}
	keys := root(t, d, "account_keys").List
	if len(keys) != 8 || text(keys[3]) != Address(systemProgram) {
		t.Fatalf("%d account keys", len(keys))
	}
	for _, k := range keys[4:] {
		if k.Kind != chains.KindPubkey || k.Raw != nil || text(k) != "ADDRESS_TABLE_LOOKUP" {
			t.Errorf("account behind a table: %+v", k)
		}
	}
	// Account 5 is the second writable one: entry 200 of the second table.
	single := field(t, typeInstruction, root(t, d, "instructions").List[0], "address_table_lookups").List
	if len(single) != 1 || text(field(t, typeSingleLookup, single[0], "address_table_key")) != Address(to) ||
		number(field(t, typeSingleLookup, single[0], "index")) != 200 || number(field(t, typeSingleLookup, single[0], "writable")) == 0 {
		t.Errorf("table entry %+v", single)
	}
	m, err := parse(in)
	if err != nil {
		t.Fatal(err)
	}
	if table, index, writable := m.loaded(7); !bytes.Equal(table, repeat(0x44)) || index != 7 || writable {
		t.Errorf("account 7 is entry %d of %x, writable %v", index, table, writable)
	}
}

func TestDurableNonce(t *testing.T) {
	advance := call{systemProgram, []byte{1, 2, 0}, []byte{4, 0, 0, 0}}
	d := decode(t, build([]call{advance, transferCall(1)}), payer)
	nonce := root(t, d, "durable_nonce")
	if d.Opaque || nonce.Kind != chains.KindStruct || text(nonce.List[0]) != Address(to) || text(nonce.List[1]) != Address(payer) {
		t.Errorf("opaque %v, durable nonce %+v", d.Opaque, nonce)
	}
	if want := "solana-nonce:" + mainnet + ":" + Address(to) + ":" + Address([32]byte(repeat(0x55))); len(d.ReplayKeys) != 1 || d.ReplayKeys[0] != want {
		t.Errorf("replay keys %v, want %s", d.ReplayKeys, want)
	}
	// In any other shape the runtime may still take it for one: guarded and opaque.
	for name, c := range map[string]call{
		"trailing byte":      {systemProgram, advance.accounts, []byte{4, 0, 0, 0, 0}},
		"two accounts":       {systemProgram, []byte{1, 2}, advance.data},
		"another sysvar":     {systemProgram, []byte{1, 1, 0}, advance.data},
		"authority not sign": {systemProgram, []byte{1, 2, 1}, advance.data},
	} {
		d := decode(t, build([]call{c, transferCall(1)}), payer)
		if !d.Opaque || len(d.Guards) != 1 || root(t, d, "durable_nonce").Kind != chains.KindAbsent {
			t.Errorf("%s: opaque %v, guards %v", name, d.Opaque, d.Guards)
		}
	}
	readonly := build([]call{advance, transferCall(1)}, func(m *message) { m.roOther = 3 })
	if d := decode(t, readonly, payer); !d.Opaque || len(d.Guards) != 1 {
		t.Errorf("read-only nonce account: opaque %v, guards %v", d.Opaque, d.Guards)
	}
}

func TestSummary(t *testing.T) {
	p, q := Address(payer), Address(to)
	for name, tc := range map[string]struct {
		calls []call
		want  string
	}{
		"transfer": {[]call{transferCall(500_000_000)},
			"send 0.5 SOL (500000000 lamports) from " + p + " to " + q + "; fee at most 0.000005 SOL (5000 lamports)"},
		"memo": {[]call{memo("hi\n\x1b[2J\u202egnp"), transferCall(1)},
			`memo "hi\n\x1b[2J\u202egnp"; send 0.000000001 SOL (1 lamports) from ` + p + " to " + q + "; fee at most 0.000005 SOL (5000 lamports)"},
		"long memo": {[]call{memo(strings.Repeat("a", 81))},
			`memo "` + strings.Repeat("a", 80) + `" and more; fee at most 0.000005 SOL (5000 lamports)`},
		"opaque": {[]call{{systemProgram, []byte{0}, []byte{1, 0, 0, 0}}},
			"call 11111111111111111111111111111111 (System Assign) with 1 accounts and 4 bytes of data (not understood); fee at most 0.000005 SOL (5000 lamports)"},
	} {
		if d := decode(t, build(tc.calls), payer); d.Summary != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, d.Summary, tc.want)
		}
	}
}
