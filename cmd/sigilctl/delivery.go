package main

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about what other vendors deliver: where it comes from, what came, and who
// signs with it.

func webhookCommand() *cobra.Command {
	return group("webhook", "Register where a vendor's deliveries come from", webhookRegister(), webhookToken())
}

func webhookRegister() *cobra.Command {
	var f stampFlags
	var environment, keyRef string
	var secrets []string
	c := &cobra.Command{
		Use:   "register --organization ID --environment ID --secret-file FILE… --key FILE…",
		Short: "Register the webhook of a vendor's environment and print the public key to upload; the root quorum",
		Long: `Registers the webhook of an environment, with the secrets that its vendor signs
with, and prints the key that the vendor is to encrypt to. Each FILE holds one secret
as the vendor shows it; a newline at its end doesn't count. Registering the same
environment again replaces the secrets.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.RegisterWebhookRequest{EnvironmentId: environment}
			if keyRef != "" {
				r.Key = &sigilv1.RegisterWebhookRequest_KeyRef{KeyRef: keyRef}
			}
			for _, path := range secrets {
				secret, err := readSecretFile(path, cmd.InOrStdin())
				if err != nil {
					return err
				}
				defer clear(secret)
				r.Secrets = append(r.Secrets, bytes.TrimRight(secret, "\r\n"))
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Deliveries().RegisterWebhook(cmd.Context(), r)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "webhook  %s\n", out.GetWebhookId())
				for _, k := range out.GetKeys() {
					fmt.Fprintf(cmd.OutOrStdout(), "key_ref  %s\n%s", k.GetKeyRef(), k.GetPublicKeyPem())
				}
				return nil
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&environment, "environment", "", "the vendor's `ID` of the environment")
	c.Flags().StringArrayVar(&secrets, "secret-file", nil, "`FILE` with a webhook secret; repeat while two are live")
	c.Flags().StringVar(&keyRef, "key-ref", "", "a key of sigilctl webhook-key instead of a new one")
	need(c, "organization", "environment", "secret-file")
	return c
}

func webhookToken() *cobra.Command {
	var f stampFlags
	var webhook, file string
	c := &cobra.Command{
		Use:   "token --organization ID --webhook ID --file FILE --key FILE…",
		Short: "Set the developer token that the vendor's program signs with; the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := readSecretFile(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer clear(token)
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Vendors().SetDeveloperToken(cmd.Context(), &sigilv1.SetDeveloperTokenRequest{
					RequestId: id, OrganizationId: f.organization, WebhookId: webhook, Token: bytes.TrimRight(token, "\r\n"),
				})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "the token is set")
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&webhook, "webhook", "", "`ID` of the webhook")
	c.Flags().StringVar(&file, "file", "", "`FILE` with the token")
	need(c, "organization", "webhook", "file")
	return c
}

func deliveryCommand() *cobra.Command {
	return group("delivery", "List what vendors delivered, and bind it to a delegated user", deliveryList(), deliveryBind())
}

func deliveryList() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "List what vendors delivered, without its secrets; any root member's stamp",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "delivery\tstatus\tchain\taddress\tvendor's wallet\tdelegation")
				r := &sigilv1.ListDeliveriesRequest{OrganizationId: f.organization}
				for {
					out, err := c.Deliveries().ListDeliveries(cmd.Context(), r)
					if err != nil {
						return err
					}
					for _, d := range out.GetDeliveries() {
						status := strings.ToLower(strings.TrimPrefix(d.GetStatus().String(), "DELIVERY_STATUS_"))
						if d.GetProven() {
							status += ", has signed"
						}
						if d.GetBeside() {
							status += ", beside a bound one"
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.GetDeliveryId(), status, d.GetChain(), d.GetAddress(), d.GetVendorWalletId(), d.GetDelegationId())
						r.After = &d.DeliveryId
					}
					if len(out.GetDeliveries()) < fullList {
						return w.Flush()
					}
				}
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func deliveryBind() *cobra.Command {
	var f stampFlags
	var terms termFlags
	var r sigilv1.BindDeliveryRequest
	var peer string
	c := &cobra.Command{
		Use:   "bind ID --organization ID --chain CHAIN --address ADDRESS --name NAME --user ID --recipient AGE --rules FILE --key FILE…",
		Short: "Make a delegation of a pending delivery; the root quorum",
		Long: `Makes a delegation of a pending delivery. Another vendor's share is signed with by the
vendor's own program. With --peer it is another sigild's: each signature then runs
through both appliances, and each judges it by its own policies and limits.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Policies, r.Limits, err = terms.read(); err != nil {
				return err
			}
			if r.ExpiresAt, err = terms.end(); err != nil {
				return err
			}
			r.DeliveryId, r.DelegatedUserId, r.ApiKeyRecipient, r.OrganizationAllows = args[0], terms.user, terms.recipient, terms.organizationAllows
			r.CosignerPeer = optional(peer)
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Vendors().BindDelivery(cmd.Context(), &r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "delegation  %s\nwallet      %s\n", out.GetDelegationId(), out.GetWalletId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().StringVar(&terms.expires, "expires", "", "when it ends: a time, or a duration from now")
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Address, "address", "", "the wallet's address, as you know it")
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	c.Flags().StringVar(&peer, "peer", "", "`NAME`, in the configuration, of the sigild that delivered it")
	need(c, "organization", "chain", "address", "name", "user", "recipient")
	return c
}
