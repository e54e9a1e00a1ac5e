package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/tpm"
)

// webhookKeyCommand manages the decryption keys for deliveries in the token: for those
// who already gave a vendor the public half of a key, and for keys that take longer to
// make than a call of the API may last. Private keys never travel over the API. It
// speaks to the token itself; the daemon may run or not.
func webhookKeyCommand() *cobra.Command {
	return group("webhook-key", "Make, import, show and destroy the keys that deliveries are encrypted to",
		webhookKeyCreate(), webhookKeyImport(), webhookKeyList(), webhookKeyExport(), webhookKeyRetire())
}

func webhookKeyCreate() *cobra.Command {
	var bits int
	c := &cobra.Command{
		Use:   "create",
		Short: "Make an RSA key in the token or TPM and print its reference and public key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKeyDevice(cmd, func(ctx context.Context, d keyDevice) error {
				if _, isTPM := d.(*tpm.Provider); isTPM && !cmd.Flags().Changed("bits") {
					bits = 2048
				}
				ref, err := d.GenerateRSA(ctx, bits)
				if err != nil {
					return err
				}
				return printRSAKey(ctx, cmd.OutOrStdout(), d, ref)
			})
		},
	}
	c.Flags().IntVar(&bits, "bits", 3072, "2048, 3072 or 4096; a TPM makes 2048")
	return c
}

func webhookKeyImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Put an RSA private key (PEM, PKCS #8, not encrypted) into the token and print its reference",
		Long: `Puts an RSA private key of 2048 to 4096 bits into the token and prints its
reference, for key_ref of RegisterWebhook. FILE is PEM of type PRIVATE KEY. The key
says "imported" for ever: there may be copies. FILE stays as it is; destroy it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			der, err := readPrivateKey(args[0])
			if err != nil {
				return err
			}
			defer clear(der)
			return withToken(cmd, func(ctx context.Context, p *hsm.Provider) error {
				ref, err := p.ImportRSA(ctx, der)
				if err != nil {
					return err
				}
				return printRSAKey(ctx, cmd.OutOrStdout(), p, ref)
			})
		},
	}
}

func webhookKeyList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the decryption keys in the token or TPM",
		Long: `Lists the decryption keys in the token that sigild made or imported, whether a
webhook uses them or not (RegisterWebhook answers with those that are live): reference,
bits, origin, and whether the token does the whole of OAEP or the bare RSA operation.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKeyDevice(cmd, func(ctx context.Context, d keyDevice) error {
				if t, ok := d.(*tpm.Provider); ok {
					return listTPMKeys(ctx, cmd.OutOrStdout(), t)
				}
				p := d.(*hsm.Provider)
				keys, others, err := p.ListRSA(ctx)
				if err != nil {
					return err
				}
				slices.SortFunc(keys, func(a, b hsm.RSAKey) int { return strings.Compare(string(a.Ref), string(b.Ref)) })
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "key_ref\tbits\torigin\topened")
				for _, k := range keys {
					how := "by the token"
					if !k.Native {
						how = "bare RSA by the token, padding by us"
					}
					fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", k.Ref, k.Public.N.BitLen(), origin(k.Imported), how)
				}
				if err := w.Flush(); err != nil {
					return err
				}
				if others > 0 {
					return hinted{fmt.Errorf("%d more keys are labelled as ours and are not what we make", others), "look at them with pkcs11-tool --list-objects; somebody made them"}
				}
				return nil
			})
		},
	}
}

func webhookKeyExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export KEY_REF",
		Short: "Print the public key, PEM, to be uploaded to the vendor",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKeyDevice(cmd, func(ctx context.Context, d keyDevice) error {
				public, err := d.PublicRSA(ctx, seal.KeyRef(args[0]))
				if err != nil {
					return err
				}
				return printPublic(cmd.OutOrStdout(), public)
			})
		},
	}
}

