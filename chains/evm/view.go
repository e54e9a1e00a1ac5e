package evm

import (
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Root is the root of a transaction's view.
const Root = "eth.tx"

var (
	typeAddress = &chains.Type{Kind: chains.KindAddress}
	typeHex     = &chains.Type{Kind: chains.KindHex}
	typeInt     = &chains.Type{Kind: chains.KindInt}
	typeString  = &chains.Type{Kind: chains.KindString}
	typeMap     = &chains.Type{Kind: chains.KindMap}
)

func listOf(t *chains.Type) *chains.Type { return &chains.Type{Kind: chains.KindList, Elem: t} }

// TxType lays out the root "eth.tx". In a contract creation `to` is absent:
// reading it is an evaluation error, so no rule about recipients can allow one.
// What an ABI tells is absent unless the organization has one for the contract
// and the calldata is its one encoding.
var TxType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "from", Type: typeAddress, Doc: "the signing wallet"},
	{Name: "to", Type: typeAddress, Doc: "the recipient or called contract; absent in a contract creation"},
	{Name: "data", Type: typeHex, Doc: "calldata, lower-case hex; '0x' when empty"},
	{Name: "value", Type: typeInt, Doc: "native value, wei"},
	{Name: "gas", Type: typeInt, Doc: "gas limit"},
	{Name: "gas_price", Type: typeInt, Doc: "wei per gas; from TYPE_2 on the same as max_fee_per_gas"},
	{Name: "chain_id", Type: typeInt, Doc: "EIP-155 chain id"},
	{Name: "nonce", Type: typeInt, Doc: "the wallet's transaction count"},
	{Name: "max_fee_per_gas", Type: typeInt, Doc: "wei per gas; from TYPE_2 on"},
	{Name: "max_priority_fee_per_gas", Type: typeInt, Doc: "wei per gas; from TYPE_2 on"},
	{Name: "max_fee_per_blob_gas", Type: typeInt, Doc: "wei per blob gas; TYPE_3 only"},
	{Name: "type", Type: typeString, Doc: "'LEGACY', 'TYPE_1' (EIP-2930), 'TYPE_2' (1559), 'TYPE_3' (4844) or 'TYPE_4' (7702)"},
	{Name: "function_name", Type: typeString, Doc: "the function called, by the ABI set for this contract"},
	{Name: "function_signature", Type: typeHex, Doc: "its selector, '0xa9059cbb', by the same ABI"},
	{Name: "contract_call_args", Type: typeMap, Doc: "its arguments by name, by the same ABI; tuples are lists"},
	{Name: "data_status", Type: typeString, Doc: "'none', 'exact' (understood to the last bit), 'noncanonical' or 'unknown'"},
	{Name: "calls", Type: listOf(CallType), Doc: "the call and all calls inside it; absent when there are too many"},
	{Name: "access_list", Type: listOf(accessType), Doc: "EIP-2930; from TYPE_1 on"},
	{Name: "blob_versioned_hashes", Type: listOf(typeHex), Doc: "EIP-4844; TYPE_3 only"},
	{Name: "authorization_list", Type: listOf(signedAuthorizationType), Doc: "EIP-7702; TYPE_4 only"},
}}

// DataStatus is the data_status of a transaction's own call, "" for other payloads.
func DataStatus(d *chains.Decoded) string {
	tx := d.View[Root]
	if i := TxType.Index("data_status"); i < len(tx.List) {
		return tx.List[i].Str
	}
	return ""
}

var accessType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "address", Type: typeAddress, Doc: "the contract"},
	{Name: "storage_keys", Type: listOf(typeHex), Doc: "32 bytes each"},
}}

var signedAuthorizationType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "address", Type: typeAddress, Doc: "the contract whose code the account will run; zero revokes"},
	{Name: "chain_id", Type: typeInt, Doc: "0 is every chain"},
	{Name: "nonce", Type: typeInt, Doc: "of the account"},
	{Name: "authority", Type: typeAddress, Doc: "the account, from the signature; absent when nobody signed"},
}}

var typeNames = [...]string{typeLegacy: "LEGACY", typeAccess: "TYPE_1", typeDynamic: "TYPE_2", typeBlob: "TYPE_3", typeSetCode: "TYPE_4"}

