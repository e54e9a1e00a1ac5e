package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/delegation"
)

// Verbs about orders. The delegated user's show the wallet API key; the owner's, end
// and list with --organization, carry stamps.

func orderCommand() *cobra.Command {
	return group("order", "Open, list, close and end orders: what a delegated user makes of an owner's template",
		orderOpenCommand(), orderListCommand(), orderCloseCommand(), orderEndCommand())
}

// keyFlags are what a verb takes that shows a wallet API key.
type keyFlags struct{ apiKey, identity, wallet, requestID, socket string }

func (f *keyFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.apiKey, "api-key", "", "`FILE` with the wallet API key")
	c.Flags().StringVar(&f.identity, "identity", "", "age identity `FILE` that opens the API key's file")
	c.Flags().StringVar(&f.wallet, "wallet", "", "`ID` of the wallet that the key opens")
	c.Flags().StringVar(&f.requestID, "request-id", "", "repeat an earlier call instead of making a new one")
	c.Flags().StringVar(&f.socket, "socket", "", "call this `socket` instead of the application socket of the configuration")
}

// call runs use with a client that shows the key.
func (f *keyFlags) call(cmd *cobra.Command, use func(c *client.Client, requestID string) error) error {
	if f.socket == "" {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return err
		}
		f.socket = cfg.Sockets.App.Path
	}
	secret, err := readAPIKey(f.apiKey, f.identity, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer clear(secret)
	conn, err := client.Dial(f.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if f.requestID == "" {
		f.requestID = newRequestID()
	}
	if err := use(conn.WithAPIKey(secret), f.requestID); err != nil {
		return unreachable(f.socket, err)
	}
	return nil
}

func orderOpenCommand() *cobra.Command {
	var f keyFlags
	var template string
	var values, totals []string
	var lasts time.Duration
	var transactions uint32
	c := &cobra.Command{
		Use:   "open --wallet ID --template NAME --set NAME=VALUE… --for DURATION --api-key FILE",
		Short: "Fill an owner's template: what it says is allowed until the order is filled or ends",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.OpenOrderRequest{WalletId: f.wallet, Template: template, NotAfter: timestamppb.New(time.Now().Add(lasts))}
			if transactions > 0 {
				r.Transactions = &transactions
			}
			for _, v := range values {
				name, value, ok := strings.Cut(v, "=")
				if !ok {
					return fmt.Errorf("%q is not NAME=VALUE", v)
				}
				r.Values = append(r.Values, &sigilv1.ParameterValue{Name: name, Value: value})
			}
			for _, v := range totals {
				asset, most, ok := strings.Cut(v, "=")
				if !ok {
					return fmt.Errorf("%q is not ASSET=AMOUNT", v)
				}
				r.Totals = append(r.Totals, &sigilv1.AssetTotal{Asset: asset, MaxAmount: most})
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Orders().OpenOrder(cmd.Context(), r)
				if err == nil {
					tellOrders(cmd.OutOrStdout(), out.GetOrder())
				}
				return err
			})
		},
	}
	f.register(c)
	c.Flags().StringVar(&template, "template", "", "the template's `NAME`")
	c.Flags().StringArrayVar(&values, "set", nil, "`NAME=VALUE` of a parameter; repeat for each")
	c.Flags().DurationVar(&lasts, "for", time.Hour, "how long it is open")
	c.Flags().Uint32Var(&transactions, "transactions", 0, "how many transactions it allows; one unless it says more")
	c.Flags().StringArrayVar(&totals, "total", nil, "`ASSET=AMOUNT` that they spend together at most, below the template's; repeat")
	need(c, "wallet", "template", "api-key")
	return c
}

