package decode

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// mainnet is the chain that a row's message is taken to be for: messages do not
// name their cluster, and only charges and replay keys spell it.
const mainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

func solanaKinds() []Kind {
	return []Kind{
		{
			Name: chains.KindSolanaMessage, Members: "messageHex, message, [lookupTables], [idls], [signer]",
			Decode: solanaMessage, Bare: bareMessage,
			Roots: solana.Roots[chains.KindSolanaMessage],
		},
		{
			Name: chains.KindSolanaOffchain, Members: "messageHex, message, [signer]",
			Decode: solanaOffchain(chains.KindSolanaOffchain, "messageHex", "message"), Bare: bareMessage,
			Roots: solana.Roots[chains.KindSolanaOffchain],
		},
		{
			Name: signMessage, Members: "payloadHex, [signer]",
			Decode: solanaOffchain(signMessage, "payloadHex", ""), Bare: bareText("payloadHex"),
			Roots: solana.Roots[chains.KindSolanaOffchain],
		},
	}
}

// signMessage is what applications call signMessage: bytes without a kind. Here as
// in the daemon they must turn out to be an off-chain message or a sign-in text.
const signMessage chains.Kind = "solana.sign_message"

// solanaOffchain decodes what is no transaction.
func solanaOffchain(kind chains.Kind, inHex, inBase64 string) func(Row) (*chains.Decoded, error) {
	return func(row Row) (d *chains.Decoded, err error) {
		b, err := rowBytes(row, inHex, inBase64)
		if err != nil {
			return nil, err
		}
		if _, ok := row["signer"]; !ok {
			d, err = solana.InspectOffchain(b, mainnet)
		} else {
			var wallet [32]byte
			if wallet, err = signer(row); err == nil {
				d, err = solana.DecodeOffchain(b, wallet, mainnet)
			}
		}
		if err != nil {
			return nil, err
		}
		d.Kind = kind
		return d, nil
	}
}

// bareMessage takes text that stands alone for hexadecimal, or else for base64,
// which is how wallets and explorers show messages.
func bareMessage(text []byte) (Row, error) {
	if _, err := hex.DecodeString(strings.TrimPrefix(string(text), "0x")); err == nil {
		return bareText("messageHex")(text)
	}
	return bareText("message")(text)
}

func solanaMessage(row Row) (*chains.Decoded, error) {
	b, err := rowBytes(row, "messageHex", "message")
	if err != nil {
		return nil, err
	}
	tables, err := lookupTables(row)
	if err != nil {
		return nil, err
	}
	known := solana.Known{Tables: tables, AllTables: tables != nil}
	if known.IDLs, err = idls(row); err != nil {
		return nil, err
	}
	if _, ok := row["signer"]; !ok {
		return solana.Inspect(b, mainnet, known)
	}
	wallet, err := signer(row)
	if err != nil {
		return nil, err
	}
	return solana.Decode(b, wallet, mainnet, known)
}

// signer reads the account that is to sign.
func signer(row Row) (wallet [32]byte, err error) {
	text, err := row.Text("signer")
	if err != nil {
		return wallet, err
	}
	if wallet, err = solana.ParseAddress(text); err != nil {
		return wallet, Malformed(-1, "signer is no account")
	}
	return wallet, nil
}

// idls reads `idls`: for each program its IDL, as an object or as JSON text. They
// count as uploaded.
func idls(row Row) (map[[32]byte]*solana.IDL, error) {
	text, ok := row["idls"]
	if !ok || string(text) == "null" {
		return nil, nil
	}
	members, err := ParseRow(text)
	if err != nil {
		return nil, Malformed(-1, "idls is no object of IDLs")
	}
	out := map[[32]byte]*solana.IDL{}
	for name, idl := range members {
		program, err := solana.ParseAddress(name)
		if err != nil {
			return nil, Malformed(-1, "idls: %q is no address", name)
		}
		var quoted string
		if json.Unmarshal(idl, &quoted) == nil {
			idl = []byte(quoted)
		}
		if out[program], err = solana.NewIDL(program, idl); err != nil {
			return nil, Malformed(-1, "%s", err.Error())
		}
	}
	return out, nil
}

// lookupTables reads `lookupTables`: for each table its entries, from the first
// on. They count as pinned, and as all there are: a message that uses another
// entry is refused. Without the member what is behind tables stays unknown.
func lookupTables(row Row) (map[[32]byte]*solana.Table, error) {
	text, ok := row["lookupTables"]
	if !ok || string(text) == "null" {
		return nil, nil
	}
	members, err := ParseRow(text)
	if err != nil {
		return nil, Malformed(-1, "lookupTables is no object of tables")
	}
	tables := map[[32]byte]*solana.Table{}
	for name, list := range members {
		address, err := solana.ParseAddress(name)
		if err != nil {
			return nil, Malformed(-1, "lookupTables: %q is no address", name)
		}
		var entries []string
		if err := json.Unmarshal(list, &entries); err != nil {
			return nil, Malformed(-1, "lookupTables: the entries of %s are no list of addresses", name)
		}
		keys := make([][32]byte, len(entries))
		for i, e := range entries {
			if keys[i], err = solana.ParseAddress(e); err != nil {
				return nil, Malformed(-1, "lookupTables: entry %d of %s is no address", i, name)
			}
		}
		if len(keys) == 0 {
			continue // says nothing
		}
		if tables[address], err = solana.NewTable(address, keys); err != nil {
			return nil, Malformed(-1, "%s", err.Error())
		}
	}
	return tables, nil
}

// rowBytes reads hexadecimal text, with or without 0x, or base64.
func rowBytes(row Row, inHex, inBase64 string) ([]byte, error) {
	if _, ok := row[inHex]; ok || inBase64 == "" {
		text, err := row.Text(inHex)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(text, "0x") {
			text = "0x" + text
		}
		return Hex(text)
	}
	text, err := row.Text(inHex, inBase64)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, Malformed(-1, "%s is no base64", inBase64)
	}
	return b, nil
}
