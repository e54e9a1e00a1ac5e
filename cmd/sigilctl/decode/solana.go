package decode

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// mainnet is the chain that a row's message is taken to be for: messages do not
// name their cluster, and only charges and replay keys spell it.
const mainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

func solanaKinds() []Kind {
	return []Kind{
		{
			Name: chains.KindSolanaMessage, Members: "messageHex, message, [lookupTables], [signer]",
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
	tables, err := lookupTables(row)
	if err != nil {
		return nil, err
	}
	known := solana.Known{Tables: tables, AllTables: tables != nil}
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
