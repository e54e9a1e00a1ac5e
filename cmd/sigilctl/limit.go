package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/holiman/uint256"
	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/cmd/sigilctl/judge"
	"github.com/sigild/sigild/policy"
)

// Verbs about limits. They are looked at over the socket; making and removing one is
// a change of the document of rules that it stands in, by the organization's policy
// authority: the stamps are those of sigilctl policy set.

func limitCommand() *cobra.Command {
	return group("limit", "List, show, make and remove an organization's limits", limitListCommand(), limitShowCommand(), limitCreateCommand(), limitDeleteCommand())
}

func limitListCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "List limits and what is left of each; any member's stamp",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				all, err := c.Limits().ListLimits(cmd.Context(), &sigilv1.ListLimitsRequest{OrganizationId: f.organization})
				if err != nil {
					return err
				}
				for _, l := range all.GetLimits() {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", l.GetLimitId(), boundsOf(l))
					for _, g := range l.GetGroups() {
						fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", groupLine(l, g))
					}
				}
				return nil
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func limitShowCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show ID --organization ID --key FILE",
		Short: "Show one limit, what counts against it and when the next part is free again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				all, err := c.Limits().ListLimits(cmd.Context(), &sigilv1.ListLimitsRequest{OrganizationId: f.organization, LimitId: &args[0]})
				if err != nil {
					return err
				}
				for _, l := range all.GetLimits() {
					showLimit(cmd.OutOrStdout(), l)
				}
				return nil
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func showLimit(w io.Writer, l *sigilv1.LimitState) {
	row := func(name, text string) { fmt.Fprintf(w, "%-12s%s\n", name, text) }
	row("limit", l.GetLimitId())
	if name := l.GetLimit().GetName(); name != "" {
		row("name", name)
	}
	row("bounds", boundsOf(l))
	if l.DelegationId != nil {
		row("delegation", l.GetDelegationId())
	}
	for _, g := range l.GetGroups() {
		row("now", groupLine(l, g))
	}
	if l.GetMore() {
		row("now", "and more")
	}
}

// boundsOf says a limit in a line.
func boundsOf(s *sigilv1.LimitState) string {
	l := s.GetLimit()
	var parts []string
	if l.GetMaxAmount() != "" {
		parts = append(parts, amountOf(s, l.GetMaxAmount())+" of "+l.GetAsset())
	}
	if l.MaxCount != nil {
		what := "signatures"
		if l.GetAsset() != "" {
			what = "requests for " + l.GetAsset()
		}
		parts = append(parts, fmt.Sprintf("%d %s", l.GetMaxCount(), what))
	}
	said := strings.Join(parts, " and ")
	if s.Per != nil {
		said += " per " + s.GetPer()
	}
	if l.WindowSeconds != nil {
		said += " in " + (time.Duration(l.GetWindowSeconds()) * time.Second).String()
	} else {
		said += " ever"
	}
	if l.GetIncludeFees() {
		said += ", with fees"
	}
	if l.GetControl() {
		said += ", a control"
	}
	return said
}

// groupLine says one sum in a line.
func groupLine(s *sigilv1.LimitState, g *sigilv1.LimitGroup) string {
	var parts []string
	switch {
	case g.GetUnbounded():
		parts = append(parts, "used without a known bound, nothing left")
	case g.Used != nil:
		parts = append(parts, fmt.Sprintf("used %s, left %s", amountOf(s, g.GetUsed()), amountOf(s, g.GetLeft())))
	}
	if g.CountLeft != nil {
		parts = append(parts, fmt.Sprintf("%d requests, left %d", g.GetCount(), g.GetCountLeft()))
	}
	if g.GetInFlight() > 0 {
		parts = append(parts, fmt.Sprintf("%d in flight", g.GetInFlight()))
	}
	if g.FreesAt != nil {
		parts = append(parts, "next part free at "+g.GetFreesAt().AsTime().Format(time.RFC3339))
	}
	line := strings.Join(parts, "; ")
	if g.GetOf() != "" {
		line = g.GetOf() + ": " + line
	}
	return line
}

// amountOf writes an amount in the unit for people, where the limit says how.
func amountOf(s *sigilv1.LimitState, text string) string {
	n, err := uint256.FromDecimal(text)
	if err != nil || s.GetDecimals() == 0 {
		return text
	}
	return chains.FormatUnits(n, int(s.GetDecimals()))
}

