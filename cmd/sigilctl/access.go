package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/policy"
)

// Verbs that let a delegated user sign with a credential of its own (docs/access.md), by
// either way: the end user's, step by step, and the back end's, at once.

func accessCommand() *cobra.Command {
	return group("access", "Let a delegated user sign with its own credential: user, policies, or all at once",
		accessUserCommand(), accessPoliciesCommand(), accessCreateCommand(), accessFilledCommand())
}

// endUserFlags say who an end user is.
type endUserFlags struct {
	name, recipient, signature string
	credentials                []string
}

func (f *endUserFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "user", "", "the end user's name, for people")
	c.Flags().StringArrayVar(&f.credentials, "credential", nil, "public `FILE` of a credential of the end user (--purpose user); repeat for each")
	c.Flags().StringVar(&f.recipient, "recipient", "", "the age `RECIPIENT` of the end user's shares")
	c.Flags().StringVar(&f.signature, "recipient-signature", "", "the first credential's signature over it, in `HEX`")
	need(c, "user", "credential", "recipient", "recipient-signature")
}

func (f *endUserFlags) read() (*sigilv1.NewEndUser, error) {
	signature, err := hex.DecodeString(f.signature)
	if err != nil {
		return nil, errors.New("--recipient-signature is not in hex")
	}
	m := &sigilv1.NewEndUser{Name: f.name, ShareRecipient: f.recipient, ShareRecipientSignature: signature}
	m.Credentials, err = newCredentials(credential.ForUser, f.credentials)
	return m, err
}

// termsOfCredential are when a credential ends, and when its silence is told of.
type termsOfCredential struct {
	expires string
	unused  time.Duration
}

func (f *termsOfCredential) register(c *cobra.Command) {
	c.Flags().StringVar(&f.expires, "expires", "", "when the credential ends: a time, or a duration from now")
	c.Flags().DurationVar(&f.unused, "unused-alarm", 0, "tell when it was not used for so long, at most 8784h")
}

// apply writes them into a credential to be registered.
func (f *termsOfCredential) apply(c *sigilv1.NewCredential) (err error) {
	if f.unused < 0 || f.unused%time.Second != 0 {
		return errors.New("--unused-alarm is not in whole seconds")
	}
	c.UnusedAlarmSeconds = seconds(f.unused)
	terms := termFlags{expires: f.expires}
	c.ExpiresAt, err = terms.end()
	return err
}

