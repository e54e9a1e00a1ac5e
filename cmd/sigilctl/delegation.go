package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/policy"
)

// Verbs about delegations: propose, approve, make, look at, hold and end them.

func delegationCommand() *cobra.Command {
	return group("delegation", "Propose, approve, make, show, pause and revoke delegations",
		delegationDefaults(), delegationRequest(), delegationApprove(), delegationCreate(), delegationList(), delegationShow(), delegationWatch(),
		delegationPause(), delegationResume(), delegationRevoke(), delegationReceipt(), delegationAPIKey())
}

// termFlags are what a delegation is made by.
type termFlags struct {
	wallet, user, recipient, endpoint, rules, expires string
	organizationAllows                                bool
}

func (f *termFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.user, "user", "", "`ID` of the delegated user")
	c.Flags().StringVar(&f.recipient, "recipient", "", "age recipient (age1…) that the wallet API key is encrypted to")
	c.Flags().StringVar(&f.endpoint, "endpoint", "", "`ID` of the endpoint that gets share and API key, in place of --recipient")
	c.Flags().StringVar(&f.rules, "rules", "", `rules in a `+"`FILE`"+`: {"policies":[...],"limits":[...]}, as in sigilctl policy check`)
	c.Flags().BoolVar(&f.organizationAllows, "organization-allows", false, "let the organization's own ALLOW policies count")
}

// read reads the rules; both lists are nil without a file.
func (f *termFlags) read() (policies []*sigilv1.Policy, limits []*sigilv1.Limit, err error) {
	if f.rules == "" {
		return nil, nil, nil
	}
	text, err := os.ReadFile(f.rules)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the rules: %w", err)
	}
	ps, ls, err := policy.ParseRules(text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the rules in %s: %w", f.rules, err)
	}
	for _, p := range ps {
		if p.Scope.Delegation != "" || p.PartialLists || p.Lang == policy.LangTurnkey {
			return nil, nil, fmt.Errorf("reading the rules in %s: policy %q: a delegation's own policy has no scope and no partial lists, and is in lang %s", f.rules, p.ID, policy.LangSigild)
		}
		policies = append(policies, policyMessage(p))
	}
	for _, l := range ls {
		if l.Delegation != "" || l.Per != policy.PerAll && l.Per != policy.PerDestination {
			return nil, nil, fmt.Errorf("reading the rules in %s: limit %q: a delegation's own limit has no delegation, and no group but its destinations", f.rules, l.ID)
		}
		limits = append(limits, limitMessage(l))
	}
	return policies, limits, nil
}

func named(name, id string) string {
	if name == "" {
		return id
	}
	return name
}

// end reads --expires: a time of RFC 3339, or a duration from now; nil for "".
func (f *termFlags) end() (*timestamppb.Timestamp, error) {
	if f.expires == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(f.expires); err == nil {
		return timestamppb.New(time.Now().Add(d)), nil
	}
	t, err := time.Parse(time.RFC3339, f.expires)
	if err != nil {
		return nil, hinted{fmt.Errorf("--expires %q is neither a time nor a duration", f.expires), "as 2026-12-24T18:00:00Z, or 720h"}
	}
	return timestamppb.New(t), nil
}

func delegationDefaults() *cobra.Command {
	var f stampFlags
	var terms termFlags
	var off, automatic bool
	var lifetime, wait time.Duration
	c := &cobra.Command{
		Use:   "defaults --organization ID --key FILE…",
		Short: "Enable delegated access in an organization and set its defaults, or turn it off; the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			access := &sigilv1.DelegatedAccess{
				Enabled: !off, Automatic: automatic, DelegatedUserId: optional(terms.user), ApiKeyRecipient: optional(terms.recipient),
				LifetimeSeconds: seconds(lifetime), ApprovalSeconds: seconds(wait), OrganizationAllows: terms.organizationAllows,
			}
			var err error
			if access.Policies, access.Limits, err = terms.read(); err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.DelegatedAccess().SetDelegatedAccess(cmd.Context(), &sigilv1.SetDelegatedAccessRequest{RequestId: id, OrganizationId: f.organization, Access: access})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), map[bool]string{true: "delegated access is enabled", false: "delegated access is off"}[access.Enabled])
				}
				return err
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().BoolVar(&off, "off", false, "no new delegations; what is active stays")
	c.Flags().BoolVar(&automatic, "automatic", false, "propose one to the owner of each wallet that becomes active")
	c.Flags().DurationVar(&lifetime, "lifetime", 0, "how long a delegation lasts from its approval; 0: until revoked")
	c.Flags().DurationVar(&wait, "approve-within", 0, "how long a proposal waits; 0: 7 days")
	need(c, "organization")
	return c
}