func limitCreateCommand() *cobra.Command {
	var f stampFlags
	var l policy.Limit
	var document, most, per string
	c := &cobra.Command{
		Use:   "create ID --organization ID --max AMOUNT --key FILE...",
		Short: "Make a limit of an organization; the root quorum",
		Long: `Adds a limit to the organization's document rules/NAME and sets that, so the stamps are
those of sigilctl policy set, and an organization whose policies come from bundles
takes none. It judges every request from the answer on, and counts what was spent
before it was made. docs/policy.md has the fields.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l.ID, l.Per, l.AnyAmount = args[0], policy.Per(per), most == ""
			if most != "" {
				var err error
				if l.Max, err = policy.ParseUnits(most, int(l.Decimals)); err != nil {
					return fmt.Errorf("reading --max: %w", err)
				}
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				d, err := readRules(cmd.Context(), c, f.organization)
				if err != nil {
					return err
				}
				rules := d.rules[document]
				if cmd.Flags().Changed("request-id") && d.newest(document, l) {
					d.version = d.versions[document] - 1 // the same bytes again: the answer of then
					return d.set(cmd, c, id, document, rules)
				}
				if d.of(l.ID) != "" {
					return hinted{fmt.Errorf("there is a limit %q in rules/%s already", l.ID, d.of(l.ID)), "sigilctl limit delete removes it; what it counted is not forgotten"}
				}
				rules.Limits = append(rules.Limits, l)
				return d.set(cmd, c, id, document, rules)
			})
		},
	}
	f.register(c, true)
	flags := c.Flags()
	flags.StringVar(&l.Name, "name", "", "what people and policies call it")
	flags.StringVar(&l.Asset, "asset", "", "CAIP-19 `ASSET`: eip155:1/slip44:60, eip155:1/erc20:0x...")
	flags.StringVar(&most, "max", "", "the most that may be spent, in the smallest unit, or with --decimals in the unit for people")
	flags.Uint8Var(&l.Decimals, "decimals", 0, "decimals of the unit for people")
	flags.Uint64Var(&l.MaxCount, "max-count", 0, "how many requests may be approved")
	flags.DurationVar(&l.Window, "window", 0, "length of the rolling window, such as 24h; without it everything ever spent counts")
	flags.StringVar(&l.Delegation, "delegation", "", "only requests of the delegation `ID`")
	flags.StringVar(&per, "per", "", "a sum for each `user|delegation|wallet|destination`")
	flags.BoolVar(&l.IncludeFees, "include-fees", false, "network fees count, too")
	flags.BoolVar(&l.Control, "control", false, "refuse nothing; conditions read it")
	flags.StringVar(&document, "document", "limits", "the document of rules that it goes to, rules/`NAME`")
	need(c, "organization")
	return c
}

func limitDeleteCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "delete ID --organization ID --key FILE...",
		Short: "Remove a limit of an organization; the root quorum",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				d, err := readRules(cmd.Context(), c, f.organization)
				if err != nil {
					return err
				}
				document := d.of(args[0])
				if document == "" {
					return hinted{fmt.Errorf("no document of the organization has a limit %q", args[0]), "limits of a delegation end with it"}
				}
				rules := d.rules[document]
				rules.Limits = slices.DeleteFunc(rules.Limits, func(l policy.Limit) bool { return l.ID == args[0] })
				return d.set(cmd, c, id, document, rules)
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

// ruleDocuments are an organization's documents of rules, by name, at a version.
type ruleDocuments struct {
	organization string
	version      uint64
	rules        map[string]judge.File
	// versions are those that each came with.
	versions map[string]uint64
}

func readRules(ctx context.Context, c *client.Client, organization string) (*ruleDocuments, error) {
	all, err := c.Policies().GetDocuments(ctx, &sigilv1.GetDocumentsRequest{OrganizationId: organization})
	if err != nil {
		return nil, err
	}
	d := &ruleDocuments{organization, all.GetVersion(), map[string]judge.File{}, map[string]uint64{}}
	for _, listed := range all.GetDocuments() {
		if listed.GetKind() != sigilv1.DocumentKind_DOCUMENT_KIND_RULES {
			continue
		}
		one, err := c.Policies().GetDocuments(ctx, &sigilv1.GetDocumentsRequest{
			OrganizationId: organization, Document: &sigilv1.DocumentName{Kind: listed.GetKind(), Name: listed.GetName()},
		})
		if err != nil {
			return nil, err
		}
		if one.GetVersion() != d.version || len(one.GetDocuments()) != 1 {
			return nil, errors.New("the organization's documents were changed meanwhile; repeat it")
		}
		policies, limits, err := policy.ParseRules(one.GetDocuments()[0].GetContent())
		if err != nil {
			return nil, fmt.Errorf("reading rules/%s: %w", listed.GetName(), err)
		}
		d.rules[listed.GetName()] = judge.File{Policies: policies, Limits: limits}
		d.versions[listed.GetName()] = listed.GetVersion()
	}
	return d, nil
}

// newest reports whether a document's last limit is l: nothing was added behind it, so that
// the request that made it can be made again.
func (d *ruleDocuments) newest(name string, l policy.Limit) bool {
	limits := d.rules[name].Limits
	return len(limits) > 0 && reflect.DeepEqual(limits[len(limits)-1], l)
}

// of is the name of the document that a limit stands in; "" for none.
func (d *ruleDocuments) of(id string) string {
	for name, rules := range d.rules {
		if slices.ContainsFunc(rules.Limits, func(l policy.Limit) bool { return l.ID == id }) {
			return name
		}
	}
	return ""
}

// set puts one document, or removes it when it says nothing any more.
func (d *ruleDocuments) set(cmd *cobra.Command, c *client.Client, requestID, name string, rules judge.File) error {
	in := &sigilv1.SetDocumentsRequest{RequestId: requestID, OrganizationId: d.organization, ExpectedVersion: d.version}
	if len(rules.Policies)+len(rules.Limits) == 0 {
		in.Remove = append(in.Remove, &sigilv1.DocumentName{Kind: sigilv1.DocumentKind_DOCUMENT_KIND_RULES, Name: name})
	} else {
		var text bytes.Buffer
		if err := rules.Write(&text); err != nil {
			return err
		}
		in.Set = append(in.Set, &sigilv1.Document{Kind: sigilv1.DocumentKind_DOCUMENT_KIND_RULES, Name: name, Content: text.Bytes()})
	}
	made, err := c.Policies().SetDocuments(cmd.Context(), in)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "version %d, documents hash %x\n", made.GetVersion(), made.GetDocumentsHash())
	return nil
}
