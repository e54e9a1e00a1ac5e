// Package turnkey reads bodies of Turnkey's API and writes the stamps that go with
// them, for the room that holds the keys. A stamp is over the body alone, neither
// path nor method, so the body must say all that is asked.
//
// It takes two activities: to sign a transaction, and to sign a payload of which it
// can be said what it is. Every other one is refused, and above all those that
// administer: a key that stamps them is the organization.
//
// Sources: tkhq/docs api-reference/overview/stamps.mdx and activities/; npm
// @turnkey/sdk-types 1.10.0 (v1SignTransactionRequest, v1SignRawPayloadRequest);
// @turnkey/api-key-stamper 0.6.17. docs/formats.md has the forms.
package turnkey

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/stamping/body"
)

// The activities that are stamped.
const (
	SignTransaction = "ACTIVITY_TYPE_SIGN_TRANSACTION_V2"
	SignRawPayload  = "ACTIVITY_TYPE_SIGN_RAW_PAYLOAD_V2"
)

// Binding is what a body must be about.
type Binding struct {
	// Organization is Turnkey's id of the organization, as bodies spell it.
	Organization string
	// SignWith are the spellings of the key or account that signs.
	SignWith []string
	// EVM: the wallet is an account of EVM chains; else of Solana.
	EVM bool
}

// MaxID bounds ids of Turnkey's, in bytes; its UUIDs have 36.
const MaxID = 128

// Read says what a body asks to sign. Errors are *body.Error.
func Read(text []byte, b Binding) (*body.Asked, error) {
	o, err := body.Read(text)
	if err != nil {
		return nil, err
	}
	// The type first: what administers is told so, whatever else is wrong with it.
	activity, err := o.Text("type", MaxID)
	if err != nil {
		return nil, err
	}
	if activity != SignTransaction && activity != SignRawPayload {
		return nil, body.Refuse(body.NotSigning, "type", "only %s and %s are stamped", SignTransaction, SignRawPayload)
	}
	if err := o.Only([]string{"type", "timestampMs", "organizationId", "parameters"}, "generateAppProofs"); err != nil {
		return nil, err
	}
	if _, err := o.Truth("generateAppProofs"); err != nil {
		return nil, err
	}
	organization, err := o.Text("organizationId", MaxID)
	if err != nil {
		return nil, err
	}
	if organization != b.Organization {
		return nil, body.Refuse(body.NotBound, "organizationId", "the credential is of another organization")
	}
	at, err := instant(o)
	if err != nil {
		return nil, err
	}
	p, err := o.Object("parameters")
	if err != nil {
		return nil, err
	}
	read := transaction
	if activity == SignRawPayload {
		read = payload
	}
	asked, err := read(p, b)
	if err != nil {
		return nil, err
	}
	asked.Activity, asked.At = activity, at
	return asked, nil
}

// instant reads timestampMs: a string of decimal digits, milliseconds since 1970.
func instant(o *body.Object) (time.Time, error) {
	s, err := o.Text("timestampMs", 16)
	if err != nil {
		return time.Time{}, err
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms <= 0 || strconv.FormatInt(ms, 10) != s {
		return time.Time{}, body.Refuse(body.Malformed, "timestampMs", "it is not a plain decimal integer")
	}
	return time.UnixMilli(ms), nil
}

func signWith(p *body.Object, b Binding) error {
	s, err := p.Text("signWith", MaxID)
	if err != nil {
		return err
	}
	if !slices.Contains(b.SignWith, s) {
		return body.Refuse(body.NotBound, "signWith", "it is not what the wallet signs with")
	}
	return nil
}

// transaction reads v1SignTransactionIntentV2.
func transaction(p *body.Object, b Binding) (*body.Asked, error) {
	if err := p.Only([]string{"signWith", "unsignedTransaction", "type"}); err != nil {
		return nil, err
	}
	if err := signWith(p, b); err != nil {
		return nil, err
	}
	kind, err := p.Text("type", MaxID)
	if err != nil {
		return nil, err
	}
	want := "TRANSACTION_TYPE_SOLANA"
	if b.EVM {
		want = "TRANSACTION_TYPE_ETHEREUM"
	}
	if kind != want {
		return nil, body.Refuse(body.NotUnderstood, "type", "for this wallet only %s is read", want)
	}
	wire, err := p.Hex("unsignedTransaction")
	if err != nil {
		return nil, err
	}
	if b.EVM {
		return &body.Asked{Kind: chains.KindEVMTransaction, Payload: wire}, nil
	}
	return body.SolanaTransaction("unsignedTransaction", wire)
}

// payload reads v1SignRawPayloadIntentV2: encoding and hash function say together
// what is signed.
func payload(p *body.Object, b Binding) (*body.Asked, error) {
	if err := p.Only([]string{"signWith", "payload", "encoding", "hashFunction"}); err != nil {
		return nil, err
	}
	if err := signWith(p, b); err != nil {
		return nil, err
	}
	text, err := p.Long("payload")
	if err != nil {
		return nil, err
	}
	encoding, err := p.Text("encoding", MaxID)
	if err != nil {
		return nil, err
	}
	hash, err := p.Text("hashFunction", MaxID)
	if err != nil {
		return nil, err
	}
	hash = strings.TrimPrefix(hash, "HASH_FUNCTION_")
	var raw []byte
	switch encoding {
	case "PAYLOAD_ENCODING_EIP712":
		if !b.EVM || hash != "NO_OP" {
			return nil, body.Refuse(body.NotUnderstood, "encoding", "typed data is for EVM wallets, with HASH_FUNCTION_NO_OP")
		}
		return &body.Asked{Kind: chains.KindEVMTypedData, Payload: []byte(text)}, nil
	case "PAYLOAD_ENCODING_TEXT_UTF8":
		raw = []byte(text)
	case "PAYLOAD_ENCODING_HEXADECIMAL":
		if raw, err = p.Hex("payload"); err != nil {
			return nil, err
		}
	default:
		return nil, body.Refuse(body.NotUnderstood, "encoding", "payloads of this encoding are not read")
	}
	switch {
	case b.EVM && hash == "KECCAK256":
		return body.EVMPreimage("payload", raw)
	case !b.EVM && hash == "NOT_APPLICABLE":
		return body.SolanaBytes(raw), nil
	case b.EVM && (hash == "NO_OP" || hash == "SHA256"):
		return nil, body.Refuse(body.RawDigest, "hashFunction", "what is signed is a bare digest; send what Keccak-256 is taken of, with HASH_FUNCTION_KECCAK256")
	}
	return nil, body.Refuse(body.NotUnderstood, "hashFunction", "it is not one that this wallet's payloads have")
}
