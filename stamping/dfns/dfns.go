// Package dfns reads requests to Dfns' API and makes the user action that Dfns wants
// signed for them, for the room that holds the keys. Dfns gives out a challenge for
// method, path and body; what is signed is that challenge, in which nobody but Dfns
// can find the three again. So somebody must say that a challenge is a request's:
// see [Statement].
//
// It takes two requests: to sign with a wallet or key, and to sign and broadcast with
// a wallet; of them the kinds of which it can be said what is signed.
//
// Sources: npm @dfns/sdk 0.8.3 (generated/wallets, generated/keys, userActionFetch),
// @dfns/sdk-keysigner 0.8.3, Dfns' OpenAPI 2.0.155 (POST /auth/action/init).
// docs/formats.md has the forms.
package dfns

import (
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/stamping/body"
)

// Binding is what a request must be about.
type Binding struct {
	// SignWith is Dfns' id of the wallet ("wa-…") or of the key ("key-…").
	SignWith string
	// Chain is the wallet's: "eip155", or the CAIP-2 id of a Solana cluster.
	Chain string
}

// Request is a request as it will be sent.
type Request struct {
	// Method is the HTTP method, Path the path without host and query.
	Method, Path string
	Body         []byte
	// Challenge is what Dfns gave out for the three.
	Challenge string
}

// GoodID reports whether Dfns would call a wallet, a key or a credential so: a prefix
// and parts of lower-case letters and digits.
func GoodID(id string) bool {
	if len(id) == 0 || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func (b Binding) evm() bool { return b.Chain == "eip155" }

// Read says what a request asks to sign. Errors are *body.Error.
func Read(r Request, b Binding) (*body.Asked, error) {
	broadcast, err := endpoint(r, b)
	if err != nil {
		return nil, err
	}
	o, err := body.Read(r.Body)
	if err != nil {
		return nil, err
	}
	kind, err := o.Text("kind", 64)
	if err != nil {
		return nil, err
	}
	if broadcast && kind != "Transaction" {
		return nil, body.Refuse(body.NotUnderstood, "kind", "only a whole Transaction is broadcast: Dfns fills the others in")
	}
	if broadcast && (o.Has("network") || o.Has("blockchainKind")) {
		return nil, body.Refuse(body.Malformed, "network", "what is broadcast goes to the wallet's own network")
	}
	if err := network(o, b); err != nil {
		return nil, err
	}
	if o.Has("externalId") {
		if _, err := o.Text("externalId", 256); err != nil {
			return nil, err
		}
	}
	asked, err := read(o, kind, b)
	if err != nil {
		return nil, err
	}
	asked.Activity = kind
	return asked, nil
}

// endpoint wants one of the paths that sign, for the bound id.
func endpoint(r Request, b Binding) (broadcast bool, err error) {
	id, ok := "", false
	if r.Method == "POST" {
		for _, prefix := range [...]string{"/wallets/", "/keys/"} {
			if rest, has := strings.CutPrefix(r.Path, prefix); has {
				if id, ok = strings.CutSuffix(rest, "/signatures"); !ok && prefix == "/wallets/" {
					id, ok = strings.CutSuffix(rest, "/transactions")
					broadcast = ok
				}
				break
			}
		}
	}
	switch {
	case !ok || !GoodID(id):
		return false, body.Refuse(body.NotSigning, "path", "only POST /wallets/ID/signatures, /wallets/ID/transactions and /keys/ID/signatures are signed for")
	case id != b.SignWith:
		return false, body.Refuse(body.NotBound, "path", "it is not what the wallet signs with")
	}
	return broadcast, nil
}

// common are members that every kind of signature may have.
var common = []string{"externalId", "network", "blockchainKind"}

// read reads one kind.
func read(o *body.Object, kind string, b Binding) (*body.Asked, error) {
	switch kind {
	case "Transaction":
		if err := o.Only([]string{"kind", "transaction"}, common...); err != nil {
			return nil, err
		}
		wire, err := o.Hex("transaction")
		if err != nil {
			return nil, err
		}
		if b.evm() {
			return &body.Asked{Kind: chains.KindEVMTransaction, Payload: wire}, nil
		}
		return body.SolanaTransaction("transaction", wire)
	case "Message":
		if b.evm() {
			return nil, body.Refuse(body.NotUnderstood, "kind", "what Dfns hashes of a Message on EVM networks is not documented; use Eip191")
		}
		raw, err := message(o)
		if err != nil {
			return nil, err
		}
		return body.SolanaBytes(raw), nil
	case "Eip191":
		if !b.evm() {
			return nil, wrongChain(kind)
		}
		raw, err := message(o)
		if err != nil {
			return nil, err
		}
		return &body.Asked{Kind: chains.KindEVMMessage, Payload: raw}, nil
	case "Eip712":
		if !b.evm() {
			return nil, wrongChain(kind)
		}
		return typedData(o)
	case "Eip7702":
		if !b.evm() {
			return nil, wrongChain(kind)
		}
		return authorization(o)
	case "Hash":
		return nil, body.Refuse(body.RawDigest, "kind", "what is signed is a bare digest")
	}
	return nil, body.Refuse(body.NotUnderstood, "kind", "requests of this kind are not read")
}

func wrongChain(kind string) error {
	return body.Refuse(body.NotUnderstood, "kind", "%s is for wallets on EVM chains", kind)
}

func message(o *body.Object) ([]byte, error) {
	if err := o.Only([]string{"kind", "message"}, common...); err != nil {
		return nil, err
	}
	return o.Hex("message")
}

// authorization makes the text that chains/evm reads of kind Eip7702.
func authorization(o *body.Object) (*body.Asked, error) {
	if err := o.Only([]string{"kind", "address", "nonce", "chainId"}, common...); err != nil {
		return nil, err
	}
	address, err := o.Text("address", 42)
	if err != nil {
		return nil, err
	}
	nonce, chain := o.Raw("nonce"), o.Raw("chainId")
	if !number(nonce) || !number(chain) {
		return nil, body.Refuse(body.Malformed, "nonce", "nonce and chainId are not both plain integers")
	}
	return &body.Asked{Kind: chains.KindEVMAuthorization, Payload: fmt.Appendf(nil, `{"chainId":%s,"address":%q,"nonce":%s}`, chain, address, nonce)}, nil
}

// number reports whether raw text is that of a plain integer.
func number(raw []byte) bool {
	for _, c := range raw {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(raw) > 0
}

// clusters are the CAIP-2 ids of Dfns' Solana networks.
var clusters = map[string]string{
	"Solana":       "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
	"SolanaDevnet": "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
}

// network holds what a request says of its network to the wallet's chain. Names of
// EVM networks say nothing about what is signed: the payload has its chain id.
func network(o *body.Object, b Binding) error {
	if o.Has("blockchainKind") {
		kind, err := o.Text("blockchainKind", 64)
		if err != nil {
			return err
		}
		if b.evm() && kind != "Evm" || !b.evm() && kind != "Solana" {
			return body.Refuse(body.NotBound, "blockchainKind", "the wallet is on another kind of chain")
		}
	}
	if !o.Has("network") {
		return nil
	}
	name, err := o.Text("network", 64)
	if err != nil {
		return err
	}
	if _, solana := clusters[name]; b.evm() && solana || !b.evm() && clusters[name] != b.Chain {
		return body.Refuse(body.NotBound, "network", "the wallet is on another chain")
	}
	return nil
}
