package solana

import (
	"encoding/binary"
	"strings"
)

// Rules of this file and of the programs' own files (system.go, token.go, stake.go):
//   - an instruction is understood only in its exact form: known tag, exact data,
//     exact accounts; the runtime is laxer, so everything else is opaque and never
//     "no effect"
//   - names are those that RPC nodes give (jsonParsed), so that people find them

// mustKey is for the constants below only.
func mustKey(s string) [32]byte {
	k, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return k
}

var (
	systemProgram        = mustKey("11111111111111111111111111111111")
	computeBudgetProgram = mustKey("ComputeBudget111111111111111111111111111111")
	memoProgram          = mustKey("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
	memoProgramV1        = mustKey("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo")
	tokenProgram         = mustKey("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
	token2022Program     = mustKey("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
	associatedProgram    = mustKey("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
	stakeProgram         = mustKey("Stake11111111111111111111111111111111111111")

	// Programs whose instructions carry signatures that cost 5000 lamports each.
	ed25519Program   = mustKey("Ed25519SigVerify111111111111111111111111111")
	secp256k1Program = mustKey("KeccakSecp256k11111111111111111111111111111")
	secp256r1Program = mustKey("Secp256r1SigVerify1111111111111111111111111")

	recentBlockhashes = mustKey("SysvarRecentB1ockHashes11111111111111111111")
	rentSysvar        = mustKey("SysvarRent111111111111111111111111111111111")
)

// program is a program that is known here.
type program struct {
	name string // for people
	// specs are the instructions that are understood; none: nothing of it is.
	specs []*spec
	// wide: the tag is a u32, else one byte.
	wide bool
	// byTag finds the first spec of a tag; the others of the tag follow it.
	byTag map[uint32]int
}

// find returns the spec that data starts with, or nil.
func (p *program) find(data []byte) *spec {
	tag := uint32(0)
	switch {
	case len(p.specs) == 1 && p.specs[0].tag == "": // Memo has no tag
		return p.specs[0]
	case p.wide && len(data) >= 4:
		tag = binary.LittleEndian.Uint32(data)
	case !p.wide && len(data) > 0:
		tag = uint32(data[0])
	default:
		return nil
	}
	i, ok := p.byTag[tag]
	if !ok {
		return nil
	}
	for _, s := range p.specs[i:] {
		if len(data) >= len(s.tag) && string(data[:len(s.tag)]) == s.tag {
			return s
		}
	}
	return nil
}

// prepare fills in what follows from the rest.
func (s *spec) prepare() {
	s.room = len(s.says) + 40*strings.Count(s.says, "$") + 2
	s.accountNames, s.argNames = nil, nil
	for _, a := range s.accounts {
		s.accountNames = append(s.accountNames, bare(a))
	}
	for _, a := range s.args {
		s.argNames = append(s.argNames, a.name)
	}
	s.argNames = append(s.argNames, "signers")
}

func newProgram(name string, wide bool, specs ...[]spec) *program {
	p := &program{name: name, wide: wide, byTag: map[uint32]int{}}
	for _, list := range specs {
		for i := range list {
			s := &list[i]
			s.prepare()
			tag := uint32(0)
			switch {
			case wide:
				tag = binary.LittleEndian.Uint32([]byte(s.tag))
			case s.tag != "":
				tag = uint32(s.tag[0])
			}
			if _, ok := p.byTag[tag]; !ok {
				p.byTag[tag] = len(p.specs)
			}
			p.specs = append(p.specs, s)
		}
	}
	return p
}

// programs are those that are known. Those without specs have only a name.
var programs = map[[32]byte]*program{
	systemProgram:        newProgram("System", true, systemSpecs),
	stakeProgram:         newProgram("Stake", true, stakeSpecs),
	tokenProgram:         newProgram("Token", false, tokenSpecs),
	token2022Program:     newProgram("Token-2022", false, tokenSpecs, token2022Specs),
	associatedProgram:    newProgram("Associated Token Account", false, associatedSpecs),
	computeBudgetProgram: newProgram("Compute Budget", false, budgetSpecs),
	memoProgram:          newProgram("Memo", false, memoSpecs),
	memoProgramV1:        newProgram("Memo", false, memoSpecs),
	ed25519Program:       newProgram("Ed25519", false),
	secp256k1Program:     newProgram("Secp256k1", false),
	secp256r1Program:     newProgram("Secp256r1", false),
	mustKey("AddressLookupTab1e1111111111111111111111111"): newProgram("Address Lookup Table", true),
	mustKey("BPFLoaderUpgradeab1e11111111111111111111111"): newProgram("BPF Loader", true),
	mustKey("BPFLoader2111111111111111111111111111111111"): newProgram("BPF Loader", true),
	mustKey("Vote111111111111111111111111111111111111111"): newProgram("Vote", true),
	mustKey("Config1111111111111111111111111111111111111"): newProgram("Config", true),
}

var memoSpecs = []spec{{name: "memo", others: true, args: []arg{{"memo", tText}}, says: "memo $memo"}}

// budgetSpecs: what the instructions mean is read by the runtime before any
// program runs, and here by fee.go.
var budgetSpecs = []spec{
	{name: "requestHeapFrame", tag: "\x01", others: true, args: []arg{{"bytes", tU32}}},
	{name: "setComputeUnitLimit", tag: "\x02", others: true, args: []arg{{"units", tU32}}},
	{name: "setComputeUnitPrice", tag: "\x03", others: true, args: []arg{{"microLamports", tU64}}},
	{name: "setLoadedAccountsDataSizeLimit", tag: "\x04", others: true, args: []arg{{"bytes", tU32}}},
}
