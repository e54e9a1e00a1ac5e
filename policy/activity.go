package policy

import "github.com/sigild/sigild/chains"

// SigningActivity is what signing a payload of a kind is called in Turnkey's words,
// with the parameters that its policies read. Only transactions are transactions
// there: everything else is a raw payload in some encoding. A bare digest has no
// kind, and is never judged here.
func SigningActivity(kind chains.Kind) Activity {
	transaction := func(of string) Activity {
		return Activity{Type: "ACTIVITY_TYPE_SIGN_TRANSACTION_V2", Kind: "SIGN_TRANSACTION", Resource: "PRIVATE_KEY", Action: "SIGN",
			Params: ActivityParams{Type: of}}
	}
	raw := func(hash, encoding string) Activity {
		return Activity{Type: "ACTIVITY_TYPE_SIGN_RAW_PAYLOAD_V2", Kind: "SIGN_RAW_PAYLOAD", Resource: "PRIVATE_KEY", Action: "SIGN",
			Params: ActivityParams{HashFunction: "HASH_FUNCTION_" + hash, Encoding: "PAYLOAD_ENCODING_" + encoding}}
	}
	switch kind {
	case chains.KindEVMTransaction:
		return transaction("TRANSACTION_TYPE_ETHEREUM")
	case chains.KindSolanaMessage:
		return transaction("TRANSACTION_TYPE_SOLANA")
	case chains.KindEVMTypedData, chains.KindEVMSafeTransaction: // a Safe's owner signs EIP-712
		return raw("NO_OP", "EIP712")
	case chains.KindEVMAuthorization:
		return raw("NO_OP", "EIP7702_AUTHORIZATION")
	case chains.KindEVMMessage, chains.KindEVMUserOperation:
		return raw("KECCAK256", "HEXADECIMAL")
	case chains.KindSolanaOffchain:
		return raw("NOT_APPLICABLE", "HEXADECIMAL")
	}
	return Activity{} // reading any of it is an error
}
