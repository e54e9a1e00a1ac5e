package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about the key of a wallet: what it is, its root set, its settings.

func walletShowCommand() *cobra.Command {
	var f stampFlags
	var wallet string
	c := &cobra.Command{
		Use:   "show --organization ID --wallet ID --key FILE",
		Short: "Show a wallet and its key: address, root set, where shares lie, broken ceremonies",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				w, err := c.Wallets().GetWallet(cmd.Context(), &sigilv1.GetWalletRequest{OrganizationId: f.organization, WalletId: wallet})
				if err != nil {
					return err
				}
				k, err := c.Keys().GetKey(cmd.Context(), &sigilv1.GetKeyRequest{OrganizationId: f.organization, WalletId: wallet})
				if err != nil {
					return err
				}
				return printWallet(cmd.OutOrStdout(), w.GetWallet(), k.GetKey())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of the wallet")
	need(c, "organization", "wallet")
	return c
}

func printWallet(out io.Writer, w *sigilv1.Wallet, k *sigilv1.Key) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("wallet", "%s", w.GetWalletId())
	row("name", "%s", w.GetName())
	row("chain", "%s", w.GetChain())
	row("address", "%s", w.GetAddress())
	if w.GetPath() != "" {
		row("path", "%s", w.GetPath())
	}
	row("status", "%s", strings.ToLower(strings.TrimPrefix(w.GetStatus().String(), "WALLET_STATUS_")))
	printKey(row, k)
	return t.Flush()
}

func printKey(row func(name, format string, args ...any), k *sigilv1.Key) {
	row("key", "%s (%s, %s)", k.GetKeyId(), k.GetScheme(), k.GetStatus())
	if len(k.GetPublicKey()) > 0 {
		row("public key", "%x", k.GetPublicKey())
	}
	row("origin", "%s", k.GetOrigin())
	row("custody", "%s", k.GetCustody())
	row("root set", "%s: %d of %s, epoch %d, since %s", k.GetRootSet(), k.GetThreshold(), strings.Join(k.GetParties(), ", "), k.GetEpoch(), k.GetRootSince().AsTime().Format(time.RFC3339))
	row("shares here", "%s", strings.Join(k.GetSharesHere(), ", "))
	printKeySealing(row, k.GetSealing())
	if k.GetRenewalOwed() {
		row("handed over", "its root set is being replaced; the owner's share comes of the new one")
	}
	if k.GetShareWaits() {
		row("owner's share", "waits for its owner: sigilctl wallet share")
	}
	every := "on demand"
	if s := k.GetRotateEverySeconds(); s > 0 {
		every = "every " + (time.Duration(s) * time.Second).String()
	}
	row("rotation", "%s", every)
	presign := "off"
	switch {
	case k.PresignaturesRefused != nil:
		presign = "on, but none are made: " + k.GetPresignaturesRefused()
	case k.GetPresignatures():
		presign = fmt.Sprintf("on, %d ready", k.GetPresignaturesReady())
	}
	row("presignatures", "%s", presign)
	failures := "none"
	if len(k.GetFailures()) > 0 {
		var counts []string
		for _, p := range k.GetFailures() {
			counts = append(counts, fmt.Sprintf("%s %d", p.GetParty(), p.GetCount()))
		}
		failures = strings.Join(counts, ", ")
	}
	row("broken ceremonies", "%s", failures)
	if k.GetFrozen() {
		row("frozen", "yes: the root quorum resumes it")
	}
}

func keyCommand() *cobra.Command {
	return group("key", "Make keys, show the key behind a wallet and its settings, hand one over", keyShowCommand(), keySetCommand(), keyCreateCommand(), keyDelegateCommand())
}

func keyShowCommand() *cobra.Command {
	var f stampFlags
	var wallet string
	c := &cobra.Command{
		Use:   "show --organization ID --wallet ID --key FILE",
		Short: "Show the key of a wallet",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.Keys().GetKey(cmd.Context(), &sigilv1.GetKeyRequest{OrganizationId: f.organization, WalletId: wallet})
				if err != nil {
					return err
				}
				return showKey(cmd.OutOrStdout(), out.GetKey())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of any of the key's wallets")
	need(c, "organization", "wallet")
	return c
}

func showKey(out io.Writer, k *sigilv1.Key) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	printKey(func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }, k)
	fmt.Fprintf(t, "wallets\t%s\n", strings.Join(k.GetWalletIds(), ", "))
	return t.Flush()
}

