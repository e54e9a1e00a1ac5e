package evm

import "github.com/holiman/uint256"

// calldata is what is understood of a transaction's data. Only two things are:
// nothing at all, and exactly one ERC-20 transfer(address,uint256).
type calldata struct {
	opaque    bool
	token     bool // an ERC-20 transfer of amount to recipient
	recipient [20]byte
	amount    uint256.Int // raw token units
}

// selectorTransfer is the first four bytes of keccak("transfer(address,uint256)").
const selectorTransfer = "\xa9\x05\x9c\xbb"

// readCalldata accepts a transfer only in its one clean form: 68 bytes and
// zeros before the address. A contract may read other forms in its own way.
func readCalldata(t *tx, wallet [20]byte) calldata {
	d := t.data
	switch {
	case len(t.to) == 0:
		return calldata{opaque: true}
	case len(d) == 0:
		return calldata{}
	case [20]byte(t.to) == wallet: // runs the wallet's own code, if EIP-7702 gave it any
		return calldata{opaque: true}
	case len(d) != 68, string(d[:4]) != selectorTransfer, [12]byte(d[4:16]) != [12]byte{}:
		return calldata{opaque: true}
	}
	c := calldata{token: true, recipient: [20]byte(d[16:36])}
	c.amount.SetBytes32(d[36:68])
	return c
}