func orderListCommand() *cobra.Command {
	var f keyFlags
	var keys []string
	var organization, delegated string
	c := &cobra.Command{
		Use:   "list --wallet ID --api-key FILE | --organization ID --delegation ID --key FILE",
		Short: "List the open orders of a delegation: the delegated user, or the owner and root members",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.apiKey != "" {
				return f.call(cmd, func(c *client.Client, _ string) error {
					out, err := c.Orders().ListOrders(cmd.Context(), &sigilv1.ListOrdersRequest{WalletId: f.wallet})
					tellOrders(cmd.OutOrStdout(), out.GetOrders()...)
					return err
				})
			}
			stamps := stampFlags{keys: keys, socket: f.socket, organization: organization}
			return stamps.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.OwnersOrders().ShowOrders(cmd.Context(), &sigilv1.ShowOrdersRequest{OrganizationId: organization, DelegationId: delegated})
				tellOrders(cmd.OutOrStdout(), out.GetOrders()...)
				return err
			})
		},
	}
	f.register(c)
	c.Flags().StringArrayVar(&keys, "key", nil, "private key `FILE` that stamps the call, in place of --api-key")
	c.Flags().StringVar(&organization, "organization", "", "`ID` of the organization, with --key")
	c.Flags().StringVar(&delegated, "delegation", "", "`ID` of the delegation, with --key")
	c.MarkFlagsRequiredTogether("key", "organization", "delegation")
	c.MarkFlagsOneRequired("api-key", "key")
	c.MarkFlagsMutuallyExclusive("api-key", "key")
	return c
}

func orderCloseCommand() *cobra.Command {
	var f keyFlags
	c := &cobra.Command{
		Use:   "close ORDER --wallet ID --api-key FILE",
		Short: "Take an order back; the delegated user",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Orders().CloseOrder(cmd.Context(), &sigilv1.CloseOrderRequest{RequestId: id, WalletId: f.wallet, OrderId: args[0]})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "closed")
				}
				return err
			})
		},
	}
	f.register(c)
	need(c, "wallet", "api-key")
	return c
}

func orderEndCommand() *cobra.Command {
	var f stampFlags
	var delegated string
	c := &cobra.Command{
		Use:   "end ORDER --organization ID --delegation ID --key FILE",
		Short: "End an order that a delegated user opened; the wallet's owner, or the root quorum",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.OwnersOrders().EndOrder(cmd.Context(), &sigilv1.EndOrderRequest{RequestId: id, OrganizationId: f.organization, DelegationId: delegated, OrderId: args[0]})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "ended")
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&delegated, "delegation", "", "`ID` of the delegation")
	need(c, "organization", "delegation")
	return c
}

func tellOrders(w io.Writer, list ...*sigilv1.Order) {
	for _, o := range list {
		fmt.Fprintf(w, "%s  %s  until %s  %d transactions", o.GetOrderId(), o.GetTemplate(), o.GetNotAfter().AsTime().Format(time.RFC3339), o.GetTransactions())
		for _, t := range o.GetTotals() {
			fmt.Fprintf(w, "  at most %s of %s", t.GetMaxAmount(), t.GetAsset())
		}
		fmt.Fprintf(w, "\n    %s\n", printable([]byte(o.GetCondition())))
	}
}

// readTemplates reads the file of templates of a delegation; nil without one.
func readTemplates(path string) ([]*sigilv1.PolicyTemplate, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading templates: %w", err)
	}
	var list []delegation.Template
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil || d.More() {
		return nil, fmt.Errorf("reading the templates in %s: not one JSON list of templates: %v", path, err)
	}
	var out []*sigilv1.PolicyTemplate
	for _, t := range list {
		m := &sigilv1.PolicyTemplate{Name: t.Name, Condition: t.Condition, MaxOpen: uint32(t.MaxOpen), LongestSeconds: t.Longest}
		if t.MaxTransactions != 0 {
			most := uint32(t.MaxTransactions)
			m.MaxTransactions = &most
		}
		for _, x := range t.Totals {
			m.Totals = append(m.Totals, &sigilv1.AssetTotal{Asset: x.Asset, MaxAmount: x.Max})
		}
		for _, p := range t.Parameters {
			one := &sigilv1.TemplateParameter{Name: p.Name, Bound: &sigilv1.TemplateParameter_Amount{Amount: &sigilv1.AmountBound{Min: p.Min, Max: p.Max}}}
			if len(p.OneOf) > 0 {
				one.Bound = &sigilv1.TemplateParameter_Text{Text: &sigilv1.TextChoice{OneOf: p.OneOf}}
			}
			m.Parameters = append(m.Parameters, one)
		}
		out = append(out, m)
	}
	return out, nil
}
