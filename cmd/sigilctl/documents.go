package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about an organization's documents, where its policy authority is api.

// kindPrefix is what the API's names of kinds begin with; the rest is ours in capitals.
const kindPrefix = "DOCUMENT_KIND_"

func kindOf(word string) (sigilv1.DocumentKind, error) {
	n, ok := sigilv1.DocumentKind_value[kindPrefix+strings.ToUpper(word)]
	if !ok || n == 0 || word != strings.ToLower(word) {
		return 0, fmt.Errorf("%q is no kind of document", word)
	}
	return sigilv1.DocumentKind(n), nil
}

func wordOf(kind sigilv1.DocumentKind) string {
	return strings.ToLower(strings.TrimPrefix(kind.String(), kindPrefix))
}

func documentNameOf(arg string) (*sigilv1.DocumentName, error) {
	word, name, ok := strings.Cut(arg, "/")
	if !ok {
		return nil, fmt.Errorf("%q is not KIND/NAME", arg)
	}
	kind, err := kindOf(word)
	return &sigilv1.DocumentName{Kind: kind, Name: name}, err
}

func policySetCommand() *cobra.Command {
	var f stampFlags
	var expected uint64
	var remove []string
	c := &cobra.Command{
		Use:   "set KIND/NAME=FILE... --organization ID --expected-version N --key FILE...",
		Short: "Put an organization's documents, or remove them; the root quorum",
		Long: `Puts each FILE as the document KIND/NAME, replacing one of that name, and removes
those that --remove names, all at once. KIND is "rules" for {"policies":[...],
"limits":[...]}; docs/policy.md lists the others. The expected version is the one
that sigilctl policy show tells, 0 before the first change: if somebody else was
faster the change is refused, and nothing is lost.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			in := &sigilv1.SetDocumentsRequest{OrganizationId: f.organization, ExpectedVersion: expected}
			for _, arg := range args {
				d, err := readDocument(arg)
				if err != nil {
					return fmt.Errorf("reading documents: %w", err)
				}
				kind, err := kindOf(d.Kind)
				if err != nil {
					return fmt.Errorf("reading documents: %w", err)
				}
				in.Set = append(in.Set, &sigilv1.Document{Kind: kind, Name: d.Name, Content: d.Content})
			}
			for _, arg := range remove {
				name, err := documentNameOf(arg)
				if err != nil {
					return fmt.Errorf("removing documents: %w", err)
				}
				in.Remove = append(in.Remove, name)
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				in.RequestId = id
				made, err := c.Policies().SetDocuments(cmd.Context(), in)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "version %d, documents hash %x\n", made.GetVersion(), made.GetDocumentsHash())
				return nil
			})
		},
	}
	f.register(c, true)
	c.Flags().Uint64Var(&expected, "expected-version", 0, "the version that is replaced, `N`")
	c.Flags().StringArrayVar(&remove, "remove", nil, "`KIND/NAME` of a document to remove; repeat for more")
	need(c, "organization", "expected-version")
	return c
}

func policyShowCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show [KIND/NAME] --organization ID --key FILE",
		Short: "List an organization's documents, or print one; any member's stamp",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := &sigilv1.GetDocumentsRequest{OrganizationId: f.organization}
			if len(args) == 1 {
				name, err := documentNameOf(args[0])
				if err != nil {
					return fmt.Errorf("showing a document: %w", err)
				}
				in.Document = name
			}
			return f.call(cmd, func(c *client.Client, _ string) error {
				all, err := c.Policies().GetDocuments(cmd.Context(), in)
				if err != nil {
					return err
				}
				return printDocuments(cmd.OutOrStdout(), all, in.Document != nil)
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

// printDocuments writes one document byte for byte, or the list for people.
func printDocuments(w io.Writer, all *sigilv1.GetDocumentsResponse, one bool) error {
	if one {
		for _, d := range all.GetDocuments() {
			if _, err := w.Write(d.GetContent()); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(w, "policy authority %s, version %d, documents hash %x\n", all.GetPolicyAuthority(), all.GetVersion(), all.GetDocumentsHash())
	for _, d := range all.GetDocuments() {
		fmt.Fprintf(w, "%s/%s  version %d  sha256 %x\n", wordOf(d.GetKind()), d.GetName(), d.GetVersion(), d.GetSha256())
	}
	return nil
}
