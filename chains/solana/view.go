package solana

import (
	"encoding/hex"

	"github.com/sigild/sigild/chains"
)

// Root is the name of the view's only root.
const Root = "solana.tx"

var (
	typePubkey = &chains.Type{Kind: chains.KindPubkey}
	typeInt    = &chains.Type{Kind: chains.KindInt}
	typeBool   = &chains.Type{Kind: chains.KindBool}
	typeString = &chains.Type{Kind: chains.KindString}

	typeAccount = structOf(
		chains.Field{Name: "account_key", Type: typePubkey, Doc: "the account; 'ADDRESS_TABLE_LOOKUP' behind a lookup table"},
		chains.Field{Name: "signer", Type: typeBool, Doc: "the account must sign"},
		chains.Field{Name: "writable", Type: typeBool, Doc: "the message asks for write access"},
	)
	typeSingleLookup = structOf(
		chains.Field{Name: "address_table_key", Type: typePubkey, Doc: "the lookup table"},
		chains.Field{Name: "index", Type: typeInt, Doc: "entry in the table"},
		chains.Field{Name: "writable", Type: typeBool, Doc: "loaded writable"},
	)
	typeInstruction = structOf(
		chains.Field{Name: "program_key", Type: typePubkey, Doc: "the program called"},
		chains.Field{Name: "accounts", Type: listOf(typeAccount), Doc: "accounts passed, in order"},
		chains.Field{Name: "instruction_data_hex", Type: typeString, Doc: "data, lower-case hex without 0x"},
		chains.Field{Name: "address_table_lookups", Type: listOf(typeSingleLookup), Doc: "table entries among its accounts, in order"},
	)
	typeTransfer = structOf(
		chains.Field{Name: "from", Type: typePubkey, Doc: "account debited"},
		chains.Field{Name: "to", Type: typePubkey, Doc: "account credited"},
		chains.Field{Name: "amount", Type: typeInt, Doc: "lamports"},
	)
	typeSPLTransfer = structOf(
		chains.Field{Name: "from", Type: typePubkey, Doc: "token account debited"},
		chains.Field{Name: "to", Type: typePubkey, Doc: "token account credited"},
		chains.Field{Name: "amount", Type: typeInt, Doc: "raw token units"},
		chains.Field{Name: "owner", Type: typePubkey, Doc: "authority of the debited account"},
		chains.Field{Name: "signers", Type: listOf(typePubkey), Doc: "signers of a multisig authority"},
		chains.Field{Name: "token_mint", Type: typePubkey, Doc: "mint; absent in a plain Transfer"},
	)
	typeLookup = structOf(
		chains.Field{Name: "address_table_key", Type: typePubkey, Doc: "the lookup table"},
		chains.Field{Name: "writable_indexes", Type: listOf(typeInt), Doc: "entries loaded writable"},
		chains.Field{Name: "readonly_indexes", Type: listOf(typeInt), Doc: "entries loaded read-only"},
	)
	typeNonce = structOf(
		chains.Field{Name: "account", Type: typePubkey, Doc: "the nonce account"},
		chains.Field{Name: "authority", Type: typePubkey, Doc: "who advances the nonce"},
	)
)

// TxType lays out the root "solana.tx". transfers and spl_transfers are absent
// in an opaque message: a rule over all of them would be true of what it does
// not see, so reading them is an evaluation error there. durable_nonce is absent
// in a message with an ordinary blockhash.
var TxType = structOf(
	chains.Field{Name: "account_keys", Type: listOf(typePubkey), Doc: "all accounts; 'ADDRESS_TABLE_LOOKUP' for each behind a lookup table"},
	chains.Field{Name: "program_keys", Type: listOf(typePubkey), Doc: "programs called, each once, in order of first use"},
	chains.Field{Name: "instructions", Type: listOf(typeInstruction), Doc: "top-level instructions"},
	chains.Field{Name: "transfers", Type: listOf(typeTransfer), Doc: "top-level System transfers; absent when anything is not understood"},
	chains.Field{Name: "recent_blockhash", Type: typeString, Doc: "base58; the nonce when durable_nonce is present"},
	chains.Field{Name: "spl_transfers", Type: listOf(typeSPLTransfer), Doc: "top-level token transfers; absent when anything is not understood"},
	chains.Field{Name: "address_table_lookups", Type: listOf(typeLookup), Doc: "lookup tables used"},
	chains.Field{Name: "fee_payer", Type: typePubkey, Doc: "the account that pays the fee"},
	chains.Field{Name: "durable_nonce", Type: typeNonce, Doc: "present when the message never expires"},
)

func structOf(fields ...chains.Field) *chains.Type {
	return &chains.Type{Kind: chains.KindStruct, Fields: fields}
}

func listOf(elem *chains.Type) *chains.Type { return &chains.Type{Kind: chains.KindList, Elem: elem} }

