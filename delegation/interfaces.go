package delegation

import (
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/refusal"
)

// This file reads the documents that say what decoders can't know of themselves.
// Each is called by the address that it is about, so there is one at most, and
// none can speak for what is built in.

// readABI reads an ABI; the document's name is the chain and the contract.
func (b *binding) readABI(d *document) error {
	chain, contract, ok := strings.Cut(d.Name, ".")
	a := evm.ABI{JSON: d.Content}
	address, err := evm.ParseAddress(contract)
	if !ok || err != nil || chain == "" || chain[0] == '0' || a.ChainID.SetFromDecimal(chain) != nil || a.ChainID.Dec() != chain {
		return refusal.New(refusal.RequestInvalid, "document %s must be named by a chain id, a dot and the address of an EVM contract", d.name()).With("field", "name").With("document", d.name().String())
	}
	a.Address = address
	// By itself first, so that the refusal can name the document.
	if _, err := evm.NewABIs([]evm.ABI{a}); err != nil {
		return unreadable(d, err)
	}
	b.abis = append(b.abis, a)
	return nil
}

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
