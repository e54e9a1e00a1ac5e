package delegation

import (
	"fmt"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/refusal"
)

// This file reads the documents that say what decoders can't know of themselves.
// Each is called by the address that it is about, so there is one at most, and
// none can speak for what is built in.

// readIDL reads an IDL; the document's name is the program.
func (b *binding) readIDL(d *document) error {
	program, err := solana.ParseAddress(d.Name)
	if err != nil {
		return misnamed(d, "a Solana program")
	}
	idl, err := solana.NewIDL(program, d.Content)
	if err != nil {
		return unreadable(d, err)
	}
	known := &b.interfaces.Solana
	if known.IDLs == nil {
		known.IDLs = map[[32]byte]*solana.IDL{}
	}
	known.IDLs[program] = idl
	return nil
}

// readLookupTable reads the pinned beginning of a table; the document's name is the table.
func (b *binding) readLookupTable(d *document) error {
	address, err := solana.ParseAddress(d.Name)
	if err != nil {
		return misnamed(d, "a Solana lookup table")
	}
	table, err := solana.ParseTable(address, d.Content)
	if err != nil {
		return unreadable(d, err)
	}
	known := &b.interfaces.Solana
	if known.Tables == nil {
		known.Tables = map[[32]byte]*solana.Table{}
	}
	known.Tables[address] = table
	return nil
}

func misnamed(d *document, what string) error {
	return refusal.New(refusal.RequestInvalid, "document %s must be named by the address of %s", d.name(), what).With("field", "name").With("document", d.name().String())
}

func unreadable(d *document, err error) error {
	return refusal.New(refusal.PolicyInvalid, "%s: %s", d.name(), fmt.Sprint(err)).With("document", d.name().String())
}
