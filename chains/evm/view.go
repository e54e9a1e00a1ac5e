package evm

import (
	"encoding/hex"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Root is the name of the view's only root.
const Root = "eth.tx"

var (
	typeAddress = &chains.Type{Kind: chains.KindAddress}
	typeHex     = &chains.Type{Kind: chains.KindHex}
	typeInt     = &chains.Type{Kind: chains.KindInt}
	typeString  = &chains.Type{Kind: chains.KindString}
)

// TxType lays out the root "eth.tx". In a contract creation `to` is absent:
// reading it is an evaluation error, so no rule about recipients can allow one.
// The calldata fields of an ABI are not here before an ABI can be registered.
var TxType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "from", Type: typeAddress, Doc: "the signing wallet"},
	{Name: "to", Type: typeAddress, Doc: "the recipient or called contract; absent in a contract creation"},
	{Name: "data", Type: typeHex, Doc: "calldata, lower-case hex; '0x' when empty"},
	{Name: "value", Type: typeInt, Doc: "native value, wei"},
	{Name: "gas", Type: typeInt, Doc: "gas limit"},
	{Name: "gas_price", Type: typeInt, Doc: "wei per gas; in TYPE_2 the same as max_fee_per_gas"},
	{Name: "chain_id", Type: typeInt, Doc: "EIP-155 chain id"},
	{Name: "nonce", Type: typeInt, Doc: "the wallet's transaction count"},
	{Name: "max_fee_per_gas", Type: typeInt, Doc: "wei per gas; TYPE_2 only"},
	{Name: "max_priority_fee_per_gas", Type: typeInt, Doc: "wei per gas; TYPE_2 only"},
	{Name: "type", Type: typeString, Doc: "'LEGACY', 'TYPE_1' (EIP-2930) or 'TYPE_2' (EIP-1559)"},
}}

var typeNames = [...]string{typeLegacy: "LEGACY", typeAccess: "TYPE_1", typeDynamic: "TYPE_2"}

// view lays the transaction out as [TxType] says.
func (t *tx) view(wallet [20]byte) chains.Value {
	var to, maxFee, tip chains.Value
	if len(t.to) == 20 {
		to = chains.AddressValue([20]byte(t.to))
	}
	if t.typ == typeDynamic {
		maxFee, tip = chains.IntValue(&t.price), chains.IntValue(&t.tip)
	}
	data := hex.AppendEncode(append(make([]byte, 0, 2+2*len(t.data)), "0x"...), t.data)
	return chains.StructValue(
		chains.AddressValue(wallet),
		to,
		chains.HexValue(string(data)),
		chains.IntValue(&t.value),
		chains.Uint64Value(t.gas),
		chains.IntValue(&t.price),
		chains.IntValue(&t.chainID),
		chains.Uint64Value(t.nonce),
		maxFee,
		tip,
		chains.StringValue(typeNames[t.typ]),
	)
}

// charges lists what the wallet spends, nothing of amount zero.
func (t *tx) charges(chain string, c calldata, wallet [20]byte) []chains.Charge {
	native := chain + "/slip44:60"
	out := make([]chains.Charge, 0, 3)
	if !t.value.IsZero() {
		ch := chains.Charge{Chain: chain, Asset: native, Amount: t.value, What: "transfer"}
		if len(t.to) == 20 {
			ch.To = Checksum([20]byte(t.to))
		}
		out = append(out, ch)
	}
	if c.token && !c.amount.IsZero() {
		asset := chain + "/erc20:0x" + hex.EncodeToString(t.to)
		out = append(out, chains.Charge{Chain: chain, Asset: asset, Amount: c.amount, What: "transfer", To: Checksum(c.recipient)})
	}
	if len(t.data) > 0 && string(t.to) == string(wallet[:]) {
		// The wallet calls itself: under an EIP-7702 delegation that runs code with
		// the wallet's own balance.
		out = append(out, chains.Charge{Chain: chain, Asset: native, Unbounded: true, What: "transfer", To: Checksum(wallet)})
	}
	var fee uint256.Int
	if t.fee(&fee); !fee.IsZero() {
		out = append(out, chains.Charge{Chain: chain, Asset: native, Amount: fee, What: "fee"})
	}
	return out
}
