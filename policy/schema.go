package policy

import (
	"fmt"
	"sync"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// Kinds that exist only in policies, beside those of views.
const (
	// kindTime: Value.Int is nanoseconds since 1970, Value.Neg before it.
	kindTime chains.TypeKind = 64 + iota
	// kindAccount: an address or a public key, as the wallet's chain has it.
	kindAccount
	// kindHexText: a piece cut out of hexadecimal text.
	kindHexText
	// kindAny: known only when evaluated; values of maps are so.
	kindAny
	// kindWrong: the checker has complained already and accepts everything.
	kindWrong
)

var (
	typeBool    = &chains.Type{Kind: chains.KindBool}
	typeInt     = &chains.Type{Kind: chains.KindInt}
	typeString  = &chains.Type{Kind: chains.KindString}
	typeHex     = &chains.Type{Kind: chains.KindHex}
	typeTime    = &chains.Type{Kind: kindTime}
	typeAccount = &chains.Type{Kind: kindAccount}
	typeHexText = &chains.Type{Kind: kindHexText}
	typeAny     = &chains.Type{Kind: kindAny}
	typeWrong   = &chains.Type{Kind: kindWrong}
)

// typeName is how messages and documentation call a type.
func typeName(t *chains.Type) string {
	switch t.Kind {
	case chains.KindBool:
		return "bool"
	case chains.KindInt:
		return "int"
	case chains.KindString:
		return "string"
	case chains.KindAddress:
		return "address"
	case chains.KindPubkey:
		return "pubkey"
	case chains.KindHex, kindHexText:
		return "hex"
	case chains.KindList:
		return "list<" + typeName(t.Elem) + ">"
	case chains.KindStruct:
		return "struct"
	case chains.KindMap:
		return "map"
	case kindTime:
		return "timestamp"
	case kindAccount:
		return "account"
	case kindAny:
		return "any"
	}
	return "unknown"
}

// presence says what it means that a request does not have a root: an error, but
// in the groups below.
type presence uint8

// Policies that read only missing roots of one of these groups are not applicable
// to the request.
const (
	perPayload presence = iota + 1
	perSubject
)

// Root is a name that policies may start reading from.
type Root struct {
	// Name is "eth.tx" or "activity"; one dot at most.
	Name string
	Type *chains.Type
	// Doc is one line for the manual.
	Doc string

	presence presence
	clauses  []string
	lang     string // the only language that has it; "" for both
	// of builds the root from a request; nil: it is a root of the payload's view.
	of func(*Request) chains.Value
}

// maxRoots bounds the roots of one schema.
const maxRoots = 24

// Schema is the roots that policies are checked against. It is immutable.
type Schema struct {
	roots []Root
	// byName finds a root; spaces holds the words before the dot.
	byName map[string]int
	spaces map[string]bool
}

// NewSchema makes a schema of the given roots of payload views and of the roots
// every request has. It panics when two roots have one name or there are more
// than a schema can hold: both are mistakes of the program.
func NewSchema(payload ...Root) *Schema {
	s := &Schema{byName: map[string]int{}, spaces: map[string]bool{}}
	for _, r := range payload {
		r.presence, r.clauses, r.lang, r.of = perPayload, []string{ClauseCondition}, "", nil
		s.add(r)
	}
	for _, r := range requestRoots {
		s.add(r)
	}
	return s
}

func (s *Schema) add(r Root) {
	if _, ok := s.byName[r.Name]; ok || len(s.roots) == maxRoots {
		panic(fmt.Sprintf("policy: root %s is one too many", r.Name))
	}
	s.byName[r.Name] = len(s.roots)
	if space, _, ok := cutDot(r.Name); ok {
		s.spaces[space] = true
	}
	s.roots = append(s.roots, r)
}

// missing reports whether no root has the name.
func (s *Schema) missing(name string) bool {
	_, ok := s.byName[name]
	return !ok
}

func cutDot(name string) (before, after string, ok bool) {
	for i := range len(name) {
		if name[i] == '.' {
			return name[:i], name[i+1:], true
		}
	}
	return name, "", false
}

// StandardSchema has the payload roots of the chains this build decodes.
func StandardSchema() *Schema { return standardSchema() }

var standardSchema = sync.OnceValue(func() *Schema {
	return NewSchema(
		Root{Name: evm.Root, Type: evm.TxType, Doc: "an EVM transaction"},
		Root{Name: evm.TypedDataRoot, Type: evm.TypedDataType, Doc: "typed data (EIP-712); a Safe transaction has it, too"},
		Root{Name: evm.AuthorizationRoot, Type: evm.AuthorizationType, Doc: "an EIP-7702 authorization, signed alone"},
		Root{Name: evm.MessageRoot, Type: evm.MessageType, Doc: "a message (EIP-191)"},
		Root{Name: evm.UserOperationRoot, Type: evm.UserOperationType, Doc: "a user operation (ERC-4337)"},
		Root{Name: evm.SafeRoot, Type: evm.SafeType, Doc: "a transaction of a Safe that the wallet is an owner of"},
		Root{Name: solana.Root, Type: solana.TxType, Doc: "a Solana transaction message"},
		Root{Name: solana.OffchainRoot, Type: solana.OffchainType, Doc: "a Solana off-chain message, which is no transaction"},
		Root{Name: solana.SIWSRoot, Type: solana.SIWSType, Doc: "a text of Sign In With Solana"},
	)
})

// notYet names parts of the language that a later build brings; a policy that
// uses one is refused with CodeUnsupported rather than as a spelling mistake.
var notYet = map[string]string{
	"tron.tx":    "Tron",
	"bitcoin.tx": "Bitcoin",
	"tempo.tx":   "Tempo",
	"wallets":    "lists of wallets",
}
