package evm

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
)

// EIP-191, version 0x45 ("personal_sign"): keccak("\x19Ethereum Signed Message:\n" ‖
// length in decimal ‖ message).

// MessageRoot is the root of a message's view.
const MessageRoot = "eth.message"

// MessageType lays out the root "eth.message".
var MessageType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "bytes", Type: typeHex, Doc: "the message; '0x' when empty"},
	{Name: "text", Type: typeString, Doc: "the message as text; absent unless it is printable UTF-8 (line ends and tabs may be in it)"},
	{Name: "length", Type: typeInt, Doc: "in bytes"},
}}

// maxMessage is the longest message, in bytes.
const maxMessage = 64 << 10

// decodeMessage reads a message. One that is no text, or has the length of a hash,
// can stand for a user operation, an order or anything else that a contract
// verifies in this form: it is opaque and has no bound. A policy must read
// eth.message to allow any.
func decodeMessage(raw []byte) (*chains.Decoded, error) {
	if len(raw) > maxMessage {
		return nil, fail(chains.CodeForm, -1, "a message of %d bytes, at most %d are signed", len(raw), maxMessage)
	}
	text := chains.Value{}
	readable := printable(raw)
	if readable {
		text = chains.StringValue(string(raw))
	}
	d := &chains.Decoded{
		Chain:  "eip155",
		Sign:   chains.SignInput{Digest: personalHash(raw)},
		View:   chains.View{MessageRoot: chains.StructValue(chains.HexValue(hexText(raw)), text, chains.Uint64Value(uint64(len(raw))))},
		Guards: []string{MessageRoot},
	}
	switch {
	case readable && len(raw) != 32:
		d.Summary = fmt.Sprintf("sign a text of %d bytes: \"%s\"", len(raw), ascii(string(raw), 400))
	default:
		d.Opaque = true
		d.Charges = []chains.Charge{unbounded(d.Chain, "")}
		d.Summary = fmt.Sprintf("sign %d bytes that are no text and can stand for anything", len(raw))
		if len(raw) == 32 {
			d.Summary = "sign 32 bytes, the length of a hash, that can stand for anything"
		}
	}
	return d, nil
}

// personalHash is what EIP-191 signs of a message.
func personalHash(message []byte) [32]byte {
	return crypto.Keccak256Hash([]byte("\x19Ethereum Signed Message:\n"+strconv.Itoa(len(message))), message)
}

// printable reports text that people can read: UTF-8 without control characters
// but tab and line ends, and without characters that turn or hide text.
func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if r != '\n' && r != '\r' && r != '\t' && r != '\u200d' && !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}
