package decode

import (
	"encoding/json"
	"fmt"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

func evmKinds() []Kind {
	kinds := []Kind{
		{Name: chains.KindEVMTransaction, Members: "unsigned, input, [from]", Bare: bareText("unsigned"), Decode: ofEVM(chains.KindEVMTransaction, hexOf("unsigned", "input"))},
		{Name: chains.KindEVMMessage, Members: "bytes", Bare: bareText("bytes"), Decode: ofEVM(chains.KindEVMMessage, hexOf("bytes"))},
		{Name: chains.KindEVMTypedData, Members: "typedData, rawJson", Bare: bareText("rawJson"), Decode: ofEVM(chains.KindEVMTypedData, typedData)},
		{Name: chains.KindEVMAuthorization, Members: "chainId, address, nonce", Decode: ofEVM(chains.KindEVMAuthorization, objectOf("chainId", "address", "nonce"))},
		{Name: chains.KindEVMUserOperation, Members: "version, chainId, entryPoint, packed", Decode: ofEVM(chains.KindEVMUserOperation, objectOf("version", "chainId", "entryPoint", "packed"))},
		{Name: chains.KindEVMSafeTransaction, Members: "domain, message", Decode: ofEVM(chains.KindEVMSafeTransaction, objectOf("domain", "message"))},
	}
	for i := range kinds {
		kinds[i].Roots = evm.Roots[kinds[i].Name]
	}
	return kinds
}

// ofEVM decodes what payload reads from a row.
func ofEVM(kind chains.Kind, payload func(Row) ([]byte, error)) func(Row) (*chains.Decoded, error) {
	return func(row Row) (*chains.Decoded, error) {
		b, err := payload(row)
		if err != nil {
			return nil, err
		}
		return evm.Decode(kind, b, evm.Options{Wallet: evmWallet(row)})
	}
}

// hexOf reads hexadecimal text in the first of the members that is there.
func hexOf(names ...string) func(Row) ([]byte, error) {
	return func(row Row) ([]byte, error) {
		text, err := row.Text(names...)
		if err != nil {
			return nil, err
		}
		return Hex(text)
	}
}

// objectOf makes one object of the members, each in its own words.
func objectOf(names ...string) func(Row) ([]byte, error) {
	return func(row Row) ([]byte, error) { return row.Object(names...), nil }
}

// typedData is an object, taken as it is spelled, or its text in a string.
func typedData(row Row) ([]byte, error) {
	if raw, ok := row["typedData"]; ok {
		return raw, nil
	}
	text, err := row.Text("typedData", "rawJson")
	return []byte(text), err
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
