package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/bundle"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
)

// bundleCommand holds the verbs about signed policies. All but apply work on files
// alone, on machines that know no daemon.
func bundleCommand() *cobra.Command {
	return group("bundle", "Make, sign, verify and apply signed bundles of an organization's policies",
		bundleMakeCommand(), bundleSignersCommand(), bundleSignCommand(), bundleVerifyCommand(), bundleApplyCommand())
}

func bundleMakeCommand() *cobra.Command {
	var b bundle.Bundle
	var out string
	c := &cobra.Command{
		Use:   "make --appliance ID --organization ID --version N --out BUNDLE KIND/NAME=FILE...",
		Short: "Put documents into a bundle, unsigned",
		Long: `Puts the FILEs into a new BUNDLE. They are all documents that the organization has
once it is applied: what it has now and is not in the bundle is removed. Of
KIND "rules" are {"policies":[...],"limits":[...]} as sigilctl policy check reads
them; docs/policy.md lists the others. What can't be read or doesn't compile is
refused here already. The version must be above the one that sigild has when the
bundle is applied.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				d, err := readDocument(arg)
				if err != nil {
					return fmt.Errorf("making the bundle: %w", err)
				}
				b.Documents = append(b.Documents, d)
			}
			slices.SortFunc(b.Documents, func(x, y bundle.Document) int {
				return strings.Compare(x.Kind+"/"+x.Name, y.Kind+"/"+y.Name)
			})
			data, err := b.Encode()
			if err != nil {
				return err
			}
			if err := tellBundle(cmd.OutOrStdout(), &b); err != nil {
				return err
			}
			if err := writeDurably(out, data); err != nil {
				return fmt.Errorf("writing the bundle: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&b.ApplianceID, "appliance", "", "`ID` of the appliance, as sigilctl status shows it")
	c.Flags().StringVar(&b.OrganizationID, "organization", "", "`ID` of the organization")
	c.Flags().Uint64Var(&b.Version, "version", 0, "the new version, `N`")
	c.Flags().StringVar(&out, "out", "", "the new file, `BUNDLE`")
	need(c, "appliance", "organization", "version", "out")
	return c
}

func bundleSignCommand() *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "sign BUNDLE --key FILE",
		Short: "Show a bundle and add a signature to it",
		Long: `Adds the key's signature to BUNDLE, in place. What is signed is shown: read it
before you hand the bundle on. Another signature of the same key is replaced.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0])
			if err != nil {
				return err
			}
			key, err := credential.LoadKey(keyFile)
			if err != nil {
				return fmt.Errorf("loading %s: %w", keyFile, err)
			}
			defer key.Wipe()
			if err := tellSigned(cmd.OutOrStdout(), b); err != nil {
				return err
			}
			if err := b.Sign(key); err != nil {
				return err
			}
			data, err := b.Encode()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "signed by %s\n", key.Public().ID())
			return replaceDurably(args[0], data)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "private key `FILE` that signs")
	need(c, "key")
	return c
}

func bundleVerifyCommand() *cobra.Command {
	var signers []string
	var quorum int
	c := &cobra.Command{
		Use:   "verify BUNDLE --signer FILE... --quorum M",
		Short: "Say what a bundle holds and whether enough of the signers signed it, off-line",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0])
			if err != nil {
				return err
			}
			known, err := readCredentials(credential.ForPolicyBundle, signers)
			if err != nil {
				return err
			}
			var keys []credential.PublicKey
			names := map[string]string{}
			for _, k := range known {
				keys = append(keys, k.PublicKey)
				names[k.PublicKey.ID()] = k.Name
			}
			if err := tellSigned(cmd.OutOrStdout(), b); err != nil {
				return err
			}
			signed, err := b.Verify(keys, quorum)
			if errors.Is(err, bundle.ErrNotSigned) {
				return hinted{err, "the signers are the keys that were named when the organization was made"}
			}
			if err != nil {
				return err
			}
			for _, k := range signed {
				fmt.Fprintf(cmd.OutOrStdout(), "signed by %s (%s)\n", k.ID(), names[k.ID()])
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&signers, "signer", nil, "public `FILE` of a key that counts; repeat for each")
	c.Flags().IntVar(&quorum, "quorum", 0, "how many of them must have signed, `M`")
	need(c, "signer", "quorum")
	return c
}

func bundleApplyCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "apply BUNDLE",
		Short: "Hand a bundle to the daemon; nobody's stamp is needed, the signatures inside count",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("reading the bundle: %w", err)
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				made, err := c.Policies().ApplyBundle(cmd.Context(), &sigilv1.ApplyBundleRequest{RequestId: id, Bundle: data})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "organization %s is at version %d, documents hash %x\n", made.GetOrganizationId(), made.GetVersion(), made.GetDocumentsHash())
				return nil
			})
		},
	}
	f.registerUnstamped(c)
	return c
}

