package decode

import (
	"encoding/base64"
	"encoding/hex"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// mainnet is the chain that a row's message is taken to be for: messages do not
// name their cluster, and only charges and replay keys spell it.
const mainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

func solanaKinds() []Kind {
	return []Kind{
		{
			Name: chains.KindSolanaMessage, Members: "messageHex, message",
			Decode: solanaMessage, Bare: bareText("messageHex"),
			Roots: map[string]*chains.Type{solana.Root: solana.TxType},
		},
	}
}

func solanaMessage(row Row) (*chains.Decoded, error) {
	b, err := messageBytes(row)
	if err != nil {
		return nil, err
	}
	wallet := firstSigner(b)
	if _, ok := row["signer"]; ok {
		text, err := row.Text("signer")
		if err != nil {
			return nil, err
		}
		if wallet, err = solana.ParseAddress(text); err != nil {
			return nil, Malformed(-1, "signer is no account")
		}
	}
	return solana.Decode(b, wallet, mainnet)
}

// messageBytes reads `messageHex`, with or without 0x, or `message` in base64.
func messageBytes(row Row) ([]byte, error) {
	if _, ok := row["messageHex"]; ok {
		text, err := row.Text("messageHex")
		if err != nil {
			return nil, err
		}
		if len(text) > 1 && text[:2] == "0x" {
			return Hex(text)
		}
		b, err := hex.DecodeString(text)
		if err != nil {
			return nil, Malformed(-1, "messageHex is no hexadecimal text")
		}
		return b, nil
	}
	text, err := row.Text("messageHex", "message")
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, Malformed(-1, "message is no base64")
	}
	return b, nil
}

// firstSigner is the first account of a message that is long enough to have one:
// who looks at a message off-line looks at it as its fee payer.
func firstSigner(b []byte) (key [32]byte) {
	at := 4
	if len(b) > 0 && b[0]&0x80 != 0 { // a version byte
		at = 5
	}
	if len(b) >= at+32 {
		copy(key[:], b[at:])
	}
	return key
}
