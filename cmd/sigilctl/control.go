package main

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// Verbs that stop signing and let it go on. Each call carries the stamps of the
// --key files and a request id of its own; --request-id repeats one.

// stampFlags are what every stamped verb takes.
type stampFlags struct {
	keys                            []string
	requestID, socket, organization string
}

func (f *stampFlags) register(c *cobra.Command, organization bool) {
	c.Flags().StringArrayVar(&f.keys, "key", nil, "private key `FILE` that stamps the call; repeat for a quorum")
	f.registerUnstamped(c)
	if organization {
		c.Flags().StringVar(&f.organization, "organization", "", "`ID` of an organization; without it the appliance is meant")
	}
	if err := c.MarkFlagRequired("key"); err != nil {
		panic(err)
	}
}

// registerUnstamped registers what a verb takes whose call carries no stamps.
func (f *stampFlags) registerUnstamped(c *cobra.Command) {
	c.Flags().StringVar(&f.requestID, "request-id", "", "repeat an earlier call instead of making a new one")
	c.Flags().StringVar(&f.socket, "socket", "", "call this `socket` instead of the admin socket of the configuration")
}

// call opens the socket, loads the keys and runs use with a client that stamps.
func (f *stampFlags) call(cmd *cobra.Command, use func(c *client.Client, requestID string) error) error {
	if f.socket == "" {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return err
		}
		f.socket = cfg.Sockets.Admin.Path
	}
	var signers []credential.Signer
	for _, path := range f.keys {
		k, err := credential.LoadKey(path)
		if err != nil {
			return fmt.Errorf("loading %s: %w", path, err)
		}
		defer k.Wipe()
		signers = append(signers, k)
	}
	conn, err := client.Dial(f.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if f.requestID == "" {
		f.requestID = newRequestID()
	}
	if err := use(conn.WithStamps(f.organization, signers...), f.requestID); err != nil {
		told := unreachable(f.socket, err)
		if h := (hinted{}); errors.As(told, &h) {
			return told
		}
		return hinted{told, "the call's request id was " + f.requestID}
	}
	return nil
}

// newRequestID is one that nobody used.
func newRequestID() string { return "ctl-" + rand.Text() }

// optional is absent for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func pauseCommand() *cobra.Command {
	var f stampFlags
	var wallet, reason string
	c := &cobra.Command{
		Use:   "pause --reason TEXT --key FILE",
		Short: "Stop signing of the appliance, an organization or a wallet; returns when nothing is under way",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Control().Pause(cmd.Context(), &sigilv1.PauseRequest{
					RequestId: id, OrganizationId: optional(f.organization), WalletId: optional(wallet), Reason: reason,
				})
				if err != nil {
					return err
				}
				p := out.GetPause()
				fmt.Fprintf(cmd.OutOrStdout(), "paused by its %s since %s: %s\n", p.GetLevel(), p.GetSince().AsTime().Format("2006-01-02T15:04:05Z"), p.GetReason())
				return nil
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of a wallet of the organization")
	c.Flags().StringVar(&reason, "reason", "", "why, for people")
	if err := c.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	return c
}

func resumeCommand() *cobra.Command {
	var f stampFlags
	var wallet string
	c := &cobra.Command{
		Use:   "resume --key FILE",
		Short: "End a pause, with the quorum of the level that paused or of the one above",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Control().Resume(cmd.Context(), &sigilv1.ResumeRequest{
					RequestId: id, OrganizationId: optional(f.organization), WalletId: optional(wallet),
				})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "resumed")
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of a wallet of the organization")
	return c
}

func sealCommand() *cobra.Command {
	var f stampFlags
	var reason string
	c := &cobra.Command{
		Use:   "seal --reason TEXT --key FILE",
		Short: "Wipe the root key from the daemon's memory; it stays sealed over restarts until the operators' quorum unseals",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Control().Seal(cmd.Context(), &sigilv1.SealRequest{RequestId: id, Reason: reason})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "sealed")
				}
				return err
			})
		},
	}
	f.register(c, false)
	c.Flags().StringVar(&reason, "reason", "", "why, for people")
	if err := c.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	return c
}

func unsealCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "unseal --key FILE…",
		Short: "Open an appliance that an operator sealed; the operators' quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Control().Unseal(cmd.Context(), &sigilv1.UnsealRequest{RequestId: id})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "unsealed")
				}
				return err
			})
		},
	}
	f.register(c, false)
	return c
}