// readDocument reads what an argument KIND/NAME=FILE names.
func readDocument(arg string) (bundle.Document, error) {
	name, path, ok := strings.Cut(arg, "=")
	kind, name, slash := strings.Cut(name, "/")
	if !ok || !slash {
		return bundle.Document{}, fmt.Errorf("%q is not KIND/NAME=FILE", arg)
	}
	content, err := os.ReadFile(path)
	return bundle.Document{Kind: kind, Name: name, Content: content}, err
}

// signedFile is a bundle or a file of signers.
type signedFile interface {
	Sign(credential.Signer) error
	Verify(keys []credential.PublicKey, quorum int) ([]credential.PublicKey, error)
	Encode() ([]byte, error)
}

func readBundle(path string) (signedFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the bundle: %w", err)
	}
	if bundle.IsSigners(data) {
		return bundle.ParseSigners(data)
	}
	return bundle.Parse(data)
}

// tellSigned shows people what a file of either kind says.
func tellSigned(w io.Writer, f signedFile) error {
	switch f := f.(type) {
	case *bundle.Bundle:
		return tellBundle(w, f)
	case *bundle.Signers:
		fmt.Fprintf(w, "appliance %s\norganization %s\nversion %d\nfrom then on %d of these keys sign bundles, and no others\n", f.ApplianceID, f.OrganizationID, f.Version, f.Quorum)
		for _, k := range f.Keys {
			if err := credential.VerifyProof(k.Key, credential.ForPolicyBundle, k.Name, k.Proof); err != nil {
				return fmt.Errorf("reading the signers: key %s has no proof of possession: %w", k.Key.ID(), err)
			}
			fmt.Fprintf(w, "  %s  %s %x  %s\n", k.Key.ID(), k.Key.Algorithm, k.Key.Bytes, printable([]byte(k.Name)))
		}
	}
	return nil
}

func bundleSignersCommand() *cobra.Command {
	var s bundle.Signers
	var signers []string
	var out string
	c := &cobra.Command{
		Use:   "signers --appliance ID --organization ID --version N --signer FILE.json... --quorum M --out BUNDLE",
		Short: "Name the keys that sign an organization's bundles from then on, unsigned",
		Long: `Writes a file that puts new keys in the place of those that sign an organization's
bundles. A quorum of the old keys signs it with sigilctl bundle sign, and sigilctl
bundle apply hands it over. It takes a version above the one that stands, as a bundle
does; the documents stay as they are.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			read, err := readCredentials(credential.ForPolicyBundle, signers)
			if err != nil {
				return err
			}
			for _, k := range read {
				s.Keys = append(s.Keys, bundle.Signer{Name: k.Name, Key: k.PublicKey, Proof: k.Proof})
			}
			s.Sort()
			data, err := s.Encode()
			if err != nil {
				return err
			}
			if err := tellSigned(cmd.OutOrStdout(), &s); err != nil {
				return err
			}
			if err := writeDurably(out, data); err != nil {
				return fmt.Errorf("writing the signers: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&s.ApplianceID, "appliance", "", "`ID` of the appliance, as sigilctl status shows it")
	c.Flags().StringVar(&s.OrganizationID, "organization", "", "`ID` of the organization")
	c.Flags().Uint64Var(&s.Version, "version", 0, "the new version, `N`")
	c.Flags().StringArrayVar(&signers, "signer", nil, "public `FILE` of a new key; repeat for each")
	c.Flags().IntVar(&s.Quorum, "quorum", 0, "how many of them sign a bundle, `M`")
	c.Flags().StringVar(&out, "out", "", "the new file, `BUNDLE`")
	need(c, "appliance", "organization", "version", "signer", "quorum", "out")
	return c
}

// tellBundle compiles a bundle and shows people what it says, every word of it.
func tellBundle(w io.Writer, b *bundle.Bundle) error {
	hash, err := delegation.CheckBundle(b)
	if err != nil {
		return fmt.Errorf("reading the bundle: %w", err)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "appliance %s\norganization %s\nversion %d\ndocuments hash %x\n", b.ApplianceID, b.OrganizationID, b.Version, hash)
	for _, d := range b.Documents {
		fmt.Fprintf(&text, "\n%s/%s, %d bytes\n%s\n", d.Kind, d.Name, len(d.Content), printable(d.Content))
	}
	text.WriteByte('\n')
	_, err = w.Write(text.Bytes())
	return err
}

// printable shows a text on a terminal as it is, but for what could change what is seen.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r > '~') {
			return '?'
		}
		return r
	}, strings.TrimRight(string(b), "\n"))
}

// replaceDurably puts data in the place of path at once, and fsyncs.
func replaceDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".sigilctl-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}