func accessUserCommand() *cobra.Command {
	var f stampFlags
	var terms termsOfCredential
	var name, file string
	var tags []string
	c := &cobra.Command{
		Use:   "user --organization ID --name NAME --credential FILE.json --key FILE…",
		Short: "Find the delegated user who has the credential, or make it; the root quorum, in a sub-organization its end user",
		Long: `Finds the delegated user by the public key in FILE, which sigilctl credential create
--purpose delegated-user wrote, or makes it. Name, tags and terms of one that is found
stay. It may sign nothing before a policy says so: sigilctl access policies.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := newCredentials(credential.ForDelegatedUser, []string{file})
			if err != nil {
				return err
			}
			if err := terms.apply(list[0]); err != nil {
				return err
			}
			r := &sigilv1.FetchOrCreateDelegatedUserRequest{OrganizationId: f.organization, User: &sigilv1.NewDelegatedUser{Name: name, Credential: list[0], Tags: tags}}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.DelegatedUsers().FetchOrCreateDelegatedUser(cmd.Context(), r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "user  %s  %s\n", out.GetUserId(), found(out.GetCreated()))
				}
				return err
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().StringVar(&name, "name", "", "a name for people")
	c.Flags().StringVar(&file, "credential", "", "public `FILE` of its credential")
	c.Flags().StringArrayVar(&tags, "tag", nil, "a `TAG` that policies call several users by; repeat for each")
	need(c, "organization", "name", "credential")
	return c
}

func found(made bool) string {
	if made {
		return "made"
	}
	return "found"
}

func accessPoliciesCommand() *cobra.Command {
	var f stampFlags
	var wallet, notes string
	c := &cobra.Command{
		Use:   "policies FILE --organization ID [--wallet ID] --key FILE…",
		Short: "Find policies by all they say, or make them; the root quorum, in a sub-organization its end user",
		Long: `Finds each policy of FILE, {"policies":[...]} as sigilctl policy check takes it, by all that
it says, or makes it. The id it gets comes of that; the "id" in FILE is its name unless it
has one. With --wallet they judge requests of that wallet alone, and end when its key is
handed over. A policy that allows needs a consensus, or it counts for nobody who stamps.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, limits, err := readIntents(args[0], wallet, notes)
			if err != nil {
				return err
			}
			if len(limits) > 0 {
				return hinted{fmt.Errorf("reading %s: limits are no policies", args[0]), "sigilctl limit create, or sigilctl policy set for a document of them"}
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.DelegatedUsers().FetchOrCreatePolicies(cmd.Context(), &sigilv1.FetchOrCreatePoliciesRequest{RequestId: id, OrganizationId: f.organization, Policies: list})
				if err != nil {
					return err
				}
				for i, p := range out.GetPolicies() {
					fmt.Fprintf(cmd.OutOrStdout(), "policy  %s  %s  %s\n", p.GetPolicyId(), found(p.GetCreated()), list[i].GetPolicy().GetName())
				}
				fmt.Fprintf(cmd.OutOrStdout(), "version %d\n", out.GetPolicyVersion())
				return nil
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of the wallet they are about; without it all")
	c.Flags().StringVar(&notes, "notes", "", "for people; other notes make other policies")
	need(c, "organization")
	return c
}

// readIntents reads policies and limits of a file as sigilctl policy check takes it.
func readIntents(path, wallet, notes string) (intents []*sigilv1.PolicyIntent, limits []*sigilv1.Limit, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading policies: %w", err)
	}
	ps, ls, err := policy.ParseRules(text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the policies in %s: %w", path, err)
	}
	for _, p := range ps {
		if p.Scope.Delegation != "" || p.PartialLists {
			return nil, nil, fmt.Errorf("reading the policies in %s: policy %q: it has no scope and no partial lists here", path, p.ID)
		}
		intents = append(intents, &sigilv1.PolicyIntent{Policy: policyMessage(p), Notes: notes, WalletId: optional(wallet), Lang: optional(p.Lang)})
	}
	for _, l := range ls {
		if l.Delegation != "" || l.Per != policy.PerAll && l.Per != policy.PerDestination {
			return nil, nil, fmt.Errorf("reading the limits in %s: limit %q: it has no delegation here, and no group but its destinations", path, l.ID)
		}
		limits = append(limits, limitMessage(l))
	}
	return intents, limits, nil
}

func accessCreateCommand() *cobra.Command {
	var f stampFlags
	var owner endUserFlags
	var terms termsOfCredential
	var r sigilv1.CreateDelegatedAccessRequest
	var delegate sigilv1.NewDelegatedUser
	var file string
	var wallets, policies []string
	c := &cobra.Command{
		Use: `create --organization PARENT --name NAME --user NAME --credential FILE.json… --recipient age1… --recipient-signature HEX
    --delegated-user NAME --delegated-credential FILE.json --policies [N=]FILE… --wallet CHAIN=NAME… --key FILE…`,
		Short: "Make a sub-organization with its end user, a delegated user, policies, limits and wallets at once; the parent's root quorum",
		Long: `Makes all of it in one transaction, or nothing: the end user is the root from the first
moment, and the delegated user never is. A FILE of policies is {"policies":[...],
"limits":[...]} as sigilctl policy check takes it; "${delegated_user_id}" in a consensus
stands for the delegated user. N=FILE holds policies of the N-th --wallet alone. The
wallets are pending until the end user has fetched the shares (sigilctl wallet share).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if r.EndUser, err = owner.read(); err != nil {
				return err
			}
			list, err := newCredentials(credential.ForDelegatedUser, []string{file})
			if err != nil {
				return err
			}
			if err := terms.apply(list[0]); err != nil {
				return err
			}
			delegate.Credential, r.DelegatedUser = list[0], &delegate
			for _, w := range wallets {
				chain, name, ok := strings.Cut(w, "=")
				if !ok {
					return fmt.Errorf("--wallet %q is not CHAIN=NAME", w)
				}
				r.Wallets = append(r.Wallets, &sigilv1.NewAccessWallet{Chain: chain, Name: name})
			}
			for _, arg := range policies {
				path, wallet := arg, ""
				if n, rest, ok := strings.Cut(arg, "="); ok {
					if _, err := strconv.ParseUint(n, 10, 8); err == nil {
						path, wallet = rest, "${wallet_"+n+"}"
					}
				}
				intents, limits, err := readIntents(path, wallet, "")
				if err != nil {
					return err
				}
				r.Policies, r.Limits = append(r.Policies, intents...), append(r.Limits, limits...)
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.DelegatedUsers().CreateDelegatedAccess(cmd.Context(), &r)
				if err == nil {
					tellAccess(cmd.OutOrStdout(), out)
				}
				return err
			})
		},
	}
	f.register(c, true)
	owner.register(c)
	terms.register(c)
	c.Flags().StringVar(&r.Name, "name", "", "the sub-organization's name, for people")
	c.Flags().StringVar(&delegate.Name, "delegated-user", "", "the delegated user's name, for people")
	c.Flags().StringVar(&file, "delegated-credential", "", "public `FILE` of its credential (--purpose delegated-user)")
	c.Flags().StringArrayVar(&delegate.Tags, "tag", nil, "a `TAG` of the delegated user; repeat for each")
	c.Flags().StringArrayVar(&policies, "policies", nil, "`[N=]FILE` of policies, and of limits; repeat for each")
	c.Flags().StringArrayVar(&wallets, "wallet", nil, "`CHAIN=NAME` of a wallet of the end user; repeat for each")
	need(c, "organization", "name", "delegated-user", "delegated-credential", "policies")
	return c
}

func tellAccess(w io.Writer, out *sigilv1.CreateDelegatedAccessResponse) {
	row := func(name, text string) { fmt.Fprintf(w, "%-16s%s\n", name, text) }
	row("organization", out.GetOrganizationId())
	row("end user", out.GetEndUserId())
	row("delegated user", out.GetDelegatedUserId())
	for _, id := range out.GetPolicyIds() {
		row("policy", id)
	}
	for _, id := range out.GetLimitIds() {
		row("limit", id)
	}
	for _, made := range out.GetWallets() {
		row("wallet", made.GetWalletId())
		row("key", made.GetKeyId())
		row("ceremony", made.GetCeremonyId())
	}
}

func accessFilledCommand() *cobra.Command {
	var f stampFlags
	var by string
	c := &cobra.Command{
		Use:   "filled POLICY… --organization ID --by TEXT --key FILE…",
		Short: "Report an order filled: the policies that allowed it are removed; the delegated user they allow it to, or the root quorum",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.DelegatedUsers().ReportOrderFilled(cmd.Context(), &sigilv1.ReportOrderFilledRequest{RequestId: id, OrganizationId: f.organization, PolicyIds: args, FilledBy: by})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "removed %d, version %d\n", len(args), out.GetPolicyVersion())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&by, "by", "", "what filled it, for the journal: a request id, a transaction")
	need(c, "organization", "by")
	return c
}

func organizationSubCommand() *cobra.Command {
	var f stampFlags
	var owner endUserFlags
	var name string
	c := &cobra.Command{
		Use:   "create-sub --organization PARENT --name NAME --user NAME --credential FILE.json… --recipient age1… --recipient-signature HEX --key FILE…",
		Short: "Make a sub-organization for an end user, who is the whole root of it; the parent's root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			user, err := owner.read()
			if err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.DelegatedUsers().CreateSubOrganization(cmd.Context(), &sigilv1.CreateSubOrganizationRequest{RequestId: id, OrganizationId: f.organization, Name: name, EndUser: user})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "organization  %s\nuser          %s\n", out.GetOrganizationId(), out.GetUserId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	owner.register(c)
	c.Flags().StringVar(&name, "name", "", "a name for people")
	need(c, "organization", "name")
	return c
}

// policyMessage is a policy as the API takes it, under a name.
func policyMessage(p policy.Policy) *sigilv1.Policy {
	m := &sigilv1.Policy{
		Name: named(p.Name, p.ID), Effect: sigilv1.PolicyEffect_POLICY_EFFECT_DENY, Condition: optional(p.Condition), Consensus: optional(p.Consensus), Time: optional(p.Time),
		OneTime: p.OneTime, Replace: p.Replace, RequesterAbstains: p.RequesterAbstains,
	}
	if p.Effect == policy.Allow {
		m.Effect = sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW
	}
	if !p.NotAfter.IsZero() {
		m.NotAfter = timestamppb.New(p.NotAfter)
	}
	return m
}

// limitMessage is a limit as the API takes it, under a name.
func limitMessage(l policy.Limit) *sigilv1.Limit {
	m := &sigilv1.Limit{
		Name: named(l.Name, l.ID), Asset: l.Asset, IncludeFees: l.IncludeFees, PerDestination: l.Per == policy.PerDestination, Control: l.Control, WindowSeconds: seconds(l.Window),
	}
	if !l.AnyAmount {
		m.MaxAmount = l.Max.Dec()
	}
	if l.MaxCount > 0 {
		m.MaxCount = &l.MaxCount
	}
	return m
}
