package peers

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	sdk "github.com/gagliardetto/solana-go"
	budget "github.com/gagliardetto/solana-go/programs/compute-budget"
	"github.com/gagliardetto/solana-go/programs/stake"
	"github.com/gagliardetto/solana-go/programs/system"
	"github.com/gagliardetto/solana-go/programs/token"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
)

// Instructions that solana-go makes, with values drawn at random, and read by us:
// we must find the same instruction with the same values in the same order, or,
// where we read none of its kind, none.

// builders make instructions without values.
var builders = map[string][]any{
	"11111111111111111111111111111111": {
		system.NewCreateAccountInstructionBuilder, system.NewAssignInstructionBuilder, system.NewTransferInstructionBuilder,
		system.NewCreateAccountWithSeedInstructionBuilder, system.NewAdvanceNonceAccountInstructionBuilder,
		system.NewWithdrawNonceAccountInstructionBuilder, system.NewInitializeNonceAccountInstructionBuilder,
		system.NewAuthorizeNonceAccountInstructionBuilder, system.NewAllocateInstructionBuilder, system.NewAllocateWithSeedInstructionBuilder,
		system.NewAssignWithSeedInstructionBuilder, system.NewTransferWithSeedInstructionBuilder, system.NewUpgradeNonceAccountInstructionBuilder,
	},
	"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA": {
		token.NewInitializeMintInstructionBuilder, token.NewInitializeAccountInstructionBuilder, token.NewInitializeMultisigInstructionBuilder,
		token.NewTransferInstructionBuilder, token.NewApproveInstructionBuilder, token.NewRevokeInstructionBuilder, token.NewSetAuthorityInstructionBuilder,
		token.NewMintToInstructionBuilder, token.NewBurnInstructionBuilder, token.NewCloseAccountInstructionBuilder, token.NewFreezeAccountInstructionBuilder,
		token.NewThawAccountInstructionBuilder, token.NewTransferCheckedInstructionBuilder, token.NewApproveCheckedInstructionBuilder,
		token.NewMintToCheckedInstructionBuilder, token.NewBurnCheckedInstructionBuilder, token.NewInitializeAccount2InstructionBuilder,
		token.NewSyncNativeInstructionBuilder, token.NewInitializeAccount3InstructionBuilder, token.NewInitializeMultisig2InstructionBuilder,
		token.NewInitializeMint2InstructionBuilder,
	},
	"Stake11111111111111111111111111111111111111": {
		stake.NewInitializeInstructionBuilder, stake.NewAuthorizeInstructionBuilder, stake.NewDelegateStakeInstructionBuilder, stake.NewSplitInstructionBuilder,
		stake.NewWithdrawInstructionBuilder, stake.NewDeactivateInstructionBuilder, stake.NewSetLockupInstructionBuilder, stake.NewMergeInstructionBuilder,
		stake.NewMoveStakeInstructionBuilder, stake.NewMoveLamportsInstructionBuilder, stake.NewAuthorizeCheckedInstructionBuilder, stake.NewGetMinimumDelegationInstructionBuilder,
	},
	"ComputeBudget111111111111111111111111111111": {
		budget.NewRequestHeapFrameInstructionBuilder, budget.NewSetComputeUnitLimitInstructionBuilder, budget.NewSetComputeUnitPriceInstructionBuilder,
		budget.NewSetLoadedAccountsDataSizeLimitInstructionBuilder,
	},
}

// unread are the instructions that we don't read: they must be opaque.
var unread = map[string]bool{"MoveStake": true, "MoveLamports": true, "AuthorizeChecked": true, "GetMinimumDelegation": true}

// names are ours where they are not the beginning of solana-go's.
var names = map[string]string{"WithdrawNonceAccount": "withdrawfromnonce", "DelegateStake": "delegate"}

var payer = sdk.MustPublicKeyFromBase58("6x3YquGKV4tuqif7qtEft37vPtU2CqGr9SKqNjTQMQ44")

func TestInstructionsOfTheSDK(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	compared := 0
	for program, list := range builders {
		for _, build := range list {
			for range 20 {
				impl := reflect.ValueOf(build).Call(nil)[0]
				var want []string
				fill(r, impl.Elem(), &want)
				compare(t, program, impl, want)
				compared++
			}
		}
	}
	t.Logf("%d instructions compared", compared)
}

