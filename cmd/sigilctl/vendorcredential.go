package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
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

// Verbs about credentials of other services: keys that a vendor's API knows, sealed
// here. Requests are stamped with them by `sigilctl stamp` (stamp.go).

func vendorCredentialCommand() *cobra.Command {
	return group("vendor-credential", "Make, bind and revoke the keys that other vendors' APIs know (Turnkey, Dfns)",
		vendorCredentialCreate(), vendorCredentialImport(), vendorCredentialList(), vendorCredentialShow(), vendorCredentialBind(), vendorCredentialRevoke())
}

// accountFlags say whose API a credential is for, and as whom.
type accountFlags struct {
	name, turnkey, dfns, witness string
	trustCaller                  bool
}

func (f *accountFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "name", "", "a name for people")
	c.Flags().StringVar(&f.turnkey, "turnkey", "", "Turnkey's `ID` of the organization that the API key is of")
	c.Flags().StringVar(&f.dfns, "dfns", "", "Dfns' `ID` of the credential (cr-…)")
	c.Flags().StringVar(&f.witness, "witness", "", "public `FILE` (of sigilctl credential create --purpose witness) of who says that Dfns gave a challenge out for its request")
	c.Flags().BoolVar(&f.trustCaller, "trust-caller", false, "believe the caller that a challenge of Dfns' is its request's: it can then have anything stamped that Dfns gives a challenge for")
	need(c, "organization", "name")
	c.MarkFlagsMutuallyExclusive("turnkey", "dfns")
	c.MarkFlagsOneRequired("turnkey", "dfns")
	c.MarkFlagsMutuallyExclusive("witness", "trust-caller")
}

// fill writes the account into a request.
func (f *accountFlags) fill(r *sigilv1.CreateVendorCredentialRequest) error {
	r.Name = f.name
	if f.turnkey != "" {
		if f.witness != "" || f.trustCaller {
			return errors.New("--witness and --trust-caller are about challenges, which Turnkey hasn't got")
		}
		r.Account = &sigilv1.CreateVendorCredentialRequest_Turnkey{Turnkey: &sigilv1.TurnkeyAccount{OrganizationId: f.turnkey}}
		return nil
	}
	account := &sigilv1.DfnsAccount{CredentialId: f.dfns}
	switch {
	case f.trustCaller:
		account.Challenges = &sigilv1.DfnsAccount_TrustCaller{TrustCaller: true}
	case f.witness != "":
		read, err := newCredentials(credential.ForWitness, []string{f.witness})
		if err != nil {
			return err
		}
		account.Challenges = &sigilv1.DfnsAccount_Witness{Witness: &sigilv1.DfnsWitness{Algorithm: read[0].GetAlgorithm(), PublicKey: read[0].GetPublicKey()}}
	default:
		return hinted{errors.New("nobody says that a challenge of Dfns' is of the request it comes with"),
			"--witness FILE names a process of another uid that asks Dfns itself; --trust-caller does without (docs/attacksurface.md)"}
	}
	r.Account = &sigilv1.CreateVendorCredentialRequest_Dfns{Dfns: account}
	return nil
}

func vendorCredentialCreate() *cobra.Command {
	var f stampFlags
	var account accountFlags
	c := &cobra.Command{
		Use:   "create --organization ID --name NAME (--turnkey ID | --dfns ID --witness FILE) --key FILE…",
		Short: "Make a key in the appliance and print its public half for the vendor; the root quorum",
		Long: `Makes a P-256 key, seals it and prints the public half: in hex, as Turnkey wants an
API key's, and as PEM, as Dfns wants a service account's. The private half never leaves.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return createVendorCredential(cmd, &f, account, nil)
		},
	}
	f.register(c, true)
	account.register(c)
	return c
}

func vendorCredentialImport() *cobra.Command {
	var f stampFlags
	var account accountFlags
	c := &cobra.Command{
		Use:   "import FILE --organization ID --name NAME (--turnkey ID | --dfns ID --witness FILE) --key FILE…",
		Short: "Take in a private key that a vendor knows already; the root quorum",
		Long: `Takes in a P-256 private key: PEM (PKCS #8 or SEC 1, not encrypted), or 64 digits of
hex. The credential says "imported" for ever: there may be copies. FILE stays as it
is; destroy it. A key that was made here needs no trust in where it was before.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readSecretFile(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer clear(text)
			private, err := parseP256(text)
			if err != nil {
				return fmt.Errorf("reading %s: %w", args[0], err)
			}
			defer clear(private)
			return createVendorCredential(cmd, &f, account, private)
		},
	}
	f.register(c, true)
	account.register(c)
	return c
}

// parseP256 reads a private key, 32 bytes; the caller wipes them. Its errors quote nothing.
func parseP256(text []byte) ([]byte, error) {
	trimmed := strings.TrimSpace(string(text))
	if private, err := hex.DecodeString(trimmed); err == nil && len(private) == 32 {
		return private, nil
	}
	block, rest := pem.Decode([]byte(trimmed))
	if block == nil || len(rest) != 0 {
		return nil, errors.New("it is neither 64 digits of hex nor one PEM block")
	}
	defer clear(block.Bytes)
	var key any
	var err error
	if block.Type == "EC PRIVATE KEY" {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("it is no P-256 private key in PEM")
	}
	return ec.Bytes()
}

func createVendorCredential(cmd *cobra.Command, f *stampFlags, account accountFlags, private []byte) error {
	r := &sigilv1.CreateVendorCredentialRequest{PrivateKey: private}
	if err := account.fill(r); err != nil {
		return err
	}
	return f.call(cmd, func(c *client.Client, id string) error {
		r.RequestId, r.OrganizationId = id, f.organization
		out, err := c.VendorCredentials().CreateVendorCredential(cmd.Context(), r)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "credential  %s\n", out.GetCredentialId())
		return printVendorKey(cmd.OutOrStdout(), out.GetPublicKey())
	})
}

