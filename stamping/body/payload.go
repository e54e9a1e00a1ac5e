package body

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/sigild/sigild/chains"
)

// maxText bounds the text of one member: a payload in hex.
const maxText = 290 << 10

// Hex is a member of lower-case hex, with "0x" before it or without.
func (o *Object) Hex(name string) ([]byte, error) {
	s, err := o.Text(name, maxText)
	if err != nil {
		return nil, err
	}
	s = strings.TrimPrefix(s, "0x")
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 || hex.EncodeToString(b) != s {
		return nil, Refuse(Malformed, name, "it is not lower-case hex")
	}
	return b, nil
}

// Long is a member that holds a payload as text.
func (o *Object) Long(name string) (string, error) { return o.Text(name, maxText) }

// SolanaTransaction takes the message out of a transaction as it goes to the network:
// the number of signatures, that many slots of 64 bytes, the message. All slots must
// be zero: with bytes of the caller's in them the whole could be read as another message.
func SolanaTransaction(name string, wire []byte) (*Asked, error) {
	n := int(wire[0])
	if n == 0 || n > 0x7f || len(wire) < 1+64*n+2 {
		return nil, Refuse(Malformed, name, "it is not a serialized transaction, legacy or v0")
	}
	slots, message := wire[1:1+64*n], wire[1+64*n:]
	required := message[0]
	if required&0x80 != 0 {
		if required != 0x80 {
			return nil, Refuse(NotUnderstood, name, "the transaction is of a version after v0")
		}
		required = message[1]
	}
	if int(required) != n {
		return nil, Refuse(Malformed, name, "it has %d slots for signatures, and its message wants %d", n, required)
	}
	if len(bytes.Trim(slots, "\x00")) != 0 {
		return nil, Refuse(Malformed, name, "it has signatures; leave all slots zero, and put others' signatures in afterwards")
	}
	return &Asked{Kind: chains.KindSolanaMessage, Payload: message}, nil
}

// SolanaBytes says what a Solana wallet is asked to sign as it is: a text or an
// off-chain message, or the message of a transaction, which is judged as one.
func SolanaBytes(b []byte) *Asked {
	if b[0] == 0xff || b[0] >= 0x20 && b[0] <= 0x7e {
		// No message of a transaction begins so: 32 signers don't fit.
		return &Asked{Kind: chains.KindSolanaOffchain, Payload: b}
	}
	return &Asked{Kind: chains.KindSolanaMessage, Payload: b}
}

// personal is what EIP-191 puts before a message, without the message's length.
const personal = "\x19Ethereum Signed Message:\n"

// EVMPreimage says what Keccak-256 over b is the digest of: a message with the prefix
// of EIP-191, or an unsigned transaction. Nothing else is judged.
func EVMPreimage(name string, b []byte) (*Asked, error) {
	if b[0] != 0x19 {
		return &Asked{Kind: chains.KindEVMTransaction, Payload: b}, nil
	}
	rest, ok := bytes.CutPrefix(b, []byte(personal))
	if !ok {
		return nil, Refuse(RawDigest, name, "hashes stand in it for what is signed (EIP-191, not 0x45)")
	}
	for digits := 1; digits <= 6 && digits <= len(rest); digits++ {
		if string(rest[:digits]) == strconv.Itoa(len(rest)-digits) {
			return &Asked{Kind: chains.KindEVMMessage, Payload: rest[digits:]}, nil
		}
	}
	return nil, Refuse(Malformed, name, "the message's length is not the one that its prefix says (EIP-191)")
}