// seconds is absent for 0.
func seconds(d time.Duration) *uint32 {
	if d == 0 {
		return nil
	}
	s := uint32(d / time.Second)
	return &s
}

func delegationRequest() *cobra.Command {
	var f stampFlags
	var terms termFlags
	c := &cobra.Command{
		Use:   "request --organization ID --wallet ID --key FILE",
		Short: "Propose a delegation to a wallet's owner; a root member's stamp. What is not given is the organization's default",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.RequestDelegationRequest{
				WalletId: terms.wallet, DelegatedUserId: optional(terms.user), ApiKeyRecipient: optional(terms.recipient), EndpointId: optional(terms.endpoint), OrganizationAllows: terms.organizationAllows,
			}
			var err error
			if r.Policies, r.Limits, err = terms.read(); err != nil {
				return err
			}
			if r.ExpiresAt, err = terms.end(); err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.DelegatedAccess().RequestDelegation(cmd.Context(), r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "delegation  %s\npending     until %s, for its owner's approval\n", out.GetDelegationId(), when(out.GetApproveBy()))
				}
				return err
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().StringVar(&terms.wallet, "wallet", "", "`ID` of the wallet")
	c.Flags().StringVar(&terms.expires, "expires", "", "when it ends: a time, or a duration from now")
	need(c, "organization", "wallet")
	return c
}

func delegationApprove() *cobra.Command {
	var f stampFlags
	var yes bool
	c := &cobra.Command{
		Use:   "approve ID --organization ID --key FILE --yes",
		Short: "Approve a proposed delegation of your wallet: your stamp over its terms",
		Long: `Shows the terms of a delegation that was proposed to you and, with --yes, stamps
them. The stamp is over the bytes that are shown: nobody can make other terms of it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				d, err := c.DelegatedAccess().DescribeDelegation(cmd.Context(), &sigilv1.DescribeDelegationRequest{OrganizationId: f.organization, DelegationId: args[0]})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", d.GetTerms())
				if !yes {
					return hinted{fmt.Errorf("nothing was approved"), "repeat with --yes when you agree to these terms"}
				}
				sum := sha256.Sum256(d.GetTerms())
				out, err := c.DelegatedAccess().ApproveDelegation(cmd.Context(), &sigilv1.ApproveDelegationRequest{
					RequestId: id, OrganizationId: f.organization, DelegationId: args[0], TermsSha256: sum[:],
				})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "approved\nceremony  %s\n", out.GetCeremonyId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().BoolVar(&yes, "yes", false, "say that you agree")
	need(c, "organization")
	return c
}

func delegationCreate() *cobra.Command {
	var f stampFlags
	var terms termFlags
	var templates, peer, invitation string
	var wait bool
	c := &cobra.Command{
		Use:   "create --organization ID --wallet ID --user ID (--recipient AGE | --endpoint ID) --rules FILE --key FILE",
		Short: "Make a delegation of your own wallet; your stamp is the approval",
		Long: `Makes a delegation of your own wallet. --templates names a file of what the delegated
user may make orders of (docs/policy.md): [{"name","condition","parameters":[{"name",
"min","max"} or {"name","one_of"}],"max_open","longest_seconds","max_transactions",
"totals":[{"asset","max"}]}].

With --cosigner the delegate's share is made on another appliance, which took the wallet
on (sigilctl cosign accept) and printed the --invitation. Each signature then runs
through both, and each judges it by its own policies and limits.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.CreateDelegationRequest{WalletId: terms.wallet, DelegatedUserId: terms.user, ApiKeyRecipient: terms.recipient, EndpointId: optional(terms.endpoint), OrganizationAllows: terms.organizationAllows}
			var err error
			if r.Policies, r.Limits, err = terms.read(); err != nil {
				return err
			}
			if r.ExpiresAt, err = terms.end(); err != nil {
				return err
			}
			if r.Templates, err = readTemplates(templates); err != nil {
				return err
			}
			r.CosignerPeer, r.CosignerInvitation = peer, invitation
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Delegations().CreateDelegation(cmd.Context(), r)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "delegation  %s\n", out.GetDelegationId())
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().StringVar(&terms.wallet, "wallet", "", "`ID` of the wallet")
	c.Flags().StringVar(&terms.expires, "expires", "", "when it ends: a time, or a duration from now")
	c.Flags().StringVar(&templates, "templates", "", "templates of orders in a `FILE`")
	c.Flags().StringVar(&peer, "cosigner", "", "`NAME`, in the configuration, of the appliance that gets the delegate's share")
	c.Flags().StringVar(&invitation, "invitation", "", "the `ID` that sigilctl cosign accept printed there")
	c.MarkFlagsRequiredTogether("cosigner", "invitation")
	waitFlag(c, &wait)
	need(c, "organization", "wallet", "user")
	return c
}