// view lays the transaction out as [TxType] says.
func (t *tx) view(calls *tree, auths []chains.Value) chains.Value {
	root := &calls.calls[0]
	var from, to, maxFee, tip, blobFee, name, signature, args chains.Value
	if calls.o.walletKnown() {
		from = chains.AddressValue(calls.o.Wallet)
	}
	if len(t.to) == 20 {
		to = chains.AddressValue([20]byte(t.to))
	}
	if t.typ >= typeDynamic {
		maxFee, tip = chains.IntValue(&t.price), chains.IntValue(&t.tip)
	}
	if t.typ == typeBlob {
		blobFee = chains.IntValue(&t.blobFee)
	}
	if fn := root.fn; fn != nil && calls.o.ABIs.find(&t.chainID, root.to, fn.selector) == fn {
		name, signature, args = chains.StringValue(fn.name), chains.HexValue(hexText(fn.selector[:])), fn.arguments(root.args)
	}
	return chains.StructValue(
		from,
		to,
		chains.HexValue(hexText(t.data)),
		chains.IntValue(&t.value),
		chains.Uint64Value(t.gas),
		chains.IntValue(&t.price),
		chains.IntValue(&t.chainID),
		chains.Uint64Value(t.nonce),
		maxFee,
		tip,
		blobFee,
		chains.StringValue(typeNames[t.typ]),
		name,
		signature,
		args,
		chains.StringValue(root.status),
		calls.view(),
		t.accessView(),
		t.blobView(),
		authsView(t, auths),
	)
}

func (t *tx) accessView() chains.Value {
	if t.typ < typeAccess {
		return chains.Value{}
	}
	var list []chains.Value
	t.eachAccess(func(address []byte, keys [][]byte) {
		var hashes []chains.Value
		for _, k := range keys {
			hashes = append(hashes, chains.HexValue(hexText(k)))
		}
		list = append(list, chains.StructValue(chains.AddressValue([20]byte(address)), chains.ListValue(hashes...)))
	})
	return chains.ListValue(list...)
}

func (t *tx) blobView() chains.Value {
	if t.typ != typeBlob {
		return chains.Value{}
	}
	var list []chains.Value
	for _, h := range t.hashes() {
		list = append(list, chains.HexValue(hexText(h)))
	}
	return chains.ListValue(list...)
}

func authsView(t *tx, auths []chains.Value) chains.Value {
	if t.typ != typeSetCode {
		return chains.Value{}
	}
	return chains.ListValue(auths...)
}

// hashes reads the blob hashes once more.
func (t *tx) hashes() (out [][]byte) {
	r := &reader{b: t.blobHashes}
	for stop := r.list(len(t.blobHashes), "blob hashes"); r.err == nil && r.pos < stop; {
		out = append(out, r.fixed(stop, 32, "blob hash"))
	}
	return out
}

// eachAccess reads the access list once more; readAccessList has checked it.
func (t *tx) eachAccess(f func(address []byte, keys [][]byte)) {
	r := &reader{b: t.accessList}
	stop := r.list(len(t.accessList), "access list")
	for r.err == nil && r.pos < stop {
		entry := r.list(stop, "access list entry")
		address := r.fixed(entry, 20, "access list address")
		var keys [][]byte
		for end := r.list(entry, "storage keys"); r.err == nil && r.pos < end; {
			keys = append(keys, r.fixed(end, 32, "storage key"))
		}
		f(address, keys)
	}
}

// flatten follows the transaction's call.
func (t *tx) flatten(o Options) *tree {
	root := call{op: opCall, from: o.Wallet, anonymous: !o.walletKnown(), value: t.value, data: t.data}
	if len(t.to) == 0 {
		root.op = opCreate
	} else {
		root.to = [20]byte(t.to)
	}
	return flatten(root, &t.chainID, o)
}

// charges lists what the wallet spends, nothing of amount zero: the value it
// sends, what the calls move, the highest fee.
func (t *tx) charges(calls *tree) []chains.Charge {
	native := calls.native()
	out := make([]chains.Charge, 0, 3+len(calls.charges))
	if !t.value.IsZero() {
		ch := chains.Charge{Chain: calls.chain, Asset: native, Amount: t.value, What: "transfer"}
		if len(t.to) == 20 {
			ch.To = Checksum([20]byte(t.to))
		}
		out = append(out, ch)
	}
	out = append(out, calls.charges...)
	if t.runsItself(calls.o) {
		out = append(out, unbounded(calls.chain, Checksum([20]byte(t.to))))
	}
	var fee uint256.Int
	if t.fee(&fee); !fee.IsZero() {
		out = append(out, chains.Charge{Chain: calls.chain, Asset: native, Amount: fee, What: "fee"})
	}
	return out
}

// runsItself: the wallet calls itself with data. Under an EIP-7702 delegation that
// runs code with everything the wallet owns.
func (t *tx) runsItself(o Options) bool {
	return len(t.data) > 0 && o.walletKnown() && string(t.to) == string(o.Wallet[:])
}
