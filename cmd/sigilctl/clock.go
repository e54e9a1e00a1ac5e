package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about the appliance's time.

func clockCommand() *cobra.Command {
	return group("clock", "Show the appliance's time, and confirm it", clockShowCommand(), clockConfirmCommand())
}

func clockShowCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show",
		Short: "Show what time it is for the appliance, and who confirmed it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				now, err := c.Clock().GetClock(cmd.Context(), &sigilv1.GetClockRequest{})
				if err != nil {
					return err
				}
				printClock(cmd.OutOrStdout(), now)
				return nil
			})
		},
	}
	f.registerUnstamped(c)
	return c
}

func printClock(w io.Writer, c *sigilv1.GetClockResponse) {
	show := func(t *timestamppb.Timestamp) string { return t.AsTime().Format(time.RFC3339) }
	fmt.Fprintf(w, "wall clock  %s\nappliance   %s\nntp         %s\nboot        %s\n", show(c.GetWall()), show(c.GetNow()), map[bool]string{true: "keeps the clock", false: "does not keep the clock"}[c.GetSynced()], c.GetBootId())
	if c.ConfirmedBy != nil {
		fmt.Fprintf(w, "confirmed   by %s at %s\n", c.GetConfirmedBy(), show(c.GetConfirmedAt()))
	}
	if c.Alarm != nil {
		fmt.Fprintf(w, "ALARM       %s; windows do not end by it and rules about time are errors until sigilctl clock confirm\n", c.GetAlarm())
	}
}

func clockConfirmCommand() *cobra.Command {
	var f stampFlags
	var stated string
	c := &cobra.Command{
		Use:   "confirm --time RFC3339 --key FILE...",
		Short: "Confirm that the host's clock is right; the operators' quorum",
		Long: `Tells the appliance that the host's wall clock is right, after a boot without NTP or
after the clock jumped. --time is what time it is, from a watch and not from this host:
the wall clock must agree within two minutes, so set it first (date -s, or chronyc).
A confirmation is for this boot.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := time.Parse(time.RFC3339, stated)
			if err != nil {
				return hinted{fmt.Errorf("reading --time %q: it is no RFC 3339 time", stated), "write it as 2026-11-21T19:30:00Z"}
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				now, err := c.Clock().GetClock(cmd.Context(), &sigilv1.GetClockRequest{})
				if err != nil {
					return err
				}
				made, err := c.Clock().ConfirmClock(cmd.Context(), &sigilv1.ConfirmClockRequest{RequestId: id, BootId: now.GetBootId(), Time: timestamppb.New(at)})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "confirmed at %s\n", made.GetConfirmedAt().AsTime().Format(time.RFC3339))
				return nil
			})
		},
	}
	f.register(c, false)
	c.Flags().StringVar(&stated, "time", "", "the true `TIME`, from elsewhere: 2026-11-21T19:30:00Z")
	need(c, "time")
	return c
}
