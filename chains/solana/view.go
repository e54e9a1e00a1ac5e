package solana

import (
	"encoding/hex"

	"github.com/sigild/sigild/chains"
)

// Root is the root of the view of a transaction message.
const Root = "solana.tx"

var (
	typePubkey = &chains.Type{Kind: chains.KindPubkey}
	typeInt    = &chains.Type{Kind: chains.KindInt}
	typeBool   = &chains.Type{Kind: chains.KindBool}
	typeString = &chains.Type{Kind: chains.KindString}
	typeMap    = &chains.Type{Kind: chains.KindMap}

	typeAccount = structOf(
		chains.Field{Name: "account_key", Type: typePubkey, Doc: "the account; 'ADDRESS_TABLE_LOOKUP' behind a lookup table that is not pinned"},
		chains.Field{Name: "signer", Type: typeBool, Doc: "the account must sign"},
		chains.Field{Name: "writable", Type: typeBool, Doc: "the message asks for write access"},
	)
	typeSingleLookup = structOf(
		chains.Field{Name: "address_table_key", Type: typePubkey, Doc: "the lookup table"},
		chains.Field{Name: "index", Type: typeInt, Doc: "entry in the table"},
		chains.Field{Name: "writable", Type: typeBool, Doc: "loaded writable"},
	)
	typeParsed = structOf(
		chains.Field{Name: "instruction_name", Type: typeString, Doc: "name of the instruction: transferChecked, or as the IDL has it"},
		chains.Field{Name: "discriminator", Type: typeString, Doc: "what tells it from the program's others, lower-case hex without 0x"},
		chains.Field{Name: "named_accounts", Type: typeMap, Doc: "its accounts by name"},
		chains.Field{Name: "program_call_args", Type: typeMap, Doc: "its arguments by name"},
	)
	typeInstruction = structOf(
		chains.Field{Name: "program_key", Type: typePubkey, Doc: "the program called"},
		chains.Field{Name: "accounts", Type: listOf(typeAccount), Doc: "accounts passed, in order"},
		chains.Field{Name: "instruction_data_hex", Type: typeString, Doc: "data, lower-case hex without 0x"},
		chains.Field{Name: "address_table_lookups", Type: listOf(typeSingleLookup), Doc: "table entries among its accounts, in order"},
		chains.Field{Name: "parsed_instruction_data", Type: typeParsed, Doc: "the instruction read by the built-in decoders or an uploaded IDL; absent when neither reads it"},
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

// TxType lays out the root "solana.tx". transfers and spl_transfers are partial
// when any instruction is not understood: a rule over all of them would be true
// of what it does not see, so reading them is an evaluation error then.
// durable_nonce is absent in a message with an ordinary blockhash, fee when it
// has no known bound.
var TxType = structOf(
	chains.Field{Name: "account_keys", Type: listOf(typePubkey), Doc: "all accounts; 'ADDRESS_TABLE_LOOKUP' for each behind a lookup table that is not pinned"},
	chains.Field{Name: "program_keys", Type: listOf(typePubkey), Doc: "programs called, each once, in order of first use"},
	chains.Field{Name: "instructions", Type: listOf(typeInstruction), Doc: "top-level instructions"},
	chains.Field{Name: "transfers", Type: listOf(typeTransfer), Doc: "top-level System transfers; an error when any instruction is not understood"},
	chains.Field{Name: "recent_blockhash", Type: typeString, Doc: "base58; the nonce when durable_nonce is present"},
	chains.Field{Name: "spl_transfers", Type: listOf(typeSPLTransfer), Doc: "top-level token transfers; an error when any instruction is not understood"},
	chains.Field{Name: "address_table_lookups", Type: listOf(typeLookup), Doc: "lookup tables used"},
	chains.Field{Name: "fee_payer", Type: typePubkey, Doc: "the account that pays the fee"},
	chains.Field{Name: "durable_nonce", Type: typeNonce, Doc: "present when the message never expires"},
	chains.Field{Name: "fee", Type: typeInt, Doc: "the most that the fee payer pays, lamports; absent when that is not known"},
)

func structOf(fields ...chains.Field) *chains.Type {
	return &chains.Type{Kind: chains.KindStruct, Fields: fields}
}

func listOf(elem *chains.Type) *chains.Type { return &chains.Type{Kind: chains.KindList, Elem: elem} }

// view lays the message out as [TxType] says. Lists are made when they are read,
// since one byte of a message can stand for an element.
func (e *effects) view() chains.Value {
	m := e.m
	transfers, spl := chains.SeqValue(transferSeq{e}), chains.SeqValue(splSeq{e})
	transfers.Partial, spl.Partial = e.partial, e.partial
	durable, fee := chains.Value{}, chains.Value{}
	if e.nonce != nil {
		durable = chains.StructValue(m.account(e.nonce.account), m.account(e.nonce.authority))
	}
	if n, bounded := e.fee(); bounded {
		fee = chains.IntValue(&n)
	}
	return chains.StructValue(
		chains.SeqValue(accountSeq{m: m}),
		m.programs(),
		chains.SeqValue(instructionSeq{e}),
		transfers,
		chains.StringValue(Address(m.blockhash)),
		spl,
		chains.SeqValue(tableSeq{m}),
		m.account(0),
		durable,
		fee,
	)
}

// account is the node of account i.
func (m *message) account(i int) chains.Value {
	if i < m.nkeys {
		return chains.Value{Kind: chains.KindPubkey, Raw: m.keys[32*i : 32*i+32 : 32*i+32]}
	}
	if k := m.key(i); k != nil {
		return chains.Value{Kind: chains.KindPubkey, Raw: k[:]}
	}
	return chains.UnresolvedPubkey()
}

// programs lists the programs called. There are at most 64, and few in practice.
func (m *message) programs() chains.Value {
	var order [maxInstructions]byte
	n := 0
	var seen [maxAccounts]bool
	for i := range m.ins {
		if p := m.ins[i].program; !seen[p] {
			seen[p] = true
			order[n] = p
			n++
		}
	}
	return chains.SeqValue(accountSeq{m: m, at: append([]byte(nil), order[:n]...), some: true})
}

// accountSeq is accounts: all, or those numbered by at.
type accountSeq struct {
	m    *message
	at   []byte
	some bool
}

func (s accountSeq) Len() int {
	if s.some {
		return len(s.at)
	}
	return s.m.total()
}

func (s accountSeq) At(i int) chains.Value {
	if s.some {
		i = int(s.at[i])
	}
	return s.m.account(i)
}

// passedSeq is the accounts of an instruction.
type passedSeq struct {
	m  *message
	at []byte
}

func (s passedSeq) Len() int { return len(s.at) }

func (s passedSeq) At(i int) chains.Value {
	n := int(s.at[i])
	return chains.StructValue(s.m.account(n), chains.BoolValue(s.m.isSigner(n)), chains.BoolValue(s.m.isWritable(n)))
}

// entrySeq is the table entries among accounts.
type entrySeq struct {
	m  *message
	at []byte // numbers of loaded accounts
}

func (s entrySeq) Len() int { return len(s.at) }

func (s entrySeq) At(i int) chains.Value {
	l := s.m.loaded[int(s.at[i])-s.m.nkeys]
	return chains.StructValue(chains.Value{Kind: chains.KindPubkey, Raw: s.m.lookups[l.table].table},
		chains.Uint64Value(uint64(l.index)), chains.BoolValue(l.writable))
}

// tableSeq is the lookup tables.
type tableSeq struct{ m *message }

func (s tableSeq) Len() int { return len(s.m.lookups) }

func (s tableSeq) At(i int) chains.Value {
	l := s.m.lookups[i]
	return chains.StructValue(chains.Value{Kind: chains.KindPubkey, Raw: l.table},
		chains.SeqValue(byteSeq(l.writable)), chains.SeqValue(byteSeq(l.readonly)))
}

// byteSeq is bytes as integers.
type byteSeq []byte

func (s byteSeq) Len() int { return len(s) }

func (s byteSeq) At(i int) chains.Value { return chains.Uint64Value(uint64(s[i])) }

// instructionSeq is the instructions.
type instructionSeq struct{ e *effects }

func (s instructionSeq) Len() int { return len(s.e.m.ins) }

func (s instructionSeq) At(i int) chains.Value {
	m, in := s.e.m, &s.e.m.ins[i]
	accounts := m.accounts(in)
	var loaded []byte
	for _, n := range accounts {
		if int(n) >= m.nkeys {
			loaded = append(loaded, n)
		}
	}
	return chains.StructValue(m.account(int(in.program)), chains.SeqValue(passedSeq{m, accounts}),
		chains.StringValue(hex.EncodeToString(m.data(in))), chains.SeqValue(entrySeq{m, loaded}), s.e.parsed(i))
}

// parsed is what an instruction was understood as; absent when it was not.
func (e *effects) parsed(i int) chains.Value {
	m, in := e.m, &e.m.ins[i]
	if x := e.sense[i].idl; x != nil {
		return x.value(m, m.accounts(in), m.data(in))
	}
	s := e.sense[i].spec
	if s == nil {
		return chains.Value{}
	}
	c := call{spec: s, m: m, in: in, i: i}
	accounts := make([]chains.Value, min(len(s.accounts), int(in.naccounts)))
	for k := range accounts {
		accounts[k] = m.account(c.account(k))
	}
	args := make([]chains.Value, len(s.args), len(s.args)+1)
	data := m.data(in)[len(s.tag):]
	for k, a := range s.args {
		var value []byte
		value, data, _ = a.typ.take(data)
		args[k] = a.typ.value(value)
	}
	argNames := s.argNames[:len(args)]
	if s.signers && len(c.extra()) > 0 {
		argNames, args = s.argNames, append(args, chains.SeqValue(accountSeq{m: m, at: c.extra(), some: true}))
	}
	return chains.StructValue(chains.StringValue(s.name), chains.StringValue(hex.EncodeToString([]byte(s.tag))),
		chains.MapValue(s.accountNames[:len(accounts)], accounts), chains.MapValue(argNames, args))
}

// bare is an account's name without the brackets of an optional one.
func bare(name string) string {
	if name[0] == '[' {
		return name[1 : len(name)-1]
	}
	return name
}

// transferSeq is the transfers of SOL.
type transferSeq struct{ e *effects }

func (s transferSeq) Len() int { return len(s.e.transfers) }

func (s transferSeq) At(i int) chains.Value {
	c := s.e.call(s.e.transfers[i])
	return chains.StructValue(s.e.m.account(c.account(0)), s.e.m.account(c.account(len(c.accounts)-1)), chains.Uint64Value(c.number("lamports")))
}

// splSeq is the transfers of tokens.
type splSeq struct{ e *effects }

func (s splSeq) Len() int { return len(s.e.spl) }

func (s splSeq) At(i int) chains.Value {
	m, c := s.e.m, s.e.call(s.e.spl[i])
	to, mint := 1, chains.Value{}
	if len(c.accounts) == 4 {
		to, mint = 2, m.account(c.account(1))
	}
	return chains.StructValue(m.account(c.account(0)), m.account(c.account(to)), chains.Uint64Value(c.number("amount")),
		m.account(c.account(len(c.accounts)-1)), chains.SeqValue(accountSeq{m: m, at: c.extra(), some: true}), mint)
}

// call is the understood instruction i.
func (e *effects) call(i uint8) *call {
	return &call{spec: e.sense[i].spec, m: e.m, in: &e.m.ins[i], i: int(i)}
}

// name spells account i.
func (m *message) name(i int) string {
	k := m.key(i)
	if k == nil {
		return chains.AddressTableLookup
	}
	return Address(*k)
}
