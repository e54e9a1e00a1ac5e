package decode

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

func evmKinds() []Kind {
	kinds := []Kind{
		{Name: chains.KindEVMTransaction, Members: "unsigned, input, [from], [abis]", Bare: bareText("unsigned"), Decode: ofEVM(chains.KindEVMTransaction, hexOf("unsigned", "input"))},
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
		o := evm.Options{Wallet: evmWallet(row)}
		d, err := evm.Decode(kind, b, o)
		if _, ok := row["abis"]; err != nil || !ok {
			return d, err
		}
		// A row says whose contracts they are, not on which chain: on the payload's.
		if o.ABIs, err = abis(row, d.Chain); err != nil {
			return nil, err
		}
		return evm.Decode(kind, b, o)
	}
}

// abis reads `abis`: for each contract its ABI, as a list or as JSON text. They count
// as registered, as an organization does it.
func abis(row Row, chain string) (*evm.ABIs, error) {
	id, err := uint256.FromDecimal(strings.TrimPrefix(chain, "eip155:"))
	if err != nil {
		return nil, nil // a payload of no chain calls no contract
	}
	var texts map[string]json.RawMessage
	if json.Unmarshal(row["abis"], &texts) != nil {
		return nil, Malformed(-1, "abis is no object of ABIs")
	}
	var list []evm.ABI
	for contract, text := range texts {
		a, err := evm.ParseAddress(contract)
		if err != nil {
			return nil, Malformed(-1, "abis: %q is no address", contract)
		}
		var quoted string
		if json.Unmarshal(text, &quoted) == nil {
			text = json.RawMessage(quoted)
		}
		list = append(list, evm.ABI{ChainID: *id, Address: a, JSON: text})
	}
	set, err := evm.NewABIs(list)
	if err != nil {
		return nil, Malformed(-1, "abis: %v", err)
	}
	return set, nil
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