func keySetCommand() *cobra.Command {
	var f stampFlags
	var wallet string
	var every time.Duration
	var presignatures bool
	c := &cobra.Command{
		Use:   "set --organization ID --wallet ID [--rotate-every 2160h] [--presignatures=true] --key FILE…",
		Short: "Change a key's settings; the owner, or the root quorum",
		Long: `Changes what is given and leaves the rest. With --rotate-every the appliance
rotates the root set when it is that old (0 ends that); the owner has to fetch their
new share each time. --presignatures=true lets delegations of an EVM key keep the
greater part of signatures ready in memory, so that signing takes milliseconds; read
"Presignatures" in docs/operating.md first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.SetKeyRequest{OrganizationId: f.organization, WalletId: wallet}
			if cmd.Flags().Changed("rotate-every") {
				if every < 0 || every > 100*365*24*time.Hour {
					return errors.New("--rotate-every is out of range")
				}
				seconds := uint32(every / time.Second)
				r.RotateEverySeconds = &seconds
			}
			if cmd.Flags().Changed("presignatures") {
				r.Presignatures = &presignatures
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Keys().SetKey(cmd.Context(), r)
				if err != nil {
					return err
				}
				return showKey(cmd.OutOrStdout(), out.GetKey())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of any of the key's wallets")
	c.Flags().DurationVar(&every, "rotate-every", 0, "rotate a root set of this `age`")
	c.Flags().BoolVar(&presignatures, "presignatures", false, "keep presignatures for the key's delegations")
	need(c, "organization", "wallet")
	c.MarkFlagsOneRequired("rotate-every", "presignatures")
	return c
}

func walletRotateCommand() *cobra.Command {
	var f stampFlags
	var wallet string
	var wait bool
	c := &cobra.Command{
		Use:   "rotate --organization ID --wallet ID --key FILE…",
		Short: "Put a new root set in the place of the old one; the owner, or the root quorum",
		Long: `Makes new shares of a wallet's key: same key, same address. The new set signs a
test with every quorum, then the old shares are destroyed. The owner's share is worth
nothing from then on: their new one waits for sigilctl wallet share. Delegations have
sets of their own and go on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Keys().RotateKey(cmd.Context(), &sigilv1.RotateKeyRequest{RequestId: id, OrganizationId: f.organization, WalletId: wallet})
				if err != nil {
					return err
				}
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of any of the key's wallets")
	waitFlag(c, &wait)
	need(c, "organization", "wallet")
	return c
}

func waitFlag(c *cobra.Command, wait *bool) {
	c.Flags().BoolVar(wait, "wait", false, "wait until the ceremony has ended, and say how")
}

// follow names ceremonies, and with wait stays until they have ended.
func (f *stampFlags) follow(cmd *cobra.Command, c *client.Client, wait bool, ids ...string) error {
	out := cmd.OutOrStdout()
	for _, id := range ids {
		fmt.Fprintf(out, "ceremony  %s\n", id)
	}
	if !wait {
		return nil
	}
	for _, id := range ids {
		if err := awaitCeremony(cmd.Context(), out, c, f.organization, id); err != nil {
			return err
		}
	}
	return nil
}

// awaitCeremony prints a line for each stage until the end.
func awaitCeremony(ctx context.Context, out io.Writer, c *client.Client, org, id string) error {
	said := ""
	for {
		answer, err := c.Wallets().GetCeremony(ctx, &sigilv1.GetCeremonyRequest{OrganizationId: org, CeremonyId: id})
		if err != nil {
			return err
		}
		cer := answer.GetCeremony()
		switch cer.GetStatus() {
		case sigilv1.CeremonyStatus_CEREMONY_STATUS_DONE:
			fmt.Fprintf(out, "%s done\n", cer.GetKind())
			return nil
		case sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED:
			text := fmt.Sprintf("%s failed in stage %q: %s", cer.GetKind(), cer.GetStage(), cer.GetError())
			if len(cer.GetCulprits()) > 0 {
				text += "; broken by " + strings.Join(cer.GetCulprits(), ", ")
			}
			return errors.New(text)
		}
		if cer.GetStage() != said {
			said = cer.GetStage()
			fmt.Fprintln(out, said)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func walletShareCommand() *cobra.Command {
	var f stampFlags
	var wallet, out string
	c := &cobra.Command{
		Use:   "share --organization ID --wallet ID --out FILE --key FILE",
		Short: "Fetch the owner's share, an age file, and confirm it",
		Long: `Writes the owner's share of a new root set to a new file, still encrypted to the
owner's age recipient, and confirms it when the file is on the disk. The appliance then
deletes its copy. The share is worth nothing without the owner's age identity.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				share, err := c.Wallets().FetchShare(cmd.Context(), &sigilv1.FetchShareRequest{OrganizationId: f.organization, WalletId: wallet})
				if err != nil {
					return err
				}
				if err := writeNew(cmd, out, share.GetAgeCiphertext()); err != nil {
					return err
				}
				sum := sha256.Sum256(share.GetAgeCiphertext())
				_, err = c.Wallets().ConfirmShare(cmd.Context(), &sigilv1.ConfirmShareRequest{
					RequestId: id, OrganizationId: f.organization, WalletId: wallet, CiphertextSha256: sum[:],
				})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "confirmed")
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of any of the key's wallets")
	c.Flags().StringVar(&out, "out", "", "the new `FILE`")
	need(c, "organization", "wallet", "out")
	return c
}
