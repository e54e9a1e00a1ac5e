package main

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// Verbs that set an organization up: it, its users and their wallets. With sigilctl
// delegation create they are the whole way from init to a signature.

// newCredentials reads public files of a purpose for a request.
func newCredentials(purpose credential.Purpose, files []string) (out []*sigilv1.NewCredential, err error) {
	read, err := readCredentials(purpose, files)
	if err != nil {
		return nil, err
	}
	algorithms := map[credential.Algorithm]sigilv1.CredentialAlgorithm{
		credential.P256:      sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256,
		credential.Ed25519:   sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_ED25519,
		credential.Secp256k1: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_SECP256K1,

		credential.WebAuthnP256: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_WEBAUTHN_P256,
	}
	for _, c := range read {
		one := &sigilv1.NewCredential{Name: c.Name, Algorithm: algorithms[c.PublicKey.Algorithm], PublicKey: c.PublicKey.Bytes, Proof: c.Proof}
		if p := c.Party; p != nil {
			one.Webauthn = &sigilv1.WebAuthnParty{CredentialId: p.CredentialID, RpId: p.ID, Origins: p.Origins}
		}
		out = append(out, one)
	}
	return out, nil
}

func organizationCommand() *cobra.Command {
	return group("organization", "Make organizations, and sub-organizations for end users", organizationCreateCommand(), organizationSubCommand())
}

