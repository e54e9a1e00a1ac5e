package solana

import (
	"encoding/binary"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Tags of the Compute Budget program.
const (
	budgetUnitLimit = 2
	budgetUnitPrice = 3
)

// Fees of the runtime, in lamports and compute units.
const (
	lamportsPerSignature    = 5000
	maxUnitLimit            = 1_400_000
	unitsPerInstruction     = 200_000 // the limit's default, for each instruction …
	unitsPerBuiltin         = 3_000   // … and for each of a built-in program, at least the budget's own
	microLamportsPerLamport = 1_000_000
)

// budget is what the compute budget instructions and precompiles say.
type budget struct {
	opaque       bool
	seen         [5]bool
	unitLimit    uint64
	unitPrice    uint64 // micro-lamports per unit
	instructions uint64
	signatures   uint64 // inside precompile instructions
}

// readBudget reads what the runtime reads before anything runs; what it would
// read and we do not understand makes the fee unbounded. In version 1 the
// instructions have no meaning.
func (e *effects) readBudget() error {
	b := &e.budget
	for i := range e.m.ins {
		in := &e.m.ins[i]
		data := e.m.data(in)
		switch *e.m.key(int(in.program)) {
		case ed25519Program, secp256k1Program, secp256r1Program:
			if len(data) > 0 {
				b.signatures += uint64(data[0])
			}
		case computeBudgetProgram:
			b.instructions++
			if e.m.version == v1 {
				continue
			}
			if e.sense[i].spec == nil {
				b.opaque = true
				continue
			}
			tag := data[0]
			if b.seen[tag] {
				return fail(chains.CodeSemantic, -1, "instruction %d: a compute budget instruction given twice", i)
			}
			b.seen[tag] = true
			switch tag {
			case budgetUnitLimit:
				b.unitLimit = uint64(binary.LittleEndian.Uint32(data[1:]))
			case budgetUnitPrice:
				b.unitPrice = binary.LittleEndian.Uint64(data[1:])
			}
		}
	}
	return nil
}

// fee is the most the fee payer pays, in lamports: 5000 a signature, those
// inside precompile instructions included, and the priority fee: ceil(units *
// price / 10^6), or what a version 1 message says.
func (e *effects) fee() (fee uint256.Int, bounded bool) {
	b := &e.budget
	if e.m.version == v1 {
		fee.SetUint64(e.m.config.priorityFee)
	} else {
		units := b.unitLimit
		if !b.seen[budgetUnitLimit] {
			units = unitsPerInstruction*(uint64(len(e.m.ins))-b.instructions) + unitsPerBuiltin*b.instructions
		}
		var price uint256.Int
		price.SetUint64(b.unitPrice)
		fee.SetUint64(min(units, maxUnitLimit))
		fee.Mul(&fee, &price)
		fee.AddUint64(&fee, microLamportsPerLamport-1)
		fee.Div(&fee, uint256.NewInt(microLamportsPerLamport))
	}
	fee.AddUint64(&fee, lamportsPerSignature*(uint64(e.m.signers)+b.signatures))
	return fee, !b.opaque
}

// chargeFee adds the fee when the wallet pays it.
func (e *effects) chargeFee() {
	if !e.m.ours(0, e.wallet) {
		return
	}
	fee, bounded := e.fee()
	e.charges = append(e.charges, chains.Charge{Chain: e.chain, Asset: e.native, Amount: fee, Unbounded: !bounded, What: "fee"})
}
