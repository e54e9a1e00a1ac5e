package solana

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/sigild/sigild/chains"
)

// How the built-in programs lay out their instructions: fixed-width integers,
// little-endian, one after the other, without names or lengths.

// argType is the form of one argument.
type argType uint8

const (
	tU8             argType = iota
	tU32                    // 4 bytes
	tU64                    // 8 bytes
	tI64                    // 8 bytes, two's complement
	tLamports               // u64, an amount of SOL
	tUnits                  // u64, an amount of a token
	tDecimals               // u8, the decimals that the runtime compares with the mint's
	tKey                    // 32 bytes
	tMaybeKey               // 0, or 1 and 32 bytes
	tMaybeI64               // 0, or 1 and 8 bytes
	tMaybeU64               // 0, or 1 and 8 bytes
	tSeed                   // u64 length and as much UTF-8
	tText                   // all that is left, UTF-8
	tTokenAuthority         // u8, see tokenAuthorities
	tStakeAuthority         // u32, see stakeAuthorities
)

// arg is one argument of an instruction, by the name that RPC nodes give it.
type arg struct {
	name string
	typ  argType
}

// take cuts the argument off the front of data. It reports false for what the
// program would not read in just this way.
func (t argType) take(data []byte) (value, rest []byte, ok bool) {
	n := 0
	switch t {
	case tU8, tDecimals:
		n = 1
	case tU32:
		n = 4
	case tU64, tI64, tLamports, tUnits:
		n = 8
	case tKey:
		n = 32
	case tMaybeKey, tMaybeI64, tMaybeU64:
		if len(data) == 0 || data[0] > 1 {
			return nil, nil, false
		}
		n = 1
		if data[0] == 1 {
			n = 9
			if t == tMaybeKey {
				n = 33
			}
		}
	case tSeed:
		if len(data) < 8 {
			return nil, nil, false
		}
		length := binary.LittleEndian.Uint64(data)
		if length > uint64(len(data)-8) || !utf8.Valid(data[8:8+length]) {
			return nil, nil, false
		}
		n = 8 + int(length)
	case tText:
		if !utf8.Valid(data) {
			return nil, nil, false
		}
		n = len(data)
	case tTokenAuthority:
		if len(data) == 0 || int(data[0]) >= len(tokenAuthorities) {
			return nil, nil, false
		}
		n = 1
	case tStakeAuthority:
		if len(data) < 4 || binary.LittleEndian.Uint32(data) >= uint32(len(stakeAuthorities)) {
			return nil, nil, false
		}
		n = 4
	}
	if n > len(data) {
		return nil, nil, false
	}
	return data[:n], data[n:], true
}

// Names of what an authority is for.
var (
	tokenAuthorities = [...]string{"mintTokens", "freezeAccount", "accountOwner", "closeAccount"}
	stakeAuthorities = [...]string{"Staker", "Withdrawer"}
)

// spec is one instruction of a built-in program.
type spec struct {
	name string
	// tag starts the data.
	tag string
	// accounts are named in order. An optional one stands in brackets at the end.
	accounts []string
	// signers: signers of a multisig authority may follow the accounts, the last
	// of which is that authority. others: any number of accounts may follow.
	signers, others bool
	args            []arg
	// says is the sentence of a summary; $name stands for an account or argument.
	says string
	// accountNames and argNames are the names alone, those of arguments with
	// "signers" at the end.
	accountNames, argNames []string
	// room is about how long that gets, in bytes.
	room int
	// fits is what else must hold for the instruction to be understood.
	fits func(c *call) bool
	// does adds what the instruction does to the wallet and the lists of transfers; nil: nothing.
	does func(e *effects, c *call)
}

// optional reports whether the last account may be left out.
func (s *spec) optional() bool {
	return len(s.accounts) > 0 && s.accounts[len(s.accounts)-1][0] == '['
}

// exact reports whether data is the instruction's tag and arguments and nothing else.
func (s *spec) exact(data []byte) bool {
	ok := true
	data = data[len(s.tag):]
	for _, a := range s.args {
		if _, data, ok = a.typ.take(data); !ok {
			return false
		}
	}
	return len(data) == 0
}

// call is one instruction of a message, understood by a spec.
type call struct {
	*spec
	m  *message
	in *instruction
	i  int // number of the instruction
}

// account is the number of the spec's account k.
func (c *call) account(k int) int { return int(c.m.accounts(c.in)[k]) }

// is reports whether account k is known to be the key.
func (c *call) is(k int, key *[32]byte) bool { return c.m.is(c.account(k), key) }

// extra is the accounts behind those that the spec names.
func (c *call) extra() []byte {
	all := c.m.accounts(c.in)
	return all[min(len(c.accounts), len(all)):]
}

// arg returns the bytes of the named argument.
func (c *call) arg(name string) []byte {
	data := c.m.data(c.in)[len(c.tag):]
	for _, a := range c.args {
		value, rest, ok := a.typ.take(data)
		if !ok {
			return nil
		}
		if a.name == name {
			return value
		}
		data = rest
	}
	return nil
}

// number is the named argument, a u64.
func (c *call) number(name string) uint64 { return binary.LittleEndian.Uint64(c.arg(name)) }

// complete reports whether accounts and data are just what the spec says.
func (c *call) complete() bool {
	n, named := int(c.in.naccounts), len(c.accounts)
	switch {
	case n < named && !(n == named-1 && c.optional()):
		return false
	case n > named && !c.signers && !c.others:
		return false
	}
	if !c.exact(c.m.data(c.in)) {
		return false
	}
	if c.signers {
		for _, a := range c.extra() {
			if !c.m.isSigner(int(a)) {
				return false
			}
		}
		if n == named && !c.m.isSigner(c.account(named-1)) {
			return false // a multisig without its signers
		}
	}
	return c.fits == nil || c.fits(c)
}

// value is the node of an argument that take has cut out.
func (t argType) value(b []byte) chains.Value {
	switch t {
	case tU8, tDecimals:
		return chains.Uint64Value(uint64(b[0]))
	case tU32:
		return chains.Uint64Value(uint64(binary.LittleEndian.Uint32(b)))
	case tU64, tLamports, tUnits:
		return chains.Uint64Value(binary.LittleEndian.Uint64(b))
	case tI64:
		return signed(int64(binary.LittleEndian.Uint64(b)))
	case tKey:
		return chains.Value{Kind: chains.KindPubkey, Raw: b}
	case tMaybeKey:
		if b[0] == 1 {
			return tKey.value(b[1:])
		}
	case tMaybeI64:
		if b[0] == 1 {
			return tI64.value(b[1:])
		}
	case tMaybeU64:
		if b[0] == 1 {
			return tU64.value(b[1:])
		}
	case tSeed:
		return chains.StringValue(string(b[8:]))
	case tText:
		return chains.StringValue(string(b))
	case tTokenAuthority:
		return chains.StringValue(tokenAuthorities[b[0]])
	case tStakeAuthority:
		return chains.StringValue(stakeAuthorities[binary.LittleEndian.Uint32(b)])
	}
	return chains.Value{}
}

// signed is the node of an integer that may be negative.
func signed(n int64) chains.Value {
	if n >= 0 {
		return chains.Uint64Value(uint64(n))
	}
	v := chains.Uint64Value(-uint64(n))
	v.Neg = true
	return v
}