func organizationCreateCommand() *cobra.Command {
	var f stampFlags
	var name string
	var root, signers []string
	var quorum, signersNeeded uint32
	c := &cobra.Command{
		Use:   "create --name NAME --root FILE.json… --quorum M --key FILE…",
		Short: "Make an organization with its root credentials; the operators' quorum",
		Long: `Makes an organization. Its root members made their credentials with sigilctl credential
create --purpose organization-root and hand the public files over. From then on the
operators can't change what is inside. With --bundle-signer its policies come from
bundles alone that so many of these keys (--purpose policy-bundle) signed, for ever.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.CreateOrganizationRequest{Name: name, RootQuorum: quorum}
			var err error
			if r.RootCredentials, err = newCredentials(credential.ForOrganizationRoot, root); err != nil {
				return err
			}
			if len(signers) > 0 {
				r.BundleAuthority = &sigilv1.BundleAuthority{Quorum: signersNeeded}
				if r.BundleAuthority.Credentials, err = newCredentials(credential.ForPolicyBundle, signers); err != nil {
					return err
				}
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Organizations().CreateOrganization(cmd.Context(), r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "organization  %s\n", out.GetOrganizationId())
				}
				return err
			})
		},
	}
	f.register(c, false)
	c.Flags().StringVar(&name, "name", "", "a name for people")
	c.Flags().StringArrayVar(&root, "root", nil, "public `FILE` of a root member; repeat for each")
	c.Flags().Uint32Var(&quorum, "quorum", 1, "how many of them stamp an act, `M`")
	c.Flags().StringArrayVar(&signers, "bundle-signer", nil, "public `FILE` of a key that signs bundles; repeat for each")
	c.Flags().Uint32Var(&signersNeeded, "bundle-quorum", 1, "how many of them sign a bundle, `M`")
	need(c, "name", "root")
	return c
}

func userCommand() *cobra.Command {
	return group("user", "Make users", userCreateCommand())
}

func userCreateCommand() *cobra.Command {
	var f stampFlags
	var name, recipient, signature string
	var credentials, tags []string
	var delegated bool
	c := &cobra.Command{
		Use:   "create --organization ID --name NAME [--delegated [--credential FILE.json…] | --credential FILE.json… --recipient age1… --recipient-signature HEX] --key FILE…",
		Short: "Make an end user, or with --delegated a delegated user; the root quorum",
		Long: `Makes a user. An end user owns wallets and approves: it made its credentials with
sigilctl credential create --purpose user, and signed the age recipient of its shares
with the first of them (sigilctl credential sign-recipient). A delegated user signs
within what it is given: with the wallet API key of a delegation, or by stamps of its
own credentials (--purpose delegated-user) within the organization's policies.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.CreateUserRequest{OrganizationId: f.organization, Name: name, Tags: tags, Kind: sigilv1.UserKind_USER_KIND_DELEGATED_USER}
			switch {
			case delegated && recipient+signature != "":
				return errors.New("--delegated goes without a recipient")
			case delegated && len(credentials) > 0:
				var err error
				if r.Credentials, err = newCredentials(credential.ForDelegatedUser, credentials); err != nil {
					return err
				}
			case !delegated && (len(credentials) == 0 || recipient == "" || signature == ""):
				return hinted{errors.New("an end user needs --credential, --recipient and --recipient-signature"), "for a user who signs with a wallet API key give --delegated"}
			case !delegated:
				r.Kind, r.ShareRecipient = sigilv1.UserKind_USER_KIND_END_USER, &recipient
				var err error
				if r.ShareRecipientSignature, err = hex.DecodeString(signature); err != nil {
					return errors.New("--recipient-signature is not in hex")
				}
				if r.Credentials, err = newCredentials(credential.ForUser, credentials); err != nil {
					return err
				}
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Users().CreateUser(cmd.Context(), r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "user  %s\n", out.GetUserId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&name, "name", "", "a name for people")
	c.Flags().BoolVar(&delegated, "delegated", false, "a user who signs within what it is given")
	c.Flags().StringArrayVar(&credentials, "credential", nil, "public `FILE` of a credential; repeat for each")
	c.Flags().StringVar(&recipient, "recipient", "", "the age `RECIPIENT` of the user's shares")
	c.Flags().StringVar(&signature, "recipient-signature", "", "the first credential's signature over it, in `HEX`")
	c.Flags().StringArrayVar(&tags, "tag", nil, "a `TAG` that policies call several users by; repeat for each")
	need(c, "organization", "name")
	return c
}

func walletCreateCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.CreateWalletRequest
	var wait bool
	c := &cobra.Command{
		Use:   "create --organization ID (--owner ID | --delay-delegation) --chain CHAIN --name NAME --key FILE…",
		Short: "Make a new key and its wallet by a ceremony; the root quorum",
		Long: `Starts the ceremony that makes a new key. The wallet is pending until its owner has
fetched and confirmed its share (sigilctl wallet share). With --delay-delegation it is
the organization's until sigilctl key delegate hands it over.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Wallets().CreateWallet(cmd.Context(), &r)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "wallet    %s\nkey       %s\n", out.GetWalletId(), out.GetKeyId())
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.OwnerUserId, "owner", "", "`ID` of the end user who will own the wallet")
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	c.Flags().BoolVar(&r.DelayDelegation, "delay-delegation", false, "the organization's, until sigilctl key delegate")
	c.MarkFlagsMutuallyExclusive("owner", "delay-delegation")
	c.MarkFlagsOneRequired("owner", "delay-delegation")
	waitFlag(c, &wait)
	need(c, "organization", "chain", "name")
	return c
}

func delegationAPIKey() *cobra.Command {
	var f stampFlags
	var out string
	c := &cobra.Command{
		Use:   "api-key ID --organization ID --out FILE --key FILE",
		Short: "Write a delegation's wallet API key to a new file, encrypted to the recipient that was named",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				got, err := c.Delegations().GetDelegation(cmd.Context(), &sigilv1.GetDelegationRequest{OrganizationId: f.organization, DelegationId: args[0]})
				if err != nil {
					return err
				}
				if len(got.GetEncryptedApiKey()) == 0 {
					return hinted{errors.New("the delegation has no wallet API key"), "it has one while it is active: sigilctl delegation show says"}
				}
				return writeNew(cmd, out, got.GetEncryptedApiKey())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&out, "out", "", "the new `FILE`, in age's form")
	need(c, "organization", "out")
	return c
}
