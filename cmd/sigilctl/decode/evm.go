package decode

import (
	"encoding/json"
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

func evmKinds() []Kind {
	return []Kind{
		{
			Name: chains.KindEVMTransaction, Members: "unsigned, input",
			Decode: evmTransaction, Bare: bareText("unsigned"),
			Roots: map[string]*chains.Type{evm.Root: evm.TxType},
		},
	}
}

func evmTransaction(row Row) (*chains.Decoded, error) {
	text, err := row.Text("unsigned", "input")
	if err != nil {
		return nil, err
	}
	b, err := Hex(text)
	if err != nil {
		return nil, err
	}
	return evm.Decode(b, evmWallet(row))
}

// evmWallet is the row's `from`, the wallet that is to sign, when it spells an
// address; the zero address, "not known", when it does not.
func evmWallet(row Row) [20]byte {
	var s string
	if json.Unmarshal(row["from"], &s) != nil {
		return [20]byte{}
	}
	a, err := evm.ParseAddress(s)
	if err != nil {
		return [20]byte{}
	}
	return a
}

// bareText takes text that stands alone for the named member.
func bareText(member string) func([]byte) (Row, error) {
	return func(text []byte) (Row, error) {
		q, err := json.Marshal(string(text))
		if err != nil {
			return nil, fmt.Errorf("quoting the payload: %w", err)
		}
		return Row{member: q}, nil
	}
}
