package server

import (
	"context"
	"testing"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
)

// What the door alone costs: socket, access table, authentication, strict
// reading, an empty handler, and the reply. One caller, one call at a time.

func BenchmarkCallWithAPIKey(b *testing.B) {
	h := newHouse(b)
	c := dial(b, h.app).WithAPIKey([]byte(testAPIKey)).Signing()
	in := &sigilv1.SignRequest{RequestId: "r", WalletId: "w", Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: make([]byte, 120)}}
	for b.Loop() {
		if _, err := c.Sign(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCallWithStamp(b *testing.B) {
	for _, a := range []credential.Algorithm{credential.P256, credential.Ed25519, credential.Secp256k1} {
		b.Run(string(a), func(b *testing.B) {
			h := newHouse(b)
			c := dial(b, h.app).WithStamps(testOrg, h.keys[a]).Wallets()
			in := &sigilv1.GetWalletRequest{OrganizationId: testOrg, WalletId: "wal_x"}
			for b.Loop() {
				if _, err := c.GetWallet(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