func delegationList() *cobra.Command {
	var f stampFlags
	var wallet, status string
	var pending bool
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "List the delegations you may see; --pending: those that wait for their owner",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.ListDelegationsRequest{OrganizationId: f.organization, WalletId: optional(wallet), AwaitingApproval: pending}
			if status != "" {
				n, ok := sigilv1.DelegationStatus_value[statusPrefix+strings.ToUpper(status)]
				if !ok || n == 0 {
					return fmt.Errorf("%q is no status: pending, active, paused, revoked, expired, failed", status)
				}
				r.Status = sigilv1.DelegationStatus(n).Enum()
			}
			return f.call(cmd, func(c *client.Client, _ string) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "delegation\tstatus\twallet\tdelegated user\tends")
				for {
					out, err := c.DelegatedAccess().ListDelegations(cmd.Context(), r)
					if err != nil {
						return err
					}
					for _, d := range out.GetDelegations() {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.GetDelegationId(), statusWords(d.GetStatus(), d.GetAwaitingApproval()), d.GetWalletName(), d.GetDelegatedUserName(), when(d.GetExpiresAt()))
						r.After = &d.DelegationId
					}
					if len(out.GetDelegations()) < fullList {
						return w.Flush()
					}
				}
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "those of the wallet `ID` only")
	c.Flags().StringVar(&status, "status", "", "those that are pending, active, paused, revoked, expired or failed only")
	c.Flags().BoolVar(&pending, "pending", false, "those that wait for their owner's approval only")
	need(c, "organization")
	return c
}

// fullList is how many one answer of ListDelegations has when there may be more.
const fullList = 256

const statusPrefix = "DELEGATION_STATUS_"

func statusWords(s sigilv1.DelegationStatus, awaiting bool) string {
	word := strings.ToLower(strings.TrimPrefix(s.String(), statusPrefix))
	if awaiting {
		word += " (its owner has to approve)"
	}
	return word
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "until revoked"
	}
	return t.AsTime().Format("2006-01-02T15:04:05Z")
}

func delegationShow() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show ID --organization ID --key FILE",
		Short: "Say what a delegation may do, what it did, and what is left of its limits",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				d, err := c.DelegatedAccess().DescribeDelegation(cmd.Context(), &sigilv1.DescribeDelegationRequest{OrganizationId: f.organization, DelegationId: args[0]})
				if err != nil {
					return err
				}
				return printDescription(cmd.OutOrStdout(), d)
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func delegationWatch() *cobra.Command {
	var f stampFlags
	var after uint64
	var once bool
	c := &cobra.Command{
		Use:   "watch --organization ID --key FILE",
		Short: "Print what happens to delegations, and which credentials nobody uses, as it happens; --after goes on where it stopped",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				r := &sigilv1.NextEventsRequest{OrganizationId: f.organization, After: after, WaitSeconds: 20}
				if once {
					r.WaitSeconds = 0
				}
				for {
					out, err := c.DelegatedAccess().NextEvents(cmd.Context(), r)
					if err != nil {
						return err
					}
					if out.GetLost() {
						fmt.Fprintln(cmd.ErrOrStderr(), "events in between are in the journal's archive alone")
					}
					for _, e := range out.GetEvents() {
						fmt.Fprintf(cmd.OutOrStdout(), "%d  %s  %s  %s %s%s\n", e.GetSequence(), when(e.GetAt()), e.GetDelegationId()+e.GetCredentialId(), e.GetName(), e.GetRequestId(), e.GetReason())
					}
					if r.After = out.GetNext(); once && len(out.GetEvents()) == 0 {
						return nil
					}
				}
			})
		},
	}
	f.register(c, true)
	c.Flags().Uint64Var(&after, "after", 0, "go on behind this number, the first word of a line")
	c.Flags().BoolVar(&once, "once", false, "end instead of waiting")
	need(c, "organization")
	return c
}

