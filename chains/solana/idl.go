package solana

import (
	"github.com/sigild/sigild/chains"
)

// IDL is a stub for the moment.
type IDL struct{}

type idlInstruction struct{ name string }

func (d *IDL) match(accounts, data []byte) *idlInstruction { return nil }

func (x *idlInstruction) value(m *message, accounts, data []byte) chains.Value { return chains.Value{} }

func (x *idlInstruction) say(w *writer, data []byte) {}