func webhookKeyRetire() *cobra.Command {
	var destroy bool
	c := &cobra.Command{
		Use:   "retire KEY_REF --destroy",
		Short: "Destroy a decryption key in the token or TPM, for good",
		Long: `Destroys the private key in the token. What was taken in stays; what a vendor
encrypts to this key from now on can't be opened by anybody. Register the webhook with
another key and upload that to the vendor first: whether a webhook still uses this one
is written in the sealed store, which this command does not open.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKeyDevice(cmd, func(ctx context.Context, d keyDevice) error {
				ref := seal.KeyRef(args[0])
				public, from, err := describe(ctx, d, ref)
				if err != nil {
					return err
				}
				if !destroy {
					return hinted{fmt.Errorf("key %s of %d bits, %s, would be destroyed for good; nothing was done", ref, public.N.BitLen(), from), "repeat with --destroy when no vendor encrypts to it any more"}
				}
				if err := d.DestroyRSA(ctx, ref); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "destroyed  %s\n", ref)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&destroy, "destroy", false, "say that you mean it")
	return c
}

// keyDevice is the sealing device as these verbs use it: a token or a TPM.
type keyDevice interface {
	GenerateRSA(ctx context.Context, bits int) (seal.KeyRef, error)
	PublicRSA(ctx context.Context, ref seal.KeyRef) (*rsa.PublicKey, error)
	ImportedRSA(ctx context.Context, ref seal.KeyRef) (bool, error)
	DestroyRSA(ctx context.Context, ref seal.KeyRef) error
}

// withKeyDevice lends the open device of the configuration.
func withKeyDevice(cmd *cobra.Command, use func(context.Context, keyDevice) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	if cfg.Provider.TPM != nil {
		return withTPM(cmd, func(ctx context.Context, _ config.TPM, p *tpm.Provider) error { return use(ctx, p) })
	}
	return withToken(cmd, func(ctx context.Context, p *hsm.Provider) error { return use(ctx, p) })
}

// describe looks a key up and says where it comes from.
func describe(ctx context.Context, d keyDevice, ref seal.KeyRef) (public *rsa.PublicKey, from string, err error) {
	if public, err = d.PublicRSA(ctx, ref); err != nil {
		return nil, "", err
	}
	if _, isTPM := d.(*tpm.Provider); isTPM {
		return public, "made in the TPM", nil
	}
	imported, err := d.ImportedRSA(ctx, ref)
	return public, origin(imported), err
}

// listTPMKeys lists the decryption keys in a TPM, which are all made in it.
func listTPMKeys(ctx context.Context, out io.Writer, p *tpm.Provider) error {
	refs, err := p.ListRSA(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "key_ref\tbits\torigin\topened")
	for _, ref := range refs {
		public, from, err := describe(ctx, p, ref)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%d\t%s\tby the TPM\n", ref, public.N.BitLen(), from)
	}
	return w.Flush()
}

// withToken lends the open token of the configuration.
func withToken(cmd *cobra.Command, use func(context.Context, *hsm.Provider) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	if cfg.Provider.PKCS11 == nil {
		return fmt.Errorf("opening the sealing device: %w: only a PKCS#11 token takes a key from outside", seal.ErrUnsupported)
	}
	p, err := hsm.Open(cmd.Context(), cfg.HSM(nil))
	if err != nil {
		return err
	}
	defer p.Close()
	return use(cmd.Context(), p)
}

func printRSAKey(ctx context.Context, w io.Writer, d keyDevice, ref seal.KeyRef) error {
	public, from, err := describe(ctx, d, ref)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "key_ref  %s\nbits     %d\norigin   %s\n", ref, public.N.BitLen(), from)
	return printPublic(w, public)
}

func origin(imported bool) string {
	if imported {
		return "imported"
	}
	return "made in the token"
}

// printPublic writes an RSA or ECDSA key as PEM.
func printPublic(w io.Writer, public any) error {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	return pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// maxKeyFile is far above the 3 KiB of a 4096-bit key.
const maxKeyFile = 64 << 10

// readPrivateKey reads the one PEM block of a file. The caller wipes the result.
func readPrivateKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	defer f.Close()
	text := make([]byte, maxKeyFile)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err == nil {
		return nil, fmt.Errorf("reading the private key: %s has more than %d bytes", path, maxKeyFile-1)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	block, rest := pem.Decode(text[:n])
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("reading the private key: %s does not hold one PEM block and nothing else", path)
	}
	if block.Type != "PRIVATE KEY" {
		clear(block.Bytes)
		return nil, hinted{fmt.Errorf("reading the private key: %s is PEM of type %q, not PRIVATE KEY", path, block.Type),
			"openssl pkcs8 -topk8 -nocrypt -in " + path + " -out NEW, where nobody else can read"}
	}
	return block.Bytes, nil
}
