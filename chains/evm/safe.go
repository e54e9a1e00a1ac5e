package evm

import (
	"fmt"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// A Safe transaction is EIP-712 data that an owner of a Safe signs (Safe contracts
// 1.3 and later, whose domain names the chain).

// SafeRoot is the root of a Safe transaction's view, beside the typed data's.
const SafeRoot = "eth.safe_transaction"

// SafeType lays out the root "eth.safe_transaction".
var SafeType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "safe", Type: typeAddress, Doc: "the Safe that acts"},
	{Name: "chain_id", Type: typeInt, Doc: "EIP-155 chain id"},
	{Name: "to", Type: typeAddress, Doc: "the recipient or called contract"},
	{Name: "value", Type: typeInt, Doc: "native value, wei"},
	{Name: "data", Type: typeHex, Doc: "calldata; '0x' when empty"},
	{Name: "operation", Type: typeInt, Doc: "0 is a call, 1 a delegatecall"},
	{Name: "nonce", Type: typeInt, Doc: "of the Safe"},
	{Name: "calls", Type: listOf(CallType), Doc: "the call and all calls inside it; absent when there are too many"},
}}

const (
	safeForm       = "SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice,address gasToken,address refundReceiver,uint256 nonce)"
	safeDomainForm = "EIP712Domain(uint256 chainId,address verifyingContract)"
)

var (
	safeTypeHash   = crypto.Keccak256([]byte(safeForm))
	safeDomainHash = crypto.Keccak256([]byte(safeDomainForm))
	safeNames      = []string{"to", "value", "data", "operation", "safeTxGas", "baseGas", "gasPrice", "gasToken", "refundReceiver", "nonce"}
)

// safeTransaction is one.
type safeTransaction struct {
	chainID                      uint256.Int
	safe, to                     [20]byte
	value                        uint256.Int
	data                         []byte
	operation                    uint256.Int
	safeTxGas, baseGas, gasPrice uint256.Int
	gasToken, refundReceiver     [20]byte
	nonce                        uint256.Int
}

// parseSafe reads {"domain":{"chainId","verifyingContract"},"message":{…}}.
func parseSafe(raw []byte) (*safeTransaction, error) {
	s := &safeTransaction{}
	j := newJSON(raw)
	number := func(name string, n *uint256.Int) member { return member{name, func() { j.uint256(n) }} }
	address := func(name string, a *[20]byte) member { return member{name, func() { *a = j.address() }} }
	operationAt := 0
	j.object([]member{
		{"domain", func() {
			j.object([]member{number("chainId", &s.chainID), address("verifyingContract", &s.safe)})
		}},
		{"message", func() {
			j.object([]member{
				address("to", &s.to), number("value", &s.value), {"data", func() { s.data = j.hex() }},
				{"operation", func() { operationAt = j.pos; j.uint256(&s.operation) }},
				number("safeTxGas", &s.safeTxGas), number("baseGas", &s.baseGas), number("gasPrice", &s.gasPrice),
				address("gasToken", &s.gasToken), address("refundReceiver", &s.refundReceiver), number("nonce", &s.nonce),
			})
		}},
	})
	if err := j.end(); err != nil {
		return nil, err
	}
	switch {
	case s.chainID.IsZero():
		return nil, fail(chains.CodeSemantic, -1, "chain id 0")
	case s.operation.GtUint64(1):
		return nil, fail(chains.CodeSemantic, operationAt, "operation is 0, a call, or 1, a delegatecall")
	}
	return s, nil
}

func (s *safeTransaction) hash() [32]byte {
	separator := crypto.Keccak256(safeDomainHash, number32(&s.chainID), word32(s.safe))
	inner := crypto.Keccak256(safeTypeHash, word32(s.to), number32(&s.value), crypto.Keccak256(s.data), number32(&s.operation),
		number32(&s.safeTxGas), number32(&s.baseGas), number32(&s.gasPrice), word32(s.gasToken), word32(s.refundReceiver), number32(&s.nonce))
	return crypto.Keccak256Hash([]byte{0x19, 0x01}, separator, inner)
}

