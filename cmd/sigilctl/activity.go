package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/signing"
)

// Verbs of those who approve: requests that wait for people. What is shown is read
// from the bytes that are stamped and from the payload, not from what the daemon says
// beside them.

func activityCommand() *cobra.Command {
	return group("activity", "Approve or reject requests that wait for people, and verify who did",
		activityListCommand(), activityShowCommand(), activityApproveCommand(), activityRejectCommand(), activityVerifyCommand())
}

func activityListCommand() *cobra.Command {
	var f stampFlags
	var all bool
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "List the requests that wait for approvals and concern you",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.Activities().ListActivities(cmd.Context(), &sigilv1.ListActivitiesRequest{OrganizationId: f.organization, All: all})
				if err != nil {
					return err
				}
				for _, a := range out.GetActivities() {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %-14s  until %s  %d approved  %s\n", a.GetActivityId(), statusWord(a.GetStatus()),
						a.GetExpiresAt().AsTime().Format(time.RFC3339), len(a.GetApprovals()), printable([]byte(firstLine(a.GetSummary()))))
				}
				return nil
			})
		},
	}
	f.register(c, true)
	c.Flags().BoolVar(&all, "all", false, "those that are over, too; they are kept for a day")
	need(c, "organization")
	return c
}

func activityShowCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show ACTIVITY --organization ID --key FILE",
		Short: "Say what would be signed, who asks, and who approved",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				_, err := showActivity(cmd, c, f.organization, args[0])
				return err
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func activityApproveCommand() *cobra.Command {
	var f stampFlags
	var yes bool
	c := &cobra.Command{
		Use:   "approve ACTIVITY --organization ID --key FILE",
		Short: "Show what would be signed, and approve it with a stamp over exactly that",
		Long: `Shows what would be signed as sigilctl activity show does, asks, and stamps it: the
payload, the policies that judge it, until when, for which appliance. Nothing is
signed by it; whoever asked asks again. More --key files approve for more users.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				shown, err := showActivity(cmd, c, f.organization, args[0])
				if err != nil {
					return err
				}
				if err := agree(cmd, yes, "approve"); err != nil {
					return err
				}
				out, err := c.Activities().ApproveActivity(cmd.Context(), &sigilv1.ApproveActivityRequest{RequestId: id, OrganizationId: f.organization, Activity: shown})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "approved; %d approved it so far\n", out.GetApprovals())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().BoolVar(&yes, "yes", false, "don't ask")
	need(c, "organization")
	return c
}

func activityRejectCommand() *cobra.Command {
	var f stampFlags
	var reason string
	c := &cobra.Command{
		Use:   "reject ACTIVITY --organization ID --key FILE",
		Short: "End an activity; it can't be approved any more",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				shown, err := showActivity(cmd, c, f.organization, args[0])
				if err != nil {
					return err
				}
				_, err = c.Activities().RejectActivity(cmd.Context(), &sigilv1.RejectActivityRequest{RequestId: id, OrganizationId: f.organization, Activity: shown, Reason: reason})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "rejected")
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&reason, "reason", "", "why, for people: at most 64 characters")
	need(c, "organization")
	return c
}

// showActivity fetches an activity, prints it, and returns the bytes to stamp. It
// refuses an answer that is not about what was asked for.
func showActivity(cmd *cobra.Command, c *client.Client, organization, id string) ([]byte, error) {
	got, err := c.Activities().GetActivity(cmd.Context(), &sigilv1.GetActivityRequest{OrganizationId: organization, ActivityId: id})
	if err != nil {
		return nil, err
	}
	shown := got.GetActivity().GetActivity()
	a, err := signing.ParseActivity(shown)
	if err != nil {
		return nil, fmt.Errorf("reading the activity: %w", err)
	}
	if a.ID != id || a.Organization != organization {
		return nil, fmt.Errorf("reading the activity: asked for %s of %s, got %s of %s", id, organization, a.ID, a.Organization)
	}
	return shown, tellActivity(cmd.OutOrStdout(), a, got)
}

// tellActivity writes an activity for people, its payload as this program reads it.
func tellActivity(w io.Writer, a *signing.Activity, got *sigilv1.GetActivityResponse) error {
	read, err := readPayload(a, got.GetPayload())
	if err != nil {
		return fmt.Errorf("reading the payload of %s: %w", a.ID, err)
	}
	var out strings.Builder
	line := strings.Repeat("=", 72)
	fmt.Fprintf(&out, "%s\n\n  %s\n\n%s\n", line, strings.ReplaceAll(printable([]byte(a.Summary)), "\n", "\n  "), line)
	if read != a.Summary {
		fmt.Fprintf(&out, "without the organization's ABIs, IDLs and tables it reads:\n  %s\n\n", strings.ReplaceAll(printable([]byte(read)), "\n", "\n  "))
	}
	for _, row := range [][2]string{
		{"activity", a.ID}, {"status", statusWord(got.GetActivity().GetStatus())}, {"asked at", a.CreatedAt.Format(time.RFC3339)}, {"until", a.ExpiresAt.Format(time.RFC3339)},
		{"asked by", a.Requester}, {"request id", a.RequestID}, {"wallet", a.Wallet}, {"address", a.Address}, {"chain", a.Chain}, {"payload", string(a.Kind)},
		{"payload digest", fmt.Sprintf("%x", a.PayloadDigest)}, {"policy set", fmt.Sprintf("%x", a.PolicySet)}, {"appliance", a.ApplianceID},
		{"waits for", strings.Join(got.GetActivity().GetWaitingPolicies(), ", ")},
	} {
		fmt.Fprintf(&out, "%-15s %s\n", row[0], printable([]byte(row[1])))
	}
	for _, v := range got.GetActivity().GetApprovals() {
		fmt.Fprintf(&out, "%-15s %s at %s, credential %s\n", "approved by", v.GetUserId(), v.GetAt().AsTime().Format(time.RFC3339), v.GetCredentialId())
	}
	if r := got.GetActivity().GetRejection(); r != nil {
		fmt.Fprintf(&out, "%-15s %s at %s, credential %s: %s\n", "rejected by", r.GetUserId(), r.GetAt().AsTime().Format(time.RFC3339), r.GetCredentialId(), printable([]byte(r.GetReason())))
	}
	_, err = io.WriteString(w, out.String())
	return err
}

// readPayload says what the payload does by the decoders that are built in, and refuses
// one that is not what the activity's digest names.
func readPayload(a *signing.Activity, payload []byte) (string, error) {
	d, err := signable.Decode(a.Kind, payload, signable.Signer{Chain: a.Chain, Address: a.Address}, signable.Interfaces{})
	if err != nil {
		return "", err
	}
	if digestOfPayload(d) != a.PayloadDigest {
		return "", errors.New("it is not the payload that the activity's digest names")
	}
	return d.Summary, nil
}

func digestOfPayload(d *chains.Decoded) [32]byte { return sha256.Sum256(d.Lasting()) }

// agree asks for a yes on the terminal, unless it was given beforehand.
func agree(cmd *cobra.Command, yes bool, verb string) error {
	if yes {
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "\nType yes to %s exactly this: ", verb)
	answer, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if string(bytes.TrimSpace(answer)) != "yes" {
		return hinted{errors.New("nothing was stamped"), "the answer was not yes; --yes gives it beforehand"}
	}
	return nil
}

func statusWord(s sigilv1.ActivityStatus) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.String(), "ACTIVITY_STATUS_")), "_", " ")
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
