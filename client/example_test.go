package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// sign is the caller that README.md shows.
func sign(ctx context.Context, key []byte, wallet string, unsigned []byte) ([]byte, error) {
	c, err := client.Dial("/run/sigild/sigild.sock")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answer, err := c.WithAPIKey(key).Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: "payout-4711", WalletId: wallet,
		Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: unsigned},
	})
	return answer.GetSignedTransaction(), err
}

// An application signs with its wallet API key.
func ExampleClient_WithAPIKey() {
	key, err := os.ReadFile("/run/credentials/bot.service/wallet-api-key")
	if err != nil {
		log.Fatal(err)
	}
	unsigned := []byte{0x02} // and the rest of an EIP-1559 transaction
	signed, err := sign(context.Background(), key, "wal_aaaaaaaaaaaaaaaaaaaaaaaaaa", unsigned)
	switch client.Reason(err) {
	case "LIMIT_EXCEEDED":
		fmt.Println("again in", client.RetryAfter(err))
	default:
		fmt.Printf("%x %v\n", signed, err)
	}
}

// A tool carries the stamp of a credential.
func ExampleClient_WithStamps() {
	owner, err := credential.LoadKey("owner.pem")
	if err != nil {
		log.Fatal(err)
	}
	defer owner.Wipe()
	c, err := client.Dial("/run/sigild/admin.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	const org = "org_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	answer, err := c.WithStamps(org, owner).Delegations().RevokeDelegation(context.Background(), &sigilv1.RevokeDelegationRequest{
		RequestId:      "stop-the-bot",
		OrganizationId: org,
		DelegationId:   "dlg_aaaaaaaaaaaaaaaaaaaaaaaaaa",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetDelegation().GetStatus())
}
