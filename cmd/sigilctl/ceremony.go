package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Ceremonies, however they were started: how far they are, and their end.

func ceremonyCommand() *cobra.Command {
	return group("ceremony", "Show the ceremonies of an organization's keys, and end one",
		ceremonyListCommand(), ceremonyShowCommand(), ceremonyAbortCommand())
}

func ceremonyListCommand() *cobra.Command {
	var f stampFlags
	var wallet string
	var all bool
	c := &cobra.Command{
		Use:   "list --organization ID [--wallet ID] [--all] --key FILE",
		Short: "List the ceremonies that wait or run, and with --all those that have ended",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				r := &sigilv1.ListCeremoniesRequest{OrganizationId: f.organization, WalletId: optional(wallet), Ended: all}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				defer w.Flush()
				fmt.Fprintln(w, "ceremony\tkind\twallet\tbegan\tstatus")
				for {
					out, err := c.Ceremonies().ListCeremonies(cmd.Context(), r)
					if err != nil {
						return err
					}
					for _, l := range out.GetCeremonies() {
						cer := l.GetCeremony()
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", cer.GetCeremonyId(), cer.GetKind(), l.GetWalletId(), cer.GetStartedAt().AsTime().Format(time.RFC3339), ceremonyWords(l))
						r.After = &cer.CeremonyId
					}
					if len(out.GetCeremonies()) == 0 {
						return nil
					}
				}
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of a wallet: its ceremonies only")
	c.Flags().BoolVar(&all, "all", false, "those that have ended, too")
	need(c, "organization")
	return c
}

// ceremonyWords is a ceremony's status in one line.
func ceremonyWords(l *sigilv1.ListedCeremony) string {
	c := l.GetCeremony()
	switch c.GetStatus() {
	case sigilv1.CeremonyStatus_CEREMONY_STATUS_DONE:
		return "done"
	case sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED:
		return "failed: " + c.GetError()
	}
	if c.GetStepsTotal() > 0 {
		return fmt.Sprintf("running: %s, %d of %d", c.GetStage(), c.GetStepsDone(), c.GetStepsTotal())
	}
	if l.WaitsFor != nil {
		return "waits for a " + l.GetWaitsFor()
	}
	return "running: " + c.GetStage()
}

func ceremonyShowCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show ID --organization ID --key FILE",
		Short: "Show one ceremony: what it is for, how far it is, who broke it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.Ceremonies().ShowCeremony(cmd.Context(), &sigilv1.ShowCeremonyRequest{OrganizationId: f.organization, CeremonyId: args[0]})
				if err != nil {
					return err
				}
				return printCeremony(cmd.OutOrStdout(), out.GetCeremony())
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func printCeremony(out io.Writer, l *sigilv1.ListedCeremony) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, text)
		}
	}
	c := l.GetCeremony()
	row("ceremony", c.GetCeremonyId())
	row("kind", c.GetKind())
	row("wallet", l.GetWalletId())
	row("delegation", l.GetDelegationId())
	row("began", c.GetStartedAt().AsTime().Format(time.RFC3339))
	row("status", ceremonyWords(l))
	if l.WaitsUntil != nil {
		row("waits until", l.GetWaitsUntil().AsTime().Format(time.RFC3339))
	}
	if c.GetStatus() == sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED {
		row("stage", c.GetStage())
	}
	row("broken by", strings.Join(c.GetCulprits(), ", "))
	return t.Flush()
}

func ceremonyAbortCommand() *cobra.Command {
	var f stampFlags
	var reason string
	c := &cobra.Command{
		Use:   "abort ID --organization ID --reason TEXT --key FILE…",
		Short: "End a ceremony that waits or runs; the owner, or the root quorum",
		Long: `Ends a ceremony at once. The wallet or the delegation that it was to make is failed; a
key whose shares it was to replace keeps those it has. Nothing of it is left, and
another one may begin. The reason is for the journal. A ceremony that has ended is
refused: what it made stays.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Ceremonies().AbortCeremony(cmd.Context(), &sigilv1.AbortCeremonyRequest{RequestId: id, OrganizationId: f.organization, CeremonyId: args[0], Reason: reason})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "aborted", args[0])
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&reason, "reason", "", "why, in 64 characters")
	need(c, "organization", "reason")
	return c
}
