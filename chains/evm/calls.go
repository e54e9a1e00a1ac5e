package evm

import (
	"strconv"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// A call can hold calls: a multicall, a Safe's execTransaction, an account's
// execute. They are flattened into one list, parents before children, so that a
// rule about calls sees all of them. Rules:
//   - a wrapper that does not parse to the last byte is "noncanonical" and has no
//     children: the payload is opaque, and the list is partial, an error to read
//   - at most 8 levels below the first call and 256 calls in all; beyond that the
//     list is absent, and the payload opaque
//   - whether a contract is the wrapper that its selector says cannot be known
//     here; that is for the policy, which sees the address

const (
	maxCallDepth = 8
	maxCalls     = 256
)

// How a call is made.
const (
	opCall         = "call"
	opDelegate     = "delegatecall"      // code of `to` with the account and the coins of `from`
	opDelegateSelf = "delegatecall-self" // a contract runs its own function, for the same sender
	opCreate       = "create"
)

// What is understood of calldata.
const (
	dataNone         = "none"         // there is none
	dataExact        = "exact"        // the one encoding of the arguments of a known function
	dataNoncanonical = "noncanonical" // a known function, but not so
	dataUnknown      = "unknown"
)

// CallType lays out one element of `calls`.
var CallType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "path", Type: typeString, Doc: "place in the tree: '0' is the first call, '0.1' the second call inside it"},
	{Name: "depth", Type: typeInt, Doc: "0 for the first call"},
	{Name: "op", Type: typeString, Doc: "'call', 'delegatecall', 'delegatecall-self' (a contract calls itself) or 'create'"},
	{Name: "from", Type: typeAddress, Doc: "the account that calls"},
	{Name: "to", Type: typeAddress, Doc: "the contract or recipient; absent in a contract creation"},
	{Name: "value", Type: typeInt, Doc: "native value, wei"},
	{Name: "selector", Type: typeHex, Doc: "the first four bytes of data; absent when there are fewer"},
	{Name: "data", Type: typeHex, Doc: "calldata; '0x' when empty"},
	{Name: "data_status", Type: typeString, Doc: "'none', 'exact', 'noncanonical' or 'unknown'"},
	{Name: "function", Type: typeString, Doc: "'transfer(address,uint256)'; present when data_status is 'exact'"},
	{Name: "args", Type: typeMap, Doc: "arguments by name; present when data_status is 'exact'"},
}}

// call is one node of the tree.
type call struct {
	path      string
	depth     int
	op        string
	from      [20]byte
	anonymous bool // from is not known
	to        [20]byte
	value     uint256.Int
	data      []byte

	status string
	known  *builtin     // of the selector; nil when it is not built in
	fn     *abiFunction // what the data was read by; set when status is exact
	args   []abiValue
}

// account is whose coins and storage the call runs with.
func (c *call) account() [20]byte {
	if c.op == opDelegate {
		return c.from
	}
	return c.to
}

// tree is the flattened calls of one payload and what they spend.
type tree struct {
	o       Options
	chainID *uint256.Int
	chain   string // CAIP-2
	calls   []call
	// truncated: there are more, or deeper, calls than are looked at.
	truncated bool
	// hidden: a call that holds calls was not read, so some are not in the list.
	hidden bool
	// opaque: not everything that these calls spend is in charges.
	opaque bool
	// delegates: code of another contract runs with an account of the payload.
	delegates bool
	charges   []chains.Charge
}

// flatten follows the first call of a payload.
func flatten(root call, chainID *uint256.Int, o Options) *tree {
	t := &tree{o: o, chainID: chainID, chain: chainName(chainID)}
	root.path = "0"
	t.visit(root)
	if t.truncated {
		t.opaque = true
	}
	return t
}

// visit appends a call and what is inside it.
func (t *tree) visit(c call) {
	if len(t.calls) == maxCalls {
		t.truncated = true
	}
	if t.truncated {
		return
	}
	inner := t.understand(&c)
	if c.op == opDelegate {
		t.delegates, t.opaque = true, t.opaque || c.known == nil || c.known.calls == nil
	}
	t.calls = append(t.calls, c)
	if len(inner) == 0 {
		return
	}
	if c.depth == maxCallDepth {
		t.truncated = true
		return
	}
	t.chargeInner(&c, inner)
	for i := range inner {
		inner[i].path, inner[i].depth = c.path+"."+strconv.Itoa(i), c.depth+1
		t.visit(inner[i])
	}
}

