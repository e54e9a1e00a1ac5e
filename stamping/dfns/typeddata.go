package dfns

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/stamping/body"
)

// Dfns takes typed data without primaryType and without the domain's own type. Both
// follow from the rest where there is one answer only, and then the text is the one
// that chains/evm reads (EIP-712):
//   - the primary type is the one that no other type has a field of
//   - EIP712Domain has the members that the domain has, in the order of the EIP
//
// Types without one such root, or with an EIP712Domain of their own, are refused.

// domainFields are EIP712Domain's possible fields, in the order of EIP-712.
var domainFields = [...]struct{ name, kind string }{
	{"name", "string"}, {"version", "string"}, {"chainId", "uint256"}, {"verifyingContract", "address"}, {"salt", "bytes32"},
}

func typedData(o *body.Object) (*body.Asked, error) {
	if err := o.Only([]string{"kind", "types", "domain", "message"}, common...); err != nil {
		return nil, err
	}
	types, err := o.Object("types")
	if err != nil {
		return nil, err
	}
	root, err := primary(types)
	if err != nil {
		return nil, err
	}
	domain, err := o.Object("domain")
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, f := range domainFields {
		if domain.Has(f.name) {
			fields = append(fields, fmt.Sprintf(`{"name":%q,"type":%q}`, f.name, f.kind))
		}
	}
	if len(fields) != len(domain.Names()) {
		return nil, body.Refuse(body.Malformed, "domain", "it has a member that EIP-712 does not know")
	}
	if _, err := o.Object("message"); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"types":{"EIP712Domain":[%s],`, strings.Join(fields, ","))
	out.Write(bytes.TrimLeft(o.Raw("types"), "{")) // its own types, to the closing brace
	fmt.Fprintf(&out, `,"primaryType":%q,"domain":%s,"message":%s}`, root, o.Raw("domain"), o.Raw("message"))
	return &body.Asked{Kind: chains.KindEVMTypedData, Payload: out.Bytes()}, nil
}

// primary finds the one type that no type has a field of.
func primary(types *body.Object) (string, error) {
	roots := slices.Clone(types.Names())
	for _, name := range types.Names() {
		if name == "EIP712Domain" {
			return "", body.Refuse(body.NotUnderstood, "types", "EIP712Domain follows from the domain; leave it out")
		}
		if !identifier(name) {
			return "", body.Refuse(body.Malformed, "types", "a type's name is no identifier")
		}
		fields, err := types.Objects(name)
		if err != nil {
			return "", err
		}
		for _, f := range fields {
			kind, err := f.Text("type", 256)
			if err != nil {
				return "", err
			}
			kind, _, _ = strings.Cut(kind, "[")
			roots = slices.DeleteFunc(roots, func(root string) bool { return root == kind })
		}
	}
	if len(roots) != 1 {
		return "", body.Refuse(body.NotUnderstood, "types", "%d types could be the one that is signed", len(roots))
	}
	return roots[0], nil
}

// identifier reports whether a name is one of Solidity's, which need no escapes.
func identifier(name string) bool {
	for i, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '$' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 128
}
