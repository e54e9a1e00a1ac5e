package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// Verbs about who acts in an organization: users, their credentials, the root, and
// whether what delegated users hold is no more than they were given (docs/access.md).

func memberCommand() *cobra.Command {
	return group("member", "Show users and credentials; add, rotate, revoke, remove, change the root quorum",
		memberListCommand(), memberAddCommand(), memberRotateCommand(), memberRevokeCommand(), memberRemoveCommand(), memberTagCommand(), memberRootCommand(), memberVerifyCommand())
}

func memberListCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "Show users, credentials, when they were last used and when they end; any member",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				m, err := c.Members().ListMembers(cmd.Context(), &sigilv1.ListMembersRequest{OrganizationId: f.organization})
				if err != nil {
					return err
				}
				return printMembers(cmd.OutOrStdout(), m)
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func printMembers(out io.Writer, m *sigilv1.ListMembersResponse) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "organization\t%s\n", m.GetName())
	if m.ParentOrganizationId != nil {
		fmt.Fprintf(t, "parent\t%s\n", m.GetParentOrganizationId())
	}
	fmt.Fprintf(t, "root quorum\t%d\n", m.GetRootQuorum())
	for _, c := range m.GetRootCredentials() {
		fmt.Fprintf(t, "root key\t%s\n", credentialLine(c))
	}
	for _, u := range m.GetMembers() {
		what := map[sigilv1.UserKind]string{sigilv1.UserKind_USER_KIND_END_USER: "end user", sigilv1.UserKind_USER_KIND_DELEGATED_USER: "delegated user"}[u.GetKind()]
		if u.GetRoot() {
			what += ", root"
		}
		if u.GetRemoved() {
			what += ", removed"
		}
		fmt.Fprintf(t, "%s\t%s  %s  %s\n", what, u.GetUserId(), u.GetName(), strings.Join(u.GetTags(), " "))
		for _, c := range u.GetCredentials() {
			fmt.Fprintf(t, "\t%s\n", credentialLine(c))
		}
	}
	return t.Flush()
}

func credentialLine(c *sigilv1.RegisteredCredential) string {
	line := []string{c.GetCredentialId(), c.GetName(), strings.ToLower(strings.TrimPrefix(c.GetAlgorithm().String(), "CREDENTIAL_ALGORITHM_"))}
	if c.ExpiresAt != nil {
		line = append(line, "ends "+c.GetExpiresAt().AsTime().Format(time.RFC3339))
	}
	if c.LastUsedAt != nil {
		line = append(line, "used "+c.GetLastUsedAt().AsTime().Format(time.RFC3339))
	}
	if c.GetUnused() {
		line = append(line, fmt.Sprintf("UNUSED for %s or more", time.Duration(c.GetUnusedAlarmSeconds())*time.Second))
	}
	return strings.Join(line, "  ")
}

func memberAddCommand() *cobra.Command {
	var f stampFlags
	var terms termsOfCredential
	var user, file string
	c := &cobra.Command{
		Use:   "add --organization ID --user ID --credential FILE.json --key FILE…",
		Short: "Register a further credential of a user; an end user's own stamp, or the root quorum for a delegated user's",
		Long: `Registers a further credential: FILE is what sigilctl credential create wrote, or for a
passkey or a security key sigilctl credential webauthn accept.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := newCredentials(credential.ForUser, []string{file})
			if err != nil {
				if list, err = newCredentials(credential.ForDelegatedUser, []string{file}); err != nil {
					return err
				}
			}
			if err := terms.apply(list[0]); err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Members().AddCredential(cmd.Context(), &sigilv1.AddCredentialRequest{RequestId: id, OrganizationId: f.organization, UserId: user, Credential: list[0]})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "credential  %s\n", out.GetCredentialId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().StringVar(&user, "user", "", "`ID` of the user")
	c.Flags().StringVar(&file, "credential", "", "public `FILE` of the credential")
	need(c, "organization", "user", "credential")
	return c
}

func memberRotateCommand() *cobra.Command {
	var f stampFlags
	var user, old, next string
	var overlap time.Duration
	c := &cobra.Command{
		Use:   "rotate --organization ID --user ID --credential ID --with FILE.json --key FILE",
		Short: "Replace a credential by another, on its own stamp",
		Long: `Replaces a credential. --key is the private key of the one that is replaced; the root
quorum may replace a delegated user's, too. The new one ends no later than the old one
would have. Without --user it is a root member's that is no user.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.RotateCredentialRequest{OrganizationId: f.organization, CredentialId: old}
			purposes := []credential.Purpose{credential.ForOrganizationRoot}
			if user != "" {
				r.UserId, purposes = &user, []credential.Purpose{credential.ForDelegatedUser, credential.ForUser}
			}
			if overlap < 0 || overlap%time.Second != 0 {
				return errors.New("--overlap is not in whole seconds")
			}
			if overlap > 0 {
				seconds := uint32(overlap / time.Second)
				r.OverlapSeconds = &seconds
			}
			list, err := newCredentials(purposes[0], []string{next})
			if err != nil && len(purposes) > 1 {
				list, err = newCredentials(purposes[1], []string{next})
			}
			if err != nil {
				return err
			}
			r.Credential = list[0]
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Members().RotateCredential(cmd.Context(), r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "credential  %s\nold ends    %s\n", out.GetCredentialId(), out.GetOldEndsAt().AsTime().Format(time.RFC3339))
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&user, "user", "", "`ID` of the user who has it")
	c.Flags().StringVar(&old, "credential", "", "`ID` of the credential that is replaced")
	c.Flags().StringVar(&next, "with", "", "public `FILE` of the one that takes its place")
	c.Flags().DurationVar(&overlap, "overlap", 0, "how long the old one still stands, at most 168h")
	need(c, "organization", "credential", "with")
	return c
}

func memberRevokeCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.RevokeCredentialRequest
	c := &cobra.Command{
		Use:   "revoke --organization ID --user ID --credential ID --key FILE…",
		Short: "End a credential and what came of it by rotation; an end user's own stamp, or the root quorum for a delegated user's",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Members().RevokeCredential(cmd.Context(), &r)
				for _, ended := range out.GetEndedCredentialIds() {
					fmt.Fprintf(cmd.OutOrStdout(), "ended  %s\n", ended)
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.UserId, "user", "", "`ID` of the user who has it")
	c.Flags().StringVar(&r.CredentialId, "credential", "", "`ID` of the credential")
	c.Flags().BoolVar(&r.KeepSuccessors, "keep-successors", false, "leave those that came of it by rotation")
	need(c, "organization", "user", "credential")
	return c
}

func memberRemoveCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.RemoveUserRequest
	c := &cobra.Command{
		Use:   "remove --organization ID --user ID --key FILE…",
		Short: "End a delegated user, its credentials and its delegations; the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				_, err := c.Members().RemoveUser(cmd.Context(), &r)
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.UserId, "user", "", "`ID` of the delegated user")
	need(c, "organization", "user")
	return c
}

func memberTagCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.SetTagsRequest
	c := &cobra.Command{
		Use:   "tag --organization ID --user ID --tag TAG… --key FILE…",
		Short: "Replace a user's tags; the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				_, err := c.Members().SetTags(cmd.Context(), &r)
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.UserId, "user", "", "`ID` of the user")
	c.Flags().StringArrayVar(&r.Tags, "tag", nil, "a `TAG`; repeat for each, none takes all away")
	need(c, "organization", "user")
	return c
}

func memberRootCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.SetRootQuorumRequest
	c := &cobra.Command{
		Use:   "root --organization ID --user ID… --credential ID… --quorum M --key FILE…",
		Short: "Replace the root: end users, and which of its keys stay; the root quorum that stands",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				_, err := c.Members().SetRootQuorum(cmd.Context(), &r)
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringArrayVar(&r.UserIds, "user", nil, "`ID` of an end user in the root; repeat for each")
	c.Flags().StringArrayVar(&r.CredentialIds, "credential", nil, "`ID` of a key of the root that stays; repeat for each")
	c.Flags().Uint32Var(&r.RootQuorum, "quorum", 1, "how many of them stamp an act, `M`")
	need(c, "organization", "quorum")
	return c
}

func memberVerifyCommand() *cobra.Command {
	var f stampFlags
	var user string
	c := &cobra.Command{
		Use:   "verify --organization ID --user ID --key FILE",
		Short: "Check the invariants of a delegated user's access; any member",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.DelegatedUsers().VerifyDelegatedAccess(cmd.Context(), &sigilv1.VerifyDelegatedAccessRequest{OrganizationId: f.organization, UserId: user})
				if err != nil {
					return err
				}
				broken := 0
				for _, i := range out.GetInvariants() {
					said := "holds "
					if !i.GetHolds() {
						said = "BROKEN"
						broken++
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", i.GetId(), said, i.GetText())
				}
				if broken > 0 {
					return fmt.Errorf("%d invariants are broken: the user signs nothing", broken)
				}
				return nil
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&user, "user", "", "`ID` of the delegated user")
	need(c, "organization", "user")
	return c
}