// understand reads the data of a call, charges what it spends by itself, and
// returns the calls inside it.
func (t *tree) understand(c *call) (inner []call) {
	switch {
	case c.op == opCreate:
		c.status, t.opaque = dataUnknown, true
		return nil
	case len(c.data) == 0:
		c.status = dataNone
		return nil
	case len(c.data) < 4:
		c.status, t.opaque = dataUnknown, true
		return nil
	}
	selector := [4]byte(c.data[:4])
	uploaded := t.o.ABIs.find(t.chainID, c.to, selector)
	c.known = builtins[selector]
	switch {
	case c.known != nil:
		c.fn = c.known.abiFunction
	case uploaded != nil:
		c.fn = uploaded
	default:
		c.status, t.opaque = dataUnknown, true
		return nil
	}
	var ok bool
	if c.args, ok = c.fn.decodeArguments(c.data[4:]); !ok {
		c.status, c.fn, t.opaque = dataNoncanonical, nil, true
		t.hidden = t.hidden || c.known != nil && c.known.calls != nil
		return nil
	}
	c.status = dataExact
	if uploaded != nil {
		c.fn = uploaded // the same types; its names are the contract's own
	}
	if c.known == nil || c.known.opaque {
		t.opaque = true
	}
	switch {
	case c.known == nil:
	case c.known.calls != nil:
		if inner, ok = c.known.calls(t, c); !ok {
			c.status, c.fn, c.args, t.opaque, t.hidden = dataNoncanonical, nil, nil, true, true
			return nil
		}
	case c.known.spends != nil:
		c.known.spends(t, c)
	}
	return inner
}

// chargeInner charges the native value that calls inside a wrapper send beyond
// what the wrapper itself was sent: it comes out of the wrapper's own account.
func (t *tree) chargeInner(c *call, inner []call) {
	var sum uint256.Int
	to, several := "", false
	for i := range inner {
		if inner[i].op != opCall || inner[i].value.IsZero() {
			continue
		}
		if _, overflow := sum.AddOverflow(&sum, &inner[i].value); overflow {
			t.charge(chains.Charge{Asset: t.native(), Unbounded: true, What: "transfer"})
			return
		}
		switch next := Checksum(inner[i].to); {
		case to == "":
			to = next
		case to != next:
			several = true
		}
	}
	if several { // how much of it goes to whom cannot be told
		to = ""
	}
	if c.op != opDelegate {
		if !sum.Gt(&c.value) {
			return
		}
		sum.Sub(&sum, &c.value)
	}
	if !sum.IsZero() {
		t.charge(chains.Charge{Asset: t.native(), Amount: sum, What: "transfer", To: to})
	}
}

func (t *tree) native() string { return t.chain + "/slip44:60" }

// charge adds one charge, none of amount zero.
func (t *tree) charge(c chains.Charge) {
	if !c.Unbounded && c.Amount.IsZero() {
		return
	}
	c.Chain = t.chain
	t.charges = append(t.charges, c)
}

// view is the list of calls, absent when it is not complete.
func (t *tree) view() chains.Value {
	if t.truncated {
		return chains.Value{}
	}
	v := chains.SeqValue(callSeq{t})
	v.Partial = t.hidden
	return v
}

// callSeq is the calls, made for a view when they are read.
type callSeq struct{ t *tree }

func (s callSeq) Len() int { return len(s.t.calls) }

func (s callSeq) At(i int) chains.Value { return s.t.calls[i].view() }

func (c *call) view() chains.Value {
	var from, to, selector, fn, args chains.Value
	if !c.anonymous {
		from = chains.AddressValue(c.from)
	}
	if c.op != opCreate {
		to = chains.AddressValue(c.to)
		if len(c.data) >= 4 {
			selector = chains.HexValue(hexText(c.data[:4]))
		}
	}
	if c.fn != nil {
		fn, args = chains.StringValue(c.fn.signature), c.fn.arguments(c.args)
	}
	return chains.StructValue(
		chains.StringValue(c.path), chains.Uint64Value(uint64(c.depth)), chains.StringValue(c.op), from, to,
		chains.IntValue(&c.value), selector, chains.HexValue(hexText(c.data)), chains.StringValue(c.status), fn, args)
}
