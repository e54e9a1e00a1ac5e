package evm

import (
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Functions that hold calls. Sources: Uniswap's Multicall, Multicall3
// (mds1/multicall), Safe contracts 1.1 to 1.5, ERC-4337 EntryPoint 0.6 to 0.8,
// SimpleAccount, Kernel, ERC-7579, ERC-7821.

const (
	op06 = "(address sender,uint256 nonce,bytes initCode,bytes callData,uint256 callGasLimit,uint256 verificationGasLimit,uint256 preVerificationGas,uint256 maxFeePerGas,uint256 maxPriorityFeePerGas,bytes paymasterAndData,bytes signature)"
	op07 = "(address sender,uint256 nonce,bytes initCode,bytes callData,bytes32 accountGasLimits,uint256 preVerificationGas,bytes32 gasFees,bytes paymasterAndData,bytes signature)"
)

var wrappers = []builtin{
	{abiFunction: function("multicall(bytes[] data)"), calls: ofItself(0)},
	{abiFunction: function("multicall(uint256 deadline,bytes[] data)"), calls: ofItself(1)},
	{abiFunction: function("multicall(bytes32 previousBlockhash,bytes[] data)"), calls: ofItself(1)},

	{abiFunction: function("aggregate((address target,bytes callData)[] calls)"), calls: ofTuples(0, 0, -1, 1)},
	{abiFunction: function("blockAndAggregate((address target,bytes callData)[] calls)"), calls: ofTuples(0, 0, -1, 1)},
	{abiFunction: function("tryAggregate(bool requireSuccess,(address target,bytes callData)[] calls)"), calls: ofTuples(1, 0, -1, 1)},
	{abiFunction: function("tryBlockAndAggregate(bool requireSuccess,(address target,bytes callData)[] calls)"), calls: ofTuples(1, 0, -1, 1)},
	{abiFunction: function("aggregate3((address target,bool allowFailure,bytes callData)[] calls)"), calls: ofTuples(0, 0, -1, 2)},
	{abiFunction: function("aggregate3Value((address target,bool allowFailure,uint256 value,bytes callData)[] calls)"), calls: ofTuples(0, 0, 2, 3)},

	{abiFunction: function("execute(address dest,uint256 value,bytes func)"), calls: one},
	{abiFunction: function("execute(address to,uint256 value,bytes data,uint8 operation)"), calls: oneWithOperation},
	{abiFunction: function("executeBatch((address target,uint256 value,bytes data)[] calls)"), calls: ofTuples(0, 0, 1, 2)},
	{abiFunction: function("executeBatch(address[] dest,bytes[] func)"), calls: ofColumns},
	{abiFunction: function("executeBatch(address[] dest,uint256[] value,bytes[] func)"), calls: ofColumns},
	{abiFunction: function("execute(bytes32 mode,bytes executionData)"), calls: byMode},

	{abiFunction: function("execTransaction(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice,address gasToken,address refundReceiver,bytes signatures)"), calls: safeExec},
	{abiFunction: function("execTransactionFromModule(address to,uint256 value,bytes data,uint8 operation)"), calls: oneWithOperation},
	{abiFunction: function("execTransactionFromModuleReturnData(address to,uint256 value,bytes data,uint8 operation)"), calls: oneWithOperation},
	{abiFunction: function("multiSend(bytes transactions)"), calls: multiSend},

	{abiFunction: function("handleOps(" + op06 + "[] ops,address beneficiary)"), calls: handleOps},
	{abiFunction: function("handleOps(" + op07 + "[] ops,address beneficiary)"), calls: handleOps},
	{abiFunction: function("handleAggregatedOps((" + op06 + "[] userOps,address aggregator,bytes signature)[] opsPerAggregator,address beneficiary)"), calls: handleAggregatedOps},
	{abiFunction: function("handleAggregatedOps((" + op07 + "[] userOps,address aggregator,bytes signature)[] opsPerAggregator,address beneficiary)"), calls: handleAggregatedOps},
}

// from makes a call out of the account that c runs as.
func (c *call) inside(to [20]byte, value uint256.Int, data []byte) call {
	account := c.account()
	return call{op: opCall, from: account, to: to, value: value, data: data, anonymous: c.op == opDelegate && c.anonymous}
}

// ofItself: argument i holds the calldata of functions of the same contract.
func ofItself(i int) func(*tree, *call) ([]call, bool) {
	return func(_ *tree, c *call) ([]call, bool) {
		out := make([]call, len(c.args[i].list))
		for k, data := range c.args[i].list {
			out[k] = call{op: opDelegateSelf, from: c.from, anonymous: c.anonymous, to: c.to, data: data.data}
		}
		return out, true
	}
}

// ofTuples: argument i is a list of tuples with target, value (-1: none) and data
// at these places.
func ofTuples(i, target, value, data int) func(*tree, *call) ([]call, bool) {
	return func(_ *tree, c *call) ([]call, bool) {
		return tuples(c, c.args[i].list, target, value, data), true
	}
}

func tuples(c *call, list []abiValue, target, value, data int) []call {
	out := make([]call, len(list))
	for k, t := range list {
		var v uint256.Int
		if value >= 0 {
			v = t.list[value].uint()
		}
		out[k] = c.inside(t.list[target].address(), v, t.list[data].data)
	}
	return out
}

func one(_ *tree, c *call) ([]call, bool) {
	return []call{c.inside(c.args[0].address(), c.args[1].uint(), c.args[2].data)}, true
}

// oneWithOperation: 0 is a call, 1 a delegatecall; no contract knows another.
func oneWithOperation(_ *tree, c *call) ([]call, bool) {
	inner := c.inside(c.args[0].address(), c.args[1].uint(), c.args[2].data)
	switch c.args[3].byte() {
	case 0:
	case 1:
		inner.op = opDelegate
	default:
		return nil, false
	}
	return []call{inner}, true
}

// ofColumns: targets, maybe values, and data, as many of each. SimpleAccount takes
// an empty list of values for "none".
func ofColumns(_ *tree, c *call) ([]call, bool) {
	targets, datas := c.args[0].list, c.args[len(c.args)-1].list
	var values []abiValue
	if len(c.args) == 3 {
		if values = c.args[1].list; len(values) != 0 && len(values) != len(targets) {
			return nil, false
		}
	}
	if len(targets) != len(datas) {
		return nil, false
	}
	out := make([]call, len(targets))
	for k := range targets {
		var v uint256.Int
		if len(values) > 0 {
			v = values[k].uint()
		}
		out[k] = c.inside(targets[k].address(), v, datas[k].data)
	}
	return out, true
}

// safeExec: what the transaction does, and the refund to whoever sends it, which
// the Safe pays and nothing here bounds.
func safeExec(t *tree, c *call) ([]call, bool) {
	inner, ok := oneWithOperation(t, c)
	if gasPrice := c.args[6].uint(); ok && !gasPrice.IsZero() {
		asset := t.native()
		if token := c.args[7].address(); token != [20]byte{} {
			asset = t.token(token)
		}
		t.charge(chains.Charge{Asset: asset, Unbounded: true, What: "fee"})
	}
	return inner, ok
}

// multiSend: operation (1 byte), to (20), value (32), length (32), data, packed one
// after the other. It runs as the account that delegates to it.
func multiSend(_ *tree, c *call) ([]call, bool) {
	var out []call
	for b := c.args[0].data; len(b) > 0; {
		if len(b) < 85 || b[0] > 1 {
			return nil, false
		}
		var length uint256.Int
		length.SetBytes(b[53:85])
		if length.GtUint64(uint64(len(b) - 85)) {
			return nil, false
		}
		n := int(length.Uint64())
		inner := call{op: opCall, from: c.from, anonymous: c.anonymous, to: [20]byte(b[1:21]), data: b[85 : 85+n : 85+n]}
		inner.value.SetBytes(b[21:53])
		if b[0] == 1 {
			inner.op = opDelegate
		}
		out, b = append(out, inner), b[85+n:]
	}
	return out, true
}

func handleOps(_ *tree, c *call) ([]call, bool) { return operations(c, c.args[0].list), true }

func handleAggregatedOps(_ *tree, c *call) (out []call, ok bool) {
	for _, group := range c.args[0].list {
		out = append(out, operations(c, group.list[0].list)...)
	}
	return out, true
}

// operations: the entry point calls each sender with its callData.
func operations(c *call, ops []abiValue) []call { return tuples(c, ops, 0, -1, 3) }

var (
	callTuple  = "(address target,uint256 value,bytes data)[]"
	batchOnly  = function("f(" + callTuple + " calls)").inputs
	batchAndOp = function("f(" + callTuple + " calls,bytes opData)").inputs
	batches    = function("f(bytes[] batches)").inputs
)

// byMode reads execute(mode, executionData): call type, whether failures revert,
// and for ERC-7821 a selector in bytes 6 to 10 of the mode.
func byMode(_ *tree, c *call) ([]call, bool) {
	mode, data := c.args[0].data, c.args[1].data
	selector := [4]byte(mode[6:10])
	plain := zero(mode[2:6]) && mode[1] <= 1
	switch {
	case !plain:
		return nil, false
	case mode[0] == 0x00 && zero(mode[6:]):
		if len(data) < 52 {
			return nil, false
		}
		var v uint256.Int
		v.SetBytes(data[20:52])
		return []call{c.inside([20]byte(data[:20]), v, data[52:])}, true
	case mode[0] == 0xff && zero(mode[6:]):
		if len(data) < 20 {
			return nil, false
		}
		inner := c.inside([20]byte(data[:20]), uint256.Int{}, data[20:])
		inner.op = opDelegate
		return []call{inner}, true
	case mode[0] != 0x01 || !zero(mode[10:]):
		return nil, false
	case selector == [4]byte{}:
		return batch(c, data, false)
	case selector == [4]byte{0x78, 0x21, 0x00, 0x01}:
		return batch(c, data, true)
	case selector == [4]byte{0x78, 0x21, 0x00, 0x02}:
		list, ok := decodeParts(&batches, data)
		if !ok {
			return nil, false
		}
		var out []call
		for _, b := range list[0].list {
			inner, ok := batch(c, b.data, true)
			if !ok {
				return nil, false
			}
			out = append(out, inner...)
		}
		return out, true
	}
	return nil, false
}

// batch reads calls, with data for the account behind them where that may be. A
// target of zero means the account itself to some accounts and nobody to others.
func batch(c *call, data []byte, opData bool) ([]call, bool) {
	list, ok := decodeParts(&batchOnly, data)
	if !ok && opData {
		list, ok = decodeParts(&batchAndOp, data)
	}
	if !ok {
		return nil, false
	}
	out := tuples(c, list[0].list, 0, 1, 2)
	for i := range out {
		if out[i].to == [20]byte{} {
			return nil, false
		}
	}
	return out, true
}
