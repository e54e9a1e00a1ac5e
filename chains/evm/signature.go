package evm

import (
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"
)

// Human-readable signatures, for the functions that are built in:
// "approve(address spender,uint256 amount)"; tuples are "(address,uint256)[]".

// function reads a signature; a wrong one is a mistake of this package.
func function(text string) *abiFunction {
	name, rest, ok := strings.Cut(text, "(")
	p := signatureParser{text: rest}
	f := &abiFunction{name: name}
	f.inputs.kind = kindStruct
	var spelled string
	f.inputs.fields, spelled = p.fields()
	if !ok || p.text != "" || p.bad || len(f.inputs.fields) > 0 && !f.inputs.finish() {
		panic(fmt.Sprintf("evm: built-in signature %q", text))
	}
	f.signature = name + "(" + spelled + ")"
	copy(f.selector[:], crypto.Keccak256([]byte(f.signature)))
	return f
}

type signatureParser struct {
	text string // what is left
	bad  bool
}

// fields reads up to and with the closing parenthesis, and spells the types.
func (p *signatureParser) fields() (out []abiField, spelled string) {
	if rest, ok := strings.CutPrefix(p.text, ")"); ok {
		p.text = rest
		return nil, ""
	}
	var types []string
	for !p.bad {
		f, text := p.field()
		out, types = append(out, f), append(types, text)
		if rest, ok := strings.CutPrefix(p.text, ")"); ok {
			p.text = rest
			break
		}
		rest, ok := strings.CutPrefix(p.text, ",")
		p.text, p.bad = rest, p.bad || !ok
	}
	return out, strings.Join(types, ",")
}

// field reads a type and, after a space, a name.
func (p *signatureParser) field() (f abiField, spelled string) {
	var parts []abiField
	base := ""
	if rest, ok := strings.CutPrefix(p.text, "("); ok {
		p.text = rest
		parts, spelled = p.fields()
		base, spelled = "tuple", "("+spelled+")"
	}
	end := strings.IndexAny(p.text, " ,)")
	if end < 0 {
		p.bad = true
		return f, ""
	}
	suffix := p.text[:end]
	p.text = p.text[end:]
	t, ok := parseABIType(base+suffix, parts, 0)
	p.bad = p.bad || !ok
	f.typ = t
	if rest, ok := strings.CutPrefix(p.text, " "); ok {
		end := strings.IndexAny(rest, ",)")
		if end < 0 {
			p.bad = true
			return f, ""
		}
		f.name, p.text = rest[:end], rest[end:]
	}
	return f, spelled + suffix
}