// fill draws values for the arguments and says them.
func fill(r *rand.Rand, v reflect.Value, said *[]string) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		if name == "AccountMetaSlice" || name == "Accounts" || name == "Signers" || !f.CanSet() {
			continue
		}
		if f.Kind() == reflect.Pointer {
			optional := name == "FreezeAuthority" || name == "NewAuthority" && v.Type().Name() == "SetAuthority" || v.Type().Name() == "LockupArgs"
			if optional && r.IntN(2) == 0 {
				*said = append(*said, "none")
				continue
			}
			f.Set(reflect.New(f.Type().Elem()))
			f = f.Elem()
		}
		switch {
		case f.Type() == reflect.TypeFor[sdk.PublicKey]():
			k := payer
			if name != "Base" && name != "FromBase" {
				for j := range k {
					k[j] = byte(r.Uint32())
				}
			}
			f.Set(reflect.ValueOf(k))
			*said = append(*said, k.String())
		case f.CanUint():
			n := r.Uint64()
			if f.Type().Name() == "AuthorityType" || f.Type().Name() == "StakeAuthorize" {
				n = uint64(r.IntN(2))
			}
			f.SetUint(n & (1<<(8*f.Type().Size()-1)<<1 - 1))
			*said = append(*said, fmt.Sprint(f.Uint()))
		case f.CanInt():
			f.SetInt(int64(r.Uint64()))
			*said = append(*said, fmt.Sprint(f.Int()))
		case f.Kind() == reflect.String:
			f.SetString("seed" + strings.Repeat("x", r.IntN(9)))
			*said = append(*said, f.String())
		case f.Kind() == reflect.Struct:
			fill(r, f, said)
		}
	}
}

// compare puts one instruction into a message and reads it.
func compare(t *testing.T, program string, impl reflect.Value, want []string) {
	t.Helper()
	name := impl.Elem().Type().Name()
	for _, field := range []string{"AccountMetaSlice", "Accounts"} {
		if f := impl.Elem().FieldByName(field); f.IsValid() {
			for i := range f.Len() {
				f.Index(i).Set(reflect.ValueOf(sdk.Meta(payer).SIGNER().WRITE()))
			}
		}
	}
	built := impl.MethodByName("Build").Call(nil)[0].Interface().(interface{ Data() ([]byte, error) })
	data, err := built.Data()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	n := 0
	for _, field := range []string{"AccountMetaSlice", "Accounts"} {
		if f := impl.Elem().FieldByName(field); f.IsValid() {
			n = f.Len()
		}
	}
	// The payer is every account, but for the sysvar of blockhashes.
	key := func(s string) []byte { k := sdk.MustPublicKeyFromBase58(s); return k[:] }
	message := append([]byte{0x80, 1, 0, 2, 3}, payer[:]...)
	message = append(append(message, key("SysvarRecentB1ockHashes11111111111111111111")...), key(program)...)
	message = append(append(message, payer[:]...), 1, 2, byte(n))
	for i := range n {
		if name == "AdvanceNonceAccount" && i == 1 {
			message = append(message, 1)
		} else {
			message = append(message, 0)
		}
	}
	if len(data) > 127 {
		message = append(message, byte(len(data)&0x7f|0x80), byte(len(data)>>7))
	} else {
		message = append(message, byte(len(data)))
	}
	message = append(append(message, data...), 0)
	d, err := solana.Inspect(message, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", solana.Known{})
	if err != nil {
		t.Fatalf("%s %x: %v", name, message, err)
	}
	var at chains.Value
	instructions := d.View[solana.Root].List[solana.TxType.Index("instructions")]
	parsed := instructions.At(0, &at).List[4]
	if unread[name] {
		if parsed.Kind != chains.KindAbsent || !d.Opaque {
			t.Errorf("%s is read: %s", name, d.Summary)
		}
		return
	}
	if parsed.Kind == chains.KindAbsent {
		t.Errorf("%s %x with %d accounts is not understood: %s", name, data, n, d.Summary)
		return
	}
	ours := strings.ToLower(parsed.List[0].Str)
	if !strings.HasPrefix(strings.ToLower(name), ours) && names[name] != ours {
		t.Errorf("%s is read as %s", name, parsed.List[0].Str)
	}
	var got []string
	for _, v := range parsed.List[3].Map.Values {
		got = append(got, spelled(v))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: %q, want %q (%s)", name, got, want, hex.EncodeToString(data))
	}
}

func spelled(v chains.Value) string {
	switch v.Kind {
	case chains.KindAbsent:
		return "none"
	case chains.KindInt:
		if v.Neg {
			return "-" + v.Int.Dec()
		}
		return v.Int.Dec()
	case chains.KindPubkey:
		return solana.Address([32]byte(v.Raw))
	}
	for i, s := range []string{"mintTokens", "freezeAccount"} {
		if v.Str == s {
			return fmt.Sprint(i)
		}
	}
	for i, s := range []string{"Staker", "Withdrawer"} {
		if v.Str == s {
			return fmt.Sprint(i)
		}
	}
	return v.Str
}
