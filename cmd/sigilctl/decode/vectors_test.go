package decode

import (
	"testing"

	"github.com/sigild/sigild/chains"
)

// TestVectors sends every row of the corpus through the verb: what is signed must
// be what independent libraries sign, what is malformed must be refused.
func TestVectors(t *testing.T) {
	for _, tc := range []struct {
		kind       chains.Kind
		room, file string
		hash       string // member with the digest; "" : every row must be refused
	}{
		{chains.KindEVMTransaction, "evm", "evm_tx.jsonl", "signingHash"},
		{chains.KindEVMTransaction, "evm", "evm_malformed.jsonl", ""},
		{chains.KindEVMMessage, "evm", "evm_messages.jsonl", "hash"},
		{chains.KindEVMTypedData, "evm", "eip712.jsonl", "signingHash"},
		{chains.KindEVMTypedData, "evm", "eip712_malformed.jsonl", ""},
		{chains.KindEVMAuthorization, "evm", "evm_auth7702.jsonl", "hash"},
		{chains.KindEVMUserOperation, "evm", "evm_userop.jsonl", "signingHash"},
		{chains.KindEVMSafeTransaction, "evm", "evm_safetx.jsonl", "safeTxHash"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			texts, rows := vectors(t, tc.room, tc.file)
			for i, a := range ask(t, tc.kind, texts...) {
				id := rows[i]["id"]
				if a.ID != id {
					t.Fatalf("row %v was answered as %v", id, a.ID)
				}
				switch want, _ := rows[i][tc.hash].(string); {
				case tc.hash == "" && (a.OK || a.Error.Code == "" || a.Error.Code == "internal"):
					t.Errorf("%v (%v): got %+v, want a refusal", id, rows[i]["why"], a.Error)
				case tc.hash != "" && (!a.OK || a.SigningHash != want):
					t.Errorf("%v: got %s %+v, want %s", id, a.SigningHash, a.Error, want)
				}
			}
		})
	}
}