// decodeSafe reads a Safe transaction. Once signed it waits, for as long as the
// Safe's nonce does, for whoever collects signatures, so its coins are charged
// without a bound; its calls are charged and shown beside that.
func decodeSafe(raw []byte, o Options) (*chains.Decoded, error) {
	s, err := parseSafe(raw)
	if err != nil {
		return nil, err
	}
	calls := s.flatten(o)
	d := &chains.Decoded{
		Chain: calls.chain,
		Sign:  chains.SignInput{Digest: s.hash()},
		View: chains.View{
			TypedDataRoot: s.typedView(),
			SafeRoot: chains.StructValue(chains.AddressValue(s.safe), chains.IntValue(&s.chainID), chains.AddressValue(s.to), chains.IntValue(&s.value),
				chains.HexValue(hexText(s.data)), chains.IntValue(&s.operation), chains.IntValue(&s.nonce), calls.view()),
		},
	}
	s.judge(d, calls)
	return d, nil
}

// flatten follows what the Safe does.
func (s *safeTransaction) flatten(o Options) *tree {
	root := call{op: opCall, from: s.safe, to: s.to, value: s.value, data: s.data}
	if s.operation.Uint64() == 1 {
		root.op = opDelegate
	}
	return flatten(root, &s.chainID, o)
}

// judge fills in what follows from the calls, for both ways a Safe transaction may
// come: as itself, and as typed data.
func (s *safeTransaction) judge(d *chains.Decoded, calls *tree) {
	d.Charges = append(d.Charges, unbounded(calls.chain, Checksum(s.to)))
	d.Charges = append(d.Charges, calls.charges...)
	d.Opaque = calls.opaque
	d.ReplayKeys = []string{fmt.Sprintf("evm-safe:%s:0x%x:%s", s.chainID.Dec(), s.safe, s.nonce.Dec())}
	if calls.delegates {
		d.Guards = append(d.Guards, TypedDataRoot+".message")
	}
	d.Summary = fmt.Sprintf("transaction of Safe %s: %s on chain %s; nonce %s", Checksum(s.safe), calls.summary(), s.chainID.Dec(), s.nonce.Dec())
	if !s.gasPrice.IsZero() {
		d.Opaque = true
		d.Summary += "; the Safe refunds gas to whoever sends it"
	}
}

// typedView is the same as typed data.
func (s *safeTransaction) typedView() chains.Value {
	domain := chains.StructValue(chains.Value{}, chains.Value{}, chains.IntValue(&s.chainID), chains.AddressValue(s.safe), chains.Value{})
	message := chains.MapValue(safeNames, []chains.Value{
		chains.AddressValue(s.to), chains.IntValue(&s.value), chains.HexValue(hexText(s.data)), chains.IntValue(&s.operation),
		chains.IntValue(&s.safeTxGas), chains.IntValue(&s.baseGas), chains.IntValue(&s.gasPrice),
		chains.AddressValue(s.gasToken), chains.AddressValue(s.refundReceiver), chains.IntValue(&s.nonce)})
	return chains.StructValue(chains.StringValue("SafeTx"), domain, message)
}

// safeOf reads a Safe transaction out of typed data of its form.
func safeOf(chainID *uint256.Int, safe [20]byte, m *chains.Members) *safeTransaction {
	number := func(name string) uint256.Int { return m.Get(name).Int }
	address := func(name string) [20]byte { return [20]byte(m.Get(name).Raw) }
	return &safeTransaction{
		chainID: *chainID, safe: safe, to: address("to"), value: number("value"), data: unhexText(m.Get("data").Str),
		operation: number("operation"), safeTxGas: number("safeTxGas"), baseGas: number("baseGas"), gasPrice: number("gasPrice"),
		gasToken: address("gasToken"), refundReceiver: address("refundReceiver"), nonce: number("nonce"),
	}
}