// view lays the message out as [TxType] says. Nodes of accounts are made once
// and shared wherever the account is passed.
func (m *message) view(a *actions) chains.Value {
	accounts, passed := m.accounts()
	transfers, spl, durable := chains.Value{}, chains.Value{}, chains.Value{}
	if !a.opaque {
		transfers, spl = list(len(a.transfers)), list(0)
		for _, t := range a.transfers {
			transfers.List = append(transfers.List, chains.StructValue(accounts[t.from], accounts[t.to], chains.Uint64Value(t.lamports)))
		}
	}
	if a.nonce != nil {
		durable = chains.StructValue(accounts[a.nonce.account], accounts[a.nonce.authority])
	}
	return chains.StructValue(
		chains.ListValue(accounts...),
		m.programs(accounts),
		m.instructions(accounts, passed),
		transfers,
		chains.StringValue(Address(m.blockhash)),
		spl,
		m.tables(),
		accounts[0],
		durable,
	)
}

// list is an empty list node with room for n.
func list(n int) chains.Value {
	v := chains.ListValue()
	if n > 0 {
		v.List = make([]chains.Value, 0, n)
	}
	return v
}

// accounts makes the node of each account, and the node of it being passed to
// an instruction. Behind tables there are only two of the latter.
func (m *message) accounts() (accounts, passed []chains.Value) {
	accounts, passed = make([]chains.Value, 0, m.total), make([]chains.Value, 0, m.total)
	fields := make([]chains.Value, 0, 3*m.nkeys)
	for i := range m.nkeys {
		key := chains.Value{Kind: chains.KindPubkey, Raw: m.keys[32*i : 32*i+32 : 32*i+32]}
		fields = append(fields, key, chains.BoolValue(m.isSigner(i)), chains.BoolValue(m.isWritable(i)))
		accounts = append(accounts, key)
		passed = append(passed, chains.StructValue(fields[3*i:3*i+3:3*i+3]...))
	}
	if m.total == m.nkeys {
		return accounts, passed
	}
	writable := chains.StructValue(chains.UnresolvedPubkey(), chains.BoolValue(false), chains.BoolValue(true))
	readonly := chains.StructValue(chains.UnresolvedPubkey(), chains.BoolValue(false), chains.BoolValue(false))
	for i := m.nkeys; i < m.total; i++ {
		accounts = append(accounts, chains.UnresolvedPubkey())
		if m.isWritable(i) {
			passed = append(passed, writable)
		} else {
			passed = append(passed, readonly)
		}
	}
	return accounts, passed
}

func (m *message) programs(accounts []chains.Value) chains.Value {
	var seen [maxAccounts]bool
	n := 0
	for _, in := range m.ins {
		if !seen[in.program] {
			seen[in.program] = true
			n++
		}
	}
	programs := list(n)
	for _, in := range m.ins {
		if seen[in.program] {
			seen[in.program] = false
			programs.List = append(programs.List, accounts[in.program])
		}
	}
	return programs
}

func (m *message) instructions(accounts, passed []chains.Value) chains.Value {
	all := list(len(m.ins))
	entries := make([]chains.Value, m.total-m.nkeys) // table entries, made when first used
	for _, in := range m.ins {
		args, behind := list(len(in.accounts)), 0
		for _, n := range in.accounts {
			args.List = append(args.List, passed[n])
			if !m.isStatic(int(n)) {
				behind++
			}
		}
		lookups := list(behind)
		for _, n := range in.accounts {
			if !m.isStatic(int(n)) {
				e := &entries[int(n)-m.nkeys]
				if e.Kind == chains.KindAbsent {
					*e = m.entry(int(n))
				}
				lookups.List = append(lookups.List, *e)
			}
		}
		all.List = append(all.List, chains.StructValue(accounts[in.program], args,
			chains.StringValue(hex.EncodeToString(in.data)), lookups))
	}
	return all
}

// entry is the node of the table entry behind account i.
func (m *message) entry(i int) chains.Value {
	table, index, writable := m.loaded(i)
	return chains.StructValue(chains.Value{Kind: chains.KindPubkey, Raw: table}, chains.Uint64Value(uint64(index)), chains.BoolValue(writable))
}

func (m *message) tables() chains.Value {
	tables := list(len(m.lookups))
	for _, l := range m.lookups {
		tables.List = append(tables.List, chains.StructValue(
			chains.Value{Kind: chains.KindPubkey, Raw: l.table}, indexes(l.writable), indexes(l.readonly)))
	}
	return tables
}

func indexes(b []byte) chains.Value {
	v := list(len(b))
	for _, c := range b {
		v.List = append(v.List, chains.Uint64Value(uint64(c)))
	}
	return v
}

// charges lists what wallet spends, nothing of amount zero.
func (m *message) charges(a *actions, wallet [32]byte, chain string) []chains.Charge {
	asset := chain + "/slip44:501"
	var out []chains.Charge
	for _, t := range a.transfers {
		if !m.isStatic(t.from) || m.key(t.from) != wallet || t.lamports == 0 {
			continue
		}
		c := chains.Charge{Chain: chain, Asset: asset, What: "transfer", To: m.name(t.to)}
		c.Amount.SetUint64(t.lamports)
		out = append(out, c)
	}
	if m.key(0) == wallet {
		fee, bounded := m.fee(a)
		out = append(out, chains.Charge{Chain: chain, Asset: asset, Amount: fee, Unbounded: !bounded, What: "fee"})
	}
	return out
}

// name spells account i.
func (m *message) name(i int) string {
	if !m.isStatic(i) {
		return chains.AddressTableLookup
	}
	return Address(m.key(i))
}
