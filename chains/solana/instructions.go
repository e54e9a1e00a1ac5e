package solana

import (
	"encoding/binary"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Rules of this file:
//   - an instruction is understood only in its exact form: known tag, exact data
//     length, exact number of accounts; the runtime is laxer, so everything else
//     is opaque and never "no effect"
//   - the runtime reads the compute budget before anything runs; what it would
//     read and we do not understand makes the fee unbounded

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
	recentBlockhashes    = mustKey("SysvarRecentB1ockHashes11111111111111111111")

	// Programs whose instructions carry signatures that cost 5000 lamports each.
	ed25519Program   = mustKey("Ed25519SigVerify111111111111111111111111111")
	secp256k1Program = mustKey("KeccakSecp256k11111111111111111111111111111")
	secp256r1Program = mustKey("Secp256r1SigVerify1111111111111111111111111")
)

// programNames are for people, in summaries.
var programNames = map[[32]byte]string{
	systemProgram:        "System",
	computeBudgetProgram: "Compute Budget",
	memoProgram:          "Memo",
	memoProgramV1:        "Memo",
	ed25519Program:       "Ed25519",
	secp256k1Program:     "Secp256k1",
	secp256r1Program:     "Secp256r1",
	mustKey("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"):  "Token",
	mustKey("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"):  "Token-2022",
	mustKey("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"): "Associated Token Account",
	mustKey("Stake11111111111111111111111111111111111111"):  "Stake",
	mustKey("AddressLookupTab1e1111111111111111111111111"):  "Address Lookup Table",
}

// Tags of the System program; only two are understood.
const (
	systemTransfer     = 2
	systemAdvanceNonce = 4
)

var systemNames = [...]string{
	"CreateAccount", "Assign", "Transfer", "CreateAccountWithSeed", "AdvanceNonceAccount",
	"WithdrawNonceAccount", "InitializeNonceAccount", "AuthorizeNonceAccount", "Allocate",
	"AllocateWithSeed", "AssignWithSeed", "TransferWithSeed", "UpgradeNonceAccount",
}

// Tags of the Compute Budget program.
const (
	budgetHeapFrame      = 1
	budgetUnitLimit      = 2
	budgetUnitPrice      = 3
	budgetLoadedDataSize = 4
)

// Fees of the runtime, in lamports and compute units.
const (
	lamportsPerSignature    = 5000
	maxUnitLimit            = 1_400_000
	unitsPerInstruction     = 200_000 // the limit's default, for each instruction …
	unitsPerBuiltin         = 3_000   // … and for each of a built-in program, at least the budget's own
	microLamportsPerLamport = 1_000_000
)

// actions is what a message does, as far as it is understood.
type actions struct {
	opaque     bool
	understood []bool // by instruction
	transfers  []transfer
	nonceFirst bool   // the transaction hangs on a durable nonce, understood or not
	nonce      *nonce // its parts, when understood

	precompileSignatures uint64
	budgetOpaque         bool
	budgetSeen           [5]bool
	unitLimit            uint64
	unitPrice            uint64 // micro-lamports per unit
	budgetInstructions   uint64
}

// transfer moves lamports between two accounts, given by number.
type transfer struct {
	from, to int
	lamports uint64
}

type nonce struct{ account, authority int }

// actions reads every instruction. The only refusal is a compute budget
// instruction given twice, which the runtime refuses too.
func (m *message) actions() (*actions, error) {
	a := &actions{opaque: len(m.lookups) > 0, understood: make([]bool, len(m.ins))}
	for i, in := range m.ins {
		ok := false
		switch m.key(in.program) {
		case systemProgram:
			ok = m.system(a, i, in)
		case computeBudgetProgram:
			a.budgetInstructions++
			var err error
			if ok, err = a.computeBudget(i, in); err != nil {
				return nil, err
			}
		case memoProgram, memoProgramV1:
			ok = true
		case ed25519Program, secp256k1Program, secp256r1Program:
			if len(in.data) > 0 {
				a.precompileSignatures += uint64(in.data[0])
			}
		}
		a.understood[i] = ok
		a.opaque = a.opaque || !ok
	}
	return a, nil
}

// system understands Transfer, and AdvanceNonceAccount as the first instruction.
func (m *message) system(a *actions, i int, in instruction) bool {
	if len(in.data) < 4 {
		return false
	}
	switch tag := binary.LittleEndian.Uint32(in.data); {
	case tag == systemTransfer && len(in.data) == 12 && len(in.accounts) == 2:
		a.transfers = append(a.transfers, transfer{
			from: int(in.accounts[0]), to: int(in.accounts[1]), lamports: binary.LittleEndian.Uint64(in.data[4:]),
		})
		return true
	case tag == systemAdvanceNonce && i == 0:
		a.nonceFirst = true
		return m.advanceNonce(a, in)
	}
	return false
}

func (m *message) advanceNonce(a *actions, in instruction) bool {
	if len(in.data) != 4 || len(in.accounts) != 3 {
		return false
	}
	account, sysvar, authority := int(in.accounts[0]), int(in.accounts[1]), int(in.accounts[2])
	if !m.isStatic(account) || !m.isWritable(account) || !m.isSigner(authority) ||
		!m.isStatic(sysvar) || m.key(sysvar) != recentBlockhashes {
		return false
	}
	a.nonce = &nonce{account: account, authority: authority}
	return true
}

// computeBudget understands the four live instructions; none may come twice.
func (a *actions) computeBudget(i int, in instruction) (bool, error) {
	tag, size := 0, 0
	if len(in.data) > 0 {
		tag = int(in.data[0])
	}
	switch tag {
	case budgetHeapFrame, budgetUnitLimit, budgetLoadedDataSize:
		size = 5
	case budgetUnitPrice:
		size = 9
	}
	if size == 0 || len(in.data) != size {
		a.budgetOpaque = true
		return false, nil
	}
	if a.budgetSeen[tag] {
		return false, fail(chains.CodeSemantic, -1, "instruction %d: a compute budget instruction given twice", i)
	}
	a.budgetSeen[tag] = true
	switch tag {
	case budgetUnitLimit:
		a.unitLimit = uint64(binary.LittleEndian.Uint32(in.data[1:]))
	case budgetUnitPrice:
		a.unitPrice = binary.LittleEndian.Uint64(in.data[1:])
	}
	return true, nil
}

// fee is the most the fee payer pays, in lamports: 5000 a signature, those
// inside precompile instructions included, and ceil(units * price / 10^6).
func (m *message) fee(a *actions) (fee uint256.Int, bounded bool) {
	units := a.unitLimit
	if !a.budgetSeen[budgetUnitLimit] {
		others := uint64(len(m.ins)) - a.budgetInstructions
		units = unitsPerInstruction*others + unitsPerBuiltin*a.budgetInstructions
	}
	var price uint256.Int
	price.SetUint64(a.unitPrice)
	fee.SetUint64(min(units, maxUnitLimit))
	fee.Mul(&fee, &price)
	fee.AddUint64(&fee, microLamportsPerLamport-1)
	fee.Div(&fee, uint256.NewInt(microLamportsPerLamport))
	fee.AddUint64(&fee, lamportsPerSignature*(uint64(m.signers)+a.precompileSignatures))
	return fee, !a.budgetOpaque
}
