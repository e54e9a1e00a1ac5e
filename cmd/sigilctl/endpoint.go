package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about endpoints: where delegations for somebody elsewhere are delivered to.

func endpointCommand() *cobra.Command {
	return group("endpoint", "Register where delegations for somebody elsewhere are delivered to",
		endpointRegister(), endpointKey(), endpointPing(), endpointRedeliver(), endpointList())
}

func endpointRegister() *cobra.Command {
	var f stampFlags
	var r sigilv1.RegisterEndpointRequest
	var secretFile, keyFile, peer string
	c := &cobra.Command{
		Use:   "register --organization ID --name NAME --url https://… --environment ID --secret-file FILE --public-key FILE --key FILE…",
		Short: "Register an endpoint with its secret and its first key, pending; the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := readSecretFile(secretFile, cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer clear(secret)
			public, err := os.ReadFile(keyFile)
			if err != nil {
				return fmt.Errorf("reading the public key: %w", err)
			}
			r.CosignerPeer = optional(peer)
			r.Secret, r.PublicKeyPem = bytes.TrimRight(secret, "\r\n"), string(public)
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Endpoints().RegisterEndpoint(cmd.Context(), &r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "endpoint  %s\nkey       %s, pending\n", out.GetEndpointId(), out.GetKeyId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	c.Flags().StringVar(&r.Url, "url", "", "where events are posted, https")
	c.Flags().StringVar(&r.EnvironmentId, "environment", "", "what events call the environment")
	c.Flags().StringVar(&peer, "peer", "", "`NAME`, in the configuration, of the sigild that signs with what is delivered; without it nobody does")
	c.Flags().BoolVar(&r.Sandbox, "sandbox", false, "two retries instead of five")
	c.Flags().StringVar(&secretFile, "secret-file", "", "`FILE` with the secret that events are signed with")
	c.Flags().StringVar(&keyFile, "public-key", "", "`FILE` with the receiver's RSA key, PEM")
	need(c, "organization", "name", "url", "environment", "secret-file", "public-key")
	return c
}

func endpointKey() *cobra.Command {
	var f stampFlags
	var add string
	var activate, revoke string
	c := &cobra.Command{
		Use:   "key ENDPOINT (--add FILE | --activate KEY | --revoke KEY) --organization ID --key FILE…",
		Short: "Add a receiver's key, activate it once a ping has arrived, or revoke it; the root quorum",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				if add != "" {
					public, err := os.ReadFile(add)
					if err != nil {
						return fmt.Errorf("reading the public key: %w", err)
					}
					out, err := c.Endpoints().AddEndpointKey(cmd.Context(), &sigilv1.AddEndpointKeyRequest{RequestId: id, OrganizationId: f.organization, EndpointId: args[0], PublicKeyPem: string(public)})
					if err == nil {
						fmt.Fprintf(cmd.OutOrStdout(), "key  %s, pending\n", out.GetKeyId())
					}
					return err
				}
				status, word := sigilv1.EndpointKeyStatus_ENDPOINT_KEY_STATUS_ACTIVE, "active"
				if revoke != "" {
					status, word = sigilv1.EndpointKeyStatus_ENDPOINT_KEY_STATUS_REVOKED, "revoked"
				}
				_, err := c.Endpoints().ChangeEndpointKey(cmd.Context(), &sigilv1.ChangeEndpointKeyRequest{
					RequestId: id, OrganizationId: f.organization, EndpointId: args[0], KeyId: activate + revoke, Status: status,
				})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "key  %s, %s\n", activate+revoke, word)
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&add, "add", "", "`FILE` with an RSA key, PEM")
	c.Flags().StringVar(&activate, "activate", "", "`KEY` to encrypt to from now on")
	c.Flags().StringVar(&revoke, "revoke", "", "`KEY` to encrypt to no more")
	c.MarkFlagsMutuallyExclusive("add", "activate", "revoke")
	c.MarkFlagsOneRequired("add", "activate", "revoke")
	need(c, "organization")
	return c
}

func endpointPing() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "ping ENDPOINT --organization ID --key FILE…",
		Short: "Send an endpoint a ping; sigilctl endpoint list says when one arrived",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Endpoints().PingEndpoint(cmd.Context(), &sigilv1.PingEndpointRequest{RequestId: id, OrganizationId: f.organization, EndpointId: args[0]})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "event  %s\n", out.GetEventId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func endpointRedeliver() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "redeliver ENDPOINT --organization ID --key FILE…",
		Short: "Try an endpoint's events again now, those that were given up included",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Endpoints().RedeliverEvents(cmd.Context(), &sigilv1.RedeliverEventsRequest{RequestId: id, OrganizationId: f.organization, EndpointId: args[0]})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%d events are due\n", out.GetEvents())
				}
				return err
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func endpointList() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "List endpoints, their keys, and what waits for them; any root member's stamp",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.Endpoints().ListEndpoints(cmd.Context(), &sigilv1.ListEndpointsRequest{OrganizationId: f.organization})
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "endpoint\tname\turl\tpeer\treached\twaiting\tgiven up\tkeys")
				for _, e := range out.GetEndpoints() {
					reached := "never"
					if e.ReachedAt != nil {
						reached = when(e.GetReachedAt())
					}
					var keys []string
					for _, k := range e.GetKeys() {
						keys = append(keys, k.GetKeyId()+" "+strings.ToLower(strings.TrimPrefix(k.GetStatus().String(), "ENDPOINT_KEY_STATUS_")))
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", e.GetEndpointId(), e.GetName(), e.GetUrl(), e.GetCosignerPeer(), reached, e.GetWaiting(), e.GetFailed(), strings.Join(keys, ", "))
				}
				return w.Flush()
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}
