package main

import (
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Two appliances: this one takes a share of the other one's key on.

func cosignCommand() *cobra.Command {
	return group("cosign", "Co-sign for another appliance", cosignAcceptCommand())
}

func cosignAcceptCommand() *cobra.Command {
	var s stampFlags
	var r sigilv1.AcceptCosigningRequest
	c := &cobra.Command{
		Use:   "accept --organization ID --owner ID --peer NAME --chain CHAIN --address ADDRESS --name NAME --key FILE…",
		Short: "Take a wallet of a peer's key on; prints the invitation that its owner needs",
		Long: `Waits a day for the peer to make a share of that wallet's key for this appliance.
Each signature then runs through both; this organization's documents must allow it
here. Give the invitation to the wallet's owner, who delegates with it at the peer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, s.organization
				out, err := c.Cosigning().AcceptCosigning(cmd.Context(), &r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "wallet      %s\nkey         %s\ninvitation  %s\npin         %s\n", out.GetWalletId(), out.GetKeyId(), out.GetInvitation(), out.GetAppliancePin())
				}
				return err
			})
		},
	}
	s.register(c, true)
	c.Flags().StringVar(&r.OwnerUserId, "owner", "", "`ID` of the end user here who goes for the owner")
	c.Flags().StringVar(&r.Peer, "peer", "", "`NAME` of the peer in the configuration")
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Address, "address", "", "`ADDRESS` of the wallet: no other key is taken on")
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	need(c, "organization", "owner", "peer", "chain", "address", "name")
	return c
}
