package evm

import (
	"fmt"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// ERC-4337. The owner of a smart account signs a user operation; the entry point
// calls the account with its callData.

// UserOperationRoot is the root of a user operation's view.
const UserOperationRoot = "eth.user_operation"

// UserOperationType lays out the root "eth.user_operation".
var UserOperationType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "version", Type: typeString, Doc: "of the entry point: '0.6', '0.7' or '0.8'"},
	{Name: "chain_id", Type: typeInt, Doc: "EIP-155 chain id"},
	{Name: "entry_point", Type: typeAddress, Doc: "the entry point, one of those known for the version"},
	{Name: "sender", Type: typeAddress, Doc: "the account that acts"},
	{Name: "nonce", Type: typeInt, Doc: "of the account: 192 bits of key, 64 of sequence"},
	{Name: "init_code", Type: typeHex, Doc: "creates the account; '0x' when it exists"},
	{Name: "call_data", Type: typeHex, Doc: "what the account is called with"},
	{Name: "call_gas_limit", Type: typeInt, Doc: "gas"},
	{Name: "verification_gas_limit", Type: typeInt, Doc: "gas"},
	{Name: "pre_verification_gas", Type: typeInt, Doc: "gas"},
	{Name: "max_fee_per_gas", Type: typeInt, Doc: "wei per gas"},
	{Name: "max_priority_fee_per_gas", Type: typeInt, Doc: "wei per gas"},
	{Name: "paymaster_and_data", Type: typeHex, Doc: "who pays instead, and what it is told; '0x' for nobody"},
	{Name: "user_operation_hash", Type: typeHex, Doc: "the hash of the operation; what is signed is this (0.8) or EIP-191 over it"},
	{Name: "calls", Type: listOf(CallType), Doc: "the call of the account and all calls inside it; absent when there are too many"},
}}

// entryPoints are the contracts of the reference implementation
// (eth-infinitism/account-abstraction), at one address on all chains.
var entryPoints = map[string][20]byte{
	"0.6": mustAddress("0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"),
	"0.7": mustAddress("0x0000000071727De22E5E9d8BAf0edAc6f37da032"),
	"0.8": mustAddress("0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108"),
}

