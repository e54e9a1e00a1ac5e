package signing

import (
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/policy"
)

// activityOf says what is asked for in the words of the policy language: signing a
// transaction, or signing a payload that is none.
func activityOf(kind chains.Kind) policy.Activity {
	a := policy.Activity{Type: "ACTIVITY_TYPE_SIGN_RAW_PAYLOAD_V2", Kind: "SIGN_RAW_PAYLOAD", Resource: "PRIVATE_KEY", Action: "SIGN"}
	transaction := func(of string) policy.Activity {
		a.Type, a.Kind, a.Params.Type = "ACTIVITY_TYPE_SIGN_TRANSACTION_V2", "SIGN_TRANSACTION", of
		return a
	}
	switch kind {
	case chains.KindEVMTransaction:
		return transaction("TRANSACTION_TYPE_ETHEREUM")
	case chains.KindSolanaMessage:
		return transaction("TRANSACTION_TYPE_SOLANA")
	case chains.KindSolanaOffchain:
		a.Params.HashFunction, a.Params.Encoding = "HASH_FUNCTION_NOT_APPLICABLE", "PAYLOAD_ENCODING_HEXADECIMAL"
	case chains.KindEVMTypedData, chains.KindEVMSafeTransaction:
		a.Params.HashFunction, a.Params.Encoding = "HASH_FUNCTION_NO_OP", "PAYLOAD_ENCODING_EIP712"
	case chains.KindEVMAuthorization:
		a.Params.HashFunction, a.Params.Encoding = "HASH_FUNCTION_NO_OP", "PAYLOAD_ENCODING_EIP7702_AUTHORIZATION"
	default:
		a.Params.HashFunction, a.Params.Encoding = "HASH_FUNCTION_KECCAK256", "PAYLOAD_ENCODING_HEXADECIMAL"
	}
	return a
}