// printDescription writes for people; nothing in it is secret.
func printDescription(out io.Writer, d *sigilv1.DescribeDelegationResponse) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, what+"\t"+format+"\n", args...)
	}
	line("delegation", "%s", d.GetDelegation().GetDelegationId())
	line("status", "%s", statusWords(d.GetDelegation().GetStatus(), d.ApproveBy != nil))
	if d.ApproveBy != nil {
		line("approve by", "%s", when(d.GetApproveBy()))
	}
	if p := d.GetPause(); p != nil {
		line("paused", "the %s, by its %s since %s: %s", d.GetPausedScope(), p.GetLevel(), when(p.GetSince()), p.GetReason())
	}
	line("wallet", "%s, %s %s", d.GetWalletName(), d.GetChain(), d.GetAddress())
	line("for", "%s, %s", d.GetDelegatedUserName(), d.GetDelegation().GetDelegatedUserId())
	line("ends", "%s", when(d.GetDelegation().GetExpiresAt()))
	if d.ApiKeyMadeAt != nil {
		line("API key", "made %s, ends with the delegation", when(d.GetApiKeyMadeAt()))
	}
	for _, may := range d.GetMay() {
		line("it", "%s", may)
	}
	for _, l := range d.GetLimits() {
		name := l.GetLimit().GetName()
		switch {
		case l.GetUnbounded():
			line("left of", "%s: nothing, something without a bound was signed", name)
		case l.Left != nil:
			line("left of", "%s: %s (used %s of %s)", name, l.GetLeft(), l.GetUsed(), l.GetLimit().GetMaxAmount())
		}
		if l.LeftCount != nil {
			line("left of", "%s: %d requests (used %d of %d)", name, l.GetLeftCount(), l.GetUsedCount(), l.GetLimit().GetMaxCount())
		}
	}
	line("did", "%d signed, %d not, since journal entry %d", d.GetSigned(), d.GetNotSigned(), d.GetLookedFrom())
	for _, o := range d.GetNewest() {
		line("", "%s  %s %s %s%s", when(o.GetAt()), o.GetRequestId(), o.GetOutcome(), o.GetReason(), o.GetSummary())
	}
	return w.Flush()
}

func delegationPause() *cobra.Command {
	var f stampFlags
	var reason string
	c := &cobra.Command{
		Use:   "pause ID --organization ID --reason TEXT --key FILE",
		Short: "Hold one delegation; returns when nothing of it is under way",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Control().Pause(cmd.Context(), &sigilv1.PauseRequest{RequestId: id, OrganizationId: &f.organization, DelegationId: &args[0], Reason: reason})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "paused by its %s since %s: %s\n", out.GetPause().GetLevel(), when(out.GetPause().GetSince()), out.GetPause().GetReason())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&reason, "reason", "", "why, for people")
	need(c, "organization", "reason")
	return c
}

func delegationResume() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "resume ID --organization ID --key FILE",
		Short: "Let a paused delegation go on; the level that paused it, or the one above",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Control().Resume(cmd.Context(), &sigilv1.ResumeRequest{RequestId: id, OrganizationId: &f.organization, DelegationId: &args[0]})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "resumed")
				}
				return err
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func delegationRevoke() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "revoke ID --organization ID --key FILE…",
		Short: "End a delegation for good, or decline a proposed one; its owner or the root quorum",
		Long: `Destroys the shares of the delegation and the verifier of its API key, waits for
what is under way, and returns. It can't be undone. A proposal that is revoked was declined.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Delegations().RevokeDelegation(cmd.Context(), &sigilv1.RevokeDelegationRequest{RequestId: id, OrganizationId: f.organization, DelegationId: args[0]})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "revoked  %s\n", args[0])
				}
				return err
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}
