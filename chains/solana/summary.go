package solana

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// maxMemo is how much of a memo a summary shows, in bytes.
const maxMemo = 80

// summary says in ASCII what the message does, instruction by instruction.
func (m *message) summary(a *actions, wallet [32]byte) string {
	var parts []string
	transfers := a.transfers
	for i, in := range m.ins {
		program := m.key(in.program)
		switch {
		case !a.understood[i]:
			parts = append(parts, m.opaqueLine(in))
		case program == systemProgram && i == 0 && a.nonce != nil:
			parts = append(parts, fmt.Sprintf("use the durable nonce of %s (never expires)", m.name(a.nonce.account)))
		case program == systemProgram:
			t := transfers[0]
			transfers = transfers[1:]
			parts = append(parts, fmt.Sprintf("send %s from %s to %s", sol(uint256.NewInt(t.lamports)), m.name(t.from), m.name(t.to)))
		case program == memoProgram, program == memoProgramV1:
			parts = append(parts, "memo "+quote(in.data))
		}
	}
	if len(m.lookups) > 0 {
		parts = append(parts, fmt.Sprintf("%d accounts are behind lookup tables and not known", m.total-m.nkeys))
	}
	for i := range m.signers {
		if m.key(i) != wallet {
			parts = append(parts, "also signed by "+m.name(i))
		}
	}
	switch fee, bounded := m.fee(a); {
	case m.key(0) != wallet:
		parts = append(parts, "fee paid by "+m.name(0))
	case !bounded:
		parts = append(parts, "fee not known")
	default:
		parts = append(parts, "fee at most "+sol(&fee))
	}
	return strings.Join(parts, "; ")
}

func (m *message) opaqueLine(in instruction) string {
	program := m.key(in.program)
	name := programNames[program]
	if program == systemProgram && len(in.data) >= 4 {
		if tag := binary.LittleEndian.Uint32(in.data); tag < uint32(len(systemNames)) {
			name += " " + systemNames[tag]
		}
	}
	if name != "" {
		name = " (" + name + ")"
	}
	return fmt.Sprintf("call %s%s with %d accounts and %d bytes of data (not understood)",
		Address(program), name, len(in.accounts), len(in.data))
}

// sol writes an amount of lamports, e.g. "0.5 SOL (500000000 lamports)".
func sol(lamports *uint256.Int) string {
	return chains.FormatUnits(lamports, 9) + " SOL (" + lamports.Dec() + " lamports)"
}

// quote shows text that somebody else wrote, in ASCII and cut.
func quote(b []byte) string {
	cut := ""
	if len(b) > maxMemo {
		b, cut = b[:maxMemo], " and more"
	}
	return strconv.QuoteToASCII(string(b)) + cut
}
