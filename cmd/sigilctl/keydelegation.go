package main

import (
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about whose a key is: made for an end user or for the organization, and handed
// over for ever.

func keyCreateCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.CreateKeyRequest
	var to string
	var delay, wait bool
	c := &cobra.Command{
		Use:   "create --organization ID --chain CHAIN --name NAME [--delegate-to ID | --delay-delegation] --key FILE…",
		Short: "Make a key with its first wallet: an end user's, the organization's until it is handed over, or the organization's for ever; the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case to != "":
				r.Ownership = &sigilv1.CreateKeyRequest_DelegateTo{DelegateTo: to}
			case delay:
				r.Ownership = &sigilv1.CreateKeyRequest_DelayDelegation{DelayDelegation: true}
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.KeyDelegation().CreateKey(cmd.Context(), &r)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "key       %s\nwallet    %s\n", out.GetKeyId(), out.GetWalletId())
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Name, "name", "", "the first wallet's name, for people")
	c.Flags().StringVar(&to, "delegate-to", "", "`ID` of the end user whose it is from the start")
	c.Flags().BoolVar(&delay, "delay-delegation", false, "the organization's, until sigilctl key delegate")
	c.MarkFlagsMutuallyExclusive("delegate-to", "delay-delegation")
	waitFlag(c, &wait)
	need(c, "organization", "chain", "name")
	return c
}

func keyDelegateCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.DelegateKeyRequest
	c := &cobra.Command{
		Use:   "delegate --organization ID --key-id ID --to ID --key FILE…",
		Short: "Hand a key of the organization, and all its wallets, to an end user for ever; the root quorum",
		Long: `Hands a key that was made with --delay-delegation to an end user. Irreversible. It ends
every delegation of the key, every activity that waits and every policy of its wallets;
what was spent stays counted. The key gets a new root set, which takes a moment; then the
user fetches the share of it with sigilctl wallet share. Asked again with the same user it
says the same, with another it is NOT_DELEGATABLE.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.KeyDelegation().DelegateKey(cmd.Context(), &r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "key      %s\nstatus   %s\ncustody  %s\n", out.GetKeyId(), out.GetStatus(), out.GetCustody())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.KeyId, "key-id", "", "`ID` of the key")
	c.Flags().StringVar(&r.DelegateTo, "to", "", "`ID` of the end user")
	need(c, "organization", "key-id", "to")
	return c
}
