package evm

import (
	"fmt"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Functions that move value, and what they move. Approvals and permits count as
// spent: from then on somebody else decides. A selector belongs to more than one
// standard at times (ERC-20 and ERC-721 share approve and transferFrom); then the
// number, an amount or an id, is charged as an amount of the contract's token.

// builtin is a function that this package knows whatever the contract.
type builtin struct {
	*abiFunction
	// calls returns what is called inside; ok is false when that cannot be told.
	calls func(*tree, *call) (inner []call, ok bool)
	// spends adds the charges of the call.
	spends func(*tree, *call)
	// opaque: arguments can be read, but not what is spent.
	opaque bool
	// says tells people what the call does; nil: its name will do.
	says func(c *call) string
}

// builtins are all of them, by selector.
var builtins = func() map[[4]byte]*builtin {
	m := map[[4]byte]*builtin{}
	for _, list := range [][]builtin{wrappers, spenders} {
		for i := range list {
			b := &list[i]
			if m[b.selector] != nil {
				panic("evm: two built-in functions have one selector: " + b.signature)
			}
			m[b.selector] = b
		}
	}
	return m
}()

// token is the CAIP-19 id of an ERC-20 token.
func (t *tree) token(contract [20]byte) string {
	return fmt.Sprintf("%s/erc20:0x%x", t.chain, contract)
}

// spend charges an amount of a token of one of the wallet's accounts.
func (t *tree) spend(contract [20]byte, amount uint256.Int, what string, to [20]byte) {
	t.charge(chains.Charge{Asset: t.token(contract), Amount: amount, What: what, To: Checksum(to)})
}

// spendUnbounded charges what nothing bounds.
func (t *tree) spendUnbounded(standard string, contract [20]byte, to [20]byte) {
	t.charge(chains.Charge{Asset: fmt.Sprintf("%s/%s:0x%x", t.chain, standard, contract), Unbounded: true, What: "approval", To: Checksum(to)})
}

// ours reports whether tokens of an owner are the wallet's, or of an account that
// acts in this payload.
func (t *tree) ours(owner [20]byte, c *call) bool {
	return t.o.mine(owner) || !c.anonymous && owner == c.from
}

const (
	signed65 = ",uint8 v,bytes32 r,bytes32 s)"
	auth3009 = "(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce"
	details  = "(address token,uint160 amount,uint48 expiration,uint48 nonce)"
	permit1  = "((address token,uint256 amount) permitted,uint256 nonce,uint256 deadline) permit,(address to,uint256 requestedAmount) transferDetails,address owner,"
	permitN  = "((address token,uint256 amount)[] permitted,uint256 nonce,uint256 deadline) permit,(address to,uint256 requestedAmount)[] transferDetails,address owner,"
	witness  = "bytes32 witness,string witnessTypeString,"
)

var spenders = []builtin{
	// ERC-20 (and 721) with what is common beside it
	{abiFunction: function("transfer(address to,uint256 amount)"), spends: func(t *tree, c *call) {
		t.spend(c.to, c.args[1].uint(), "transfer", c.args[0].address())
	}, says: sayTransfer},
	{abiFunction: function("transferFrom(address from,address to,uint256 amount)"), spends: func(t *tree, c *call) {
		if t.ours(c.args[0].address(), c) {
			t.spend(c.to, c.args[2].uint(), "transfer", c.args[1].address())
		}
	}, says: sayTransferFrom},
	{abiFunction: function("approve(address spender,uint256 amount)"), spends: approves(0, 1), says: sayApprove},
	{abiFunction: function("increaseAllowance(address spender,uint256 addedValue)"), spends: approves(0, 1), says: sayApprove},
	{abiFunction: function("decreaseAllowance(address spender,uint256 subtractedValue)"), spends: func(*tree, *call) {}},
	{abiFunction: function("permit(address owner,address spender,uint256 value,uint256 deadline" + signed65), spends: func(t *tree, c *call) {
		if t.ours(c.args[0].address(), c) {
			t.spend(c.to, c.args[2].uint(), "approval", c.args[1].address())
		}
	}},
	{abiFunction: function("permit(address holder,address spender,uint256 nonce,uint256 expiry,bool allowed" + signed65), spends: func(t *tree, c *call) {
		if t.ours(c.args[0].address(), c) && c.args[4].bool() {
			t.spendUnbounded("erc20", c.to, c.args[1].address())
		}
	}},
	{abiFunction: function("transferWithAuthorization" + auth3009 + signed65), spends: authorized},
	{abiFunction: function("transferWithAuthorization" + auth3009 + ",bytes signature)"), spends: authorized},
	{abiFunction: function("receiveWithAuthorization" + auth3009 + signed65), spends: authorized},
	{abiFunction: function("receiveWithAuthorization" + auth3009 + ",bytes signature)"), spends: authorized},
	{abiFunction: function("deposit()"), opaque: true},
	{abiFunction: function("withdraw(uint256 wad)"), opaque: true},

	// ERC-721, ERC-1155
	{abiFunction: function("safeTransferFrom(address from,address to,uint256 tokenId)"), spends: item},
	{abiFunction: function("safeTransferFrom(address from,address to,uint256 tokenId,bytes data)"), spends: item},
	{abiFunction: function("safeTransferFrom(address from,address to,uint256 id,uint256 amount,bytes data)"), spends: func(t *tree, c *call) {
		items(t, c, c.args[3].uint())
	}},
	{abiFunction: function("safeBatchTransferFrom(address from,address to,uint256[] ids,uint256[] amounts,bytes data)"), spends: func(t *tree, c *call) {
		for _, amount := range c.args[3].list {
			items(t, c, amount.uint())
		}
	}},
	{abiFunction: function("setApprovalForAll(address operator,bool approved)"), spends: func(t *tree, c *call) {
		if c.args[1].bool() {
			t.spendUnbounded("erc721", c.to, c.args[0].address())
			t.spendUnbounded("erc1155", c.to, c.args[0].address())
		}
	}, says: sayApproveAll},

	// Permit2
	{abiFunction: function("approve(address token,address spender,uint160 amount,uint48 expiration)"), spends: func(t *tree, c *call) {
		t.spend(c.args[0].address(), c.args[2].uint(), "approval", c.args[1].address())
	}},
	{abiFunction: function("permit(address owner,(" + details + " details,address spender,uint256 sigDeadline) permitSingle,bytes signature)"), spends: func(t *tree, c *call) {
		permit2(t, c, []abiValue{c.args[1].list[0]}, c.args[1].list[1])
	}},
	{abiFunction: function("permit(address owner,(" + details + "[] details,address spender,uint256 sigDeadline) permitBatch,bytes signature)"), spends: func(t *tree, c *call) {
		permit2(t, c, c.args[1].list[0].list, c.args[1].list[1])
	}},
	{abiFunction: function("transferFrom(address from,address to,uint160 amount,address token)"), spends: func(t *tree, c *call) {
		moved(t, c, c.args)
	}},
	{abiFunction: function("transferFrom((address from,address to,uint160 amount,address token)[] transferDetails)"), spends: func(t *tree, c *call) {
		for _, transfer := range c.args[0].list {
			moved(t, c, transfer.list)
		}
	}},
	{abiFunction: function("permitTransferFrom(" + permit1 + "bytes signature)"), spends: permitted1},
	{abiFunction: function("permitTransferFrom(" + permitN + "bytes signature)"), spends: permittedN},
	{abiFunction: function("permitWitnessTransferFrom(" + permit1 + witness + "bytes signature)"), spends: permitted1},
	{abiFunction: function("permitWitnessTransferFrom(" + permitN + witness + "bytes signature)"), spends: permittedN},
}

func approves(spender, amount int) func(*tree, *call) {
	return func(t *tree, c *call) {
		t.spend(c.to, c.args[amount].uint(), "approval", c.args[spender].address())
	}
}

// authorized is a transfer under ERC-3009.
func authorized(t *tree, c *call) {
	if t.ours(c.args[0].address(), c) {
		t.spend(c.to, c.args[2].uint(), "transfer", c.args[1].address())
	}
}

// item is one ERC-721 token, items some of an ERC-1155 token.
func item(t *tree, c *call) {
	if t.ours(c.args[0].address(), c) {
		t.charge(chains.Charge{Asset: fmt.Sprintf("%s/erc721:0x%x", t.chain, c.to), Amount: *uint256.NewInt(1), What: "transfer", To: Checksum(c.args[1].address())})
	}
}

func items(t *tree, c *call, amount uint256.Int) {
	if t.ours(c.args[0].address(), c) {
		t.charge(chains.Charge{Asset: fmt.Sprintf("%s/erc1155:0x%x", t.chain, c.to), Amount: amount, What: "transfer", To: Checksum(c.args[1].address())})
	}
}

func permit2(t *tree, c *call, details []abiValue, spender abiValue) {
	if !t.ours(c.args[0].address(), c) {
		return
	}
	for _, d := range details {
		t.spend(d.list[0].address(), d.list[1].uint(), "approval", spender.address())
	}
}

func moved(t *tree, c *call, args []abiValue) {
	if t.ours(args[0].address(), c) {
		t.spend(args[3].address(), args[2].uint(), "transfer", args[1].address())
	}
}

// permitted1 is one token, permittedN several; what is permitted is the bound.
func permitted1(t *tree, c *call) {
	if t.ours(c.args[2].address(), c) {
		permitted := c.args[0].list[0].list
		t.spend(permitted[0].address(), permitted[1].uint(), "transfer", c.args[1].list[0].address())
	}
}

func permittedN(t *tree, c *call) {
	if !t.ours(c.args[2].address(), c) {
		return
	}
	for i, permitted := range c.args[0].list[0].list {
		var to [20]byte
		if i < len(c.args[1].list) {
			to = c.args[1].list[i].list[0].address()
		}
		t.spend(permitted.list[0].address(), permitted.list[1].uint(), "transfer", to)
	}
}
