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

// An application signs with its wallet API key.
func ExampleClient_Signing() {
	c, err := client.Dial("/run/sigild/sigild.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	key, err := os.ReadFile("/run/credentials/bot.service/wallet-api-key")
	if err != nil {
		log.Fatal(err)
	}
	answer, err := c.WithAPIKey(key).Signing().Sign(context.Background(), &sigilv1.SignRequest{
		RequestId: "payout-4711",
		WalletId:  "wal_aaaaaaaaaaaaaaaaaaaaaaaaaa",
		Payload:   &sigilv1.SignRequest_EvmTransaction{EvmTransaction: []byte{0x02}},
	})
	switch client.Reason(err) {
	case "":
		fmt.Printf("%x\n", answer.GetSignedTransaction())
	case "LIMIT_EXCEEDED":
		fmt.Println("again in", client.RetryAfter(err))
	default:
		log.Fatal(err)
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