func mustAddress(s string) [20]byte {
	a, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// userOperation is one operation; what a version does not have is zero.
type userOperation struct {
	version                       string
	chainID                       uint256.Int
	entryPoint, sender            [20]byte
	nonce                         uint256.Int
	initCode, callData, paymaster []byte
	callGas, verificationGas      uint256.Int
	preVerificationGas            uint256.Int
	maxFee, priorityFee           uint256.Int
	accountGasLimits, gasFees     [32]byte // 0.7 and 0.8: two 128-bit numbers each
	at                            struct{ version, chainID, entryPoint, initCode int }
}

// parseUserOperation reads {"version","chainId","entryPoint","packed":{…}}; packed
// has the members of the version's struct in Solidity, and maybe a signature, which
// is not signed.
func parseUserOperation(raw []byte) (*userOperation, error) {
	u := &userOperation{}
	j := newJSON(raw)
	var at, container int
	j.object([]member{
		{"version", func() { u.at.version = j.pos; u.version = string(j.stringBytes()) }},
		{"chainId", func() { u.at.chainID = j.pos; j.uint256(&u.chainID) }},
		{"entryPoint", func() { u.at.entryPoint = j.pos; u.entryPoint = j.address() }},
		{"packed", func() { at, container = j.skip() }},
	})
	if err := j.end(); err != nil {
		return nil, err
	}
	known, ok := entryPoints[u.version]
	switch {
	case !ok:
		return nil, fail(chains.CodeSemantic, u.at.version, "user operations are of version 0.6, 0.7 or 0.8")
	case known != u.entryPoint:
		return nil, fail(chains.CodeSemantic, u.at.entryPoint, "not the entry point of version %s, %s", u.version, Checksum(known))
	case u.chainID.IsZero():
		return nil, fail(chains.CodeSemantic, u.at.chainID, "chain id 0")
	}
	number := func(name string, n *uint256.Int) member { return member{name, func() { j.uint256(n) }} }
	bytesOf := func(name string, b *[]byte) member { return member{name, func() { *b = j.hex() }} }
	word := func(name string, w *[32]byte) member {
		return member{name, func() {
			at := j.pos
			b := j.hex()
			if j.err == nil && len(b) != 32 {
				j.fail(at, "not 32 bytes")
				return
			}
			copy(w[:], b)
		}}
	}
	members := []member{
		{"sender", func() { u.sender = j.address() }}, number("nonce", &u.nonce),
		{"initCode", func() { u.at.initCode = j.pos; u.initCode = j.hex() }},
		bytesOf("callData", &u.callData), number("preVerificationGas", &u.preVerificationGas), bytesOf("paymasterAndData", &u.paymaster),
	}
	if u.version == "0.6" {
		members = append(members, number("callGasLimit", &u.callGas), number("verificationGasLimit", &u.verificationGas),
			number("maxFeePerGas", &u.maxFee), number("maxPriorityFeePerGas", &u.priorityFee))
	} else {
		members = append(members, word("accountGasLimits", &u.accountGasLimits), word("gasFees", &u.gasFees))
	}
	j.at(at, container)
	j.object(members, member{"signature", func() { j.hex() }})
	if j.err != nil {
		return nil, j.err
	}
	if u.version != "0.6" {
		u.verificationGas.SetBytes(u.accountGasLimits[:16])
		u.callGas.SetBytes(u.accountGasLimits[16:])
		u.priorityFee.SetBytes(u.gasFees[:16])
		u.maxFee.SetBytes(u.gasFees[16:])
	}
	if u.version == "0.8" && delegatedInitCode(u.initCode) {
		return nil, fail(chains.CodeSemantic, u.at.initCode, "the hash of an operation whose initCode begins with 0x7702 depends on the chain")
	}
	return u, nil
}

// delegatedInitCode: entry point 0.8 replaces such a code by the account's EIP-7702
// delegate before it hashes.
func delegatedInitCode(code []byte) bool {
	var first [20]byte
	copy(first[:], code)
	return len(code) >= 2 && first == [20]byte{0x77, 0x02}
}

var (
	packedUserOpType = crypto.Keccak256([]byte("PackedUserOperation(address sender,uint256 nonce,bytes initCode,bytes callData,bytes32 accountGasLimits,uint256 preVerificationGas,bytes32 gasFees,bytes paymasterAndData)"))
	erc4337Domain    = crypto.Keccak256([]byte("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"))
	erc4337Name      = crypto.Keccak256([]byte("ERC4337"))
	erc4337Version   = crypto.Keccak256([]byte("1"))
)

// word32 pads an address on the left.
func word32(a [20]byte) []byte { return append(make([]byte, 12, 32), a[:]...) }

// number32 is a big-endian word.
func number32(n *uint256.Int) []byte {
	b := n.Bytes32()
	return b[:]
}

// hash is userOpHash as the entry point of the version computes it.
func (u *userOperation) hash() [32]byte {
	init, data, paymaster := crypto.Keccak256(u.initCode), crypto.Keccak256(u.callData), crypto.Keccak256(u.paymaster)
	switch u.version {
	case "0.6":
		inner := crypto.Keccak256(word32(u.sender), number32(&u.nonce), init, data, number32(&u.callGas), number32(&u.verificationGas),
			number32(&u.preVerificationGas), number32(&u.maxFee), number32(&u.priorityFee), paymaster)
		return crypto.Keccak256Hash(inner, word32(u.entryPoint), number32(&u.chainID))
	case "0.7":
		inner := crypto.Keccak256(word32(u.sender), number32(&u.nonce), init, data, u.accountGasLimits[:],
			number32(&u.preVerificationGas), u.gasFees[:], paymaster)
		return crypto.Keccak256Hash(inner, word32(u.entryPoint), number32(&u.chainID))
	}
	separator := crypto.Keccak256(erc4337Domain, erc4337Name, erc4337Version, number32(&u.chainID), word32(u.entryPoint))
	inner := crypto.Keccak256(packedUserOpType, word32(u.sender), number32(&u.nonce), init, data, u.accountGasLimits[:],
		number32(&u.preVerificationGas), u.gasFees[:], paymaster)
	return crypto.Keccak256Hash([]byte{0x19, 0x01}, separator, inner)
}

// decodeUserOperation reads a user operation. What is signed is its hash under 0.8,
// and EIP-191 over its hash before that, as SimpleAccount and most others verify.
func decodeUserOperation(raw []byte, o Options) (*chains.Decoded, error) {
	u, err := parseUserOperation(raw)
	if err != nil {
		return nil, err
	}
	hash := u.hash()
	digest := hash
	if u.version != "0.8" {
		digest = personalHash(hash[:])
	}
	calls := flatten(call{op: opCall, from: u.entryPoint, to: u.sender, data: u.callData}, &u.chainID, o)
	d := &chains.Decoded{
		Chain:      calls.chain,
		Sign:       chains.SignInput{Digest: digest},
		View:       chains.View{UserOperationRoot: u.view(hash, calls)},
		Charges:    append(calls.charges, u.fee(calls.chain)...),
		Opaque:     calls.opaque,
		Guards:     []string{UserOperationRoot},
		ReplayKeys: []string{fmt.Sprintf("evm-user-operation:%s:0x%x:0x%x:%s", u.chainID.Dec(), u.entryPoint, u.sender, u.nonce.Dec())},
	}
	if calls.opaque { // an account may spend its coins in calls that are not understood
		d.Charges = append(d.Charges, unbounded(calls.chain, ""))
	}
	if calls.delegates {
		d.Guards = append(d.Guards, UserOperationRoot+".calls")
	}
	d.Summary = fmt.Sprintf("user operation (ERC-4337, %s) of account %s: %s on chain %s; %s; nonce %s",
		u.version, Checksum(u.sender), calls.summary(), u.chainID.Dec(), u.feeSummary(), u.nonce.Dec())
	return d, nil
}

// maxCost is the highest prefund in wei: all gas at the highest price. ok is false
// when it exceeds 256 bits.
func (u *userOperation) maxCost() (cost uint256.Int, ok bool) {
	gas := u.verificationGas
	over := false
	add := func(n *uint256.Int) {
		_, o := gas.AddOverflow(&gas, n)
		over = over || o
	}
	if u.version == "0.6" && len(u.paymaster) > 0 {
		_, over = gas.MulOverflow(&gas, uint256.NewInt(3)) // postOp may run twice (EntryPoint 0.6, _getRequiredPrefund)
	}
	add(&u.callGas)
	add(&u.preVerificationGas)
	if u.version != "0.6" && len(u.paymaster) >= 52 {
		var n uint256.Int
		add(n.SetBytes(u.paymaster[20:36]))
		add(n.SetBytes(u.paymaster[36:52]))
	}
	_, o := cost.MulOverflow(&gas, &u.maxFee)
	return cost, !over && !o
}

// fee is charged also when a paymaster is named: it may be paid in tokens.
func (u *userOperation) fee(chain string) []chains.Charge {
	cost, ok := u.maxCost()
	if ok && cost.IsZero() {
		return nil
	}
	c := chains.Charge{Chain: chain, Asset: chain + "/slip44:60", Unbounded: !ok, What: "fee"}
	if ok {
		c.Amount = cost
	}
	return []chains.Charge{c}
}

func (u *userOperation) feeSummary() string {
	cost, ok := u.maxCost()
	fee := "fee without a bound"
	if ok {
		fee = "fee at most " + coins(&u.chainID, &cost)
	}
	if len(u.paymaster) > 0 {
		fee += ", through a paymaster"
	}
	return fee
}

func (u *userOperation) view(hash [32]byte, calls *tree) chains.Value {
	return chains.StructValue(
		chains.StringValue(u.version), chains.IntValue(&u.chainID), chains.AddressValue(u.entryPoint), chains.AddressValue(u.sender),
		chains.IntValue(&u.nonce), chains.HexValue(hexText(u.initCode)), chains.HexValue(hexText(u.callData)),
		chains.IntValue(&u.callGas), chains.IntValue(&u.verificationGas), chains.IntValue(&u.preVerificationGas),
		chains.IntValue(&u.maxFee), chains.IntValue(&u.priorityFee), chains.HexValue(hexText(u.paymaster)),
		chains.HexValue(hexText(hash[:])), calls.view())
}
