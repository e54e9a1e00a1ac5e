package evm

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// MaxABI is the largest ABI, in bytes of its JSON text.
const MaxABI = 400_000

// ABI is the interface of one contract as its owner uploads it.
type ABI struct {
	// ChainID is the EIP-155 chain id, not 0.
	ChainID uint256.Int
	Address [20]byte
	// JSON is the array that Solidity compilers write.
	JSON []byte
}

// ABIs tell by which function of which contract calldata is read. It is an
// immutable value; nil has none. Which ABIs there are is set by an organization's
// policy authority; no request carries any.
type ABIs struct {
	contracts map[contract]map[[4]byte]*abiFunction
	hash      [32]byte
}

// contract names one; chain ids are 256-bit words.
type contract struct {
	chainID [32]byte
	address [20]byte
}

// NewABIs reads the ABIs of an organization; the order means nothing. It refuses,
// with a [*chains.DecodeError], an ABI that is too large or no JSON, a contract
// given twice, a selector twice in one ABI, and a function that would have a
// built-in function's selector and other arguments.
func NewABIs(list []ABI) (*ABIs, error) {
	a := &ABIs{contracts: make(map[contract]map[[4]byte]*abiFunction, len(list))}
	type line struct {
		of  contract
		sum [32]byte
	}
	var lines []line
	for i := range list {
		of := contract{list[i].ChainID.Bytes32(), list[i].Address}
		switch {
		case list[i].ChainID.IsZero():
			return nil, fail(chains.CodeSemantic, -1, "chain id 0")
		case a.contracts[of] != nil:
			return nil, fail(chains.CodeSemantic, -1, "contract %s on chain %s has two ABIs", Checksum(of.address), list[i].ChainID.Dec())
		}
		functions, err := parseABI(list[i].JSON)
		if err != nil {
			return nil, err
		}
		a.contracts[of] = functions
		lines = append(lines, line{of, sha256.Sum256(list[i].JSON)})
	}
	slices.SortFunc(lines, func(x, y line) int {
		if c := bytes.Compare(x.of.chainID[:], y.of.chainID[:]); c != 0 {
			return c
		}
		return bytes.Compare(x.of.address[:], y.of.address[:])
	})
	h := sha256.New()
	h.Write([]byte("sigild/abis/v1"))
	for _, l := range lines {
		h.Write(l.of.chainID[:])
		h.Write(l.of.address[:])
		h.Write(l.sum[:])
	}
	copy(a.hash[:], h.Sum(nil))
	return a, nil
}

// Hash is SHA-256 over "sigild/abis/v1" and, ordered by chain and address, each
// contract's chain id (32 bytes), address and the SHA-256 of its text. Zero for nil.
func (a *ABIs) Hash() [32]byte {
	if a == nil {
		return [32]byte{}
	}
	return a.hash
}

// Len is the number of contracts.
func (a *ABIs) Len() int {
	if a == nil {
		return 0
	}
	return len(a.contracts)
}

// find returns the function of a contract, nil when no ABI has it.
func (a *ABIs) find(chainID *uint256.Int, address [20]byte, selector [4]byte) *abiFunction {
	if a == nil {
		return nil
	}
	return a.contracts[contract{chainID.Bytes32(), address}][selector]
}

// parseABI reads the functions of a JSON ABI; events, errors and constructors are
// stepped over, members that say nothing about encoding too.
func parseABI(text []byte) (map[[4]byte]*abiFunction, error) {
	if len(text) > MaxABI {
		return nil, fail(chains.CodeForm, -1, "an ABI of %d bytes, at most %d are read", len(text), MaxABI)
	}
	j := newJSON(text)
	out := map[[4]byte]*abiFunction{}
	j.array(func(int) {}, func(int) {
		at := j.pos
		var typ, name string
		var inputs []abiField
		var spelled string
		j.known(map[string]func(){
			"type":   func() { typ = string(j.stringBytes()) },
			"name":   func() { name = string(j.stringBytes()) },
			"inputs": func() { inputs, spelled = j.parameters(0) },
		})
		if j.err != nil {
			return
		}
		switch typ {
		case "function":
		case "constructor", "event", "error", "fallback", "receive":
			return
		default:
			j.semantic(at, "an item of an ABI is a function, event, error or constructor")
			return
		}
		f := &abiFunction{name: name, signature: name + "(" + spelled + ")"}
		f.inputs = abiType{kind: kindStruct, fields: inputs}
		copy(f.selector[:], crypto.Keccak256([]byte(f.signature)))
		switch b := builtins[f.selector]; {
		case !identifier(name, false):
			j.semantic(at, "not a name for a function")
		case len(inputs) > 0 && !f.inputs.finish():
			j.semantic(at, "the arguments of %s are larger than calldata can be", name)
		case out[f.selector] != nil:
			j.semantic(at, "two functions have the selector 0x%x", f.selector)
		case b != nil && b.signature != f.signature:
			j.semantic(at, "%s has the selector of %s", f.signature, b.signature)
		}
		out[f.selector] = f
	})
	if err := j.end(); err != nil {
		return nil, err
	}
	return out, nil
}

// known reads an object's members that are named, each at most once, and steps
// over all others.
func (j *jsonReader) known(read map[string]func()) {
	if j.peek() != '{' {
		j.fail(j.pos, "an object is expected here")
	}
	if j.err != nil {
		return
	}
	seen := map[string]bool{}
	for range j.open() {
		j.peek()
		key := j.pos
		name := string(j.stringBytes())
		j.take(':', "':' is missing after a member's name")
		if j.err != nil {
			return
		}
		j.peek()
		if f := read[name]; f == nil {
			j.skip()
		} else if seen[name] {
			j.fail(key, "a member is there twice")
		} else {
			seen[name] = true
			f()
		}
		j.separator()
	}
	j.close()
}

// parameters reads a list of {"name","type","components"} and spells the types as
// a signature does.
func (j *jsonReader) parameters(depth int) (fields []abiField, spelled string) {
	if depth > maxABIDepth {
		j.fail(j.pos, "tuples nested too deep")
		return nil, ""
	}
	var types []string
	names := map[string]bool{}
	j.array(func(n int) { fields = make([]abiField, 0, n) }, func(int) {
		at := j.pos
		var name, typ, inner string
		var parts []abiField
		j.known(map[string]func(){
			"name":       func() { name = string(j.stringBytes()) },
			"type":       func() { typ = string(j.stringBytes()) },
			"components": func() { parts, inner = j.parameters(depth + 1) },
		})
		if j.err != nil {
			return
		}
		t, ok := parseABIType(typ, parts, 0)
		switch dims, tuple := strings.CutPrefix(typ, "tuple"); {
		case !ok:
			j.semantic(at, "unknown type %s", ascii(typ, 60))
		case name != "" && (!identifier(name, false) || names[name]):
			j.semantic(at, "not a name for an argument, or one used twice")
		case tuple:
			types = append(types, "("+inner+")"+dims)
		case len(parts) > 0:
			j.semantic(at, "only tuples have components")
		default:
			types = append(types, typ)
		}
		names[name] = true
		fields = append(fields, abiField{name, t})
	})
	return fields, strings.Join(types, ",")
}