// printVendorKey prints a public key in the forms that vendors want.
func printVendorKey(w io.Writer, public []byte) error {
	key, err := credential.ParsePublicKey(credential.P256, public)
	if err != nil {
		return err
	}
	point, err := key.P256()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(point)
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	fmt.Fprintf(w, "public_key  %x\n", public)
	return pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// vendorCredentials asks for an organization's.
func vendorCredentials(cmd *cobra.Command, f *stampFlags, use func([]*sigilv1.VendorCredential) error) error {
	return f.call(cmd, func(c *client.Client, _ string) error {
		out, err := c.VendorCredentials().ListVendorCredentials(cmd.Context(), &sigilv1.ListVendorCredentialsRequest{OrganizationId: f.organization})
		if err != nil {
			return err
		}
		return use(out.GetCredentials())
	})
}

func vendorCredentialList() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "list --organization ID --key FILE",
		Short: "List the vendor credentials of an organization; any root member's stamp",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return vendorCredentials(cmd, &f, func(list []*sigilv1.VendorCredential) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "credential\tstatus\tvendor\taccount\tname")
				for _, v := range list {
					vendor, account, _ := vendorAccount(v)
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.GetCredentialId(), vendorStatus(v), vendor, account, v.GetName())
				}
				return w.Flush()
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func vendorStatus(v *sigilv1.VendorCredential) string {
	return strings.ToLower(strings.TrimPrefix(v.GetStatus().String(), "VENDOR_CREDENTIAL_STATUS_"))
}

// vendorAccount says whose API, as whom, and who vouches for challenges.
func vendorAccount(v *sigilv1.VendorCredential) (vendor, account, challenges string) {
	if t := v.GetTurnkey(); t != nil {
		return "turnkey", t.GetOrganizationId(), "none"
	}
	if w := v.GetDfns().GetWitness(); w != nil {
		return "dfns", v.GetDfns().GetCredentialId(), fmt.Sprintf("witness %x", w.GetPublicKey())
	}
	return "dfns", v.GetDfns().GetCredentialId(), "the caller is trusted"
}

func vendorCredentialShow() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "show ID --organization ID --key FILE",
		Short: "Show a vendor credential and its public key; any root member's stamp",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return vendorCredentials(cmd, &f, func(list []*sigilv1.VendorCredential) error {
				for _, v := range list {
					if v.GetCredentialId() != args[0] {
						continue
					}
					vendor, account, challenges := vendorAccount(v)
					origin := "made here"
					if v.GetImported() {
						origin = "imported: there may be copies"
					}
					status := vendorStatus(v)
					if v.GetRevokedAt() != nil {
						status += " at " + v.GetRevokedAt().AsTime().Format(time.RFC3339)
					}
					fmt.Fprintf(cmd.OutOrStdout(), "name        %s\nstatus      %s\nvendor      %s\naccount     %s\nchallenges  %s\norigin      %s\n",
						v.GetName(), status, vendor, account, challenges, origin)
					return printVendorKey(cmd.OutOrStdout(), v.GetPublicKey())
				}
				return hinted{fmt.Errorf("the organization has no vendor credential %s", args[0]), "sigilctl vendor-credential list shows them"}
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}

func vendorCredentialBind() *cobra.Command {
	var f stampFlags
	var terms termFlags
	var r sigilv1.BindVendorCredentialRequest
	c := &cobra.Command{
		Use:   "bind ID --organization ID --sign-with NAME --chain CHAIN --address ADDRESS --name NAME --user ID --recipient AGE --rules FILE --key FILE…",
		Short: "Make a delegation of a wallet that the vendor keeps; the root quorum",
		Long: `Makes a wallet here of one that the vendor keeps, and a delegation of it whose
requests are stamped with the credential. Nothing here can check that --address is
what the vendor signs for with --sign-with: take both from the vendor's own page.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Policies, r.Limits, err = terms.read(); err != nil {
				return err
			}
			if r.ExpiresAt, err = terms.end(); err != nil {
				return err
			}
			r.CredentialId, r.DelegatedUserId, r.ApiKeyRecipient, r.OrganizationAllows = args[0], terms.user, terms.recipient, terms.organizationAllows
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.VendorCredentials().BindVendorCredential(cmd.Context(), &r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "delegation  %s\nwallet      %s\n", out.GetDelegationId(), out.GetWalletId())
				}
				return err
			})
		},
	}
	f.register(c, true)
	terms.register(c)
	c.Flags().StringVar(&terms.expires, "expires", "", "when it ends: a time, or a duration from now")
	c.Flags().StringVar(&r.SignWith, "sign-with", "", "the vendor's `NAME` of what signs: Turnkey's signWith, Dfns' wallet or key id")
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Address, "address", "", "the wallet's address, as you know it")
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	need(c, "organization", "sign-with", "chain", "address", "name", "user", "recipient")
	return c
}

func vendorCredentialRevoke() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "revoke ID --organization ID --key FILE…",
		Short: "Destroy a vendor credential's key and end its delegations; the root quorum",
		Long: `Destroys the private key here and ends every delegation that it stamps for. The
vendor knows the public key still: delete it there, too.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.VendorCredentials().RevokeVendorCredential(cmd.Context(), &sigilv1.RevokeVendorCredentialRequest{
					RequestId: id, OrganizationId: f.organization, CredentialId: args[0],
				})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "revoked  %s\n", args[0])
				for _, d := range out.GetDelegationIds() {
					fmt.Fprintf(cmd.OutOrStdout(), "ended    %s\n", d)
				}
				return nil
			})
		},
	}
	f.register(c, true)
	need(c, "organization")
	return c
}
